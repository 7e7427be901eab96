"""Mask functions of other libraries as filters: the same points, found by calling them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall.backends.trace_filter import block_filter, trace_filter

B, H, P, M = 2, 4, 17, 17
DOC = torch.tensor([[k // 5 for k in range(M)], [k * k % 3 for k in range(M)]], dtype=torch.int32)
LENGTH = torch.tensor([9, 17], dtype=torch.int32)
KEEP = torch.rand(H, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.5
W = torch.tensor(4)

MASKS: dict[str, tuple[Callable[..., Any], str]] = {
    "causal": (lambda b, h, q, kv: q >= kv, "p >= m"),
    "window": (lambda b, h, q, kv: (q >= kv) & (q - kv < W), "p >= m and p - m < W[()]"),
    "prefix": (
        lambda b, h, q, kv: (kv < LENGTH[b]) | (q >= kv),
        "m < LENGTH[b] or p >= m",
    ),
    "documents": (
        lambda b, h, q, kv: (DOC[b, q] == DOC[b, kv]) & ~(kv > q),
        "DOC[b, p] == DOC[b, m] and not m > p",
    ),
    "heads": (
        lambda b, h, q, kv: torch.where(h % 2 == 0, abs(q - kv) <= 2, KEEP[h, q // 6, kv // 6]),
        "where(h % 2 == 0, abs(p - m) <= 2, KEEP[h, p // 6, m // 6])",
    ),
    "two": (
        lambda b, h, q, kv: torch.logical_and(5 > q - kv, kv < LENGTH[b]) & (DOC[b, q] >= 0),
        "(p - m < 5 and m < LENGTH[b]) and DOC[b, p] >= 0",
    ),
    "all": (lambda b, h, q, kv: True, "True"),
}


@pytest.mark.parametrize("name", MASKS)
def test_the_filter_keeps_the_points_that_the_function_keeps(name: str) -> None:
    mask_mod, text = MASKS[name]
    filter = trace_filter(mask_mod)
    assert str(filter) == text
    names = ", ".join(["X", *(n for n, _ in filter.tensors)])
    c = einfall.cascade(
        f"def f({names}):\n    Y[b, h, p, m: {filter}] = X[b, h, p, m]\n    return Y"
    )
    ones = torch.ones(B, H, P, M)
    found = np.asarray(einfall.interpret(c, ones, *(t for _, t in filter.tensors)))
    for (b, h, q, kv), kept in np.ndenumerate(found):
        at = (torch.tensor(x) for x in (b, h, q, kv))
        assert bool(mask_mod(*at)) == bool(kept), (b, h, q, kv)


def test_what_no_filter_says_is_refused() -> None:
    def branches(b: Any, h: Any, q: Any, kv: Any) -> Any:
        return q >= kv if h > 1 else True

    for function, word in (
        (branches, "torch.where"),
        (lambda b, h, q, kv: torch.lgamma(q) > kv, "lgamma"),
        (lambda b, h, q, kv: DOC[b] == kv, "one for each"),
        (lambda b, h, q, kv: q >= DOC, "combines"),
    ):
        with pytest.raises(einfall.BackendError, match=word):
            trace_filter(function)


def test_a_callable_object_names_its_tensors_in_order() -> None:
    class Mask:
        doc, length = DOC.clone(), LENGTH.clone()

        def __call__(self, b: Any, h: Any, q: Any, kv: Any) -> Any:
            return (self.doc[b, q] == self.doc[b, kv]) & (kv < self.length[b])

    filter = trace_filter(Mask(), ranks=("x", "y", "i", "j"))
    assert str(filter) == "captured_1[x, i] == captured_1[x, j] and j < captured_2[x]"
    assert [n for n, _ in filter.tensors] == ["captured_1", "captured_2"]


@pytest.mark.parametrize("masked", [True, False])
def test_a_block_mask_is_its_blocks_and_its_function(masked: bool) -> None:
    from torch.nn.attention.flex_attention import BlockMask

    kept = torch.rand(1, H, 3, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    count = kept.sum(-1, dtype=torch.int32)
    index = torch.argsort(~kept, dim=-1, stable=True).to(torch.int32)
    mask_mod = MASKS["causal"][0] if masked else None
    blocks = BlockMask.from_kv_blocks(count, index, BLOCK_SIZE=(16, 8), mask_mod=mask_mod)
    filter = block_filter(blocks)
    assert str(filter) == "Keep[0, h, p // 16, m // 8]" + (" and p >= m" if masked else "")
    body = f"    Y[b, h, p, m: {filter}] = X[b, h, p, m]\n    return Y\n"
    c = einfall.cascade(f"def f(X, Keep):\n{body}")
    found = np.asarray(
        einfall.interpret(c, torch.ones(B, H, 48, 40), *(t for _, t in filter.tensors))
    )
    dense = kept.repeat_interleave(16, 2).repeat_interleave(8, 3).numpy()
    if masked:
        dense = dense & (np.arange(48)[:, None] >= np.arange(40))
    assert (found == np.broadcast_to(dense, found.shape)).all()


def test_an_error_shows_the_line_and_what_to_write() -> None:
    def branches(b: Any, h: Any, q: Any, kv: Any) -> Any:
        if q > 3:
            return kv > 2
        return q >= kv

    with pytest.raises(einfall.BackendError) as error:
        trace_filter(branches)
    said = str(error.value).splitlines()
    assert "torch.where" in said[0]
    assert "test_trace_filter.py" in said[1] and said[1].endswith("in branches")
    assert said[2].strip() == "if q > 3:"
    assert said[3].strip() == "^^^^^"


def test_numbers_and_truth_values_are_told_apart() -> None:
    told: dict[Callable[..., Any], str] = {
        lambda b, h, q, kv: (q & 3) == (kv >> 1): "p % 4 == m // 2",
        lambda b, h, q, kv: (q >= kv).int() + 1 > KEEP[0, q // 6, 0]: (
            "where(p >= m, 1, 0) + 1 > where(KEEP[0, p // 6, 0], 1, 0)"
        ),
        lambda b, h, q, kv: (q / 2).long() == kv: (
            "where(p / 2 < 0, ceil(p / 2), floor(p / 2)) == m"
        ),
        lambda b, h, q, kv: DOC[b][q] * 2: "DOC[b, p] * 2 != 0",
        lambda b, h, q, kv: LENGTH[-1] > kv: "LENGTH[1] > m",
        lambda b, h, q, kv: torch.tensor(3) + W < q: "3 + W[()] < p",
        lambda b, h, q, kv: (q > 1) ^ (kv > 2): "(p > 1) != (m > 2)",
        lambda b, h, q, kv: torch.div(q, 2, rounding_mode="floor") <= kv: "p // 2 <= m",
    }
    for function, text in told.items():
        assert str(trace_filter(function)) == text
    with pytest.raises(einfall.BackendError, match="& of numbers"):
        trace_filter(lambda b, h, q, kv: (q & kv) == 0)
    with pytest.raises(einfall.BackendError, match="one for each"):
        trace_filter(lambda b, h, q, kv: DOC[b, q, kv])
    with pytest.raises(einfall.BackendError, match="is a float"):
        trace_filter(lambda b, h, q, kv: DOC[b, q / 2] == 1)


def test_names_are_found_in_closures_modules_and_methods() -> None:
    class Layer(torch.nn.Module):
        spans: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("spans", LENGTH)

        def keep(self, b: Any, h: Any, q: Any, kv: Any) -> Any:
            return q - kv < self.spans[b]

    def both(*functions: Callable[..., Any]) -> Callable[..., Any]:
        again = [*functions]

        def mask_mod(b: Any, h: Any, q: Any, kv: Any) -> Any:
            return again[0](b, h, q, kv) & again[1](b, h, q, kv)

        return mask_mod

    LABEL = DOC.clone()
    made = both(Layer().keep, lambda b, h, q, kv: LABEL[b, q] == DOC[b, kv])
    filter = trace_filter(made)
    assert str(filter) == "p - m < spans[b] and LABEL[b, p] == DOC[b, m]"
    assert str(trace_filter(made, ranks=("spans", "h", "p", "m"))).startswith("p - m < spans_2[")


def test_mask_functions_of_transformers() -> None:
    from transformers import masking_utils as theirs

    seen = torch.ones(B, M, dtype=torch.bool)
    left = torch.tensor([0, 3])
    causal = theirs.causal_mask_function
    packed = theirs.packed_sequence_mask_function(DOC)
    told = {
        theirs.sliding_window_causal_mask_function(7): "m > p - 7 and m <= p",
        theirs.chunked_causal_mask_function(5, left): (
            "(m - left_padding[b]) // 5 == (p - left_padding[b]) // 5 and m <= p"
        ),
        theirs.and_masks(causal, theirs.padding_mask_function(seen), packed): (
            "(m <= p and padding_mask[b, m])"
            " and packed_sequence_mask[b, p] == packed_sequence_mask[b, m]"
        ),
        theirs.or_masks(causal, theirs.blockwise_overlay(DOC)): (
            "m <= p or block_sequence_ids[b, p] == block_sequence_ids[b, m]"
            " and block_sequence_ids[b, p] >= 0"
        ),
        theirs.add_offsets_to_mask_function(causal, 5, 0): "m + 0 <= p + 5",
    }
    for function, text in told.items():
        assert str(trace_filter(function)) == text


def test_full_blocks_are_taken_whole() -> None:
    """FlexAttention asks no mask function in a block that is listed as full."""
    from torch.nn.attention.flex_attention import BlockMask

    one, first, second = (
        torch.tensor(x, dtype=torch.int32)[None, None]
        for x in ([1, 1], [[0, 1], [1, 0]], [[1, 0], [0, 1]])
    )
    blocks = BlockMask.from_kv_blocks(
        one, first, one, second, BLOCK_SIZE=8, mask_mod=MASKS["causal"][0], seq_lengths=(13, 15)
    )
    filter = block_filter(blocks)
    assert str(filter) == (
        "Keep_full[0, 0, p // 8, m // 8] or Keep[0, 0, p // 8, m // 8] and p >= m"
    )
    at = dict(filter.tensors)
    assert at["Keep_full"][0, 0].tolist() == [[False, True], [True, False]]
    assert at["Keep"][0, 0].tolist() == [[True, False], [False, True]]
