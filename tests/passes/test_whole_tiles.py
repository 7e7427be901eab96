"""Filters that every tile fills or leaves empty, so that no point of it is tested."""

from __future__ import annotations

import pytest

import einfall
from einfall.backends.lowered import Lowered

SIZES = {"b": 1, "h": 2, "p": 1024, "m": 1024, "e": 64, "f": 64}


def lowered(test: str) -> Lowered:
    cascade = einfall.cascade(f"""
def blocks(Q, K, V, Keep, *, s=256, B=128):
    S[b, h, p, m: {test}] = Q[b, h, p, e] * K[b, h, m, e]
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
""")
    f = einfall.compile(cascade, emitter="tl", target="sm_90", tiles={"p": 128, "m": 64})
    return f.lower(sizes=SIZES, dtypes={"Keep": "bool"})


@pytest.mark.parametrize(
    ("test", "whole"),
    (
        ("Keep[p // 128, m // 64]", True),
        ("Keep[p // s, m % s // B] or (p // 128 + m // 128) % 3 == 0", True),
        ("Keep[h, m // 64] and p // 128 != m // 128", True),
        ("Keep[p // 128, m // 32]", False),
        ("Keep[p // 64, m // 64]", False),
        ("Keep[p // 128, m % 96 // 64]", False),
        ("Keep[p // 128, m // 64] and m <= p", False),
    ),
)
def test_points_are_tested_unless_tiles_are_whole(test: str, whole: bool) -> None:
    assert ("Keep" not in lowered(test).kernels[-1].reads) == whole
