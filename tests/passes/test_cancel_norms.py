"""Divisors that a later quotient takes out again: where they go, and where they have to stay."""

from __future__ import annotations

import numpy
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.interpreter import interpret
from einfall.ir.cascade import Cascade
from einfall.ir.notation import cascade
from einfall.ir.verify import verify
from einfall.passes import pipeline
from einfall.passes.cancel_norms import cancel_norms
from einfall.passes.flatten import flatten
from einfall.passes.pipeline import CASCADE_PASSES
from einfall.passes.stabilise import stabilise
from tests import output_oracles
from tests.codegen.kernel_cases import outputs, relative, run_nests
from tests.passes.same_meaning import assert_same_meaning

ROWS, KEYS = 9, 5
"""The last row stands at the last key, so four rows are empty."""

DIVIDED = """
    N[p, m: {filter}] = {numerator}
    D[p] = sum[m](N[p, m])
    A[p, m] = N[p, m] / D[p]
"""
AGAIN = """
    X[p, m] = A[p, m] * g[m]
    Z[p] = sum[m](X[p, m])
    O[p, f] = sum[m](X[p, m] / Z[p] * V[m, f])
"""


def declared(numerator: str, again: str = AGAIN, filter: str = "m < p - 2") -> Cascade:
    text = DIVIDED.format(numerator=numerator, filter=filter) + again
    return stabilise(flatten(cascade("\n".join(line.strip() for line in text.split("\n")))))


def names(c: Cascade) -> set[str]:
    return {e.name for e in c.einsums}


@pytest.mark.parametrize("filter", ["m < p - 2", "m < size(m)", "m >= size(m)"])
@pytest.mark.parametrize("numerator", ["exp(S[p, m])", "relu(S[p, m])", "abs(S[p, m]) + 0.5"])
def test_the_divisor_goes_and_the_value_stays(numerator: str, filter: str) -> None:
    """Rows without points, with all points, with only zeros (``relu``), scales of either sign."""
    c = declared(numerator, filter=filter)
    after = verify(cancel_norms(c))
    assert names(c) - names(after) == {"D"}
    assert cancel_norms(after) is after
    assert_same_meaning(c, after)
    signs = numpy.array([0, -1, 2, 0, 1, 3, 0.5])
    assert_same_meaning(c, after, given={"g": signs, "S": -numpy.ones((5, 7))})
    assert_same_meaning(c, after, given={"g": signs})
    assert_same_meaning(c, after, given={"g": 0 * signs})


DIFFERENT = [
    # divided once
    "O[p, f] = sum[m](A[p, m] * V[m, f])",
    "O[p, m] = A[p, m] * A[p, m]",
    # the divisor or what it divided is told
    AGAIN + "L[p] = log(D[p])\n    return O, L",
    AGAIN + "return O, A",
    AGAIN + "return O, Z",
    # rows of different scales are added
    AGAIN + "C[m] = sum[p](A[p, m])\n    return O, C",
    # a term without the scale
    AGAIN.replace("* g[m]", "+ g[m]"),
    # it decides
    AGAIN + "J[p] = argmax[m](A[p, m])\n    return O, J",
    AGAIN.replace("* g[m]", "* where(A[p, m] > 0.1, g[m], 1)"),
    # another row's
    AGAIN.replace("A[p, m] * g[m]", "A[size(p) - 1 - p, m] * g[m]"),
    # powers leave the range
    AGAIN.replace("* g[m]", "* A[p, m]"),
    # not a multiple of what is summed: where D is 0, B would no longer be
    "B[p, m] = g[m] / D[p]" + AGAIN.replace("A[p, m]", "B[p, m]") + "return O",
    # the scale may be infinite, and 0 * inf is no number
    "B[p, m] = N[p, m] / D[p] * log(g[m])" + AGAIN.replace("A[p, m]", "B[p, m]") + "return O",
]


@pytest.mark.parametrize("again", DIFFERENT)
def test_a_divisor_stays_that_makes_a_difference(again: str) -> None:
    c = declared("exp(S[p, m])", again)
    assert cancel_norms(c) is c


