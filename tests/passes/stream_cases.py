"""Cascades whose traversals are derived in tests: plain declarations, without hints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy

from einfall.ir.cascade import Cascade, Scalar
from einfall.ir.notation import cascade
from einfall.passes.flatten import flatten

SIZES = {"b": 2, "h": 2, "p": 3, "m": 7, "e": 4, "f": 3, "g": 3, "j": 3, "c": 2, "n": 7}


@dataclass(frozen=True)
class Case:
    """A declaration, the rank that streams, and what is expected of the state.

    fields : tensor, reducer and family of each accumulator, in order.
    shapes : shapes of inputs that are not named by their ranks in ``SIZES``.
    positive : inputs that are drawn above 0. spread : how large inputs are; where a result is a
    small difference of large sums, scores are kept apart from one-hot weights.
    """

    name: str
    text: str
    fields: tuple[tuple[str, str, str], ...]
    rank: str = "m"
    parameters: dict[str, Scalar] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    positive: tuple[str, ...] = ()
    spread: float = 2.0

    def flat(self) -> Cascade:
        """The declaration as the pass takes it."""
        return flatten(cascade(self.text))


def tensors(case: Case, flat: Cascade, seed: int, spread: float | None = None) -> dict[str, Any]:
    """Draw the inputs: normal numbers, positive ones where the case says so."""
    from einfall.ir.sizes import ranks_of

    draw = numpy.random.default_rng(seed)
    found = {}
    for name in flat.inputs:
        shape = case.shapes.get(name)
        if shape is None:
            shape = tuple(SIZES[r] for r in ranks_of(flat, name) if r is not None)
        values = (case.spread if spread is None else spread) * draw.standard_normal(shape)
        found[name] = numpy.abs(values) + 0.1 if name in case.positive else values
    return found


STABLE = """
def attention(Q, K, V):
    S[p, m{filter}] = Q[p, e] * K[m, e] / sqrt(size(e))
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    A[p, m] = N[p, m] / D[p]
    O[p, f] = A[p, m] * V[m, f]
    return {outputs}
"""

SOFTMAX = (("G", "max", "F0"), ("D", "sum", "F2"), ("O_sum", "sum", "F2"))

CASES: tuple[Case, ...] = (
    Case("attention", STABLE.format(filter="", outputs="O"), SOFTMAX),
    Case("lower triangle", STABLE.format(filter=": m <= p", outputs="O"), SOFTMAX),
    Case("rows without points", STABLE.format(filter=": m < p", outputs="O, D, G"), SOFTMAX),
    Case(
        "logarithm of the sum",
        """
def lse(Q, K, V):
    S[p, m: m < p] = Q[p, e] * K[m, e]
    G[p] = max[m](S[p, m])
    D[p] = sum[m](exp(S[p, m] - G[p]))
    L[p] = G[p] + log(D[p])
    A[p, m] = exp(S[p, m] - L[p])
    O[p, f] = A[p, m] * V[m, f]
    return O, L
""",
        (("G", "max", "F0"), ("D", "sum", "F2"), ("O_sum", "sum", "F2")),
    ),
    Case(
        "shorthand",
        """
def attention(Q, K, V):
    S[b, h, p, m: m <= p] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
""",
        (("A_G", "max", "F0"), ("A_D", "sum", "F2"), ("O_sum", "sum", "F2")),
    ),
    Case(
        "unscaled by a closed form",
        """
def one(Q, K, V):
    S[p, m] = Q[p, e] * K[m, e]
    O[p, f] = sum[m](softmax[m](S[p, m]) * V[m, f])
    return O
""",
        (("O_G", "max", "F0"), ("O_D", "sum", "F2"), ("O_sum", "sum", "F2")),
    ),
    Case(
        "a learned sink",
        """
def sinks(Q, K, V, Z):
    S[h, p, m: m < p] = Q[h, p, e] * K[h, m, e]
    M[h, p] = max[m](S[h, p, m])
    G[h, p] = max(M[h, p], Z[h])
    N[h, p, m] = exp(S[h, p, m] - G[h, p])
    D[h, p] = sum[m](N[h, p, m]) + exp(Z[h] - G[h, p])
    O[h, p, f] = sum[m](N[h, p, m] / D[h, p] * V[h, m, f])
    return O, D
