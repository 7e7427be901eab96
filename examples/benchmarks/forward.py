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
from typing import Any

import torch
from torch import Tensor

import einfall
import einfall.examples
from einfall.examples.benchmarks import peers
from einfall.examples.benchmarks.reference import errors, inputs, reference, sample_of
from einfall.examples.benchmarks.report import OURS, Result, Table, machine
from einfall.examples.benchmarks.rounds import add_options, in_turn, tabulate
from einfall.examples.benchmarks.rows import ROWS, Row, select


def ours(row: Row, tensors: tuple[Tensor, ...], *, atomics: bool = False) -> peers.Call:
    """Return Einfall's call for a row, compiled."""
    return ours_with_kernels(row, tensors, atomics=atomics)[0]


def ours_with_kernels(
    row: Row, tensors: tuple[Tensor, ...], *, atomics: bool = False
) -> tuple[peers.Call, einfall.Compiled]:
    """Return Einfall's call for a row, made once, and what knows its kernels."""
    cascade = getattr(einfall.examples, row.example)
    compiled = einfall.compile(cascade, backend="triton", atomics=atomics)
    parameters = dict(row.parameters)

    def call() -> tuple[Tensor, ...]:
        found = compiled(*tensors, **parameters)
        return found if isinstance(found, tuple) else (found,)

    call()
    return call, compiled


def least(kernels: Any) -> float:
    """Return the milliseconds below which the roofline lets no such kernels get, 0 if unknown."""
    return 1e3 * (kernels.explain().to_dict()["cost"].get("seconds") or 0.0)


def measure(row: Row, who: Sequence[str], rounds: int, rep: int) -> list[Result]:
    """Check and time all implementations of a row."""
    peers.begin()
    tensors = inputs(row)
    sample = sample_of(row)
    expected = reference(row, tensors, sample)
    calls: dict[str, peers.Call] = {}
    found: dict[str, Result] = {}
    for name in who:
        start = time.perf_counter()
        try:
            bound = 0.0
            if name == OURS:
                calls[name], compiled = ours_with_kernels(row, tensors)
                bound = least(compiled)
            else:
                calls[name] = peers.make(name, row, tensors)
            torch.cuda.synchronize()
        except Exception as error:  # whatever stops one of them must not stop the others
            found[name] = Result(row.name, name, refusal=reason(error))
            torch.cuda.empty_cache()
            continue
        first = time.perf_counter() - start
        wrong = tuple(errors(calls[name](), expected, sample))
        found[name] = Result(row.name, name, (), wrong, first_call=first, least=bound)
    for name, values in in_turn(calls, rounds, rep).items():
        found[name] = replace(found[name], milliseconds=values)
    return list(found.values())


def reason(error: Exception) -> str:
    """Return one line on why an implementation gave nothing."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}"[:300]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 if an error of ours is above twice the best peer's."""
    everybody = (OURS, *peers.NAMES)
    parser = argparse.ArgumentParser(description="forward: time and error beside peers")
    add_options(parser, everybody, "forward", 100)
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    options = parser.parse_args(arguments)
    rows = select(ROWS, options.rows)
    if options.list:
        for row in rows:
            print(f"{row.name:<22} {row.flops / 1e12:8.3f} TFLOP  {', '.join(row.peers)}")
        return 0
    if not torch.cuda.is_available():
        parser.error("a GPU is needed; --list works without one")
    return tabulate(Table((), (), machine()), rows, options, measure)


if __name__ == "__main__":
    sys.exit(main())
