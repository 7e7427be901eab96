"""Triton's interpreter gives the same by slices, and with shortcuts, as it gives without."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]

from .triton_shortcuts import take_shortcuts
from .triton_slices import ELEMENTS, SLICES, fold_by


@triton.jit
def larger(x, i, y, j):  # type: ignore[no-untyped-def]
    """Return the larger value and its place; the later one of equal ones."""
    return tl.where(x > y, x, y), tl.where(x > y, i, j)


@triton.jit
def half_sum(x, y):  # type: ignore[no-untyped-def]
    """Return what depends on the order of the operands, and rounds."""
    return x * 0.3 + y


@triton.jit  # type: ignore[untyped-decorator]
def kernel(X, Y, Sorted, Best, Place, Folded, All, Scanned, R: tl.constexpr, C: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]
    x, i = tl.load(X + at), tl.load(Y + at)
    tl.store(Sorted + at, tl.sort(i, dim=1, descending=True))
    best, place = tl.reduce((x, i), 1, larger)
    tl.store(Best + tl.arange(0, R), best)
    tl.store(Place + tl.arange(0, R), place)
    tl.store(Folded + tl.arange(0, C)[None, :], tl.reduce(x, 0, half_sum, keep_dims=True))
    tl.store(All, tl.reduce(x, None, half_sum))
    tl.store(Scanned + at, tl.associative_scan(x, 1, half_sum, reverse=True))


def folded() -> list[np.ndarray[Any, Any]]:
    """Return what the kernel writes."""
    draw = np.random.default_rng(3)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.from_numpy(draw.integers(-4, 5, (4, 8)).astype(np.float32) / 3).to(device)
    i = torch.from_numpy(draw.permutation(32).astype(np.int32).reshape(4, 8)).to(device)
    shapes = ((4, 8), (4,), (4,), (8,), (1,), (4, 8))
    dtypes = (i.dtype, x.dtype, i.dtype, *[x.dtype] * 3)
    written = [torch.zeros(s, dtype=d, device=device) for s, d in zip(shapes, dtypes, strict=True)]
    kernel[(1,)](x, i, *written, 4, 8)
    assert torch.equal(written[0], i.sort(descending=True)[0])
    return [y.cpu().numpy() for y in written]


def test_the_quick_interpreter_gives_what_the_slow_one_gives() -> None:
    found = folded()
    try:
        fold_by(ELEMENTS)
        take_shortcuts(False)
        expected = folded()
    finally:
        fold_by(SLICES)
        take_shortcuts()
    for got, wanted in zip(found, expected, strict=True):
        assert np.array_equal(got, wanted) and np.any(got)
