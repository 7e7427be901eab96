"""How much work a kernel's tiles do on each point, beside products."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.cascade import Einsum
from ..ir.expression import Access, Apply, Expression, children, walk
from ..ir.mapping import MappedKernel

REAL = ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "tanh", "sigmoid", "erf", "sin", "cos", "/")
"""Operators that take several instructions a point."""


def transcendental(kernel: MappedKernel) -> int:
    """Return how many exponentials, logarithms and tangents the work on a tile takes of a point."""
    kinds = ("exp", "exp2", "log", "log2", "tanh", "sigmoid")
    bodies = [x.body for t in kernel.traversals for x in t.streaming.body if isinstance(x, Einsum)]
    return sum(isinstance(x, Apply) and x.operator in kinds for b in bodies for x in walk(b))


def functions(kernel: MappedKernel) -> int:
    """Return how many functions of several instructions the work on a tile takes of each point."""
    bodies = [x.body for t in kernel.traversals for x in t.streaming.body if isinstance(x, Einsum)]
    return sum(isinstance(x, Apply) and x.operator in REAL for b in bodies for x in walk(b))


def little_work(kernel: MappedKernel) -> bool:
    """Whether the work on a point is a power of two, products and differences."""
    bodies = [x.body for t in kernel.traversals for x in t.streaming.body if isinstance(x, Einsum)]
    return all(
        not isinstance(x, Apply) or x.operator in ("exp2", "*", "-")
        for b in bodies
        for x in outside_accesses(b)
    )


def outside_accesses(value: Expression) -> Iterator[Expression]:
    """Yield an expression and what it is made of, but for the coordinates at which tensors are."""
    yield value
    for x in () if isinstance(value, Access) else children(value):
        yield from outside_accesses(x)
