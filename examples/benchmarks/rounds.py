"""What the tables share: their options, timing in turn, and rows one after the other."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from einfall.examples.benchmarks.report import OWN, Result, Table
from einfall.examples.benchmarks.rows import Row

Measure = Callable[[Row, Sequence[str], int, int], list[Result]]
"""Takes a row, who computes it, the number of rounds and the milliseconds of each timing."""

SLOW = ("flex-tuned",)
"""Peers that try out so much that they are left out unless they are named."""


def add_options(
    parser: argparse.ArgumentParser, everybody: Sequence[str], name: str, rep: int
) -> None:
    """Give a table's command its options; ``rep`` is the default length of a timing."""
    parser.add_argument("--rows", nargs="+", default=["*"], help="patterns, e.g. 'causal-*'")
    parser.add_argument(
        "--peers",
        nargs="+",
        default=[x for x in everybody if x not in SLOW],
        choices=everybody,
        help=f"who is measured; {', '.join(SLOW)}, which takes minutes, only if named",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rep", type=int, default=rep, help="milliseconds of each timing")
    parser.add_argument("--seconds", type=float, default=500, help="begin no row after that")
    parser.add_argument("--out", type=Path, help=f"folder for {name}.json and {name}.md")


def in_turn(
    calls: Mapping[str, Callable[[], object]], rounds: int, rep: int
) -> dict[str, tuple[float, ...]]:
    """Return the median milliseconds of every call, one for each round."""
    from triton.testing import do_bench  # type: ignore[import-untyped]

    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for turn in range(rounds):
        # each round begins with another one, so that nobody always meets the warmest device
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            call = calls[name]
            times[name].append(float(do_bench(call, warmup=25, rep=rep, return_mode="median")))
    return {name: tuple(values) for name, values in times.items()}


def tabulate(
    table: Table, rows: Sequence[Row], options: argparse.Namespace, measure: Measure
) -> int:
    """Measure rows, print and write. Returns 1 if an error of ours is above twice the best's."""
    start = time.perf_counter()
    for row in rows:
        if time.perf_counter() - start > options.seconds:
            print(f"{row.name} and what follows is left out: {options.seconds:.0f} s have passed")
            break
        who = [name for name in options.peers if name in row.peers]
        who += [name for name in OWN if name in options.peers]
        found = measure(row, who, options.rounds, options.rep)
        table = replace(table, rows=(*table.rows, row), results=(*table.results, *found))
        shown = tuple(x for x in table.results if x.row == row.plain and x.who in OWN)
        print(replace(table, rows=(row,), results=(*shown, *found)).text(), flush=True)
        if options.out:
            table.write(options.out)
        torch.cuda.empty_cache()
    print(f"\n{table.text()}\n{time.perf_counter() - start:.0f} s")
    ratios = [ratio for row in table.rows if (ratio := table.error_ratio(row)) is not None]
    return int(any(ratio > 2 for ratio in ratios))
