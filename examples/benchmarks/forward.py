"""The forward table: Einfall beside SDPA and FlexAttention, error first, then time.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.forward --out results
    python -m einfall.examples.benchmarks.forward --rows 'causal-*' --peers einfall sdpa-cudnn

Each row: all implementations compute once and are compared with float64; then they are timed in
turn, several rounds, so that the clock's drift meets all alike. After each row the files are
written anew, and no row begins when ``--seconds`` have passed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import einfall
import einfall.examples
from einfall.examples.benchmarks import peers
from einfall.examples.benchmarks.reference import errors, inputs, reference, sample_of
from einfall.examples.benchmarks.report import OURS, Result, Table, machine
from einfall.examples.benchmarks.rows import ROWS, Row, select


def ours(row: Row, tensors: tuple[Tensor, ...]) -> peers.Call:
    """Return Einfall's call for a row, compiled."""
    return ours_and_least(row, tensors)[0]


def ours_and_least(row: Row, tensors: tuple[Tensor, ...]) -> tuple[peers.Call, float]:
    """Return Einfall's call and the milliseconds that the roofline gives its kernels."""
    compiled = einfall.compile(getattr(einfall.examples, row.example), backend="triton")
    parameters = dict(row.parameters)

    def call() -> tuple[Tensor, ...]:
        found = compiled(*tensors, **parameters)
        return found if isinstance(found, tuple) else (found,)

    call()
    cost = compiled.explain().to_dict()["cost"]
    return call, 1e3 * (cost.get("seconds") or 0.0)


def measure(row: Row, who: Sequence[str], rounds: int, rep: int) -> list[Result]:
    """Check and time all implementations of a row."""
    from triton.testing import do_bench  # type: ignore[import-untyped]

    peers.begin()
    tensors = inputs(row)
    sample = sample_of(row)
    expected = reference(row, tensors, sample)
    calls: dict[str, peers.Call] = {}
    found: dict[str, Result] = {}
    for name in who:
        start = time.perf_counter()
        try:
            least = 0.0
            if name == OURS:
                calls[name], least = ours_and_least(row, tensors)
            else:
                calls[name] = peers.make(name, row, tensors)
            torch.cuda.synchronize()
        except Exception as error:  # whatever stops one of them must not stop the others
            found[name] = Result(row.name, name, refusal=reason(error))
            torch.cuda.empty_cache()
            continue
        first = time.perf_counter() - start
        wrong = tuple(errors(calls[name](), expected, sample))
        found[name] = Result(row.name, name, (), wrong, first_call=first, least=least)
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for turn in range(rounds):
        # each round begins with another one, so that nobody always meets the warmest device
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            call = calls[name]
            times[name].append(float(do_bench(call, warmup=25, rep=rep, return_mode="median")))
    for name, values in times.items():
        found[name] = replace(found[name], milliseconds=tuple(values))
    return list(found.values())


def reason(error: Exception) -> str:
    """Return one line on why an implementation gave nothing."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}"[:300]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 if an error of ours is above twice the best peer's."""
    everybody = (OURS, *peers.NAMES)
    parser = argparse.ArgumentParser(description="forward: time and error beside peers")
    parser.add_argument("--rows", nargs="+", default=["*"], help="patterns, e.g. 'causal-*'")
    parser.add_argument("--peers", nargs="+", default=list(everybody), choices=everybody)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rep", type=int, default=100, help="milliseconds of each timing")
    parser.add_argument("--seconds", type=float, default=500, help="begin no row after that")
    parser.add_argument("--out", type=Path, help="folder for forward.json and forward.md")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    options = parser.parse_args(arguments)
    rows = select(ROWS, options.rows)
    if options.list:
        for row in rows:
            print(f"{row.name:<22} {row.flops / 1e12:8.3f} TFLOP  {', '.join(row.peers)}")
        return 0
    if not torch.cuda.is_available():
        parser.error("a GPU is needed; --list works without one")
    start = time.perf_counter()
    table = Table((), (), machine())
    for row in rows:
        if time.perf_counter() - start > options.seconds:
            print(f"{row.name} and what follows is left out: {options.seconds:.0f} s have passed")
            break
        who = [name for name in (*peers.NAMES, OURS) if name in options.peers]
        who = [name for name in who if name == OURS or name in row.peers]
        found = measure(row, who, options.rounds, options.rep)
        table = Table((*table.rows, row), (*table.results, *found), table.machine)
        print(Table((row,), tuple(found)).text(), flush=True)
        if options.out:
            table.write(options.out)
        torch.cuda.empty_cache()
    print(f"\n{table.text()}\n{time.perf_counter() - start:.0f} s")
    ratios = [ratio for row in table.rows if (ratio := table.error_ratio(row)) is not None]
    return int(any(ratio > 2 for ratio in ratios))


if __name__ == "__main__":
    sys.exit(main())
