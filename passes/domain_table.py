"""Tile tables: what decides whether a tile is empty, partial or full, where no loop bound can.

::

    m: m <= p and abs(p // s - m // s) % 2 == 0        (p in tiles, m streamed)
    -->
    some     a condition on p_first, p_last, m_first, m_last that holds if any point may exist
    every    one that holds only if all points exist
    test     the filter, for the tiles about which these two differ

A kernel of its own evaluates them tile by tile and lists the tiles that have points; the loop then
walks the list. The list takes a number for each tile, never one for each point.

``some`` and ``every`` are the filter's three-valued truth on a box (Kleene's connectives over
Moore's intervals), written as expressions. A tensor is looked through where a tile of it lies along
one rank (its least and greatest), or where all points of the tile read the same element of it.

Requires: what ``domain`` requires, and that the filter says itself where its tensors hold a point,
unless that is sure. Keeps: a tile with a point is listed; one listed as full has all
its points.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ..ir.domain import Domain, Table
from ..ir.expression import (
    Access,
    Apply,
    Expression,
    Parameter,
    RankVariable,
    accesses,
    free_ranks,
    rewrite,
    tensors,
    walk,
)
from ..ir.interval import surely_present
from ..ir.mapping import MappedKernel, Traversal
from .domain_extremes import everywhere, extreme, folded, somewhere, varies
from .domain_known import Known
from .domain_limits import positive_parameters
from .domain_normal import normal
from .domain_simplify import FALSE, TRUE, ZERO, plus, simplify

Truth = tuple[Expression, Expression]

LONG = 256
"""Coordinates up to which a rank is not worth a table: its few tiles are tested where they are."""

MANY = 64
"""Rows below which a list that must be made anew for each call costs more than it saves."""


def tabled(
    domain: Domain,
    filter: Expression | None,
    *,
    streamed: str,
    tiled: tuple[str, ...],
    held: tuple[str, ...],
    readable: Collection[str],
    real: tuple[str, ...] = (),
    sizes: Mapping[str, int],
) -> Domain:
    """Return the domain with a table, if loop bounds do not say which tiles have points.

    Parameters
    ----------
    held : ranks of which a program has all coordinates; a filter over one of them gets no table.
    readable : tensors in memory when the kernel starts; conditions on others count as unknown.
    sizes : the sizes that are known, by which it is judged whether a table is worth its making.
    """
    if filter is None or not domain.ranges or (domain.exact and not domain.hulled):
        return domain
    known = Known(
        "",
        (*tiled, streamed),
        frozenset(real),
        frozenset(positive_parameters(filter, streamed=streamed)),
        boxed=True,
    )
    ranks = free_ranks(filter)
    if any(rank in held for rank in ranks):
        return domain
    ends = (x for r in domain.ranges for x in (r.begin, r.end, r.full_begin, r.full_end))
    if any(name not in readable for x in ends for name in tensors(x)):
        return domain  # between these ends the table's kernel would look
    whole = evaluable(filter, readable)
    short = {x.tensor for x in accesses(filter) if cut(x, filter)}
    some, every = truth(normal(filter), known, [t for t in readable if t not in short])
    if (some, every) == (TRUE, FALSE) and not whole:
        return domain
    fixed = not tensors(filter)
    if sizes.get(streamed, LONG + 1) <= LONG:
        return domain
    if not fixed and all(sizes.get(rank, MANY) < MANY for rank in tiled):
        return domain
    table = Table(some, every, filter if whole else None, ranks, fixed)
    notes = tuple(n for n in domain.notes if "tested on every tile" not in n and "joined" not in n)
    return replace(domain, table=table, notes=notes)


def name_tables(kernels: list[MappedKernel], taken: Collection[str]) -> list[MappedKernel]:
    """Name the tables of partitioned kernels; what is the same table has one name."""
    names: dict[object, str] = {}

    def named(kernel: MappedKernel, traversal: Traversal) -> Traversal:
        domain, rank = traversal.domain, traversal.streaming.rank
        if domain.table is None:
            return traversal
        widths = tuple((r, kernel.partition(r).tile) for r in (*kernel.ranks("tiled"), rank))
        key = (domain.table, domain.ranges, widths)
        if key not in names:
            wish, number = f"{rank}_tiles", 2
            while wish in names.values() or any(t.startswith(wish) for t in taken):
                wish, number = f"{rank}_tiles_{number}", number + 1
            names[key] = wish
        table = replace(domain.table, name=names[key])
        return replace(traversal, domain=replace(domain, table=table))

    return [replace(k, traversals=tuple(named(k, t) for t in k.traversals)) for k in kernels]


def cut(access: Access, filter: Expression) -> bool:
    """Whether a tensor may end before the rank does that walks it."""
    names = {x.name for x in walk(filter) if isinstance(x, Parameter)}
    return any(
        isinstance(c, RankVariable) and f"{access.tensor}_size_{k}" in names
        for k, c in enumerate(access.coordinates)
    )


def evaluable(filter: Expression, readable: Collection[str]) -> bool:
    """Whether a kernel that only makes the table can test a point."""
    member = any(isinstance(x, Apply) and x.operator in ("in", "default") for x in walk(filter))
    return not member and all(name in readable for name in tensors(filter))


def truth(x: Expression, known: Known, readable: Collection[str]) -> Truth:
    """Return ``some`` and ``every`` of a filter in negation normal form."""
    match x:
        case Apply("and" | "or" as name, operands):
            parts = [truth(o, known, readable) for o in operands]
            some = Apply(name, tuple(s for s, _ in parts))
            every = Apply(name, tuple(e for _, e in parts))
            return simplify(some, known), simplify(every, known)
        case Apply("not", (inner,)):
            kept, whole = truth(inner, known, readable)
            return negated(whole, known), negated(kept, known)
        case _:
            return atom_truth(x, known, readable)


def negated(x: Expression, known: Known) -> Expression:
    """Return the opposite of a condition on a tile."""
    return simplify(Apply("not", (x,)), known)


def atom_truth(x: Expression, known: Known, readable: Collection[str]) -> Truth:
    """Return ``some`` and ``every`` of a comparison, or of a truth value read from a tensor."""
    if not evaluable(x, readable):
        return TRUE, FALSE
    alike: list[Expression] = []

    def one_element(y: Expression) -> Expression | None:
        if not isinstance(y, Access) or not varies(y, known) or folded(y, known) is not None:
            return None
        coordinates: list[Expression] = []
        for position, c in enumerate(y.coordinates):
            low, high = extreme(c, "least", known), extreme(c, "greatest", known)
            if low is None or high is None:
                alike.append(FALSE)
                return None
            if low != high:
                alike.append(Apply("==", (low, high)))
                low = low if surely_present(y) else inside(low, y.tensor, position)
            coordinates.append(low)
        return replace(y, coordinates=tuple(coordinates))

    same = rewrite(x, one_element)
    if FALSE in alike:
        return TRUE, FALSE
    some, every = somewhere(same, known), everywhere(same, known)
    if alike:
        test = simplify(Apply("and", tuple(dict.fromkeys(alike))), known)
        return (
            simplify(Apply("or", (negated(test, known), some)), known),
            simplify(Apply("and", (test, every)), known),
        )
    return some, every


def inside(coordinate: Expression, tensor: str, position: int) -> Expression:
    """Keep a bound that may be no point's coordinate inside the tensor, so that it may be read."""
    last = plus(Parameter(f"{tensor}_size_{position}"), -1)
    return Apply("max", (ZERO, Apply("min", (coordinate, last))))
