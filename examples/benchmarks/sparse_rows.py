"""The rows of the sparse table: which points exist, for us and, as a predicate, for everybody else.

Radial's frames have 256 tokens where a video's have thousands: at 3840 tokens 128 frames are half a
million keys, which takes a dense kernel minutes a call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from einfall.examples.benchmarks.rows import Row

Extra = tuple[Tensor, ...]
Make = Callable[["SparseRow", torch.Generator], Extra]
Keep = Callable[["SparseRow", Extra, int | Tensor, Tensor, Tensor], Tensor]

BLOCK = 128
"""Rows and columns of the blocks that lists name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseRow(Row):
    """One measurement; all have one sequence, and as many key heads as query heads.

    make : the arguments behind Q, K and V. keep : whether (head, query, key) exists, on tensors
        that broadcast, given those arguments.
    dense : the row whose time for a tile is the measure; "" for such rows themselves.
    peers : who can compute it; ``sdpa-cudnn`` computes all causal pairs, whatever the row.
    """

    keep: Keep
    make: Make = lambda row, draw: ()
    dense: str = "causal-n32768"


def causal(row: SparseRow, extra: Extra, h: int | Tensor, p: Tensor, m: Tensor) -> Tensor:
    """Whether a key is not behind the query."""
    return m <= p


def window(row: SparseRow, extra: Extra, h: int | Tensor, p: Tensor, m: Tensor) -> Tensor:
    """Whether a key is one of the last W."""
    return (m <= p) & (p - m < row.parameters["W"])


def sink_window(row: SparseRow, extra: Extra, h: int | Tensor, p: Tensor, m: Tensor) -> Tensor:
    """Whether a key is one of the last W or one of the first few."""
    return (m <= p) & ((p - m < row.parameters["W"]) | (m < row.parameters["sinks"]))


def documents(mean: int, row: SparseRow, draw: torch.Generator) -> Extra:
    """Return numbers that rise along the sequence, by 1 once in ``mean`` tokens."""
    ends = torch.rand((1, row.n), generator=draw, device=draw.device) < 1 / mean
    return (ends.cumsum(-1, dtype=torch.int32),)


def same_document(row: SparseRow, extra: Extra, h: int | Tensor, p: Tensor, m: Tensor) -> Tensor:
    """Whether a key is not behind the query, and in its document."""
    return (m <= p) & (extra[0][0][p] == extra[0][0][m])


