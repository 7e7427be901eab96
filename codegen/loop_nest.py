"""The loop nest, the third level: loops, tiles, loads, dots, reductions, stores, in order.

A tile is a variable with named axes; which numbers it holds is said by the statement that defines
it. Both emitters print this level, neither looks further up.

::

    nest      = Nest(name, axes, arguments, ..., statements)
    statement = Let(var, value)                        s = qk * 0.125
              | Load(var, tensor, coordinates, guard)  k = K[b, h, m, e]
              | Dot(var, left, right, axis, start)     s = start + sum over axis of left * right
              | Fold(var, value, axis, reducer)        g = max over axis of value
              | Order(var, axis, group, value)          t = the coordinates in order
              | Scan(var, value, axis)                 c = running sum of value over axis
              | Histogram(var, value, guard, axis)     h = how often value is each number below 256
              | Gather(var, value, place, axis)        x = y[p, place[p, m]], place along axis
              | Store(tensor, coordinates, value, guard, add)
              | Loop(rank, first, begin, end, tile, body)
              | Place(axis, value)                     m_first = block * 64
              | When(condition, body)                  body, if a scalar condition holds
              | Comment(text)
    value     = Ref(var) | Number | Scalar(name) | Index(axis) | Op(operator, operands) | Cast

Axes are listed once in ``Nest.axes``, in the order in which every tile lays them out, so a tile's
layout follows from the set of its axes. Operators are those of ``ir.operators``, ``cdiv``, ``<<``,
``falling(x, i, n)`` (n of the 32 bits, from bit i on, of a code that falls as float32 x rises) and
its inverse ``unfalling``; their operands broadcast by axis name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..ir.mapping import Crew
from .kernel import Argument, Buffer, GridRank


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of tiles: ``width`` coordinates of ``rank`` from ``first`` on.

    name : unique in the nest, e.g. ``m`` or, for the second part of a resident rank, ``e_1``.
    width : a power of two; ``constant`` is the name of the compile-time constant that holds it.
    first : the scalar variable with the first coordinate ("" if it is the number ``offset``).
    valid : how many of a resident part's coordinates exist (``width`` where all do).
    """

    name: str
    rank: str
    width: int
    constant: str = ""
    first: str = ""
    offset: int = 0
    valid: int = 0

    @property
    def padded(self) -> bool:
        """Whether a part of a resident rank has coordinates that do not exist."""
        return not self.first and self.valid < self.width


@dataclass(frozen=True, slots=True)
class Var:
    """A tile variable: ``axes`` are axis names (() for a scalar); dtype is numpy-style."""

    name: str
    axes: tuple[str, ...]
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of a tile variable."""

    var: Var


@dataclass(frozen=True, slots=True)
class Number:
    """A literal."""

    value: int | float | bool


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar of the kernel: a grid coordinate, a size, a parameter, a tile's first coordinate.

    ``signed`` ones, the user's parameters, may be negative.
    """

    name: str
    dtype: str = "int32"
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """The coordinates along an axis; ``clamped`` ones never pass the rank's last coordinate.

    ``row``: counted from the first of the tile.
    """

    axis: str
    clamped: bool = False
    row: bool = False


@dataclass(frozen=True, slots=True)
class Op:
    """A pointwise operator; operands broadcast by axis name."""

    operator: str
    operands: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Cast:
    """A change of dtype."""

    value: Value
    dtype: str


Value = Ref | Number | Scalar | Index | Op | Cast


@dataclass(frozen=True, slots=True)
class Let:
    """Define (or redefine) a variable."""

    var: Var
    value: Value


@dataclass(frozen=True, slots=True)
class Load:
    """Read a tile of a tensor; where ``guard`` fails the value is ``other``.

    ``described``: the tile is a box of the tensor, two-dimensional and regular, so that a tensor
    descriptor may fetch it; what lies outside the tensor reads as 0.
    """

    var: Var
    tensor: str
    coordinates: tuple[Value, ...]
    guard: Value | None = None
    other: float = 0.0
    described: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """Contract ``left`` and ``right`` over ``axis``, on top of ``start`` if there is one."""

    var: Var
    left: Value
    right: Value
    axis: str
    start: Value | None = None


@dataclass(frozen=True, slots=True)
class Fold:
    """Reduce ``value`` over one of its axes."""

    var: Var
    value: Value
    axis: str
    reducer: str


