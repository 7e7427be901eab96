"""Contractions against ``numpy.einsum``."""

from __future__ import annotations

import random

import numpy
import pytest

from einfall.backends.interpreter_contraction import contract


@pytest.mark.parametrize("seed", range(60))
def test_a_contraction_equals_one_einsum(seed: int) -> None:
    choose, numbers = random.Random(seed), numpy.random.default_rng(seed)
    shape = tuple(choose.randint(1, 4) for _ in range(choose.randint(1, 5)))
    axes = range(len(shape))
    factors = []
    for _ in range(choose.randint(1, 4)):
        # Length 1 along a rank in which a factor does not vary.
        kept = [n if choose.random() < 0.6 else 1 for n in shape]
        factors.append(numbers.integers(-4, 5, kept).astype(float))
    reduced = tuple(axis for axis in axes if choose.random() < 0.5)
    product = numpy.ones(shape)
    for factor in factors:
        product = product * factor
    expected = product.sum(axis=reduced, keepdims=True)
    got = contract(factors, shape, reduced)
    assert got.ndim == len(shape)
    # Small whole numbers: exact in any order.
    assert numpy.array_equal(numpy.broadcast_to(got, expected.shape), expected)


def test_integers_stay_exact() -> None:
    x = numpy.array([[2**30 + 1, 3]])  # the square has more bits than a float64 keeps
    assert contract([x, x], (1, 2), (1,)).tolist() == [[(2**30 + 1) ** 2 + 9]]


def test_no_array_of_all_ranks_is_made() -> None:
    # 4000 * 4000 * 4000 elements would need 512 GB.
    x, y = numpy.ones((4000, 1, 4000)), numpy.ones((1, 4000, 1))
    assert contract([x, y], (4000, 4000, 4000), (1, 2))[0, 0, 0] == 16e6


def test_empty_ranks_give_empty_or_zero() -> None:
    assert contract([numpy.ones((3, 0)), numpy.ones((1, 0))], (3, 0), (1,)).tolist() == [[0]] * 3
    assert contract([numpy.ones((0, 2)), numpy.ones((1, 2))], (0, 2), (1,)).shape == (0, 1)