""",
        (("M", "max", "F0"), ("D_sum", "sum", "F2"), ("O_sum", "sum", "F2")),
    ),
    Case(
        "a capped score",
        """
def capped(Q, K, V, cap=30.0):
    S[p, m: m <= p] = sum[e](Q[p, e] * K[m, e])
    C[p, m] = cap * tanh(S[p, m] / cap)
    A[p, m] = softmax[m](C[p, m])
    O[p, f] = A[p, m] * V[m, f]
    return O
""",
        (("A_G", "max", "F0"), ("A_D", "sum", "F2"), ("O_sum", "sum", "F2")),
    ),
    Case(
        "a linear bias",
        """
def biased(Q, K, V, slope):
    S[h, p, m: m <= p] = sum[e](Q[h, p, e] * K[h, m, e]) - slope[h] * (p - m)
    A[h, p, m] = softmax[m](S[h, p, m])
    O[h, p, f] = A[h, p, m] * V[h, m, f]
    return O
""",
        (("A_G", "max", "F0"), ("A_D", "sum", "F2"), ("O_sum", "sum", "F2")),
    ),
    Case(
        "a relative bias",
        """
def relative(Q, K, V, R):
    S[p, m: m <= p] = sum[e](Q[p, e] * K[m, e]) + sum[e](Q[p, e] * R[m - p + 6, e])
    A[p, m] = softmax[m](S[p, m])
    O[p, f] = A[p, m] * V[m, f]
    return O
""",
        (("A_G", "max", "F0"), ("A_D", "sum", "F2"), ("O_sum", "sum", "F2")),
        shapes={"R": (7, 4)},
    ),
    Case(
        "sigmoid weights",
        """
def sigmoids(Q, K, V):
    S[p, m: m <= p] = Q[p, e] * K[m, e]
    O[p, f] = sum[m](sigmoid(S[p, m] - log(size(m))) * V[m, f])
    return O
""",
        (("O", "sum", "F0"),),
    ),
    Case(
        "rectified weights, normalised",
        """
def relus(Q, K, V):
    N[p, m] = relu(sum[e](Q[p, e] * K[m, e]))
    D[p] = sum[m](N[p, m])
    O[p, f] = sum[m](N[p, m] / D[p] * V[m, f])
    return O
""",
        (("D", "sum", "F0"), ("O_sum", "sum", "F1")),
    ),
    Case(
        "weights of length one",
        """
def unit(Q, K, V):
    S[p, m] = Q[p, e] * K[m, e]
    A[p, m] = l2norm[m](S[p, m])
    O[p, f] = A[p, m] * V[m, f]
    return O
""",
        (("A_R", "sum", "F0"), ("O_sum", "sum", "F1")),
    ),
    Case(
        "scaled by the largest magnitude",
        """
def scaled(Q, K, V):
    S[p, m] = Q[p, e] * K[m, e]
    X[p] = max[m](abs(S[p, m]))
    A[p, m] = S[p, m] / X[p]
    O[p, f] = A[p, m] * V[m, f]
    return O
""",
        (("X", "max", "F0"), ("O_sum", "sum", "F1")),
    ),
    Case(
        "entropy",
        """
def entropy(Q, K):
    S[p, m: m <= p] = Q[p, e] * K[m, e]
    A[p, m] = softmax[m](S[p, m])
    H[p] = -sum[m](A[p, m] * log(A[p, m]))
    return H
""",
        (("A_G", "max", "F0"), ("A_D", "sum", "F2"), ("H_dot_sum", "sum", "F4")),
    ),
    Case(
        "entropy by logarithms of the sum",
        """
def entropy(Q, K):
    S[p, m] = Q[p, e] * K[m, e]
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    H[p] = log(D[p]) - sum[m](N[p, m] * (S[p, m] - G[p])) / D[p]
    return H
""",
        (("G", "max", "F0"), ("D", "sum", "F2"), ("H_dot", "sum", "F4")),
    ),
    Case(
        "mean and variance",
        """
