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
    "window": (lambda b, h, q, kv: (q >= kv) & (q - kv < W), "p >= m and p - m < 4"),
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
        (lambda b, h, q, kv: torch.sin(q) > kv, "sin"),
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
