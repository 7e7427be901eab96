"""The pipeline: passes as data, in the order in which they run.

A cascade goes through ``CASCADE_PASSES``; what comes out is aligned, divided in kernels, mapped
and partitioned. Every pass leaves a ``Step``, so that printing, comparing and finding the pass that
broke something are loops over steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from ..ir.cascade import Cascade, Scalar
from ..ir.dtypes import tensor_dtypes
from ..ir.errors import BackendError
from ..ir.expression import Expression, substitute
from ..ir.mapping import Cut, MappedKernel
from ..ir.mapping import Mapping as Mapped
from ..ir.verify import verify
from .add_up import WIDE, WIDE_ALONE, add_up
from .align import align
from .base_two import base_two
from .cancel_norms import cancel_norms
from .count_lists import count_lists
from .dead import remove_dead
from .divide import Group, divide, squares
from .domain_table import name_tables
from .exact_places import exact_places
from .fix_radices import fix_radices
from .flatten import flatten
from .inline import inline
from .log_norm import log_norm
from .look_up_members import look_up_members
from .map_kernels import map_kernel
from .membership import expand_membership
from .pack_rows import Packed, pack_rows
from .partition import partition, worth_describing
from .reasons import reasons
from .reassociate import reassociate
from .scatter_store import invert_lists
from .short_ranks import RESIDENT_LIMIT, short_ranks
from .side_by_side import side_by_side
from .simplify import simplify
from .solve_equalities import solve_equalities
from .split_blocks import block_sizes, split_blocks
from .split_concatenations import split_concatenations
from .split_diagonals import split_diagonals
from .split_rank import split_groups
from .split_selections import split_selections, twin_sizes
from .split_sums import split_sums
from .stabilise import stabilise
from .state_traffic import least_tiles


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the arguments when a cascade is lowered.

    sizes : by rank; a rank without an entry stays open, a run-time argument.
    shapes : of the inputs, where they are known.
    parameters : values, where they are known; they only serve to prove bounds.
    dtypes : of the inputs, by numpy-style name.
    target : ``sm_80``, ``sm_90``, ``sm_100``, ``gfx942``.
    tiles : tile sizes that the user fixes, by rank.
    num_warps, num_stages : instead of the partition's choice (None: its own).
    inside : integer inputs whose values are promised to lie inside whatever they index.
    choice : which of the partition's configurations is taken, the best guess being number 0.
    described : inputs of which a tensor descriptor may fetch boxes.
    emitter : ``tl`` or ``gluon`` text, or ``auto``, which takes the faster where both are possible.
    descriptors : whether descriptors are used where they may be (None: where they pay).
    parts : streamed ranks that are reduced in parts side by side, and in how many (0: the launcher
        chooses). whole : tensors that are made all the same by kernels that walk such a rank whole.
    static : inputs that seldom change; what follows from them alone is kept between calls.
    overlap : whether a kernel may be launched while the one before it still runs, and wait inside.
    atomics : whether programs may add to the same sums in memory, in no fixed order.
    in_turn : whether they may in a fixed order.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    target: str = "sm_90"
    tiles: Mapping[str, int] = field(default_factory=dict)
    described: tuple[str, ...] = ()
    descriptors: bool | None = None
    num_warps: int | None = None
    num_stages: int | None = None
    inside: tuple[str, ...] = ()
    choice: int = 0
    parts: Mapping[str, int] = field(default_factory=dict)
    whole: tuple[str, ...] = ()
    emitter: str = "tl"
    overlap: bool = False
    static: tuple[str, ...] = ()
    atomics: bool = False
    in_turn: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One pass as it ran."""

    name: str
    before: Cascade
    after: Cascade


