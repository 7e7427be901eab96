"""What the arguments of a call tell a lowering, and which of it a lowering depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod
from typing import Any

from ..ir.cascade import Cascade, Scalar
from ..ir.errors import ShapeError, underlined
from ..ir.expression import Access, Apply, Populate, RankVariable, Size, walk
from ..ir.scalar import scalar
from ..ir.selection import WHOLE
from ..ir.show import show_expression
from ..ir.sizes import bind_parameters, rank_sizes
from ..passes.crew_memory import ROWS
from ..passes.pipeline import MERGED_ALONE, Known
from ..passes.short_ranks import short_ranks
from ..passes.specialise import FEWEST, FEWEST_NARROW
from ..passes.state_traffic import PROCESSORS

DESCRIBING = ("sm_90", "sm_100", "sm_103", "sm_120")
"""Targets with tensor descriptors."""

ROWS_THAT_DECIDE = (
    MERGED_ALONE + 1,
    *(2 * ROWS * tiles for tiles in (FEWEST, FEWEST_NARROW, PROCESSORS, PROCESSORS + 1)),
)
"""Numbers of rows from which kernels are others (``pipeline.py``, ``specialise.py``)."""


def known_of(
    cascade: Cascade,
    tensors: tuple[Any, ...],
    parameters: Mapping[str, Scalar],
    sizes: Mapping[str, int] | None,
    target: str,
    tiles: Mapping[str, int],
) -> Known:
    """Return what the arguments of a call tell."""
    check_count(cascade, tensors, parameters)
    values = bind_parameters(cascade, parameters)
    check_divisors(cascade, values)
    shapes = {n: tuple(t.shape) for n, t in zip(cascade.inputs, tensors, strict=True)}
    found = rank_sizes(cascade, shapes, values, sizes or {})
    dtypes = {
        n: str(t.dtype).removeprefix("torch.") for n, t in zip(cascade.inputs, tensors, strict=True)
    }
    boxes = [n for n, t in zip(cascade.inputs, tensors, strict=True) if boxed(t)]
    return Known(
        found, shapes, values, dtypes, target, tiles, tuple(boxes) if target in DESCRIBING else ()
    )


def check_count(cascade: Cascade, tensors: Sequence[Any], named: Iterable[str] = ()) -> None:
    """Raise ShapeError unless each input has its tensor, by position."""
    if len(tensors) != len(cascade.inputs):
        order = ", ".join(cascade.inputs)
        by_name = [n for n in named if n in cascade.inputs]
        hint = f", {', '.join(by_name)} by name: tensors are given by position" if by_name else ""
        raise ShapeError(
            f"{cascade.name} takes {len(cascade.inputs)} tensors ({order}); "
            f"{len(tensors)} given{hint}"
        )


def check_divisors(cascade: Cascade, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that make a divisor of coordinates 0.

    The language has 0 for such a quotient, and the interpreter gives that; a machine's division of
    whole numbers by 0 gives anything.
    """
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            match x:
                case Apply("//" | "%", (_, by)):
                    value = scalar(by, {}, parameters)
                    if isinstance(value, int) and value == 0:
                        raise ShapeError(
                            f"{show_expression(x)} in {einsum.name} divides by 0, and kernels "
                            f"divide whole numbers by 1 or more; give {show_expression(by)} "
                            f'another value, or use backend="interpreter", where that is 0'
                            f"{underlined(x.at)}"
                        )


