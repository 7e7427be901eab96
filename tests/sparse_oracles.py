"""Dense formulas of the variants whose points a rule thins, pair by pair, in float64.

Each rule is written from its paper or its code, over explicit positions, frames and blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from .dense_oracles import only, positions, scores, weights

Array = Any


def attend(Q: Array, K: Array, V: Array, keep: Array) -> Array:
    return weights(only(scores(Q, K), keep)) @ V


def strided(Q: Array, K: Array, V: Array, stride: int) -> Array:
    n = Q.shape[2]
    keep = numpy.zeros((n, n), bool)
    for p in range(n):
        keep[p, max(0, p - stride + 1) : p + 1] = True
        keep[p, p::-stride] = True
    return attend(Q, K, V, keep)


def longlora(Q: Array, K: Array, V: Array, G: int) -> Array:
    h, n = Q.shape[1:3]
    keep = numpy.zeros((h, n, n), bool)
    for head in range(h):
        cuts = range(0, n + G, G) if 2 * head < h else [0, *range(G - G // 2, n + G, G)]
        for begin, end in zip(cuts, cuts[1:], strict=False):
            keep[head, begin:end, begin:end] = True
    return attend(Q, K, V, keep & numpy.tri(n, dtype=bool))


def longlora_roll(Q: Array, K: Array, V: Array, G: int) -> Array:
    """Roll, group, attend causally, roll back: as the first code does."""
    h, n = Q.shape[1:3]
    half = -(-h // 2)
    order = numpy.arange(n)
    keep = (order[:, None] // G == order[None, :] // G) & numpy.tri(n, dtype=bool)
    whole = attend(Q, K, V, keep)
    Q, K, V = (numpy.roll(x, -(G // 2), axis=2) for x in (Q, K, V))
    shifted = numpy.roll(attend(Q, K, V, keep), G // 2, axis=2)
    return numpy.concatenate([whole[:, :half], shifted[:, half:]], axis=1)


def frames(x: int, s: int) -> tuple[Array, Array]:
    return numpy.divmod(numpy.arange(x), s)


def radial(Q: Array, K: Array, V: Array, s: int) -> Array:
    (i, k), (j, m) = frames(Q.shape[2], s), frames(K.shape[2], s)
    d = abs(i[:, None] - j[None, :])
    shell = 2 ** numpy.floor(numpy.log2(numpy.maximum(d, 1))).astype(int)
    apart = abs(k[:, None] - m[None, :])
    near = (shell <= s) & (apart + 1 <= s / shell)
    thinned = (d % numpy.ceil(shell / s).astype(int) == 0) & (apart == 0)
    return attend(Q, K, V, near | thinned)


def radial_mask(
    distance: Array, offset: Array, lane: Array, s: int, B: int, decay: float = 1.0
) -> Array:
    """Block by block, from a token mask: place it, take means of columns, count."""
    keep = numpy.zeros((len(distance), len(offset)), bool)
    for x, y in numpy.ndindex(keep.shape):
        d, o = distance[x], offset[y]
        length = 2 ** int(s).bit_length() / 2 ** int(d).bit_length()
        if length < 128 and d % int(128 / length):
            continue
        width = s if d <= 1 else max(B, decay * length)
        tokens = abs(o * B + lane[:, None] - lane[None, :]) <= width
        rho = tokens.mean(0)
        some = (rho > 0).sum()
        keep[x, y] = some > 0 and (rho > 1 / 3).sum() / some > 0.6
    return keep


def radial_blocks(Q: Array, K: Array, V: Array, Keep: Array, s: int, B: int) -> Array:
    (i, k), (j, m) = frames(Q.shape[2], s), frames(K.shape[2], s)
    offset = k[:, None] // B - m[None, :] // B + (s - 1) // B
    return attend(Q, K, V, Keep[abs(i[:, None] - j[None, :]), offset])


def moa(Q: Array, K: Array, V: Array, sinks: Array, spans: Array, B: int) -> Array:
    n = Q.shape[2]
    i, j = numpy.arange(n)[:, None] // B, numpy.arange(n)[None, :] // B
    keep = (j < sinks[:, None, None]) | (j >= i + 1 - spans[:, None, None])
    return attend(Q, K, V, keep & numpy.tri(n, dtype=bool))


def duo_attention(
    Q: Array, K: Array, V: Array, retrieval: Array, G: int, sinks: int, recent: int
) -> Array:
    """Per head: the cache that it keeps, then the chunk; scores of others do not exist."""
    P, M = Q.shape[2], K.shape[2]
    p, m = positions(P, M)
    out = []
    for h in range(Q.shape[1]):
        kept = numpy.ones(M, bool)
        if not retrieval[h // G]:
            kept[sinks : max(sinks, M - P - recent)] = False
        out.append(attend(Q[:, h], K[:, h // G], V[:, h // G], (m <= p) & kept[None, :]))
    return numpy.stack(out, 1)


SPARSE: dict[str, Callable[..., Any]] = {
    "duo_attention": duo_attention,
    "longlora": longlora,
    "longlora_roll": longlora_roll,
    "moa": moa,
    "radial": radial,
    "radial_blocks": radial_blocks,
    "radial_mask": radial_mask,
    "strided": strided,
}
"""Oracles by example, as ``dense_oracles.ORACLES``."""
