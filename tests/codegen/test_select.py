"""Selections as kernels: the lists that the interpreter writes, in nests and in Triton's text."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall.codegen.loop_nest import Order, statements

from .kernel_cases import assert_kernels_agree, nests, outputs, relative, run_nests

ROWS, LENGTH = 13, 15


def scores() -> torch.Tensor:
    """Return scores with many equal ones, a row of zeros of both signs, and infinities."""
    draw = numpy.random.default_rng(0)
    x = draw.standard_normal((ROWS, LENGTH))
    x[:, 3:9] = numpy.round(2 * x[:, 3:9])
    x[3] = numpy.where(numpy.arange(LENGTH) % 2, 0.0, -0.0)
    x[4, 5], x[4, 11] = -numpy.inf, numpy.inf
    return torch.from_numpy(x).float()


def agree(
    text: str, *tensors: torch.Tensor, tolerance: float = 1e-30, **parameters: Any
) -> einfall.Cascade:
    """Compare every output of the loop nest and of the kernels with the interpreter."""
    cascade = einfall.cascade(text)
    given = list(tensors)
    lowered = assert_kernels_agree(cascade, given, parameters, tolerance)
    truth = outputs(einfall.interpret(cascade, *given, **parameters))
    found = run_nests(cascade, lowered, given, parameters)
    for got, expected in zip(found, truth, strict=True):
        assert relative(got, expected) < min(tolerance, 1e-12)
    return cascade


LISTS = """
def f(X{arguments}):
    T[p, j] = {selection}
    n[p] = sum[j](where(T[p, j] >= 0, 1, 0))
    return T, n
"""


@pytest.mark.parametrize(
    "selection",
    [
        "topk[m, 7](X[p, m])",
        "topk[m, 0](X[p, m])",
        "topk[m, 18](X[p, m])",
        "topk[m, 1 + p % 4](X[p, m])",
        "topk[m, 9](X[p, m], forced=m < 2, forbidden=m > p)",
        "threshold[m, 0.5](X[p, m], forced=m == 3, forbidden=m == p)",
        "cover[m, 3](X[p, m])",
        "cover[m, 0](X[p, m], forced=m == p)",
        "exceed[m, 4](X[p, m])",
        "exceed[m, 0](X[p, m])",
        "within[m, 4](X[p, m], forced=m == 5)",
        "topk[m, 1 + p % 4](X[p, m], forced=m == 9, ascending=True)",
        "cover[m, 3](X[p, m], ascending=True)",
    ],
)
def test_lists_are_the_interpreters(selection: str) -> None:
    mass = selection.startswith(("cover", "exceed", "within"))  # of infinities there is no sum
    agree(LISTS.format(arguments="", selection=selection), scores()[5:] if mass else scores())


@pytest.mark.parametrize("more", ["", ", forced=m % 90 == 1, ascending=True"])
def test_of_many_only_the_first_few_are_put_in_order(more: str) -> None:
    draw = numpy.random.default_rng(3)
    X = torch.from_numpy(numpy.round(8 * draw.standard_normal((5, 200))) / 8).float()
    text = LISTS.format(arguments="", selection=f"topk[m, 20](X[p, m]{more})")
    cascade = agree(text, X)
    source = einfall.compile(cascade, backend="triton").lower(X).source
    assert "= ~tl.topk(~ranked(" in source
    assert "j = tl.arange(0, 32)" in source


@pytest.mark.parametrize(
    ("selector", "length"), [("cover", 2), ("exceed", 3), ("within", 2), ("topk", 3)]
)
def test_how_mass_is_counted(selector: str, length: int) -> None:
    """Running sums 4, 7, 9, 10 against 7: at 7 the one convention ends, the other goes on."""
    X = torch.tensor([[1.0, 4.0, 2.0, 3.0]])
    argument = 3 if selector == "topk" else 7
    text = LISTS.format(arguments="", selection=f"{selector}[m, {argument}](X[p, m])")
    T, n = einfall.compile(einfall.cascade(text), backend="triton")(X)
    assert n.tolist() == [length]
    assert T[0, :length].tolist() == [1, 3, 2][:length]


def test_a_parameter_says_how_many() -> None:
    agree(LISTS.format(arguments=", *, k", selection="topk[m, k](X[p, m])"), scores(), k=5)
    text = LISTS.format(arguments=", *, t", selection="threshold[m, t](X[p, m])")
    agree(text, scores(), t=0.25)


def test_a_tensor_says_how_many() -> None:
    """Each row has a length of its own; the longest list has room for all."""
    k = torch.arange(ROWS, dtype=torch.int32)
    agree(LISTS.format(arguments=", k", selection="topk[m, k[p]](X[p, m])"), scores(), k)


def test_joint_selection_is_one_over_a_flat_rank() -> None:
    """Heads and tokens compete for one budget: coordinate u is token u % size(m) of its head."""
    X = scores()[5:13].reshape(2, 4, LENGTH)
    text = """
