"""Specialise: cut a kernel's tiles for groups of warps of which one fetches and others compute.

rewrite::

    p: 64 rows of a program, m: 64 at a time, 4 warps
    -->
    p: 128 rows of a program, 64 for each of 2 consumers, m: 128 at a time, 2 slots a ring

*Requires* a partitioned kernel with one tiled and one streamed rank, whose moving tiles descriptors
may fetch. *Keeps* everything but partitions, stages and consumers.

A consumer is four warps, 64 rows. Two of them may have 240 registers a thread, three 160. The model
counts accumulators, the tile of products that the work is done on, and its narrow copy. Where that
is more than four warps have, eight share 64 rows (``codegen/gluon_wide.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from ..ir.cascade import Einsum
from ..ir.domain import Range
from ..ir.expression import (
    Apply,
    Constant,
    Parameter,
    RankVariable,
    Reduce,
)
from ..ir.mapping import Crew, MappedKernel
from .band_tiles import bands
from .crew_memory import ROWS, Sizing, added, computed, crew_bytes, fields
from .partition import (
    SHARED,
    cut_kernel,
    narrow,
    resident_parts,
    twofold,
)
from .point_work import functions, little_work, transcendental
from .resting import resting
from .selection_tiles import RANK_IS_LONG, Configuration
from .state_traffic import PROCESSORS
from .tile_work import operands
from .walk_ends import ends_moving, limited, named, rising, short, slanted, uneven, walks_all

BUDGET = {1: 216, 2: 232, 3: 152}
"""Registers of a thread that tiles may fill, by number of consumers."""

IN_ORDER = 244
"""The same where a tile is finished before the next begins, and what is done with is held no more.

There two groups keep 64 x 64 twice and make 64 x 128 twice, all in float32, without a spill.
"""

SHORTEST_TURNS = {True: 1024, False: 4096}
"""The fewest coordinates at which programs were measured that add 128 features in turn, where all
walk all of the rank, and where they do not."""

BESIDES = 20
"""Registers for addresses, limits and values per row."""

WIDEST = 256
"""The most columns of one product."""

LENGTHS = 128
"""The fewest rows, and coordinates walked, at which such kernels were measured to be faster.

TFLOP/s of Gluon and of Triton, 128 features, 256 and 512: 247 and 178, 487 and 305; of rows that
walk ever further 124 and 95, 261 and 192. With 64 features 223 and 198, 370 and 311. Microseconds,
128 and 197: 768 x 64 features 27 and 29, 51 and 58; 256 x 128, ever further, 20 and 25, 30 and 42.
"""

LENGTHS_OF_SEVERAL = 256
"""The same of kernels of several products, or of more features than a product has columns."""

LENGTHS_OF_OTHERS = 1024
"""The same where rows skip a part, or walk ever further over 64 features: 190 and 210 at 512."""

LENGTHS_OF_PARTS = 256
"""The same of rows that are reduced in parts, over 64 features.

Microseconds of Gluon and of Triton, with what merges the parts, of rows that walk ever further: 32
x 128, 32 x 256 and 8 x 512 of 128 features over 65536, 65536 and 32768 coordinates 373 and 383, 427
and 579, 112 and 158; 8 x 256 of 64 features over 32768 54 and 72.
"""

FEWEST = 32
"""Tiles of rows at which two consumers on some multiprocessors were faster than Triton on more.

128 features, microseconds of Gluon and of Triton: 32 tiles, 4096 x 4096, 45 and 50, of rows that
walk ever further 47 and 50; 64 tiles, 8 x 1024, 18 and 21, 19 and 21; 128 tiles, 8 x 2048, 31 and
43, 30 and 42, 32 x 512 over 65536 707 and 1070. 256 features, 64 tiles: 47 and 43.
"""

FEWEST_NARROW = 64
"""The same over 64 features: 2 x 4096 38 and 51, 8 x 1024 15 and 18, ever further 16 and 18."""

RESTS = 512
"""The fewest coordinates walked at which resting frames were measured."""

SEVERAL = 3
"""The most functions of a point, beside several products, that were measured.

A quotient, a tangent and an exponential: 2.15 milliseconds where plain Triton takes 2.64 (gradients
of 4096 rows that walk ever further, 128 features). With 256 features 3.59 and 4.90.
"""

MEASURED = 2
"""The most exponentials, logarithms and tangents of a point that were measured beside one product.

