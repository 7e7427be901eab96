"""What is stored for every pair of coordinates of two long ranks is said."""

from __future__ import annotations

import logging

import pytest
import torch

import einfall
from einfall import examples

SCORES = """
def scores(Q, K, V):
    S[b, h, p, m: m <= p] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O, A
"""


def tensors(n: int) -> list[torch.Tensor]:
    return [torch.empty(1, 2, n, 64, dtype=torch.float16, device="meta") for _ in "QKV"]


def test_returned_weights_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    f = einfall.compile(einfall.cascade(SCORES), backend="triton", target="sm_90")
    with caplog.at_level(logging.WARNING):
        lowered = f.lower(*tensors(4096))
    said = "A holds a number for every pair of p and m: 134 MB"
    assert said in " ".join(str(lowered.explain()).split())
    assert [r.getMessage() for r in caplog.records] == [
        f"scores: {said}, which grows with their product"
    ]
    caplog.clear()
    f.lower(*tensors(4096))
    assert not caplog.records


def test_nothing_else_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        f = einfall.compile(einfall.cascade(SCORES), backend="triton", target="sm_90")
        assert f.lower(*tensors(512)).explain().squares == ()
        g = einfall.compile(examples.causal, backend="triton", target="sm_90")
        assert g.lower(*tensors(4096)).explain().squares == ()
    assert not caplog.records


def test_a_matrix_as_large_as_an_input_is_none() -> None:
    c = einfall.cascade("def f(X):\n    Y[i, j] = exp(X[i, j])\n    return Y\n")
    f = einfall.compile(c, backend="triton", target="sm_90")
    x = torch.empty(4096, 4096, dtype=torch.float16, device="meta")
    assert f.lower(x).explain().squares == ()
