"""What is stored between kernels in half precision, and what is not."""

from __future__ import annotations

import pytest

import einfall
from einfall import examples
from einfall.ir.dtypes import tensor_dtypes

HALF = dict.fromkeys(("Q", "K", "V", "W"), "bfloat16")

CASES = {
    "an exponent": ("exp(S[p, m])", "float32"),
    "an exponent, scaled before": ("exp(2 * S[p, m])", "float32"),
    "an exponent, by way of a view": ("exp(default(T[p, m], 0))", "float32"),
    "a difference": ("S[p, m] - size(m)", "float32"),
    "a bound": ("where(S[p, m] > 1, 1.0, 0.0)", "float32"),
    "a divisor": ("1 / S[p, m]", "float32"),
    "an operand": ("sum[f](S[p, f] * V[f, m])", "bfloat16"),
    "an operand, scaled": ("sum[f](-S[p, f] / 2 * V[f, m])", "bfloat16"),
    "an operand of an exponent": ("exp(sum[f](S[p, f] * V[f, m]))", "bfloat16"),
    "exponents, summed with another tensor": ("sum[f](exp(S[p, f]) * V[f, m])", "float32"),
    "terms": ("sum[f](S[p, f]) + V[p, m] * 0", "float32"),
    "a result": ("S[p, m]", "bfloat16"),
}


@pytest.mark.parametrize("read,dtype", CASES.values(), ids=CASES)
def test_readers_decide_what_is_stored_in_half_precision(read: str, dtype: str) -> None:
    text = f"""
    def f(Q, K, V):
        S[p, m] = sum[e](Q[p, e] * K[m, e])
        T[p, m] = S[p, m] / 2
        Z[f] = sum[m](V[f, m])
        O[p, m] = {read}
        return O, Z
    """
    found = tensor_dtypes(einfall.cascade(text), HALF)
    assert found["S"] == dtype


def test_filters_read_exactly() -> None:
    text = """
    def f(Q, K, W):
        S[p, m] = sum[e](Q[p, e] * K[m, e])
        O[p, m: S[p, m] > 0] = W[p, m]
        return O
    """
    assert tensor_dtypes(einfall.cascade(text), HALF)["S"] == "float32"


def test_what_tensors_end_to_end_give_has_their_dtype() -> None:
    names = {name: "float16" for name in examples.sink_tokens.inputs}
    assert tensor_dtypes(examples.sink_tokens, names)["O"] == "float16"
