"""Merge: join the states of several traversals of one rank, each over its own share of it."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.errors import PassError
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    children,
    rewrite,
    tensors,
)
from ..ir.operators import REDUCERS
from ..ir.streaming import NEXT, Field, Streaming
from .align import conjunction

PART = "_part"
"""``G_part[s, ...]`` is the accumulator ``G`` of share s."""


def merge_states(
    streaming: Streaming,
    *,
    rank: str,
    outputs: tuple[str, ...] | None = None,
    parameters: tuple[tuple[str, Scalar | None], ...] = (),
    name: str = "merge",
) -> Cascade:
    """Write the merge of a traversal's states, one for each coordinate of ``rank``.

    ::

        G[p]        = max[m](S[p, m])
        N[p, m]     = exp(S[p, m] - G[p])
        D[p]        = sum[m](N[p, m])             D * exp(G - G_next)
        O_sum[p, f] = sum[m](N[p, m] * V[m, f])   O_sum * exp(G - G_next)
        O[p, f]     = O_sum[p, f] / D[p]
        -->
        G[p]        = max[s](G_part[s, p])
        D[p]        = sum[s: abs(G_part[s, p]) < inf](
                          D_part[s, p] * exp(G_part[s, p] - G[p]))
        O_sum[p, f] = sum[s: abs(G_part[s, p]) < inf](
                          O_sum_part[s, p, f] * exp(G_part[s, p] - G[p]))
        O[p, f]     = O_sum[p, f] / D[p]

    The inputs are the accumulators of the shares, ``part_inputs``, and whatever else the transports
    and the end of the traversal read; ``parameters`` gives defaults of the parameters among that.
    Every tensor that the traversal accumulates or makes at its end is written; ``outputs`` are
    those returned, None for what the traversal makes at its end, or its accumulators if it makes
    nothing.

    A share whose frame is still at its identity has taken nothing in and is absent: no infinity
    meets another. A share with nothing is an identity of the merge, so shares may be empty, and
    their number may be 0.

    Requires: the shares are disjoint and cover what is to be reduced; they come in the order of the
    streamed rank unless the state is commutative. Where a traversal closes groups (F7) a share is a
    set of whole groups. Keeps: what one traversal of all the shares together gives.
    See: theory 3.2.

    Raises
    ------
    PassError
        if ``rank`` is a rank or tensor of the traversal, if a state has an accumulator whose
        reducer does not merge by an operator, or for an output that the merge does not write.
    """
    fields = {f.tensor: f for f in streaming.fields}
    ends = tuple(e.name for e in streaming.finalise)
    taken = {r for f in fields.values() for r in (f.tensor, *f.ranks)} | {streaming.rank}
    if rank in taken:
        raise PassError(f"merge_states needs a new rank for the shares; {rank} is taken")
    for f in fields.values():
        if not REDUCERS[f.reducer].operator:
            raise PassError(f"{f.tensor} is reduced by {f.reducer}, whose results do not merge")
    einsums = (*(_merged(f, fields, rank) for f in fields.values()), *streaming.finalise)
    wanted = (ends or tuple(fields)) if outputs is None else outputs
    made = dict.fromkeys(e.name for e in einsums)
    for tensor in wanted:
        if tensor not in made:
            raise PassError(f"the merge does not write {tensor}; it writes {', '.join(made)}")
    reads = dict.fromkeys(n for e in einsums for n in e.reads if n not in made)
    inputs = (*part_inputs(streaming), *(n for n in reads if not _is_part(n, fields)))
    defaults = dict(parameters)
    found = {x.name: None for e in einsums for x in e.expressions() if isinstance(x, Parameter)}
    scalars = tuple((n, defaults.get(n)) for n in found)
    return Cascade(name, inputs, scalars, einsums, wanted)


def part_inputs(streaming: Streaming) -> tuple[str, ...]:
    """Return the names under which a merge reads the accumulators of the shares, in order."""
    return tuple(f.tensor + PART for f in streaming.fields)


def _is_part(name: str, fields: dict[str, Field]) -> bool:
    return name.endswith(PART) and name.removesuffix(PART) in fields


def _merged(field: Field, fields: dict[str, Field], rank: str) -> Einsum:
    """Write one accumulator of all shares: each moved to the common frame, then reduced."""
    output = Access(field.tensor, tuple(RankVariable(r) for r in field.ranks))
    share = RankVariable(rank)

    def placed(x: Expression) -> Expression | None:
        """Return a reading in the merge: of a share before it moved, of all of them after."""
        match x:
            case Access(tensor=tensor, coordinates=coordinates):
                whole = tensor.removesuffix(NEXT)
                if tensor.endswith(NEXT) and whole in field.frame:
                    return Access(whole, coordinates)
                if tensor in fields:
                    return Access(tensor + PART, (share, *coordinates))
        return None

    if field.transport is None:
        return Einsum(output, Reduce(field.reducer, (rank,), placed(output) or output))
    tests = [
        Apply("<", (Apply("abs", (rewrite(x, placed),)), Constant(float("inf"))))
        for x in _frames(field.transport, fields, field.frame)
    ]
    body = rewrite(field.transport, placed)
    return Einsum(output, Reduce(field.reducer, (rank,), body, conjunction(list(tests))))


def _frames(
    transport: Expression, fields: dict[str, Field], frame: tuple[str, ...]
) -> Iterator[Expression]:
    """Yield the largest expressions of a share's frame that may be at an identity, each once.

    What a traversal only reads may stand in them, such as a bound below which no frame falls.
    """
    extrema = {t for t in frame if fields[t].reducer in ("max", "min")}
    moving = {t for t in tensors(transport) if t.endswith(NEXT)} | (set(fields) - set(frame))
    seen: set[Expression] = set()

    def visit(x: Expression) -> Iterator[Expression]:
        read = set(tensors(x))
        if read & extrema and not read & moving:
            if x not in seen:
                seen.add(x)
                yield x
            return
        for child in children(x):
            yield from visit(child)

    yield from visit(transport)
