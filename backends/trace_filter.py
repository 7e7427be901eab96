"""Trace the functions with which other libraries say masks and scores into the notation.

``mask_mod(b, h, q, kv)``, as FlexAttention and transformers call it, and FlexAttention's
``score_mod(score, b, h, q, kv)`` are run once on symbols (``tracing.py``). Tensors that they
capture become inputs, under their names where these can be found.

::

    def mask_mod(b, h, q, kv):
        return (q >= kv) & (doc[b, q] == doc[b, kv])
    -->
    p >= m and doc[b, p] == doc[b, m]

    def score_mod(score, b, h, q, kv):
        return torch.where(q >= kv, cap * torch.tanh(score / cap), -float("inf"))
    -->
    cap[()] * tanh(S[b, h, p, m] / cap[()])        where p >= m

Where torch counts a negative coordinate from the end of a tensor, the notation reads no point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..ir.errors import BackendError
from ..ir.expression import Access, Apply, Constant, Expression, RankVariable
from ..ir.notation_words import RESERVED
from ..ir.show import show_expression
from .tracing import Symbol, Tracer, as_condition, rank, without_infinity

Ranks = tuple[str, str, str, str]
Tensors = tuple[tuple[str, torch.Tensor], ...]

RANKS: Ranks = ("b", "h", "p", "m")
"""Batch, head, query and key, as the examples name them."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and the tensors that it reads, by the names that it gives them."""

    expression: Expression
    tensors: Tensors

    def __str__(self) -> str:
        return show_expression(self.expression)


@dataclass(frozen=True, slots=True)
class Score:
    """What a score becomes, the filter of points whose score is finite, and the tensors read.

    filter : None where no score is set to minus infinity.
    """

    expression: Expression
    filter: Expression | None
    tensors: Tensors

    def __str__(self) -> str:
        kept = "" if self.filter is None else f" where {show_expression(self.filter)}"
        return show_expression(self.expression) + kept


def tracer(ranks: Ranks = RANKS, taken: tuple[str, ...] = ()) -> Tracer:
    """Return what traces several functions and names the tensors of all of them."""
    return Tracer((*ranks, *RESERVED, *taken))


def trace_filter(
    mask_mod: Callable[..., Any],
    ranks: Ranks = RANKS,
    *,
    table: Mapping[str, int] | None = None,
    within: Tracer | None = None,
) -> Filter:
    """Return the filter that a mask function is.

    ``ranks`` name batch, head, query and key in the filter. Tensors that the function reads keep
    the names of the variables that it finds them by; others are ``captured_1`` and so on. Those of
    no ranks are read where they lie, ``W[()]``. ``within`` shares the names with other functions.
    ``table`` gives the sizes of the four ranks for which a function that cannot be traced is to be
    evaluated and stored, as ``tile_table`` does; what can be traced is not.

    Raises
    ------
    BackendError : the function does something that no filter can say; it shows what, and where.
    """
    from .tile_table import tile_table

    run = within or tracer(ranks)
    try:
        found = run.run(mask_mod, *map(rank, ranks))
    except BackendError as error:
        if table is None:
            error.add_note("table={...}, with the sizes of the four ranks, stores it in tiles")
            raise
        return tile_table(mask_mod, table, ranks=ranks)
    return Filter(as_condition(found), run.named())


def trace_score(
    score_mod: Callable[..., Any],
    ranks: Ranks = RANKS,
    *,
    score: Expression | None = None,
    within: Tracer | None = None,
) -> Score:
    """Return what a function makes of a score, in the notation.

    ``score`` is what stands for the score: ``S[b, h, p, m]`` if None. A score that is set to minus
    infinity is a point that does not exist, so ``torch.where(q >= kv, score, -inf)`` is the score
    with the filter ``p >= m``.

    Raises
    ------
    BackendError : the function does something that no einsum can say; it shows what, and where.
    """
    run = within or tracer(ranks)
    given = Access("S", tuple(map(RankVariable, ranks))) if score is None else score
    found = run.run(score_mod, Symbol(given, "float"), *map(rank, ranks))
    return Score(*without_infinity(found.expression), run.named())


def block_filter(
    block_mask: Any, ranks: Ranks = RANKS, name: str = "Keep", *, within: Tracer | None = None
) -> Filter:
    """Return the filter that FlexAttention's ``BlockMask`` is: its blocks, and its mask function.

    The blocks become boolean tensors of one element for each block, read at the numbers of a
    point's blocks: ``name`` for those in which the mask function decides, and ``name_full`` for
    those that are taken whole, if there are any.

    Raises
    ------
    BackendError : the mask function does something that no filter can say.
    """
    from torch.nn.attention.flex_attention import noop_mask

    b, h, p, m = ranks
    partial, full = (
        dense_blocks(block_mask, count, index)
        for count, index in (
            (block_mask.kv_num_blocks, block_mask.kv_indices),
            (block_mask.full_kv_num_blocks, block_mask.full_kv_indices),
        )
    )
    assert partial is not None

    def blocks(kept: torch.Tensor, called: str) -> Expression:
        places: list[Expression] = [
            RankVariable(r) if n > 1 else Constant(0)
            for r, n in zip((b, h), kept.shape[:2], strict=True)
        ]
        for r, width in zip((p, m), block_mask.BLOCK_SIZE, strict=True):
            places.append(Apply("//", (RankVariable(r), Constant(width))))
        return Access(called, tuple(places))

    if block_mask.mask_mod is noop_mask:
        kept = partial if full is None else partial | full
        return Filter(blocks(kept, name), ((name, kept),))
    whole = () if full is None else ((f"{name}_full", full),)
    names = within or tracer(ranks, (name, f"{name}_full"))
    points = trace_filter(block_mask.mask_mod, ranks, within=names)
    found: Expression = Apply("and", (blocks(partial, name), points.expression))
    if full is not None:
        found = Apply("or", (blocks(full, f"{name}_full"), found))
    return Filter(found, ((name, partial), *whole, *points.tensors))


def dense_blocks(
    block_mask: Any, count: torch.Tensor | None, index: torch.Tensor | None
) -> torch.Tensor | None:
    """Return lists of blocks as booleans [batch, head, rows of blocks, columns of blocks]."""
    if count is None or index is None:
        return None
    columns = -(-block_mask.seq_lengths[1] // block_mask.BLOCK_SIZE[1])
    named = torch.arange(index.shape[-1], device=index.device) < count[..., None]
    width = max(columns, index.shape[-1])
    kept = torch.zeros((*index.shape[:-1], width + 1), dtype=torch.bool, device=index.device)
    kept.scatter_(-1, index.long().where(named, width), True)
    return kept[..., :columns].contiguous()
