"""Arguments of the examples whose tensors lie in pages, rings, packs and permuted orders.

Their index tensors depend on one another, so each example has a maker of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

Array = NDArray[Any]
Sizes = Mapping[str, int]
Draw = numpy.random.Generator
Made = tuple[tuple[Array, ...], dict[str, Any]]


def _lengths(draw: Draw, count: int, most: int) -> Array:
    """Draw lengths from 0 to ``most``; the first is 1, the last is all."""
    lengths = draw.integers(0, most + 1, count)
    lengths[:1], lengths[-1:] = min(1, most), most
    return lengths


def _orders(draw: Draw, *shape: int) -> tuple[Array, Array]:
    """Draw permutations along the last rank; return them and their inverses."""
    order = numpy.argsort(draw.random(shape), axis=-1)
    return order, numpy.argsort(order, axis=-1)


def _pages(draw: Draw, z: Sizes) -> tuple[Array, Array, Array, int]:
    """Draw a cache in pages, in random order, one of them unused; return K, V, page, its length."""
    b, c, block = z["b"], z["kv"], z["block"]
    slots = -(-z["m"] // block)
    count = b * slots + 1
    page = draw.permutation(count)[: b * slots].reshape(b, slots)
    K, V = (draw.standard_normal((count, block, c, z[x])) for x in "ef")
    return K, V, page, slots * block


def paged_decode(draw: Draw, z: Sizes) -> Made:
    """Page tables in random order; sequences of one key and of all."""
    K, V, page, most = _pages(draw, z)
    Q = draw.standard_normal((z["b"], z["kv"], z["group"], z["e"]))
    return (Q, K, V, page, _lengths(draw, z["b"], most)), {"B": z["block"]}


def paged_prefill(draw: Draw, z: Sizes) -> Made:
    """Chunks of different lengths, one of them a single query."""
    K, V, page, most = _pages(draw, z)
    Q = draw.standard_normal((z["b"], z["p"], z["kv"], z["e"]))
    chunk = min(z["p"], most)
    length = draw.integers(chunk, most + 1, z["b"])
    new = _lengths(draw, z["b"], chunk)
    return (Q, K, V, page, numpy.maximum(length, new), new), {"B": z["block"]}


def varlen(draw: Draw, z: Sizes) -> Made:
    """Four sequences: no query, several of each, one query, no key."""
    p, m, kv = z["p"], z["m"], z["h"] // z["group"]
    cu_q = numpy.array([0, 0, p // 2, min(p // 2 + 1, p), p])
    cu_k = numpy.array([0, m // 4, min(m // 4 + p // 2 + 1, m), m, m])
    seq = numpy.repeat(numpy.arange(4), numpy.diff(cu_q))
    Q = draw.standard_normal((p, z["h"], z["e"]))
    K, V = (draw.standard_normal((m, kv, z[x])) for x in "ef")
    return (Q, K, V, seq, cu_q, cu_k), {"G": z["group"]}


def streaming_llm(draw: Draw, z: Sizes) -> Made:
    """Rings that are not full yet, and one that has turned several times."""
    b, h, sinks, W = z["b"], z["h"], 2, z["block"]
    Q = draw.standard_normal((b, h, z["e"]))
    K, V = (draw.standard_normal((b, h, sinks + W, z[x])) for x in "ef")
    half = 10000.0 ** (-numpy.arange(z["e"] // 2) / (z["e"] // 2))
    length = _lengths(draw, b, sinks + W + 1)
    length[-1:] = sinks + 5 * W // 2
    return (Q, K, V, numpy.concatenate([half, half]), length), {"sinks": sinks, "W": W}


def moa_decode(draw: Draw, z: Sizes) -> Made:
    """Spans from a single slot on, for every head another one."""
    spans = 1 + numpy.arange(z["h"]) * z["block"] // 2
    start = numpy.concatenate([[0], numpy.cumsum(spans)])
    Q = draw.standard_normal((z["b"], z["h"], z["e"]))
    K, V = (draw.standard_normal((z["b"], start[-1], z[x])) for x in "ef")
    return (Q, K, V, start[:-1], spans, _lengths(draw, z["b"], int(spans.max()))), {}


def duo_decode(draw: Draw, z: Sizes) -> Made:
    """Twice as many streaming heads as others."""
    found = []
    for heads, slots in ((z["h"] // 2, z["m"]), (z["h"], z["block"] + 2)):
        found.append(draw.standard_normal((z["b"], heads, z["e"])))
        found += [draw.standard_normal((z["b"], heads, slots, z[x])) for x in "ef"]
    return (*found, _lengths(draw, z["b"], z["m"])), {}


def core_context(draw: Draw, z: Sizes) -> Made:
    """Take a length that no group divides; the first s queries see no core."""
    b, h, m = 1, 2, z["m"]
    Q, K, V = (draw.standard_normal((b, h, m, z[x])) for x in "eef")
    return (Q, K, V), {"g": max(2, z["block"] // 4), "s": z["block"] + 1}


def vertical_slash(draw: Draw, z: Sizes) -> Made:
    """Two runs a block, the last one across its own queries, and columns before them."""
    h, B, m = z["h"], z["block"], z["m"]
    blocks = m // B
    rows = numpy.arange(blocks)
    start = numpy.stack([rows * B // 2, rows * B + (rows > 0) * (1 - B)], axis=-1)
    start[:, 1] = numpy.maximum(start[:, 1], start[:, 0] + B)
    start = numpy.broadcast_to(start, (h, blocks, 2))
    column = draw.integers(0, m, (h, blocks, 5)) % numpy.maximum(start[:, :, :1], 1)
    column = numpy.sort(column, axis=-1)
    count = numpy.minimum(draw.integers(0, 6, (h, blocks)), start[:, :, 0])
    for at in numpy.ndindex(h, blocks):
        count[at] = min(count[at], len(numpy.unique(column[at])))
        column[at][: count[at]] = numpy.unique(column[at])[: count[at]]
    Q = draw.standard_normal((h, blocks, B, z["e"]))
    K, V = (draw.standard_normal((h, m, z[x])) for x in "ef")
    return (Q, K, V, start, column, count), {"B": B}


def merge_partial(draw: Draw, z: Sizes) -> Made:
    """Three sets of keys; some rows have nothing in one of them, the first row in none."""
    shape = (3, 1, 2, min(z["p"], 9))
    L = 3 * draw.standard_normal(shape)
    L[0, :, :, ::2] = -numpy.inf
    L[:, :, :, :1] = -numpy.inf
    O = draw.standard_normal((*shape, z["f"]))  # noqa: E741
    return (numpy.where(numpy.isfinite(L)[..., None], O, 0), L), {}


def sink_tokens(draw: Draw, z: Sizes) -> Made:
    """Three sinks; a sequence with one key, whose first queries see sinks alone."""
    b, h, p, m = z["b"], 2, z["p"], z["m"]
    Q = draw.standard_normal((b, h, p, z["e"]))
    KS, VS = (draw.standard_normal((h, 3, z[x])) for x in "ef")
    K, V = (draw.standard_normal((b, h, m, z[x])) for x in "ef")
    return (Q, KS, VS, K, V, _lengths(draw, b, m)), {}


def hyper(draw: Draw, z: Sizes) -> Made:
    """Sorted blocks that fill the sequence; samples with replacement, none of no token."""
    b, h, B = 1, 2, z["block"]
    n = B * (z["m"] // B)
    Q, K, V = (draw.standard_normal((b, h, n, z[x])) for x in "eef")
    (pq, rank_q), (pk, rank_k) = _orders(draw, b, h, n), _orders(draw, b, h, n)
    sample = draw.integers(0, max(n, 1), (b, h, 2 * B if n else 0))
    return (Q, K, V, pq, pk, rank_q, rank_k, sample), {"B": B}


def paro(draw: Draw, z: Sizes) -> Made:
    """Draw an order for each head; a block of queries sees no key."""
    b, h, B, n = 1, 2, z["block"], z["m"]
    Q, K, V = (draw.standard_normal((b, h, n, z[x])) for x in "eef")
    order, place = _orders(draw, h, n)
    blocks = -(-n // B)
    keep = (draw.random((h, blocks, blocks)) < 0.5).astype(int)
    keep[0, :1] = 0
    return (Q, K, V, order, place, keep), {"B": B}


def sale(draw: Draw, z: Sizes) -> Made:
    """Take estimates near the scores; one threshold keeps some blocks, the other one few."""
    h, B, m = 2, z["block"], min(z["m"], 2 * z["block"] + 3)
    Q, K, V = (draw.standard_normal((h, m, z[x])) for x in "eef")
    X, Y = (x + 0.3 * draw.standard_normal(x.shape) for x in (Q, K))
    sizes = {"B": B, "C": max(1, B // 2), "sinks": max(1, B // 2), "W": B}
    return (Q, K, V, X, Y, numpy.array([0.2, 0.6])), sizes


LAYOUTS: Mapping[str, Callable[[Draw, Sizes], Made]] = {
    f.__name__: f
    for f in (
        core_context, duo_decode, hyper, merge_partial, moa_decode, paged_decode, paged_prefill,
        paro, sale, sink_tokens, streaming_llm, varlen, vertical_slash,
    )
}  # fmt: skip
