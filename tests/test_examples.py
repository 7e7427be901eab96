"""Every declared variant prints back, verifies, and computes what a hand-written formula does."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest

from einfall import examples
from einfall.backends.interpreter import interpret
from einfall.examples.inputs import RECIPES, make
from einfall.ir.cascade import Cascade
from einfall.ir.notation import cascade
from einfall.ir.traversals import analyse
from einfall.ir.verify import verify

from . import dense_oracles, output_oracles, selection_oracles, sparse_oracles

ORACLES = dense_oracles.ORACLES | selection_oracles.ORACLES | output_oracles.ORACLES
ORACLES |= sparse_oracles.SPARSE
EVERY = examples.names() + examples.refused()
OURS = ("absmax_scaled", "l2_normalised", "sigmoid_of_max")
"""Variants that test the compiler and come from no paper."""


def declared(name: str) -> Cascade:
    found = getattr(examples, name)
    assert isinstance(found, Cascade)
    return found


def outputs(name: str, *tensors: Any, **parameters: Any) -> tuple[Any, ...]:
    found = interpret(declared(name), *tensors, **parameters)
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("name", EVERY)
def test_text_round_trips_and_verifies(name: str) -> None:
    found = declared(name)
    assert found.name == name
    assert cascade(str(found)) == found
    assert verify(found) is found
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_dense_formula(name: str, seed: int) -> None:
    tensors, parameters = make(name, seed, dtype="float64")
    expected = ORACLES[name](*tensors, **parameters)
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = outputs(name, *tensors, **parameters)
    assert len(found) == len(expected) == len(declared(name).outputs)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


def test_there_is_an_oracle_and_a_recipe_for_each_and_for_nothing_else() -> None:
    assert sorted(ORACLES) == sorted(RECIPES) == sorted(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_docstring_states_shapes_and_a_source(name: str) -> None:
    folder = Path(examples.__file__).parent
    path = folder / f"{name}.einsum"
    text = (path if path.exists() else folder / "refused" / path.name).read_text()
    docstring = text.split('"""')[1]
    assert "-->" in docstring
    assert name in OURS or any(x in docstring for x in ("arXiv", "1979", "1980", "2023"))
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", ["causal", "causal_lse", "entropy", "sliding_window", "sink"])
def test_a_query_without_keys_gives_zero(name: str) -> None:
    tensors, parameters = make(name, 0, "float64")
    empty = tensors[0].shape[2] - tensors[1].shape[2]
    assert empty == 2
    out, *others = outputs(name, *tensors, **parameters)
    assert not out[:, :, :empty].any() and out[:, :, empty:].any(axis=-1).all()
    if others:
        assert (others[0][:, :, :empty] == -numpy.inf).all()
        assert numpy.isfinite(others[0][:, :, empty:]).all()
    if name == "entropy":
        # One key has weight 1 and no surprise; no key has none either.
        assert not others[1][:, :, :empty].any() and (others[1] > -1e-12).all()


@pytest.mark.parametrize("name", ["padding", "cross", "varlen_decode"])
def test_an_empty_sequence_gives_zero_whatever_its_padding_holds(name: str) -> None:
    (Q, K, V, length), parameters = make(name, 1, "float64")
    assert length[0] == 0
    rank = 1 if name == "varlen_decode" else 2
    K, V = K.copy(), V.copy()
    for tensor in (K, V):
        for b, n in enumerate(length):
            numpy.moveaxis(tensor[b], rank - 1, 0)[n:] = numpy.nan
    out, *others = outputs(name, Q, K, V, length, **parameters)
    assert numpy.isfinite(out).all() and not out[0].any()
    assert all((x[0] == -numpy.inf).all() for x in others)


def test_one_chunk_of_queries_continues_the_whole() -> None:
    """The last query stands at the last key, so any tail of the queries gives the same rows."""
    (Q, K, V), _ = make("causal", 5, "float64", {"p": 6, "m": 6})
    whole = interpret(examples.causal, Q, K, V)
    for start in range(6):
        tail = interpret(examples.causal, Q[:, :, start:], K, V)
        numpy.testing.assert_allclose(tail, whole[:, :, start:], rtol=1e-13)


def test_inputs_are_reproducible_and_differ_by_seed_and_example() -> None:
    one, again, other = (make("gqa", seed)[0] for seed in (0, 0, 1))
    assert all((x == y).all() for x, y in zip(one, again, strict=True))
    assert not (one[0] == other[0]).any()
    assert not (one[0] == make("mqa", 0)[0][0]).any()
    assert {x.dtype for x in make("gqa", dtype="float16")[0]} == {numpy.dtype("float16")}
    assert make("padding")[0][3].dtype == numpy.int32


def test_unknown_names_are_told() -> None:
    with pytest.raises(AttributeError, match="causal"):
        examples.casual  # noqa: B018
    with pytest.raises(KeyError):
        make("causal", scale="huge")
    assert {"names", "causal", "sparsemax"} <= set(dir(examples))


@pytest.mark.parametrize(
    ("name", "rank", "walks"),
    [
        ("fusemax_cascade1", "k", 2),
        ("fusemax_cascade2", "k", 1),
        ("fusemax_cascade3", "i", 1),
        ("fusemax_3pass", "m", 3),
        ("fusemax_3pass_deferred", "m", 2),
        ("fusemax_2pass", "m0", 2),
        ("fusemax_1pass", "m0", 1),
    ],
)
def test_walks_are_as_many_as_the_paper_counts(name: str, rank: str, walks: int) -> None:
    assert analyse(declared(name))[rank].levels == walks
