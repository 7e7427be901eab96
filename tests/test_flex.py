"""Masks and scores of public practice, traced, against FlexAttention itself on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.attention.flex_attention import flex_attention as their_function

import einfall
from einfall.examples import flex

flex_attention: Any = their_function  # its overloads know no starred arguments

B, H, N, E = 2, 4, 40, 8
SEED = torch.Generator().manual_seed(3)
DOC = torch.tensor([[k // 9 for k in range(N)], [(k + 5) // 14 for k in range(N)]])
LENGTH = torch.tensor([25, 40], dtype=torch.int32)
PREFIX = torch.tensor([11, 3])
OFFSETS = torch.tensor([0, 7, 19, 40])
CAP, WIDE = torch.tensor(2.5), torch.tensor(6)
TABLE = torch.randn(H, 2 * N - 1, generator=SEED)
BIAS = torch.randn(H, N, N, generator=SEED)
SLOPES = 2.0 ** (-8.0 * torch.arange(1, H + 1) / H)
MINUS = -float("inf")
ROW = 8  # of a picture


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run FlexAttention as Python, without a compiler looking at it first."""
    import torch.nn.attention.flex_attention as module

    monkeypatch.setattr(module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def causal(b: Any, h: Any, q: Any, kv: Any) -> Any:
    return q >= kv


def near(b: Any, h: Any, q: Any, kv: Any) -> Any:
    qy, qx, ky, kx = q // ROW, q % ROW, kv // ROW, kv % ROW
    center_y, center_x = qy.clamp(1, N // ROW - 2), torch.clamp(qx, 1, ROW - 2)
    return ((center_y - ky).abs() <= 1) & ((center_x - kx).abs() <= 1)


def softcap(score: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
    return CAP * torch.tanh(score / CAP)


def alibi(score: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
    return score + torch.exp2(-((h + 1) * 8.0 / H)) * (kv - q)


Function = Callable[..., Any] | None
PRACTICE: dict[str, tuple[Function, Function]] = {
    "causal": (causal, None),
    "window": (lambda b, h, q, kv: (q >= kv) & (q - kv <= WIDE), None),
    "prefix": (lambda b, h, q, kv: (kv <= PREFIX[b]) | (q >= kv), None),
    "documents": (lambda b, h, q, kv: (DOC[b][q] == DOC[b][kv]) & causal(b, h, q, kv), None),
    "padding": (lambda b, h, q, kv: (kv < LENGTH[b]) & (q < LENGTH[b]), None),
    "neighbours": (near, None),
    "dilated": (lambda b, h, q, kv: ((q - kv) % 3 == 0) & (q >= kv), None),
    "chunks": (lambda b, h, q, kv: (q >> 3 == kv // 8) & (q >= kv), None),
    "sinks, by head": (
        lambda b, h, q, kv: torch.where(h < 2, q >= kv, (q >= kv) & ((kv < 2) | (q - kv < 5))),
        None,
    ),
    "nothing": (lambda b, h, q, kv: (q >= kv) & (q > 20), None),
    "softcap": (causal, softcap),
    "slopes": (None, alibi),
    "slopes, captured": (causal, lambda s, b, h, q, kv: s + SLOPES[h] * (kv - q).float()),
    "relative": (None, lambda s, b, h, q, kv: s + TABLE[h, kv - q + N - 1]),
    "bias": (causal, lambda s, b, h, q, kv: s + BIAS[h, q, kv]),
    "masked score": (None, lambda s, b, h, q, kv: torch.where(q >= kv, s * 0.5, MINUS)),
    "two of a kind": (
        lambda b, h, q, kv: q * CAP + OFFSETS[1] >= kv,
        lambda s, b, h, q, kv: torch.sigmoid(s) * CAP.to(s.dtype) - (q == kv).int() * WIDE,
    ),
}


def inputs(heads: int = H, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    sizes = ((B, H, N, E), (B, heads, N, E), (B, heads, N, 16))
    return [torch.randn(*s, generator=draw, dtype=dtype) for s in sizes]


def theirs(mask: Function, score: Function, given: list[torch.Tensor], **more: Any) -> Any:
    blocks = None
    if mask is not None:
        blocks = create_block_mask(mask, B, H, N, N, device="cpu", BLOCK_SIZE=16)
    return flex_attention(*given, score_mod=score, block_mask=blocks, **more)


@pytest.mark.parametrize("name", PRACTICE)
def test_what_flex_attention_computes(name: str) -> None:
    given = inputs()
    ours = flex.attention(*PRACTICE[name], backend="interpreter")(*given)
    torch.testing.assert_close(ours, theirs(*PRACTICE[name], given), rtol=2e-6, atol=2e-6)


def test_shared_heads_scale_and_logarithms() -> None:
    given = inputs(heads=2)
    made = flex.attention(causal, softcap, grouped=True, scale=0.3, lse=True, backend="interpreter")
    found = made(*given)
    wanted = theirs(causal, softcap, given, enable_gqa=True, scale=0.3, return_lse=True)
    for ours, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, other.to(ours.dtype), rtol=2e-6, atol=2e-6)
    assert "K[b, h // G, m, e] * 0.3" in str(made.cascade)


def test_the_cascade_reads_as_the_functions_do() -> None:
    made = flex.attention(PRACTICE["window"][0], softcap)
    assert [n for n, _ in made.tensors] == ["WIDE", "CAP"]
    assert "p >= m and p - m <= WIDE[()]]" in str(made.cascade)
    assert "CAP[()] * tanh(S[b, h, p, m] / CAP[()])" in str(made.cascade)


def test_a_captured_number_that_changes_counts() -> None:
    width = torch.tensor(3)
    given = inputs()
    made = flex.attention(lambda b, h, q, kv: abs(q - kv) < width, backend="interpreter")
    before = made(*given)
    width.fill_(9)
    wanted = theirs(lambda b, h, q, kv: abs(q - kv) < 9, None, given)
    assert not torch.allclose(before, wanted)
    torch.testing.assert_close(made(*given), wanted, rtol=2e-6, atol=2e-6)


def test_a_tensor_that_is_longer_than_the_arguments() -> None:
    """As transformers makes masks for a whole cache."""
    given = [x[:, :, :30] for x in inputs()]
    mask = PRACTICE["documents"][0]
    assert mask is not None
    blocks = create_block_mask(mask, B, H, 30, 30, device="cpu", BLOCK_SIZE=16)
    wanted = flex_attention(*given, block_mask=blocks)
    found = flex.attention(mask, backend="interpreter")(*given)
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=2e-6)


def test_a_score_that_is_masked_skips_tiles_as_a_mask_does() -> None:
    made = flex.attention(None, PRACTICE["masked score"][1])
    lowered = made.compiled.lower(sizes={"e": 64, "f": 64}, target="sm_80")
    (loop,) = lowered.explain().kernels[0].loops
    assert loop.ranges[0].end == "min(size(m), p_last + 1)"


def test_gradients_reach_what_is_captured() -> None:
    table = TABLE.clone().requires_grad_()

    def relative(s: Any, b: Any, h: Any, q: Any, kv: Any) -> Any:
        return s + table[h, kv - q + N - 1]

    given = [x.requires_grad_() for x in inputs()]
    made = flex.attention(causal, relative, backend="interpreter")
    weights = torch.randn(B, H, N, 16, generator=torch.Generator().manual_seed(1))
    (made(*given) * weights).sum().backward()
    found = [x.grad for x in (*given, table)]
    for x in (*given, table):
        x.grad = None
    at = torch.arange(N)
    scores = given[0] @ given[1].mT / E**0.5 + table[:, at - at[:, None] + N - 1]
    scores = scores.masked_fill(at > at[:, None], MINUS)
    (scores.softmax(-1) @ given[2] * weights).sum().backward()
    for ours, x in zip(found, (*given, table), strict=True):
        torch.testing.assert_close(ours, x.grad, rtol=1e-5, atol=1e-5)


def test_a_block_mask_brings_its_own_function() -> None:
    blocks = create_block_mask(causal, B, H, N, N, device="cpu", BLOCK_SIZE=16)
    given = inputs()
    made = flex.attention(block_mask=blocks, backend="interpreter")
    wanted = flex_attention(*given, block_mask=blocks)
    torch.testing.assert_close(made(*given), wanted, rtol=2e-6, atol=2e-6)
    with pytest.raises(ValueError, match="its own"):
        flex.attention(causal, block_mask=blocks)


def test_a_kernel_of_functions_and_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    given = inputs(dtype=torch.float32)
    mask, score = PRACTICE["two of a kind"]
    made = flex.attention(mask, score, backend="triton", emitter="tl")
    wanted = einfall.interpret(made.cascade, *given, *(x for _, x in made.tensors))
    torch.testing.assert_close(
        made(*given), torch.as_tensor(wanted, dtype=torch.float32), rtol=2e-5, atol=2e-5
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
def test_labels_of_few_bits_are_counted_with_as_numbers(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """The notation has numbers, not bytes: twice 120 is 240, and a label may be divided."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    label = (torch.arange(N) * 3 % 121).to(dtype)

    def mask(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return (label[q] * 2 > label[kv] + 100) & (label[kv] // 2 ** (kv % 8) % 2 == 0)

    given = inputs(dtype=torch.float32)
    made = flex.attention(mask, lambda s, b, h, q, kv: s + label[kv] / 50, backend="triton")
    wanted = einfall.interpret(made.cascade, *given, label)
    torch.testing.assert_close(
        made(*given), torch.as_tensor(wanted, dtype=torch.float32), rtol=2e-5, atol=2e-5
    )
