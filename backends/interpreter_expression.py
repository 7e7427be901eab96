"""Expressions over a space: their values, and where they exist.

Presence follows ``ir/cascade.py``: a point exists where every tensor that it reads exists. Two
operators are finer than that: ``where(c, x, y)`` needs c and the branch that c chooses, not the
other one; ``default(x, y)`` needs x or y. ``and`` and ``or`` need all their operands, also where
one of them would settle the answer. ``item in Sel[...]`` needs the item and the fiber's
coordinates; the fiber may be empty, and then the answer is false. A filter keeps the points at
which it exists and holds.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy

from ..ir.errors import BackendError
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
)
from ..ir.size_rules import part_rank
from .interpreter_contraction import contract
from .interpreter_space import Bindings, Present, Space, both, either, shrink
from .numpy_operators import Array, numbers, pointwise, reduction, unify


def evaluate_expression(expression: Expression, space: Space, bindings: Bindings) -> Present:
    """Return the expression at every point of the space, one axis per rank of the space.

    Values at absent points are arbitrary; axes along which nothing varies have length 1.
    """
    match expression:
        case Constant(value=value):
            return _number(value, space, bindings)
        case Parameter(name=name):
            return _number(bindings.parameters[name], space, bindings)
        case Size(rank=rank):
            return _number(bindings.sizes[rank], space, bindings)
        case RankVariable(rank=rank):
            return Present(space.along(rank))
        case Access(tensor=tensor, coordinates=coordinates):
            return _read(bindings.tensors[tensor], coordinates, space, bindings)
        case Apply(operator="in", operands=(item, Access() as fiber)):
            return _member(item, fiber, space, bindings)
        case Apply(operator=operator, operands=operands):
            return _apply(
                operator, [evaluate_expression(x, space, bindings) for x in operands], bindings
            )
        case Reduce():
            return _reduce(expression, space, bindings)
        case Concatenate(rank=rank, parts=parts):
            return _concatenate(rank, parts, space, bindings)
        case _:
            raise BackendError(
                f"a {type(expression).__name__.lower()} stands inside an expression; "
                f"it can only be the whole right side of an einsum."
            )


def keeps(filter: Expression | None, space: Space, bindings: Bindings) -> Array | None:
    """Return the points that a filter keeps: where it exists and holds; None for all of them."""
    if filter is None:
        return None
    truth = evaluate_expression(filter, space, bindings)
    return shrink(both(truth.values.astype(bool, copy=False), truth.present))


def is_contraction(expression: Reduce) -> bool:
    """Whether a reduction is a sum of a product, which needs no space of all its ranks."""
    return expression.reducer == "sum" and len(_factors(expression.body)) > 1


def _number(value: int | float | bool, space: Space, bindings: Bindings) -> Present:
    kind = bool if isinstance(value, bool) else int if isinstance(value, int) else bindings.real
    return Present(numpy.full((1,) * len(space.coordinates), value, dtype=kind))


def _apply(operator: str, operands: list[Present], bindings: Bindings) -> Present:
    match operator:
        case "default":
            x, y = operands
            if x.present is None:
                return x
            left, right = unify((x.values, y.values), bindings.real)
            return Present(numpy.where(x.present, left, right), either(x.present, y.present))
        case "where":
            condition, x, y = operands
            chosen = None
            if x.present is not None or y.present is not None:
                one = numpy.ones((1,) * condition.values.ndim, bool)
                chosen = numpy.where(
                    condition.values.astype(bool, copy=False),
                    one if x.present is None else x.present,
                    one if y.present is None else y.present,
                )
            present = both(condition.present, chosen)
        case _:
            present = both(*(x.present for x in operands))
    return Present(pointwise(operator, [x.values for x in operands], bindings.real), present)


def _reduce(expression: Reduce, space: Space, bindings: Bindings) -> Present:
    # A rank reduced here hides one of the same name around it.
    hidden = [rank for rank in space.ranks if rank in expression.ranks]
    outer = Space({r: c for r, c in space.coordinates.items() if r not in hidden})
    inner = outer.extended({rank: bindings.sizes[rank] for rank in expression.ranks})
    axes = tuple(range(len(outer.coordinates), len(inner.coordinates)))
    values = _contraction(expression, inner, axes, bindings)
    if values is None:
        body = evaluate_expression(expression.body, inner, bindings)
        present = both(body.present, keeps(expression.filter, inner, bindings))
        # Along the reduced ranks every point counts, also where nothing varies.
        full = numpy.broadcast_shapes(
            body.values.shape,
            (1,) * len(outer.coordinates) + inner.shape[len(outer.coordinates) :],
            () if present is None else present.shape,
        )
        spread = numpy.broadcast_to(body.values, full)
        values = reduction(expression.reducer, spread, present, axes, bindings.real)
    values = values.reshape(values.shape[: len(outer.coordinates)])
    return Present(numpy.expand_dims(values, tuple(space.axis(rank) for rank in hidden)))


def _contraction(
    expression: Reduce, inner: Space, axes: tuple[int, ...], bindings: Bindings
) -> Array | None:
    """Return a sum of products pair by pair, or None where that is not possible or not equal."""
    if not is_contraction(expression):
        return None
    factors: list[Array] = []
    for factor, inverted in _factors(expression.body):
        x = evaluate_expression(factor, inner, bindings)
        values = numbers((x.values,), bindings.real)[0]
        if inverted:
            values = pointwise("/", (numpy.ones((1,) * values.ndim), values), bindings.real)
        if x.present is not None:
            values = numpy.where(x.present, values, values.dtype.type(0))
        factors.append(values)
    kept = keeps(expression.filter, inner, bindings)
    if kept is not None:
        for position, values in enumerate(factors):
            if all(n == 1 or m != 1 for n, m in zip(kept.shape, values.shape, strict=True)):
                factors[position] = numpy.where(kept, values, values.dtype.type(0))
                break
        else:
            factors.append(kept.astype(numpy.int64))
    factors = numbers(factors, bindings.real)
    if factors[0].dtype.kind == "f" and not all(numpy.isfinite(x).all() for x in factors):
        return None  # an absent point is left out, and must not meet an infinity as 0
    return contract(factors, inner.shape, axes)


def _factors(body: Expression) -> list[tuple[Expression, bool]]:
    """Return the factors of a product, each with whether it divides."""
    match body:
        case Apply(operator="*", operands=(x, y)):
            return _factors(x) + _factors(y)
        case Apply(operator="/", operands=(x, y)):
            return [*_factors(x), (y, True)]
        case _:
            return [(body, False)]


def _concatenate(
    rank: str, parts: tuple[Expression, ...], space: Space, bindings: Bindings
) -> Present:
    axis = space.axis(rank)
    scope = frozenset(space.ranks)
    pieces: list[Present] = []
    for part in parts:
        own = part_rank(part, scope)
        piece = evaluate_expression(part, space.replaced(rank, own, bindings.sizes[own]), bindings)
        pieces.append(_spread(piece, axis, bindings.sizes[own]))
    values = _join(unify([x.values for x in pieces], bindings.real), axis)
    present = None
    if any(x.present is not None for x in pieces):
        present = _join([_lying(x, axis) for x in pieces], axis)
    picked = space.coordinates[rank]
    return Present(
        values.take(picked, axis), None if present is None else shrink(present.take(picked, axis))
    )


def _spread(x: Present, axis: int, length: int) -> Present:
    """Repeat an array that does not vary along an axis, over the axis."""
    shape = list(x.values.shape)
    shape[axis] = length
    return Present(numpy.broadcast_to(x.values, shape), x.present)


def _lying(x: Present, axis: int) -> Array:
    mask = numpy.ones((1,) * x.values.ndim, bool) if x.present is None else x.present
    shape = list(mask.shape)
    shape[axis] = x.values.shape[axis]
    return numpy.broadcast_to(mask, shape)


def _join(arrays: list[Array], axis: int) -> Array:
    """Concatenate arrays that may differ in the axes along which some do not vary."""
    others = numpy.broadcast_shapes(*(x.shape[:axis] + (1,) + x.shape[axis + 1 :] for x in arrays))
    return numpy.concatenate(
        [
            numpy.broadcast_to(x, others[:axis] + (x.shape[axis],) + others[axis + 1 :])
            for x in arrays
        ],
        axis,
    )


def _read(
    tensor: Present, coordinates: tuple[Expression, ...], space: Space, bindings: Bindings
) -> Present:
    """Read a tensor at coordinates; outside its shape no point exists."""
    return _gather(tensor, _places(coordinates, tensor.values.shape, (), space, bindings), space)


def _places(
    coordinates: tuple[Expression, ...],
    shape: tuple[int, ...],
    beside: tuple[Expression, ...],
    space: Space,
    bindings: Bindings,
) -> list[str | Present]:
    """Return where each coordinate reads: a rank along its own axis, or coordinates over the space.

    A rank is read plainly if it occurs in no other coordinate, nor in what is read ``beside`` them.
    """
    places: list[str | Present] = []
    for position, coordinate in enumerate(coordinates):
        if isinstance(coordinate, RankVariable):
            rank = coordinate.rank
            last = space.coordinates[rank][-1:]
            others = (*coordinates[:position], *coordinates[position + 1 :], *beside)
            alone = all(rank not in free_ranks(x) for x in others)
            if alone and (last.size == 0 or last[0] < shape[position]):
                places.append(rank)
                continue
        places.append(evaluate_expression(coordinate, space, bindings))
    return places


def _gather(tensor: Present, places: list[str | Present], space: Space) -> Present:
    """Read a tensor at one place per axis: a rank of the space, or coordinates over the space."""
    inside: list[Array | None] = []
    indices: dict[int, Array] = {}
    for axis, (place, length) in enumerate(zip(places, tensor.values.shape, strict=True)):
        if isinstance(place, Present):
            index, whole = _whole(place.values)
            within = (index >= 0) & (index < length)
            inside.append(both(place.present, whole, shrink(within)))
            indices[axis] = numpy.where(within, index, 0)
            if length == 0:
                nothing = numpy.zeros((1,) * len(space.coordinates), tensor.values.dtype)
                return Present(nothing, nothing.astype(bool))
    values = _take(tensor.values, places, indices, space)
    if tensor.present is not None:
        inside.append(_take(tensor.present, places, indices, space))
    return Present(values, shrink(both(*inside)))


def _whole(index: Array) -> tuple[Array, Array | None]:
    """Return integer coordinates and where they are whole; a real is no coordinate if not."""
    if index.dtype.kind != "f":
        return index.astype(numpy.int64, copy=False), None
    whole = numpy.isfinite(index) & (index == numpy.floor(index))
    return numpy.where(whole, index, 0).astype(numpy.int64), shrink(whole)


def _take(
    array: Array, places: list[str | Present], indices: dict[int, Array], space: Space
) -> Array:
    ranks = {axis: place for axis, place in enumerate(places) if isinstance(place, str)}
    slices = []
    for axis, rank in ranks.items():
        where = space.coordinates[rank]
        if array.shape[axis] == 1:  # also a mask that does not vary along a longer rank
            slices.append(slice(0, 1))
        else:
            start = int(where[0]) if len(where) else 0
            slices.append(slice(start, start + len(where)))
    along = tuple(space.axis(rank) for rank in ranks.values())
    found = array.transpose([*indices, *ranks])
    pick: list[Array | slice] = []
    for axis, index in indices.items():
        # Along a rank read plainly no other coordinate varies, so that axis can go.
        flat = index.reshape([n for a, n in enumerate(index.shape) if a not in along])
        pick.append(flat if array.shape[axis] != 1 else numpy.zeros_like(flat))
    found = found[tuple([*pick, *slices])]
    free = len(space.coordinates) - len(along)
    if not indices:
        found = found.reshape((1,) * free + found.shape)
    return numpy.moveaxis(found, range(free, len(space.coordinates)), along)


def _member(item: Expression, fiber: Access, space: Space, bindings: Bindings) -> Present:
    """Look up membership in a table of (fiber, distinct member), built from the lists."""
    lists = bindings.tensors[fiber.tensor]
    live = lists.mask()
    members = numpy.unique(lists.values[live])
    if members.size == 0:
        members = numpy.zeros(1, lists.values.dtype)  # keeps the table from being empty
    table = numpy.zeros((*live.shape[:-1], members.size), bool)
    table[(*numpy.nonzero(live)[:-1], numpy.searchsorted(members, lists.values[live]))] = True
    asked = evaluate_expression(item, space, bindings)
    place = numpy.minimum(numpy.searchsorted(members, asked.values), members.size - 1)
    places = _places(fiber.coordinates, live.shape, (item,), space, bindings)
    hit = _gather(Present(table), [*places, Present(place, asked.present)], space)
    return Present(hit.values & (members[place] == asked.values), hit.present)


def space_elements(expression: Expression, sizes: dict[str, int]) -> int:
    """Return how many elements the largest array made for an expression has.

    ``sizes`` says how many coordinates of each rank are asked for.
    """
    return max(_elements(expression, sizes), default=1)


def _elements(expression: Expression, sizes: dict[str, int]) -> Iterator[int]:
    count = 1
    for rank in free_ranks(expression):
        count *= sizes[rank]
    yield count
    match expression:
        case Reduce(body=body, filter=filter):
            parts = [x for x, _ in _factors(body)] if is_contraction(expression) else [body]
            for part in [*parts, *([] if filter is None else [filter])]:
                yield from _elements(part, sizes)
        case Access(coordinates=operands) | Apply(operands=operands) | Concatenate(parts=operands):
            for operand in operands:
                yield from _elements(operand, sizes)
