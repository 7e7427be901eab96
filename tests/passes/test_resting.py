"""Frames that may rest: by which accumulator it is told, and where a frame has to move."""

from __future__ import annotations

import pytest

import einfall
from einfall import examples
from einfall.ir.cascade import Cascade
from einfall.ir.notation import cascade
from einfall.passes.resting import resting

SOFTMAX = """
def f(Q, K, V):
    S[p, m] = Q[p, e] * K[m, e]
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    {body}
"""
BODIES = {
    "both frames give the quotient": ("O[p, f] = N[p, m] * V[m, f] / D[p]\n    return O", ("D",)),
    "and the norm": (
        "O[p, f] = N[p, m] * V[m, f] / D[p]\n    L[p] = log(D[p]) + G[p]\n    return O, L",
        ("D",),
    ),
    "the norm in steps": (
        "O[p, f] = N[p, m] * V[m, f] / D[p]\n    X[p] = log(D[p])\n    L[p] = X[p] + G[p]\n"
        "    return O, L",
        ("D",),
    ),
    "the frame is a result": ("O[p, f] = N[p, m] * V[m, f] / D[p]\n    return O, G", ()),
    "a result is in the frame": ("O[p, f] = N[p, m] * V[m, f]\n    return O", ()),
    "two weights, each summed": (
        "O[p, f] = N[p, m] * V[m, f] / D[p]\n    X[p] = sum[m](exp(3 * S[p, m] - 3 * G[p]))\n"
        "    R[p] = X[p] / (D[p] * D[p] * D[p])\n    return O, R",
        ("D", "X"),
    ),
    "a weight that nothing sums": (
        "O[p, f] = N[p, m] * V[m, f] / D[p]\n"
        "    X[p, f] = exp(3 * S[p, m] - 3 * G[p]) * V[m, f]\n"
        "    R[p, f] = X[p, f] / (D[p] * D[p] * D[p])\n    return O, R",
        (),
    ),
    "the frame counts twice": (
        "O[p, f] = N[p, m] * V[m, f] / D[p]\n    L[p] = log(D[p]) + 2 * G[p]\n    return O, L",
        (),
    ),
}


def found(declared: Cascade) -> tuple[str, ...]:
    lowered = einfall.compile(declared, target="sm_90", parts={"m": 1}).lower(
        sizes={"e": 64, "f": 64}
    )
    (kernel,) = lowered.mapping.kernels
    return resting(kernel)


@pytest.mark.parametrize("name", BODIES)
def test_frames_rest_where_no_result_tells_which_they_are(name: str) -> None:
    body, expected = BODIES[name]
    assert found(cascade(SOFTMAX.format(body=body))) == expected


EXAMPLES = {
    "causal_lse": ("D",),
    "alibi": ("A_D",),
    "differential": ("A1_D", "A2_D"),
    "entropy": ("D",),  # of which one accumulator reads the frame besides
    "sigmoid": (),  # there is no frame
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str) -> None:
    assert found(getattr(examples, name)) == EXAMPLES[name]
