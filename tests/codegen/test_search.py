"""Selections from ranks that no program holds whole: the interpreter's lists, from many kernels."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall.passes.count_lists import count_lists
from einfall.passes.split_selections import split_selections

from .kernel_cases import nests, outputs, relative, run_nests

ROWS, LENGTH = 2, 8493

LISTS = """
def f(X{arguments}):
    T[p, j] = {selection}
    n[p] = sum[j](where(T[p, j] >= 0, 1, 0))
    return T, n
"""


def scores(length: int = LENGTH, rows: int = ROWS) -> torch.Tensor:
    """Return scores with many equal ones, zeros of both signs among them."""
    draw = numpy.random.default_rng(0)
    x = numpy.round(50 * draw.standard_normal((rows, length))) / 50
    x[:, ::7] *= -1.0
    return torch.from_numpy(x).float()


def agree(
    text: str, *tensors: torch.Tensor, tiles: dict[str, int] | None = None, **given: Any
) -> Any:
    """Compare loop nests and kernels with the interpreter; return the lowering."""
    cascade = einfall.cascade(text)
    truth = outputs(einfall.interpret(cascade, *tensors, **given))
    f = einfall.compile(cascade, backend="triton", tiles=tiles or {"m": 4096})
    lowered = f.lower(*tensors, **given)
    for got, expected in zip(run_nests(cascade, lowered, list(tensors), given), truth, strict=True):
        assert numpy.array_equal(got, expected)
    for got, expected in zip(outputs(f(*tensors, **given)), truth, strict=True):
        assert numpy.array_equal(got.numpy(), expected)
    return lowered


@pytest.mark.parametrize(
    "selection",
    [
        "topk[m, 60](X[p, m], forced=m % 300 == 2, forbidden=m > 1500 * p)",
        "topk[m, 3 + 40 * p](X[p, m], ascending=True)",
        "topk[m, 2600](X[p, m], ascending=True)",
        "threshold[m, 1.5](X[p, m], forced=m == 3, forbidden=m % 2 == 1)",
    ],
)
def test_a_program_that_holds_a_row_searches_alone(selection: str) -> None:
    text = LISTS.format(arguments="", selection=selection)
    lowered = agree(text, scores(2500), tiles={"j": 64})
    (searching,) = (k for k in lowered.mapping.kernels if k.search is not None)
    assert searching.searches_rows
    (line,) = [x for x in str(lowered.explain()).splitlines() if "of which a program holds" in x]
    assert "sorts nothing" in line
    assert len(lowered.kernels) == (3 if "forced=m % 300" in selection else 1)


@pytest.mark.parametrize(
    "selection",
    [
        "topk[m, 70](X[p, m])",
        "topk[m, 0](X[p, m])",
        "topk[m, 60](X[p, m], forced=m % 300 == 2, forbidden=m > 5000 * p)",
        "topk[m, 20](X[p, m], forced=m % 300 == 2)",
        "topk[m, 3 + 40 * p](X[p, m], ascending=True)",
        "topk[m, 9000](X[p, m], ascending=True)",
        "threshold[m, 1.5](X[p, m], forced=m == 3, forbidden=m % 2 == 1)",
    ],
)
def test_lists_are_the_interpreters(selection: str) -> None:
    lowered = agree(LISTS.format(arguments="", selection=selection), scores())
    assert lowered.mapping.kernels[0].search is not None


@pytest.mark.parametrize(
    "selection",
    [
        "cover[m, 90](W[p, m], ascending=True)",
        "cover[m, 20](W[p, m], forced=m < 40, ascending=True)",
        "exceed[m, 90](W[p, m], forced=m % 3000 == 0, forbidden=m % 2 == 1, ascending=True)",
        "within[m, 90](W[p, m], ascending=True)",
        "cover[m, 1000000](W[p, m], ascending=True)",
        "exceed[m, 0](W[p, m], ascending=True)",
    ],
)
def test_mass_is_counted_over_long_ranks(selection: str) -> None:
    """Sixteenths add up without rounding, so that running sums meet the bounds exactly."""
    W = torch.from_numpy(numpy.random.default_rng(1).integers(0, 9, (2, LENGTH)) / 16).float()
    agree(LISTS.format(arguments="", selection=selection).replace("f(X", "f(W"), W)


def test_running_sums_end_as_they_are_said_to() -> None:
    """Sums 4, 7, 9, 10 against 7: at 7 the one convention ends, the other goes on."""
    W = torch.zeros(1, LENGTH)
    W[0, [5000, 100, 8300, 40]] = torch.tensor([1.0, 4.0, 2.0, 3.0])
    for selector, members in (("cover", [40, 100]), ("exceed", [40, 100, 8300])):
        text = LISTS.format(arguments="", selection=f"{selector}[m, 7](X[p, m], ascending=True)")
        f = einfall.compile(einfall.cascade(text), backend="triton", tiles={"m": 4096})
        T, n = f(W)
        assert T[0, : n[0]].tolist() == members


def test_the_lowest_coordinates_win_ties() -> None:
    X = torch.zeros(1, LENGTH)
    X[0, 8000] = 1.0  # the others fill one tile and a half
    text = LISTS.format(arguments=", *, k", selection="topk[m, k](X[p, m], ascending=True)")
    T, n = einfall.compile(einfall.cascade(text), backend="triton", tiles={"m": 2048})(X, k=3000)
    assert T[0].tolist() == [*range(2999), 8000] and n.tolist() == [3000]


def test_a_tensor_says_how_many() -> None:
    k = torch.tensor([17, 9000], dtype=torch.int64)
    text = LISTS.format(arguments=", k", selection="topk[m, k[p]](X[p, m], ascending=True)")
    agree(text, scores(), k)


def test_infinities_and_rows_without_candidates() -> None:
    X = scores()
    X[0, 4000:], X[0, 11] = -numpy.inf, numpy.inf
    text = "topk[m, 4500](X[p, m], forbidden=p == 1, ascending=True)"
    agree(LISTS.format(arguments="", selection=text), X)


def test_what_is_computed_is_chosen_from() -> None:
    """Scores are made once, by tiles; tokens are chosen from them and attended to."""
    text = """
