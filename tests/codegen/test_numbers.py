"""Numbers in place of tiles, and numbers that no whole number holds."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch

import einfall
from einfall import examples

from .kernel_cases import DEVICE, assert_kernels_agree

UNIFORM = """
def pooled(V):
    W[p, m] = 0.3 / size(m)
    O[p, f] = W[p, m] * V[m, f] + 0 * V[p, f]
    return O
"""


def test_a_weight_that_all_points_have_is_an_operand() -> None:
    V = torch.randn(40, 16, device=DEVICE)
    assert_kernels_agree(einfall.cascade(UNIFORM), [V], {}, 2e-5)


@pytest.mark.parametrize("name", ["causal", "sigmoid"])
def test_no_features_give_scores_of_0(name: str) -> None:
    Q = torch.randn(1, 1, 20, 0, device=DEVICE)
    V = torch.randn(1, 1, 20, 16, device=DEVICE)
    assert_kernels_agree(getattr(examples, name), [Q, Q, V], {}, 2e-5)


@pytest.mark.parametrize("W", [3.5, 1e30, -1e30, inf, -inf])
def test_a_bound_that_no_whole_number_holds(W: float) -> None:
    Q, K, V = (torch.randn(1, 1, 40, 16, device=DEVICE) for _ in range(3))
    tiles = {"p": 16, "m": 16}
    assert_kernels_agree(examples.sliding_window, [Q, K, V], {"W": W}, 2e-5, tiles)


@pytest.mark.parametrize("W", [nan, 2**63, -(2**70)])
def test_what_kernels_cannot_hold_is_refused(W: float) -> None:
    Q = torch.randn(1, 1, 9, 16, device=DEVICE)
    for backend in ("triton", "interpreter"):
        with pytest.raises(einfall.ShapeError, match="a number that kernels can hold"):
            einfall.compile(examples.sliding_window, backend=backend)(Q, Q, Q, W=W)
