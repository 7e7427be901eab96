"""Sparse examples that leave nothing out are dense; groups, lengths and rows at the edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

import einfall
from einfall import examples
from einfall.examples.inputs import make

from .codegen.kernel_cases import arguments, assert_kernels_agree
from .selection_oracles import scores, weights
from .test_examples import ORACLES

Array = Any
Changed = tuple[list[Array], dict[str, Any]]


def dense(Q: Array, K: Array, V: Array, causal: bool = True, scaled: bool = True) -> Array:
    """Return attention of every query to every key, or to those that come no later."""
    S = scores(Q, K) * (1 if scaled else numpy.sqrt(Q.shape[-1]))
    n, m = S.shape[-2:]
    return weights(S, numpy.tri(n, m, m - n, dtype=bool) | (not causal)) @ V


def shared(x: list[Array], G: int) -> tuple[Array, Array, Array]:
    """Return one query, and the key heads that G query heads share."""
    return x[0][:, :, None], x[1].repeat(G, 1), x[2].repeat(G, 1)


def routed(x: list[Array], p: dict[str, Any]) -> Array:
    return dense(x[0], x[0], x[1], scaled=False) / 1.01


def unsorted(x: list[Array], p: dict[str, Any]) -> Array:
    return dense(x[0], x[1], x[2], causal=False)


def one_query(x: list[Array], p: dict[str, Any]) -> Array:
    Q, K, V = shared(x, p.get("G", 1))
    return dense(Q, K, V, causal=False)[:, :, 0]


def self_attention(x: list[Array], p: dict[str, Any]) -> Array:
    return dense(x[0], x[1], x[2])


def grouped(x: list[Array], p: dict[str, Any]) -> Array:
    return dense(x[0], x[1].repeat(p["G"], 1), x[2].repeat(p["G"], 1))


EVERYTHING: dict[str, tuple[dict[str, Any], dict[int, Callable[[Array], Array]], Any]] = {
    # example: parameters, tensors that are changed, what it then is
    "block_lists": (
        {},
        {3: lambda B: 0 * B + numpy.arange(B.shape[-1]), 4: lambda c: 0 * c + 99},
        unsorted,
    ),
    "core_context": ({"s": 99}, {}, self_attention),
    "double_sparsity": ({"k": 99}, {}, one_query),
    "duo_attention": ({}, {3: numpy.ones_like}, grouped),
    "flex_prefill_blocks": ({"tau": 9.0, "gamma": 2.0}, {}, self_attention),
    "longlora": ({"G": 99}, {}, self_attention),
    "moa": ({}, {4: lambda s: 0 * s + 99}, self_attention),
    "paro": ({}, {5: numpy.ones_like}, unsorted),
    "quest": ({"k": 99}, {}, one_query),
    "routing": ({"w": 99}, {2: lambda M: M[:, :1]}, routed),
    "sale": ({}, {5: numpy.zeros_like}, self_attention),
    "seer_attention": ({"tau": -1.0}, {}, self_attention),
    "sink_window": ({"W": 99}, {}, self_attention),
    "sliding_window": ({"W": 99}, {}, self_attention),
    "strided": ({"stride": 1}, {}, self_attention),
    "topk_blocks": ({"k": 99}, {}, self_attention),
}


def changed(name: str, seed: int) -> Changed:
    parameters, tensors, _ = EVERYTHING[name]
    given, plain = make(name, seed, dtype="float64")
    return [tensors.get(k, lambda x: x)(x) for k, x in enumerate(given)], {**plain, **parameters}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_what_leaves_nothing_out_is_dense(name: str, seed: int) -> None:
    given, parameters = changed(name, seed)
    found = einfall.interpret(getattr(examples, name), *given, **parameters)
    found = found[0] if isinstance(found, tuple) else found
    truth = EVERYTHING[name][2](given, parameters)
    numpy.testing.assert_allclose(found, truth, rtol=1e-11, atol=1e-13)


def test_lists_of_everything_are_every_coordinate() -> None:
    for name, more in (("snapkv", {"k": 6}), ("ada_snapkv", {"k": 6, "least": 6})):
        given, parameters = make(name, 0, dtype="float64")
        found = einfall.interpret(getattr(examples, name), *given, **{**parameters, **more})
        lists = found[0] if isinstance(found, tuple) else found
        length = given[1].shape[2]
        assert length == 6
        assert (numpy.sort(lists, -1) == numpy.arange(length)).all()


def test_a_list_of_nothing_gives_nothing() -> None:
    given, parameters = make("topk_blocks", 0, dtype="float64")
    found, _ = einfall.interpret(examples.topk_blocks, *given, **{**parameters, "k": 0})
    assert not found.any()
    given, parameters = make("block_lists", 0, dtype="float64")
    given = (*given[:4], numpy.zeros_like(given[4]))
    found, L = einfall.interpret(examples.block_lists, *given, **parameters)
    assert not found.any() and (L == -numpy.inf).all()


GROUPED = ("ada_snapkv", "duo_attention", "gqa", "heavy_hitters", "quest", "snapkv", "tidal_decode")


@pytest.mark.parametrize("group", [1, 4, 6, 8])
@pytest.mark.parametrize("name", GROUPED)
def test_groups_of_heads(name: str, group: int) -> None:
    given, parameters = make(name, 1, "float64", {"h": 2 * group, "group": group})
    truth = ORACLES[name](*given, **parameters)
    found = einfall.interpret(getattr(examples, name), *given, **parameters)
    pairs = zip(
        found if isinstance(found, tuple) else (found,),
        truth if isinstance(truth, tuple) else (truth,),
        strict=True,
    )
    for ours, theirs in pairs:
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["quest", "tidal_decode", "double_sparsity", "duo_decode"])
@pytest.mark.parametrize("length", [1, 2, 3, 16])
def test_decoding_from_the_first_token_on(name: str, length: int) -> None:
    scale = {"m": length, "block": max(1, length // 2)}
    given, parameters = make(name, 2, "float64", scale)
    truth = ORACLES[name](*given, **parameters)
    found = einfall.interpret(getattr(examples, name), *given, **parameters)
    pairs = zip(
        found if isinstance(found, tuple) else (found,),
        truth if isinstance(truth, tuple) else (truth,),
        strict=True,
    )
    for ours, theirs in pairs:
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


SHORT = {"b": 1, "h": 6, "group": 6, "p": 20, "m": 37, "e": 16, "f": 16, "block": 16}
"""Six heads to a key head, and a last block that is ragged."""


@pytest.mark.parametrize("name", ["quest", "moa", "block_lists"])
def test_kernels_of_six_heads_to_a_group(name: str) -> None:
    tensors, parameters = arguments(name, "float32", SHORT)
    more = {k: v for k, v in EVERYTHING[name][0].items() if k != "k"}
    cascade = getattr(examples, name)
    assert_kernels_agree(cascade, tensors, {**parameters, **more}, 2e-5, {"p": 16, "m": 16})
