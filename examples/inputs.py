"""Arguments for every example, reproducible from a seed: what all test suites feed to kernels.

::

    tensors, parameters = make("gqa", seed=0, scale="tiny")
    einfall.interpret(einfall.examples.gqa, *tensors, **parameters)

Every tensor of an example is written as its name and its extents, in the sizes of a scale:
``K: b kv m e``. Real tensors are standard normal unless ``SPECIAL`` has a maker for their name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy
from numpy.typing import NDArray

from .inputs_layouts import LAYOUTS, Made

Array = NDArray[Any]
Sizes = dict[str, int]

SCALES: Mapping[str, Sizes] = {
    # Every rank's size differs from every other one's, so that none can be mistaken for another.
    "tiny": {"b": 2, "h": 6, "group": 2, "p": 5, "m": 7, "e": 4, "f": 8, "block": 3},
    # For Triton's interpreter: features as a dot wants them, lengths that no tile divides.
    "small": {"b": 2, "h": 4, "group": 2, "p": 72, "m": 100, "e": 16, "f": 32, "block": 16},
    # For a GPU: several tiles a row, and a partial one at the end.
    "medium": {"b": 2, "h": 8, "group": 4, "p": 500, "m": 777, "e": 64, "f": 64, "block": 64},
}
"""Sizes: ``group`` query heads share a key head; ``block`` is the width of blocks and windows."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the arguments of one example are made.

    tensors : ``"K: b kv m e"`` each, in the order of the ``def``; an integer is an extent too.
    parameters : the name of a size, or a number, for each parameter.
    lengths : ``cross`` (p < m), ``self`` (p is m), ``blocks`` (the same, a multiple of block),
        ``short`` (m < p: the first queries of a causal variant see no key), ``few`` (keys for two
        blocks: rows that are put in order), ``three`` (as ``blocks``, three wide ones) or
        ``question`` (p is a third of m).
    made : makes all of it instead, where index tensors depend on one another.
    """

    tensors: tuple[str, ...] = ("Q: b h p e", "K: b h m e", "V: b h m f")
    parameters: Mapping[str, str | float] = field(default_factory=dict)
    lengths: str = "cross"
    made: Callable[[numpy.random.Generator, Mapping[str, int]], Made] | None = None


QKV = ("Q: b h p e", "K: b h m e", "V: b h m f")
ONE = ("Q: b h e", "K: b h m e", "V: b h m f")
GROUPED = ("Q: b h e", "K: b kv m e", "V: b kv m f")
PAPER = ("Q: e p", "K: e m", "V: f m")
PAIR = ("A: m", "B: m")

RECIPES: Mapping[str, Recipe] = {
    "absmax_scaled": Recipe(lengths="short"),
    "ada_spa": Recipe((*QKV[:2], "L: b h p"), {"B": "block"}),
    "ada_snapkv": Recipe(
        ("Q: b kv group p e", "K: b kv m e"),
        {"G": "group", "R": 2, "near": 2, "sinks": 1, "least": 3, "k": 4},
        "few",
    ),
    "alibi": Recipe((*QKV, "slope: h")),
    "attention": Recipe(),
    "attention_calibration": Recipe(parameters={"beta": 0.4, "theta": 0.15}, lengths="self"),
    "attention_naive": Recipe(),
    "attention_softmax": Recipe(),
    "block_lists": Recipe(
        (*QKV, "Blocks: b h rows columns", "Count: b h rows"), {"P0": "wide", "M0": "block"}
    ),
    "block_diagonal": Recipe(parameters={"B": "block"}),
    "causal": Recipe(lengths="short"),
    "causal_lse": Recipe(lengths="short"),
    "cosine": Recipe(parameters={"scale": 7.5}),
    "cross": Recipe((*QKV, "length: b")),
    "differential": Recipe(
        ("Q1: b h p e", "K1: b h m e", "Q2: b h p e", "K2: b h m e", "V: b h m f", "weight: h")
    ),
    "dilated": Recipe(parameters={"W": "block", "step": 2}, lengths="self"),
    "double_sparsity": Recipe((*ONE, "C: h 3"), {"k": 5}, "few"),
    "duo_attention": Recipe(
        ("Q: b h p e", "K: b kv m e", "V: b kv m f", "retrieval: kv"),
        {"G": "group", "sinks": 1, "recent": 2},
    ),
    "document": Recipe((*QKV, "doc: b m"), lengths="self"),
    "document_starts": Recipe((*QKV, "begin: b m"), lengths="self"),
    "dropout": Recipe(parameters={"seed": 3, "rate": 0.25}, lengths="short"),
    "entropy": Recipe(lengths="short"),
    "flex_prefill": Recipe(QKV[:2]),
    "flex_prefill_blocks": Recipe(
        ("Q: kv m e", "K: kv m e", "V: kv m f"),
        {"B": "wide", "gamma": 0.7, "tau": 0.08, "least": 1},
        "three",
    ),
    "fusemax_1pass": Recipe(PAPER, {"M0": "block"}),
    "fusemax_2pass": Recipe(PAPER, {"M0": "block"}),
    "fusemax_3pass": Recipe(PAPER),
    "fusemax_3pass_deferred": Recipe(PAPER),
    "fusemax_cascade1": Recipe(PAIR),
    "fusemax_cascade2": Recipe(PAIR),
    "fusemax_cascade3": Recipe(PAIR),
    "gqa": Recipe(("Q: b h p e", "K: b kv m e", "V: b kv m f"), {"G": "group"}),
    "gradient_row": Recipe(("Q: b h e", "K: b h m e", "V: b h m f", "dO: b h f")),
    "heavy_hitters": Recipe(
        ("Q: b h p e", "K: b kv m e", "V: b kv m f"), {"G": "group"}, lengths="short"
    ),
    "infini_retri": Recipe(QKV[:2], {"start": 1, "width": 4}, lengths="question"),
    "l2_normalised": Recipe(lengths="short"),
    "landmark": Recipe(parameters={"B": "block"}, lengths="self"),
    "linear": Recipe(),
    "longlora": Recipe(parameters={"G": "block"}, lengths="self"),
    "longlora_roll": Recipe(parameters={"G": "block"}, lengths="blocks"),
    "lse": Recipe(),
    "median": Recipe(QKV[:2]),
    "mla_decode": Recipe(
        ("Q: b h e", "R: b h f", "Z: b m e", "K: b m f", "length: b"), {"scale": 0.25}
    ),
    "moa": Recipe((*QKV, "sinks: h", "spans: h"), {"B": "half"}, lengths="self"),
    "mqa": Recipe(("Q: b h p e", "K: b m e", "V: b m f")),
    "padding": Recipe((*QKV, "length: b")),
    "prefix_lm": Recipe((*QKV, "prefix: b"), lengths="self"),
    "quest": Recipe(GROUPED, {"G": "group", "B": "block", "k": 2}),
    "radial": Recipe(parameters={"s": 4}),
    "radial_blocks": Recipe((*QKV, "Keep: frames offsets"), {"s": "block", "B": "half"}),
    "radial_mask": Recipe(
        ("distance: frames", "offset: offsets", "lane: half"), {"s": "block", "B": "half"}
    ),
    "relative_keys": Recipe((*QKV, "R: h distances e"), lengths="self"),
    "relative_bias": Recipe((*QKV, "R: h distances")),
    "relu_squared": Recipe(lengths="short"),
    "retrieval_head": Recipe(
        ("Q: b h e", "K: b kv m e", "V: b kv m f", "length: b"), {"G": "group"}
    ),
    "rope_in_kernel": Recipe((*QKV, "freq: e")),
    "score_statistics": Recipe(QKV[:2]),
    "seer_attention": Recipe(
        (*QKV, "Wq: h e 16", "Wmax: h e 16", "Wmin: h e 16", "Wmean: h e 16"),
        {"B": "wide", "tau": 0.15},
        lengths="self",
    ),
    "snapkv": Recipe(
        ("Q: b kv group p e", "K: b kv m e"),
        {"G": "group", "R": 2, "near": 2, "sinks": 1, "k": 5},
        "few",
    ),
    "seer_target": Recipe(parameters={"B": "block"}, lengths="short"),
    "sigmoid": Recipe(),
    "sigmoid_of_max": Recipe(),
    "sink": Recipe((*QKV, "logit: h"), lengths="short"),
    "sink_window": Recipe(parameters={"W": "block", "sinks": 2}, lengths="short"),
    "sliding_window": Recipe(parameters={"W": "block"}, lengths="short"),
    "snapkv_scores": Recipe(("Q: b h p e", "K: b kv m e"), {"G": "group", "width": 5}),
    "softcap": Recipe(parameters={"cap": 1.5}, lengths="short"),
    "sparsemax": Recipe(),
    "routing": Recipe(("X: b h m e", "V: b h m f", "M: h 3 e"), {"w": "half"}, "few"),
    "tidal_decode": Recipe(
        (*GROUPED, "Qn: b h e", "Kn: b kv m e", "Vn: b kv m f"), {"G": "group", "k": 5}, "few"
    ),
    "topk_blocks": Recipe(parameters={"B": "wide", "k": 2}, lengths="self"),
    "strided": Recipe(parameters={"stride": "block"}, lengths="self"),
    "varlen_decode": Recipe(
        ("Q: b h e", "K: b m kv e", "V: b m kv f", "length: b"), {"G": "group"}
    ),
    "visual_redistribution": Recipe(
        (*QKV, "label: b m"), {"end": 3, "rho": 0.5, "mass": 0.2, "keep": 0.6}
    ),
    "zero_tuning": Recipe((*QKV, "gamma: h"), lengths="short"),
    **{name: Recipe(made=maker) for name, maker in LAYOUTS.items()},
}


def make(
    name: str, seed: int = 0, dtype: str = "float32", scale: str | Mapping[str, int] = "tiny"
) -> tuple[tuple[Array, ...], dict[str, Any]]:
    """Return an example's tensors, in the order of its ``def``, and its parameters.

    Parameters
    ----------
    name : the example's name, e.g. ``"causal"``.
    dtype : a numpy dtype for the real tensors; integers are int32. Values are rounded to it, so the
        same seed gives the same numbers at every precision, up to that rounding.
    scale : ``"tiny"`` (the interpreter, by hand), ``"small"`` (Triton's interpreter), ``"medium"``
        (a GPU), or sizes that replace some of those of ``"tiny"``, e.g. ``{"m": 9}``.

    Raises
    ------
    KeyError : an unknown example or scale.
    """
    recipe = RECIPES[name]
    sizes = SCALES["tiny"] | dict(scale) if isinstance(scale, Mapping) else dict(SCALES[scale])
    sizes = _derived(sizes, recipe.lengths)
    draw = numpy.random.default_rng([seed, *name.encode()])
    if recipe.made is not None:
        arrays, parameters = recipe.made(draw, sizes)
        kept = (x.astype(numpy.int32 if x.dtype.kind == "i" else dtype) for x in arrays)
        return tuple(kept), parameters
    tensors = []
    for entry in recipe.tensors:
        tensor, _, extents = entry.partition(": ")
        shape = tuple(sizes[x] if x in sizes else int(x) for x in extents.split())
        maker = SPECIAL.get(tensor, NORMAL)
        values = maker(draw, shape, sizes)
        kind = {"i": "int32", "b": "bool"}.get(values.dtype.kind, dtype)
        tensors.append(values.astype(kind))
    parameters = {
        key: sizes[value] if isinstance(value, str) else value
        for key, value in recipe.parameters.items()
    }
    return tuple(tensors), parameters


def _derived(sizes: Sizes, lengths: str) -> Sizes:
    """Return the sizes with those that follow from them."""
    p, m = sizes["p"], sizes["m"]
    if lengths == "self":
        p = m
    elif lengths == "few":
        p, m = min(p, 5), 2 * sizes["block"]
    elif lengths == "three":
        p = m = 6 * sizes["block"]
    elif lengths == "blocks":
        p = m = m // sizes["block"] * sizes["block"]
    elif lengths == "short":
        p, m = max(p, m), min(p, m)
    elif lengths == "question":
        p = max(m // 3, 1)
    block = sizes["block"]
    more = {"wide": 2 * block, "rows": -(-p // (2 * block)), "columns": -(-m // block)}
    more |= {"frames": -(-max(p, m) // block), "half": -(-block // 2), "offsets": 3}
    more |= {"kv": sizes["h"] // sizes["group"], "distances": max(p + m - 1, 0)}
    return sizes | {"p": p, "m": m} | more


Maker = Callable[[numpy.random.Generator, tuple[int, ...], Sizes], Array]


def _length(draw: numpy.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> Array:
    """Draw lengths from 0 to m; the first sequence is empty, the last one full."""
    lengths = draw.integers(0, sizes["m"] + 1, shape)
    lengths[:1], lengths[-1:] = 0, sizes["m"]
    return lengths


def _documents(draw: numpy.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> Array:
    """Draw numbers that rise along the sequence, by 1 at about every third token."""
    return numpy.cumsum(draw.random(shape) < 1 / 3, axis=-1)


def _begins(draw: numpy.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> Array:
    """Return where each token's document begins, of documents as above."""
    doc = _documents(draw, shape, sizes)
    places = numpy.broadcast_to(numpy.arange(shape[-1]), shape)
    first = numpy.diff(doc, axis=-1, prepend=-1) != 0
    return numpy.maximum.accumulate(numpy.where(first, places, 0), axis=-1)


def _frequencies(draw: numpy.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> Array:
    """Return the geometric frequencies of arXiv 2104.09864, once for each half."""
    half = 10000.0 ** (-numpy.arange(shape[0] // 2) / (shape[0] // 2))
    return numpy.concatenate([half, half])


def _lists(draw: numpy.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> Array:
    """Draw lists of the numbers below the last extent, each once, in any order."""
    return draw.permuted(numpy.broadcast_to(numpy.arange(shape[-1]), shape), axis=-1)


def _channels(draw: numpy.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> Array:
    """Draw different features for each head."""
    return numpy.stack([draw.permutation(sizes["e"])[: shape[1]] for _ in range(shape[0])])


def _counts(draw: numpy.random.Generator, shape: tuple[int, ...], sizes: Sizes) -> Array:
    """Draw lengths of lists; one is empty."""
    counts = draw.integers(0, sizes["columns"] + 1, shape)
    counts[..., :1] = numpy.minimum(numpy.arange(shape[1])[:, None] % 2, sizes["columns"])
    return counts


NORMAL: Maker = lambda draw, shape, sizes: draw.standard_normal(shape)  # noqa: E731
SPECIAL: Mapping[str, Maker] = {
    "length": _length,
    "Blocks": _lists,
    "C": _channels,
    "Count": _counts,
    "prefix": lambda draw, shape, sizes: draw.integers(0, sizes["m"] + 1, shape),
    "doc": _documents,
    "begin": _begins,
    "freq": _frequencies,
    "gamma": lambda draw, shape, sizes: draw.uniform(0.3, 3.0, shape),
    "label": lambda draw, shape, sizes: draw.integers(0, 4, shape),
    "L": lambda draw, shape, sizes: 2 + draw.standard_normal(shape),
    "distance": lambda draw, shape, sizes: numpy.arange(shape[0]),
    "offset": lambda draw, shape, sizes: numpy.arange(shape[0]) - shape[0] // 2,
    "lane": lambda draw, shape, sizes: numpy.arange(shape[0]),
    "Keep": lambda draw, shape, sizes: draw.random(shape) < 0.5,
    "retrieval": lambda draw, shape, sizes: numpy.arange(shape[0]) % 2 == 0,
    "sinks": lambda draw, shape, sizes: draw.integers(0, 3, shape),
    "spans": lambda draw, shape, sizes: draw.integers(1, 4, shape),
    "slope": lambda draw, shape, sizes: 2.0 ** (-8.0 * numpy.arange(1, shape[0] + 1) / shape[0]),
    # Positive: the third cascade divides by partial sums of their products.
    "A": lambda draw, shape, sizes: draw.uniform(0.5, 1.5, shape),
    "B": lambda draw, shape, sizes: draw.uniform(0.5, 1.5, shape),
    "weight": lambda draw, shape, sizes: draw.uniform(0.2, 0.8, shape),
}
