"""Values of filters and bounds on arrays of coordinates, for what counts tiles without a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    Size,
)

Numbers = Mapping[str, int | float]
Tensors = Mapping[str, Any]


class NotGivenError(Exception):
    """A name that is not given."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a value is made of: coordinates, scalars and tensors by name; ``tiles`` by rank."""

    ranks: Mapping[str, Any]
    parameters: Mapping[str, Any]
    sizes: Mapping[str, int]
    tensors: Tensors
    tiles: Mapping[str, int] = field(default_factory=dict)


def value_at(x: Expression, names: Names) -> tuple[Any, Any]:
    """Return values and where they are present, broadcast over the arrays in ``names``.

    Raises
    ------
    NotGivenError : a name that ``names`` lacks, or an operator that has no array form here.
    """
    match x:
        case Reduce(reducer=reducer, ranks=(rank,), body=body) if names.tiles:
            return tile_ends(reducer, rank, body, names), True
        case Reduce(reducer=reducer, ranks=ranks, body=body):
            return over_rows(reducer, ranks, body, names), True
        case Constant(value=value):
            return value, True
        case Parameter(name=name):
            return _given(names.parameters, name), True
        case Size(rank=rank):
            return _given(names.sizes, rank), True
        case RankVariable(rank=rank):
            return _given(names.ranks, rank), True
        case Access(tensor=tensor, coordinates=coordinates):
            return _read(np.asarray(_given(names.tensors, tensor)), coordinates, names)
        case Apply("in", (item, Access(tensor=tensor, coordinates=coordinates))):
            sought, present = value_at(item, names)
            fibers, there = _read(np.asarray(_given(names.tensors, tensor)), coordinates, names)
            return (fibers == np.asarray(sought)[..., None]).any(axis=-1), present & there
        case Apply("where", (condition, yes, no)):
            chosen, present = value_at(condition, names)
            (a, has_a), (b, has_b) = value_at(yes, names), value_at(no, names)
            return np.where(chosen, a, b), present & np.where(chosen, has_a, has_b)
        case Apply(operator=name, operands=operands) if name in _NUMPY:
            found = [value_at(o, names) for o in operands]
            present = found[0][1]
            for _, there in found[1:]:
                present = present & there
            return _NUMPY[name]([np.asarray(v) for v, _ in found]), present
        case _:
            raise NotGivenError(str(x))


def tile_ends(reducer: str, rank: str, body: Expression, names: Names) -> Any:
    """Return the least or greatest value along each tile of a rank, at the tiles in ``names``."""
    size, tile = _given(names.sizes, rank), names.tiles[rank]
    along, _ = value_at(body, replace(names, ranks={**names.ranks, rank: np.arange(size)}))
    ends = {"min": np.minimum, "max": np.maximum}[reducer].reduceat(along, np.arange(0, size, tile))
    return ends[_given(names.parameters, f"{rank}_first") // tile]


def over_rows(reducer: str, ranks: tuple[str, ...], body: Expression, names: Names) -> Any:
    """Return the extremum over each tile's rows; what is not there counts as 0, as in a kernel."""
    grid: dict[str, Any] = {}
    for axis, rank in enumerate(ranks, start=1):
        first, last = (_given(names.parameters, f"{rank}_{end}") for end in ("first", "last"))
        places = np.minimum(first[:, None] + np.arange((last - first).max() + 1), last[:, None])
        shape = [len(first)] + [1] * len(ranks)
        shape[axis] = places.shape[1]
        grid[rank] = places.reshape(shape)
    value, present = value_at(body, replace(names, ranks={**names.ranks, **grid}))
    value = np.where(present, value, 0)
    return getattr(value, reducer)(axis=tuple(range(1, value.ndim)))


def _given(table: Mapping[str, Any], name: str) -> Any:
    if name not in table:
        raise NotGivenError(name)
    return table[name]


def _read(
    array: np.ndarray[Any, Any], coordinates: tuple[Expression, ...], names: Names
) -> tuple[Any, Any]:
    present: Any = True
    places = []
    for coordinate, size in zip(coordinates, array.shape, strict=False):
        value, there = value_at(coordinate, names)
        place = np.asarray(value)
        present = present & there & (place >= 0) & (place < size)
        places.append(np.clip(place, 0, max(size - 1, 0)))
    return array[tuple(places)], present


def _over(a: Any, b: Any, divide: Any) -> Any:
    """Divide, a quotient by 0 being 0."""
    return np.where(b == 0, 0, divide(a, np.where(b == 0, 1, b)))


def _bit_length(x: Any) -> Any:
    return np.frexp(np.abs(x).astype(np.float64))[1].astype(np.int64)


def _all(operands: list[Any]) -> Any:
    return np.logical_and.reduce(np.broadcast_arrays(*operands))


def _any(operands: list[Any]) -> Any:
    return np.logical_or.reduce(np.broadcast_arrays(*operands))


_NUMPY: dict[str, Any] = {
    "and": _all,
    "or": _any,
    "not": lambda x: np.logical_not(x[0]),
    "==": lambda x: x[0] == x[1],
    "!=": lambda x: x[0] != x[1],
    "<": lambda x: x[0] < x[1],
    "<=": lambda x: x[0] <= x[1],
    ">": lambda x: x[0] > x[1],
    ">=": lambda x: x[0] >= x[1],
    "+": lambda x: x[0] + x[1],
    "-": lambda x: x[0] - x[1],
    "*": lambda x: x[0] * x[1],
    "/": lambda x: _over(x[0], x[1], np.true_divide),
    "//": lambda x: _over(x[0], x[1], np.floor_divide),
    "%": lambda x: _over(x[0], x[1], np.mod),
    "**": lambda x: x[0] ** x[1],
    "neg": lambda x: -x[0],
    "abs": lambda x: np.abs(x[0]),
    "floor": lambda x: np.floor(x[0]),
    "ceil": lambda x: np.ceil(x[0]),
    "sqrt": lambda x: np.sqrt(x[0]),
    "exp": lambda x: np.exp(x[0]),
    "log": lambda x: np.log(x[0]),
    "exp2": lambda x: np.exp2(x[0]),
    "log2": lambda x: np.log2(x[0]),
    "tanh": lambda x: np.tanh(x[0]),
    "bit_length": lambda x: _bit_length(x[0]),
    "min": lambda x: np.minimum.reduce(np.broadcast_arrays(*x)),
    "max": lambda x: np.maximum.reduce(np.broadcast_arrays(*x)),
}
