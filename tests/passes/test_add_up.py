"""Sums that programs add up in memory: where that is done, what they are, what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.lowered import Lowered
from einfall.codegen.loop_nest import Dot, Store, statements
from einfall.examples.inputs import make
from einfall.ir.cascade import Cascade
from einfall.passes.differentiate import gradient

from ..codegen.kernel_cases import nests, outputs, relative

SIZES = {"b": 1, "h": 1, "p": 136, "m": 136, "e": 128, "f": 128}


def arguments(name: str) -> tuple[Cascade, list[torch.Tensor], Mapping[str, Any]]:
    """Return the gradient of an example with arguments."""
    cascade = getattr(examples, name)
    found, parameters = make(name, seed=2, scale=SIZES)
    arrays = [np.asarray(x, np.float32) for x in found]
    made = gradient(cascade, wrt=("Q", "K", "V"), sizes=SIZES)
    kept = einfall.interpret(made.forward, *arrays, **parameters)
    memory = dict(zip(cascade.inputs, arrays, strict=True))
    memory |= zip(made.forward.outputs, outputs(kept), strict=True)
    draw = np.random.default_rng(4)
    for seed, of in zip(made.seeds, made.of, strict=True):
        memory[seed] = draw.standard_normal(np.shape(memory[of]))
    backward = made.backward
    given = {n: v for n, v in parameters.items() if n in dict(backward.parameters)}
    tensors = [torch.tensor(np.asarray(memory[n], np.float32)) for n in backward.inputs]
    return backward, tensors, given


def lowered(name: str, *, atomics: bool, **sizes: int) -> Lowered:
    made = gradient(getattr(examples, name), wrt=("Q", "K", "V"), sizes=SIZES | sizes)
    f = einfall.compile(made.backward, emitter="tl", parts={}, atomics=atomics)
    return f.lower(sizes=SIZES | sizes, dtype="float16")


@pytest.mark.parametrize("name", ["attention", "causal", "softcap", "sigmoid", "sliding_window"])
def test_sums_added_up_are_the_sums(name: str) -> None:
    backward, tensors, parameters = arguments(name)
    truth = outputs(einfall.interpret(backward, *tensors, **parameters))
    f = einfall.compile(backward, backend="triton", emitter="tl", parts={}, atomics=True)
    found = outputs(f(*tensors, **parameters))
    assert "tl.atomic_add(" in f.source
    for got, expected in zip(found, truth, strict=True):
        assert relative(got, expected) < 1e-5


def test_five_products_take_the_place_of_seven() -> None:
    for atomics, count in ((False, 7), (True, 5)):
        found = [
            s
            for nest in nests(lowered("causal", atomics=atomics, p=2048, m=2048))
            for s in whole_loop(nest.statements)
            if isinstance(s, Dot)
        ]
        assert len(found) == count


def whole_loop(body: Any) -> list[Any]:
    """Return the statements of the loops over whole tiles."""
    return [s for loop in body if getattr(loop, "cut", True) is False for s in loop.body]


def test_a_kernel_sets_sums_to_zero_and_another_makes_something_of_them() -> None:
    found = lowered("causal", atomics=True)
    names = [k.name.removeprefix("causal_gradient_") for k in found.kernels]
    assert names == [
        "a_log_grad_sum_kernel", "q_grad_sum_kernel", "k_grad_v_grad_kernel", "q_grad_kernel",
    ]  # fmt: skip
    assert dict(found.mapping.dtypes)["Q_grad_sum"] == "float32"
    (nest,) = [n for n in nests(found) if "k_grad_v_grad" in n.name]
    added = {s.tensor for s in statements(nest.statements) if isinstance(s, Store) and s.add}
    assert added == {"Q_grad_sum"}


def test_it_is_done_only_where_it_was_asked_for() -> None:
    assert "atomic" not in lowered("causal", atomics=False).source


def test_short_ranks_are_not_worth_it() -> None:
    assert "atomic" not in lowered("causal", atomics=True, p=64, m=64).source
    assert "atomic" not in lowered("causal", atomics=True, e=64, f=64).source


def test_a_kernel_that_makes_something_else_adds_nothing() -> None:
    """Of two products of one walk only one has what the other walk sums."""
    cascade = einfall.cascade("""
def two(Q, K):
    S[p, m] = Q[p, e] * K[m, e]
    T[p, m] = Q[p, e] * Q[m, e]
    X_sum[p, e] = sum[m](exp(S[p, m]) * K[m, e])
    X[p, e] = 2 * X_sum[p, e]
    Y[m, e] = sum[p](exp(T[p, m]) * Q[p, e])
    return X, Y
""")
    f = einfall.compile(cascade, emitter="tl", parts={}, atomics=True)
    found = f.lower(sizes={"p": 512, "m": 512, "e": 128}, dtype="float16")
    assert "atomic" not in found.source


def test_the_explanation_says_so() -> None:
    text = str(lowered("causal", atomics=True).explain())
    assert "to memory it adds Q_grad_sum[b, h, p, e]" in text
    assert "calls may differ in the last bits" in text
