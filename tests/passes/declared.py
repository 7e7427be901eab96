"""Declared cascades, flat, for tests of passes: as users write them once they are flattened."""

from __future__ import annotations

from typing import Any

import numpy

THREE_TRAVERSALS = """
def attention(Q, K, V):
    T[p, m] = sum[e](Q[p, e] * K[m, e])
    S[p, m: m <= p + 1] = T[p, m] / sqrt(size(e))
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    A[p, m] = N[p, m] / D[p]
    O[p, f] = sum[m](A[p, m] * V[m, f])
    L[p] = G[p] + log(D[p])
    return O, L
"""

UNSTABILISED = """
def attention(Q, K, V, *, scale=0.5):
    T[p, m] = sum[e](Q[p, e] * K[m, e] * scale)
    N[p, m: p - 2 <= m and m <= p] = exp(T[p, m])
    D[p] = sum[m](N[p, m])
    A[p, m] = N[p, m] / D[p]
    O[p, f] = sum[m](A[p, m] * V[m, f])
    return O
"""

SCORES_RETURNED = """
def attention(Q, K, V, *, scale=0.5):
    T[p, m] = sum[e](Q[p, e] * K[m, e])
    S[p, m: m <= p] = T[p, m] * scale
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    O_sum[p, f] = sum[m](N[p, m] * V[m, f])
    O[p, f] = O_sum[p, f] / D[p]
    return O, S, G
"""

EMPTY_ROWS = """
def attention(Q, K, V, length):
    T[b, p, m] = sum[e](Q[b, p, e] * K[b, m, e])
    S[b, p, m: m < length[b] and m < 2 * p] = T[b, p, m] * 0.5
    G[b, p] = max[m](S[b, p, m])
    N[b, p, m] = exp(S[b, p, m] - G[b, p])
    D[b, p] = sum[m](N[b, p, m])
    A[b, p, m] = N[b, p, m] / D[b, p]
    O[b, p, f] = sum[m](A[b, p, m] * V[b, m, f])
    L[b, p] = G[b, p] + log(D[b, p])
    return O, L
"""

SOFTCAP = """
def attention(Q, K, V, *, c=2.0):
    T[p, m] = sum[e](Q[p, e] * K[m, e])
    X[p, m] = T[p, m] / sqrt(size(e))
    S[p, m: m <= p] = c * tanh(X[p, m] / c)
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    A[p, m] = N[p, m] / D[p]
    O[p, f] = sum[m](A[p, m] * V[m, f])
    return O
"""

ALIBI = """
def attention(Q, K, V, slope, *, scale=0.5):
    T[h, p, m] = sum[e](Q[h, p, e] * K[h, m, e])
    S[h, p, m: m <= p] = T[h, p, m] * scale - slope[h] * (p - m)
    G[h, p] = max[m](S[h, p, m])
    N[h, p, m] = exp(S[h, p, m] - G[h, p])
    D[h, p] = sum[m](N[h, p, m])
    A[h, p, m] = N[h, p, m] / D[h, p]
    O[h, p, f] = sum[m](A[h, p, m] * V[h, m, f])
    return O
"""

ENTROPY = """
def attention(Q, K, V):
    T[p, m] = sum[e](Q[p, e] * K[m, e])
    S[p, m: m < p] = T[p, m] / sqrt(size(e))
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    A[p, m] = N[p, m] / D[p]
    O[p, f] = sum[m](A[p, m] * V[m, f])
    L[p] = G[p] + log(D[p])
    E_sum[p] = sum[m](A[p, m] * (L[p] - S[p, m]))
    W[p] = sum[m](A[p, m] * log(A[p, m]))
    return O, L, E_sum, W
"""

DIFFERENTIAL = """
def attention(Q, R, K, V, *, share=0.3):
    S[p, m: m <= p] = sum[e](Q[p, e] * K[m, e])
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    A[p, m] = N[p, m] / D[p]
    T[p, m: m <= p] = sum[e](R[p, e] * K[m, e])
    H[p] = max[m](T[p, m])
    M[p, m] = exp(T[p, m] - H[p])
    C[p] = sum[m](M[p, m])
    B[p, m] = M[p, m] / C[p]
    X[p, m] = A[p, m] - share * B[p, m]
    O[p, f] = sum[m](X[p, m] * V[m, f])
    return O
"""

LINEAR = """
def attention(Q, K, V):
    X[p, e] = relu(Q[p, e]) + 0.1
    Y[m, e] = relu(K[m, e]) + 0.1
    S[p, m] = sum[e](X[p, e] * Y[m, e])
    D[p] = sum[m](S[p, m])
    A[p, m] = S[p, m] / D[p]
    O[p, f] = sum[m](A[p, m] * V[m, f])
    return O
"""

BACKWARD = """
def backward(Q, K, V, L, dO):
    T[p, m] = sum[e](Q[p, e] * K[m, e])
    S[p, m: m <= p] = T[p, m] * 0.5
    A[p, m] = exp(S[p, m] - L[p])
    O[p, f] = sum[m](A[p, m] * V[m, f])
    dA[p, m] = sum[f](dO[p, f] * V[m, f])
    R[p] = sum[m](A[p, m] * dA[p, m])
    dS[p, m] = A[p, m] * (dA[p, m] - R[p])
    dQ_sum[p, e] = sum[m](dS[p, m] * K[m, e])
    dQ[p, e] = dQ_sum[p, e] * 0.5
    dK[m, e] = sum[p](dS[p, m] * Q[p, e])
    dV[m, f] = sum[p](A[p, m] * dO[p, f])
    return O, dQ, dK, dV
"""

SHARED_KEYS = """
def attention(Q, K, V, sink, *, B=2):
    T[h, p, m] = sum[e](Q[h, p, e] * K[h // 2, m, e])
    S[h, p, m: m // B <= p // B] = T[h, p, m] * 0.25
    X[h, p] = max[m](S[h, p, m])
    G[h, p] = max(X[h, p], sink[h])
    N[h, p, m] = exp(S[h, p, m] - G[h, p])
    U[h, p] = sum[m](N[h, p, m])
    D[h, p] = U[h, p] + exp(sink[h] - G[h, p])
    A[h, p, m] = N[h, p, m] / D[h, p]
    O[h, p, f] = sum[m](A[h, p, m] * V[h // 2, m, f])
    return O, D
"""

DECLARED = {
    "three_traversals": THREE_TRAVERSALS,
    "unstabilised": UNSTABILISED,
    "scores_returned": SCORES_RETURNED,
    "empty_rows": EMPTY_ROWS,
    "softcap": SOFTCAP,
    "alibi": ALIBI,
    "entropy": ENTROPY,
    "differential": DIFFERENTIAL,
    "linear": LINEAR,
    "backward": BACKWARD,
    "shared_keys": SHARED_KEYS,
}

GIVEN: dict[str, dict[str, Any]] = {
    "empty_rows": {"length": numpy.array([0, 5])},
    "shared_keys": {
        "K": numpy.random.default_rng(1).normal(size=(2, 7, 3)),
        "V": numpy.random.default_rng(2).normal(size=(2, 7, 4)),
    },
}
"""Inputs that cannot be drawn by rank: integers, and tensors read at computed coordinates."""
