"""Block masks of filters: each block by its points, and what FlexAttention computes with them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.attention.flex_attention import flex_attention as their_function

import einfall
from einfall import examples
from einfall.backends.trace_filter import block_filter

flex_attention: Any = their_function  # its overloads know no starred arguments

B, H, P, M, E = 2, 3, 44, 52, 8
DRAW = np.random.default_rng(4)
GIVEN: dict[str, torch.Tensor] = {
    "doc": torch.tensor([[k // 11 for k in range(M)], [(k * k) % 5 for k in range(M)]]),
    "own": torch.tensor([[k // 9 for k in range(P)], [(k * k) % 5 for k in range(P)]]),
    "length": torch.tensor([30, 52]),
    "wide": torch.tensor([3, 9, 60], dtype=torch.int32),
    "Keep": torch.from_numpy(DRAW.random((H, 6, 7)) < 0.5),
    "Count": torch.from_numpy(DRAW.integers(0, 2, (H, 6, 7))),
    "Sel": torch.from_numpy(np.stack([DRAW.permutation(7)[:3] for _ in range(6)])),
    "least": torch.tensor(4.5),
}
FILTERS = {
    "m <= p": (),
    "m <= p + size(m) - size(p) and p - m < 17": (),
    "own[b, p] == doc[b, m] and m <= p": ("own", "doc"),
    "m < length[b] or m <= 3": ("length",),
    "p - m < wide[h] and m <= p": ("wide",),
    "Keep[h, p // 8, m // 8] and m <= p": ("Keep",),
    "Count[h, p // 8, m // 8] or not m <= p": ("Count",),
    "m // 8 in Sel[p // 8]": ("Sel",),
    "bit_length(abs(p // 4 - m // 4)) % 2 == 0": (),
    "where(h == 1, max(p, 9) >= m, min(p, m) % 3 == abs(p - m) % (1 + p % 2))": (),
    "p * 0.5 >= m - least[()]": ("least",),
    "doc[b, p + 9] == 3": ("doc",),
    "wide[h] > 5": ("wide",),
}


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run FlexAttention as Python, without a compiler looking at it first."""
    import torch.nn.attention.flex_attention as module

    monkeypatch.setattr(module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def declared(filter: str) -> einfall.Cascade:
    tensors = ", ".join(("Q", "K", "V", *FILTERS[filter]))
    return einfall.cascade(
        f"def attention({tensors}):\n"
        f"    S[b, h, p, m: {filter}] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))\n"
        "    A[b, h, p, m] = softmax[m](S[b, h, p, m])\n"
        "    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]\n"
        "    return O\n"
    )


def arguments(filter: str) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(2)
    sizes = ((B, H, P, E), (B, H, M, E), (B, H, M, E))
    main = [torch.randn(s, generator=draw, dtype=torch.float64) for s in sizes]
    return [*main, *(GIVEN[t] for t in FILTERS[filter])]


def points_of(c: einfall.Cascade, filter: str) -> Any:
    shown = einfall.cascade(
        f"def points({', '.join(('X', *FILTERS[filter]))}):\n"
        f"    Y[b, h, p, m: {filter}] = X[b, h, p, m]\n    return Y\n"
    )
    ones = torch.ones(B, H, P, M)
    return np.asarray(einfall.interpret(shown, ones, *(GIVEN[t] for t in FILTERS[filter]))) > 0


def dense(count: torch.Tensor, index: torch.Tensor) -> Any:
    found = np.zeros(index.shape, bool)
    for at, n in np.ndenumerate(count.numpy()):
        found[at][index[at][:n].numpy()] = True
    return found


CUTS = [*((f, (16, 8)) for f in FILTERS), *((f, (32, 64)) for f in list(FILTERS)[:3])]


@pytest.mark.parametrize(("filter", "block"), CUTS)
def test_blocks_and_what_flex_attention_makes_of_them(filter: str, block: tuple[int, int]) -> None:
    c = declared(filter)
    given = arguments(filter)
    mask = einfall.block_mask(c, *given, block_size=block)
    points = points_of(c, filter)
    some = dense(mask.kv_num_blocks, mask.kv_indices)
    full = dense(mask.full_kv_num_blocks, mask.full_kv_indices)
    for b, h, i, j in np.ndindex(B, H, -(-P // block[0]), -(-M // block[1])):
        own = points[b, h, i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]]
        whole = own.shape == block and own.all()
        at = (b % some.shape[0], h % some.shape[1], i, j)
        assert full[at] == whole
        assert some[at] == (own.any() and not whole)
    found = flex_attention(*given[:3], block_mask=mask)
    wanted = torch.as_tensor(np.asarray(einfall.interpret(c, *given)))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("filter", ["m <= p", "own[b, p] == doc[b, m] and m <= p"])
def test_there_and_back(filter: str) -> None:
    c = declared(filter)
    mask = einfall.block_mask(c, *arguments(filter), block_size=(16, 8))
    back = block_filter(mask)
    names = [n for n, _ in back.tensors]
    shown = einfall.cascade(
        f"def points({', '.join(('X', *names))}):\n"
        f"    Y[b, h, p, m: {back}] = X[b, h, p, m]\n    return Y\n"
    )
    ones = torch.ones(B, H, P, M)
    found = np.asarray(einfall.interpret(shown, ones, *(x for _, x in back.tensors))) > 0
    assert (found == points_of(c, filter)).all()


def test_blocks_are_those_of_create_block_mask() -> None:
    ours = einfall.block_mask(examples.attention, sizes={"p": 1, "m": 1}, of="S")
    assert ours.kv_num_blocks.tolist() == [[[1]]]
    c = declared("m <= p")
    ours = einfall.block_mask(c, sizes={"p": 300, "m": 300})

    def causal(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return q >= kv

    theirs = create_block_mask(causal, 1, 1, 300, 300, device="cpu")
    assert (ours.to_dense() == theirs.to_dense()).all()
    both = (ours.full_kv_num_blocks, theirs.full_kv_num_blocks)
    assert all(x is not None for x in both) and torch.equal(*both)  # type: ignore[arg-type]
    assert ours.seq_lengths == theirs.seq_lengths


def test_the_mask_function_reads_as_one_written_by_hand() -> None:
    c = declared("own[b, p] == doc[b, m] and m <= p")
    mask = einfall.block_mask(c, reads={n: GIVEN[n] for n in ("own", "doc")})
    assert inspect.getsource(mask.mask_mod) == (
        "def mask_mod(b, h, p, m):\n    return (own[b, p] == doc[b, m]) & (m <= p)\n"
    )


def test_a_compiled_cascade_and_a_long_rank() -> None:
    f = einfall.compile(declared("m <= p + size(m) - size(p) and p - m < 17"))
    mask = einfall.block_mask(f, sizes={"p": 1 << 14, "m": 1 << 14}, block_size=256)
    assert mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum() == 64 + 63


def test_what_is_missing_is_said() -> None:
    with pytest.raises(einfall.ShapeError, match="follow doc, which is not given"):
        einfall.block_mask(declared("doc[b, p + 9] == 3"), sizes={"b": 2, "p": 9, "m": 9})
    with pytest.raises(einfall.ShapeError, match="of=..."):
        einfall.block_mask(examples.attention, sizes={"p": 9, "m": 9})
    with pytest.raises(einfall.ShapeError, match="computes no T"):
        einfall.block_mask(examples.causal, sizes={"p": 9, "m": 9}, of="T")
