"""Sums over several long ranks: which goes first, and along what the parts lie."""

from __future__ import annotations

import numpy as np
import pytest

import einfall
from einfall import examples
from einfall.passes.differentiate import gradient
from einfall.passes.split_sums import split_sums

MADE = """
def grouped(Q, K, {other}, *, G=4):
    S[b, h, p, m] = Q[b, h, p] * K[b, h // G, m]
    D[b, k, m] = sum[g, p]({body})
    return D
"""


def parts(body: str) -> tuple[str, ...]:
    """Return the einsums that a sum over two ranks becomes."""
    other = "X" if "X" in body else "W"
    cascade = einfall.cascade(MADE.format(body=body, other=other))
    after = split_sums(cascade, sizes={"p": 4096, "m": 4096})
    assert np.allclose(*(einfall.interpret(c, *tensors(other), G=3) for c in (cascade, after)))
    return tuple(str(e) for e in after.einsums[1:])


def tensors(other: str) -> tuple[np.ndarray, ...]:
    """Return Q and X with seven rows, which is no multiple of three, K and W with three."""
    last = (2, 7, 5) if other == "X" else (3, 5)
    generator = np.random.default_rng(0)
    return tuple(generator.standard_normal(s) for s in ((2, 7, 5), (2, 3, 4), last))


def test_parts_lie_along_the_number_that_digits_make_up() -> None:
    assert parts("S[b, k * G + g, p, m] * X[b, k * G + g, p]") == (
        "D_p[b, h, m] = sum[p](S[b, h, p, m] * X[b, h, p])",
        "D[b, k, m] = sum[g](D_p[b, k * G + g, m])",
    )


@pytest.mark.parametrize(
    "body", ["S[b, k * G + g, p, m] * W[g, p]", "S[b, k * G + g, p, m] * W[k, p]"]
)
def test_parts_lie_along_both_digits_where_one_is_read_alone(body: str) -> None:
    first, second = parts(body)
    assert first.startswith(("D_p[b, k, g, m]", "D_p[b, k, m, g]", "D_p[b, g, k, m]"))
    assert "D_p" in second and "* G" not in second


def test_sums_in_two_steps_lie_as_the_sums_do() -> None:
    """Heads that share keys: each has its own sum, and a kernel behind adds a few at a time."""
    sizes = {"b": 1, "h": 8, "p": 1024, "m": 1024, "e": 128, "f": 128}
    made = gradient(examples.gqa, wrt=("Q", "K", "V"), sizes=sizes)
    f = einfall.compile(made.backward, target="sm_90", emitter="tl", parts={})
    *_, first, second = f.lower(sizes=sizes, dtype="float16", G=4).kernels
    assert [b.ranks[-2:] for b in first.writes] == [("m", "e"), ("m", "f")]
    assert [b.tensor for b in second.writes] == ["K_grad", "V_grad"]
    assert dict(second.tiles)["H_DIGIT0"] == 4
