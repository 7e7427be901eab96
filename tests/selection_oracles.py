"""Selections by hand, as in ``dense_oracles``: dense numpy, a stable sort, masks of points.

A list names the best coordinate first; past its end stands 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

Array = Any  # numpy's stubs give Any for most operators


def scores(Q: Array, K: Array) -> Array:
    return numpy.einsum("...pe,...me->...pm", Q, K) / numpy.sqrt(Q.shape[-1])


def weights(S: Array, keep: Array) -> Array:
    """Return the weights of each row over the kept points; of a row without any, zeros."""
    keep = numpy.broadcast_to(keep, S.shape)
    top = numpy.where(keep, S, -numpy.inf).max(-1, keepdims=True)
    N = numpy.where(keep, numpy.exp(S - numpy.where(numpy.isfinite(top), top, 0)), 0)
    D = N.sum(-1, keepdims=True)
    return numpy.divide(N, D, out=numpy.zeros_like(N), where=D > 0)


def best(X: Array, k: int, forced: Array, able: Array) -> tuple[Array, Array]:
    """Return the lists of the k best and the mask of their members, row by row."""
    forced, able = numpy.broadcast_to(forced, X.shape), numpy.broadcast_to(able, X.shape)
    lists, mask = numpy.zeros((*X.shape[:-1], k), int), numpy.zeros(X.shape, bool)
    for row in numpy.ndindex(X.shape[:-1]):
        order = sorted(
            numpy.flatnonzero(able[row]), key=lambda n: (not forced[row][n], -X[row][n], n)
        )[:k]
        lists[row][: len(order)] = order
        mask[row][order] = True
    return lists, mask


def pool(X: Array, B: int, how: Callable[..., Array]) -> Array:
    """Pool blocks of B along the last rank but one; the last block may be short."""
    parts = [how(X[..., j : j + B, :], axis=-2) for j in range(0, X.shape[-2], B)]
    return numpy.stack(parts, axis=-2)


def spread(mask: Array, rows: int, columns: int, P: int, M: int) -> Array:
    """Repeat a mask of blocks for their points."""
    return mask.repeat(rows, -2).repeat(columns, -1)[..., :P, :M]


def topk_blocks(Q: Array, K: Array, V: Array, B: int, k: int) -> tuple[Array, Array]:
    E = pool(Q, B, numpy.mean) @ numpy.swapaxes(pool(K, B, numpy.mean), -1, -2)
    i, n = numpy.ogrid[: E.shape[-2], : E.shape[-1]]
    Sel, mask = best(E, k, (n < 1) | (n == i), n <= i)
    P = Q.shape[2]
    causal = numpy.tri(P, dtype=bool)
    return weights(scores(Q, K), spread(mask, B, B, P, P) & causal) @ V, Sel


def quest(Q: Array, K: Array, V: Array, G: int, B: int, k: int) -> tuple[Array, Array]:
    K, V = K.repeat(G, 1), V.repeat(G, 1)
    q = Q[:, :, None]
    E = numpy.maximum(q * pool(K, B, numpy.min), q * pool(K, B, numpy.max)).sum(-1)
    pages = numpy.arange(E.shape[-1])
    Sel, mask = best(E, k, pages == pages[-1], pages >= 0)
    keep = mask.repeat(B, -1)[:, :, None, : K.shape[2]]
    return (weights(scores(q, K), keep) @ V)[:, :, 0], Sel


def double_sparsity(Q: Array, K: Array, V: Array, C: Array, k: int) -> tuple[Array, Array]:
    heads = range(Q.shape[1])
    L = numpy.stack([(K[:, h][..., C[h]] @ Q[:, h][:, C[h], None])[..., 0] for h in heads], 1)
    Sel, mask = best(L, k, False, True)
    return (weights(scores(Q[:, :, None], K), mask[:, :, None]) @ V)[:, :, 0], Sel


def seer_attention(
    Q: Array, K: Array, V: Array, Wq: Array, Wmax: Array, Wmin: Array, Wmean: Array,
    B: int, tau: float,
) -> tuple[Array, Array]:  # fmt: skip
    gq = pool(Q, B, numpy.mean) @ Wq
    pools = ((numpy.max, Wmax), (numpy.min, Wmin), (numpy.mean, Wmean))
    gk = numpy.sum([pool(K, B, how) @ W for how, W in pools], axis=0)
    E = scores(gq, gk)
    i, n = numpy.ogrid[: E.shape[-2], : E.shape[-1]]
    mask = ((weights(E, n <= i) > tau) | (i >= E.shape[-2] - 2)) & (n <= i)
    Sel, _ = best(-numpy.broadcast_to(n, E.shape) * 1.0, E.shape[-1], False, mask)
    P = Q.shape[2]
    keep = spread(mask, B, B, P, P) & numpy.tri(P, dtype=bool)
    return weights(scores(Q, K), keep) @ V, Sel


def tidal_decode(
    Q: Array, K: Array, V: Array, Qn: Array, Kn: Array, Vn: Array, G: int, k: int
) -> tuple[Array, Array, Array]:
    K, V, Kn, Vn = (x.repeat(G, 1) for x in (K, V, Kn, Vn))
    S = scores(Q[:, :, None], K)
    Sel, mask = best(S, k, False, True)
    later = weights(scores(Qn[:, :, None], Kn), mask) @ Vn
    return (weights(S, True) @ V)[:, :, 0], later[:, :, 0], Sel[:, :, 0]


def snapkv(Q: Array, K: Array, G: int, R: int, near: int, sinks: int, k: int) -> Array:
    S = scores(Q, K[:, :, None])
    p, m = numpy.ogrid[: S.shape[-2], : S.shape[-1]]
    X = weights(S, m <= p + S.shape[-1] - S.shape[-2]).sum((2, 3))
    padded = numpy.pad(X, ((0, 0), (0, 0), (R, R)))
    P = numpy.stack([padded[..., d : d + X.shape[-1]] for d in range(2 * R + 1)]).mean(0)
    m = numpy.arange(X.shape[-1])
    return best(P, k, (m < sinks) | (m >= len(m) - near), True)[0]


def ada_snapkv(
    Q: Array, K: Array, G: int, R: int, near: int, sinks: int, least: int, k: int
) -> tuple[Array, Array]:
    """Heads first take their own, then keys of all heads one by one, the best first."""
    S = scores(Q, K[:, :, None])
    p, m = numpy.ogrid[: S.shape[-2], : S.shape[-1]]
    X = weights(S, m <= p + S.shape[-1] - S.shape[-2]).max((2, 3))
    padded = numpy.pad(X, ((0, 0), (0, 0), (R, R)))
    worth = numpy.stack([padded[..., d : d + X.shape[-1]] for d in range(2 * R + 1)]).mean(0)
    m = numpy.arange(X.shape[-1])
    _, kept = best(worth, least, (m < sinks) | (m >= len(m) - near), True)
    for b in range(len(worth)):
        left = numpy.argwhere(~kept[b])
        order = sorted(left.tolist(), key=lambda cm: (-worth[b][tuple(cm)], *cm))
        for c, at in order[: k * kept.shape[1] - kept[b].sum()]:
            kept[b, c, at] = True
    lists = numpy.zeros(worth.shape, int)
    for row in numpy.ndindex(kept.shape[:2]):
        members = numpy.flatnonzero(kept[row])
        lists[row][: len(members)] = members
    return lists, kept.sum(-1)


def flex_prefill_blocks(
    Q: Array, K: Array, V: Array, gamma: float, tau: float, B: int, least: int
) -> tuple[Array, Array, Array]:
    """Head by head: what the last rows see, how much of it suffices, which pattern predicts it."""
    heads, N = Q.shape[:2]
    n = N // B
    lists, aware, out = numpy.zeros((heads, n, n), int), numpy.zeros(heads, int), []
    for h in range(heads):
        A = weights(scores(Q[h, -B:], K[h]), numpy.tri(B, N, N - B, dtype=bool))
        columns = A.mean(0)
        diagonals = numpy.zeros(N)
        for r, m in numpy.ndindex(A.shape):
            if m <= N - B + r:
                diagonals[N - B + r - m] += A[r, m] / B
        means = pool(Q[h], B, numpy.mean), pool(K[h], B, numpy.mean)
        W = weights(scores(*means), numpy.tri(n, dtype=bool))
        sums = [x.reshape(n, B).sum(-1) for x in (columns, diagonals)]
        middle = (W[-1] + sums[0]) / 2
        apart = sum(
            (x[x > 0] * numpy.log(x[x > 0] / middle[x > 0])).sum() for x in (W[-1], sums[0])
        )
        aware[h] = numpy.sqrt(apart / 2) < tau
        kept = numpy.zeros((n, n), bool)
        budgets = [
            max(least, ((numpy.cumsum(numpy.sort(x)[::-1]) <= gamma).sum() + 1) // 128 + 1)
            for x in (columns, diagonals)
        ]
        marks = [
            best(x, min(least if aware[h] else k, n), numpy.arange(n) == 0, True)[1]
            for x, k in zip(sums, budgets, strict=True)
        ]
        pairs = [(i, j) for i in range(n) for j in range(i + 1)]
        for i, j in pairs:
            kept[i, j] = marks[0][j] or marks[1][i - j]
        total = 0.0
        for i, j in sorted(pairs, key=lambda x: (-W[x], x)) if aware[h] else []:
            total += W[i, j]
            if total > gamma * n:
                break
            kept[i, j] = True
        for i in range(n):
            lists[h, i, : kept[i].sum()] = numpy.flatnonzero(kept[i])
        keep = spread(kept, B, B, N, N) & numpy.tri(N, dtype=bool)
        out.append(weights(scores(Q[h], K[h]), keep) @ V[h])
    return numpy.stack(out), lists, aware


def routing(X: Array, V: Array, M: Array, w: int) -> tuple[Array, Array]:
    """Cluster by cluster: sorted members, a triangle of scores, sums at positions, then counts."""
    B, H, n, _ = X.shape
    lists = numpy.zeros((B, H, M.shape[1], w), int)
    O, N = numpy.zeros_like(V), numpy.zeros((B, H, n, 1))  # noqa: E741
    for b, h, c in numpy.ndindex(lists.shape[:3]):
        near = X[b, h] @ M[h, c]
        members = sorted(sorted(range(n), key=lambda p: (-near[p], p))[:w])
        lists[b, h, c, : len(members)] = members
        x = X[b, h, members]
        Y = weights(x @ x.T, numpy.tri(len(members), dtype=bool)) @ V[b, h, members]
        numpy.add.at(O[b, h], members, Y)
        numpy.add.at(N[b, h], members, 1)
    return O / (N + 0.01), lists


def block_lists(
    Q: Array, K: Array, V: Array, Blocks: Array, Count: Array, P0: int, M0: int
) -> tuple[Array, Array]:
    S = scores(Q, K)
    keep = numpy.zeros(S.shape, bool)
    for b, h, i, j in numpy.ndindex(Blocks.shape):
        if j < Count[b, h, i]:
            at = Blocks[b, h, i, j] * M0
            keep[b, h, i * P0 : (i + 1) * P0, at : at + M0] = True
    with numpy.errstate(divide="ignore"):
        L = numpy.logaddexp.reduce(numpy.where(keep, S, -numpy.inf), axis=-1)
    return weights(S, keep) @ V, L


ORACLES: dict[str, Callable[..., Any]] = {
    "ada_snapkv": ada_snapkv,
    "block_lists": block_lists,
    "double_sparsity": double_sparsity,
    "flex_prefill_blocks": flex_prefill_blocks,
    "quest": quest,
    "routing": routing,
    "seer_attention": seer_attention,
    "snapkv": snapkv,
    "tidal_decode": tidal_decode,
    "topk_blocks": topk_blocks,
}
