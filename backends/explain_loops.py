"""Explaining a loop: the state that is kept, how it was shown to be right, the tiles visited."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.cascade import Einsum
from ..ir.domain import Domain, Walk
from ..ir.mapping import MappedKernel, Traversal
from ..ir.show import show_expression
from ..ir.streaming import Field
from .explain_points import made_when
from .explain_visits import Facts, visits


@dataclass(frozen=True, slots=True)
class FieldExplanation:
    """One accumulator: notation for its lift, filter and transport; None where there is none."""

    tensor: str
    ranks: tuple[str, ...]
    reducer: str
    lift: str
    filter: str | None
    frame: tuple[str, ...]
    transport: str | None
    family: str
    proof: str


@dataclass(frozen=True, slots=True)
class RangeExplanation:
    """Coordinates visited, half-open, and among them those whose tiles have all their points."""

    begin: str
    end: str
    full_begin: str
    full_end: str


@dataclass(frozen=True, slots=True)
class TilesExplanation:
    """Tiles of one loop over all programs; densities are shares of all tiles, and of all points.

    live_density is None where the points that exist were not counted. listed : tiles that lists
    name. exact : False where these are not given, and count at their longest.
    """

    total: int
    skipped: int
    full: int
    partial: int
    executed_density: float
    live_density: float | None
    listed: int = 0
    exact: bool = True


@dataclass(frozen=True, slots=True)
class ListExplanation:
    """A list that a loop walks: ``entry`` stands at position ``rank``, ``width`` points each.

    ends : how many positions. kept : which of them count. tests : conditions on the points.
    """

    entry: str
    rank: str
    width: int
    ends: tuple[str, ...]
    kept: str | None
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoopExplanation:
    """One walk of a rank by one kernel.

    continues : whether it goes on with the accumulators of the loop before it.
    fields : the accumulators, in order. body : what is computed a tile at a time. finalise : what
    is made of the accumulators. reads : tensors of memory read along the rank. test : the condition
    on partial tiles. exact : False where every tile is tested. lists : those that are walked after
    that. tiles : None, with the reason in ``open``, where they could not be counted.
    table : ``""``, or when the tiles that have points are listed by a kernel: ``once`` for equal
    sizes and parameters, ``kept`` until a static input changes, or at each ``call``.
    additions : what each tile adds to in memory.
    """

    rank: str
    continues: bool
    commutative: bool
    fields: tuple[FieldExplanation, ...]
    body: tuple[str, ...]
    finalise: tuple[str, ...]
    reads: tuple[str, ...]
    ranges: tuple[RangeExplanation, ...]
    test: str | None
    exact: bool
    notes: tuple[str, ...]
    tiles: TilesExplanation | None
    open: str
    lists: tuple[ListExplanation, ...] = ()
    table: str = ""
    additions: tuple[FieldExplanation, ...] = ()


def explain_loop(kernel: MappedKernel, traversal: Traversal, facts: Facts) -> LoopExplanation:
    """Return what one loop keeps and visits."""
    streaming, domain = traversal.streaming, traversal.domain
    found = visits(kernel, traversal, facts)
    tiles, reason = (None, found) if isinstance(found, str) else (found, "")
    return LoopExplanation(
        streaming.rank,
        traversal.continues,
        streaming.commutative,
        tuple(explain_field(f) for f in streaming.fields),
        tuple(str(x) for x in streaming.body if isinstance(x, Einsum)),
        tuple(str(x) for x in streaming.finalise),
        tuple(t for t in kernel.reads if reads_along(t, traversal)),
        explain_ranges(domain),
        None if domain.test is None else show_expression(domain.test),
        domain.exact,
        domain.notes,
        None
        if tiles is None
        else TilesExplanation(
            tiles.total,
            tiles.skipped,
            tiles.full,
            tiles.partial,
            tiles.executed_density,
            tiles.live_density,
            tiles.listed,
            tiles.exact,
        ),
        reason,
        tuple(explain_list(x) for x in traversal.walks),
        "" if domain.table is None else made_when(domain.table, facts.static),
        tuple(explain_field(f) for f in streaming.additions),
    )


def explain_list(found: Walk) -> ListExplanation:
    """Return a walk along a list as notation."""
    tests = dict.fromkeys(t for _, t in found.tests if t is not None)
    kept = found.positions.test
    return ListExplanation(
        show_expression(found.entry),
        found.rank,
        found.width,
        tuple(show_expression(r.end) for r in found.positions.ranges),
        None if kept is None else show_expression(kept),
        tuple(show_expression(t) for t in tests),
    )


def reads_along(tensor: str, traversal: Traversal) -> bool:
    """Whether a loop reads a tensor at coordinates that move with the loop."""
    from ..ir.expression import Access, free_ranks, walk

    return any(
        isinstance(x, Access) and x.tensor == tensor and traversal.streaming.rank in free_ranks(x)
        for item in traversal.streaming.body
        for x in walk(item.lift if isinstance(item, Field) else item.body)
    )


def explain_field(field: Field) -> FieldExplanation:
    """Return an accumulator as notation."""
    return FieldExplanation(
        field.tensor,
        field.ranks,
        field.reducer,
        show_expression(field.lift),
        None if field.filter is None else show_expression(field.filter),
        field.frame,
        None if field.transport is None else show_expression(field.transport),
        field.family,
        field.proof,
    )


def explain_ranges(domain: Domain) -> tuple[RangeExplanation, ...]:
    """Return a domain's ranges as notation."""
    return tuple(
        RangeExplanation(*(show_expression(x) for x in (r.begin, r.end, r.full_begin, r.full_end)))
        for r in domain.ranges
    )
