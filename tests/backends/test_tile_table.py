"""Mask functions that cannot be traced, as bits of tiles."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall.backends.tile_table import tile_table
from einfall.examples import flex

B, H, P, M = 1, 2, 75, 90
SIZES = {"b": B, "h": H, "p": P, "m": M}
SET = torch.tensor([2, 3, 5, 7, 11, 13, 41])


def branching(b: Any, h: Any, q: Any, kv: Any) -> Any:
    if h == 0:
        return q >= kv
    return int(q) // 7 == int(kv) // 9 or int(kv) in (1, 70)


def among(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return (kv[..., None] == SET).any(-1) | (kv <= q - 30)


def near(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return torch.lgamma(1.0 + abs(q - kv)) < 12


def points(mask_mod: Any, heads: int) -> Any:
    b, at = torch.tensor(0), [torch.tensor(k) for k in range(M)]
    return np.array([
        [[bool(mask_mod(b, h, q, k)) for k in at] for q in at[:P]] for h in at[:heads]
    ])  # fmt: skip


@pytest.mark.parametrize("mask_mod", [branching, among, near])
def test_the_table_keeps_the_points_that_the_function_keeps(mask_mod: Any, caplog: Any) -> None:
    heads = H if mask_mod is branching else 1
    with caplog.at_level(logging.WARNING, "einfall"):
        filter = einfall.trace_filter(mask_mod, table={**SIZES, "h": heads})
    (told,) = caplog.records
    tile, bits = (x for _, x in filter.tensors)
    assert f"{tile.numel() * 4 + bits.numel()} bytes" in told.getMessage()
    assert bits.dtype == torch.uint8 and bits.shape[1:] == (64, 8)
    c = einfall.cascade(
        f"def f(X, Tile, Bits):\n    Y[b, h, p, m: {filter}] = X[b, h, p, m]\n    return Y\n"
    )
    found = np.asarray(einfall.interpret(c, torch.ones(B, H, P, M), tile, bits))[0] > 0
    assert (found == np.broadcast_to(points(mask_mod, heads), found.shape)).all()


def test_equal_tiles_share_their_bits() -> None:
    filter = tile_table(lambda b, h, q, kv: q >= kv, {"b": 1, "h": 1, "p": 1024, "m": 1024})
    tile, bits = (x for _, x in filter.tensors)
    assert bits.shape[0] == 3 and tile.shape == (1, 1, 16, 16)
    assert tile[0, 0].diagonal().tolist() == [2] * 16 and tile.sum() == 16 * 2 + 120


def test_without_asking_nothing_is_stored(caplog: Any) -> None:
    with pytest.raises(einfall.BackendError, match=r"branches") as error:
        einfall.trace_filter(branching)
    assert "table={...}" in error.value.__notes__[0]
    with caplog.at_level(logging.WARNING, "einfall"):
        assert str(einfall.trace_filter(lambda b, h, q, kv: q >= kv, table=SIZES)) == "p >= m"
    assert not caplog.records
    with pytest.raises(einfall.BackendError, match="one by one would take too long"):
        tile_table(branching, {"b": 1, "h": 2, "p": 4096, "m": 4096})
    with pytest.raises(einfall.BackendError, match="multiple of 8"):
        tile_table(branching, SIZES, tile=20)


def test_a_kernel_reads_bits_and_says_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    made = flex.attention(among, table={**SIZES, "h": 1}, backend="triton", emitter="tl")
    draw = torch.Generator().manual_seed(0)
    main = [torch.randn(B, H, n, 16, generator=draw) for n in (P, M, M)]
    scores = main[0] @ main[1].mT / 4
    kept = torch.from_numpy(points(among, 1))
    wanted = scores.masked_fill(~kept, -float("inf")).softmax(-1).nan_to_num() @ main[2]
    torch.testing.assert_close(made(*main), wanted, rtol=1e-5, atol=1e-5)
    assert "may lie outside" not in str(made.compiled.explain())
