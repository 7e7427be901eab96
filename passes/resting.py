"""Frames that may rest: which accumulators tell that a tile of the walk needs no new frame.

A frame keeps what is accumulated in range, and nothing else: results are alike whichever frame the
state is in. While a tile's terms stay small in the frame as it is, the frame may rest. The maximum
over the tile is then not taken, and no accumulator is carried along. A sum of positive terms, each
of which weighs what the others accumulate, tells: the terms are no larger than what it grows by.

rewrite::

    g' = max(g, max[m](s));  d' = d * exp(g - g') + sum[m](exp(s - g'))
    -->
    d' = d + sum[m](exp(s - g)), and only if d' - d is large, the tile again as above

*Requires* a traversal whose frames are maxima, and whose weights, exponentials in a frame, are all
summed by accumulators of their own. *Keeps* every result, which is tested at drawn points.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from ..ir.cascade import Einsum
from ..ir.expression import (
    Access,
    Apply,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    Size,
    rewrite,
    tensors,
    walk,
)
from ..ir.mapping import MappedKernel
from ..ir.streaming import NEXT, Field, Streaming
from .stream_refusal import number

LEAVES = (Access, Parameter, RankVariable, Size)

ARITHMETIC = ("+", "-", "*", "neg")

DRAWS = 3
"""Points at which results have to be alike in two frames."""


def resting(kernel: MappedKernel) -> tuple[str, ...]:
    """Return the accumulators that bound a tile's terms; () where frames have to move."""
    if len(kernel.traversals) != 1:
        return ()
    streaming = kernel.traversals[0].streaming
    if streaming.additions:
        return ()  # what is added up in memory is not looked at
    fields = {f.tensor: f for f in streaming.fields}
    frames = {g for f in streaming.fields for g in f.frame}
    moved = [f for f in streaming.fields if f.frame]
    if any(fields[g].reducer != "max" or fields[g].frame for g in frames):
        return ()
    if not all(f.transport is not None and plain(f.lift, frames) for f in moved):
        return ()
    if len({f.filter for f in streaming.fields}) != 1:
        return ()
    found = [bound(e, streaming) for e in weights(streaming, frames)]
    if not found or any(x is None for x in found) or not unmoved(kernel, fields, frames):
        return ()
    return tuple(dict.fromkeys(f.tensor for f in found if f is not None))


def weights(streaming: Streaming, frames: set[str]) -> Iterator[Einsum]:
    """Yield what is computed of each point in a frame."""
    for item in streaming.body:
        if isinstance(item, Einsum) and frames & set(item.reads):
            yield item


def bound(weight: Einsum, streaming: Streaming) -> Field | None:
    """Return the accumulator that sums weights, which are positive; None if there is none."""
    match weight.body:
        case Apply("exp" | "exp2"):
            for f in streaming.fields:
                if f.reducer == "sum" and isinstance(f.lift, Access):
                    if f.lift.tensor == weight.name and set(f.ranks) < set(weight.ranks):
                        return f
    return None


def plain(lift: Expression, frames: set[str]) -> bool:
    """Whether a term reads frames in sums and products alone, besides by weights.

    It grows no faster than weights then, which are bounded, where a frame lags behind.
    """
    inside = (x for x in walk(lift) if isinstance(x, Apply) and x.operator not in ARITHMETIC)
    return not any(frames & set(tensors(x)) for x in inside)


def unmoved(kernel: MappedKernel, fields: Mapping[str, Field], frames: set[str]) -> bool:
    """Whether no result changes when the state is carried to another frame."""
    state = fields.keys()
    made: dict[str, Expression | None] = {}  # of those that do move; None: nobody knows how

    def inlined(x: Expression) -> Expression | None:
        def rule(part: Expression) -> Expression | None:
            return made.get(part.tensor) if isinstance(part, Access) else None

        read = {a.tensor for a in walk(x) if isinstance(a, Access)}
        if any(made.get(t, x) is None for t in read):
            return None
        return rewrite(x, rule)

    for einsum in (*kernel.traversals[0].streaming.finalise, *kernel.after):
        body = inlined(einsum.body)
        read = set() if body is None else {a.tensor for a in walk(body) if isinstance(a, Access)}
        if body is not None and not read & state:
            continue
        if body is None or any(isinstance(x, Reduce) for x in walk(body)):
            made[einsum.name] = None
        elif not alike(body, carried(body, fields, frames)):
            made[einsum.name] = body
    return not (made.keys() | state) & set(kernel.writes)


def carried(x: Expression, fields: Mapping[str, Field], frames: set[str]) -> Expression:
    """Return an expression of a state that was carried to another frame."""

    def rule(part: Expression) -> Expression | None:
        if not isinstance(part, Access) or part.tensor not in fields:
            return None
        if part.tensor in frames:
            return Access(part.tensor + NEXT, part.coordinates, part.at)
        return fields[part.tensor].transport

    return rewrite(x, rule)


def alike(one: Expression, other: Expression) -> bool:
    """Whether two expressions are equal at drawn points."""
    draw = random.Random(7)
    leaves = {x for side in (one, other) for x in walk(side) if isinstance(x, LEAVES)}
    for _ in range(DRAWS):
        values: dict[Expression, float] = {x: 0.5 + draw.random() for x in sorted(leaves, key=repr)}
        found = [number(x, values) for x in (one, other)]
        if any(x is None for x in found) or abs(found[0] - found[1]) > 1e-12 * abs(found[0]):
            return False
    return True
