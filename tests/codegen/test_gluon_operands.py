"""Operands of Gluon's products: of one tensor in two roles, and numbers that were counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import einfall

from .kernel_cases import outputs, relative
from .test_gluon import run

SHARED = """
def shared(X, V):
    S[b, h, p, m: m < p] = X[b, h, p, e] * X[b, h, m, e] / sqrt(size(e))
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""
PACKED = """
def packed(X):
    S[b, h, p, m: m <= p] = X[b, p, 0, h, e] * X[b, m, 1, h, e] / sqrt(size(e))
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, p, h, e] = sum[m](A[b, h, p, m] * X[b, m, 2, h, e])
    return O
"""
COUNTED = """
def counted(Q, K, V):
    S[b, h, p, m: m <= p] = Q[b, h, p, e] * K[b, h, m, e]
    T[b, h, p, m] = where(S[b, h, p, m] > 0, 1, 0)
    O[b, h, p, f] = sum[m](T[b, h, p, m] * V[b, h, m, f]) / size(m)
    return O
"""
ROWS = (1, 2, 200, 64)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [(SHARED, (ROWS, ROWS)), (PACKED, ((1, 200, 3, 2, 64),)), (COUNTED, (ROWS, ROWS, ROWS))],
    ids=["shared", "packed", "counted"],
)
def test_operands(text: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    c = einfall.cascade(text)
    draw = np.random.default_rng(3)
    tensors = [torch.from_numpy(draw.standard_normal(s)).half() for s in shapes]
    f = einfall.compile(c, emitter="gluon", target="sm_90", parts={}, tiles={"m": 128})
    found = f.lower(*tensors)
    truth = outputs(einfall.interpret(c, *tensors))
    for x, expected in zip(run(found, tensors, {}, programs=2), truth, strict=True):
        assert relative(x, expected) < 2e-3
    if text is not COUNTED:
        boxes = [a.block for a in found.kernels[0].arguments if a.name in ("X_m_box", "X_p_box")]
        assert len(set(boxes)) == 2


def test_a_number_of_64_bits_is_left_to_triton() -> None:
    big = torch.empty(4, 16, 2048, 64, dtype=torch.float16, device="meta")
    f = einfall.compile(einfall.examples.sliding_window, target="sm_90", emitter="gluon")
    with pytest.raises(einfall.BackendError, match="takes 64 bits"):
        f.lower(big, big, big, W=2**40)


def test_marks_of_tiles_ask_for_their_last_coordinates() -> None:
    c = einfall.cascade("""
def drawn(Q, K, V):
    S[b, h, p, m: m <= p and random(b, h, p, m, 17) > 0.3] = Q[b, h, p, e] * K[b, h, m, e]
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
""")
    big = torch.empty(1, 3, 2049, 64, dtype=torch.float16, device="meta")
    found = einfall.compile(c, target="sm_90", emitter="gluon").lower(big, big, big)
    assert "m_lasts = " in found.kernels[0].text