def kept_blocks(row: SparseRow, draw: torch.Generator) -> Extra:
    """Return which blocks of which distance of frames are kept, by Radial's rule."""
    import einfall
    import einfall.examples

    s, B = int(row.parameters["s"]), int(row.parameters["B"])
    places, lane = torch.arange(1 - s // B, s // B), torch.arange(B)
    rule = einfall.examples.radial_mask
    parts = [
        einfall.interpret(rule, d.numpy(), places.numpy(), lane.numpy(), s=s, B=B)
        for d in torch.split(torch.arange(row.n // s), 16)
    ]
    return (torch.cat([torch.as_tensor(x) for x in parts]).bool().to(draw.device),)


def radial(row: SparseRow, extra: Extra, h: int | Tensor, p: Tensor, m: Tensor) -> Tensor:
    """Whether the block is kept in which a query meets a key."""
    s, B = int(row.parameters["s"]), int(row.parameters["B"])
    return extra[0][(p // s - m // s).abs(), p % s // B - m % s // B + (s - 1) // B]


def lists(density: float, row: SparseRow, draw: torch.Generator) -> Extra:
    """Return lists of random blocks for each head and block of rows, and how long each is."""
    shape = (1, row.heads, row.n // BLOCK, row.n // BLOCK)
    kept = torch.rand(shape, generator=draw, device=draw.device) < density
    blocks = (~kept).int().argsort(dim=-1, stable=True)
    return blocks.int(), kept.sum(-1, dtype=torch.int32)


def listed(row: SparseRow, extra: Extra, h: int | Tensor, p: Tensor, m: Tensor) -> Tensor:
    """Whether the key's block is in the list of the query's."""
    blocks, count = extra[0][0, h, p // BLOCK], extra[1][0, h, p // BLOCK]
    place = torch.arange(blocks.shape[-1], device=blocks.device)
    named = (blocks == (m // BLOCK)[..., None]) & (place < count[..., None])
    return named.any(-1)


def spans(row: SparseRow, draw: torch.Generator) -> Extra:
    """Return the spans of heads: every other one sees all, the others a sink and a window."""
    B, odd = int(row.parameters["B"]), torch.arange(row.heads, device=draw.device) % 2 == 1
    sinks = torch.ones(row.heads, dtype=torch.int32, device=draw.device)
    return sinks, torch.where(odd, 1024 // B, row.n // B).int()


def in_span(row: SparseRow, extra: Extra, h: int | Tensor, p: Tensor, m: Tensor) -> Tensor:
    """Whether a key is in the head's first blocks or in its latest."""
    B = int(row.parameters["B"])
    return (m <= p) & ((m // B < extra[0][h]) | (m // B > p // B - extra[1][h]))


def selected(row: SparseRow, extra: Extra, h: int | Tensor, p: Tensor, m: Tensor) -> Tensor:
    """Whether the key's block was selected: ``extra`` is what the kernels selected."""
    B = int(row.parameters["B"])
    chosen = extra[0][0, h, p // B]
    return (m <= p) & (chosen == (m // B)[..., None]).any(-1)


LONG = 131072


def _row(
    name: str, example: str, keep: Keep, n: int = 32768, heads: int = 16, **more: Any
) -> SparseRow:
    more = {"peers": ("sdpa-cudnn", "flex"), "dense": f"causal-n{n}"} | more
    return SparseRow(f"{name}-n{n}", example, 1, heads, n, 128, keep=keep, **more)


ALL_PAIRS = "cuDNN computes causal pairs"

SPARSE_ROWS: tuple[SparseRow, ...] = (
    _row("causal", "causal", causal, dense=""),
    *(
        _row(f"window-{w}", "sliding_window", window, parameters={"W": w})
        for w in (512, 1024, 4096)
    ),
    _row("sink-window-1024", "sink_window", sink_window, parameters={"W": 1024, "sinks": 4}),
    _row("documents-2k", "document", same_document, make=partial(documents, 2048)),
    _row(
        "radial-128x256", "radial_blocks", radial, parameters={"s": 256, "B": BLOCK},
        make=kept_blocks, less=ALL_PAIRS,
    ),
    *(
        _row(
            f"blocks-{percent}%", "block_lists", listed, parameters={"P0": BLOCK, "M0": BLOCK},
            make=partial(lists, percent / 100), less=f"{ALL_PAIRS}; peers give no LSE",
        )
        for percent in (5, 10, 25, 50)
    ),
    _row("spans-half", "moa", in_span, parameters={"B": 64}, make=spans),
    _row("causal", "causal", causal, LONG, 4, dense="", peers=("sdpa-cudnn",)),
    *(
        _row(f"window-{w}", "sliding_window", window, LONG, 4, parameters={"W": w}, peers=("flex",))
        for w in (512, 1024, 4096)
    ),
    _row(
        "top-blocks-32x128", "topk_blocks", selected, 65536, 8, parameters={"B": BLOCK, "k": 32},
        dense="causal-n32768", less=ALL_PAIRS,
    ),
    _row(
        "window-1024", "sliding_window", window, 2**20, 1, parameters={"W": 1024}, peers=(),
        dense="causal-n131072",
    ),
)  # fmt: skip


def inputs(row: SparseRow, device: str = "cuda", dtype: torch.dtype = torch.bfloat16) -> Extra:
    """Return the row's arguments, in the order of its example's ``def``."""
    draw = torch.Generator(device).manual_seed(0)
    shape = (1, row.heads, row.n, row.d)
    normal = [torch.randn(shape, generator=draw, device=device).to(dtype) for _ in range(3)]
    return (*normal, *row.make(row, draw))