CASCADE_PASSES: tuple[tuple[str, Callable[[Cascade, Known], Cascade]], ...] = (
    ("flatten", lambda c, k: flatten(c)),
    ("fix_radices", lambda c, k: fix_radices(c, parameters=k.parameters)),
    ("remove_dead", lambda c, k: remove_dead(c)),
    ("stabilise", lambda c, k: stabilise(c, parameters=k.parameters)),
    ("cancel_norms", lambda c, k: cancel_norms(c)),
    ("simplify", lambda c, k: simplify(c, sizes=short_sizes(c, k))),
    ("split_concatenations", lambda c, k: split_concatenations(c)),
    ("reassociate", lambda c, k: reassociate(c, sizes=k.sizes)),
    ("log_norm", lambda c, k: log_norm(c, beyond=True)),
    ("base_two", lambda c, k: base_two(c)),
    ("inline", lambda c, k: inline(c)),
    ("simplify", lambda c, k: simplify(c, sizes=short_sizes(c, k), extrema=True)),
    ("look_up_members", lambda c, k: look_up_members(c, short=short(c, k))),
    ("count_lists", lambda c, k: count_lists(c)),
    (
        "membership",
        lambda c, k: expand_membership(c, sizes=k.sizes, shapes=k.shapes, parameters=k.parameters),
    ),
    ("invert_lists", lambda c, k: invert_lists(c)),
    ("split_blocks", lambda c, k: split_blocks(c, parameters=k.parameters)),
    ("solve_equalities", lambda c, k: solve_equalities(c, short=short(c, k))),
    ("split_sums", lambda c, k: split_sums(c, sizes=every_size(c, k))),
    (
        "split_diagonals",
        lambda c, k: split_diagonals(c, short=short(c, k), sizes=every_size(c, k)),
    ),
    (
        "align",
        lambda c, k: align(c, sizes=every_size(c, k), parameters=k.parameters, short=short(c, k)),
    ),
    # copies along other ranks may make a rank long that a program might have held whole
    ("split_sums", lambda c, k: split_sums(c, sizes=every_size(c, k))),
    ("remove_dead", lambda c, k: remove_dead(c)),
    ("count_lists", lambda c, k: count_lists(c)),
    (
        "split_selections",
        lambda c, k: split_selections(c, sizes=every_size(c, k), parameters=k.parameters),
    ),
    ("count_lists", lambda c, k: count_lists(c)),
)
"""Name and function of each pass over cascades, in order."""


def short_sizes(cascade: Cascade, known: Known) -> dict[str, int]:
    """Return the sizes that become constants of the kernels."""
    return {r: known.sizes[r] for r in sorted(short_ranks(cascade, known.sizes))}


def every_size(cascade: Cascade, known: Known) -> dict[str, int]:
    """Return the known sizes, those of ranks that passes made included."""
    sizes = {**block_sizes(cascade), **known.sizes}
    return {**twin_sizes(cascade, sizes), **sizes}


def short(cascade: Cascade, known: Known) -> frozenset[str]:
    """Return the ranks that a program may hold whole."""
    return short_ranks(cascade, every_size(cascade, known))


def run(cascade: Cascade, known: Known) -> Iterator[Step]:
    """Run the passes over cascades, yielding a step for each."""
    for name, function in CASCADE_PASSES:
        after = function(cascade, known)
        if after is not cascade:
            verify(after)
        yield Step(name, cascade, after)
        cascade = after


def map_cascade(cascade: Cascade, known: Known) -> tuple[Mapped, tuple[Step, ...]]:
    """Take a cascade all the way to a mapping; return it with the steps on the way.

    Raises
    ------
    BackendError
        for a construct that has no kernel, or a kernel that fits no configuration.
    """
    steps = tuple(run(cascade, known))
    final = steps[-1].after if steps else cascade
    known = replace(known, sizes=every_size(final, known))
    dtypes = tensor_dtypes(final, known.dtypes)
    shapes = dict(known.shapes)
    for einsum in final.einsums:
        if all(r in known.sizes for r in einsum.ranks):
            shapes[einsum.name] = tuple(known.sizes[r] for r in einsum.ranks)
    final, cuts, groups, (kernels, packed) = attempt(final, known, dtypes, shapes)
    wide = (*states_of(cuts), *(e.name for g in groups for e in g.added))
    dtypes = tensor_dtypes(final, known.dtypes) | dict.fromkeys(wide, "float32")
    crossing = {*final.inputs, *(t for g in groups for t in g.targets), *wide}
    kept = tuple((t, d) for t, d in dtypes.items() if t in crossing)
    values = {**known.parameters, **{c.step: 1 for c in cuts}}
    scalars = tuple((p, scalar_dtype(values.get(p, v))) for p, v in final.parameters)
    notes = (*(n for k in kernels for n in k.notes), *reasons(groups, known.sizes))
    made = tuple(dict(x for p in packed for x in p.made).items())
    requires = tuple(dict.fromkeys(x for p in packed for x in p.requires))
    requires += exact_places(kernels, known.sizes)
    return Mapped(final, tuple(kernels), (*kept, *scalars), notes, cuts, made, requires), steps


