"""Map: give each group of einsums its loops, and each rank its role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.domain import Domain
from ..ir.errors import BackendError, underlined
from ..ir.expression import (
    Access,
    Apply,
    Expression,
    Parameter,
    Populate,
    RankVariable,
    Reduce,
    free_ranks,
    tensors,
    walk,
)
from ..ir.mapping import MappedKernel, Role, Search, Traversal, View
from ..ir.selection import find_count, list_rank
from ..ir.streaming import Field, Reason, Streaming
from .divide import Group, reads_of
from .domain_simplify import FALSE
from .domain_table import tabled
from .domains import domain
from .facts import infinite_tensors
from .part_tests import part_tests
from .phases import continued, part_results
from .presence import Facts, explicit
from .recompute import closure
from .segments import segments
from .stream import stream
from .walk_lists import NARROWEST, filters_of, is_member, place_of, row_steps, split_lists


def map_kernel(
    cascade: Cascade,
    group: Group,
    *,
    name: str,
    sizes: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, float],
    inside: tuple[str, ...] = (),
    stored: Mapping[str, Expression | None] | None = None,
    apart: tuple[str, ...] = (),
    real: tuple[str, ...] = (),
    views: tuple[View, ...] = (),
    together: bool = False,
) -> MappedKernel:
    """Derive a group's loops and assign its ranks their roles.

    ``sizes``, input ``shapes`` and ``parameters`` are what is known when compiling; they only serve
    to drop conditions that always hold, and to hold resident ranks whole. The values of ``inside``
    index within bounds. ``stored`` gives tensors that earlier kernels write the condition under
    which their points exist. ``apart`` are ranks of which a program has one coordinate in any case.
    ``real`` names the parameters and tensors that hold fractions.
    ``views`` are ranks of memory that the group walks under ranks of its own. ``together``: a
    program has a few coordinates of the last parallel rank, also where no product asks for it.

    Raises
    ------
    BackendError
        if the group reduces over its streamed rank in a way that no number of traversals with a
        bounded state computes.
    """
    if group.searched:
        return map_search(cascade, group, name, sizes, shapes, parameters, inside, stored or {})
    reads = reads_of(group.slice)
    inputs = tuple(n for n in dict.fromkeys((*cascade.inputs, *reads)) if n in reads)
    slice = replace(cascade, inputs=inputs, einsums=group.slice, outputs=group.targets)
    before, streamings, notes = traverse(slice, group)
    if group.added:
        (streaming,) = streamings
        streamings = (replace(streaming, additions=tuple(map(addition, group.added))),)
    loops = tuple(x for s in streamings for x in (*s.body, *s.finalise))
    asked = (f for e in slice.einsums for f in filters_of(e))
    steps = row_steps(asked, group.parallel, parameters)
    narrow = {r for r, step in steps.items() if step < NARROWEST}
    wide = {r for r in group.resident if sizes[r] >= NARROWEST}
    pool = tuple(r for r in group.parallel if r not in apart)
    tiled = choose_tiled((*before, *loops), replace(group, parallel=pool), narrow, wide)
    tiled = tiled or (pool[-1:] if together else ())
    found = {n: (stored or {}).get(n) for n in inputs}
    memory = {*cascade.inputs, *(stored or {})}
    for tensor, condition in found.items():
        lost = [] if condition is None else [t for t in tensors(condition) if t not in memory]
        if lost:
            raise BackendError(
                f"{tensor} crosses kernels; which of its points exist depends on {lost[0]}, which"
                f" does not; return {lost[0]} too, or give {tensor} a value everywhere with default"
            )
    writers = {e.name: e for e in cascade.einsums}
    promised = frozenset(inside)
    facts = Facts(slice, sizes, shapes, parameters, found, writers, promised, views)
    collect_presence(before, facts)
    taking = []
    for s in streamings:
        collect_presence((*s.body, *s.finalise, *s.additions), facts)
        taking.append(tuple((f.tensor, facts.taking[f.tensor]) for f in s.sums))
    refuse_listed(group.targets, facts)
    before = tuple(replace(e, body=explicit(e.body, facts)) for e in before)
    streamings = tuple(
        replace(
            s,
            body=tuple(
                replace(x, lift=explicit(x.lift, facts))
                if isinstance(x, Field)
                else replace(x, body=explicit(x.body, facts))
                for x in s.body
            ),
            finalise=tuple(replace(e, body=explicit(e.body, facts)) for e in s.finalise),
            additions=tuple(replace(f, lift=explicit(f.lift, facts)) for f in s.additions),
        )
        for s in streamings
    )
    rows = (*tiled, *group.resident)
    given = {n: shapes.get(n) for n in cascade.inputs}
    traversals = tuple(
        follow(
            s,
            conditions,
            rows,
            continues=k > 0 and s.fields_of(streamings[k - 1]),
            sure=frozenset(inside),
            parameters=parameters,
            inputs=given,
            sizes=sizes,
            held=group.resident,
            readable=tuple(memory),
            real=real,
        )
        for k, (s, conditions) in enumerate(zip(streamings, taking, strict=True))
    )
    roles: list[tuple[str, Role]] = [(r, "tiled" if r in tiled else "grid") for r in group.parallel]
    roles += [(r, "resident") for r in group.resident]
    if group.streamed is not None:
        roles += [(r, "streamed") for r in group.segments or (group.streamed,)]
    return MappedKernel(
        name,
        tuple(roles),
        before,
        traversals,
        (),
        inputs,
        (*group.targets, *(e.name for e in group.added)),
        presence=tuple(facts.found.items()),
        taking=tuple(facts.taking.items()),
        static=tuple((r, sizes[r]) for r in group.resident),
        reverse=tuple(r for r in tiled if any(grows(t, r) for t in traversals)),
        infinite=tuple(sorted(infinite_tensors(cascade))),
        ordered=group.ordered,
        steps=tuple((r, n) for r, n in steps.items() if r in tiled),
        views=(*views, *group.views),
        scattered=group.targets if group.views else (),
        in_turn=group.in_turn,
        notes=notes,
    )


def map_search(
    cascade: Cascade,
    group: Group,
    name: str,
    sizes: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, float],
    inside: tuple[str, ...],
    stored: Mapping[str, Expression | None],
) -> MappedKernel:
    """Map a selection from a long rank, of which every program has a tile."""
    reads = reads_of(group.slice)
    slice = replace(cascade, inputs=reads, einsums=group.slice, outputs=group.targets)
    body = cascade.einsum(group.searched).body
    assert isinstance(body, Populate)
    found = {n: stored.get(n) for n in reads}
    writers = {e.name: e for e in cascade.einsums}
    facts = Facts(slice, sizes, shapes, parameters, found, writers, frozenset(inside))
    collect_presence(slice.einsums, facts)
    mass = body.selector in ("cover", "exceed", "within")
    most = 1 << (sizes[body.rank] - 1).bit_length() if sizes.get(body.rank, 0) > 0 else 0
    digits = () if body.selector == "threshold" else (4,) * 8 if mass else (8,) * 4
    roles: list[tuple[str, Role]] = [(r, "grid") for r in group.parallel]
    return MappedKernel(
        name,
        (*roles, (body.rank, "tiled")),
        tuple(replace(e, body=explicit(e.body, facts)) for e in slice.einsums),
        (),
        (),
        reads,
        group.targets,
        presence=tuple(facts.found.items()),
        taking=tuple(facts.taking.items()),
        infinite=tuple(sorted(infinite_tensors(cascade))),
        search=Search(group.searched, digits, mass, group.searched, most),
    )


def addition(einsum: Einsum) -> Field:
    """Return a sum as what each tile of a walk adds to."""
    body = einsum.body
    assert isinstance(body, Reduce) and body.reducer == "sum"
    return Field(einsum.name, einsum.ranks, "sum", body.ranks, body.body, body.filter)


def follow(
    streaming: Streaming,
    taking: tuple[tuple[str, Expression | None], ...],
    rows: tuple[str, ...],
    *,
    continues: bool,
    sure: frozenset[str],
    parameters: Mapping[str, float],
    inputs: Mapping[str, tuple[int, ...] | None],
    sizes: Mapping[str, int],
    held: tuple[str, ...],
    readable: tuple[str, ...],
    real: tuple[str, ...],
) -> Traversal:
    """Return the loops of one state: over the tiles that bounds or a table leave, and along lists.

    ``held`` are the rows' ranks of which a program has all coordinates; ``readable`` the tensors in
    memory; ``real`` what holds fractions.
    """
    conditions = [condition for _, condition in taking]
    tests, walks = split_lists(
        conditions,
        streamed=streaming.rank,
        tiled=rows,
        parameters=parameters,
        inputs=inputs,
        sizes=sizes,
        commutative=streaming.commutative,
    )
    left = conditions if not walks and not tests else [test for _, test in tests]
    if left and all(test == FALSE for test in left):
        found = Traversal(streaming, Domain(()), walks, tests, continues, taking)
        return part_tests(found, tiled=rows, readable=readable, real=real)
    filter = union(left)
    visited = domain(filter, streamed=streaming.rank, tiled=rows, real=real, sure=sure)
    if streaming.commutative:  # a table has the full tiles first
        tiled = tuple(r for r in rows if r not in held)
        visited = tabled(
            visited,
            filter,
            streamed=streaming.rank,
            tiled=tiled,
            held=held,
            readable=readable,
            real=real,
            sizes=sizes,
        )
    found = Traversal(streaming, visited, walks, tests, continues, taking)
    return part_tests(found, tiled=rows, readable=readable, real=real)


def traverse(
    slice: Cascade, group: Group
) -> tuple[tuple[Einsum, ...], tuple[Streaming, ...], tuple[str, ...]]:
    """Split a slice in what stands before its loops, and one streaming state a loop."""
    rank = group.streamed
    if rank is None:
        return slice.einsums, (), ()
    late = behind(slice, rank)
    wanted = tuple(t for t in slice.outputs if t in late)
    streamings, notes = loops(slice, rank, wanted)
    ahead: dict[str, list[str]] = {}
    if group.segments:
        ahead = part_results(slice, group.segments, late)
        whole = [segments(slice, s) for s in streamings]
        first: list[Streaming] = []
        for part, results in ahead.items():
            found, more = loops(slice, part, tuple(results))
            joined = continued(found[0], whole[0]) if len(found) == 1 else None
            whole[:1] = [joined or whole[0]]
            first += [] if joined else found
            notes += more
        streamings = (*first, *(x for s in whole for x in s))
    own = {*late, *(t for results in ahead.values() for t in results)}
    parts = set(group.segments)
    before = tuple(e for e in slice.einsums if e.name not in own and not parts & set(e.ranks))
    return before, streamings, notes


def behind(slice: Cascade, rank: str) -> set[str]:
    """Return the tensors that have the rank, reduce over it, or depend on one that does."""
    late: set[str] = set()
    for einsum in slice.einsums:
        inner = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
        if rank in (*einsum.ranks, *inner) or late & set(einsum.reads):
            late.add(einsum.name)
    return late


def loops(
    slice: Cascade, rank: str, wanted: tuple[str, ...]
) -> tuple[tuple[Streaming, ...], tuple[str, ...]]:
    """One traversal if a state exists for all that is wanted; else one more for each refusal."""
    found = stream(slice, rank=rank, outputs=wanted)
    if isinstance(found, Streaming):
        return (found,), ()
    reason: Reason = found
    writers = {e.name: e for e in slice.einsums}
    order = {e.name: k for k, e in enumerate(slice.einsums)}
    needed = closure(reason.tensor, writers, order, set()) if reason.tensor in writers else ()
    earlier = tuple(
        e.name
        for e in needed
        if e.name != reason.tensor and isinstance(e.body, Reduce) and rank in e.body.ranks
    )
    if not earlier:
        raise BackendError(
            f"{reason.tensor} cannot be reduced over {rank} with a bounded state: {reason.text}"
            + "".join(f"\n  instead: {x}" for x in reason.alternatives)
            + (underlined(writers[reason.tensor].at) if reason.tensor in writers else "")
        )
    first, notes = loops(slice, rank, earlier)
    rest = tuple(e for e in slice.einsums if e.name not in earlier)
    known = replace(slice, inputs=(*slice.inputs, *earlier), einsums=rest)
    # what follows from the first results alone is made between the loops
    late, made = behind(known, rank), {e.name for e in first[-1].finalise}
    early = {e.name for e in slice.einsums if e.name not in behind(slice, rank)}
    between = tuple(e for e in rest if e.name not in late | made | early)
    first = (*first[:-1], replace(first[-1], finalise=(*first[-1].finalise, *between)))
    open_ones = tuple(t for t in wanted if t in {e.name for e in rest} & late)
    then, more = loops(known, rank, open_ones) if open_ones else ((), ())
    note = f"one more traversal of {rank} for {reason.tensor}: {reason.text}"
    return (*first, *then), (note, *notes, *more)


def choose_tiled(
    work: tuple[Einsum | Field, ...],
    group: Group,
    narrow: set[str] | frozenset[str] = frozenset(),
    wide: set[str] | frozenset[str] = frozenset(),
) -> tuple[str, ...]:
    """Choose the parallel ranks worth a tile: those that one operand of a contraction lacks.

    Ranks in ``narrow`` are none. Such an operand is loaded once for the whole tile. Where the other
    operands have one of the ``wide`` ranks, held whole, that it lacks too, that is tile enough. Of
    several ranks that stand on the same side
    the last one is taken. Where nothing is contracted the last parallel rank is tiled, so that
    programs are not one coordinate wide.
    """
    sides: dict[frozenset[str], str] = {}
    weak: dict[frozenset[str], str] = {}
    pool = set(group.parallel)
    contracting = served = False
    for body in (x for x in map(lifted, work) if x is not None):
        operands = [frozenset(free_ranks(x)) for x in factors(body)]
        contracting |= len(operands) > 1
        for rank in (r for r in group.parallel if r not in narrow):
            without = [o for o in operands if rank not in o]
            having = frozenset(r for o in operands if rank in o for r in o)
            if without and (having & wide).difference(*without):
                served = True
                continue
            if len(without) < len(operands) and any(without):
                # a factor that has nothing of its own is no side of a product
                chosen = sides if any(o - having for o in without) else weak
                # ranks that share a side share its key, and the last one stays
                chosen[frozenset(r for o in without for r in o if r in pool)] = rank
    sides = sides or weak
    tiled = [r for r in group.parallel if r in sides.values()]
    if not tiled and not served and (not contracting or group.streamed is None):
        tiled = [r for r in group.parallel if r not in narrow]
        return tuple(tiled[-1:])
    return tuple(tiled[-1:] if group.streamed is not None else tiled[-2:])


def lifted(item: Einsum | Field) -> Expression | None:
    """Return the body that a sum contracts, or None."""
    match item:
        case Field(reducer="sum", lift=lift):
            return lift
        case Einsum(body=Reduce(reducer="sum", body=body)):
            return body
        case _:
            return None


def factors(expression: Expression) -> tuple[Expression, ...]:
    """Return the factors of a product, left to right; what one number divides counts as whole."""
    match expression:
        case Apply("*", (left, right)):
            return (*factors(left), *factors(right))
        case Apply("/", (over, under)) if not free_ranks(under):
            return factors(over)
        case _:
            return (expression,)


def collect_presence(work: tuple[Einsum | Field, ...], facts: Facts) -> None:
    """Find the condition under which a point of each tensor exists, in order."""
    for item in work:
        match item:
            case Field(tensor=tensor, lift=lift, filter=filter):
                conditions = facts.of_filter(filter) + facts.conditions(lift)
                facts.taking[tensor] = facts.settle(conditions)
                declared = facts.writers.get(tensor)
                outer = declared.filter if declared is not None else None
                facts.found[tensor] = facts.settle(facts.of_filter(outer))
            case Einsum(body=body, filter=filter):
                declared = facts.writers.get(item.name, item)
                facts.writers[item.name] = item
                conditions = facts.of_filter(filter)
                if isinstance(body, Populate):
                    select_presence(item, body, facts)
                    continue
                if isinstance(body, Reduce):
                    inside = facts.of_filter(body.filter)
                    taking = facts.settle(inside + facts.conditions(body.body))
                    facts.taking[item.name] = taking
                elif not isinstance(declared.body, Reduce):
                    # what finishes a reduction exists wherever that does
                    conditions += facts.conditions(body)
                facts.found[item.name] = facts.settle(conditions)


def refuse_listed(targets: tuple[str, ...], facts: Facts) -> None:
    """Refuse to store what exists where a list says so: loops walk lists, stores are no loops."""
    for target in targets:
        condition = facts.found.get(target)
        for x in () if condition is None else walk(condition):
            if is_member(x):
                raise BackendError(
                    f"{target} would be stored, and a list says which of its points exist; reduce "
                    "it along the rank that the list names, or write it over the list's places, as "
                    f"in K[L[p, j]]{place_of(x) or underlined(facts.writers[target].at)}"
                )


def select_presence(einsum: Einsum, body: Populate, facts: Facts) -> None:
    """Find which points may be chosen, and that a list ends where its members are counted."""
    able = facts.conditions(body.body) + facts.conditions(body.argument)
    if body.forbidden is not None:
        found = facts.settle([*facts.conditions(body.forbidden), body.forbidden])
        able.append(Apply("not", (found or body.forbidden,)))
    facts.taking[einsum.name] = facts.settle(able)
    count = find_count(facts.writers.values(), einsum)
    ends: list[Expression] = []
    if count is not None:
        length = Access(count.name, tuple(RankVariable(r) for r in count.ranks))
        ends.append(Apply("<", (RankVariable(list_rank(einsum)), length)))
    facts.found[einsum.name] = facts.settle(facts.of_filter(einsum.filter) + ends)


def union(conditions: list[Expression | None]) -> Expression | None:
    """Return the condition under which any of several points exists."""
    unique = dict.fromkeys(conditions)
    if None in unique or not unique:
        return None
    given = {x: set(conjuncts(x)) for x in unique if x is not None}
    # a point for which more is asked exists already where less is
    parts = tuple(x for x in given if not any(given[y] < given[x] for y in given))
    return parts[0] if len(parts) == 1 else Apply("or", parts)


def conjuncts(x: Expression) -> tuple[Expression, ...]:
    """Return the parts of a conjunction."""
    match x:
        case Apply("and", operands):
            return tuple(c for o in operands for c in conjuncts(o))
        case _:
            return (x,)


def grows(traversal: Traversal, rank: str) -> bool:
    """Whether later tiles of ``rank`` visit more: the end of a range follows it, the begin not.

    A begin may follow it by a distance that a tensor holds, for that may be longer than the rank;
    where it is short all tiles visit as many, and their order does not matter.
    """
    marks = {f"{rank}_first", f"{rank}_last"}

    def follows(expression: Expression) -> bool:
        return any(isinstance(x, Parameter) and x.name in marks for x in walk(expression))

    ranges = traversal.domain.ranges
    fixed = [r for r in ranges if not tensors(r.begin)]
    return any(follows(r.end) for r in ranges) and not any(follows(r.begin) for r in fixed)
