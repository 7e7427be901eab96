"""Run a loop nest in numpy: the meaning of the third level, tile by tile, in float64.

Slow and plain. A nest is right when running it gives what the cascade's interpreter gives, so this
tells an error of lowering from an error of printing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.operators import REDUCERS
from .loop_nest import (
    Cast,
    Dot,
    Fold,
    Gather,
    Histogram,
    Index,
    Let,
    Load,
    Loop,
    Nest,
    Number,
    Op,
    Order,
    Place,
    Ref,
    Scalar,
    Scan,
    Statement,
    Store,
    Value,
    When,
    value_axes,
)

Array = NDArray[Any]


def run_nest(
    nest: Nest,
    tensors: Mapping[str, Array],
    sizes: Mapping[str, int],
    parameters: Mapping[str, float],
) -> dict[str, Array]:
    """Run every program of the grid; return the tensors written, in float64.

    tensors : what the kernel reads, by name. sizes : of every rank that is an argument or in the
    grid, and of every rank that is written.
    """
    written = {
        b.tensor: np.zeros([b.extent(r, sizes.get(r, 0)) for r in b.ranks]) for b in nest.writes
    }
    tiles = dict(nest.tiles)
    counts = [-(-sizes[g.rank] // (tiles[g.tile] if g.tile else 1)) for g in nest.grid]
    for place in product(*(range(n) for n in counts)):
        scalars: dict[str, float] = {**parameters, **tiles}
        scalars |= {f"size({r})": n for r, n in sizes.items()}
        scalars |= {
            a.name: tensors[a.tensor].shape[a.position]
            for a in nest.arguments
            if a.kind == "extent"
        }
        for g, k in zip(nest.grid, place, strict=True):
            if not g.tile:
                scalars[g.rank] = k
                continue
            scalars[f"{g.rank}_tile"] = k
            scalars[f"{g.rank}_first"] = k * tiles[g.tile]
            last = min((k + 1) * tiles[g.tile], sizes[g.rank]) - 1
            scalars[f"{g.rank}_last"] = last
        Program(nest, tensors, written, scalars, sizes).run(nest.statements)
    return written


class Program:
    """One program while it runs."""

    def __init__(
        self,
        nest: Nest,
        tensors: Mapping[str, Array],
        written: Mapping[str, Array],
        scalars: dict[str, float],
        sizes: Mapping[str, int],
    ) -> None:
        self.nest, self.tensors, self.written = nest, tensors, written
        self.scalars, self.sizes = scalars, sizes
        self.layout = tuple(a.name for a in nest.axes)
        self.variables: dict[str, tuple[tuple[str, ...], Array]] = {}

    def run(self, statements: tuple[Statement, ...]) -> None:
        """Run statements in order."""
        for s in statements:
            match s:
                case Let(var=var, value=value):
                    self.bind(var.name, var.axes, self.value(value, var.axes))
                case Load(var=var):
                    self.bind(var.name, var.axes, self.load(s))
                case Dot(var=var, left=left, right=right, axis=axis, start=start):
                    axes = tuple(a for a in self.layout if a in (*var.axes, axis))
                    pair = self.value(left, axes) * self.value(right, axes)
                    total = pair.sum(axes.index(axis))
                    if start is not None:
                        total = total + self.value(start, var.axes)
                    self.bind(var.name, var.axes, total)
                case Fold(var=var, value=value, axis=axis, reducer=reducer):
                    axes = self.ordered(value_axes(value))
                    self.bind(
                        var.name, var.axes, fold(self.value(value, axes), axes.index(axis), reducer)
                    )
                case Order():
                    self.order_axis(s)
                case Scan(var=var, value=value, axis=axis):
                    axes = self.ordered(value_axes(value))
                    total = np.cumsum(self.value(value, axes), axis=axes.index(axis))
                    self.bind(var.name, var.axes, total)
                case Histogram(var=var, value=value, guard=guard, axis=axis):
                    number = self.value(value, (axis,))
                    live = np.broadcast_to(self.value(guard, (axis,)), number.shape)
                    bins = self.width(var.axes[0])
                    self.bind(
                        var.name,
                        var.axes,
                        np.bincount(number[live].astype(np.int64), minlength=bins),
                    )
                case Gather(var=var, value=value, place=place, axis=axis):
                    axes = self.ordered(value_axes(value))
                    shape = tuple(self.width(a) for a in var.axes)
                    chosen = np.broadcast_to(self.value(place, var.axes), shape)
                    fibers = self.value(value, axes)
                    taken = np.take_along_axis(fibers, chosen, axes.index(axis))
                    self.bind(var.name, var.axes, taken)
                case Store():
                    self.store(s)
                case Loop(first=first, begin=begin, end=end, tile=tile, body=body):
                    start_, stop = int(self.value(begin, ())), int(self.value(end, ()))
                    for at in range(start_, stop, int(self.scalars[tile]) if tile else 1):
                        self.scalars[first] = at
                        self.run(body)
                case Place(axis=axis, value=value):
                    self.scalars[self.nest.axis(axis).first] = int(self.value(value, ()))
                case When(condition=condition, body=body):
                    if self.value(condition, ()):
                        self.run(body)
                case _:
                    continue

    def order_axis(self, order: Order) -> None:
        """Put the coordinates of an axis in order."""
        axes = self.ordered(value_axes(order.group) | {order.axis})
        if order.value is not None:
            axes = self.ordered(frozenset(axes) | value_axes(order.value))
        shape = tuple(self.width(a) for a in axes)
        group = np.broadcast_to(self.value(order.group, axes), shape)
        keys = [group]
        if order.value is not None:
            value = np.broadcast_to(self.value(order.value, axes), shape)
            keys.insert(0, -value)
        place = np.lexsort(keys, axis=axes.index(order.axis))
        (along,) = set(order.var.axes) - (set(axes) - {order.axis})
        place = np.take(place, np.arange(self.width(along)), axes.index(order.axis))
        self.bind(order.var.name, order.var.axes, place)
        if order.values is not None:
            found = np.take_along_axis(-keys[0], place, axes.index(order.axis))
            self.bind(order.values.name, order.values.axes, found)

    def bind(self, name: str, axes: tuple[str, ...], value: Array) -> None:
        """Define a variable, repeated over axes along which its value does not vary."""
        shape = tuple(self.width(a) for a in axes)
        self.variables[name] = (axes, np.broadcast_to(value, shape))
        if not axes:  # a list of tiles gives a tile's first coordinate as a variable
            self.scalars[name] = float(value)

    def width(self, axis: str) -> int:
        """How many coordinates an axis has."""
        return self.nest.axis(axis).width

    def ordered(self, axes: frozenset[str]) -> tuple[str, ...]:
        """Axes in layout order."""
        return tuple(a for a in self.layout if a in axes)

    def value(self, value: Value, axes: tuple[str, ...]) -> Array:
        """Return a value in the shape in which it broadcasts to ``axes``."""
        match value:
            case Number(value=n):
                return np.asarray(n)
            case Scalar(name=name):
                return np.asarray(self.scalars[name])
            case Ref(var=var):
                own, array = self.variables[var.name]
                return expand(array, own, axes)
            case Index(axis=name, row=True):
                return expand(np.arange(self.width(name)), (name,), axes)
            case Index(axis=name, clamped=clamped):
                axis = self.nest.axis(name)
                first = int(self.scalars[axis.first]) if axis.first else axis.offset
                along = first + np.arange(axis.width)
                if clamped:
                    along = np.minimum(along, int(self.scalars[f"{axis.rank}_last"]))
                return expand(along, (name,), axes)
            case Cast(value=inner):
                return self.value(inner, axes)
            case Op(operator=operator, operands=operands):
                return apply(operator, [self.value(x, axes) for x in operands])

    def places(self, coordinates: tuple[Value, ...], axes: tuple[str, ...]) -> list[Array]:
        """Return the coordinates of a tile, as integer arrays."""
        return [np.asarray(self.value(c, axes)).astype(np.int64) for c in coordinates]

    def load(self, load: Load) -> Array:
        """Read a tile; outside the guard, and outside the tensor, nothing is touched."""
        axes = load.var.axes
        places = self.places(load.coordinates, axes)
        shape = tuple(self.width(a) for a in axes)
        allowed = np.ones(shape, bool)
        if load.guard is not None:
            allowed = allowed & self.value(load.guard, axes)
        source = (
            self.tensors[load.tensor] if load.tensor in self.tensors else self.written[load.tensor]
        )
        inside = np.ones(shape, bool)
        for c, n in zip(places, source.shape, strict=True):
            inside = inside & (c >= 0) & (c < n)
        if not load.described and not np.all(inside | ~allowed):
            raise IndexError(f"{self.nest.name} reads {load.tensor} outside its shape")
        allowed = allowed & inside
        safe = tuple(np.where(allowed, c, 0) for c in places)
        if not allowed.any():
            return np.full(shape, load.other)
        return np.where(allowed, source[safe].astype(np.float64), load.other)

    def store(self, store: Store) -> None:
        """Write a tile where its guard holds."""
        axes = self.ordered(frozenset().union(*(value_axes(c) for c in store.coordinates)))
        shape = tuple(self.width(a) for a in axes)
        allowed = np.ones(shape, bool)
        if store.guard is not None:
            allowed = allowed & self.value(store.guard, axes)
        places = tuple(
            np.broadcast_to(c, shape)[allowed] for c in self.places(store.coordinates, axes)
        )
        points = np.broadcast_to(self.value(store.value, axes), shape)[allowed]
        if not places:  # a tensor without ranks holds one number, and has no coordinate to list
            points = points[0] if points.size else self.written[store.tensor][()]
        if store.add:
            np.add.at(self.written[store.tensor], places, points)
            return
        self.written[store.tensor][places] = points


def expand(array: Array, own: tuple[str, ...], axes: tuple[str, ...]) -> Array:
    """Insert axes of length 1 where a value does not vary."""
    return array.reshape([array.shape[own.index(a)] if a in own else 1 for a in axes])


def fold(array: Array, place: int, reducer: str) -> Array:
    """Reduce along one axis."""
    functions: dict[str, Any] = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}
    functions |= {"any": np.any, "all": np.all}
    if array.shape[place] == 0:
        return np.full(np.delete(array.shape, place), REDUCERS[reducer].identity)
    return np.asarray(functions[reducer](array, axis=place))


def apply(operator: str, x: list[Array]) -> Array:
    """Return a pointwise operator; infinities and quotients by 0 follow the kernel's rules."""
    with np.errstate(all="ignore"):
        match operator:
            case "quotient":
                return np.where(x[1] == 0, 0.0, x[0] / np.where(x[1] == 0, 1, x[1]))
            case "where":
                return np.where(x[0], x[1], x[2])
            case "and" | "or" | "min" | "max":
                return np.asarray(reduce(JOINED[operator], x))
            case "cdiv":
                return -(-x[0] // x[1])
            case "sigmoid":
                return 1 / (1 + np.exp(-x[0]))
            case "relu":
                return np.maximum(x[0], 0)
            case "rsqrt":
                return 1 / np.sqrt(x[0])
            case "erf":
                from math import erf

                return np.asarray(np.vectorize(erf)(x[0]))
            case "scramble":
                z = (x[0].astype(np.uint64) ^ ((x[1] & WORD).astype(np.uint64) * 0x9E3779B1)) & WORD
                z = ((z ^ (z >> 16)) * 0x85EBCA6B) & WORD
                z = ((z ^ (z >> 13)) * 0xC2B2AE35) & WORD
                return np.asarray(z ^ (z >> 16))
            case "falling":
                plain = np.where(x[0] == 0, 0, x[0]).astype(np.float32).view(np.uint32)
                code = np.where(plain >> 31, plain, 0x7FFFFFFF - plain.astype(np.int64))
                return np.asarray((code >> (32 - x[1] - x[2])) & ((1 << x[2]) - 1))
            case "unfalling":
                given = x[0].astype(np.int64) & WORD
                plain = np.where(given >> 31, given, 0x7FFFFFFF - given).astype(np.uint32)
                return plain.view(np.float32).astype(np.float64)
            case "fraction":
                return (x[0] >> 8) * 2.0**-24
            case "bit_length":
                bits = [int(abs(int(v))).bit_length() for v in np.ravel(x[0])]
                return np.asarray(bits).reshape(np.shape(x[0]))
            case _:
                return np.asarray(NUMPY[operator](*x))


WORD = 0xFFFFFFFF
"""The bits of a machine word of 32 bits."""

JOINED: dict[str, Any] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "min": np.minimum,
    "max": np.maximum,
}
"""Operators of any number of operands."""

NUMPY: dict[str, Any] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.true_divide,
    "//": np.floor_divide,
    "%": np.mod,
    "**": np.power,
    "<<": np.left_shift,
    "neg": np.negative,
    "not": np.logical_not,
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log2": np.log2,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "abs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
}
