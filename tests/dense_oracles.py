"""What every example computes, written once more by hand: dense numpy, float64, no notation.

``ORACLES[name](*tensors, **parameters)`` takes the example's arguments and returns its outputs. A
forbidden pair has score -inf here, as people write it in frameworks; that the language has absent
points instead is what the comparison tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from .dense_oracles_layouts import LAYOUT_ORACLES

Array = Any  # numpy's stubs give Any for most operators; these formulas are nothing else


def scores(Q: Array, K: Array) -> Array:
    """Return Q K^T / sqrt(e) over the last two ranks."""
    return Q @ numpy.swapaxes(K, -1, -2) / numpy.sqrt(Q.shape[-1])


def weights(S: Array) -> Array:
    """Return the weights of each row; a row that is all -inf has weights 0."""
    G = S.max(-1, keepdims=True)
    N = numpy.where(numpy.isfinite(S), numpy.exp(S - numpy.where(numpy.isfinite(G), G, 0)), 0)
    D = N.sum(-1, keepdims=True)
    return numpy.divide(N, D, out=numpy.zeros_like(N), where=D > 0)


def row_lse(S: Array) -> Array:
    return numpy.logaddexp.reduce(S, axis=-1)


def only(S: Array, keep: Array) -> Array:
    return numpy.where(keep, S, -numpy.inf)


def positions(P: int, M: int) -> tuple[Array, Array]:
    """Return the positions of queries (a column) and keys (a row); the last ones coincide."""
    return numpy.arange(M - P, M)[:, None], numpy.arange(M)[None, :]


def causally(S: Array) -> Array:
    p, m = positions(*S.shape[-2:])
    return only(S, m <= p)


def ratio(x: Array, d: Array) -> Array:
    return numpy.divide(
        x, d, out=numpy.zeros(numpy.broadcast_shapes(x.shape, d.shape)), where=d != 0
    )


def attention(Q: Array, K: Array, V: Array) -> Array:
    return weights(scores(Q, K)) @ V


def causal(Q: Array, K: Array, V: Array) -> Array:
    return weights(causally(scores(Q, K))) @ V


def causal_lse(Q: Array, K: Array, V: Array) -> tuple[Array, Array]:
    S = causally(scores(Q, K))
    return weights(S) @ V, row_lse(S)


def lse(Q: Array, K: Array, V: Array) -> tuple[Array, Array]:
    S = scores(Q, K)
    return weights(S) @ V, row_lse(S)


def sliding_window(Q: Array, K: Array, V: Array, W: int) -> Array:
    p, m = positions(Q.shape[2], K.shape[2])
    return weights(only(scores(Q, K), (m <= p) & (m > p - W))) @ V


def sink_window(Q: Array, K: Array, V: Array, W: int, sinks: int) -> Array:
    p, m = positions(Q.shape[2], K.shape[2])
    return weights(only(scores(Q, K), (m <= p) & ((m > p - W) | (m < sinks)))) @ V


def prefix_lm(Q: Array, K: Array, V: Array, prefix: Array) -> Array:
    p, m = positions(Q.shape[2], K.shape[2])
    keep = (m <= p) | (m < prefix[:, None, None])
    return weights(only(scores(Q, K), keep[:, None])) @ V


def dilated(Q: Array, K: Array, V: Array, W: int, step: int) -> Array:
    keep = numpy.zeros((Q.shape[2], K.shape[2]), bool)
    for p in range(Q.shape[2]):
        for w in range(W):
            if p - w * step >= 0:
                keep[p, p - w * step] = True
    return weights(only(scores(Q, K), keep)) @ V


def block_diagonal(Q: Array, K: Array, V: Array, B: int) -> Array:
    out = numpy.zeros((*Q.shape[:3], V.shape[3]))
    for start in range(0, max(Q.shape[2], K.shape[2]), B):
        part = slice(start, start + B)
        if K[:, :, part].shape[2]:
            out[:, :, part] = attention(Q[:, :, part], K[:, :, part], V[:, :, part])
    return out


def gqa(Q: Array, K: Array, V: Array, G: int) -> Array:
    return causal(Q, K.repeat(G, axis=1), V.repeat(G, axis=1))


def mqa(Q: Array, K: Array, V: Array) -> Array:
    return causal(Q, K[:, None], V[:, None])


def hashed(*words: int) -> float:
    """Return the random number of a seed and coordinates, in Python's whole numbers."""
    state = 0
    for word in words:
        state ^= word * 0x9E3779B1 % 2**32
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            state = (state ^ state >> shift) * factor % 2**32
    return (state >> 8) / 2**24


def dropout(Q: Array, K: Array, V: Array, seed: int, rate: float) -> Array:
    A = weights(causally(scores(Q, K)))
    for place in numpy.ndindex(*A.shape):
        A[place] *= 0 if hashed(seed, *place) < rate else 1 / (1 - rate)
    return A @ V


def alibi(Q: Array, K: Array, V: Array, slope: Array) -> Array:
    p, m = positions(Q.shape[2], K.shape[2])
    S = scores(Q, K) - slope[:, None, None] * (p - m)
    return weights(causally(S)) @ V


