"""Random cascades: their text, their check, their values, and a second reading of the language."""

from __future__ import annotations

import warnings
from typing import Any

import numpy
import pytest

from einfall.backends.interpreter import evaluate, interpret
from einfall.ir.expression import Reduce
from einfall.ir.notation import cascade as parse
from einfall.ir.sizes import rank_sizes, tensor_shape
from einfall.ir.verify import verify

from .pointwise_reference import reference
from .random_cascades import random_cascade

BATCHES = range(20)
BATCH = 50
"""20 * 50 seeds; a failure's message has the seed."""


@pytest.mark.parametrize("batch", BATCHES)
def test_the_text_of_a_cascade_parses_back_to_it(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        c, _, _ = random_cascade(seed)
        assert verify(c) is c, seed
        assert parse(str(c)) == c, seed


@pytest.mark.parametrize("batch", BATCHES)
def test_values_agree_with_a_reading_point_by_point(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        c, inputs, parameters = random_cascade(seed)
        sizes = rank_sizes(c, {name: x.shape for name, x in inputs.items()}, parameters)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            computed = evaluate(c, inputs, parameters)
        extrema = {
            e.name
            for e in c.einsums
            if isinstance(e.body, Reduce) and e.body.reducer in ("max", "min")
        }
        ask = reference(c, inputs, parameters, sizes)
        for name, tensor in computed.items():
            if name in inputs:
                continue
            assert tensor.values.shape == tensor_shape(c, name, sizes), (seed, name)
            # Only the extremum of nothing is infinite, and nothing is NaN.
            live = tensor.values.astype(float)
            assert not numpy.isnan(live).any(), (seed, name)
            assert name in extrema or numpy.isfinite(live).all(), (seed, name)
            mask = tensor.mask()
            for point in numpy.ndindex(tensor.values.shape):
                expected, got = ask(name, point), tensor.values[point]
                where = (seed, name, point, expected, got)
                assert mask[point] == (expected is not None), where
                assert _close(got, 0 if expected is None else expected), where


def _close(got: Any, expected: float) -> bool:
    """Whether two numbers differ by rounding at most; infinities must be the same."""
    return bool(got == expected) or abs(float(got) - expected) <= 1e-10 * max(1, abs(expected))


@pytest.mark.parametrize("batch", range(4))
def test_blocks_and_returned_tensors_agree(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        c, inputs, parameters = random_cascade(seed)
        whole, parts = evaluate(c, inputs, parameters), evaluate(c, inputs, parameters, block=7)
        scalars: dict[str, Any] = parameters
        returned = interpret(c, *inputs.values(), **scalars)
        results = returned if isinstance(returned, tuple) else (returned,)
        for name, result in zip(c.outputs, results, strict=True):
            assert numpy.array_equal(result, whole[name].values), (seed, name)
        for name, tensor in whole.items():
            assert numpy.array_equal(parts[name].mask(), tensor.mask()), (seed, name)
            numpy.testing.assert_allclose(
                parts[name].values, tensor.values, rtol=1e-10, atol=1e-10, err_msg=f"{seed} {name}"
            )


def test_the_generator_reaches_every_part_of_the_language() -> None:
    seen: dict[str, int] = {}
    for seed in range(len(BATCHES) * BATCH):
        c, _, _ = random_cascade(seed)
        assert 3 <= len(c.einsums) <= 13
        for einsum in c.einsums:
            seen["filter"] = seen.get("filter", 0) + (einsum.filter is not None)
            seen["generation"] = seen.get("generation", 0) + (einsum.generation is not None)
            for x in einsum.expressions():
                kind = type(x).__name__
                label = getattr(x, "operator", getattr(x, "reducer", getattr(x, "selector", kind)))
                seen[label] = seen.get(label, 0) + 1
    operators = (
        "or and not in == != < <= > >= + - * / // % neg exp exp2 log log2 sqrt rsqrt tanh sigmoid "
        "relu erf sin cos abs bit_length min max where default stop_gradient "
        "sum prod any all argmax argmin topk threshold cover Concatenate filter generation"
    )
    assert {name for name in operators.split() if seen.get(name, 0) < 10} == set()


def test_features_can_be_left_out() -> None:
    kinds = set()
    for seed in range(100):
        c, _, _ = random_cascade(seed, frozenset({"filter"}))
        kinds |= {type(x).__name__ for e in c.einsums for x in (e.body, *e.output.coordinates)}
    assert "Reduce" in kinds
    assert kinds.isdisjoint({"Populate", "Concatenate", "Constant"})