def joint(X):
    T[p, j] = topk[u, 11](X[u // size(m), p, u % size(m)])
    Y[h, p, m] = X[h, p, m]
    return T, Y
"""
    agree(text, X)
    flat = X.permute(1, 0, 2).reshape(4, -1)
    truth = torch.sort(flat, dim=1, descending=True, stable=True).indices[:, :11]
    T, _ = einfall.compile(einfall.cascade(text), backend="triton")(X)
    assert torch.equal(T.long(), truth)


BLOCKS = """
def blocks(Q, K, V, *, k):
    Qm[b, h, i, e] = sum[r](Q[b, h, i * 32 + r, e])
    Km[b, c, n, e] = sum[s](K[b, c, n * 16 + s, e])
    E[b, h, i, n: n * 16 <= i * 32 + 31] = Qm[b, h, i, e] * Km[b, h // 2, n, e]
    Sel[b, h, i, j] = topk[n, k](E[b, h, i, n], forced=n < 1)
    S[b, h, p, m: m // 16 in Sel[b, h, p // 32] and m <= p] = Q[b, h, p, e] * K[b, h // 2, m, e]
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h // 2, m, f]
    return O, Sel
"""


def qkv() -> list[torch.Tensor]:
    draw = numpy.random.default_rng(1)
    shapes = ((1, 2, 70, 16), (1, 1, 90, 16), (1, 1, 90, 32))
    return [torch.from_numpy(draw.standard_normal(s)).float() for s in shapes]


@pytest.mark.parametrize("k", [1, 3])
def test_selected_blocks_are_walked(k: int) -> None:
    agree(BLOCKS, *qkv(), tolerance=2e-6, k=k)


def test_all_blocks_are_all_points() -> None:
    dense = einfall.cascade(BLOCKS.replace("m // 16 in Sel[b, h, p // 32] and ", ""))
    truth, _ = einfall.interpret(dense, *qkv(), k=6)
    found, _ = einfall.compile(einfall.cascade(BLOCKS), backend="triton")(*qkv(), k=6)
    assert relative(found, truth) < 2e-6


def test_selected_tokens_are_gathered() -> None:
    text = """
def tokens(q, K, V, *, k):
    E[b, h, m] = q[b, h, e] * K[b, h, m, e]
    Sel[b, h, j] = topk[m, k](E[b, h, m])
    S[b, h, j] = q[b, h, e] * K[b, h, Sel[b, h, j], e] / sqrt(size(e))
    A[b, h, j] = softmax[j](S[b, h, j])
    O[b, h, f] = A[b, h, j] * V[b, h, Sel[b, h, j], f]
    return O
"""
    _, K, V = qkv()
    for length in (1, 2, 30):
        agree(text, torch.ones(1, 1, 16), K[:, :, :length], V[:, :, :length], tolerance=2e-6, k=12)


def test_what_is_selected_stays_on_the_device() -> None:
    """Estimates, lists with their lengths, attention: kernels in a row, with no size read back."""
    lowered = einfall.compile(einfall.cascade(BLOCKS)).lower(*qkv(), k=2)
    assert [k.name.removeprefix("blocks_") for k in lowered.kernels][-2:] == [
        "sel_sel_count_kernel",
        "o_kernel",
    ]
    orders = [s for nest in nests(lowered) for s in statements(nest.statements)]
    assert sum(isinstance(s, Order) for s in orders) == 1
    assert dict(lowered.mapping.dtypes)["E"] == "float32"


def test_lengths_are_not_mistaken_for_one_another() -> None:
    """One compiled cascade, called with rows of 10, 12 and 15: nothing is kept of the last one."""
    text = LISTS.format(arguments="", selection="topk[m, 12](X[p, m])")
    f = einfall.compile(einfall.cascade(text), backend="triton")
    for length in (15, 10, 12):
        X = scores()[:, :length].contiguous()
        for got, truth in zip(f(X), einfall.interpret(f.cascade, X), strict=True):
            assert numpy.array_equal(got.numpy(), truth)