def relative_bias(Q: Array, K: Array, V: Array, R: Array) -> Array:
    P, M = Q.shape[2], K.shape[2]
    S = scores(Q, K)
    for p in range(P):
        # Against key m = 0, 1, ... the table is read backwards.
        S[:, :, p] += R[:, p : p + M][:, ::-1]
    return weights(S) @ V


def relative_keys(Q: Array, K: Array, V: Array, R: Array) -> Array:
    P = Q.shape[2]
    S = scores(Q, K)
    for p in range(P):
        for m in range(p + 1):
            S[:, :, p, m] += (Q[:, :, p] * R[:, P - 1 - (p - m)]).sum(-1) / numpy.sqrt(Q.shape[3])
    return weights(causally(S)) @ V


def softcap(Q: Array, K: Array, V: Array, cap: float) -> Array:
    return weights(causally(cap * numpy.tanh(scores(Q, K) / cap))) @ V


def sigmoid(Q: Array, K: Array, V: Array) -> Array:
    return 1 / (1 + numpy.exp(-scores(Q, K)) * K.shape[2]) @ V


def relu_squared(Q: Array, K: Array, V: Array) -> Array:
    p, m = positions(Q.shape[2], K.shape[2])
    A = numpy.where(m <= p, numpy.maximum(scores(Q, K), 0) ** 2, 0)
    return A @ V / K.shape[2]


def l2_normalised(Q: Array, K: Array, V: Array) -> Array:
    p, m = positions(Q.shape[2], K.shape[2])
    A = numpy.where(m <= p, scores(Q, K), 0)
    return ratio(A @ V, numpy.linalg.norm(A, axis=-1, keepdims=True))


def absmax_scaled(Q: Array, K: Array, V: Array) -> Array:
    p, m = positions(Q.shape[2], K.shape[2])
    A = numpy.where(m <= p, scores(Q, K), 0)
    return ratio(A @ V, abs(A).max(-1, keepdims=True))


def entropy(Q: Array, K: Array, V: Array) -> tuple[Array, Array, Array]:
    S = causally(scores(Q, K))
    A = weights(S)
    H = -(A * numpy.log(A, out=numpy.zeros_like(A), where=A > 0)).sum(-1)
    return A @ V, row_lse(S), H


def score_statistics(Q: Array, K: Array) -> tuple[Array, Array, Array]:
    S = scores(Q, K)
    mean, square, cube = ((S**n).mean(-1) for n in (1, 2, 3))
    return mean, square - mean**2, cube - 3 * mean * square + 2 * mean**3


def sink(Q: Array, K: Array, V: Array, logit: Array) -> Array:
    S = causally(scores(Q, K))
    extra = numpy.broadcast_to(logit[:, None, None], (*S.shape[:3], 1))
    return weights(numpy.concatenate([S, extra], axis=-1))[..., :-1] @ V


def differential(Q1: Array, K1: Array, Q2: Array, K2: Array, V: Array, weight: Array) -> Array:
    return causal(Q1, K1, V) - weight[:, None, None] * causal(Q2, K2, V)


def landmark(Q: Array, K: Array, V: Array, B: int) -> Array:
    S = scores(Q, K)
    out = numpy.zeros((*Q.shape[:3], V.shape[3]))
    for p in range(Q.shape[2]):
        block = p // B
        own = [m for m in range(block * B, p + 1) if m % B != B - 1]
        gates = [j * B + B - 1 for j in range(block)]
        outer = weights(S[:, :, p, own + gates])
        out[:, :, p] = numpy.einsum("bhm,bhmf->bhf", outer[..., : len(own)], V[:, :, own])
        for j in range(block):
            tokens = list(range(j * B, j * B + B - 1))
            inner = weights(S[:, :, p, tokens])
            share = outer[..., len(own) + j, None] * inner
            out[:, :, p] += numpy.einsum("bhm,bhmf->bhf", share, V[:, :, tokens])
    return out


def linear(Q: Array, K: Array, V: Array) -> Array:
    FQ, FK = (numpy.where(x > 0, x, numpy.expm1(x)) + 1 for x in (Q, K))
    return FQ @ (numpy.swapaxes(FK, 2, 3) @ V) / (FQ @ FK.sum(2)[..., None])


def padding(Q: Array, K: Array, V: Array, length: Array) -> Array:
    out = numpy.zeros((*Q.shape[:3], V.shape[3]))
    for b, n in enumerate(length):
        if n:
            out[b] = attention(Q[b], K[b, :, :n], V[b, :, :n])
    return out


def cross(Q: Array, K: Array, V: Array, length: Array) -> tuple[Array, Array]:
    keep = numpy.arange(K.shape[2]) < length[:, None, None, None]
    return padding(Q, K, V, length), row_lse(only(scores(Q, K), keep))


