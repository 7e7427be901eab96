"""Selections: the lists that ``topk``, ``threshold`` and ``cover`` write.

A point can be chosen where the body exists and ``forbidden`` does not hold; ``forced`` chooses such
points first. The order within a list: forced members, then the others; in both by descending
value, the lowest coordinate among equals; ``threshold`` and ``ascending`` ones list by ascending
coordinate throughout. A list that is longer than its rank loses its end. ``cover`` takes the
shortest prefix of that order whose values sum to ``alpha`` or more, all forced members included;
everything, where the sum stays below. ``exceed`` takes the shortest that sums to more, ``within``
the longest that never does.
"""

from __future__ import annotations

import numpy

from ..ir.errors import BackendError
from ..ir.expression import Expression, Populate, free_ranks
from .interpreter_expression import evaluate_expression, keeps
from .interpreter_space import Bindings, Present, Space, both, shrink
from .numpy_operators import Array, numbers


def evaluate_selection(selection: Populate, space: Space, bindings: Bindings) -> Present:
    """Return the list of chosen coordinates at every point of the space, absent past its end.

    The space is the output's: its one rank that the selection has not is the list rank.
    """
    list_rank = next(rank for rank in space.ranks if rank not in free_ranks(selection))
    outer = Space({r: c for r, c in space.coordinates.items() if r != list_rank})
    inner = outer.extended({selection.rank: bindings.sizes[selection.rank]})
    body = evaluate_expression(selection.body, inner, bindings)
    argument = evaluate_expression(selection.argument, inner, bindings)
    forced = _holds(selection.forced, inner, bindings)
    forbidden = _holds(selection.forbidden, inner, bindings)
    candidate = both(~forbidden, body.present, argument.present)
    assert candidate is not None
    full = numpy.broadcast_shapes(
        body.values.shape,
        candidate.shape,
        forced.shape,
        argument.values.shape,
        (1,) * len(outer.coordinates) + inner.shape[-1:],
    )
    values = numpy.broadcast_to(numbers((body.values,), bindings.real)[0], full)
    candidate = numpy.broadcast_to(candidate, full)
    first = candidate & forced
    order, occupancy = _choose(selection.selector, values, candidate, first, argument.values)
    if selection.ascending:
        beyond = numpy.arange(full[-1]) >= occupancy
        order = numpy.sort(numpy.where(beyond, full[-1], order), axis=-1)
    slots = bindings.sizes[list_rank]
    chosen = numpy.zeros((*full[:-1], slots), numpy.int64)
    length = min(slots, full[-1])
    chosen[..., :length] = order[..., :length]
    present = numpy.arange(slots) < occupancy
    chosen = numpy.where(present, chosen, 0)
    axis, picked = space.axis(list_rank), space.coordinates[list_rank]
    return Present(
        numpy.moveaxis(chosen, -1, axis).take(picked, axis),
        shrink(numpy.moveaxis(present, -1, axis).take(picked, axis)),
    )


def _holds(condition: Expression | None, space: Space, bindings: Bindings) -> Array:
    shape = (1,) * len(space.coordinates)
    if condition is None:
        return numpy.zeros(shape, bool)
    kept = keeps(condition, space, bindings)
    return numpy.ones(shape, bool) if kept is None else kept


def _choose(
    selector: str, values: Array, candidate: Array, first: Array, argument: Array
) -> tuple[Array, Array]:
    """Return the coordinates in the order of the list, and how many of them are in it."""
    if selector == "threshold":
        chosen = candidate & ((values > argument) | first)
        return numpy.argsort(~chosen, axis=-1, kind="stable"), _count(chosen)
    order = numpy.lexsort((-values, ~first, ~candidate), axis=-1)
    if selector == "topk":
        return order, numpy.minimum(_count(candidate), argument)
    if selector in ("cover", "exceed", "within"):
        mass = numpy.take_along_axis(values, order, -1)
        before = numpy.zeros_like(mass)
        live = numpy.take_along_axis(candidate, order, -1)
        total = numpy.cumsum(numpy.where(live, mass, 0), axis=-1)
        before[..., 1:] = total[..., :-1]
        met = total <= argument
        if selector != "within":
            met = before < argument if selector == "cover" else before <= argument
        wanted = live & (numpy.take_along_axis(first, order, -1) | met)
        # Negative values may bring the sum down again; the prefix has ended all the same.
        return order, _count(numpy.logical_and.accumulate(wanted, axis=-1))
    raise BackendError(f"the interpreter has no code for the selector {selector!r}.")


def _count(chosen: Array) -> Array:
    return numpy.asarray(chosen.sum(axis=-1, keepdims=True))
