"""Weighted sums whose traversals are derived: one state or several, filters, groups."""

from __future__ import annotations

from tests.passes.stream_cases import Case

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

WEIGHTED: tuple[Case, ...] = (
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
)