A logarithm and an exponential: 550 TFLOP/s (rows that walk ever further, 4096 keys, 128 features).
"""

SIDE_BY_SIDE = 32
"""Coordinates of the grid that may be walked side by side: 4 programs are left for each."""

SHORTEST = 128
"""The fewest rows, and the fewest coordinates to walk, that are worth several groups of warps."""


def specialise(
    kernel: MappedKernel,
    *,
    dtypes: Mapping[str, str],
    sizes: Mapping[str, int],
    described: tuple[str, ...],
    target: str = "sm_90",
    tiles: Mapping[str, int] | None = None,
    num_stages: int | None = None,
    choice: int = 0,
    automatic: bool = False,
) -> MappedKernel | str:
    """Cut a kernel for consumers and a fetching warp; or say why it is not worth it or impossible.

    ``described`` are the tensors of which descriptors may fetch boxes. ``automatic``: only where
    such kernels were measured to be faster.
    """
    if target != "sm_90":
        return f"{target} has no such kernels"
    tiled, streamed = kernel.ranks("tiled"), kernel.ranks("streamed")
    if len(tiled) != 1 or len(streamed) != 1 or len(kernel.traversals) != 1:
        return "it walks one rank once, for tiles of one other, in no loop"
    if diagonal := bands(kernel):
        return f"points take what lies along diagonals of {diagonal[0].access.tensor}, each its own"
    if kernel.views:
        return f"memory has {kernel.views[0].rank} in another order than its tiles"
    for rank in (*tiled, *streamed):
        least = ROWS if rank in tiled and features(kernel) > WIDEST else SHORTEST
        if sizes.get(rank, least) < least:
            return f"{rank} has fewer than {least} coordinates"
    if kernel.in_turn and not (walks_all(kernel) or rising(kernel, tiled[0])):
        return f"programs add in turn only where all walk {streamed[0]} to the same end"
    if automatic and (doubt := unmeasured(kernel, sizes)):
        return doubt
    moving = {
        t
        for t, ranks in operands(kernel)
        if streamed[0] in ranks and set(ranks) & set(kernel.ranks("resident"))
    }
    if lost := sorted(moving - set(described)):
        return f"{lost[0]} is not laid out for descriptors"
    rows, walked = tiled[0], streamed[0]
    steps = dict(kernel.steps)
    if steps.get(rows, ROWS) % ROWS:
        return f"no more than {steps[rows]} rows of {rows} share a list"
    fixed = dict(tiles or {})
    if not 16 <= fixed.get(walked, 16) <= WIDEST:
        return f"a product has 16 to {WIDEST} columns, and {walked} has tiles of {fixed[walked]}"
    found: list[tuple[Sizing, dict[str, int]]] = []
    blocks = [w.width & -w.width for w in kernel.traversals[0].walks]
    alone = (ALONE,) if steps.get(rows, 2 * ROWS) % (2 * ROWS) else ()
    for cut in (*alone, *cuts(kernel, sizes.get(walked, RANK_IS_LONG)), WIDE):
        if cut.crew.wide and found:
            continue
        tile = {rows: ROWS * cut.crew.consumers, walked: fixed.get(walked, cut.columns)}
        if any(block % tile[walked] for block in blocks) or steps.get(rows, 0) % tile[rows]:
            continue
        if fixed.get(rows, tile[rows]) == tile[rows] and fits(kernel, cut, tile, dtypes, target):
            found.append((cut, tile))
    if not found:
        return "its tiles fill more registers than consumers have, or more than shared memory"
    cut, tile = found[min(choice, len(found) - 1)]
    if automatic and cut.crew.wide and features(kernel) <= WIDEST and not twofold(kernel):
        return "its sums take eight warps, which was measured of gradients alone"
    # with one slot a tile could not be fetched while products still read the one before it
    whole = Configuration(tuple(tile.items()), 4, max(2, num_stages or cut.stages))
    stays = cut.crew.persistent
    drawn = stays and cut.crew.rotated and uneven(kernel)
    pairs = stays and not drawn and slanted(kernel, rows) and worth_pairing(kernel, sizes)
    crew = replace(cut.crew, paired=pairs, drawn=drawn)
    crew = replace(crew, slowest=drawn and ends_short(kernel, sizes))
    if crew.rotated and crew.consumers < 3 and sizes.get(walked, RANK_IS_LONG) >= RESTS:
        crew = replace(crew, resting=resting(kernel))
    joined = short(kernel, rows) or named(kernel) or limited(kernel, rows)
    crew = replace(crew, joined=bool(crew.resting) and joined)
    if crew.joined and stays and short(kernel, rows):
        spare = replace(cut, crew=replace(crew, spare=True))
        crew = spare.crew if fits(kernel, spare, tile, dtypes, target) else crew
    if not crew.rotated:
        crew = replace(crew, lagging=bool(resting(kernel)))
    beside = 1 if crew.consumers > 1 or crew.wide else kernel.residents
    made = cut_kernel(kernel, target, whole)
    return replace(made, crew=crew, described=described, residents=beside)


def parted(ranges: tuple[Range, ...], aligned: tuple[str, ...]) -> bool:
    """Whether a walk begins where its part does, and nowhere else."""
    if len(ranges) != 1:
        return False
    match ranges[0].begin:
        case Apply("max", (Constant(0), Apply("*", (RankVariable(), Parameter(name=step))))):
            return step in aligned
        case _:
            return False


def tiles_of_rows(kernel: MappedKernel, sizes: Mapping[str, int]) -> int | None:
    """Return how many tiles of rows two consumers have to compute, None where nobody knows."""
    ranks = (*kernel.ranks("grid"), *kernel.ranks("tiled"))
    if not all(r in sizes for r in ranks):
        return None
    return prod(sizes[r] for r in ranks) // (2 * ROWS)


def worth_pairing(kernel: MappedKernel, sizes: Mapping[str, int]) -> bool:
    """Whether there are more tiles of rows than multiprocessors, some of which pairs leave idle.

    Parts are as many as fill the machine once, and tiles that read the same should run together.
    """
    tiles = tiles_of_rows(kernel, sizes)
    return not kernel.aligned and (tiles is None or tiles > PROCESSORS)


def unmeasured(kernel: MappedKernel, sizes: Mapping[str, int]) -> str:
    """Return why nobody knows whether several groups of warps are faster here, "" if they are."""
    if features(kernel) > WIDEST:
        return unmeasured_wide(kernel, sizes)
    tiled, streamed = kernel.ranks("tiled"), kernel.ranks("streamed")
    ranges = kernel.traversals[0].domain.ranges
    whole = len(ranges) == 1 and ranges[0].begin == Constant(0)
    short = whole and not (narrow(kernel) and slanted(kernel, tiled[0]))
    one = len(walked_products(kernel)) < 2
    least = LENGTHS_OF_OTHERS
    if short:
        least = LENGTHS if one else LENGTHS_OF_SEVERAL
    if one and parted(ranges, kernel.aligned):
        least = LENGTHS_OF_PARTS if narrow(kernel) else LENGTHS
    for rank in (*tiled, *streamed):
        if sizes.get(rank, least) < least:
            return f"{rank} has fewer than {least} coordinates, where it was not faster"
    tiles = tiles_of_rows(kernel, sizes)
    fewest = PROCESSORS
    if short and one and features(kernel) <= 128:
        fewest = FEWEST_NARROW if narrow(kernel) else FEWEST
    if tiles is not None and tiles < fewest:
        return f"{tiles} tiles of rows leave most of {PROCESSORS} multiprocessors idle"
    (traversal,) = kernel.traversals
    early = len(walked_products(kernel))
    if kernel.in_turn and (doubt := unmeasured_turns(kernel, sizes)):
        return doubt
    if early > 1 and (traversal.domain.table is not None or traversal.walks):
        return "several products of rows that walk a list were not measured"
    framed = several(kernel) and bool(resting(kernel))
    if early > 1 and not twofold(kernel) and not framed:
        return (
            "several products before the work on a tile, in a frame that moves, were not measured"
        )
    listed = traversal.domain.table is not None or bool(traversal.walks)
    resident = set(kernel.ranks("resident"))
    for tensor, ranks in operands(kernel):
        if early < 2 and streamed[0] in ranks and not resident & set(ranks):
            # numbers of columns or of points: with 64, 128 and 256 features, of points to 128
            if listed or (tiled[0] in ranks and features(kernel) > 128):
                return f"its work loads {tensor} as it walks, which was not measured"
    if early < 2 and transcendental(kernel) > MEASURED:
        return f"more than {MEASURED} exponentials and logarithms of a point were not measured"
    if early > 1 and functions(kernel) > SEVERAL:
        return f"several products, and {SEVERAL + 1} functions of each point, were not measured"
    if framed and features(kernel) > 128:
        return "several products of more than 128 features, in frames, were not measured"
    if framed and functions(kernel) > early:
        return "several products, and several functions of each point, were not measured"
    return ""


def unmeasured_turns(kernel: MappedKernel, sizes: Mapping[str, int]) -> str:
    """Return the same of kernels whose programs add in turn."""
    whole = walks_all(kernel)
    if functions(kernel) > 1 or not (whole or little_work(kernel)):
        return "programs that add in turn were not measured with that much work on each point"
    least = 0 if narrow(kernel) else SHORTEST_TURNS[whole]
    for rank in (*kernel.ranks("tiled"), *kernel.ranks("streamed")):
        if sizes.get(rank, least) < least:
            return f"{rank} has fewer than {least} coordinates, and programs add in turn"
    return ""


def unmeasured_wide(kernel: MappedKernel, sizes: Mapping[str, int]) -> str:
    """Return the same of kernels whose sums take eight warps."""
    (rows,), (streamed,) = kernel.ranks("tiled"), kernel.ranks("streamed")
    (traversal,) = kernel.traversals
    for rank, least in ((rows, SHORTEST), (streamed, LENGTHS_OF_SEVERAL)):
        if sizes.get(rank, least) < least:
            return f"{rank} has fewer than {least} coordinates, which was not measured"
    if any(ends_moving(kernel, rows)):
        return f"more than {WIDEST} features of rows that walk elsewhere were not measured"
    if traversal.domain.table is not None or traversal.walks:
        return f"more than {WIDEST} features of rows that walk a list were not measured"
    lengths = dict(kernel.static)
    sums = [max((lengths.get(r, 0) for r in f.ranks), default=0) for f in fields(kernel)]
    if sum(n > 0 for n in sums) != 1 or max(sums) <= WIDEST:
        return f"more than {WIDEST} features were not measured, but of one sum"
    return ""


def features(kernel: MappedKernel) -> int:
    """Return the size of the longest rank that a program holds whole."""
    return max((n for _, n in kernel.static), default=0)


ALONE = Sizing(Crew(1), 64, 2)
"""How a kernel is cut whose lists change every 64 rows: two such programs share a processor.