def spread(Q, K):
    S[p, m: m <= p] = Q[p, e] * K[m, e]
    C[p] = sum[m](where(S[p, m] == S[p, m], 1, 0))
    M[p] = sum[m](S[p, m]) / C[p]
    W[p] = sum[m]((S[p, m] - M[p]) ** 2) / C[p]
    return M, W
""",
        (("C", "sum", "F0"), ("M_sum", "sum", "F0"), ("W_sum", "sum", "F4")),
    ),
    Case(
        "variance by the size",
        """
def spread(Q, K):
    S[p, m] = Q[p, e] * K[m, e]
    M[p] = sum[m](S[p, m]) / size(m)
    W[p] = sum[m]((S[p, m] - M[p]) ** 2) / size(m)
    return W
""",
        (("M_sum", "sum", "F0"), ("W_sum_count", "sum", "F1'"), ("W_sum_sum", "sum", "F4")),
    ),
    Case(
        "shorthand variance",
        """
def spread(Q, K):
    S[p, m] = Q[p, e] * K[m, e]
    W[p] = var[m](S[p, m])
    return W
""",
        (("W_T", "sum", "F0"), ("W_C", "sum", "F0"), ("W_T2", "sum", "F4")),
    ),
    Case(
        "third moment",
        """
def skew(X):
    T[p] = sum[m](X[p, m])
    C[p] = sum[m](where(True, 1, X[p, m]))
    M[p] = T[p] / C[p]
    W[p] = sum[m]((X[p, m] - M[p]) ** 2)
    Z[p] = sum[m]((X[p, m] - M[p]) ** 3) / C[p] / (W[p] / C[p]) ** 1.5
    return Z
""",
        (("C", "sum", "F0"), ("T", "sum", "F0"), ("W", "sum", "F4"), ("Z_sum", "sum", "F4")),
    ),
    Case(
        "spread of scores under the weights",
        """
def spread(S):
    A[p, m] = softmax[m](S[p, m])
    M[p] = sum[m](A[p, m] * S[p, m])
    W[p] = sum[m](A[p, m] * (S[p, m] - M[p]) ** 2)
    return W
""",
        (
            ("A_G", "max", "F0"),
            ("A_D", "sum", "F2"),
            ("M_sum", "sum", "F2"),
            ("W_sum", "sum", "F4"),
        ),
    ),
    Case(
        "differences of two",
        """
def differential(Q, K, R, L, V, lam=0.3):
    S[p, m: m <= p] = Q[p, e] * K[m, e]
    T[p, m: m <= p] = R[p, e] * L[m, e]
    A[p, m] = softmax[m](S[p, m])
    B[p, m] = softmax[m](T[p, m])
    O[p, f] = sum[m]((A[p, m] - lam * B[p, m]) * V[m, f])
    return O
""",
        (
            ("A_G", "max", "F0"),
            ("A_D", "sum", "F2"),
            ("B_G", "max", "F0"),
            ("B_D", "sum", "F2"),
            ("O_sum", "sum", "F2"),
            ("O_sum_2", "sum", "F2"),
        ),
    ),
    Case(
        "a state of keys and values",
        """
def linear(Q, K, V):
    Z[e, f] = sum[m](exp(K[m, e]) * V[m, f])
    Y[e] = sum[m](exp(K[m, e]))
    O[p, f] = sum[e](exp(Q[p, e]) * Z[e, f]) / sum[e](exp(Q[p, e]) * Y[e])
    return O
""",
        (("Z", "sum", "F0"), ("Y", "sum", "F0")),
    ),
    Case(
        "largest weight",
        """
def largest(S):
    X[p, m: m < p] = S[p, m]
    A[p, m] = softmax[m](X[p, m])
    W[p] = max[m](A[p, m])
    U[p] = max[m](X[p, m] * 2 - W[p])
    return W, U
""",
        (
            ("A_G", "max", "F0"),
            ("A_D", "sum", "F2"),
            ("W_max", "max", "F3"),
            ("U_max", "max", "F1"),
        ),
    ),
    Case(
        "two ranks under one maximum",
        """
def joint(S):
    G[p] = max[m, c](S[p, m, c])
    N[p, m, c] = exp(S[p, m, c] - G[p])
    D[p] = sum[m, c](N[p, m, c])
    P[p, c] = sum[m](N[p, m, c])
    O[p, c] = P[p, c] / D[p]
    return O
