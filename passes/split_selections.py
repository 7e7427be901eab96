"""Split selections: members of a long rank are found first, and put in order afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.errors import BackendError, underlined
from ..ir.expression import (
    Access,
    Apply,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    Size,
    rewrite,
    substitute,
)
from ..ir.scalar import scalar
from ..ir.selection import LONGEST, WHOLE, find_count, list_rank
from .align import conjunction, fresh
from .walk_lists import is_member

NOTHING: Mapping[str, Scalar] = MappingProxyType({})


def split_selections(
    cascade: Cascade,
    *,
    sizes: Mapping[str, int] = MappingProxyType({}),
    parameters: Mapping[str, Scalar] = NOTHING,
    whole: int = WHOLE,
    longest: int = LONGEST,
) -> Cascade:
    """Choose from a long rank in two steps: who is a member, and in what order members stand.

    ::

        T[p, j] = topk[m, 4](X[p, m])
        T_count[p] = sum[j](where(T[p, j] >= 0, 1, 0))
        O[p] = sum[j](V[T[p, j]])
        return O, T
        -->
        T_found[p, j] = topk[m, 4](X[p, m], ascending=True)
        T_count[p] = sum[j](where(T_found[p, j] >= 0, 1, 0))
        T_order[p, j] = topk[j_2, size(j_2)](X[p, T_found[p, j_2]])
        T[p, j: j < T_count[p]] = T_found[p, T_order[p, j]]
        O[p] = sum[j](V[T[p, j]])
        return O, T

    Members are found a tile at a time, by kernels that hold no more than that; the list, which is
    short, one program puts in order. Who asks for members alone, as in ``m in T[p]``, asks what was
    found; a list of which nothing else is asked stays so, by ascending coordinate, and may be long.
    A rank of at most ``whole`` coordinates is left alone, for one program chooses from it and puts
    it in order at once. A list in order has at most ``longest`` members.

    Requires: a flat cascade in which every list is counted (``count_lists``).
    Keeps: every output's value, as far as float32 tells the values apart.

    Raises
    ------
    BackendError
        for a list too long to be put in order.
    """
    taken = {cascade.name, *cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    changed: dict[str, tuple[Einsum, ...]] = {}
    for einsum in cascade.einsums:
        body = einsum.body
        if not isinstance(body, Populate) or body.ascending or body.selector == "threshold":
            continue
        if body.rank in sizes and sizes[body.rank] <= whole:
            continue
        if unordered(cascade, einsum):
            changed[einsum.name] = (replace(einsum, body=replace(body, ascending=True)),)
            continue
        slots = list_rank(einsum)
        room = sizes.get(slots)
        if room is None and body.selector == "topk":
            number = scalar(body.argument, dict(sizes), dict(parameters))
            room = None if number is None else int(number)
        if room is None or room > longest:
            many = "unknown length" if room is None else f"up to {room} members"
            raise BackendError(
                f"{einsum.name} is a list of {many} in order of value, and one program puts "
                f"{longest} in order; write ascending=True, which lists by coordinate, or choose "
                f"fewer{underlined(einsum.at)}"
            )
        count = find_count(cascade.einsums, einsum)
        assert count is not None, "every list is counted"
        changed[einsum.name] = ordered(einsum, body, count, taken)
    if not changed:
        return cascade
    moved = {e.name for found in changed.values() for e in found} - set(changed)
    found_names = {name: found[0].name for name, found in changed.items()}
    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        if einsum.name not in moved:
            einsums += changed.get(einsum.name, (ask_found(einsum, found_names),))
    return replace(cascade, einsums=tuple(einsums))


def ask_found(einsum: Einsum, found: Mapping[str, str]) -> Einsum:
    """Ask what was found whether something is a member: the order is nothing to that."""

    def rule(x: Expression) -> Expression | None:
        entry = listed(x)
        if entry is None or entry.tensor not in found:
            return None
        return substitute_tensor(x, entry.tensor, found[entry.tensor])

    filter = None if einsum.filter is None else rewrite(einsum.filter, rule)
    return replace(einsum, body=rewrite(einsum.body, rule), filter=filter)


def listed(x: Expression) -> Access | None:
    """Return the entry of a list with which a test of membership compares, or None."""
    if not is_member(x) or not isinstance(x, Reduce) or not isinstance(x.body, Apply):
        return None
    entry = x.body.operands[0]
    return entry if isinstance(entry, Access) else None


def unordered(cascade: Cascade, einsum: Einsum) -> bool:
    """Whether nothing but membership is asked of a list, and its length."""
    if einsum.name in cascade.outputs:
        return False
    count = find_count(cascade.einsums, einsum)
    for other in cascade.einsums:
        if other is einsum or other == count:
            continue
        entries = (listed(x) for x in other.expressions())
        asked = sum(1 for e in entries if e is not None and e.tensor == einsum.name)
        reads = [
            x for x in other.expressions() if isinstance(x, Access) and x.tensor == einsum.name
        ]
        if len(reads) != asked:
            return False
    return True


def ordered(einsum: Einsum, body: Populate, count: Einsum, taken: set[str]) -> tuple[Einsum, ...]:
    """Return the einsums that find the members of a list, count them and put them in order."""
    slots = list_rank(einsum)
    found_name, order_name = (fresh(f"{einsum.name}_{x}", taken) for x in ("found", "order"))
    other = fresh(f"{slots}_2", taken)
    place = einsum.output.coordinates
    members = replace(
        einsum,
        output=Access(found_name, place, einsum.output.at),
        body=replace(body, ascending=True),
    )

    def read(tensor: str, at: Expression) -> Access:
        return Access(tensor, tuple(at if c == RankVariable(slots) else c for c in place))

    def placed(x: Expression) -> Expression:
        return substitute(x, {body.rank: read(found_name, RankVariable(other))})

    forced = None if body.forced is None else placed(body.forced)
    order = Populate("topk", other, Size(other), placed(body.body), forced, at=body.at)
    chosen = read(found_name, read(order_name, RankVariable(slots)))
    length = Access(count.name, count.output.coordinates)
    ends: list[Expression] = [Apply("<", (RankVariable(slots), length))]
    ends += [] if einsum.filter is None else [einsum.filter]
    return (
        members,
        replace(count, body=substitute_tensor(count.body, einsum.name, found_name)),
        Einsum(Access(order_name, place), order),
        replace(einsum, body=chosen, filter=conjunction(ends)),
    )


def twin_sizes(cascade: Cascade, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of ranks along which a made tensor is read in place of its own ones."""
    written = {e.name: e.output.coordinates for e in cascade.einsums}
    found: dict[str, int] = {}
    for x in (x for e in cascade.einsums for x in e.expressions() if isinstance(x, Access)):
        for c, own in zip(x.coordinates, written.get(x.tensor, ()), strict=False):
            if isinstance(c, RankVariable) and isinstance(own, RankVariable) and own.rank in sizes:
                found[c.rank] = sizes[own.rank]
    return found


def substitute_tensor(x: Expression, old: str, new: str) -> Expression:
    """Return an expression that reads another tensor."""

    def rule(part: Expression) -> Expression | None:
        if isinstance(part, Access) and part.tensor == old:
            return replace(part, tensor=new)
        return None

    return rewrite(x, rule)
