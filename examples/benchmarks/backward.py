"""The backward table: derived gradients beside SDPA's and FlexAttention's, error first, then time.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.backward --out results

What is timed is the backward alone, with the forward's outputs kept. Its work is counted as 2.5
times that of the forward: five products over existing pairs where the forward has two.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from einfall.examples.benchmarks import forward, peers
from einfall.examples.benchmarks.reference import inputs, scores
from einfall.examples.benchmarks.report import OURS, Result, Table, machine
from einfall.examples.benchmarks.rows import BACKWARD_ROWS, Row, select

ABOUT = "TFLOP/s of the five products over existing pairs; the backward alone; medians of medians."
Gradients = tuple[Tensor, ...]


def reference(row: Row, tensors: Sequence[Tensor], seed: Tensor) -> Gradients:
    """Return the gradients of the first key head and its query heads in float64, by torch.

    They are dQ of shape (group, n, d), dK and dV of shape (n, d); ``seed`` is the gradient of O.
    """
    group = row.group
    Q, K, V = (x.detach()[0].double() for x in tensors[:3])
    q, k, v = (x.clone().requires_grad_() for x in (Q[:group], K[0], V[0]))
    place = torch.arange(row.n, device=q.device).double()
    gradients = [torch.zeros_like(x) for x in (q, k, v)]
    for g in range(group):
        S = scores(row, q[g] @ k.T * row.d**-0.5, place[:, None], place, 0.0)
        found = torch.autograd.grad(S.softmax(-1) @ v, (q, k, v), seed[0, g].double())
        for total, x in zip(gradients, found, strict=True):
            total += x
    return tuple(gradients)


def errors(found: Gradients, expected: Gradients, row: Row) -> tuple[float, ...]:
    """Return the relative error of dQ, dK and dV in the L2 norm, where the reference has them."""
    taken = (found[0][0, : row.group], found[1][0, 0], found[2][0, 0])
    return tuple(
        float((x.double() - y).norm() / y.norm()) for x, y in zip(taken, expected, strict=True)
    )


def make(name: str, row: Row, tensors: tuple[Tensor, ...], seed: Tensor) -> Callable[[], Gradients]:
    """Return a function that computes the gradients again and again from one forward."""
    call = forward.ours(row, tensors) if name == OURS else peers.make(name, row, tensors)
    output = call()[0]

    def gradients() -> Gradients:
        return torch.autograd.grad(output, tensors[:3], seed, retain_graph=True)

    gradients()
    return gradients


def measure(row: Row, who: Sequence[str], rounds: int, rep: int) -> list[Result]:
    """Check and time all implementations of a row."""
    from triton.testing import do_bench  # type: ignore[import-untyped]

    peers.begin()
    tensors = tuple(x.requires_grad_() for x in inputs(row))
    seed = torch.randn_like(tensors[0])
    expected = reference(row, tensors, seed)
    torch.cuda.empty_cache()
    calls: dict[str, Callable[[], Gradients]] = {}
    found: dict[str, Result] = {}
    for name in who:
        try:
            calls[name] = make(name, row, tensors, seed)
            torch.cuda.synchronize()
        except Exception as error:  # whatever stops one of them must not stop the others
            found[name] = Result(row.name, name, refusal=forward.reason(error))
            continue
        found[name] = Result(row.name, name, errors=errors(calls[name](), expected, row))
    del expected
    order = list(calls)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            times[name].append(
                float(do_bench(calls[name], warmup=25, rep=rep, return_mode="median"))
            )
    for name, values in times.items():
        found[name] = replace(found[name], milliseconds=tuple(values))
    return list(found.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 if an error of ours is above twice the best peer's."""
    everybody = (OURS, *peers.NAMES[:3])
    parser = argparse.ArgumentParser(description="backward: time and error beside peers")
    parser.add_argument("--rows", nargs="+", default=["*"], help="patterns, e.g. 'causal-*'")
    parser.add_argument("--peers", nargs="+", default=list(everybody), choices=everybody)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rep", type=int, default=60, help="milliseconds of each timing")
    parser.add_argument("--seconds", type=float, default=500, help="begin no row after that")
    parser.add_argument("--out", type=Path, help="folder for backward.json and backward.md")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("a GPU is needed")
    start = time.perf_counter()
    table = Table((), (), machine(), "backward", ABOUT, 2.5)
    for row in select(BACKWARD_ROWS, options.rows):
        if time.perf_counter() - start > options.seconds:
            print(f"{row.name} and what follows is left out: {options.seconds:.0f} s have passed")
            break
        who = [name for name in (*peers.NAMES, OURS) if name in options.peers]
        who = [name for name in who if name == OURS or name in row.peers]
        found = measure(row, who, options.rounds, options.rep)
        table = replace(table, rows=(*table.rows, row), results=(*table.results, *found))
        print(replace(table, rows=(row,), results=tuple(found)).text(), flush=True)
        if options.out:
            table.write(options.out)
        torch.cuda.empty_cache()
    print(f"\n{table.text()}\n{time.perf_counter() - start:.0f} s")
    ratios = [ratio for row in table.rows if (ratio := table.error_ratio(row)) is not None]
    return int(any(ratio > 2 for ratio in ratios))


if __name__ == "__main__":
    sys.exit(main())
