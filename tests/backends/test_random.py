"""Random numbers of a seed and coordinates: the same in numpy, in loop nests and in kernels."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.numpy_operators import uniform
from einfall.passes.differentiate import gradient

from ..codegen.kernel_cases import run_nests
from ..dense_oracles import hashed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
REAL = numpy.dtype("float64")
SEEDS = (0, 1, 17, -1, 2**31, 2**31 - 1)


def drawn(seed: int, *shape: int) -> Any:
    """Return the numbers of every combination of coordinates."""
    axes = [numpy.arange(n).reshape([-1 if a == k else 1 for a in range(len(shape))])
            for k, n in enumerate(shape)]  # fmt: skip
    return uniform([numpy.asarray(seed), *axes], REAL)


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_are_those_of_the_definition(seed: int) -> None:
    found = drawn(seed, 3, 5)
    assert found.shape == (3, 5) and found.dtype == REAL
    assert all(found[i, k] == hashed(seed % 2**32, i, k) for i in range(3) for k in range(5))


def test_numbers_are_uniform_and_neighbours_unrelated() -> None:
    found = drawn(5, 400, 500)
    assert 0 <= found.min() and found.max() < 1
    assert abs(found.mean() - 0.5) < 4 / numpy.sqrt(12 * found.size)
    counts = numpy.histogram(found, 64, (0, 1))[0]
    expected = found.size / 64
    # chi squared with 63 degrees of freedom: mean 63, standard deviation 11.2
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * 11.3
    for one, two in (
        (found[:, :-1], found[:, 1:]),
        (found[:-1], found[1:]),
        (found, drawn(6, 400, 500)),
    ):
        assert abs(numpy.corrcoef(one.ravel(), two.ravel())[0, 1]) < 5 / numpy.sqrt(one.size)


@pytest.mark.parametrize("seed", SEEDS)
def test_kernels_draw_the_same_bits(seed: int) -> None:
    c = einfall.cascade("Z[b, m] = where(X[b, m] == X[b, m], random(seed, b, m + 3), 0)")
    X = torch.zeros(3, 70, device=DEVICE)
    truth = einfall.interpret(c, X.cpu(), seed=seed)
    f = einfall.compile(c, backend="triton")
    assert (f(X, seed=seed).cpu().numpy() == truth).all()
    (nest,) = run_nests(c, f.lower(X, seed=seed), [X], {"seed": seed})
    assert (nest == truth).all()


def test_what_is_dropped_is_dropped_in_both_directions() -> None:
    """Where a weight is dropped, its key has no part in the output, nor in any gradient."""
    text = str(gradient(examples.dropout).backward)
    assert text.count("random(seed, b, h, p, m)") == 2
    # and still one number a row is all that is kept beside the output
    assert "sum[f](O_grad[b, h, p, f] * O[b, h, p, f])" in text


def test_a_real_coordinate_is_refused() -> None:
    c = einfall.cascade("Z[m] = random(seed, X[m])")
    with pytest.raises(einfall.BackendError, match="random takes whole numbers"):
        einfall.interpret(c, numpy.array([0.5]), seed=1)
    assert einfall.interpret(c, numpy.array([2.0]), seed=1)[0] == hashed(1, 2)
