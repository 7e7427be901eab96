"""The rows of the decode table: one new token a sequence, and how its cache lies in memory.

All caches are in float16. ``gqa`` reads keys and values [b, c, m, e], ``paged_decode`` the same
ones in pages of ``B`` keys that lie in random order, ``mla_decode`` one latent cache [b, m, 576]
whose first 512 features are the values too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from einfall.examples.benchmarks.rows import Row

LATENT, ROTARY = 512, 64
"""Features of a latent cache: those that are values too, and those of position."""

SCALE = 192**-0.5
"""What scores of latents are multiplied by: a head had 192 features before keys were absorbed."""


@dataclass(frozen=True, slots=True)
class DecodeRow(Row):
    """One measurement; ``n`` is the number of keys in each cache."""

    @property
    def shared(self) -> int:
        """The number of key heads."""
        return self.heads // self.group

    @property
    def moved(self) -> int:
        """Bytes that a call reads at least: every key and value once, in two bytes a number."""
        features = self.d if self.example == "mla_decode" else 2 * self.d
        return 2 * self.batch * self.shared * self.n * features


SDPA = ("sdpa-flash", "sdpa-cudnn")
CONTIGUOUS = "peers read contiguous caches of the same keys"


def _row(
    batch: int, n: int, heads: int = 32, shared: int = 8, d: int = 128, **more: Any
) -> DecodeRow:
    group = heads // shared
    name = f"gqa{group}-d{d}-b{batch}-n{n}"
    fields = {"parameters": {"G": group}, "peers": SDPA} | more
    return DecodeRow(name, "gqa", batch, heads, n, d, group, **fields)


def _paged(batch: int, n: int, page: int) -> DecodeRow:
    row = _row(batch, n)
    return replace(
        row,
        name=f"pages{page}-b{batch}-n{n}",
        example="paged_decode",
        parameters={"B": page},
        less=CONTIGUOUS,
    )


def _latent(batch: int, n: int, heads: int = 128, peers: tuple[str, ...] = ("torch",)) -> DecodeRow:
    name = f"latent{heads}-b{batch}-n{n}"
    parameters = {"scale": SCALE}
    return DecodeRow(name, "mla_decode", batch, heads, n, LATENT + ROTARY, heads, parameters, peers)


DECODE_ROWS: tuple[DecodeRow, ...] = (
    *(
        _row(batch, n)
        for batch, n in (
            *((1, 1024), (1, 8192), (1, 65536), (1, 262144), (4, 2048)),
            *((8, 1024), (8, 8192), (8, 65536), (32, 1024), (32, 8192), (64, 4096)),
            *((128, 1024), (128, 8192)),
        )
    ),
    _row(8, 8192, heads=8),
    _row(8, 8192, heads=48),
    _row(8, 8192, shared=4),
    _row(8, 8192, shared=2),
    _row(8, 8192, d=64),
    _row(8, 8192, heads=16, shared=4, d=256),
    *(_paged(batch, n, page) for batch, n in ((8, 8192), (1, 65536)) for page in (16, 64, 128)),
    _paged(32, 8192, 64),
    *(_latent(batch, n) for batch, n in ((1, 65536), (4, 8192), (32, 8192), (128, 1024))),
    _latent(32, 8192, heads=16),
)


def inputs(
    row: DecodeRow, device: str = "cuda", dtype: torch.dtype = torch.float16
) -> tuple[Tensor, ...]:
    """Return Q[b, h, 1, e] and contiguous caches [b, c, m, e], standard normal.

    A latent cache is one tensor, [b, 1, m, e]; its values are the first features of the same.
    """
    draw = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, device=device, dtype=dtype)

    Q = normal(row.batch, row.heads, 1, row.d)
    cache = (row.batch, row.shared, row.n, row.d)
    K = normal(*cache)
    return Q, K, K[..., :LATENT] if row.example == "mla_decode" else normal(*cache)


def scale(row: DecodeRow) -> float:
    """Return what products of a query and a key are multiplied by."""
    return SCALE if row.example == "mla_decode" else row.d**-0.5


def attend(row: DecodeRow, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """Return the weighted sums [b, h, 1, f] by two products, in the tensors' own precision."""
    grouped = Q.view(row.batch, row.shared, row.group, -1)
    weights = torch.softmax(grouped @ K.transpose(2, 3) * scale(row), -1)
    return (weights @ V).view(row.batch, row.heads, 1, -1)


def reference(row: DecodeRow, tensors: tuple[Tensor, ...]) -> Tensor:
    """Return the weighted sums in float64, a sequence at a time."""
    one = replace(row, batch=1)
    Q, K, V = tensors
    found = [attend(one, *(x[b : b + 1].double() for x in (Q, K, V))) for b in range(row.batch)]
    return torch.cat(found)


def paged(row: DecodeRow, K: Tensor, V: Tensor, page: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return caches in pages [x, r, c, e], in random order, and the number of each page [b, y]."""
    count = row.batch * (row.n // page)
    number = torch.randperm(count, device=K.device).view(row.batch, -1)

    def scattered(x: Tensor) -> Tensor:
        pages = x.view(row.batch, row.shared, -1, page, row.d).permute(0, 2, 3, 1, 4)
        found = torch.empty(count, page, row.shared, row.d, dtype=x.dtype, device=x.device)
        found[number.flatten()] = pages.reshape(found.shape)
        return found

    return scattered(K), scattered(V), number.int()


def arguments(row: DecodeRow, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return a row's tensors as its example declares them."""
    Q, K, V = tensors
    length = torch.full((row.batch,), row.n, dtype=torch.int32, device=K.device)
    match row.example:
        case "gqa":
            return Q, K, V
        case "paged_decode":
            pages = paged(row, K, V, int(row.parameters["B"]))
            return Q.view(row.batch, row.shared, row.group, row.d), *pages, length
        case "mla_decode":
            Q, cache = Q[:, :, 0], K[:, 0]
            return (
                Q[..., :LATENT],
                Q[..., LATENT:],
                cache[..., :LATENT],
                cache[..., LATENT:],
                length,
            )
        case _:
            raise ValueError(f"{row.example} is not declared for one new token a sequence")


def options(row: DecodeRow) -> Mapping[str, Any]:
    """Return what a row is compiled with: numbers of pages are promised to be those of pages."""
    return {"inside": ("page",)} if row.example == "paged_decode" else {}
