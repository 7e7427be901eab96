"""Partition: tile sizes, parts of resident ranks, warps and stages, by what a multiprocessor holds.

The model counts what a program keeps in registers and in shared memory; a configuration that
exceeds either is never proposed. Among the legal ones the order is what measurements say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from ..ir.cascade import Einsum
from ..ir.errors import BackendError, PassError
from ..ir.expression import (
    Access,
    Parameter,
    Reduce,
    free_ranks,
    walk,
)
from ..ir.mapping import MappedKernel, Partition
from ..ir.streaming import Field
from .band_tiles import band_bytes, band_elements, bands
from .selection_tiles import (
    RANK_IS_LONG,
    REGISTERS,
    SMALLEST,
    Configuration,
    list_width,
    order_configurations,
    search_configuration,
)
from .tile_work import (
    all_ranks,
    contracts,
    element_bytes,
    folded_body,
    folds,
    is_product,
    operands,
)
from .walked_span import looked_up

SHARED = {"sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, "sm_100": 227, "gfx942": 64}
"""KiB of shared memory that one program may have, by target."""

LARGEST = 1 << 20
"""Elements of a tile, at most, in Triton."""

FEW = 4
"""Rows that a sum without a product takes at a time."""


IN_STEPS = (128, 32, 8, 2)
"""Rows, columns, warps and stages where rows come number by number (``in_steps``).

