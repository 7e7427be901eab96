"""How much work a kernel's tiles do on each point, beside products."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.cascade import Einsum
from ..ir.expression import Access, Apply, Expression, children, walk
from ..ir.mapping import MappedKernel

REAL = ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "tanh", "sigmoid", "erf", "sin", "cos", "/")
"""Operators that take several instructions a point."""


EXPONENTIAL = ("exp", "exp2", "log", "log2", "tanh", "sigmoid")


def transcendental(kernel: MappedKernel) -> int:
    """Return how many exponentials, logarithms and tangents the work on a tile takes of a point."""
    return applied(kernel, EXPONENTIAL)


def functions(kernel: MappedKernel) -> int:
    """Return how many functions of several instructions the work on a tile takes of each point."""
    return applied(kernel, REAL)


def applied(kernel: MappedKernel, operators: tuple[str, ...]) -> int:
    """Return how many of these operators the work on a tile applies to each point."""
    every = (x for b in bodies(kernel) for x in walk(b))
    return sum(isinstance(x, Apply) and x.operator in operators for x in every)


def little_work(kernel: MappedKernel) -> bool:
    """Whether the work on a point is a power of two, products and differences."""
    return all(
        not isinstance(x, Apply) or x.operator in ("exp2", "*", "-")
        for b in bodies(kernel)
        for x in outside_accesses(b)
    )


def bodies(kernel: MappedKernel) -> Iterator[Expression]:
    """Yield what the einsums of the loops compute."""
    return (x.body for t in kernel.traversals for x in t.streaming.body if isinstance(x, Einsum))


def outside_accesses(value: Expression) -> Iterator[Expression]:
    """Yield an expression and what it is made of, but for the coordinates at which tensors are."""
    yield value
    for x in () if isinstance(value, Access) else children(value):
        yield from outside_accesses(x)
