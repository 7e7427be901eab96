"""Walk lists: a loop over a rank whose filter asks for members of a list visits just those.

::

    m: (m // 64 in L[p // 64] or p - m < W) and m <= p
    -->
    m: p - m < W and m <= p                            in tiles, by bounds
    for each j of L[p_first // 64]:                    m from L[p_first // 64, j] * 64 on
        m <= p and not (p - m < W and m <= p)          tested on its points

The filter, as a truth value of its tests "m is in list k", is split in what it is without any list
and, list by list, in what each one adds. Sets that are differences of one growing set are disjoint,
so no point is visited twice (theory 5.2).

Requires: each test occurs without a ``not``, lists hold no coordinate twice (``membership`` sees to
that), the streaming state is commutative, and the rows of a tile have one list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import gcd

from ..ir.cascade import Einsum, Scalar
from ..ir.domain import Domain, Walk
from ..ir.errors import NOWHERE, BackendError, underlined
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    rewrite,
    substitute,
    walk,
)
from .align import conjunction, holds, inside
from .domain_simplify import FALSE, TRUE
from .domains import domain
from .stream_presence import conjuncts

Condition = Expression | None
Tests = tuple[tuple[Condition, Condition], ...]

NARROWEST = 16
"""Rows of the narrowest tile worth having; ranks whose lists change sooner are no tile."""


def split_lists(
    conditions: Sequence[Condition],
    *,
    streamed: str,
    tiled: tuple[str, ...],
    parameters: Mapping[str, Scalar],
    inputs: Mapping[str, tuple[int, ...] | None],
    sizes: Mapping[str, int],
    commutative: bool,
) -> tuple[Tests, tuple[Walk, ...]]:
    """Return what is left of each condition outside all lists, and the lists to be walked.

    ``inputs`` are the tensors in memory that the caller gave, with their shapes where they are
    known. Without a list of the streamed rank both are empty.

    Raises
    ------
    BackendError
        where a list cannot be walked, with the reason.
    """
    lists = tuple(dict.fromkeys(x for c in conditions for x in members(c, streamed)))
    if not lists:
        return (), ()
    if not commutative:
        raise BackendError(
            f"{listed(lists[0])} would be walked in the order of the list, and what is kept along "
            f"{streamed} depends on the order{place_of(lists[0])}"
        )
    for condition in conditions:
        for x in negated(condition, positive=True):
            if x in lists:
                raise BackendError(
                    "a list is walked where being in it is asked for; "
                    f"{listed(x)} stands under a not; keep the list of the others, or a table of "
                    f"truth values for each block{place_of(x)}"
                )
    walks = []
    earlier: dict[Expression, bool] = dict.fromkeys(lists, False)
    dense = tuple((c, assume(c, earlier)) for c in conditions)
    for k, member in enumerate(lists):
        later: dict[Expression, bool] = dict.fromkeys(lists[k + 1 :], False)
        tests = []
        for c in conditions:
            there, elsewhere = (assume(c, {**later, member: x}) for x in (True, False))
            tests.append((c, difference(there, elsewhere)))
        if all(test == FALSE for _, test in tests):
            continue
        for _, test in tests:
            for x in [] if test is None else members(test, streamed):
                raise BackendError(
                    "a point in two lists would be visited twice, and count twice: "
                    f"{listed(x)} and {listed(member)}; select into one list{place_of(x)}"
                )
        walks.append(
            walk_of(member, tuple(tests), tiled, parameters=parameters, inputs=inputs, sizes=sizes)
        )
    return dense, tuple(walks)


def listed(member: Expression) -> str:
    """Return the tensor of a list that is walked, by the user's name."""
    found = [x for x in walk(member) if isinstance(x, Access) and x.at != NOWHERE]
    return found[0].tensor if found else show(member)


def place_of(member: Expression) -> str:
    """Show where a text reads a list."""
    return next((underlined(x.at) for x in walk(member) if x.at != NOWHERE), "")