def f(Q, K, V, *, k):
    E[b, m] = sum[e](Q[b, e] * K[b, m, e])
    Sel[b, j] = topk[m, k](E[b, m])
    S[b, m: m in Sel[b]] = sum[e](Q[b, e] * K[b, m, e])
    A[b, m] = softmax[m](S[b, m])
    O[b, f] = A[b, m] * V[b, m, f]
    return O
"""
    draw = numpy.random.default_rng(2)
    shapes = ((1, 16), (1, 2100, 16), (1, 2100, 16))
    Q, K, V = (torch.from_numpy(draw.integers(-4, 5, s) / 4).float() for s in shapes)
    f = einfall.compile(einfall.cascade(text), backend="triton")
    lowered = f.lower(Q, K, V, k=40)
    assert [k.search is not None for k in lowered.mapping.kernels][:3] == [False, True, False]
    assert "E" in lowered.mapping.kernels[0].writes
    # the members alone are asked for, so nothing puts them in order
    assert "ascending=True" in str(lowered.mapping.cascade)
    S = (Q[:, None] @ K.mT)[:, 0].double()
    members = S.sort(dim=1, descending=True, stable=True).indices[:, :40]
    kept = torch.full_like(S, -torch.inf).scatter(1, members, 0.0)
    truth = torch.softmax(S + kept, 1)[:, None] @ V.double()
    assert relative(f(Q, K, V, k=40), truth[:, 0].numpy()) < 2e-6


def test_long_lists_in_order_are_refused() -> None:
    text = LISTS.format(arguments="", selection="cover[m, 5](X[p, m])")
    with pytest.raises(einfall.BackendError, match="ascending=True"):
        einfall.compile(einfall.cascade(text)).lower(scores())


def test_explain_tells_the_walks() -> None:
    text = LISTS.format(arguments="", selection="topk[m, 70](X[p, m])")
    f = einfall.compile(einfall.cascade(text), tiles={"m": 4096})
    found = str(f.lower(scores()).explain())
    assert "11 kernels walk it 6 times" in " ".join(found.split())


def test_other_lengths_share_kernels() -> None:
    text = LISTS.format(arguments="", selection="threshold[m, 2.5](X[p, m])")
    f = einfall.compile(einfall.cascade(text), backend="triton", tiles={"m": 8192})
    assert f.lower(scores(9000)).kernels == f.lower(scores(16000)).kernels
    for length in (9000, 8999):
        X = scores(length)
        for got, truth in zip(f(X), einfall.interpret(f.cascade, X), strict=True):
            assert numpy.array_equal(got.numpy(), truth)


def test_splitting_keeps_lists_and_their_order() -> None:
    cascade = count_lists(einfall.cascade(LISTS.format(
        arguments="", selection="topk[m, 9](X[p, m], forced=m == 30, forbidden=m == 2)"
    )))  # fmt: skip
    split = split_selections(cascade)
    assert split != cascade
    X = scores(40)
    for one, other in zip(einfall.interpret(cascade, X), einfall.interpret(split, X), strict=True):
        assert numpy.array_equal(one, other)


def test_every_kernel_is_a_nest() -> None:
    text = LISTS.format(arguments="", selection="topk[m, 70](X[p, m])")
    lowered = einfall.compile(einfall.cascade(text)).lower(scores())
    assert [n.name for n in nests(lowered)] == [k.name for k in lowered.kernels]
