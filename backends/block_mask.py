"""Emit FlexAttention's ``BlockMask`` from the filter of a cascade.

The blocks are classified by the filter's three-valued truth on them; only blocks about which that
leaves a doubt are looked at point by point, so nothing the size of the mask is ever stored. The
mask function is the filter, printed in torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch

from ..ir.axes import ranks_of
from ..ir.cascade import Cascade, Scalar
from ..ir.errors import ShapeError
from ..ir.expression import Constant, Expression, Parameter, rewrite
from ..ir.expression import free_ranks as ranks_in
from ..ir.expression import tensors as tensors_in
from ..ir.sizes import bind_parameters, rank_sizes
from ..passes.map_kernels import collect_presence
from ..passes.presence import EXTENT, Facts
from ..passes.tile_classes import FULL, PARTIAL, tile_classes
from .mask_text import mask_function, mask_text


@dataclass(frozen=True, slots=True)
class Points:
    """Where one tensor of a cascade exists: a condition over its ranks, all names bound.

    ranks : the tensor's, the last two are rows and columns. filter : None for everywhere.
    """

    ranks: tuple[str, ...]
    filter: Expression | None
    sizes: Mapping[str, int]
    parameters: Mapping[str, Scalar]
    tensors: Mapping[str, Any]


def points_of(
    cascade: Cascade,
    tensors: tuple[Any, ...],
    sizes: Mapping[str, int] | None,
    reads: Mapping[str, Any] | None,
    of: str | None,
    parameters: Mapping[str, Scalar],
) -> Points:
    """Return where a tensor of a cascade exists; by default, the first one that has a filter.

    Raises
    ------
    ShapeError : arguments do not fit; no tensor of two ranks or more has a filter; the filter reads
        what is not given, or what the cascade computes.
    """
    values = bind_parameters(cascade, parameters)
    given = {**dict(zip(cascade.inputs, tensors, strict=False)), **(reads or {})}
    if tensors and len(tensors) != len(cascade.inputs):
        raise ShapeError(
            f"{cascade.name} takes {len(cascade.inputs)} tensors ({', '.join(cascade.inputs)});"
            f" {len(tensors)} given"
        )
    shapes = {n: tuple(x.shape) for n, x in given.items()}
    if tensors:
        found = rank_sizes(cascade, shapes, values, sizes or {})
    else:
        homes = (zip(ranks_of(cascade, t), s, strict=True) for t, s in shapes.items())
        found = {**{r: n for home in homes for r, n in home if r}, **(sizes or {})}
    filtered = [e.name for e in cascade.einsums if e.filter is not None and len(e.ranks) > 1]
    if of is None and not filtered:
        raise ShapeError(
            f"no tensor of {cascade.name} has a filter over two ranks; name one with of=..."
        )
    name = of or filtered[0]
    if name not in {e.name for e in cascade.einsums}:
        raise ShapeError(f"{cascade.name} computes no {name}")
    facts = Facts(cascade, found, shapes, values, {}, {})
    collect_presence(cascade.einsums, facts)
    filter, ranks = facts.found[name], cascade.einsum(name).ranks
    missing = [r for r in ranks[-2:] if r not in found]
    missing += [] if filter is None else [t for t in tensors_in(filter) if t not in given]
    if missing:
        raise ShapeError(
            f"the points of {name} follow {', '.join(dict.fromkeys(missing))}, which"
            f" {'is' if len(missing) == 1 else 'are'} not given; give all tensors of"
            f" {cascade.name}, or sizes={{...}} and reads={{...}}"
        )
    extents = {
        EXTENT.format(tensor=t, position=k): n for t, s in shapes.items() for k, n in enumerate(s)
    }

    def rule(x: Expression) -> Expression | None:
        return Constant(extents[x.name]) if isinstance(x, Parameter) and x.name in extents else None

    filter = None if filter is None else rewrite(filter, rule)
    read = () if filter is None else tensors_in(filter)
    return Points(ranks, filter, found, values, {t: given[t] for t in read})


def classes_of(points: Points, widths: tuple[int, int]) -> Any:
    """Return the class of each block: [other ranks that the filter reads, or 1, rows, columns]."""
    *outer, row, column = points.ranks
    read = () if points.filter is None else ranks_in(points.filter)
    followed = [points.sizes[r] if r in read else 1 for r in outer]
    arrays = {n: x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
              for n, x in points.tensors.items()}  # fmt: skip
    extents = {
        EXTENT.format(tensor=t, position=k): n
        for t, x in arrays.items()
        for k, n in enumerate(x.shape)
    }
    real = [n for n, x in arrays.items() if x.dtype.kind == "f"]
    real += [n for n, v in points.parameters.items() if isinstance(v, float)]
    rows = []
    for at in product(*map(range, followed)):
        rows.append(
            tile_classes(
                points.filter,
                tiles=dict(zip((row, column), widths, strict=True)),
                sizes=points.sizes,
                parameters={**extents, **points.parameters},
                coordinates=dict(zip(outer, at, strict=True)),
                tensors=arrays,
                real=real,
            )
        )
    return np.stack(rows).reshape(*followed, *rows[0].shape)


def block_mask(
    cascade: Any,
    *tensors: Any,
    sizes: Mapping[str, int] | None = None,
    reads: Mapping[str, Any] | None = None,
    block_size: int | tuple[int, int] = 128,
    of: str | None = None,
    device: Any = None,
    **parameters: Scalar,
) -> Any:
    """Return the ``BlockMask`` with which FlexAttention keeps the points that a cascade keeps.

    Parameters
    ----------
    cascade : a cascade, or what ``compile`` made of one.
    tensors : its arguments, in order. Without them, ``sizes`` gives its ranks' and ``reads`` the
        tensors that the filter reads, by name.
    block_size : rows and columns of a block.
    of : the tensor whose points count; by default the first with a filter over two ranks, such as
        the scores. Its last two ranks are FlexAttention's queries and keys, and of those before
        them, at most two, the last is its head and the first its batch. A rank that the filter does
        not read has one block mask for all of its coordinates.
    device : where the mask lies; by default where the filter's tensors are, else where the
        arguments are. Tensors are copied to the host to classify blocks.

    Raises
    ------
    ShapeError : arguments do not fit, or the filter reads what is not given.
    BackendError : the filter does something that torch has no words for.
    """
    from torch.nn.attention.flex_attention import BlockMask

    declared: Cascade = getattr(cascade, "declared", cascade)
    points = points_of(declared, tensors, sizes, reads, of, parameters)
    if len(points.ranks) > 4:
        raise ShapeError(
            f"a BlockMask has a batch and a head; {of or 'the tensor'} has ranks"
            f" {', '.join(points.ranks)}"
        )
    lying = [x.device for x in (*points.tensors.values(), *tensors) if isinstance(x, torch.Tensor)]
    place = device if device is not None else lying[0] if lying else "cpu"
    widths = (block_size, block_size) if isinstance(block_size, int) else tuple(block_size)
    found = classes_of(points, (widths[0], widths[1]))
    found = found.reshape((1,) * (4 - found.ndim) + found.shape)
    spare = (x for x in ("batch", "head") if x not in points.ranks)
    ranks = (*(next(spare) for _ in range(4 - len(points.ranks))), *points.ranks)
    row, column = points.ranks[-2:]
    text = mask_text(
        Constant(True) if points.filter is None else points.filter,
        (ranks[0], ranks[1], ranks[2], ranks[3]),
        sizes=points.sizes,
        parameters=points.parameters,
        shapes={n: tuple(x.shape) for n, x in points.tensors.items()},
        boolean=frozenset(n for n, x in points.tensors.items() if str(x.dtype).endswith("bool")),
    )
    there = {n: torch.as_tensor(x).to(place) for n, x in points.tensors.items()}
    classes = torch.from_numpy(found).to(place)
    lists = [block_lists(classes == which) for which in (PARTIAL, FULL)]
    return BlockMask.from_kv_blocks(
        *lists[0],
        *lists[1],
        BLOCK_SIZE=(widths[0], widths[1]),
        mask_mod=mask_function(text, there),
        seq_lengths=(points.sizes[row], points.sizes[column]),
    )


def block_lists(kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how many blocks of each row are kept, and which: those first, in order."""
    count = kept.sum(-1, dtype=torch.int32)
    order = torch.argsort((~kept).to(torch.int8), dim=-1, stable=True)
    return count, order.to(torch.int32)