def document(Q: Array, K: Array, V: Array, doc: Array) -> Array:
    out = numpy.zeros((*Q.shape[:3], V.shape[3]))
    for b in range(Q.shape[0]):
        for number in set(doc[b].tolist()):
            here = doc[b] == number
            out[b][:, here] = causal(*(x[b : b + 1, :, here] for x in (Q, K, V)))[0]
    return out


def document_starts(Q: Array, K: Array, V: Array, start: Array) -> Array:
    m = numpy.arange(K.shape[2])
    S = scores(Q, K)
    keep = (m >= start[:, None, :, None]) & (m <= m[:, None])
    return weights(only(S, keep)) @ V


def cosine(Q: Array, K: Array, V: Array, scale: float) -> Array:
    Q, K = (x / numpy.linalg.norm(x, axis=-1, keepdims=True) for x in (Q, K))
    return weights(scale * Q @ numpy.swapaxes(K, 2, 3)) @ V


def rope_in_kernel(Q: Array, K: Array, V: Array, freq: Array) -> Array:
    half = Q.shape[3] // 2
    p, m = positions(Q.shape[2], K.shape[2])

    def turn(x: Array, position: Array) -> Array:
        z = (x[..., :half] + 1j * x[..., half:]) * numpy.exp(1j * position * freq[:half])
        return numpy.concatenate([z.real, z.imag], axis=-1)

    return causal(turn(Q, p), turn(K, m.T), V)


def varlen_decode(Q: Array, K: Array, V: Array, length: Array, G: int) -> Array:
    out = numpy.zeros((*Q.shape[:2], V.shape[3]))
    for b, n in enumerate(length):
        for h in range(Q.shape[1]):
            if n:
                S = K[b, :n, h // G] @ Q[b, h] / numpy.sqrt(Q.shape[2])
                out[b, h] = weights(S) @ V[b, :n, h // G]
    return out


def mla_decode(Q: Array, R: Array, Z: Array, K: Array, length: Array, scale: float) -> Array:
    cache, queries = numpy.concatenate([Z, K], 2), numpy.concatenate([Q, R], 2)
    out = numpy.zeros(Q.shape)
    for b, n in enumerate(length):
        if n:
            out[b] = weights(scale * queries[b] @ cache[b, :n].T) @ cache[b, :n, : Q.shape[2]]
    return out


def fusemax_cascade(A: Array, B: Array) -> Array:
    return numpy.asarray((A @ B) * A.sum())


def fusemax(Q: Array, K: Array, V: Array, M0: int = 0) -> Array:
    return (weights(Q.T @ K) @ V.T).T


def sparsemax(Q: Array, K: Array, V: Array) -> Array:
    """Find each row's threshold by bisection: at it, what lies above sums to 1."""
    S = scores(Q, K)
    low, high = S.min(-1, keepdims=True) - 1, S.max(-1, keepdims=True)
    for _ in range(100):
        middle = (low + high) / 2
        much = numpy.maximum(S - middle, 0).sum(-1, keepdims=True) > 1
        low, high = numpy.where(much, middle, low), numpy.where(much, high, middle)
    return numpy.maximum(S - low, 0) @ V


def sigmoid_of_max(Q: Array, K: Array, V: Array) -> Array:
    S = scores(Q, K)
    return 1 / (1 + numpy.exp(S.max(-1, keepdims=True) - S)) @ V


def median(Q: Array, K: Array) -> Array:
    return numpy.sort(scores(Q, K), axis=-1)[..., K.shape[2] // 2]


ORACLES: dict[str, Callable[..., Any]] = {
    **LAYOUT_ORACLES,
    "absmax_scaled": absmax_scaled,
    "alibi": alibi,
    "attention": attention,
    "attention_naive": attention,
    "attention_softmax": attention,
    "block_diagonal": block_diagonal,
    "causal": causal,
    "causal_lse": causal_lse,
    "cosine": cosine,
    "cross": cross,
    "differential": differential,
    "dilated": dilated,
    "document": document,
    "document_starts": document_starts,
    "dropout": dropout,
    "entropy": entropy,
    "fusemax_1pass": fusemax,
    "fusemax_2pass": fusemax,
    "fusemax_3pass": fusemax,
    "fusemax_3pass_deferred": fusemax,
    "fusemax_cascade1": fusemax_cascade,
    "fusemax_cascade2": fusemax_cascade,
    "fusemax_cascade3": fusemax_cascade,
    "gqa": gqa,
    "l2_normalised": l2_normalised,
    "landmark": landmark,
    "linear": linear,
    "lse": lse,
    "median": median,
    "mla_decode": mla_decode,
    "mqa": mqa,
    "padding": padding,
    "prefix_lm": prefix_lm,
    "relative_bias": relative_bias,
    "relative_keys": relative_keys,
    "relu_squared": relu_squared,
    "rope_in_kernel": rope_in_kernel,
    "score_statistics": score_statistics,
    "sigmoid": sigmoid,
    "sigmoid_of_max": sigmoid_of_max,
    "sink": sink,
    "sink_window": sink_window,
    "sliding_window": sliding_window,
    "softcap": softcap,
    "sparsemax": sparsemax,
    "varlen_decode": varlen_decode,
}
