"""Attention in many forms against dense numpy, written by hand and without this language."""

from __future__ import annotations

import time
from typing import Any

import numpy
import pytest

from einfall.backends.interpreter import interpret
from einfall.ir.notation import cascade

Array = numpy.ndarray[Any, Any]


def dense(scores: Array, live: Array, values: Array) -> tuple[Array, Array]:
    """Return attention over the live points of scores (..., p, m), and its log of sums."""
    scores = numpy.where(live, scores, -numpy.inf)
    top = scores.max(-1, keepdims=True, initial=-numpy.inf)
    weights = numpy.exp(scores - numpy.where(numpy.isfinite(top), top, 0))
    total = weights.sum(-1, keepdims=True)
    out = weights @ values / numpy.where(total > 0, total, 1)
    with numpy.errstate(divide="ignore"):
        return out, (top + numpy.log(total))[..., 0]


def normal(*shape: int, seed: int = 0) -> Array:
    return numpy.random.default_rng((seed, *shape)).standard_normal(shape)


def close(got: Array, expected: Array) -> None:
    assert got.shape == expected.shape
    numpy.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)


TAIL = """
    G[b, h, p] = max[m](S[b, h, p, m])
    N[b, h, p, m] = exp(S[b, h, p, m] - G[b, h, p])
    D[b, h, p] = sum[m](N[b, h, p, m])
    O[b, h, p, f] = sum[m](N[b, h, p, m] / D[b, h, p] * V[b, h, m, f])
    L[b, h, p] = G[b, h, p] + log(D[b, h, p])
    return O, L
"""
B, H, P, M, E, F = 2, 4, 9, 13, 8, 5
Q, K, V = normal(B, H, P, E), normal(B, H, M, E), normal(B, H, M, F)
p, m = numpy.arange(P)[:, None], numpy.arange(M)
QK = numpy.einsum("bhpe,bhme->bhpm", Q, K) / numpy.sqrt(E)


@pytest.mark.parametrize(
    ("filter", "live"),
    [
        ("m <= p + size(m)", numpy.ones((P, M), bool)),
        ("m <= p", m <= p),
        ("m <= p + size(m) - size(p)", m <= p + M - P),
        ("m <= p - 3", m <= p - 3),  # rows 0 to 2 are empty
        ("p - W < m <= p", (p - 4 < m) & (m <= p)),
        ("p - m < W and m <= p or m < 2", ((p - 4 < m) & (m <= p)) | (m < 2)),
        ("m > p + size(m)", numpy.zeros((P, M), bool)),
        ("bit_length(abs(p - m)) <= 2 and p % 3 == m % 3",
         (abs(p - m) < 4) & (p % 3 == m % 3)),
    ],
)  # fmt: skip
def test_filters(filter: str, live: Array) -> None:
    c = cascade(f"""
def attention(Q, K, V, *, W=4):
    S[b, h, p, m: {filter}] = sum[e](Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))) + 0 * W
""" + TAIL)  # fmt: skip
    o, length = interpret(c, Q, K, V)
    expected, log_sum = dense(QK, live, V)
    close(o, expected)
    close(length, log_sum)
    empty = ~live.any(1)
    assert (o[:, :, empty] == 0).all()
    assert (length[:, :, empty] == -numpy.inf).all()


def attention(scores: str, arguments: str, filter: str = "") -> Any:
    """Return the cascade with these scores (b, h, p, m), reading V[b, h, m, f]."""
    colon = f": {filter}" if filter else ""
    return cascade(f"def attention({arguments}):\n    S[b, h, p, m{colon}] = {scores}" + TAIL)


