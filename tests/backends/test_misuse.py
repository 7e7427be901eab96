"""What a call is given that it cannot take: said by name, and what to give instead."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall import examples
from einfall.ir.errors import BackendError, PassError, ShapeError
from tests.codegen.kernel_cases import DEVICE

Q = torch.randn(1, 2, 20, 16, device=DEVICE)
TRANSFORM = "torch's transforms"


@pytest.mark.parametrize(
    ("given", "backend", "words"),
    [
        (None, "triton", "Q is a NoneType"),
        (Q.to_sparse(), "triton", "Q is a sparse_coo tensor"),
        (torch.nested.nested_tensor([torch.zeros(2, 16)]), "triton", "Q is a nested tensor"),
        (Q.to_sparse(), "interpreter", "tensors that numpy can hold, and Q is none"),
        (Q.to("meta"), "interpreter", "tensors that numpy can hold, and Q is none"),
    ],
)
def test_what_is_no_plain_tensor(given: Any, backend: str, words: str) -> None:
    with pytest.raises((BackendError, ShapeError), match=words):
        einfall.compile(examples.causal, backend=backend)(given, Q, Q)


@pytest.mark.parametrize("backend", ["triton", "interpreter"])
def test_tensors_by_name(backend: str) -> None:
    with pytest.raises(ShapeError, match="0 given, Q, K, V by name: tensors are given by position"):
        einfall.compile(examples.causal, backend=backend)(Q=Q, K=Q, V=Q)


@pytest.mark.parametrize(
    "call",
    [
        lambda f: torch.vmap(f)(Q[None], Q[None], Q[None]),
        lambda f: torch.func.grad(lambda x: f(x, Q, Q).sum())(Q),
        lambda f: torch.func.jvp(lambda x: f(x, Q, Q), (Q,), (Q,)),
    ],
    ids=["vmap", "grad", "jvp"],
)
def test_transforms_of_torch(call: Callable[[Any], Any]) -> None:
    with pytest.raises(BackendError, match=TRANSFORM):
        call(einfall.compile(examples.causal, backend="triton"))


def test_a_number_without_a_hash_is_no_transform() -> None:
    with pytest.raises(ShapeError, match="has no parameter 'sizes'"):
        einfall.compile(examples.causal, backend="triton")(Q, Q, Q, sizes={"p": 20})


def test_arrays_beside_tensors_and_views_that_negate() -> None:
    f = einfall.compile(examples.causal, backend="interpreter")
    found = f(Q.cpu().numpy(), Q, torch._neg_view(Q))
    assert isinstance(found, torch.Tensor)
    assert numpy.allclose(found.numpy(), -f(Q, Q, Q).cpu().numpy())


@pytest.mark.parametrize("take", [einfall.interpret, einfall.analyse, einfall.differentiate])
def test_text_is_no_cascade(take: Any) -> None:
    with pytest.raises(TypeError, match=f"{take.__name__} takes a cascade, and a str is given"):
        take("O[p] = X[p]")


def test_one_name_may_be_given_as_text() -> None:
    c = examples.differential
    assert einfall.differentiate(c, wrt="Q1") == einfall.differentiate(c, wrt=["Q1"])
    with pytest.raises(PassError, match="Q is no input"):
        einfall.differentiate(c, wrt="Q")


def test_copies_of_what_was_called() -> None:
    f = einfall.compile(examples.causal, backend="triton", tiles={"p": 16}, static=("K",))
    O = f(Q, Q, Q)  # noqa: E741
    assert repr(f) == "<compiled causal, backend='triton', tiles={'p': 16}, static=('K',)>"
    for other in (pickle.loads(pickle.dumps(f)), copy.deepcopy(f)):
        assert repr(other) == repr(f)
        assert torch.equal(other(Q, Q, Q), O)


@pytest.mark.parametrize("flag", [True, False, 2, 0])
def test_a_parameter_is_a_condition(flag: bool | int) -> None:
    c = einfall.cascade("""
def either(Q, K, V, *, flag):
    S[p, m: flag or m <= p] = Q[p, e] * K[m, e]
    A[p, m] = softmax[m](S[p, m])
    O[p, f] = A[p, m] * V[m, f]
    return O
""")
    X = Q[0, 0]
    truth = einfall.interpret(c, X, X, X, flag=flag)
    found = einfall.compile(c, backend="triton")(X, X, X, flag=flag)
    assert numpy.allclose(found.cpu().numpy(), truth, atol=1e-5)


def test_ranks_that_are_turned_or_rolled_have_a_size() -> None:
    c = einfall.cascade("""
def turned(X, Y, *, s=3):
    O[p, m] = X[size(p) - 1 - p] * Y[(m - s) % size(m)]
    return O
""")
    X, Y = numpy.arange(4.0), numpy.arange(5.0)
    assert numpy.array_equal(einfall.interpret(c, X, Y), numpy.outer(X[::-1], numpy.roll(Y, 3)))