Microseconds on an H100, 2 x 16 heads of 4096 x 4096, 100 features: 1757 where 64 x 64 with 4 warps
takes 9688, and 1070 of 5150 where rows walk ever further; 2048 rows of 68 features 324 of 1366.
"""

SINGLE = ((4, 4, 4, 1), (1, 1, 4, 1), (1, 1, 8, 1), (1, 1, 16, 1))
"""Rows, columns, warps and stages of kernels that walk nothing, where wider tiles do not fit."""


def partition(
    kernel: MappedKernel,
    *,
    dtypes: Mapping[str, str],
    sizes: Mapping[str, int],
    target: str = "sm_90",
    tiles: Mapping[str, int] | None = None,
    num_warps: int | None = None,
    num_stages: int | None = None,
    choice: int = 0,
) -> MappedKernel:
    """Cut a kernel's ranks.

    ``tiles`` fixes tile sizes of tiled and streamed ranks (powers of two, at least 16 where the
    rank is an operand's side), ``num_warps`` and ``num_stages`` the rest of a configuration; what
    is left comes from number ``choice`` of those that ``configurations`` yields (or the last one).

    Raises
    ------
    BackendError
        if nothing fits the target.
    PassError
        for a tile of rows that a list does not serve.
    """
    fixed = dict(tiles or {})
    for rank, tile in fixed.items():
        if tile < 1 or tile & (tile - 1):
            raise BackendError(f"a tile is a power of two; {tile} given for rank {rank}")
    for rank, step in kernel.steps:
        if fixed.get(rank, 1) > step:
            raise PassError(
                f"rows of {rank} have one list for every {step}, so a tile of {rank} has at most "
                f"that many; {fixed[rank]} given"
            )
    legal = list(configurations(kernel, dtypes=dtypes, sizes=sizes, target=target))
    if not legal:
        held = ", ".join(f"{r}: {n}" for r, n in kernel.static)
        raise BackendError(
            f"{kernel.name} does not fit {target}: one program would hold ranks {held} whole; "
            "make one of them smaller"
        )
    chosen = legal[min(choice, len(legal) - 1)]
    cut = {r: fixed.get(r, t) for r, t in chosen.tiles}
    warps, stages = num_warps or chosen.num_warps, num_stages or chosen.num_stages
    room = SHARED.get(target, 99) * 1024
    while (
        not num_stages
        and stages > 1
        and cut != dict(chosen.tiles)
        and shared_bytes(kernel, cut, stages, dtypes, target) > room
    ):
        stages -= 1  # of wider tiles than the partition's, fewer are in flight
    mapped = cut_kernel(kernel, target, Configuration(tuple(cut.items()), warps, stages))
    return replace(mapped, residents=residents(mapped, cut, dtypes, target))


def cut_kernel(kernel: MappedKernel, target: str, configuration: Configuration) -> MappedKernel:
    """Apply a configuration."""
    cuts = [Partition(r, t) for r, t in configuration.tiles]
    cuts += [Partition(r, n, resident_parts(kernel, r, n, target)) for r, n in kernel.static]
    return replace(
        kernel,
        partitions=tuple(cuts),
        num_warps=configuration.num_warps,
        num_stages=configuration.num_stages,
    )


def parts_of(size: int) -> tuple[tuple[int, int, int], ...]:
    """Cut a rank in powers of two: 80 is 64 + 16, 72 is 64 + 16 of which 8 exist.

    At most two parts are made; what would need more is padded.
    """
    width = max(SMALLEST, 1 << (size - 1).bit_length())
    if width == size or size < SMALLEST:
        return ((0, width, size),)
    large = width // 2
    rest = size - large
    small = max(SMALLEST, 1 << (rest - 1).bit_length())
    if small >= large:
        return ((0, width, size),)
    return ((0, large, large), (large, small, rest))


def resident_parts(
    kernel: MappedKernel, rank: str, size: int, target: str
) -> tuple[tuple[int, int, int], ...]:
    """How a resident rank is cut for a target.

    On Hopper a rank is cut in two only if descriptors fetch every streamed tensor that has it:
    Triton 3.6 computes the second part wrongly from tiles that are loaded by addresses whose rows
    are not aligned (seen on an H200: float16 and bfloat16, 96 = 64 + 32, rows of 99 elements).
    """
    if rank in (r for pair in kernel.ordered for r in pair):
        return ((0, list_width(kernel, rank, size), size),)
    if size < SMALLEST and not multiplies(kernel):
        return ((0, max(2, 1 << (size - 1).bit_length()), size),)
    parts = parts_of(size)
    if len(parts) < 2 or not target.startswith("sm_9"):
        return parts
    streamed = set(kernel.ranks("streamed"))
    loaded = {t for t, ranks in operands(kernel) if rank in ranks and streamed & set(ranks)}
    if loaded <= set(kernel.described):
        return parts
    width = max(SMALLEST, 1 << (size - 1).bit_length())
    return ((0, width, size),)


def multiplies(kernel: MappedKernel) -> bool:
    """Whether a kernel makes a product, whose sides are as wide as a tensor core takes."""
    return any(x is not None and is_product(x) for x in map(folded_body, kernel.einsums()))


def configurations(
    kernel: MappedKernel,
    *,
    dtypes: Mapping[str, str],
    sizes: Mapping[str, int],
    target: str,
) -> Iterator[Configuration]:
    """Yield legal configurations, the best guess first."""
    tiled, streamed = kernel.ranks("tiled"), kernel.ranks("streamed")
    # a tile is no wider than its rank, so that short inputs do not compute padding
    widest = {
        r: max(SMALLEST, 1 << (max(sizes.get(r, 128), 1) - 1).bit_length())
        for r in (*tiled, *streamed)
    }
    if not multiplies(kernel):
        # of an open size, a rank that features stand behind is walked a few at a time
        behind = {r for _, ranks in operands(kernel) for r in ranks[:-1]}
        behind -= {ranks[-1] for _, ranks in operands(kernel) if ranks}
        open_ranks = {r: FEW if r in behind else 128 for r in streamed}
        widest |= {
            r: 1 << (max(sizes.get(r, n), 1) - 1).bit_length() for r, n in open_ranks.items()
        }
    widest |= {r: min(widest[r], step) for r, step in kernel.steps}
    # a tile inside one block of a list is loaded as one box
    blocks = [w.width & -w.width for t in kernel.traversals for w in t.walks]
    widest |= {r: min([widest[r], *(w for w in blocks if w > SMALLEST)]) for r in streamed}
    if kernel.search is not None:
        yield search_configuration(kernel, sizes)
        return
    if kernel.ordered:
        yield from order_configurations(kernel, tiled, widest, sizes)
        return
    few = few_rows(kernel, sizes)
    widest |= dict.fromkeys(beside_a_dot(kernel), 1)
    found = False
    for rows, columns, warps, stages in candidates(kernel, dtypes, few=few):
        cut = {r: min(rows if k == 0 else columns, widest[r]) for k, r in enumerate(tiled)}
        cut |= {r: 1 if crowded(kernel) else min(columns, widest[r]) for r in streamed}
        if fits(kernel, cut, warps, stages, dtypes, target):
            found = True
            yield Configuration(tuple(cut.items()), warps, stages)
    if not found and crowded(kernel):
        # what is held whole leaves no room for tiles of rows: a program of one row makes dots
        for _, columns, warps, stages in candidates(kernel, dtypes, few=few):
            cut = dict.fromkeys(tiled, 1) | {r: min(columns, widest[r]) for r in streamed}
            if fits(kernel, cut, warps, stages, dtypes, target):
                found = True
                yield Configuration(tuple(cut.items()), warps, stages)
    if not found:
        # nor for tiles as wide as a dot takes: products are folded, a few points at a time
        for width in (4, 1):
            cut = {r: min(width, widest[r]) for r in (*tiled, *streamed)}
            if streamed and fits(kernel, cut, 4, 1, dtypes, target):
                yield Configuration(tuple(cut.items()), 4, 1)


def crowded(kernel: MappedKernel) -> bool:
    """Whether some product has more sides than a dot takes.

    The streamed rank is then walked one coordinate at a time, and tiles run along a resident rank.
    """
    grid = set(kernel.ranks("grid"))
    streamed = set(kernel.ranks("streamed"))
    spans = [set(all_ranks(x)) - grid for x in kernel.einsums() if contracts(x)]
    return any(len(s) > 3 and s & streamed for s in spans)


def beside_a_dot(kernel: MappedKernel) -> tuple[str, ...]:
    """Return tiled ranks that take one coordinate a program, so that products become dots.

    Where the walked rank does so is not enough (``crowded``), or none is walked.
    """
    grid = set(kernel.ranks("grid"))
    spans = [set(all_ranks(x)) - grid for x in kernel.einsums() if contracts(x)]
    one = set(kernel.ranks("streamed")) if crowded(kernel) else set()
    found: list[str] = []
    for rank in reversed(kernel.ranks("tiled")):
        if any(len(s.difference(found, one)) > 3 for s in spans):
            found.append(rank)
    return tuple(found)


def few_rows(kernel: MappedKernel, sizes: Mapping[str, int]) -> bool:
    """Whether a program has no more rows than the narrowest tile, and so waits for loads alone."""
    rows = [sizes.get(r, RANK_IS_LONG) for r in kernel.ranks("tiled")]
    return bool(rows) and prod(rows) <= SMALLEST


def candidates(
    kernel: MappedKernel, dtypes: Mapping[str, str], *, few: bool = False
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (rows, columns, warps, stages), widest tiles first; ``few``: of few rows."""
    one = set(kernel.ranks("grid"))
    if crowded(kernel):
        one |= set(kernel.ranks("streamed"))
    tiles = {t for t, ranks in operands(kernel) if len(set(ranks) - one) > 1}
    wide = any(dtypes.get(t) in ("float32", "float64") for t in tiles)
    flat = not any(contracts(x) for x in kernel.einsums())
    if flat and not kernel.traversals:
        yield from ((64, 64, 4, 1), (32, 32, 4, 1), (16, 16, 4, 1), *SINGLE)
        return
    if bands(kernel):
        # of as many rows as columns a tile has the fewest diagonals for its points; measured on an
        # H100, 4096 x 4096 of 64 features: 1.6 to 1.9 times before eight warps, gradients too
        yield from ((64, 64, 4, 2), (64, 64, 4, 1), (32, 32, 4, 2), (32, 32, 4, 1))
    if wide:
        yield from ((64, 64, 4, 2), (64, 32, 4, 2), (32, 32, 4, 2), (32, 32, 4, 1))
    else:
        if few:
            # measured on an H100, 4 rows of 64 and 128 features: 1 to 4 % before four warps; with
            # 256 features four are 6 % before two
            if kept_in_rows(kernel, SMALLEST) < 192 * SMALLEST and not looked_up(kernel):
                yield (16, 64, 2, 3)
            yield from ((16, 64, 4, 3), (16, 64, 8, 2), (16, 32, 4, 3))
        if twofold(kernel):
            # measured on an H100, 4096 x 4096 of 64 and 128 features: 6 to 12 % before what other
            # kernels take; where accumulators fill half of the registers, loads in flight cost 45 %
            if kept_in_rows(kernel, 64) > 96 * 128:
                yield (64, 64, 4, 1)
            yield (64, 64, 4, 2)
        if in_steps(kernel):
            yield IN_STEPS
        if thin(kernel):
            # measured on an H100, 16384 x 16384 of 128 features, half of the points: 17 % before
            # 64 x 64, for what a program loads serves more rows
            yield (128, 128, 4, 2)
        # measured on an H200 (docs/benchmarks): two small programs on a multiprocessor overlap
        # one's products with the other's exponentials, which one large program cannot
        if narrow(kernel) and kernel.described:
            yield (64, 128, 4, 2)
        yield from ((64, 64, 4, 3), (128, 128, 8, 3), (64, 64, 4, 2), (128, 64, 8, 3))
        if not twofold(kernel):
            # measured on an H100, 128 rows of 512 features: 1.3 to 2.5 times before others
            yield (64, 64, 8, 2)
        if kernel.aligned:
            # reduced in parts, so that loads count: wide states spill less in 32 rows
            yield (32, 64, 8, 2)
        yield from ((64, 64, 4, 1), (64, 32, 8, 2), (64, 32, 8, 1), (32, 32, 4, 1))
    yield from ((16, 32, 4, 1), (16, 16, 4, 1), (16, 16, 8, 1))
    if not kernel.traversals:
        yield from SINGLE


def twofold(kernel: MappedKernel) -> bool:
    """Whether a step makes two products over different ranks and sums them in a fixed frame.

    As the gradient of a product of three does: more tiles live at once than in any other kernel.
    """
    bodies = [x for t in kernel.traversals for x in t.streaming.body]
    if any(isinstance(x, Field) and x.transport is not None for x in bodies):
        return False
    summed = {
        x.body.ranks
        for x in bodies
        if isinstance(x, Einsum) and isinstance(x.body, Reduce) and contracts(x)
    }
    return len(summed) > 1


def in_steps(kernel: MappedKernel) -> bool:
    """Whether rows of many features are loaded by addresses that are no multiples of 16 elements.

    They come number by number, through registers, which then have no room for much else.
    """
    streamed = set(kernel.ranks("streamed"))
    odd = {r for r, n in kernel.static if n > 64 and n % 16}
    loaded = {t for t, ranks in operands(kernel) if streamed & set(ranks) and odd & set(ranks)}
    return not loaded <= set(kernel.described)


def thin(kernel: MappedKernel) -> bool:
    """Whether a program keeps one number a row, or a few, and sums them in a fixed frame."""
    fields = [f for t in kernel.traversals for f in t.streaming.fields]
    static = dict(kernel.static)
    return bool(fields) and all(
        f.transport is None and f.reducer == "sum" and not static.keys() & set(f.ranks)
        for f in fields
    )


def kept_in_rows(kernel: MappedKernel, rows: int) -> int:
    """Return how many numbers the accumulators of so many rows are."""
    width = {**dict.fromkeys(kernel.ranks("tiled"), rows), **dict(kernel.static)}
    fields = [f for t in kernel.traversals for f in t.streaming.fields]
    return sum(prod(width[r] for r in f.ranks if r in width) for f in fields)


def narrow(kernel: MappedKernel) -> bool:
    """Whether every rank that is held whole has at most 64 coordinates."""
    return max((n for _, n in kernel.static), default=0) <= 64


def worth_describing(kernel: MappedKernel, sizes: Mapping[str, int]) -> bool:
    """Whether descriptors pay: setting them up costs a program as much as some short tiles.

    Measured on an H200 with 64 features: below 1024 coordinates walked, addresses are faster by 4
    to 17 %; above, descriptors are. With 128 features descriptors win at any length,
    but not under few rows: 1 to 2 % behind on an H100, and every launch needs memory for them.
    """
    if few_rows(kernel, sizes):
        return False
    walked = [sizes.get(r, RANK_IS_LONG) for r in kernel.ranks("streamed")]
    share = 2 if follows_rows(kernel) else 1  # a filter leaves about half of the rank
    return not narrow(kernel) or any(n // share > 1024 for n in walked)


def follows_rows(kernel: MappedKernel) -> bool:
    """Whether a tile of rows walks other tiles than the next tile of rows does."""
    marks = {f"{r}_{end}" for r in kernel.ranks("tiled") for end in ("first", "last")}
    bounds = [x for t in kernel.traversals for r in t.domain.ranges for x in (r.begin, r.end)]
    return any(isinstance(y, Parameter) and y.name in marks for x in bounds for y in walk(x))


def fits(
    kernel: MappedKernel,
    cut: Mapping[str, int],
    warps: int,
    stages: int,
    dtypes: Mapping[str, str],
    target: str,
) -> bool:
    """Whether accumulators and tiles fit the registers, and loads in flight the shared memory."""
    held = {r: sum(w for _, w, _ in resident_parts(kernel, r, n, target)) for r, n in kernel.static}
    width = {**cut, **held}

    def elements(ranks: tuple[str, ...]) -> int:
        return prod(width[r] for r in ranks if r in width)

    states = [t.streaming for t in kernel.traversals if not t.continues]
    spans = [[r for r in all_ranks(x) if width.get(r, 1) > 1] for x in kernel.einsums()]
    if any(len(s) > 3 and elements(tuple(s)) > LARGEST for s in spans):
        return False  # what no dot takes lies in one tile
    kept = sum(elements(f.ranks) for s in states for f in s.fields)
    folded = [x for x in kernel.einsums() if folds(x, width)]
    transient = max((elements(all_ranks(x)) for x in folded), default=0)
    # what is folded but stands under no name is a tile beside the one that it is made of
    unnamed = [
        x
        for x in folded
        if not isinstance(folded_body(x), Access)
        and not (thin(kernel) and consumes(x, kernel, width))
    ]
    beside = max((elements(all_ranks(x)) for x in unnamed), default=0)
    live = [
        elements(e.ranks)
        for t in kernel.traversals
        for e in t.streaming.body
        if isinstance(e, Einsum) and isinstance(e.body, Reduce)
    ]
    found = bands(kernel)
    scores = max(live, default=0) + max((band_elements(b, width) for b in found), default=0)
    threads = warps * (64 if target.startswith("gfx") else 32)
    if (kept + max(scores + beside, transient)) / threads > REGISTERS:
        return False
    return shared_bytes(kernel, cut, stages, dtypes, target) <= SHARED.get(target, 99) * 1024


def consumes(item: Einsum | Field, kernel: MappedKernel, width: Mapping[str, int]) -> bool:
    """Whether what an item folds may take the place of the tiles that it is made of."""
    body = folded_body(item)
    assert body is not None
    used = {
        x.tensor
        for other in kernel.einsums()
        if other is not item
        for y in (other.lift if isinstance(other, Field) else other.body,)
        for x in walk(y)
        if isinstance(x, Access)
    }
    tiles = [
        x.tensor
        for x in walk(body)
        if isinstance(x, Access) and sum(r in width for r in free_ranks(x)) > 1
    ]
    return bool(tiles) and not set(tiles) & used


def shared_bytes(
    kernel: MappedKernel,
    cut: Mapping[str, int],
    stages: int,
    dtypes: Mapping[str, str],
    target: str,
) -> int:
    """Return the shared memory of a program: tiles with two axes, moving ones once a stage."""
    held = {r: sum(w for _, w, _ in resident_parts(kernel, r, n, target)) for r, n in kernel.static}
    width = {**cut, **held}
    shared = 0
    diagonal = {b.access.tensor: b for b in bands(kernel)}
    for tensor, ranks in operands(kernel):
        inside = [width[r] for r in ranks if r in width]
        size = element_bytes(tensor, dtypes)
        if tensor in diagonal and {diagonal[tensor].own, diagonal[tensor].across} <= set(ranks):
            shared += band_bytes(diagonal[tensor], width, size, stages)
        elif len(inside) > 1:
            moving = bool(set(ranks) & set(kernel.ranks("streamed")))
            shared += prod(inside) * size * (stages if moving else 1)
    return shared


MOST_RESIDENT = 2
"""Programs worth having on a multiprocessor at a time: one loads while another computes."""


def residents(
    kernel: MappedKernel, cut: Mapping[str, int], dtypes: Mapping[str, str], target: str
) -> int:
    """Return how many programs a multiprocessor is taken to run at a time."""
    used = shared_bytes(kernel, cut, kernel.num_stages, dtypes, target)
    return max(1, min(MOST_RESIDENT, SHARED.get(target, 99) * 1024 // max(used, 1)))
