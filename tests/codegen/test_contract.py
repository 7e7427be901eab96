"""Products in a tile: what rounds an operand in half precision, and what must not."""

from __future__ import annotations

import pytest
import torch

import einfall
from einfall import examples
from einfall.codegen.contract import exact_factor
from einfall.ir.expression import Constant, Parameter

PLACE = """
def place(Q, K):
    S[p, m] = Q[p, e] * K[m, e] / sqrt(size(e))
    G[p] = max[m](S[p, m])
    J[p] = argmax[m](S[p, m])
    return G, J
"""


def test_a_scale_does_not_round_an_operand_once_more() -> None:
    """Scores that a place is taken from keep their scale inside; it must not cost their digits."""
    torch.manual_seed(0)
    Q, K = torch.randn(40, 96).half(), torch.randn(70, 96).half()
    f = einfall.compile(einfall.cascade(PLACE), backend="triton")
    G, J = f(Q, K)
    S = Q.double() @ K.double().mT / 96**0.5
    assert torch.equal(J.long(), S.argmax(-1))
    assert float((G.double() - S.amax(-1)).abs().max()) < 1e-5
    assert "_unscaled" in f.source


def test_float32_operands_take_the_scale_themselves() -> None:
    f = einfall.compile(einfall.cascade(PLACE), backend="triton")
    f(torch.randn(40, 96), torch.randn(70, 96))
    assert "_unscaled" not in f.source


@pytest.mark.parametrize(
    ("expression", "exact"),
    [
        (Constant(0.125), True),
        (Constant(-2), True),
        (Constant(3.0), False),
        (Constant(0), False),
        (Parameter("W"), False),
    ],
)
def test_powers_of_two_are_exact(expression: Constant | Parameter, exact: bool) -> None:
    assert exact_factor(expression) == exact


def test_a_product_of_rows_that_lists_name_on_both_sides_is_a_dot() -> None:
    """What exists depends on both lists: the product is made everywhere, and tested behind."""
    f = einfall.compile(examples.routing, target="sm_90")
    sizes = {"b": 1, "h": 2, "p": 4096, "e": 64, "f": 64, "c": 8}
    lowered = f.lower(sizes=sizes, dtype="float16", w=128)
    (text,) = [k.text for k in lowered.kernels if "s_everywhere" in k.text]
    assert "s_everywhere = tl.dot(x, tl.trans(x_2))" in text and "[:, :, None]" not in text