Measured on an H100, 16 x 32768 rows of 128 features, milliseconds of Gluon and of Triton: 10 and
30 % of all blocks of 64 x 64 1.74 and 1.86, 5.10 and 5.69; 32 chosen blocks of 64 a row,
with choosing, 1.40 and 1.59.
"""


WIDE = Sizing(Crew(1, rotated=False, wide=True), 64, 2)
"""How a kernel is cut whose sums fill more registers than four warps have: eight share 64 rows.

Measured on an H100, microseconds of one latent cache of 512 + 64 features under 128 rows, in parts,
without the merge: 32 x 8192 164, with every tile's frame moved 165, in Triton, where each half of
eight warps makes all of the scores, 264.
"""


def cuts(kernel: MappedKernel, length: int) -> Iterator[Sizing]:
    """Yield ways to cut a kernel, the best guess first; ``length`` coordinates are walked.

    Measured on an H100, TFLOP/s of two products in bfloat16 a tile: programs that stay win at every
    length (128 features: 616 and 542 at 1024 coordinates, 660 and 604 at 4096, 651 and 641 at
    16384); with 64 features three consumers win from 4096 on (481 and 445; at 1024 403 and 417),
    but where frames rest (547 and, of three, whose frames move, 454).
    Rows that walk ever further, in pairs, 128 features: 432, 644 and 710; without staying 390,
    547 and 646.
    """
    if added(kernel):
        backwards = kernel.in_turn and not walks_all(kernel)
        crew = Crew(2, rotated=False, in_turn=kernel.in_turn, backwards=backwards)
        if narrow(kernel) and functions(kernel) <= 1:
            # with a product ahead as well, ptxas 12.8 ends in the middle of its work
            yield Sizing(crew, 128, 2)
        yield Sizing(replace(crew, ahead=not narrow(kernel), adders=2), 64, 2)
        return
    if several(kernel) and resting(kernel):
        # 4096 coordinates, twice over: with 64 features 441 so, 360 in order, of Triton 376; with
        # 128 in order 493, of frames that do not lag 477, of Triton 345
        if narrow(kernel):
            yield Sizing(Crew(2, True, True), 64, 3)
        for columns, stages in ((64, 3), (64, 2), (32, 2)):
            for persistent in (True, False):
                yield Sizing(Crew(2, False, persistent, rotated=False), columns, stages)
    elif several(kernel):
        wide = ((128, 2),) if functions(kernel) <= 1 else ()
        for columns, stages in (*wide, (64, 3), (64, 2), (32, 2)):
            for persistent in (True, False):
                crew = Crew(2, False, persistent, rotated=False, ahead=True)
                yield Sizing(crew, columns, stages)
    elif len(walked_products(kernel)) > 1:
        yield Sizing(Crew(2, False, True, rotated=False), 128, 2)
        yield Sizing(Crew(2, True, True), 64, 3)
    two, three = ((2, 128, 2),), ((3, 128, 2),)
    rests = length >= RESTS and bool(resting(kernel))
    many = three + two if narrow(kernel) and length >= 4096 and not rests else two + three
    for consumers, columns, stages in (*many, (2, 64, 3), (2, 64, 2), (2, 32, 2)):
        for persistent in (True, False):
            yield Sizing(Crew(consumers, True, persistent), columns, stages)


def ends_short(kernel: MappedKernel, sizes: Mapping[str, int]) -> bool:
    """Whether the first tiles of rows, drawn last, are bound to be short.

    With what a program walks at the end nobody can help it. Drawn for one coordinate of the grid
    after the other, the last ones may be as long as any: of documents of 2048 in 32768 rows 7 % are
    lost (by their lengths, with 1.5 us for a whole tile and 2.2 for a tested one). Coordinates that
    are walked side by side have to share the cache, and a list may name tiles from all over it.
    """
    (rows,) = kernel.ranks("tiled")
    many = prod(sizes.get(r, SIDE_BY_SIDE + 1) for r in kernel.ranks("grid"))
    return rows in kernel.reverse and not kernel.traversals[0].walks and many <= SIDE_BY_SIDE


def fits(
    kernel: MappedKernel,
    cut: Sizing,
    tile: Mapping[str, int],
    dtypes: Mapping[str, str],
    target: str,
) -> bool:
    """Whether accumulators fit a consumer's registers, and boxes the shared memory."""
    rows, walked = tile
    consumers = cut.crew.consumers
    if consumers > 2 and not plain(kernel):
        return False
    held = {r: sum(w for _, w, _ in resident_parts(kernel, r, n, target)) for r, n in kernel.static}
    width = {**tile, **held, rows: ROWS}

    def elements(ranks: tuple[str, ...]) -> int:
        return prod(width[r] for r in ranks if r in width)

    kept = sum(elements(f.ranks) for f in fields(kernel))
    products = [elements(e.ranks) for e in walked_products(kernel)]
    widest = max(products, default=0)
    if cut.crew.rotated and consumers < 3:
        # what accumulators take is carried from tile to tile in float32
        transient = sum(products) + max(1, len(computed(kernel))) * widest
    else:
        transient = sum(products) + widest // 2
    budget = BUDGET[consumers] if cut.crew.rotated else IN_ORDER
    threads = 256 if cut.crew.wide else 128
    if (kept + transient) / threads + BESIDES > budget:
        return False
    programs = 2 if consumers == 1 and not cut.crew.wide else 1
    return crew_bytes(kernel, cut, tile, dtypes, target) * programs <= SHARED[target] * 1024


def walked_products(kernel: MappedKernel) -> list[Einsum]:
    """Return the reductions whose results have the walked rank: a tile's early products."""
    (walked,) = kernel.ranks("streamed")
    return [
        e
        for t in kernel.traversals
        for e in t.streaming.body
        if isinstance(e, Einsum) and isinstance(e.body, Reduce) and walked in e.ranks
    ]


def several(kernel: MappedKernel) -> bool:
    """Whether a tile makes several products early, and several are accumulated of what they make.

    Carried to the next tile, as a rotated loop does, that fills more registers than there are (64
    rows of 128 features: 71 spills in the loop).
    """
    return len(walked_products(kernel)) > 1 and len(fields(kernel)) > 1


def plain(kernel: MappedKernel) -> bool:
    """Whether the work on a tile is little: no point is tested, at most one function is taken.

    The registers of three consumers hold no more: with tests they spill, and 303 TFLOP/s fell to
    133 (64 features, 1024 coordinates).
    """
    if any(t.domain.test is not None for t in kernel.traversals):
        return False
    return functions(kernel) <= 1
