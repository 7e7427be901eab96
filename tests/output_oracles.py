"""What the examples with outputs of several kinds compute, by hand: dense numpy, float64.

Every weight is held at once here, which is what the kernels never do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from .dense_oracles import Array, causally, only, positions, scores, weights


def grouped(K: Array, G: int) -> Array:
    return numpy.repeat(K, G, axis=1)


def retrieval_head(Q: Array, K: Array, V: Array, length: Array, *, G: int) -> Any:
    b, h, m = Q.shape[0], Q.shape[1], K.shape[2]
    out, J, Best = (
        numpy.zeros((b, h, V.shape[-1])),
        -numpy.ones((b, h)),
        numpy.full((b, h), -numpy.inf),
    )
    for i, j in numpy.ndindex(b, h):
        n = min(int(length[i]), m)
        if n:
            s = K[i, j // G, :n] @ Q[i, j] / numpy.sqrt(Q.shape[-1])
            a = numpy.exp(s - s.max())
            out[i, j] = a / a.sum() @ V[i, j // G, :n]
            J[i, j], Best[i, j] = list(s).index(max(s)), max(s)
    return out, J, Best


def attention_calibration(Q: Array, K: Array, V: Array, *, beta: float, theta: float) -> Any:
    """Step by step, a head at a time, with sets of sinks as Python has them."""
    A = weights(causally(scores(Q, K)))
    n = A.shape[-1]
    C = A.sum(2) / (n - numpy.arange(n))
    out = numpy.zeros(Q.shape[:3] + V.shape[-1:])
    for i, j in numpy.ndindex(*A.shape[:2]):
        sinks = sorted(m for m in range(n) if C[i, j, m] > theta)[1:]
        rest = [m for m in range(n) if m not in sinks]
        a = A[i, j].copy()
        for p in range(n):
            taken, left = a[p, sinks].sum(), a[p, rest].sum()
            a[p, sinks] *= beta
            a[p, rest] *= 1 + (1 - beta) * taken / left
        assert numpy.allclose(a[0], numpy.eye(n)[0])
        out[i, j] = a @ V[i, j]
    return out, C


def visual_redistribution(
    Q: Array, K: Array, V: Array, label: Array, *, end: int, rho: float, mass: float, keep: float
) -> Any:
    A = weights(causally(scores(Q, K)))
    Image = numpy.zeros(A.shape[:3])
    place = positions(Q.shape[2], K.shape[2])[0][:, 0]
    for i, j, p in numpy.ndindex(*A.shape[:3]):
        a, kind = A[i, j, p], label[i]
        Image[i, j, p] = image = a[kind >= 2].sum()
        hidden = a[kind == 2].sum()
        if place[p] >= end and image >= mass and 0 < hidden <= rho * image:
            sink, seen = (kind == 1) | (kind == 2), kind == 3
            freed = (1 - keep) * a[sink].sum()
            share = freed / a[seen].sum()
            a[sink] *= keep
            a[seen] *= 1 + share
    return A @ V, Image


def zero_tuning(Q: Array, K: Array, V: Array, gamma: Array) -> Array:
    """The same as a bias: log gamma is added to the first key's score."""
    S = scores(Q, K)
    S[..., 0] += numpy.log(gamma)[:, None]
    return weights(causally(S)) @ V


def infini_retri(Q: Array, K: Array, *, start: int, width: int) -> Array:
    A = weights(causally(scores(Q, K))).sum(1)
    question = K.shape[2] - Q.shape[2]
    W = A[:, :, question:].sum(-1)
    found = numpy.zeros((A.shape[0], K.shape[2]))
    for i in range(A.shape[0]):
        heat = (W[i] ** 2) @ A[i][:, start:question]
        # tap d of the window stands at m + d - width // 2
        taps = numpy.pad(heat, (width // 2, width))
        found[i, start:question] = [taps[m : m + width].sum() for m in range(len(heat))]
    return found


def flex_prefill(Q: Array, K: Array) -> Any:
    A = weights(causally(scores(Q, K)))
    P, M = A.shape[-2:]
    slash = [numpy.trace(A, offset=M - P - d, axis1=2, axis2=3) for d in range(M)]
    return A.mean(2), numpy.stack(slash, -1) / P


def snapkv_scores(Q: Array, K: Array, *, G: int, width: int) -> Array:
    A = weights(causally(scores(Q, grouped(K, G))))
    b, h, _, m = A.shape
    X = A.sum(2).reshape(b, h // G, G, m).mean(2)
    pooled = numpy.zeros_like(X)
    for i, j in numpy.ndindex(b, h // G):
        pooled[i, j] = numpy.convolve(X[i, j], numpy.ones(width) / width, mode="same")
    return pooled


def blocks(x: Array, B: int) -> list[list[Array]]:
    """Cut the last two ranks in blocks; the last ones may be smaller."""
    rows = [x[..., i : i + B, :] for i in range(0, x.shape[-2], B)]
    return [[row[..., j : j + B] for j in range(0, x.shape[-1], B)] for row in rows]


def ada_spa(Q: Array, K: Array, L: Array, *, B: int) -> Array:
    A = numpy.exp(scores(Q, K) - L[..., None])
    masses = [[x.sum((-1, -2)) for x in row] for row in blocks(A, B)]
    return numpy.moveaxis(numpy.array(masses), (0, 1), (-2, -1))


def seer_target(Q: Array, K: Array, V: Array, *, B: int) -> Any:
    A = weights(causally(scores(Q, K)))
    largest = [[x.max((-1, -2)) for x in row] for row in blocks(A, B)]
    T = numpy.moveaxis(numpy.array(largest), (0, 1), (-2, -1))
    total = T.sum(-1, keepdims=True)
    return A @ V, numpy.divide(T, total, out=numpy.zeros_like(T), where=total > 0)


def heavy_hitters(Q: Array, K: Array, V: Array, *, G: int) -> Any:
    A = weights(causally(scores(Q, grouped(K, G))))
    return A @ grouped(V, G), A.sum(2)


def gradient_row(Q: Array, K: Array, V: Array, dO: Array) -> Any:
    A = weights(only(scores(Q[:, :, None], K), True))[:, :, 0]
    dA = (V @ dO[..., None])[..., 0]
    return A.mean(1), (A * numpy.maximum(dA, 0)).mean(1)


ORACLES: dict[str, Callable[..., Any]] = {
    "ada_spa": ada_spa,
    "attention_calibration": attention_calibration,
    "flex_prefill": flex_prefill,
    "gradient_row": gradient_row,
    "heavy_hitters": heavy_hitters,
    "infini_retri": infini_retri,
    "retrieval_head": retrieval_head,
    "seer_target": seer_target,
    "snapkv_scores": snapkv_scores,
    "visual_redistribution": visual_redistribution,
    "zero_tuning": zero_tuning,
}
