"""Compile what the tables measure beforehand, in processes side by side; caches on disk keep it.

::

    python -m einfall.examples.benchmarks.warm
    python -m einfall.examples.benchmarks.warm --rows --backward --sparse --decode '*'

The tables compile one thing after another, which takes longer than measuring. What is tuned by
timing is left out: beside other processes it would be tuned wrongly.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from einfall.examples.benchmarks import (
    backward,
    decode,
    decode_rows,
    forward,
    peers,
    sparse,
    sparse_rows,
)
from einfall.examples.benchmarks.reference import inputs
from einfall.examples.benchmarks.report import ADDED, OURS
from einfall.examples.benchmarks.rows import BACKWARD_ROWS, ROWS, select

COMPILED = (OURS, "flex")

Call = Callable[[], object]


def warm(job: tuple[str, str, str]) -> str:
    """Compile one implementation of one row of one table; return what went wrong, or nothing."""
    table, name, who = job
    peers.begin()
    try:
        MAKERS[table](name, who)
        torch.cuda.synchronize()
    except Exception as error:  # whatever stops one of them must not stop the others
        return f"{table} {name} {who}: {forward.reason(error)}"
    return ""


def make_forward(name: str, who: str) -> Call:
    """Make the call of a row of the forward table."""
    (row,) = select(ROWS, [name])
    tensors = inputs(row)
    return forward.ours(row, tensors) if who == OURS else peers.make(who, row, tensors)


def make_backward(name: str, who: str) -> Call:
    """Make the call of a row of the backward table."""
    (row,) = select(BACKWARD_ROWS, [name])
    tensors = tuple(x.requires_grad_() for x in inputs(row))
    return backward.make(who, row, tensors, torch.randn_like(tensors[0]))[0]


def make_sparse(name: str, who: str) -> Call:
    """Make the call of a row of the sparse table."""
    (row,) = select(sparse_rows.SPARSE_ROWS, [name])
    return sparse.make(who, row, sparse_rows.inputs(row))[0]


def make_decode(name: str, who: str) -> Call:
    """Make the call of a row of the decode table."""
    (row,) = select(decode_rows.DECODE_ROWS, [name])
    return decode.make(who, row, decode_rows.inputs(row))


MAKERS = {
    "forward": make_forward,
    "backward": make_backward,
    "sparse": make_sparse,
    "decode": make_decode,
}
"""What makes the call of a row of each table, and has it compiled."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile all rows of all tables."""
    parser = argparse.ArgumentParser(description="compile what the tables measure")
    parser.add_argument("--rows", nargs="*", default=["*"], help="patterns of the forward table")
    parser.add_argument("--backward", nargs="*", default=["*"], help="of the backward table")
    parser.add_argument("--sparse", nargs="*", default=["*"], help="of the sparse table")
    parser.add_argument(
        "--decode", nargs="*", default=[], help="of the decode table; none if left out"
    )
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("a GPU is needed")
    chosen = [("forward", row) for row in (select(ROWS, options.rows) if options.rows else ())]
    if options.backward:
        chosen += [("backward", row) for row in select(BACKWARD_ROWS, options.backward)]
    if options.sparse:
        chosen += [("sparse", row) for row in select(sparse_rows.SPARSE_ROWS, options.sparse)]
    if options.decode:
        chosen += [("decode", row) for row in select(decode_rows.DECODE_ROWS, options.decode)]
    jobs = [
        (t, row.name, who) for t, row in chosen for who in COMPILED if who in (OURS, *row.peers)
    ]
    jobs += [(t, row.name, ADDED) for t, row in chosen if t == "backward"]
    start = time.perf_counter()
    workers = max(1, (os.cpu_count() or 2) - 1)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for said in pool.map(warm, jobs):
            if said:
                print(said, flush=True)
    print(f"{len(jobs)} compiled in {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