def aligned_inputs(
    cascade: Cascade, sizes: Mapping[str, int], dtypes: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the inputs whose rows are multiples of 16 bytes, if they lie contiguously."""
    found = []
    for name in cascade.inputs:
        last = next(
            x.coordinates[-1:]
            for e in cascade.einsums
            for x in e.expressions()
            if isinstance(x, Access) and x.tensor == name
        )
        size = sizes.get(last[0].rank, 0) if last and isinstance(last[0], RankVariable) else 0
        width = {"float32": 4, "float64": 8, "int64": 8, "int32": 4}.get(dtypes[name], 2)
        if size and size * width % 16 == 0:
            found.append(name)
    return tuple(found)


def boxed(tensor: Any) -> bool:
    """Whether a tensor descriptor may fetch boxes of a tensor.

    Its last rank must be contiguous, its address and its other strides multiples of 16 bytes.
    """
    if not hasattr(tensor, "data_ptr") or tensor.dim() < 2 or tensor.stride(-1) != 1:
        return False
    size = tensor.element_size()
    steps = (n * size for n in tensor.stride()[:-1])
    return tensor.data_ptr() % 16 == 0 and all(n > 0 and n % 16 == 0 for n in steps)


def lowering_key(cascade: Cascade, known: Known) -> Any:
    """Return what a lowering depends on; lengths of long ranks count only in powers of two.

    A power of two has a class of its own, for choices ask whether a rank has fewer coordinates.
    How many rows there are to compute counts where a choice does (``rows_classes``).
    Coordinates of inputs that are not plain ranks may or may not provably stay inside, so they make
    the exact sizes and parameters count.
    """
    short = short_ranks(cascade, known.sizes)
    widths = tuple(
        (
            r,
            (n, n)
            if r in short
            else (min(4096, 1 << max(n - 1, 0).bit_length()), min(n, 4096).bit_length()),
        )
        for r, n in sorted(known.sizes.items())
    )
    rows = rows_classes(cascade, known.sizes, short)
    # of what lies between kernels Gluon's fetch rows that are multiples of 16 bytes
    even = (
        () if known.emitter == "tl" else tuple(n % 8 == 0 for _, n in sorted(known.sizes.items()))
    )
    ranks, chosen, places = exact(cascade)
    sizes = (*map(known.sizes.get, ranks), *(rounded(known.sizes.get(r)) for r in chosen))
    extents = tuple(known.shapes[t][k] for t, k in places if t in known.shapes)
    values = tuple((n, v, type(v).__name__) for n, v in known.parameters.items())
    return (
        widths, rows, sizes, extents, values, tuple(known.dtypes.items()), known.target,
        tuple(known.tiles.items()), known.described, known.descriptors,
        known.num_warps, known.num_stages, known.choice, tuple(known.parts.items()), known.whole,
        known.inside, known.emitter, known.overlap, known.atomics, even,
    )  # fmt: skip


def rows_classes(
    cascade: Cascade, sizes: Mapping[str, int], short: frozenset[str]
) -> tuple[int, ...]:
    """Return, for each tensor that is computed, which choices its number of rows decides."""
    found = []
    for ranks in computed_ranks(cascade):
        rows = prod(sizes.get(r, 1) for r in ranks if r not in short)
        found.append(sum(rows >= least for least in ROWS_THAT_DECIDE))
    return tuple(found)


@lru_cache(maxsize=512)
def computed_ranks(cascade: Cascade) -> tuple[tuple[str, ...], ...]:
    """Return the ranks of all tensors that are computed, each set once."""
    return tuple(dict.fromkeys(e.ranks for e in cascade.einsums))


@lru_cache(maxsize=512)
def exact(
    cascade: Cascade,
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[tuple[str, int], ...]]:
    """Return the ranks whose exact size a lowering depends on.

    Then those of which it does where they are short, and places in inputs, (input, position).
    """
    ranks: dict[str, None] = {}
    chosen: dict[str, None] = {}
    places: dict[tuple[str, int], None] = {}
    for einsum in cascade.einsums:
        if isinstance(einsum.body, Populate):
            # what is chosen from is held whole, and so is the list, if they are short
            chosen |= dict.fromkeys((einsum.body.rank, *einsum.ranks))
        for x in einsum.expressions():
            if not isinstance(x, Access):
                continue
            for k, c in enumerate(x.coordinates):
                if isinstance(c, RankVariable):
                    continue
                # whether such a coordinate stays inside may be proved from these sizes
                ranks |= {y.rank: None for y in walk(c) if isinstance(y, RankVariable | Size)}
                if x.tensor in cascade.inputs:
                    places.setdefault((x.tensor, k))
                    continue
                for z in cascade.einsum(x.tensor).output.coordinates[k : k + 1]:
                    ranks |= {y.rank: None for y in walk(z) if isinstance(y, RankVariable)}
    return tuple(ranks), tuple(chosen), tuple(places)


def rounded(size: int | None) -> int | None:
    """Return the size of a rank that is chosen from: walked in tiles, however many, if long."""
    return size if size is None or size <= WHOLE else 1 << (size - 1).bit_length()


def own_target() -> str:
    """Return the architecture of the GPU that is here; ``sm_90`` where there is none."""
    import torch

    if not torch.cuda.is_available():
        return "sm_90"
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(0).gcnArchName).split(":")[0]
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def outline(tensor: Any) -> Any:
    """Return a tensor of the same shape, strides and dtype that holds no numbers."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        tensor = torch.as_tensor(tensor)
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def as_torch(found: Any, tensors: tuple[Any, ...]) -> Any:
    """Give the interpreter's arrays back as torch tensors, floats in the inputs' widest dtype."""
    import torch

    floats = [t.dtype for t in tensors if isinstance(t, torch.Tensor) and t.is_floating_point()]
    dtype = floats[0] if floats else torch.float64
    for other in floats[1:]:
        dtype = torch.promote_types(dtype, other)

    def one(x: Any) -> Any:
        tensor = torch.as_tensor(x)
        return tensor.to(dtype) if tensor.dtype.is_floating_point else tensor

    return tuple(one(x) for x in found) if isinstance(found, tuple) else one(found)
