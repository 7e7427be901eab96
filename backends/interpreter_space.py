"""What the interpreter computes with: tensors with presence, and the space they are asked over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy

from ..ir.cascade import Scalar
from ..ir.errors import ShapeError
from .numpy_operators import Array, DType


@dataclass(frozen=True, slots=True)
class Present:
    """Values, and at which points there are any.

    values : the array; of a cascade's tensor, its whole shape, with 0 at absent points.
    present : truth values that broadcast to ``values`` (ranks along which presence does not vary
        have length 1), or None where every point exists.
    """

    values: Array
    present: Array | None = None

    def mask(self) -> Array:
        """Return presence point by point, in the shape of ``values`` (read-only)."""
        one = numpy.ones((1,) * self.values.ndim, bool) if self.present is None else self.present
        return numpy.broadcast_to(one, self.values.shape)

    def filled(self) -> Array:
        """Return the values with 0 at absent points."""
        if self.present is None:
            return self.values
        return numpy.where(self.present, self.values, self.values.dtype.type(0))


@dataclass(frozen=True, slots=True)
class Space:
    """An iteration space: its ranks in order, each with the coordinates asked for.

    An expression over a space is an array with one axis per rank, of length 1 along ranks in which
    it does not vary. Coordinates of a rank are consecutive.
    """

    coordinates: Mapping[str, Array]

    @property
    def ranks(self) -> tuple[str, ...]:
        """The ranks, in the order of the axes."""
        return tuple(self.coordinates)

    @property
    def shape(self) -> tuple[int, ...]:
        """How many coordinates each rank has here."""
        return tuple(len(c) for c in self.coordinates.values())

    def axis(self, rank: str) -> int:
        """Return the axis of a rank."""
        return self.ranks.index(rank)

    def along(self, rank: str) -> Array:
        """Return a rank's coordinates, lying along its axis."""
        shape = [1] * len(self.coordinates)
        shape[self.axis(rank)] = -1
        return self.coordinates[rank].reshape(shape)

    def replaced(self, rank: str, by: str, size: int) -> Space:
        """Return the space with another rank, whole, in place of ``rank``."""
        whole = numpy.arange(size)
        return Space(
            {
                (by if r == rank else r): (whole if r == rank else c)
                for r, c in self.coordinates.items()
            }
        )

    def extended(self, sizes: Mapping[str, int]) -> Space:
        """Return the space with more ranks, whole, after the others."""
        return Space({**self.coordinates, **{r: numpy.arange(n) for r, n in sizes.items()}})


@dataclass(frozen=True, slots=True)
class Bindings:
    """What names mean while a cascade runs; ``tensors`` grows as einsums are computed.

    unique : lists that name no coordinate twice, each with the input that was declared so.
    """

    tensors: dict[str, Present]
    parameters: Mapping[str, Scalar]
    sizes: Mapping[str, int]
    real: DType
    unique: Mapping[str, str] = field(default_factory=dict)


def both(*masks: Array | None) -> Array | None:
    """Return where all exist: the intersection of presences, None where that is everywhere."""
    some = [m for m in masks if m is not None]
    if not some:
        return None
    result = some[0]
    for mask in some[1:]:
        result = result & mask
    return result


def either(x: Array | None, y: Array | None) -> Array | None:
    """Return where one of two exists: the union of presences."""
    return None if x is None or y is None else x | y


def shrink(mask: Array | None) -> Array | None:
    """Return None for a mask that is true everywhere, else the mask."""
    return None if mask is None or bool(mask.all()) else mask


def dense(x: Any, real: DType) -> Array:
    """Return an array as the language knows numbers: boolean, int64 or ``real``.

    Raises ShapeError for anything else, e.g. complex numbers.
    """
    array = numpy.asarray(x)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise ShapeError(f"a tensor holds integers, reals or truth values; {array.dtype} given.")
    return array.astype(numpy.int64 if array.dtype.kind in "iu" else real, copy=False)
