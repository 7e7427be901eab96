"""Divide: group the einsums of a cascade in kernels.

A tensor crosses memory if it has to: an output; a reduction over a long rank that a consumer would
otherwise repeat for each of its own tiles; a tensor read at coordinates that capture a reduced
rank; what other tiles would make again from rows that nothing else reads (``recompute``).
Everything else is made where it is used. So what holds two long ranks is never stored unless
it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ir.cascade import Cascade, Einsum
from ..ir.errors import BackendError, underlined
from ..ir.expression import (
    Concatenate,
    Populate,
    Reduce,
    accesses,
    free_ranks,
    tensors,
)
from ..ir.mapping import View
from ..ir.selection import WHOLE, find_count, list_rank, selections
from .align import SHORT, aligned
from .recompute import (
    closure,
    long_reduced,
    pooled,
    statistics,
    summed_up,
)
from .scatter_store import scatters
from .segments import part_ranks
from .short_ranks import RESIDENT_LIMIT, accesses_of, short_ranks
from .tile_work import all_ranks


@dataclass(frozen=True, slots=True)
class Group:
    """The einsums of one kernel, before they are mapped.

    targets : tensors that it stores; ``slice`` the einsums that it computes, in order.
    parallel : long ranks, one program (or one row of a tile) for each coordinate.
    resident : short ranks, held whole; ``streamed`` the long rank that is reduced, if any.
    segments : the ranks of its parts, if it is a concatenated one.
    ordered : a rank that is put in order, and the rank of the list that this gives.
    views : where memory has what lies under other ranks here, since a list says where it belongs.
    searched : the einsum that chooses from a rank that no program holds whole.
    added : sums over a parallel rank to which it adds in memory (``add_up``). in_turn : whether
        its programs do so one after the other.
    """

    targets: tuple[str, ...]
    slice: tuple[Einsum, ...]
    parallel: tuple[str, ...]
    resident: tuple[str, ...]
    streamed: str | None
    segments: tuple[str, ...] = ()
    ordered: tuple[tuple[str, str], ...] = ()
    searched: str = ""
    added: tuple[Einsum, ...] = ()
    in_turn: bool = False
    views: tuple[View, ...] = ()


def divide(
    cascade: Cascade, *, sizes: Mapping[str, int], limit: int = RESIDENT_LIMIT, places: bool = True
) -> tuple[Group, ...]:
    """Group the einsums of an aligned flat cascade in kernels, in the order in which they run.

    ``sizes`` are the sizes known when compiling. ``short_ranks`` says which ranks are *short*,
    those that a program may hold whole; the others are *long*.

    A target's long ranks are its kernel's parallel ranks. A reduction over a long rank that lacks
    one of them would be repeated, so it becomes a target itself; of several long ranks reduced in
    one slice the last stays, for the others' results become targets. Targets with the same parallel
    and streamed ranks share a kernel.

    Raises
    ------
    BackendError
        for a construct that has no kernel: an iterative rank, a selection, a rank that has to be
        held whole and whose size is unknown or too large.
    """
    unsupported(cascade)
    short = short_ranks(cascade, sizes, limit, places)
    writers = {e.name: e for e in cascade.einsums}
    order = {e.name: k for k, e in enumerate(cascade.einsums)}
    turned = scatters(cascade)
    crossing = set(captured(cascade.einsums)) | apart(cascade)
    counts = {c.name: e for e in selections(cascade.einsums)
              if (c := find_count(cascade.einsums, e)) is not None}  # fmt: skip
    wanted = [t for t in cascade.outputs if t in writers]
    wanted += [t for t in crossing if t not in wanted]
    plans: dict[str, Group] = {}
    while wanted:
        target = max(wanted, key=order.__getitem__)
        wanted.remove(target)
        if target in plans or target in counts:
            continue  # the members of a list are counted by the kernel that makes it
        body = writers[target].body
        if isinstance(body, Populate):
            count = find_count(cascade.einsums, writers[target])
            plan = plan_selection(writers[target], body, count, cascade, writers, order, short)
            rising = body.ascending or body.selector == "threshold"
            if rising and sizes.get(body.rank, WHOLE + 1) > WHOLE:
                plan = replace(plan, resident=(), ordered=(), searched=target)
        elif target in turned:
            einsum, view = turned[target]
            along = {**writers, target: einsum}
            plan = replace(plan_target(target, cascade, along, order, short, sizes), views=(view,))
        else:
            plan = plan_target(target, cascade, writers, order, short, sizes)
        plans[target] = plan
        for einsum in plan.slice:
            for name in einsum.reads:
                made_here = any(e.name == name for e in plan.slice)
                if name in writers and not made_here and name not in plans:
                    crossing.add(name)
                    wanted.append(name)
    return tuple(merge(plans, cascade, order))


def apart(cascade: Cascade) -> set[str]:
    """Return the tensors that a kernel of their own stores: lists, and what lists put in place."""
    return {e.name for e in selections(cascade.einsums)} | set(scatters(cascade))


def unsupported(cascade: Cascade) -> None:
    """Refuse constructs that have no kernel."""
    for einsum in cascade.einsums:
        if einsum.generation is not None or len(einsum.output.coordinates) != len(einsum.ranks):
            raise BackendError(
                f"{einsum.name} is iterative in {einsum.generation or 'a rank'}: iterative ranks "
                f'have no kernel; use backend="interpreter"{underlined(einsum.at)}'
            )
    part_ranks(cascade.einsums)


def captured(einsums: tuple[Einsum, ...]) -> tuple[str, ...]:
    """Tensors that are read elsewhere than they were written, even after ``align``."""
    writers = {e.name: e for e in einsums}
    return tuple(
        dict.fromkeys(
            access.tensor
            for einsum in einsums
            for access in (*accesses(einsum.body), *accesses_of(einsum.filter))
            if access.tensor in writers and not aligned(access, writers[access.tensor])
        )
    )


def plan_target(
    target: str,
    cascade: Cascade,
    writers: Mapping[str, Einsum],
    order: Mapping[str, int],
    short: frozenset[str],
    sizes: Mapping[str, int],
) -> Group:
    """Find the slice of one target and the roles of its ranks."""
    parallel = tuple(r for r in writers[target].ranks if r not in short)
    cut = apart(cascade) - {target}
    while True:
        slice = closure(target, writers, order, cut)
        elsewhere = {t for t in captured(slice) if t != target} - cut
        if elsewhere:
            cut |= elsewhere
            continue
        reductions = [(e, long_reduced(e, short)) for e in slice if long_reduced(e, short)]
        repeated = {
            e.name for e, _ in reductions if e.name != target and set(parallel) - set(e.ranks)
        }
        if not repeated:
            streamed = tuple(dict.fromkeys(r for _, ranks in reductions for r in ranks))
            if len(streamed) <= 1:
                repeated = statistics(target, slice, parallel, streamed, short)
                repeated |= pooled(target, slice, parallel, short, sizes)
                if not repeated:
                    break
                cut |= summed_up(repeated, slice, target)
                continue
            last = reductions[-1][1]
            parts = part_ranks(slice).get(last[0], ()) if len(last) == 1 else ()
            if set(streamed) <= {*last, *parts}:
                streamed = last  # a part's own results are there before the whole's
                break
            repeated = {e.name for e, ranks in reductions if ranks != last and e.name != target}
            if len(last) > 1 or not repeated:
                raise BackendError(
                    f"{target} reduces over {', '.join(streamed)} at once; one program can hold "
                    f"only ranks of a known size up to {RESIDENT_LIMIT}: give the sizes, or write "
                    "the reductions one after the other"
                )
        cut |= summed_up(repeated, slice, target)
    ranks = dict.fromkeys(r for e in slice for r in all_ranks(e))
    one = streamed[0] if streamed else None
    segments = part_ranks(slice).get(one, ()) if one is not None else ()
    for einsum in slice:
        if isinstance(einsum.body, Concatenate) and einsum.body.rank != one:
            raise BackendError(
                f"{einsum.name} is needed whole: a concatenation has a kernel where everything "
                f"along {einsum.body.rank} is reduced; return its parts, or lay them end to end "
                f"before the call{underlined(einsum.at)}"
            )
    resident = tuple(r for r in ranks if r not in (*parallel, *segments) and r != one)
    if one in parallel:
        raise BackendError(
            f"{target} keeps rank {one} and reduces over it in one kernel; name the reduction's "
            "result as an einsum of its own"
        )
    for rank in resident:
        if rank not in short:
            raise BackendError(
                f"{target} needs rank {rank} whole in one program; its size must be known and at "
                f"most {RESIDENT_LIMIT}"
            )
    return Group((target,), slice, parallel, resident, one, segments)


def plan_selection(
    einsum: Einsum,
    body: Populate,
    count: Einsum | None,
    cascade: Cascade,
    writers: Mapping[str, Einsum],
    order: Mapping[str, int],
    short: frozenset[str],
) -> Group:
    """Find the slice of a selection: what is chosen from lies whole in one program.

    A reduction that keeps the rank that is chosen from is made elsewhere, by tiles.
    """
    rank, place = body.rank, list_rank(einsum)
    whole = short | {rank, place}
    cut = {t for t in captured(cascade.einsums) if t != einsum.name}
    cut |= apart(cascade) - {einsum.name}
    while True:
        slice = closure(einsum.name, writers, order, cut)
        inner = [e for e in slice if isinstance(e.body, Reduce)]
        elsewhere = {e.name for e in inner if rank in e.ranks or long_reduced(e, whole)}
        if not elsewhere:
            break
        cut |= elsewhere
    parallel = tuple(r for r in einsum.ranks if r != place)
    ranks = dict.fromkeys(r for e in slice for r in (*all_ranks(e), *inside_selection(e)))
    resident = tuple(r for r in ranks if r not in parallel)
    made = () if count is None else (count,)
    targets = (einsum.name, *(e.name for e in made))
    return Group(targets, (*slice, *made), parallel, resident, None, ordered=((rank, place),))


def inside_selection(einsum: Einsum) -> tuple[str, ...]:
    """Return the rank that a selection chooses from."""
    return (einsum.body.rank,) if isinstance(einsum.body, Populate) else ()


def merge(plans: Mapping[str, Group], cascade: Cascade, order: Mapping[str, int]) -> list[Group]:
    """Join the groups that walk the same ranks, and sort them so that each finds what it reads.

    What one makes along a part of a concatenated rank, on the way, is stored there.
    """
    merged: list[Group] = []
    for name in sorted(plans, key=order.__getitem__):
        plan = plans[name]
        for k, other in enumerate(merged):
            if any(x.ordered or x.searched or x.views for x in (plan, other)):
                continue
            wide, narrow = (plan, other) if plan.segments else (other, plan)
            within = narrow.streamed in wide.segments and narrow.slice == tuple(
                e for e in wide.slice if e in narrow.slice
            )
            alike = within or plan.streamed == other.streamed
            if set(plan.parallel) == set(other.parallel) and alike:
                # what one program stores another may read only after the kernel's end
                if set(reads_of(plan.slice)) & set(other.targets):
                    continue
                joined = join(wide, narrow, order) if within else join(other, plan, order)
                if not waits(joined, merged[k + 1 :]) and not captured(joined.slice):
                    merged[k] = joined
                    break
        else:
            merged.append(plan)
    return merged


def join(one: Group, two: Group, order: Mapping[str, int]) -> Group:
    """One kernel for the targets of both."""
    einsums = {e.name: e for e in (*one.slice, *two.slice)}
    return replace(
        one,
        targets=tuple(sorted({*one.targets, *two.targets}, key=order.__getitem__)),
        slice=tuple(einsums[n] for n in sorted(einsums, key=order.__getitem__)),
        resident=tuple(dict.fromkeys((*one.resident, *two.resident))),
    )


def waits(group: Group, later: list[Group]) -> bool:
    """Whether a group reads what a later one stores."""
    made = {e.name for e in group.slice}
    stored = {t for g in later for t in g.targets}
    return any(n in stored and n not in made for e in group.slice for n in e.reads)


def squares(cascade: Cascade, groups: tuple[Group, ...], sizes: Mapping[str, int]) -> set[str]:
    """Return the stored tensors that a loop reads along a rank beside another one, as no input is.

    An output is stored anyway, and so is what a selection reads. Short ranks span nothing large.
    """
    together = [
        {r for c in x.coordinates for r in free_ranks(c)}
        for e in cascade.einsums
        for x in (*accesses(e.body), *accesses_of(e.filter))
        if x.tensor in cascade.inputs
    ]
    writers = {e.name: e for e in cascade.einsums}
    found = set()
    for group in groups:
        for name in reads_of(group.slice):
            ranks = set(writers[name].ranks) if name in writers else set()
            if group.streamed not in ranks or name in cascade.outputs:
                continue
            wide = {r for r in ranks if sizes.get(r, SHORT + 1) > SHORT}
            others = wide & set(group.parallel) if group.streamed in wide else set()
            if any(not any({group.streamed, r} <= t for t in together) for r in others):
                found.add(name)
    return found


def reads_of(slice: tuple[Einsum, ...]) -> tuple[str, ...]:
    """Return the tensors that a slice reads and does not make."""
    made = {e.name for e in slice}
    names = dict.fromkeys(n for e in slice for n in (*tensors(e.body), *e.reads))
    return tuple(n for n in names if n not in made)