@dataclass(frozen=True, slots=True)
class Order:
    """Put the coordinates of an axis in order: by group, the largest value first, the lowest first.

    var : the coordinates in that order, along another axis of the same width, or a narrower one
        for the first of them; ``values`` what stands there (None where nobody asks).
    group : small numbers from 0 on. value : None where the coordinate alone decides.
    """

    var: Var
    axis: str
    group: Value
    value: Value | None
    values: Var | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """Sum up ``value`` along an axis, each coordinate's sum including its own."""

    var: Var
    value: Value
    axis: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Count, for each coordinate of ``var``'s axis, where ``value`` along ``axis`` is that number.

    Where ``guard`` fails nothing is counted.
    """

    var: Var
    value: Value
    guard: Value
    axis: str


@dataclass(frozen=True, slots=True)
class Gather:
    """Take from each fiber of ``value`` along ``axis`` what stands at ``place``, point by point.

    ``var`` has an axis in place of that one, and ``place`` has its axes.
    """

    var: Var
    value: Value
    place: Value
    axis: str


@dataclass(frozen=True, slots=True)
class Store:
    """Write a tile; points where ``guard`` fails are left alone.

    add : to what memory holds, while other programs add to it too.
    """

    tensor: str
    coordinates: tuple[Value, ...]
    value: Value
    guard: Value | None = None
    add: bool = False


@dataclass(frozen=True, slots=True)
class Loop:
    """Walk a rank: ``first`` = begin, begin + tile, ... below end.

    ``cut`` says that tiles may be cut by the filter or by the end of the rank. Over a table of
    tiles ``first`` is a place in a list, ``tile`` is "" and the body begins by placing the tile.
    resting : what may stand for the body while frames rest (``passes/resting.py``).
    """

    rank: str
    first: str
    begin: Value
    end: Value
    tile: str
    body: tuple[Statement, ...]
    cut: bool
    resting: Resting | None = None


@dataclass(frozen=True, slots=True)
class Resting:
    """A tile's work while frames rest, and the accumulators whose growth says whether they may."""

    body: tuple[Statement, ...]
    bounds: tuple[Var, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Say where a tile of an axis begins, in a loop that does not walk the axis in order."""

    axis: str
    value: Value


@dataclass(frozen=True, slots=True)
class When:
    """Run ``body`` if a scalar condition holds; it redefines variables, and defines none."""

    condition: Value
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Comment:
    """A line for the reader."""

    text: str


Statement = (
    Let
    | Load
    | Dot
    | Fold
    | Order
    | Scan
    | Histogram
    | Gather
    | Store
    | Loop
    | When
    | Place
    | Comment
)


@dataclass(frozen=True, slots=True)
class Nest:
    """A kernel's loop nest.

    axes : every axis, in layout order.
    strides : for every tensor, the name of the stride argument of each rank position.
    scalars : sizes and parameters by name, with dtype, in the order of the signature.
    grid : parallel ranks, slowest first; ``reverse`` ranks are walked from the last tile.
    dtypes : dtype of every tensor in memory.
    described : tensors of which descriptors may fetch boxes.
    crew : how warps of different work share a program; None where all warps do the same.
    commutative : whether a loop's tiles may be walked in any order.
    leads : whether the kernel behind this one may be launched while this one runs.
    follows : whether this one may be, and so waits for the kernel before it.
    beside : whether it may be, and needs nothing of that one, for which it waits at its end.
    precision : how products of float32 are made: "ieee", by multiplications and additions, or
    "tf32x3", each as three of shorter numbers on tensor cores.
    """

    name: str
    title: tuple[str, ...]
    axes: tuple[Axis, ...]
    arguments: tuple[Argument, ...]
    tiles: tuple[tuple[str, int], ...]
    grid: tuple[GridRank, ...]
    reverse: tuple[str, ...]
    sizes: tuple[tuple[str, str], ...]
    statements: tuple[Statement, ...]
    reads: tuple[str, ...]
    writes: tuple[Buffer, ...]
    dtypes: tuple[tuple[str, str], ...]
    num_warps: int
    num_stages: int
    described: tuple[str, ...] = ()
    crew: Crew | None = None
    commutative: bool = False
    leads: bool = False
    follows: bool = False
    beside: bool = False
    precision: str = "ieee"

    def axis(self, name: str) -> Axis:
        """Return the axis of that name."""
        return next(a for a in self.axes if a.name == name)


def statements(body: tuple[Statement, ...]) -> Iterator[Statement]:
    """Yield every statement, loops before their bodies."""
    for statement in body:
        yield statement
        if isinstance(statement, Loop | When):
            yield from statements(statement.body)


def value_axes(value: Value) -> frozenset[str]:
    """Return the axes over which a value varies."""
    match value:
        case Ref(var=var):
            return frozenset(var.axes)
        case Index(axis=axis):
            return frozenset((axis,))
        case Op(operands=operands):
            return frozenset().union(*(value_axes(x) for x in operands))
        case Cast(value=inner):
            return value_axes(inner)
        case _:
            return frozenset()


def value_vars(value: Value) -> frozenset[str]:
    """Return the names of the variables that a value reads."""
    match value:
        case Ref(var=var):
            return frozenset((var.name,))
        case Op(operands=operands):
            return frozenset().union(*(value_vars(x) for x in operands))
        case Cast(value=inner):
            return value_vars(inner)
        case _:
            return frozenset()


def parts_of_value(value: Value) -> Iterator[Value]:
    """Yield a value and everything inside it."""
    yield value
    match value:
        case Op(operands=operands):
            for x in operands:
                yield from parts_of_value(x)
        case Cast(value=inner):
            yield from parts_of_value(inner)
        case _:
            return


def nonnegative(value: Value) -> bool:
    """Whether a value is never negative, so that the machine's division rounds down."""
    match value:
        case Number(value=n):
            return n >= 0
        case Index() | Op("abs" | "bit_length" | "falling"):
            return True
        case Scalar(signed=signed):
            return not signed
        case Op("max", operands):
            return any(nonnegative(x) for x in operands)
        case Op("+" | "*" | "//" | "%" | "min" | "cdiv" | "<<", operands):
            return all(nonnegative(x) for x in operands)
        case _:
            return False