def walk_of(
    member: Reduce,
    tests: Tests,
    tiled: tuple[str, ...],
    *,
    parameters: Mapping[str, Scalar],
    inputs: Mapping[str, tuple[int, ...] | None],
    sizes: Mapping[str, int],
) -> Walk:
    """Return the walk of one list."""
    (rank,) = member.ranks
    assert isinstance(member.body, Apply)
    entry, item = member.body.operands
    width = 1
    if isinstance(item, Apply):
        found = number(item.operands[1], parameters)
        if found is None:
            raise BackendError(
                f"the blocks of {show(member)} have a width that is not known when compiling; "
                "give the parameter, or write the number"
            )
        width = found
    first: dict[str, Expression] = {r: Parameter(f"{r}_first") for r in tiled}
    within: list[Expression] = []

    def clamp(x: Expression) -> Expression | None:
        if not isinstance(x, Access) or x.tensor not in inputs:
            return None
        coordinates = list(x.coordinates)
        shape = inputs[x.tensor]
        for k, c in enumerate(x.coordinates):
            if isinstance(c, RankVariable | Constant) or rank in free_ranks(c):
                continue
            if shape and all(holds(t, sizes, parameters) for t in inside(c, Constant(shape[k]))):
                continue
            extent = Parameter(f"{x.tensor}_size_{k}")
            within.extend(inside(c, extent))
            last = Apply("-", (extent, Constant(1)))
            coordinates[k] = Apply("max", (Constant(0), Apply("min", (c, last))))
        return replace(x, coordinates=tuple(coordinates))

    def placed(x: Expression) -> Expression:
        """Follow the first row of a tile; keep what is read inside its tensor."""
        return substitute(rewrite(x, clamp), first)

    entry = placed(entry)
    kept = None if member.filter is None else placed(member.filter)
    parts = conjuncts(kept)
    bounds = [c for c in parts if bounds_position(c, rank)]
    positions = domain(conjunction(bounds), streamed=rank, tiled=())
    rest = conjunction([c for c in parts if c not in bounds])
    positions = replace(positions, test=rest, exact=rest is None, notes=())
    length = length_of(entry, rank, inputs)
    if length is not None:
        positions = with_size(positions, rank, length)
    exists = conjunction([substitute(x, first) for x in within])
    return Walk(rank, entry, width, positions, exists, tests)


def bounds_position(condition: Expression, rank: str) -> bool:
    """Whether a condition compares the position with a number that is the same for all."""
    match condition:
        case Apply("<" | "<=" | ">" | ">=", (left, right)):
            plain = RankVariable(rank)
            return (left == plain) != (right == plain) and not (
                rank in free_ranks(left) and rank in free_ranks(right)
            )
        case _:
            return False


def length_of(
    entry: Expression, rank: str, inputs: Mapping[str, tuple[int, ...] | None]
) -> Expression | None:
    """Return how many positions an input has room for, if it is read at the positions."""
    match entry:
        case Access(tensor=tensor, coordinates=coordinates) if tensor in inputs:
            if RankVariable(rank) in coordinates:
                return Parameter(f"{tensor}_size_{coordinates.index(RankVariable(rank))}")
    return None


def with_size(found: Domain, rank: str, size: Expression) -> Domain:
    """Return a domain whose rank ends at a size given by other means."""

    def rule(x: Expression) -> Expression | None:
        return size if x == Size(rank) else None

    ranges = tuple(
        replace(
            r,
            begin=rewrite(r.begin, rule),
            end=rewrite(r.end, rule),
            full_begin=rewrite(r.full_begin, rule),
            full_end=rewrite(r.full_end, rule),
        )
        for r in found.ranges
    )
    return replace(found, ranges=ranges)


def filters_of(einsum: Einsum) -> Iterator[Expression]:
    """Yield the filters of an einsum: its own, and those of reductions in its body."""
    if einsum.filter is not None:
        yield einsum.filter
    for x in walk(einsum.body):
        if isinstance(x, Reduce) and x.filter is not None and not is_member(x):
            yield x.filter


def row_steps(
    filters: Iterable[Expression], ranks: tuple[str, ...], parameters: Mapping[str, Scalar]
) -> dict[str, int]:
    """Return how many rows of each rank have the same lists: 64 for a list at ``p // 64``."""
    steps: dict[str, int] = {}
    for x in (x for f in filters for x in walk(f)):
        if not is_member(x):
            continue
        assert isinstance(x, Reduce) and isinstance(x.body, Apply)
        for part in (x.body.operands[0], *(() if x.filter is None else (x.filter,))):
            for rank, step in rows_in(part, parameters):
                if rank in ranks:
                    steps[rank] = gcd(steps.get(rank, 0), step)
    return {rank: step & -step for rank, step in steps.items()}


