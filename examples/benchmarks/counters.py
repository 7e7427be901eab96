"""What a row's kernels keep busy, by the counters of the device, as Nsight Compute reads them.

Run it on a GPU, where ``ncu`` may read counters, from the root of the checkout::

    python -m einfall.examples.benchmarks.counters --forward 'causal-d128-*' --out results
    python -m einfall.examples.benchmarks.counters --sparse 'window-*' --backward '*-d64-*'

Every row makes one call that is counted, after two that are not. Clocks are left as they are, and
caches as the call before left them; still a kernel that is replayed for one group of counters after
another is cooler than one that is timed for seconds, so times here are no measurement of speed.

A pipe's per cent are of the cycles in which a multiprocessor had work. ``products`` is the pipe of
matrix products, ``special`` that of exponentials, tangents and reciprocals, ``issued`` the share of
cycles in which a scheduler issued an instruction.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from einfall.examples.benchmarks import decode_rows, sparse_rows
from einfall.examples.benchmarks.report import ADDED, OURS, machine
from einfall.examples.benchmarks.rows import BACKWARD_ROWS, ROWS, Row, select

ROWS_OF: dict[str, Sequence[Row]] = {
    "forward": ROWS,
    "backward": BACKWARD_ROWS,
    "sparse": sparse_rows.SPARSE_ROWS,
    "decode": decode_rows.DECODE_ROWS,
}
"""The rows of each table."""

ACTIVE = "avg.pct_of_peak_sustained_active"

COUNTERS = {
    "ms": ("gpu__time_duration.sum", 1e-6),
    "GHz": ("sm__cycles_elapsed.avg.per_second", 1e-9),
    "products %": (f"sm__pipe_tensor_cycles_active.{ACTIVE}", 1),
    "special %": (f"sm__inst_executed_pipe_xu.{ACTIVE}", 1),
    "fma %": (f"sm__pipe_fma_cycles_active.{ACTIVE}", 1),
    "alu %": (f"sm__pipe_alu_cycles_active.{ACTIVE}", 1),
    "issued %": (f"smsp__issue_active.{ACTIVE}", 1),
    "M instructions": ("smsp__inst_executed.sum", 1e-6),
    "M local": ("sass__inst_executed_register_spilling_mem_local", 1e-6),
    "L2 %": ("lts__throughput.avg.pct_of_peak_sustained_elapsed", 1),
    "L2 hit %": ("lts__t_sector_hit_rate.pct", 1),
    "DRAM TB/s": ("dram__bytes.sum.per_second", 1e-12),
}
"""Columns of the table: the counter, and what its base unit is multiplied by."""


@dataclass(frozen=True, slots=True)
class Counted:
    """One kernel of one row, with a number for each of `COUNTERS` that was read."""

    row: str
    kernel: str
    numbers: dict[str, float]


def count(jobs: Sequence[str], ncu: str) -> list[Counted]:
    """Call every job, ``table:row:who``, in one process under ``ncu``; return all its kernels.

    Raises RuntimeError with what ``ncu`` said if it read nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "counters.csv"
        command = [ncu, "--clock-control", "none", "--cache-control", "none"]
        command += ["--profile-from-start", "off", "--nvtx", "--print-nvtx-rename", "kernel"]
        command += ["--metrics", ",".join(name for name, _ in COUNTERS.values())]
        command += ["--csv", "--page", "raw", "--print-units", "base", "--log-file", str(log)]
        command += [sys.executable, "-m", __spec__.name, "--call", *jobs]
        done = subprocess.run(command, check=False)
        text = log.read_text() if log.exists() else ""
    found = read(text.splitlines())
    if not found:
        raise RuntimeError(f"ncu read no counter (exit status {done.returncode}): {text[-500:]}")
    return found


def read(lines: Iterable[str]) -> list[Counted]:
    """Return what a raw page of ``ncu``, in CSV, says of each kernel; a line above it is left out.

    Kernels are called ``range/kernel`` there, where the range is a job.
    """
    rows = [row for row in csv.reader(lines) if row]
    first = next((i for i, row in enumerate(rows) if row[0] == "ID"), len(rows))
    found = []
    for row in rows[first + 2 :]:
        cells = dict(zip(rows[first], row, strict=True))
        job, _, kernel = cells["Kernel Name"].rpartition("/")
        numbers = {
            column: scale * float(cells[name].replace(",", ""))
            for column, (name, scale) in COUNTERS.items()
            if cells.get(name, "").replace(",", "").replace(".", "").isdigit()
        }
        found.append(Counted(job.replace(f":{OURS}", ""), kernel, numbers))
    return found