""",
        (("G", "max", "F0"), ("D", "sum", "F2"), ("P", "sum", "F2")),
    ),
    Case(
        "a maximum for each column",
        """
def columns(S):
    G[p, c] = max[m](S[p, m, c])
    D[p] = sum[m, c](exp(S[p, m, c] - G[p, c]))
    return D
""",
        (("G", "max", "F0"), ("D_sum", "sum", "F2")),
    ),
    Case(
        "two softmaxes under one divisor",
        """
def two(S, T, V, W):
    G[p] = max(max[m](S[p, m]), max[c](T[p, c]))
    N[p, m] = exp(S[p, m] - G[p])
    E[p, c] = exp(T[p, c] - G[p])
    D[p] = sum[m](N[p, m]) + sum[c](E[p, c])
    O[p, f] = sum[m](N[p, m] / D[p] * V[m, f]) + sum[c](E[p, c] / D[p] * W[c, f])
    return O
""",
        (("G_max", "max", "F0"), ("D_sum", "sum", "F2"), ("O_dot_sum", "sum", "F2")),
    ),
    Case(
        "features under one maximum",
        """
def features(Q, K, V):
    G[h] = max[m, e](K[h, m, e])
    N[h, m, e] = exp(K[h, m, e] - G[h])
    Z[h, e, f] = sum[m](N[h, m, e] * V[h, m, f])
    Y[h, e] = sum[m](N[h, m, e])
    O[h, p, f] = sum[e](Q[h, p, e] * Z[h, e, f]) / sum[e](Q[h, p, e] * Y[h, e])
    return O
""",
        (("G", "max", "F0"), ("Z", "sum", "F2"), ("Y", "sum", "F2")),
        positive=("Q",),
    ),
    Case(
        "sums over the other rank",
        """
def columns(Q, K):
    S[p, m: m <= p] = Q[p, e] * K[m, e]
    A[p, m] = softmax[m](S[p, m])
    C[m] = sum[p](A[p, m])
    return C
""",
        (("C", "sum", "F0"),),
        rank="p",
    ),
    Case(
        "entropy of rows without points",
        """
def entropy(Q, K):
    S[p, m: m < p] = Q[p, e] * K[m, e]
    A[p, m] = softmax[m](S[p, m])
    H[p] = -sum[m](A[p, m] * log(A[p, m]))
    return H
""",
        (("A_G", "max", "F0"), ("A_D", "sum", "F2"), ("H_dot_sum", "sum", "F4")),
    ),
    Case(
        "skewness under the weights",
        """
def skew(S):
    X[p, m: m != p] = S[p, m]
    A[p, m] = softmax[m](X[p, m])
    M[p] = sum[m](A[p, m] * X[p, m])
    Z[p] = sum[m](A[p, m] * (X[p, m] - M[p]) ** 3)
    return Z
""",
        (
            ("A_G", "max", "F0"),
            ("A_D", "sum", "F2"),
            ("M_sum", "sum", "F2"),
            ("Z_sum_2", "sum", "F4"),
            ("Z_sum", "sum", "F4"),
        ),
    ),
    Case(
        "products of two shifts",
        """
def covariance(X, Y):
    M[p] = sum[m](X[p, m]) / size(m)
    N[p] = sum[m](Y[p, m]) / size(m)
    C[p] = sum[m]((X[p, m] - M[p]) * (Y[p, m] - N[p])) / size(m)
    return C
""",
        (
            ("M_sum", "sum", "F1'"),
            ("N_sum", "sum", "F1'"),
            ("C_dot_sum", "sum", "F0"),
            ("C_dot_count", "sum", "F1'"),
        ),
    ),
    Case(
        "a choice inside the exponent",
        """
def chosen(S, V, R):
    G[p] = max[m](S[p, m])
    N[p, m] = where(R[m] > 0, exp(S[p, m] - G[p]), 0)
    D[p] = sum[m](N[p, m])
    O[p, f] = sum[m](N[p, m] / D[p] * V[m, f])
    return O