def rows_in(x: Expression, parameters: Mapping[str, Scalar]) -> Iterator[tuple[str, int]]:
    """Yield the ranks of an expression, with the number of coordinates that it does not tell."""
    match x:
        case RankVariable(rank=rank):
            yield rank, 1
        case Apply("//", (RankVariable(rank=rank), by)):
            yield rank, number(by, parameters) or 1
        case Access(coordinates=parts) | Apply(operands=parts):
            for part in parts:
                yield from rows_in(part, parameters)
        case _:
            return


def is_member(x: Expression) -> bool:
    """Whether an expression asks whether a list holds a coordinate."""
    return isinstance(x, Reduce) and x.reducer == "any" and (
        isinstance(x.body, Apply) and x.body.operator == "==" and len(x.ranks) == 1
    )  # fmt: skip


def members(condition: Condition, streamed: str) -> Iterator[Reduce]:
    """Yield the tests of a condition whose list names coordinates, or blocks, of a rank."""
    for x in [] if condition is None else walk(condition):
        if not is_member(x):
            continue
        assert isinstance(x, Reduce) and isinstance(x.body, Apply)
        entry, item = x.body.operands
        plain = isinstance(item, RankVariable) and item.rank == streamed
        block = (
            isinstance(item, Apply)
            and item.operator == "//"
            and item.operands[0] == RankVariable(streamed)
            and isinstance(item.operands[1], Constant | Parameter)
        )
        others = (entry, *(() if x.filter is None else (x.filter,)))
        if (plain or block) and not any(streamed in free_ranks(o) for o in others):
            yield x


def sole_list(conditions: Iterable[Condition], streamed: str) -> Reduce | None:
    """Return the test of the one list that every point of all conditions is in; None without."""
    found: set[Reduce] = set()
    for condition in conditions:
        lists = list(members(condition, streamed))
        if len(set(lists)) != 1 or not set(lists) <= set(conjuncts(condition)):
            return None
        found |= set(lists)
    return found.pop() if len(found) == 1 else None


def negated(condition: Condition, positive: bool) -> Iterator[Expression]:
    """Yield the tests that stand under a ``not``, or where no connective says how they count."""
    match condition:
        case None:
            return
        case Apply("and" | "or", operands):
            for x in operands:
                yield from negated(x, positive)
        case Apply("not", (inner,)):
            yield from negated(inner, not positive)
        case Reduce():
            if not positive:
                yield condition
        case _:
            yield from (x for x in walk(condition) if is_member(x))


def assume(condition: Condition, values: Mapping[Expression, bool]) -> Condition:
    """Return a condition where some of its tests are decided; None where it always holds."""
    if condition is None:
        return None

    def rule(x: Expression) -> Expression | None:
        if x in values:
            return Constant(values[x])
        match x:
            case Apply("not", (Constant(value=value),)):
                return Constant(not value)
            case Apply("and" | "or" as name, operands):
                zero, one = (FALSE, TRUE) if name == "and" else (TRUE, FALSE)
                if zero in operands:
                    return zero
                left = tuple(o for o in operands if o != one)
                if len(left) == len(operands):
                    return None
                return one if not left else left[0] if len(left) == 1 else Apply(name, left)
            case _:
                return None

    found = rewrite(condition, rule)
    return None if found == TRUE else found


def difference(one: Condition, other: Condition) -> Condition:
    """Return what holds in one condition and not in the other."""
    if other is None:
        return FALSE
    if other == FALSE or one == FALSE:
        return one
    return conjunction([*([] if one is None else [one]), Apply("not", (other,))])


def number(x: Expression, parameters: Mapping[str, Scalar]) -> int | None:
    """Return a positive whole number, if it is known."""
    match x:
        case Constant(value=value):
            found: Scalar | None = value
        case Parameter(name=name):
            found = parameters.get(name)
        case _:
            return None
    return found if isinstance(found, int) and found > 0 else None


def show(x: Expression) -> str:
    """Return a test as notation."""
    from ..ir.show import show_expression

    return show_expression(x)
