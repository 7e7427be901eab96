"""Statistics of scores and weights whose traversals are derived: moments, entropies, extremes."""

from __future__ import annotations

from tests.passes.stream_cases import Case

STATISTICS: tuple[Case, ...] = (
    Case(
        "where the largest and the smallest stand",
        """
def places(Q, K, bias, V):
    S[p, m: m <= p] = Q[p, e] * K[m, e]
    N[p, m] = softmax[m](S[p, m])
    I[p] = argmax[m](N[p, m])
    J[p] = argmin[m](S[p, m] + bias[m])
    O[p, f] = N[p, m] * V[m, f]
    return I, J, O
""",
        (
            ("N_G", "max", "F0"),
            ("N_D", "sum", "F2"),
            ("I_at", "min", "F6"),
            ("J_min", "min", "F0"),
            ("J_at", "min", "F6"),
            ("O_sum", "sum", "F2"),
        ),
    ),
    Case(
        "values at the largest score alone",
        """
def hard(Q, K, V):
    S[p, m] = Q[p, e] * K[m, e]
    G[p] = max[m](S[p, m])
    C[p] = sum[m: G[p] == S[p, m]](1)
    O[p, f] = sum[m: S[p, m] == G[p]](V[m, f])
    return O, C
""",
        (("G", "max", "F0"), ("C", "sum", "F6"), ("O", "sum", "F6")),
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