""",
        (("G", "max", "F0"), ("D", "sum", "F2"), ("O_sum", "sum", "F2")),
    ),
    Case(
        "filters on the weights",
        """
def filtered(S, V):
    G[p] = max[m](S[p, m])
    N[p, m: m <= p] = exp(S[p, m] - G[p])
    D[p] = sum[m: m != 1](N[p, m])
    A[p, m: m > 0] = N[p, m] / D[p]
    O[p, f] = sum[m](A[p, m] * V[m, f])
    C[p] = sum[m](A[p, m] - S[p, m] / D[p])
    return O, C
""",
        (
            ("G", "max", "F0"),
            ("D", "sum", "F2"),
            ("O_sum", "sum", "F2"),
            ("C_sum", "sum", "F2"),
            ("C_sum_2", "sum", "F1'"),
        ),
    ),
    Case(
        "gradients in one cascade",
        """
def backward(Q, K, V, U):
    S[p, m: m <= p] = Q[p, e] * K[m, e]
    A[p, m] = softmax[m](S[p, m])
    P[p, m] = U[p, f] * V[m, f]
    T[p] = sum[m](A[p, m] * P[p, m])
    Z[p, m] = A[p, m] * (P[p, m] - T[p])
    X[p, e] = sum[m](Z[p, m] * K[m, e])
    return X
""",
        (
            ("A_G", "max", "F0"),
            ("A_D", "sum", "F2"),
            ("T_sum", "sum", "F2"),
            ("X_sum", "sum", "F2"),
            ("X_sum_2", "sum", "F2"),
        ),
        spread=0.5,
    ),
    Case(
        "groups, each normalised",
        """
def groups(Q, K, L, V):
    S[p, m] = Q[p, e] * K[m, e]
    G[p, g] = max[m: m // 3 == g](S[p, m])
    N[p, m] = exp(S[p, m] - G[p, m // 3])
    D[p, g] = sum[m: m // 3 == g](N[p, m])
    R[p, g] = Q[p, e] * L[g, e]
    W[p, g] = softmax[g](R[p, g])
    O[p, f] = sum[m](N[p, m] / D[p, m // 3] * W[p, m // 3] * V[m, f])
    return O
""",
        (("W_G", "max", "F0"), ("W_D", "sum", "F2"), ("O_sum", "sum", "F7")),
    ),
    Case(
        "groups, split by hand",
        """
def groups(Q, K, L, V):
    S[p, g, j] = Q[p, e] * K[g, j, e]
    A[p, g, j] = softmax[j](S[p, g, j])
    R[p, g] = Q[p, e] * L[g, e]
    W[p, g] = softmax[g](R[p, g])
    O[p, f] = sum[g, j](A[p, g, j] * W[p, g] * V[g, j, f])
    return O
""",
        (("W_G", "max", "F0"), ("W_D", "sum", "F2"), ("O_sum", "sum", "F7")),
        rank="g",
    ),
    Case(
        "hidden factors",
        """
def hidden(S):
    G[p] = max[m](S[p, m])
    D[p] = sum[m]((S[p, m] ** 2 - G[p] ** 2) / (S[p, m] + G[p]))
    return D
""",
        (("G", "max", "F0"), ("D_sum", "sum", "F0"), ("D_count", "sum", "F1'")),
        positive=("S",),
    ),
    Case(
        "a wave around the mean",
        """
def waves(S):
    T[p] = sum[m](S[p, m])
    D[p] = sum[m](cos(S[p, m] - T[p]))
    return D
""",
        (("T", "sum", "F0"), ("D_sum", "sum", "F1'"), ("D_sum_2", "sum", "F1'")),
    ),
    Case(
        "base two",
        """
def two(S, V):
    G[p] = max[m](S[p, m])
    N[p, m] = exp2(S[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    A[p, m] = N[p, m] / D[p]
    H[p] = -sum[m](A[p, m] * log2(A[p, m])) * 0.6931471805599453
    O[p, f] = A[p, m] * V[m, f]
    return O, H
""",
        (
            ("G", "max", "F0"),
            ("D", "sum", "F2"),
            ("H_dot_sum", "sum", "F4"),
            ("O_sum", "sum", "F2"),
        ),
    ),
)
