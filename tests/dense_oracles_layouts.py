"""Examples in pages, rings, packs and permuted orders, once more by hand: row by row, in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

Array = Any


def attend(q: Array, keys: Array, values: Array, extra: Array | float = 0.0) -> tuple[Array, float]:
    """Return one query's output and the logarithm of its sum, over the keys given; 0 over none."""
    if not len(keys):
        return numpy.zeros(values.shape[-1]), -numpy.inf
    s = keys @ q / numpy.sqrt(len(q)) + extra
    w = numpy.exp(s - s.max())
    return w @ values / w.sum(), float(s.max() + numpy.log(w.sum()))


def varlen(Q: Array, K: Array, V: Array, seq: Array, cu_q: Array, cu_k: Array, G: int) -> Array:
    out = numpy.zeros((*Q.shape[:2], V.shape[-1]))
    for s in range(len(cu_q) - 1):
        late = (cu_k[s + 1] - cu_k[s]) - (cu_q[s + 1] - cu_q[s])
        for p, t in enumerate(range(cu_q[s], cu_q[s + 1])):
            seen = slice(cu_k[s], max(cu_k[s], cu_k[s] + late + p + 1))
            for h in range(Q.shape[1]):
                out[t, h] = attend(Q[t, h], K[seen, h // G], V[seen, h // G])[0]
    return out


def paged_decode(Q: Array, K: Array, V: Array, page: Array, length: Array, B: int) -> Array:
    out = numpy.zeros((*Q.shape[:3], V.shape[-1]))
    for b, c, g in numpy.ndindex(Q.shape[:3]):
        keys = K[page[b]].reshape(-1, *K.shape[2:])[: length[b], c]
        values = V[page[b]].reshape(-1, *V.shape[2:])[: length[b], c]
        out[b, c, g] = attend(Q[b, c, g], keys, values)[0]
    return out


def paged_prefill(
    Q: Array, K: Array, V: Array, page: Array, length: Array, new: Array, B: int
) -> Array:
    out = numpy.zeros((*Q.shape[:3], V.shape[-1]))
    for b, p, c in numpy.ndindex(Q.shape[:3]):
        if p < new[b]:
            n = length[b] - new[b] + p + 1
            keys = K[page[b]].reshape(-1, *K.shape[2:])[:n, c]
            values = V[page[b]].reshape(-1, *V.shape[2:])[:n, c]
            out[b, p, c] = attend(Q[b, p, c], keys, values)[0]
    return out


def streaming_llm(
    Q: Array, K: Array, V: Array, freq: Array, length: Array, sinks: int, W: int
) -> Array:
    out = numpy.zeros((*Q.shape[:2], V.shape[-1]))
    half = Q.shape[-1] // 2
    for b in range(len(Q)):
        # the tokens that are left, oldest first, and the slots that they lie in
        tokens = [n for n in range(length[b]) if n < sinks or n >= max(sinks, length[b] - W)]
        slots = [n if n < sinks else sinks + (n - sinks) % W for n in tokens]
        angle = numpy.arange(len(slots))[:, None] * freq
        for h in range(Q.shape[1]):
            k = K[b, h, slots]
            turned = numpy.concatenate([-k[:, half:], k[:, :half]], axis=-1)
            k = k * numpy.cos(angle) + turned * numpy.sin(angle)
            out[b, h] = attend(Q[b, h], k, V[b, h, slots])[0]
    return out


def moa_decode(Q: Array, K: Array, V: Array, start: Array, span: Array, length: Array) -> Array:
    out = numpy.zeros((*Q.shape[:2], V.shape[-1]))
    for b, h in numpy.ndindex(Q.shape[:2]):
        own = slice(start[h], start[h] + min(span[h], length[b]))
        out[b, h] = attend(Q[b, h], K[b, own], V[b, own])[0]
    return out


def duo_decode(
    Q1: Array, K1: Array, V1: Array, Q2: Array, K2: Array, V2: Array, length: Array
) -> tuple[Array, Array]:
    found = []
    for Q, K, V in ((Q1, K1, V1), (Q2, K2, V2)):
        out = numpy.zeros((*Q.shape[:2], V.shape[-1]))
        for b, h in numpy.ndindex(Q.shape[:2]):
            out[b, h] = attend(Q[b, h], K[b, h, : length[b]], V[b, h, : length[b]])[0]
        found.append(out)
    return found[0], found[1]


def core_context(Q: Array, K: Array, V: Array, g: int, s: int) -> Array:
    out = numpy.zeros((*Q.shape[:3], V.shape[-1]))
    for b, h, p in numpy.ndindex(Q.shape[:3]):
        far = max(0, (p + 1 - s) // g)
        keys, values = [], []
        for j in range(far):
            own, last = slice(j * g, j * g + g), Q[b, h, j * g + g - 1]
            keys.append(attend(last, K[b, h, own], K[b, h, own])[0])
            values.append(attend(last, K[b, h, own], V[b, h, own])[0])
        near = slice(far * g, p + 1)
        out[b, h, p] = attend(
            Q[b, h, p], numpy.array([*keys, *K[b, h, near]]), numpy.array([*values, *V[b, h, near]])
        )[0]
    return out


def vertical_slash(
    Q: Array, K: Array, V: Array, start: Array, column: Array, count: Array, B: int
) -> Array:
    out = numpy.zeros((*Q.shape[:3], V.shape[-1]))
    for h, i, q in numpy.ndindex(Q.shape[:3]):
        keep = numpy.zeros(K.shape[1], bool)
        for first in start[h, i]:
            keep[first : first + B] = True
        keep[i * B + q + 1 :] = False
        columns = column[h, i, : count[h, i]]
        assert not keep[columns].any() and len(set(columns)) == len(columns)
        keep[columns] = True
        out[h, i, q] = attend(Q[h, i, q], K[h, keep], V[h, keep])[0]
    return out


def merge_partial(O: Array, L: Array) -> tuple[Array, Array]:  # noqa: E741
    with numpy.errstate(invalid="ignore"):
        total = numpy.logaddexp.reduce(L, axis=0)
        share = numpy.where(numpy.isfinite(L), numpy.exp(L - total), 0)
    return (share[..., None] * O).sum(0), total


def sink_tokens(
    Q: Array, KS: Array, VS: Array, K: Array, V: Array, length: Array
) -> tuple[Array, Array]:
    out, logs = numpy.zeros((*Q.shape[:3], V.shape[-1])), numpy.zeros(Q.shape[:3])
    for b, h, p in numpy.ndindex(Q.shape[:3]):
        n = max(0, p + length[b] - Q.shape[2] + 1)
        keys = numpy.concatenate([KS[h], K[b, h, :n]])
        values = numpy.concatenate([VS[h], V[b, h, :n]])
        out[b, h, p], logs[b, h, p] = attend(Q[b, h, p], keys, values)
    return out, logs


def hyper(
    Q: Array, K: Array, V: Array, pq: Array, pk: Array, rank_q: Array, rank_k: Array,
    sample: Array, B: int,
) -> Array:  # fmt: skip
    out = numpy.zeros((*Q.shape[:3], V.shape[-1]))
    n = Q.shape[2]
    for b, h, p in numpy.ndindex(Q.shape[:3]):
        block = rank_q[b, h, p] // B
        own = [m for m in range(n) if rank_k[b, h, m] // B == block]
        others = [m for m in sample[b, h] if m not in own]
        extra = [0.0] * len(own) + [numpy.log(n / len(sample[b, h]))] * len(others)
        keys = [*own, *others]
        out[b, h, p] = attend(Q[b, h, p], K[b, h, keys], V[b, h, keys], numpy.array(extra))[0]
    return out


def paro(Q: Array, K: Array, V: Array, order: Array, place: Array, keep: Array, B: int) -> Array:
    out = numpy.zeros((*Q.shape[:3], V.shape[-1]))
    for b, h, t in numpy.ndindex(Q.shape[:3]):
        seen = [m for m in range(Q.shape[2]) if keep[h, place[h, t] // B, place[h, m] // B]]
        out[b, h, t] = attend(Q[b, h, t], K[b, h, seen], V[b, h, seen])[0]
    return out


def sale(
    Q: Array, K: Array, V: Array, X: Array, Y: Array, tau: Array,
    B: int, C: int, sinks: int, W: int,
) -> Array:  # fmt: skip
    out = numpy.zeros((*Q.shape[:2], V.shape[-1]))
    n, scale = Q.shape[1], numpy.sqrt(Q.shape[-1])
    for h in range(len(Q)):
        near = [[m for m in range(p + 1) if m < sinks or m > p - W] for p in range(n)]
        far = [[m for m in range(p + 1) if m not in near[p]] for p in range(n)]
        sums = [attend(Q[h, p], K[h, near[p]], V[h, near[p]])[1] for p in range(n)]
        wanted = {
            (p // B, m // C)
            for p in range(n)
            for m in far[p]
            if numpy.exp(X[h, p] @ Y[h, m] / scale - sums[p]) > tau[h]
        }
        for p in range(n):
            keys = [*near[p], *(m for m in far[p] if (p // B, m // C) in wanted)]
            out[h, p] = attend(Q[h, p], K[h, keys], V[h, keys])[0]
    return out


LAYOUT_ORACLES: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        core_context, duo_decode, hyper, merge_partial, moa_decode, paged_decode, paged_prefill,
        paro, sale, sink_tokens, streaming_llm, varlen, vertical_slash,
    )
}  # fmt: skip
