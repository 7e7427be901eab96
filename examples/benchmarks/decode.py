"""The decode table: one new token a sequence against a long cache, beside copies of as many bytes.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.warm --rows --backward --sparse --decode '*'
    python -m einfall.examples.benchmarks.decode --out results
    python -m einfall.examples.benchmarks.decode --rows 'gqa4-*' 'pages64-*'
    python -m einfall.examples.benchmarks.plot results/decode.json results

A call reads every key and value once, so its bound is memory. Two copies are timed in the same run:
one of half a gigabyte, whose bandwidth is the measure, and for each row one that moves as many
bytes as the call reads. Before every call the cache of the device is filled with zeros, which are
still to be written back, and short calls wait for that as short copies do. Each row is compared
with float64 first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import einfall
import einfall.examples
from einfall.examples.benchmarks import peers
from einfall.examples.benchmarks.decode_rows import (
    DECODE_ROWS,
    DecodeRow,
    arguments,
    attend,
    inputs,
    options,
    reference,
)
from einfall.examples.benchmarks.forward import reason
from einfall.examples.benchmarks.report import COPY, OURS, Result, Table, machine
from einfall.examples.benchmarks.rounds import add_options, in_turn, tabulate
from einfall.examples.benchmarks.rows import Row, select

PEERS = ("sdpa-flash", "sdpa-cudnn", "flex", "torch")


@dataclass(frozen=True, slots=True)
class DecodeTable(Table):
    """The table of decode rows.

    long : what a long copy moves, reading and writing, in TB/s; 0 if it was not measured.
    """

    name: str = "decode"
    about: str = (
        "Microseconds, medians of rounds of medians. A copy moves as many bytes as the call reads; "
        "rate: what we read a second, beside what a long copy moves."
    )
    long: float = 0.0

    def rate(self, row: DecodeRow) -> float | None:
        """Return what our call reads, in TB/s."""
        ours = self.of(row, OURS)
        return row.moved / ours.ms / 1e9 if ours else None

    def row_data(self, row: Row) -> dict[str, Any]:
        """Return a row as data, with the bytes that it reads and the rate of a long copy."""
        assert isinstance(row, DecodeRow)
        names = ("name", "example", "batch", "heads", "n", "d", "group", "less")
        return {name: getattr(row, name) for name in names} | {
            "moved": row.moved,
            "long": self.long,
        }

    def lines(self) -> list[list[str]]:
        """Return the table's cells, the headings first."""
        others = self.peers()
        heads = ["row", "MB", COPY, OURS, "TB/s", "of a long copy's", *others]
        lines = [[*heads, "best peer / ours", "error / best peer's"]]
        for row in self.rows:
            assert isinstance(row, DecodeRow)
            best, rate, ratio = self.best(row), self.rate(row), self.error_ratio(row)
            ours = self.of(row, OURS)
            lines.append(
                [
                    row.name + (" *" if row.less else ""),
                    f"{row.moved / 1e6:.0f}",
                    self.cell(row, COPY),
                    self.cell(row, OURS),
                    f"{rate:.2f}" if rate else "-",
                    f"{rate / self.long:.0%}" if rate and self.long else "-",
                    *(self.cell(row, who) for who in others),
                    f"{best.ms / ours.ms:.3f} ({best.who})" if ours and best else "-",
                    f"{ratio:.2f}" if ratio is not None else "-",
                ]
            )
        return lines

    def cell(self, row: DecodeRow, who: str) -> str:
        """Return somebody's microseconds."""
        found = self.of(row, who)
        return f"{1e3 * found.ms:.1f}" if found else "-"

    def notes(self) -> list[str]:
        """Return what the cells cannot say, and the long copy."""
        said = super(DecodeTable, self).notes()
        return [f"a long copy moves {self.long:.2f} TB/s", *said] if self.long else said


def ours(row: DecodeRow, tensors: tuple[Tensor, ...]) -> peers.Call:
    """Return Einfall's call for a row, compiled; O is [b, h, 1, f] as everybody's."""
    cascade = getattr(einfall.examples, row.example)
    compiled = einfall.compile(cascade, backend="triton", **options(row))
    given, parameters = arguments(row, tensors), dict[str, Any](row.parameters)
    shape = (row.batch, row.heads, 1, tensors[2].shape[-1])

    def call() -> tuple[Tensor, ...]:
        found: Tensor = compiled(*given, **parameters)
        return (found.view(shape),)

    call()
    return call


def make(who: str, row: DecodeRow, tensors: tuple[Tensor, ...]) -> peers.Call:
    """Return somebody's call for a row."""
    if who == OURS:
        return ours(row, tensors)
    if who == "torch":
        return lambda: (attend(row, *tensors),)
    # one row against all keys has no key behind it, and pages are a matter of memory
    return peers.make(who, replace(row, example="attention", parameters={}), tensors)


def copying(row: DecodeRow) -> peers.Call:
    """Return a copy that reads and writes as many bytes, together, as a call reads."""
    source = torch.empty(row.moved // 2, dtype=torch.int8, device="cuda")
    goal = torch.empty_like(source)
    return lambda: (goal.copy_(source),)


def copy_bandwidth(rep: int) -> float:
    """Return what a copy of half a gigabyte moves, reading and writing, in TB/s."""
    from triton.testing import do_bench  # type: ignore[import-untyped]

    source = torch.empty(1 << 29, dtype=torch.int8, device="cuda")
    goal = torch.empty_like(source)
    time = do_bench(lambda: goal.copy_(source), warmup=10, rep=rep, return_mode="median")
    return float(2 * source.numel() / time / 1e9)


def measure(row: Any, who: Sequence[str], rounds: int, rep: int) -> list[Result]:
    """Check and time all implementations of a row, and a copy."""
    peers.begin()
    tensors = inputs(row)
    expected = reference(row, tensors)
    calls: dict[str, peers.Call] = {}
    found: dict[str, Result] = {}
    for name in who:
        start = time.perf_counter()
        try:
            call = make(name, row, tensors)
            (output,) = call()
            wrong = float((output.double() - expected).norm() / expected.norm())
            if not wrong < 1e-2:
                raise RuntimeError(f"computes something else: its error is {wrong:.1e}")
        except Exception as problem:  # whatever stops one of them must not stop the others
            found[name] = Result(row.name, name, refusal=reason(problem))
            torch.cuda.empty_cache()
            continue
        first = time.perf_counter() - start
        calls[name] = call
        found[name] = Result(row.name, name, (), (wrong,), first_call=first)
    calls[COPY], found[COPY] = copying(row), Result(row.name, COPY)
    for name, values in in_turn(calls, rounds, rep).items():
        found[name] = replace(found[name], milliseconds=values)
    return list(found.values())


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 if an error of ours is above twice the best's."""
    parser = argparse.ArgumentParser(description="decode, beside copies of as many bytes")
    add_options(parser, (OURS, *PEERS), "decode", 20)
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    chosen = parser.parse_args(given)
    rows = select(DECODE_ROWS, chosen.rows)
    if chosen.list:
        for row in rows:
            print(f"{row.name:<22} {row.moved / 1e6:7.0f} MB  {', '.join(row.peers)}")
        return 0
    if not torch.cuda.is_available():
        parser.error("a GPU is needed; --list works without one")
    table = DecodeTable((), (), machine(), long=copy_bandwidth(100))
    return tabulate(table, rows, chosen, measure)


if __name__ == "__main__":
    sys.exit(main())
