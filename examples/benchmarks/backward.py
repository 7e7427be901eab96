"""The backward table: derived gradients beside SDPA's and FlexAttention's, error first, then time.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.backward --out results

What is timed is the backward alone, with the forward's outputs kept. Its work is counted as 2.5
times that of the forward: five products over existing pairs where the forward has two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from einfall.examples.benchmarks import forward, peers
from einfall.examples.benchmarks.reference import inputs, scores
from einfall.examples.benchmarks.report import ADDED, OWN, Result, Table, machine
from einfall.examples.benchmarks.rounds import add_options, in_turn, tabulate
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


def make(
    name: str, row: Row, tensors: tuple[Tensor, ...], seed: Tensor
) -> tuple[Callable[[], Gradients], float]:
    """Return what computes the gradients again and again from one forward, and its roofline.

    That is in milliseconds, and 0 for a peer.
    """
    compiled = None
    if name in OWN:
        call, compiled = forward.ours_with_kernels(row, tensors, atomics=name == ADDED)
    else:
        call = peers.make(name, row, tensors)
    output = call()[0]

    def gradients() -> Gradients:
        return torch.autograd.grad(output, tensors[:3], seed, retain_graph=True)

    gradients()
    return gradients, forward.least(compiled.gradient) if compiled else 0.0


def measure(row: Row, who: Sequence[str], rounds: int, rep: int) -> list[Result]:
    """Check and time all implementations of a row."""
    peers.begin()
    tensors = tuple(x.requires_grad_() for x in inputs(row))
    seed = torch.randn_like(tensors[0])
    expected = reference(row, tensors, seed)
    torch.cuda.empty_cache()
    calls: dict[str, Callable[[], Gradients]] = {}
    found: dict[str, Result] = {}
    for name in who:
        try:
            calls[name], bound = make(name, row, tensors, seed)
            torch.cuda.synchronize()
        except Exception as error:  # whatever stops one of them must not stop the others
            found[name] = Result(row.name, name, refusal=forward.reason(error))
            continue
        wrong = errors(calls[name](), expected, row)
        found[name] = Result(row.name, name, errors=wrong, least=bound)
    del expected
    for name, values in in_turn(calls, rounds, rep).items():
        found[name] = replace(found[name], milliseconds=values)
    return list(found.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 if an error of ours is above twice the best peer's."""
    everybody = (*OWN, *peers.NAMES[:3])
    parser = argparse.ArgumentParser(description="backward: time and error beside peers")
    add_options(parser, everybody, "backward", 60)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("a GPU is needed")
    table = Table((), (), machine(), "backward", ABOUT, 2.5)
    return tabulate(table, select(BACKWARD_ROWS, options.rows), options, measure)


if __name__ == "__main__":
    sys.exit(main())