def states_of(cuts: tuple[Cut, ...]) -> tuple[str, ...]:
    """Return the tensors that hold the states of parts."""
    return tuple(t for c in cuts for t in c.states)


ATTEMPTS: tuple[tuple[int, bool], ...] = (
    (RESIDENT_LIMIT, True),
    (256, False),
    (64, False),
    (16, False),
    (0, False),
)
"""How large a rank may be held whole, and whether its place in the inputs counts, in order."""


def attempt(
    cascade: Cascade,
    known: Known,
    dtypes: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[Cascade, tuple[Cut, ...], tuple[Group, ...], tuple[list[MappedKernel], list[Packed]]]:
    """Divide, map and partition; where a program would hold too much, hold fewer ranks whole.

    The cascade comes back with its ranks split that are reduced in parts.
    """
    refusal: BackendError | None = None
    # what two ranks span that no input has together crosses memory only if nothing else works
    for (limit, places), square in ((a, s) for s in (False, True) for a in ATTEMPTS):
        try:
            whole: Cascade = cascade
            cuts: tuple[Cut, ...] = ()
            groups = divide(whole, sizes=known.sizes, limit=limit, places=places)
            if known.parts:
                whole, cuts = split_groups(
                    cascade,
                    groups,
                    known.parts,
                    whole=known.whole,
                    sizes=known.sizes,
                    real=fractions(known, dtypes),
                )
                groups = divide(whole, sizes=known.sizes, limit=limit, places=places)
            if known.atomics:
                by_engine = known.emitter != "tl" and known.target == "sm_90"
                least = WIDE if by_engine else WIDE_ALONE
                groups = add_up(groups, whole, sizes=known.sizes, least=least)
            elif known.in_turn:
                groups = add_up(groups, whole, sizes=known.sizes, in_turn=True)
            if not square and squares(whole, groups, known.sizes):
                continue
            kernels, packed = cut_groups(whole, groups, known, dtypes, shapes, cuts)
            return whole, cut_tiles(cuts, kernels, packed, known), groups, (kernels, packed)
        except BackendError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


PARTS_HELD = 16
"""How many parts' states the merge takes in at a time."""


def cut_groups(
    cascade: Cascade,
    groups: tuple[Group, ...],
    known: Known,
    dtypes: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    cuts: tuple[Cut, ...] = (),
) -> tuple[list[MappedKernel], list[Packed]]:
    """Pack the rows of each group of einsums, map it and partition it."""
    kernels: list[MappedKernel] = []
    every: list[Packed] = []
    stored: dict[str, Expression | None] = {}
    parts = tuple(c.part for c in cuts)
    steps = tuple(c.step for c in cuts)
    for name, group in zip(kernel_names(cascade, groups, cuts), groups, strict=True):
        packed = Packed(group, cascade, parts)
        if not group.views:
            packed = pack_rows(
                cascade,
                group,
                sizes=known.sizes,
                shapes=shapes,
                parameters=known.parameters,
                apart=parts,
            )
        sizes = {**known.sizes, **packed.sizes}
        together = group.streamed in parts and rows_of(packed.group, sizes) > MERGED_ALONE
        kernel = map_kernel(
            packed.cascade,
            packed.group,
            name=name,
            sizes=sizes,
            shapes=shapes,
            parameters=known.parameters,
            inside=known.inside,
            stored=stored,
            apart=packed.apart,
            real=fractions(known, dtypes),
            views=packed.views,
            together=together,
        )
        presence = dict(kernel.presence)
        for t in group.targets:
            # what lists put in place holds 0 everywhere else
            stored[t] = None if group.views else unpacked(presence[t], packed)
        stored |= dict.fromkeys(e.name for e in group.added)
        pays = known.descriptors
        if pays is None:
            pays = worth_describing(kernel, sizes)
        described = known.described if pays else ()
        every.append(packed)
        cut = partition(
            replace(kernel, described=described, aligned=steps),
            dtypes=dtypes,
            sizes={**dict.fromkeys(parts, PARTS_HELD), **sizes},
            target=known.target,
            tiles={**merged_tiles(kernel), **known.tiles} if together else known.tiles,
            num_warps=known.num_warps or warps_of_parts(kernels, group.streamed, parts, sizes),
            num_stages=known.num_stages,
            choice=known.choice,
        )
        kernels.append(side_by_side(cut, sizes=sizes, dtypes=dtypes))
    return name_tables(kernels, taken=(*cascade.inputs, *cascade.ranks, *dtypes)), every


MERGED_ALONE = 2048
"""Rows up to which each has a program of its own that merges its parts.

Measured on an H100, 4096 rows of 128 features in four parts: 36 us so, 26 with eight a program.
"""

MERGED = (8, 4)
"""Rows, and states of each, that a program takes in at a time where it merges those of more."""


def merged_tiles(kernel: MappedKernel) -> dict[str, int]:
    """Return the tiles of a kernel that merges parts of many rows."""
    rows, states = MERGED
    return dict.fromkeys(kernel.ranks("tiled"), rows) | dict.fromkeys(
        kernel.ranks("streamed"), states
    )


def rows_of(group: Group, sizes: Mapping[str, int]) -> int:
    """Return the rows of a group, one for each coordinate of its grid; 0 where nobody knows."""
    return prod(sizes.get(r, 0) for r in group.parallel)


MERGING, MANY = 4, 128
"""The most warps of a kernel that merges parts of so many rows, or more."""


def warps_of_parts(
    kernels: list[MappedKernel],
    rank: str | None,
    parts: tuple[str, ...],
    sizes: Mapping[str, int],
) -> int | None:
    """Return the warps of the kernel that makes the parts which a rank counts; None without one.

    What merges parts begins while they are made. Measured on an H100, that gains 1.6 us, unless the
    merging kernel has another number of warps than the one that it follows. Of many rows more than
    four would divide the parts among them, where four have a part of 512 features each: 32
    sequences of 8192 keys under 128 rows each then take 192 us in all, and 180 with four.
    """
    for k in kernels:
        if rank in parts and rank in k.ranks("grid"):
            many = any(sizes.get(r, 0) >= MANY for r in k.ranks("tiled"))
            return min(k.num_warps, MERGING) if many else k.num_warps
    return None


def fractions(known: Known, dtypes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the tensors and parameters that hold fractions; an open parameter is a whole number.

    Loop bounds are rounded for them.
    """
    tensors = (t for t, dtype in dtypes.items() if "float" in dtype)
    return (*tensors, *(n for n, v in known.parameters.items() if isinstance(v, float)))


def unpacked(condition: Expression | None, packed: Packed) -> Expression | None:
    """Return a condition over the ranks that memory has."""
    return None if condition is None else substitute(condition, dict(packed.back))


def cut_tiles(
    cuts: tuple[Cut, ...], kernels: list[MappedKernel], packed: list[Packed], known: Known
) -> tuple[Cut, ...]:
    """Say of every cut how wide its rank's tiles are and how many programs run side by side.

    A cut of which no kernel is left, since another makes the same states, is left out.
    """
    found = []
    sizes = {**known.sizes, **{r: n for p in packed for r, n in p.sizes.items()}}
    for cut in cuts:
        walking = [k for k in kernels if dict(k.roles).get(cut.part) == "grid"]
        if not walking:
            continue
        tile = max(k.partition(cut.rank).tile for k in walking)
        least = max(least_tiles(k, cut.rank, sizes) for k in walking)
        beside = min(k.residents for k in walking)
        width = min((w.width for k in walking for t in k.traversals for w in t.walks), default=1)
        found.append(replace(cut, tile=tile, residents=beside, least=least, width=width))
    return tuple(found)


def scalar_dtype(value: Scalar | None) -> str:
    """Return the dtype of a parameter; an open one is a float."""
    if isinstance(value, bool):
        return "bool"
    return "int32" if isinstance(value, int) else "float32"


def kernel_names(
    cascade: Cascade, groups: tuple[Group, ...], cuts: tuple[Cut, ...] = ()
) -> tuple[str, ...]:
    """One name a kernel: the cascade's, with what a kernel stores if there are several.

    A kernel that stores the states of parts is named after their rank.
    """
    if len(groups) == 1:
        return (f"{cascade.name}_kernel",)
    names: list[str] = []
    parts = {c.states: c.part for c in cuts}
    for group in groups:
        stored = parts.get(group.targets) or "_".join(t.lower() for t in group.targets)
        names.append(f"{cascade.name}_{stored}_kernel")
    return tuple(names)