@pytest.mark.parametrize(
    "body",
    [
        "D[p] = sum[m: m < 2](N[p, m])",  # it leaves points out
        "D[p: p < 3] = sum[m](N[p, m])",  # it is absent where N is not
        "D[p] = max[m](N[p, m])",
    ],
)
def test_a_divisor_stays_that_may_be_0_beside_a_value(body: str) -> None:
    text = (DIVIDED + AGAIN).replace("D[p] = sum[m](N[p, m])", body)
    c = flatten(cascade(text.format(numerator="relu(S[p, m])", filter="m < p - 2")))
    assert cancel_norms(c) is c


def test_signs_that_cancel_are_why_a_sum_has_to_be_of_nothing_negative() -> None:
    c = declared("S[p, m]", filter="m < 2")
    assert cancel_norms(c) is c
    without = cascade(str(c).replace("A[p, m] = N[p, m] / D[p]", "A[p, m] = N[p, m]"))
    S, g, V = numpy.array([[1.0, -1.0]]), numpy.array([2.0, 1.0]), numpy.ones((2, 1))
    assert interpret(c, S, g, V) == 0
    assert interpret(without, S, g, V) == 1


def test_an_exponential_needs_its_own_maximum_or_a_finite_exponent() -> None:
    framed = "G[p] = max[m{}](S[p, m])\n    N[p, m] = exp(S[p, m] - G[p])"
    text = (DIVIDED + AGAIN).replace("N[p, m: {filter}] = {numerator}", framed)
    whole, part = (flatten(cascade(text.format(x))) for x in ("", ": m < 0"))
    assert "D" not in names(cancel_norms(whole))
    assert cancel_norms(part) is part  # over nothing the maximum is -inf, and N inf


@pytest.mark.parametrize(
    "name", ["attention", "attention_calibration", "entropy", "ada_spa", "visual_redistribution"]
)
def test_examples_that_need_their_divisor_stay(name: str) -> None:
    c = stabilise(flatten(getattr(examples, name)))
    assert cancel_norms(c) is c


def without_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tuple(p for p in CASCADE_PASSES if p[0] != "cancel_norms")
    assert len(kept) == len(CASCADE_PASSES) - 1
    monkeypatch.setattr(pipeline, "CASCADE_PASSES", kept)


def fields(rows: int, keys: int) -> list[list[str]]:
    """Return, for each walk of zero_tuning's kernels, what its accumulators take in by."""
    tensors = arguments(rows, keys)
    lowered = einfall.compile(examples.zero_tuning, backend="triton").lower(*tensors)
    (kernel,) = lowered.mapping.kernels
    return [[f.reducer for f in w.streaming.fields] for w in kernel.traversals]


def arguments(rows: int, keys: int) -> list[torch.Tensor]:
    draw = numpy.random.default_rng(rows)
    shapes = ((2, 2, rows, 16), (2, 2, keys, 16), (2, 2, keys, 16))
    qkv = [torch.from_numpy(draw.standard_normal(s)).float() for s in shapes]
    return [*qkv, torch.tensor([0.3, 4.0])]


def test_one_walk_has_one_sum_less(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fields(40, 50) == [["max", "sum", "sum"]]
    without_the_pass(monkeypatch)
    assert fields(40, 50) == [["max", "sum", "sum", "sum"]]


@pytest.mark.parametrize(("rows", "keys"), [(ROWS, KEYS), (40, 50), (50, 40)])
def test_the_kernel_agrees_with_a_dense_bias(rows: int, keys: int) -> None:
    """Against the logarithm added to the scores, in float64; rows without keys are 0."""
    tensors = arguments(rows, keys)
    wide = [x.double().numpy() for x in tensors]
    truth = numpy.asarray(interpret(examples.zero_tuning, *wide))
    empty = max(rows - keys, 0)
    dense = output_oracles.zero_tuning(*wide)
    assert relative(truth, dense) < 1e-13
    f = einfall.compile(examples.zero_tuning, backend="triton", tiles={"p": 32, "m": 32})
    (nested,) = run_nests(examples.zero_tuning, f.lower(*tensors), tensors, {})
    assert relative(nested, truth) < 1e-13
    (found,) = outputs(f(*tensors))
    assert relative(found, truth) < 2e-6
    assert (found[:, :, :empty] == 0).all() and (nested[:, :, :empty] == 0).all()
    assert (found[:, :, empty:] != 0).all()
