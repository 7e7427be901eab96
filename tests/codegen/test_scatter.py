"""What lists put in place: stored where they say, summed list by list, 0 where nothing belongs."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall.passes.scatter_store import invert_lists

from .kernel_cases import assert_kernels_agree, outputs, relative, run_nests

ONE = """
def put(X, W, idx: unique):
    O[b, p, f] = sum[u: idx[b, u] == p](X[b, u, f] * W[p])
    return O
"""

SEVERAL = """
def add(X, W, idx{unique}):
    O[b, p, f] = sum[c, u: idx[b, c, u] == p](X[b, c, u, f] * W[p])
    return O
"""


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(numpy.random.default_rng(seed).standard_normal(shape)).float()


def lists(*shape: int, of: int) -> torch.Tensor:
    """Return lists of different numbers below ``of``; some entries name nothing."""
    draw = numpy.random.default_rng(3)
    found = [draw.permutation(of)[: shape[-1]] for _ in range(int(numpy.prod(shape[:-1])))]
    made = numpy.array(found, numpy.int32).reshape(shape)
    made[..., 2], made[..., 5] = -1, of + 3
    return torch.from_numpy(made)


def agree(text: str, *tensors: torch.Tensor, **given: Any) -> Any:
    cascade = einfall.cascade(text)
    lowered = assert_kernels_agree(cascade, list(tensors), given, 2e-6)
    truth = outputs(einfall.interpret(cascade, *tensors, **given))
    for got, expected in zip(run_nests(cascade, lowered, list(tensors), given), truth, strict=True):
        assert relative(got, expected) < 1e-13
    return lowered


def test_points_are_stored_where_a_list_says() -> None:
    X, W, idx = numbers(2, 20, 16), numbers(50, seed=1), lists(2, 20, of=50)
    lowered = agree(ONE, X, W, idx)
    kernel = lowered.mapping.kernels[0]
    assert kernel.scattered == ("O_sum",) and not kernel.ranks("streamed")
    truth = torch.zeros(2, 50, 16, dtype=torch.float64)
    for b, u in numpy.ndindex(2, 20):
        p = int(idx[b, u])
        if 0 <= p < 50:
            truth[b, p] = X[b, u].double() * W[p].double()
    found = einfall.compile(einfall.cascade(ONE), backend="triton")(X, W, idx)
    assert relative(found, truth.numpy()) < 1e-7


def test_nothing_of_an_earlier_call_is_left() -> None:
    f = einfall.compile(einfall.cascade(ONE), backend="triton")
    X, W = numbers(1, 8, 16), torch.ones(40)
    first, second = torch.arange(8).int()[None], torch.arange(20, 28).int()[None]
    f(X, W, first)
    found = f(X, W, second)
    assert not found[0, :20].any() and torch.equal(found[0, 20:28], X[0])


def test_what_several_lists_put_at_a_coordinate_is_summed() -> None:
    X, W, idx = numbers(2, 3, 12, 16), numbers(20, seed=1), lists(2, 3, 12, of=20)
    lowered = agree(SEVERAL.format(unique=": unique"), X, W, idx)
    scattered = [k.scattered for k in lowered.mapping.kernels]
    assert scattered[0] == ("idx_place",) and not any(scattered[1:])
    truth = torch.zeros(2, 20, 16, dtype=torch.float64)
    for b, c, u in numpy.ndindex(2, 3, 12):
        p = int(idx[b, c, u])
        if 0 <= p < 20:
            truth[b, p] += X[b, c, u].double() * W[p].double()
    f = einfall.compile(einfall.cascade(SEVERAL.format(unique=": unique")), backend="triton")
    assert relative(f(X, W, idx), truth.numpy()) < 1e-6
    # the order of a sum is that of the lists, so that equal calls give equal bits
    assert torch.equal(f(X, W, idx), f(X, W, idx))


def test_what_is_computed_is_stored_in_place() -> None:
    """A walk over keys ends at rows that a list of selected queries names."""
    text = """
def rows(Q, K, V, E, *, k):
    I[b, u] = topk[p, k](E[b, p])
    S[b, u, m] = Q[b, I[b, u], e] * K[b, m, e]
    A[b, u, m] = softmax[m](S[b, u, m])
    Y[b, u, f] = A[b, u, m] * V[b, m, f]
    O[b, p, f] = sum[u: I[b, u] == p](Y[b, u, f])
    return O
"""
    Q, K, V = numbers(2, 40, 16), numbers(2, 50, 16, seed=1), numbers(2, 50, 16, seed=2)
    lowered = agree(text, Q, K, V, numbers(2, 40, seed=3), k=17)
    *_, last = lowered.mapping.kernels
    assert last.scattered and last.ranks("streamed") == ("m",)


def test_turning_lists_round_keeps_sums() -> None:
    cascade = einfall.cascade(SEVERAL.format(unique=": unique"))
    turned = invert_lists(cascade)
    assert turned != cascade
    given = (numbers(2, 3, 12, 16), numbers(20, seed=1), lists(2, 3, 12, of=20))
    one, other = (einfall.interpret(c, *given) for c in (cascade, turned))
    assert relative(one, other) < 1e-15


def test_a_list_that_repeats_is_summed_by_a_walk() -> None:
    """Without the word a list may name a coordinate twice; each row then looks for its own."""
    X, W, idx = numbers(1, 20, 16), numbers(50, seed=1), lists(1, 20, of=50)
    idx[0, 7] = idx[0, 8]
    lowered = agree(ONE.replace(": unique", ""), X, W, idx)
    assert not lowered.mapping.kernels[0].scattered


@pytest.mark.parametrize("text", [ONE, "def f(K, idx: unique):\n    S[b, p: p in idx[b]] = K[p]\n"
                                  "    O[b] = S[b, p]\n    return O"])  # fmt: skip
def test_the_interpreter_holds_lists_to_their_word(text: str) -> None:
    idx = torch.tensor([[4, 1, -1, -1], [2, 7, 60, 2]])
    given = [numbers(2, 4, 16), numbers(50)] if text == ONE else [numbers(50)]
    with pytest.raises(einfall.EinfallError, match=r"idx is declared unique.*at \(1,\) names 2"):
        einfall.interpret(einfall.cascade(text), *given, idx)


def test_explain_tells_where_points_go() -> None:
    X, W, idx = numbers(2, 20, 16), numbers(50, seed=1), lists(2, 20, of=50)
    text = str(einfall.compile(einfall.cascade(ONE)).lower(X, W, idx).explain())
    assert "p of memory is at idx[b, u]" in text and "holds 0" in text
