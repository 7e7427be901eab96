"""Stabilise: frames put in and taken away, with every output as it was."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy
import pytest

from einfall.backends.interpreter import interpret
from einfall.ir.axes import ranks_of
from einfall.ir.cascade import Cascade
from einfall.ir.notation import cascade
from einfall.ir.streaming import Streaming
from einfall.ir.verify import verify
from einfall.passes.flatten import flatten
from einfall.passes.ranges import ranges
from einfall.passes.stabilise import stabilise
from einfall.passes.stream import stream

SIZES = {"h": 2, "p": 3, "m": 7, "e": 4, "f": 3, "c": 2}


def read(text: str) -> Cascade:
    return flatten(cascade("def f" + text.strip() + "\n"))


def inputs(flat: Cascade, spread: float) -> list[Any]:
    draw = numpy.random.default_rng(7)
    shapes = [tuple(SIZES[r] for r in ranks_of(flat, n) if r is not None) for n in flat.inputs]
    return [spread * draw.standard_normal(shape) for shape in shapes]


def assert_equal(one: Cascade, two: Cascade, spread: float = 1.5) -> None:
    """Both give the same outputs, to the last digits, infinities included."""
    arrays = inputs(one, spread)
    left, right = interpret(one, *arrays), interpret(two, *arrays)
    left = left if isinstance(left, tuple) else (left,)
    right = right if isinstance(right, tuple) else (right,)
    for x, y in zip(left, right, strict=True):
        numpy.testing.assert_allclose(y, x, rtol=1e-12, atol=1e-14)


CASES: dict[str, tuple[str, str]] = {
    "the docstring": (
        """(S, V):
    N[p, m] = exp(S[p, m])
    D[p]    = sum[m](N[p, m])
    U[p, f] = sum[m](N[p, m] * V[m, f])
    O[p, f] = U[p, f] / D[p]
    L[p]    = log(D[p])
    return O, L""",
        """
    S_max[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - S_max[p])
    D[p] = sum[m](N[p, m])
    U[p, f] = sum[m](N[p, m] * V[m, f])
    O[p, f] = U[p, f] / D[p]
    L_framed[p] = log(D[p])
    L[p] = L_framed[p] + S_max[p]
    return O, L""",
    ),
    "a logarithm of each point": (
        """(S, V):
    A[p, m] = log(1 + exp(S[p, m]))
    O[p, f] = sum[m](A[p, m] * V[m, f])
    return O""",
        """
    S_max[p, m] = max(S[p, m], 0)
    A[p, m] = log(exp(-S_max[p, m]) + exp(S[p, m] - S_max[p, m]))
    O[p, f] = sum[m]((A[p, m] + S_max[p, m]) * V[m, f])
    return O""",
    ),
    "rows without points, and the sum itself": (
        """(S, V):
    X[p, m: m < p] = S[p, m] * 2
    N[p, m] = exp(X[p, m])
    D[p] = sum[m](N[p, m])
    O[p, f] = sum[m](N[p, m] / D[p] * V[m, f])
    return O, D""",
        """
    X[p, m: m < p] = S[p, m] * 2
    X_max[p] = max[m](X[p, m])
    N[p, m] = exp(X[p, m] - X_max[p])
    D_framed[p] = sum[m](N[p, m])
    D[p] = D_framed[p] * exp(X_max[p])
    O[p, f] = sum[m](N[p, m] / D_framed[p] * V[m, f])
    return O, D""",
    ),
    "a filter on the sums": (
        """(S, V):
    U[p, f] = sum[m: m <= p](exp(S[p, m]) * V[m, f])
    D[p] = sum[m: m <= p](exp(S[p, m]))
    O[p, f] = U[p, f] / D[p]
    return O""",
        """
    S_max[p] = max[m: m <= p](S[p, m])
    U[p, f] = sum[m: m <= p](exp(S[p, m] - S_max[p]) * V[m, f])
    D[p] = sum[m: m <= p](exp(S[p, m] - S_max[p]))
    O[p, f] = U[p, f] / D[p]
    return O""",
    ),
    "another exponential in the sum": (
        """(S, V, Z):
    D[h, p] = sum[m](exp(S[h, p, m])) + exp(Z[h])
    U[h, p, f] = sum[m](exp(S[h, p, m]) * V[m, f])
    O[h, p, f] = U[h, p, f] / D[h, p]
    return O""",
        """
    S_max_part[h, p] = max[m](S[h, p, m])
    S_max[h, p] = max(S_max_part[h, p], Z[h])
    D_sum[h, p] = sum[m](exp(S[h, p, m] - S_max[h, p]))
    D[h, p] = D_sum[h, p] + exp(Z[h] - S_max[h, p])
    U[h, p, f] = sum[m](exp(S[h, p, m] - S_max[h, p]) * V[m, f])
    O[h, p, f] = U[h, p, f] / D[h, p]
    return O""",
    ),
    "a number in the sum": (
        """(S, V):
    D[p] = 1 + sum[m](exp2(S[p, m]))
    U[p, f] = sum[m](exp2(S[p, m]) * V[m, f])
    O[p, f] = U[p, f] / D[p]
    return O""",
        """
    S_max_part[p] = max[m](S[p, m])
    S_max[p] = max(S_max_part[p], 0)
    D_sum[p] = sum[m](exp2(S[p, m] - S_max[p]))
    D[p] = exp2(-S_max[p]) + D_sum[p]
    U[p, f] = sum[m](exp2(S[p, m] - S_max[p]) * V[m, f])
    O[p, f] = U[p, f] / D[p]
    return O""",
    ),
    "two ranks under one divisor": (
        """(S, T, V):
    D[p] = sum[m](exp(S[p, m])) + sum[c](exp(T[p, c]))
    U[p, f] = sum[m](exp(S[p, m]) * V[m, f])
    O[p, f] = U[p, f] / D[p]
    return O""",
        """
    S_max_part[p] = max[m](S[p, m])
    S_max_part_2[p] = max[c](T[p, c])
    S_max[p] = max(S_max_part[p], S_max_part_2[p])
    D_sum[p] = sum[m](exp(S[p, m] - S_max[p]))
    D_sum_2[p] = sum[c](exp(T[p, c] - S_max[p]))
    D[p] = D_sum[p] + D_sum_2[p]
    U[p, f] = sum[m](exp(S[p, m] - S_max[p]) * V[m, f])
    O[p, f] = U[p, f] / D[p]
    return O""",
    ),
    "weights from the logarithm of the sum": (
        """(S):
    D[p] = sum[m](exp(S[p, m]))
    A[p, m] = exp(S[p, m] - log(D[p]))
    C[m] = sum[p](A[p, m])
    return C""",
        """
    S_max[p] = max[m](S[p, m])
    D[p] = sum[m](exp(S[p, m] - S_max[p]))
    A[p, m] = exp(S[p, m] - S_max[p] - log(D[p]))
    C[m] = sum[p](A[p, m])
    return C""",
    ),
    "base two of a natural exponential": (
        """(S):
    D[p] = sum[m](exp(S[p, m]))
    A[p, m] = exp(S[p, m]) / D[p]
    C[m] = sum[p](A[p, m])
    L[p] = log2(D[p])
    return C, L""",
        """
    S_max[p] = max[m](S[p, m])
    D[p] = sum[m](exp(S[p, m] - S_max[p]))
    A[p, m] = exp(S[p, m] - S_max[p]) / D[p]
    C[m] = sum[p](A[p, m])
    L_framed[p] = log2(D[p])
    L[p] = L_framed[p] + 1.4426950408889634 * S_max[p]
    return C, L""",
    ),
    "a needless frame": (
        """(S, V):
    X[p, m] = 5 * tanh(S[p, m] / 5)
    G[p] = max[m](X[p, m])
    N[p, m] = exp(X[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    L[p] = G[p] + log(D[p])
    O[p, f] = sum[m](N[p, m] / D[p] * V[m, f])
    return O, L""",
        """
    X[p, m] = 5 * tanh(S[p, m] / 5)
    N[p, m] = exp(X[p, m])
    D[p] = sum[m](N[p, m])
    L[p] = log(D[p])
    O[p, f] = sum[m](N[p, m] / D[p] * V[m, f])
    return O, L""",
    ),
    "a frame that is needless but wanted": (
        """(S, V):
    X[p, m] = sigmoid(S[p, m])
    G[p] = max[m](X[p, m])
    N[p, m] = exp(X[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    O[p, f] = sum[m](N[p, m] / D[p] * V[m, f])
    return O, G""",
        """
    X[p, m] = sigmoid(S[p, m])
    G[p] = max[m](X[p, m])
    N[p, m] = exp(X[p, m])
    D[p] = sum[m](N[p, m])
    O[p, f] = sum[m](N[p, m] / D[p] * V[m, f])
    return O, G""",
    ),
}


@pytest.mark.parametrize("name", list(CASES))
def test_rewrite(name: str) -> None:
    before, after = CASES[name]
    flat = read(before)
    found = stabilise(flat)
    expected = f"def f{before.strip().splitlines()[0].rstrip()}{after}"
    assert str(found).strip() == expected
    verify(found)
    assert_equal(flat, found)


UNTOUCHED = {
    "framed already": """(S, V):
    A[p, m] = softmax[m](S[p, m])
    O[p, f] = sum[m](A[p, m] * V[m, f])
    H[p] = sum[m](A[p, m] * log(A[p, m]))
    return O, H""",
    "framed with another exponential": """(S, V, Z):
    G[p] = max(max[m](S[p, m]), Z[p])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = sum[m](N[p, m]) + exp(Z[p] - G[p])
    O[p, f] = sum[m](N[p, m] / D[p] * V[m, f])
    return O""",
    "framed under a filter": """(S, V):
    G[p] = max[m: m <= p](S[p, m])
    D[p] = sum[m: m <= p](exp(S[p, m] - G[p]))
    O[p, f] = sum[m: m <= p](exp(S[p, m] - G[p]) * V[m, f] / D[p])
    return O""",
    "never normalised": """(S, L, K):
    A[p, m] = exp(S[p, m] - L[p])
    O[p, e] = sum[m](A[p, m] * K[m, e])
    return O""",
    "normalised at another rank": """(Q, K, V):
    Z[e, f] = sum[m](exp(K[m, e]) * V[m, f])
    Y[e] = sum[m](exp(K[m, e]))
    U[p, f] = sum[e](Q[p, e] * Z[e, f])
    W[p] = sum[e](Q[p, e] * Y[e])
    O[p, f] = U[p, f] / W[p]
    return O""",
    "bounded": """(S):
    N[p, m] = exp(cos(S[p, m]))
    D[p] = sum[m](N[p, m])
    C[m] = sum[p](N[p, m] / D[p])
    return C""",
    "no exponential": """(S):
    D[p] = sum[m](S[p, m])
    C[m] = sum[p](S[p, m] / D[p])
    return C""",
}


@pytest.mark.parametrize("name", list(UNTOUCHED))
def test_unchanged_and_identical(name: str) -> None:
    flat = read(UNTOUCHED[name])
    assert stabilise(flat) is flat


def test_stable_again_is_the_same() -> None:
    for before, _ in CASES.values():
        found = stabilise(read(before))
        assert stabilise(found) is found


def test_overflow_is_gone() -> None:
    """What overflows in float64 before does not after, and agrees with the stable declaration."""
    flat = read("""(S, V):
    N[p, m] = exp(S[p, m])
    D[p] = sum[m](N[p, m])
    O[p, f] = sum[m](N[p, m] / D[p] * V[m, f])
    return O""")
    stable = read("""(S, V):
    A[p, m] = softmax[m](S[p, m])
    O[p, f] = A[p, m] * V[m, f]
    return O""")
    arrays = inputs(flat, 2000.0)
    with numpy.errstate(all="ignore"):
        assert not numpy.isfinite(interpret(flat, *arrays)).all()
    numpy.testing.assert_allclose(
        interpret(stabilise(flat), *arrays), interpret(stable, *arrays), rtol=1e-12
    )


COSINE = """(Q, K, V, scale=4.0):
    X[p, e] = l2norm[e](Q[p, e])
    R[m] = sum[e](K[m, e] * K[m, e])
    Y[m, e] = K[m, e] / max(sqrt(R[m]), 0.001)
    S[p, m] = sum[e](X[p, e] * Y[m, e]) * scale
    A[p, m] = softmax[m](S[p, m])
    O[p, f] = A[p, m] * V[m, f]
    return O"""


def test_lengths_bound_an_inner_product() -> None:
    flat = read(COSINE)
    assert stabilise(flat) is flat, "a default is no known value"
    found = stabilise(flat, parameters={"scale": 4.0})
    assert "max[m]" not in str(found) and "max[m]" in str(flat)
    assert_equal(flat, found)
    assert stabilise(flat, parameters={"scale": 9.0}) is flat
    wide = stabilise(flat, parameters={"scale": 9.0}, static=60.0)
    assert "max[m]" not in str(wide)


def test_bounds() -> None:
    flat = read(
        """(S, T, k):
    A[p, m] = k * tanh(S[p, m])
    B[p, m] = relu(S[p, m]) / (1 + S[p, m] * S[p, m])
    C[p, m] = where(m < 3, sigmoid(S[p, m]), -2)
    D[p] = max[m](C[p, m])
    E[p] = sum[m](B[p, m])
    F[p] = sum[m](C[p, m])
    G[p] = sum[m](T[p, m])
    return A, D, E, F, G""".replace("T, k", "T, *, k=3.0")
    )
    known = ranges(flat, parameters={"k": 3.0}, sizes={"m": 10})
    assert known.of_tensor("A") == (-3.0, 3.0)
    assert known.of_tensor("B") == (0, inf)
    low, high = known.of_tensor("C")
    assert (low, round(high, 6)) == (-2, 1)
    assert known.of_tensor("D")[0] == -inf
    assert known.of_tensor("E") == (0, inf)
    assert [round(x, 6) for x in known.of_tensor("F")] == [-20, 10]
    assert known.of_tensor("G") == (-inf, inf)
    assert ranges(flat).of_tensor("A") == (-inf, inf)


def test_the_naive_form_streams_like_the_stable_one() -> None:
    flat = read("""(Q, K, V):
    S[p, m: m <= p] = sum[e](Q[p, e] * K[m, e])
    N[p, m] = exp(S[p, m])
    D[p] = sum[m](N[p, m])
    A[p, m] = N[p, m] / D[p]
    O[p, f] = sum[m](A[p, m] * V[m, f])
    return O""")
    unframed, framed = stream(flat, rank="m"), stream(stabilise(flat), rank="m")
    assert isinstance(unframed, Streaming) and isinstance(framed, Streaming)
    assert [f.family for f in unframed.fields] == ["F0", "F1"]
    assert [(f.tensor, f.family) for f in framed.fields] == [
        ("S_max", "F0"),
        ("D", "F2"),
        ("O_sum", "F2"),
    ]
