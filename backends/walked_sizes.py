"""Sizes of the ranks that kernels walk: those of the declaration, and what passes made of them."""

from __future__ import annotations

from collections.abc import Mapping

from ..codegen.kernel import Kernel
from ..ir.cascade import Cascade, Scalar
from ..ir.errors import ShapeError
from ..ir.expression import Apply, Expression
from ..ir.mapping import Mapping as Mapped
from ..ir.scalar import scalar
from ..ir.show import show_expression
from ..ir.sizes import rank_sizes
from .parts import with_parts


def walked_sizes(
    mapping: Mapped,
    kernels: tuple[Kernel, ...],
    shapes: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, Scalar],
    sizes: Mapping[str, int],
    processors: int,
) -> tuple[dict[str, int], dict[str, Scalar]]:
    """Return sizes and parameters with those of ranks that passes have made.

    Raises
    ------
    ShapeError : what the kernels take for granted of the sizes does not hold.
    """
    extents = {f"{t}_size_{k}": n for t, shape in shapes.items() for k, n in enumerate(shape)}
    values = {**parameters, **extents}
    for condition in mapping.requires:
        if not holds(condition, sizes, values):
            raise ShapeError(
                f"{mapping.cascade.name} was lowered for sizes with {show_expression(condition)}, "
                "and those given are others: lower it for these, or call it, which does"
            )
    found = {**sizes, **made_sizes(mapping, sizes, values)}
    found, scalars = with_parts(mapping.cuts, kernels, found, parameters, processors)
    return mapped_sizes(mapping.cascade, shapes, scalars, found), scalars


def made_sizes(
    mapping: Mapped, sizes: Mapping[str, int], values: Mapping[str, Scalar]
) -> dict[str, int]:
    """Return the sizes of packed ranks, as far as they are known."""
    found = {rank: scalar(size, sizes, values) for rank, size in mapping.made}
    return {rank: int(n) for rank, n in found.items() if n is not None}


def holds(condition: Expression, sizes: Mapping[str, int], values: Mapping[str, Scalar]) -> bool:
    """Whether a comparison of numbers holds."""
    match condition:
        case Apply("==" | "<=" as operator, (left, right)):
            a, b = scalar(left, sizes, values), scalar(right, sizes, values)
            if a is None or b is None:
                return False
            return a == b if operator == "==" else a <= b
        case _:
            return False


def mapped_sizes(
    mapped: Cascade,
    shapes: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, Scalar],
    sizes: Mapping[str, int],
) -> dict[str, int]:
    """Return the sizes with those of ranks of the cascade after all passes."""
    if set(mapped.ranks) <= set(sizes):
        return dict(sizes)
    known = {rank: n for rank, n in sizes.items() if rank in mapped.ranks}
    read = {name: shapes[name] for name in mapped.inputs}
    values = {name: x for name, x in parameters.items() if name in dict(mapped.parameters)}
    return {**sizes, **rank_sizes(mapped, read, values, known)}