def call(jobs: Sequence[str]) -> None:
    """Make the calls of rows, three times each, and let the last one be counted."""
    from einfall.examples.benchmarks import forward, peers
    from einfall.examples.benchmarks.warm import MAKERS

    peers.begin()
    for job in jobs:
        table, name, who = job.split(":")
        try:
            # a range belongs to a thread, so that gradients have to be made in this one
            with torch.autograd.set_multithreading_enabled(False):
                made = MAKERS[table](name, who)
                made(), made()
                torch.cuda.synchronize()
                torch.cuda.nvtx.range_push(job)  # type: ignore[no-untyped-call]
                torch.cuda.profiler.start()  # type: ignore[no-untyped-call]
                made()
                torch.cuda.synchronize()
                torch.cuda.profiler.stop()  # type: ignore[no-untyped-call]
                torch.cuda.nvtx.range_pop()  # type: ignore[no-untyped-call]
            del made
        except Exception as error:  # whatever stops one of them must not stop the others
            print(f"{job}: {forward.reason(error)}", flush=True)
        torch.cuda.empty_cache()


def text(counted: Sequence[Counted]) -> str:
    """Return a table in markdown."""
    heads = ["row", "kernel", *COUNTERS]
    lines = [heads, ["---"] * len(heads)]
    for one in counted:
        cells = [f"{one.numbers[c]:.3g}" if c in one.numbers else "-" for c in COUNTERS]
        lines.append([one.row, one.kernel, *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(counted: Sequence[Counted], folder: Path) -> None:
    """Write ``counters.json`` and ``counters.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    about = machine()
    data = {"machine": about, "results": [asdict(x) for x in counted]}
    (folder / "counters.json").write_text(json.dumps(data, indent=1) + "\n")
    heading = "# Counters\n\n" + "; ".join(f"{name} {value}" for name, value in about.items())
    says = (
        "One call of each row, a line for each kernel. Pipes in per cent of the cycles in which"
        " multiprocessors had work; M: millions, of a warp's instructions; local: accesses of"
        " registers that were spilled."
    )
    (folder / "counters.md").write_text(f"{heading}\n\n{says}\n\n{text(counted)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print and write."""
    parser = argparse.ArgumentParser(description="what kernels keep busy, by hardware counters")
    for table in ROWS_OF:
        parser.add_argument(f"--{table}", nargs="+", default=[], help="patterns of its rows")
    parser.add_argument("--peers", nargs="+", default=[OURS], help=f"whose; {OURS}, {ADDED}, ...")
    parser.add_argument("--ncu", help="Nsight Compute's command, if PATH does not have it")
    parser.add_argument("--out", type=Path, help="folder for counters.json and counters.md")
    parser.add_argument("--call", nargs="+", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.call:
        call(options.call)
        return 0
    chosen = [(t, row) for t in ROWS_OF for row in patterns(parser, t, getattr(options, t))]
    jobs = [f"{t}:{row.name}:{who}" for t, row in chosen for who in options.peers]
    if not jobs:
        parser.error(f"name rows, as in --forward 'causal-*'; tables are {', '.join(ROWS_OF)}")
    if not torch.cuda.is_available():
        parser.error("a GPU is needed")
    ncu = options.ncu or shutil.which("ncu") or shutil.which("ncu", path="/usr/local/cuda/bin")
    if not ncu:
        parser.error("Nsight Compute's ncu was not found; --ncu says where it is")
    counted = count(jobs, ncu)
    print(text(counted))
    if options.out:
        write(counted, options.out)
    return 0


def patterns(parser: argparse.ArgumentParser, table: str, given: Sequence[str]) -> Sequence[Row]:
    """Return the rows of a table that are named, or end with what was wrong."""
    try:
        return select(ROWS_OF[table], given) if given else ()
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