def test_shared_key_heads() -> None:
    k = normal(B, H // 2, M, E)
    c = cascade("""
def attention(Q, K, V, *, G):
    S[b, h, p, m] = sum[e](Q[b, h, p, e] * K[b, h // G, m, e])
    A[b, h, p] = max[m](S[b, h, p, m])
    N[b, h, p, m] = exp(S[b, h, p, m] - A[b, h, p])
    O[b, h, p, f] = sum[m](N[b, h, p, m] * V[b, h // G, m, f]) / sum[m](N[b, h, p, m])
    return O
""")
    v = normal(B, H // 2, M, F)
    shared = numpy.repeat(k, 2, 1), numpy.repeat(v, 2, 1)
    scores = Q @ shared[0].swapaxes(-1, -2)
    close(interpret(c, Q, k, v, G=2), dense(scores, m >= 0, shared[1])[0])


def test_relative_table() -> None:
    table = normal(H, 2 * P + M)
    c = attention(
        "sum[e](Q[b, h, p, e] * K[b, h, m, e]) + R[h, m - p + L0 - 1]", "Q, K, R, V, *, L0"
    )
    scores = QK * numpy.sqrt(E) + table[:, m - p + P - 1]
    close(interpret(c, Q, K, table, V, L0=P)[0], dense(scores, m >= 0, V)[0])


def test_relative_keys() -> None:
    table = normal(H, P + M, E)
    c = attention("sum[e](Q[b, h, p, e] * R[h, m - p + size(p) - 1, e])", "Q, R, V")
    scores = numpy.einsum("bhpe,hpme->bhpm", Q, table[:, m - p + P - 1])
    close(interpret(c, Q, table, V)[0], dense(scores, m >= 0, V)[0])


def test_slopes_soft_cap_and_documents() -> None:
    slope, doc = numpy.array([1.0, 0.5, 0.25, 0.125]), numpy.array([[0] * 4 + [1] * 5] * B)
    doc_m = numpy.array([[0] * 6 + [1] * 7] * B)
    c = attention(
        "C * tanh(sum[e](Q[b, h, p, e] * K[b, h, m, e]) / C) - slope[h] * (p - m)",
        "Q, K, slope, doc, docm, V, *, C=5.0",
        "doc[b, p] == docm[b, m]",
    )
    scores = 5 * numpy.tanh(QK * numpy.sqrt(E) / 5) - slope[:, None, None] * (p - m)
    live = (doc[:, :, None] == doc_m[:, None])[:, None]
    close(interpret(c, Q, K, slope, doc, doc_m, V)[0], dense(scores, live, V)[0])


def test_ragged_lengths_and_head_dependent_filters() -> None:
    length, far = numpy.array([5, 0]), numpy.array([True, False, False, True])
    c = attention(
        "sum[e](Q[b, h, p, e] * K[b, h, m, e])",
        "Q, K, V, length, far",
        "m < length[b] and (far[h] or p - m < 2)",
    )
    live = (m < length[:, None, None, None]) & (far[:, None, None] | (p - m < 2))
    o, log_sum = interpret(c, Q, K, V, length, far)
    expected = dense(QK * numpy.sqrt(E), live, V)
    close(o, expected[0])
    close(log_sum, expected[1])
    assert (o[1] == 0).all()


def test_paged_keys() -> None:
    size, pages = 4, normal(11, 4, H, E)
    page = numpy.random.default_rng(0).permutation(11)[: 2 * 4].reshape(2, 4)
    c = attention(
        "sum[e](Q[b, h, p, e] * Pages[page[b, m // T], m % T, h, e])",
        "Q, Pages, page, V, *, T",
        "m < size(m) - b",
    )
    keys = pages[page].reshape(B, 4 * size, H, E)[:, :M].transpose(0, 2, 1, 3)
    scores = Q @ keys.swapaxes(-1, -2)
    live = m < M - numpy.arange(B)[:, None, None, None]
    close(interpret(c, Q, pages, page, V, T=size)[0], dense(scores, live, V)[0])


def test_gathered_keys() -> None:
    idx = numpy.random.default_rng(0).integers(0, M, (B, H, 6))
    c = cascade("""
def attention(Q, K, V, idx):
    S[b, h, p, j] = sum[e](Q[b, h, p, e] * K[b, h, idx[b, h, j], e])
    G[b, h, p] = max[j](S[b, h, p, j])
    N[b, h, p, j] = exp(S[b, h, p, j] - G[b, h, p])
    O[b, h, p, f] = sum[j](N[b, h, p, j] * V[b, h, idx[b, h, j], f]) / sum[j](N[b, h, p, j])
    return O
""")
    keys, values = (numpy.take_along_axis(x, idx[..., None], 2) for x in (K, V))
    close(
        interpret(c, Q, K, V, idx), dense(Q @ keys.swapaxes(-1, -2), numpy.array(True), values)[0]
    )


def test_permuted_queries() -> None:
    perm = numpy.stack([numpy.random.default_rng(h).permutation(P) for h in range(H)])
    layout = Q.swapaxes(1, 2).copy()  # (b, p, h, e)
    c = attention(
        "sum[e](Q[b, perm[h, p], h, e] * K[b, h, m, e])", "Q, K, V, perm", "m <= perm[h, p]"
    )
    moved = numpy.stack([Q[:, h, perm[h]] for h in range(H)], 1)
    live = m <= perm[:, :, None]
    close(interpret(c, layout, K, V, perm)[0], dense(moved @ K.swapaxes(-1, -2), live, V)[0])


def test_selected_blocks() -> None:
    c = cascade("""
def attention(Q, K, V, *, T=4):
    C[b, h, n, e] = sum[i](K[b, h, n * T + i, e]) / T
    R[b, h, p, n: n * T <= p] = sum[e](Q[b, h, p, e] * C[b, h, n, e])
    Sel[b, h, p, j] = topk[n, 2](R[b, h, p, n], forced=n == p // T)
    S[b, h, p, m: m <= p and m // T in Sel[b, h, p]] = sum[e](Q[b, h, p, e] * K[b, h, m, e])
    G[b, h, p] = max[m](S[b, h, p, m])
    N[b, h, p, m] = exp(S[b, h, p, m] - G[b, h, p])
    O[b, h, p, f] = sum[m](N[b, h, p, m] * V[b, h, m, f]) / sum[m](N[b, h, p, m])
    return O, Sel
""")
    o, chosen = interpret(c, Q, K, V)
    padded = numpy.concatenate([K, numpy.zeros((B, H, 16 - M, E))], 2)
    pooled = padded.reshape(B, H, 4, 4, E).sum(3) / 4
    rough = Q @ pooled.swapaxes(-1, -2)
    live = numpy.zeros((B, H, P, M), bool)
    for b, h, row in numpy.ndindex(B, H, P):
        ranked = sorted(range(row // 4 + 1), key=lambda n: (n != row // 4, -rough[b, h, row, n]))
        for n in ranked[:2]:
            live[b, h, row, n * 4 : n * 4 + 4] = True
        assert chosen[b, h, row, 0] == row // 4
    close(o, dense(QK * numpy.sqrt(E), live & (m <= p), V)[0])


def test_two_key_ranks_under_one_reduction() -> None:
    extra, values = normal(B, H, 3, E), normal(B, H, 3, F)
    c = cascade("""
def attention(Q, K, X, V, Y):
    S1[b, h, p, m: m <= p - 2] = sum[e](Q[b, h, p, e] * K[b, h, m, e])
    S2[b, h, p, c] = sum[e](Q[b, h, p, e] * X[b, h, c, e])
    S[b, h, p, n] = concat[n](S1[b, h, p, m], S2[b, h, p, c])
    VY[b, h, n, f] = concat[n](V[b, h, m, f], Y[b, h, c, f])
    G[b, h, p] = max[n](S[b, h, p, n])
    N[b, h, p, n] = exp(S[b, h, p, n] - G[b, h, p])
    O[b, h, p, f] = sum[n](N[b, h, p, n] * VY[b, h, n, f]) / sum[n](N[b, h, p, n])
    return O
""")
    keys, both = numpy.concatenate([K, extra], 2), numpy.concatenate([V, values], 2)
    n = numpy.arange(M + 3)
    live = (n <= p - 2) | (n >= M)
    close(interpret(c, Q, K, extra, V, values), dense(Q @ keys.swapaxes(-1, -2), live, both)[0])


def test_small_cascades_of_one_and_two_traversals() -> None:
    a, b = normal(7), normal(7, seed=1)
    expected = (a * b).sum() * a.sum()
    two = cascade(
        "def f(A, B):\n    Y = sum[k](A[k] * B[k])\n    Z = sum[k](Y * A[k])\n    return Z"
    )
    deferred = cascade("""
def f(A, B):
    Y = sum[k](A[k] * B[k])
    X = sum[k](A[k])
    Z = Y * X
    return Z
""")
    running = cascade("""
def f(A, B):
    RY[0] = 0
    RZ[0] = 0
    RY[i + 1] = RY[i] + A[i] * B[i]
    RZ[i + 1] = RZ[i] * (RY[i + 1] / RY[i]) + RY[i + 1] * A[i]
    Z = RZ[size(i)]
    return Z
""")
    for c in (two, deferred, running):
        close(interpret(c, a, b), expected)


ONE_TRAVERSAL = """
def attention(Q, K, V, *, M0, M):
    BK[e, m1, m0] = K[m1 * M0 + m0, e]
    BV[f, m1, m0] = V[m1 * M0 + m0, f]
    RM[0, p] = -inf
    RD[0, p] = 0
    RNV[0, p, f] = 0
    BQK[m1, m0, p: m1 * M0 + m0 <= p and m1 * M0 + m0 < M] = sum[e](Q[p, e] * BK[e, m1, m0])
    LM[m1, p] = max[m0](BQK[m1, m0, p])
    RM[m1 + 1, p] = max(RM[m1, p], LM[m1, p])
    SLN[m1, m0, p] = exp(BQK[m1, m0, p] - RM[m1 + 1, p])
    SLD[m1, p] = sum[m0](SLN[m1, m0, p])
    SLNV[m1, p, f] = sum[m0](SLN[m1, m0, p] * BV[f, m1, m0])
    PRM[m1, p] = exp(RM[m1, p] - RM[m1 + 1, p])
    SPD[m1, p] = RD[m1, p] * PRM[m1, p]
    RD[m1 + 1, p] = SLD[m1, p] + SPD[m1, p]
    SPNV[m1, p, f] = RNV[m1, p, f] * PRM[m1, p]
    RNV[m1 + 1, p, f] = SLNV[m1, p, f] + SPNV[m1, p, f]
    AV[p, f] = RNV[size(m1), p, f] / RD[size(m1), p]
    return AV
"""


@pytest.mark.parametrize("tile", [1, 4, 13, 20])
def test_attention_in_one_traversal(tile: int) -> None:
    q, k, v = Q[0, 0], K[0, 0], V[0, 0]
    got = interpret(cascade(ONE_TRAVERSAL), q, k, v, M0=tile, M=M)
    close(got, dense(q @ k.T, m <= p, v)[0])


def test_delta_rule() -> None:
    t, e, f = 12, 4, 3
    q, k, v = normal(t, e), normal(t, e, seed=1) / 2, normal(t, f)
    beta, decay = normal(t) ** 2 / 4, numpy.exp(-(normal(t, seed=2) ** 2))
    c = cascade("""
def delta(Q, K, V, beta, decay):
    H[0, e, f] = 0
    U[i, f] = V[i, f] - decay[i] * sum[e](K[i, e] * H[i, e, f])
    H[i + 1, e, f] = decay[i] * H[i, e, f] + beta[i] * K[i, e] * U[i, f]
    O[i, f] = sum[e](Q[i, e] * H[i + 1, e, f])
    return O
""")
    state, out = numpy.zeros((e, f)), numpy.zeros((t, f))
    for i in range(t):
        state = decay[i] * state
        state = state + beta[i] * numpy.outer(k[i], v[i] - k[i] @ state)
        out[i] = q[i] @ state
    close(interpret(c, q, k, v, beta, decay), out)


@pytest.mark.parametrize(("keys", "queries"), [(0, 3), (3, 0), (0, 0)])
def test_no_keys_or_no_queries(keys: int, queries: int) -> None:
    c = attention("sum[e](Q[b, h, p, e] * K[b, h, m, e])", "Q, K, V", "m <= p")
    o, length = interpret(
        c, numpy.ones((1, 2, queries, 4)), numpy.ones((1, 2, keys, 4)), numpy.ones((1, 2, keys, 5))
    )
    assert o.shape == (1, 2, queries, 5)
    assert (o == 0).all()
    assert (length == -numpy.inf).all()


@pytest.mark.parametrize(("shape", "limit"), [((2, 2, 256, 64), 0.2), ((1, 1, 2048, 64), 3.0)])
def test_speed(shape: tuple[int, ...], limit: float) -> None:
    q, k, v = (normal(*shape, seed=s) for s in range(3))
    c = attention("sum[e](Q[b, h, p, e] * K[b, h, m, e]) / 8", "Q, K, V", "m <= p")
    times = []
    for _ in range(3):  # the best of three: other work shares the machine
        start = time.perf_counter()
        interpret(c, q, k, v)
        times.append(time.perf_counter() - start)
    assert min(times) < limit
