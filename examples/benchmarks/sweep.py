"""Partitions side by side: every legal cut of a kernel, measured, so that the best guess can learn.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.sweep --rows 'full-d64-*' --out results

For each row: tiles of rows and columns, warps and stages in all combinations that fit, with and
without tensor descriptors. Compilation is spread over processes first, for it takes longer than
measuring. What is printed is milliseconds, fastest first; ``sweep.json`` has all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch

import einfall
import einfall.examples
from einfall.examples.benchmarks.reference import inputs
from einfall.examples.benchmarks.report import machine
from einfall.examples.benchmarks.rows import ROWS, Row, select


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to cut a kernel over a tiled rank ``p`` and a streamed rank ``m``."""

    rows: int
    columns: int
    warps: int
    stages: int
    described: bool


def cuts(d: int) -> list[Cut]:
    """Return the combinations worth trying for a feature size."""
    found = []
    for rows, columns, warps, stages in product((64, 128), (32, 64, 128), (4, 8), (2, 3, 4)):
        if rows * max(columns, d) // warps > 128 * 128 // 4 or (rows, warps) == (64, 8):
            continue  # does not fit the registers, or has less than 16 rows a warp
        for described in (False, True):
            found.append(Cut(rows, columns, warps, stages, described))
    return found


def call(row: Row, cut: Cut) -> einfall.Compiled:
    """Return the row's example, compiled with this cut."""
    return einfall.compile(
        getattr(einfall.examples, row.example),
        backend="triton",
        tiles={"p": cut.rows, "m": cut.columns},
        num_warps=cut.warps,
        num_stages=cut.stages,
        descriptors=cut.described,
    )


def compile_one(name: str, cut: Cut) -> str:
    """Compile one cut in a process of its own; returns why it failed, or nothing."""
    (row,) = select(ROWS, [name])
    try:
        call(row, cut)(*inputs(row), **dict(row.parameters))
        torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
    return ""


def measure(row: Row, cut: Cut, rep: int) -> float:
    """Return the median milliseconds of a call."""
    from triton.testing import do_bench  # type: ignore[import-untyped]

    tensors, compiled = inputs(row), call(row, cut)
    parameters = dict(row.parameters)
    return float(do_bench(lambda: compiled(*tensors, **parameters), 10, rep, return_mode="median"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, measure, print and write."""
    parser = argparse.ArgumentParser(description="partitions side by side")
    parser.add_argument("--rows", nargs="+", default=["full-*", "causal-*"])
    parser.add_argument("--rep", type=int, default=25, help="milliseconds of each timing")
    parser.add_argument("--best", type=int, default=6, help="how many to print of each row")
    parser.add_argument("--out", type=Path, help="folder for sweep.json")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("a GPU is needed")
    rows = select(ROWS, options.rows)
    jobs = [(row, cut) for row in rows for cut in cuts(row.d)]
    start = time.perf_counter()
    workers = max(1, (os.cpu_count() or 2) - 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        names, tried = [row.name for row, _ in jobs], [cut for _, cut in jobs]
        refusals = list(pool.map(compile_one, names, tried))
    print(f"{len(jobs)} compiled in {time.perf_counter() - start:.0f} s", flush=True)
    found = []
    for (row, cut), refusal in zip(jobs, refusals, strict=True):
        if not refusal:
            found.append((row.name, cut, measure(row, cut, options.rep)))
    for row in rows:
        mine = sorted(
            ((ms, cut) for name, cut, ms in found if name == row.name), key=lambda x: x[0]
        )
        shown = ", ".join(
            f"{ms:.3f} {c.rows}x{c.columns}w{c.warps}s{c.stages}{'d' if c.described else ''}"
            for ms, c in mine[: options.best]
        )
        print(f"{row.name:<18} {shown}")
    print(f"{time.perf_counter() - start:.0f} s; refused {sum(map(bool, refusals))}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        data = {
            "machine": machine(),
            "rows": [{"row": n, **asdict(c), "ms": ms} for n, c, ms in found],
        }
        (options.out / "sweep.json").write_text(json.dumps(data, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
