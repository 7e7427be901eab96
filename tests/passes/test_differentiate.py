"""Gradients: every example against finite differences, and each construct of the notation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy
import pytest

from einfall import examples
from einfall.examples.inputs import make
from einfall.ir.cascade import Cascade
from einfall.ir.errors import PassError
from einfall.ir.expression import free_ranks
from einfall.ir.notation import cascade
from einfall.ir.verify import verify
from einfall.passes.differentiate import differentiate, gradient, outputs_with_gradient
from einfall.passes.log_norm import log_norm

from .gradients import assert_gradients, results, run, whole_gradient

EVERY = examples.names() + examples.refused()
ITERATIVE = [n for n in EVERY if getattr(examples, n).iterative_ranks]
DIFFERENTIABLE = [
    n for n in EVERY if n not in ITERATIVE and outputs_with_gradient(getattr(examples, n))
]


def example(name: str) -> Cascade:
    found = getattr(examples, name)
    assert isinstance(found, Cascade)
    return found


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_every_example_agrees_with_finite_differences(name: str) -> None:
    tensors, parameters = make(name, 3, "float64")
    c = example(name)
    arrays = dict(zip(c.inputs, tensors, strict=True))
    real = tuple(n for n in whole_gradient(c).wrt if arrays[n].dtype.kind == "f")
    found = assert_gradients(c, arrays, parameters, real)
    assert tuple(found) == real
    # what else is real only decides: a threshold, or estimates that are compared with one
    assert {"Q", "K", "V"} & set(c.inputs) <= set(real)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_gradient_is_notation_and_keeps_nothing_with_two_long_ranks(name: str) -> None:
    c = example(name)
    made = whole_gradient(c)
    for part in (made.forward, made.backward):
        assert cascade(str(part)) == part
        assert verify(part) is part
    stored = [
        set(free_ranks(x))
        for e in c.einsums
        for x in e.expressions()
        if getattr(x, "tensor", "") in (*c.inputs, *c.outputs)
    ]
    stored += [set(c.einsum(t).ranks) for t in c.outputs]
    for name in made.kept:
        assert any(set(made.forward.einsum(name).ranks) <= ranks for ranks in stored), name


def test_the_rewrite_in_the_docstring_happens() -> None:
    block = inspect.getdoc(differentiate)
    assert block is not None
    lines = [x[4:] for x in block.split("::", 1)[1].splitlines() if x.startswith("    ")]
    before, after = "\n".join(lines).split("==>")
    after = after[: after.index("V_grad\n") + 7] if "V_grad\n" in after else after
    found = differentiate(cascade(before.strip()))
    assert (
        found.einsums == cascade(after.split("return")[0] + "return Q_grad, K_grad, V_grad").einsums
    )
    assert found.inputs == ("Q", "K", "V", "O_grad")


ROWS = (
    "A_log_grad_sum[b, h, p] = sum[f](O_grad[b, h, p, f] * O[b, h, p, f])",
    "S_grad[b, h, p, m] = A[b, h, p, m] * (A_grad[b, h, p, m] - A_log_grad_sum[b, h, p])",
)


@pytest.mark.parametrize("name", ["attention", "attention_softmax", "attention_naive", "causal"])
def test_the_frame_has_no_gradient_and_the_row_sum_moves_to_the_features(name: str) -> None:
    """Nothing is known of attention, and this is FlashAttention's backward: one number a row."""
    made = gradient(example(name))
    text = str(made.backward)
    assert all(row in text for row in ROWS)
    assert "max[" not in text
    assert len(made.kept) == 2 and made.kept[1] == "O"


def test_entropy_moves_what_it_can_to_the_features() -> None:
    text = str(gradient(examples.entropy).backward)
    assert "sum[f](O_grad[b, h, p, f] * O[b, h, p, f])" in text


CASES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "sum": ("Z = sum[k](X[k])", {"X": (5,)}),
    "product": ("Z[i] = prod[k](X[i, k])", {"X": (3, 4)}),
    "maximum": ("Z[i] = max[k](X[i, k])", {"X": (3, 4)}),
    "maximum over two ranks": ("Z[i] = max[j, k](X[i, j, k] * Y[j])", {"X": (2, 3, 4), "Y": (3,)}),
    "maxima of blocks": (
        "Z[i, k: i < 2 and k < 2] = max[p, m: p // 2 == i and m // 3 == k and m <= p + 2](X[p, m])",
        {"X": (4, 5)},
    ),
    "a looked up sum": ("Z[d: d < 4] = sum[p, m: p - m == d](X[p] * Y[m])", {"X": (4,), "Y": (4,)}),
    "minimum under a filter": ("Z[i] = min[k: k <= i](X[i, k] * Y[k])", {"X": (3, 3), "Y": (3,)}),
    "powers": ("Z[i] = X[i] ** 3 + X[i] ** 2 * Y[i] + Y[i] ** 1", {"X": (4,), "Y": (4,)}),
    "a real power": ("Z[i] = exp(X[i]) ** Y[i]", {"X": (4,), "Y": (4,)}),
    "functions": (
        "Z[i] = tanh(X[i]) + sigmoid(X[i]) * sin(X[i]) - cos(X[i]) + erf(X[i]) + abs(X[i])",
        {"X": (6,)},
    ),
    "roots": (
        "Z[i] = sqrt(exp(X[i])) + rsqrt(exp(X[i])) + log(exp(X[i]) + 1) + log2(exp2(X[i]) + 2)",
        {"X": (4,)},
    ),
    "pointwise extrema": (
        "Z[i] = max(X[i], Y[i], 0.1) * min(X[i], Y[i]) + relu(X[i])",
        {"X": (6,), "Y": (6,)},
    ),
    "remainder": ("Z[i] = exp(X[i]) % (abs(Y[i]) + 3)", {"X": (4,), "Y": (4,)}),
    "where": ("Z[i] = where(i < 2, X[i] * Y[i], X[i] / exp(Y[i]))", {"X": (4,), "Y": (4,)}),
    "default": (
        "T[i, k: k < i] = X[i, k] * X[i, k]\nZ[i, k] = default(T[i, k], 2 * Y[k])",
        {"X": (4, 3), "Y": (3,)},
    ),
    "absent points returned": ("Z[i, k: k <= i] = X[i, k] * Y[k]", {"X": (4, 3), "Y": (3,)}),
    "sparsity met in a sum": (
        "T[i, k: k <= i] = X[i, k]\nU[i, k] = T[i, k] + Y[k]\nZ[i] = sum[k](U[i, k] * U[i, k])",
        {"X": (4, 3), "Y": (3,)},
    ),
    "a broadcast": ("T[i] = sum[k](X[i, k])\nZ[i, k] = X[i, k] * T[i]", {"X": (3, 4)}),
    "no ranks left": ("T = X[k]\nZ[k] = Y[k] * T[()]", {"X": (4,), "Y": (4,)}),
    "one tensor at two ranks": (
        "S[p, m: m <= p] = X[p, e] * X[m, e]\nZ[p, e] = S[p, m] * X[m, e]",
        {"X": (4, 3)},
    ),
    "a diagonal": ("Z = sum[i](X[i, i] * Y[i])", {"X": (4, 4), "Y": (4,)}),
    "transposed": ("S[i, k] = X[i, k] * X[k, i]\nZ[i] = S[i, k] * Y[k]", {"X": (4, 4), "Y": (4,)}),
    "shared heads": ("Z[h, e] = X[h, e] * Y[h // 2, e]", {"X": (6, 3), "Y": (3, 3)}),
    "more shared heads than are read": ("Z[h] = X[h] * Y[h // 2]", {"X": (5,), "Y": (3,)}),
    "a convolution": ("Z[p: p < 4] = X[p + s] * W[s]", {"X": (6,), "W": (3,)}),
    "a relative table": (
        "Z[p, m] = X[p] * Y[m] * R[p - m + size(m) - 1]",
        {"X": (3,), "Y": (4,), "R": (6,)},
    ),
    "a table that is too short": (
        "Z[p, m] = X[p] * Y[m] * R[p - m]",
        {"X": (3,), "Y": (4,), "R": (2,)},
    ),
    "digits": ("Z[j, r: r < 3] = X[j * 3 + r] * X[j * 3 + r] * Y[r]", {"X": (7,), "Y": (3,)}),
    "a rotation": ("Z[e] = X[e] * X[(e + 2) % size(e)]", {"X": (5,)}),
    "a constant place": ("Z[i] = X[i] * X[0] + X[size(i) - 1]", {"X": (5,)}),
    "several outputs": ("Y = sum[k](X[k])\nZ[k] = X[k] * Y[()]\nreturn Y, Z", {"X": (5,)}),
    "an output read again": (
        "Y[k] = X[k] * X[k]\nZ[k] = exp(Y[k]) * X[k]\nreturn Y, Z",
        {"X": (5,)},
    ),
    "concatenation": (
        "C[n] = concat[n](X[i], Y[k])\nA[n] = softmax[n](C[n])\nZ = A[n] * C[n]",
        {"X": (3,), "Y": (4,)},
    ),
    "largest values": (
        "I[i, j] = topk[k, 2](X[i, k])\nZ[i, j] = X[i, I[i, j]] * Y[I[i, j]]",
        {"X": (3, 5), "Y": (5,)},
    ),
    "shorthands": (
        "A[i, k] = logsoftmax[k](X[i, k])\nB[i, k] = layernorm[k](A[i, k])\n"
        "Z[i] = var[k](gelu(B[i, k]))",
        {"X": (3, 5)},
    ),
    "two maxima": ("G[i] = max[k](X[i, k])\nZ = max[i](G[i])", {"X": (3, 4)}),
    "a maximum as an output": (
        "G[i] = max[k](X[i, k])\nN[i, k] = exp(X[i, k] - G[i])\n"
        "Z[i] = sum[k](N[i, k])\nreturn Z, G",
        {"X": (3, 4)},
    ),
    "a digit and a page": ("Z[m, e] = X[m // 2, m % 2, e] * Y[m]", {"X": (3, 2, 2), "Y": (6,)}),
}


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    draw = numpy.random.default_rng(5)
    return {name: draw.standard_normal(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", CASES)
def test_each_construct_agrees_with_finite_differences(name: str) -> None:
    text, shapes = CASES[name]
    found = assert_gradients(cascade(text), drawn(shapes))
    assert set(found) == set(shapes)


def gathered(text: str, shapes: Mapping[str, tuple[int, ...]], **given: Any) -> dict[str, Any]:
    return assert_gradients(cascade(text), {**drawn(shapes), **given})


def test_what_is_gathered_twice_has_the_sum_of_both_gradients() -> None:
    found = gathered(
        "Z[j, e] = X[idx[j], e] * Y[j, e]",
        {"X": (4, 2), "Y": (5, 2)},
        idx=numpy.array([2, 0, 2, 7, 1]),
    )
    assert set(found) == {"X", "Y"}
    assert not found["X"][3].any() and not found["Y"][3].any()


def test_pages_and_permutations() -> None:
    gathered(
        "Z[b, m] = X[page[b, m // 2], m % 2] * Y[b, m]",
        {"X": (3, 2), "Y": (2, 4)},
        page=numpy.array([[2, 0], [1, 2]]),
    )
    gathered("Z[p] = X[perm[p]] * X[p]", {"X": (4,)}, perm=numpy.array([2, 0, 3, 1]))


def only(text: str, **tensors: Any) -> dict[str, Any]:
    """Return the gradients of the sum of all outputs."""
    arrays = {k: numpy.asarray(v, float) for k, v in tensors.items()}
    made = gradient(cascade(text))
    out = run_forward(made.forward, arrays)
    return run(made, arrays, {}, {f"{t}_grad": numpy.ones_like(out[t]) for t in made.of})


def run_forward(forward: Cascade, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.astype(float) for k, v in results(forward, arrays, {}).items()}


def test_of_equal_points_the_first_has_the_gradient() -> None:
    found = only("Z[i] = max[k](X[i, k])", X=[[1, 3, 3], [2, 2, 2]])["X"]
    assert found.tolist() == [[0, 1, 0], [1, 0, 0]]
    found = only("Z = max[i, k](X[i, k])", X=[[1, 3, 2], [3, 2, 3]])["X"]
    assert found.tolist() == [[0, 1, 0], [0, 0, 0]]
    found = only("Z = min[k, i](X[i, k])", X=[[1, 0, 2], [0, 2, 3]])["X"]
    assert found.tolist() == [[0, 0, 0], [1, 0, 0]]
    found = only("Z[i] = max(X[i], Y[i]) + min(X[i], Y[i])", X=[1.0], Y=[1.0])
    assert (found["X"].tolist(), found["Y"].tolist()) == ([2.0], [0.0])
    found = only("Z[i] = relu(X[i]) + abs(X[i])", X=[0.0, -1.0, 1.0])["X"]
    assert found.tolist() == [0.0, -1.0, 2.0]


def test_a_product_is_differentiated_at_zero() -> None:
    found = only("Z[i] = prod[k](X[i, k])", X=[[2, 0, 5], [0, 0, 3], [2, 3, 4]])["X"]
    assert found.tolist() == [[0, 10, 0], [0, 0, 0], [12, 8, 6]]


def test_a_quotient_by_zero_has_no_gradient() -> None:
    found = only("Z[i] = X[i] / Y[i]", X=[1.0, 2.0], Y=[0.0, 4.0])
    assert found["X"].tolist() == [0.0, 0.25]
    assert found["Y"].tolist() == [0.0, -0.125]
    assert only("Z[i] = sqrt(X[i])", X=[0.0])["X"].tolist() == [0.0]


def test_stop_gradient_stops_it() -> None:
    found = only("Z[i] = stop_gradient(X[i]) * X[i]", X=[3.0])["X"]
    assert found.tolist() == [3.0]


@pytest.mark.parametrize("name", ["causal_lse", "padding", "sink", "entropy", "cross"])
def test_a_row_without_points_has_gradient_zero(name: str) -> None:
    c = example(name)
    tensors, parameters = make(name, 0, "float64")
    arrays = dict(zip(c.inputs, tensors, strict=True))
    made = gradient(c)
    out = run_forward(made.forward, arrays)
    found = run(made, arrays, parameters, {f"{t}_grad": numpy.ones_like(out[t]) for t in made.of})
    assert all(numpy.isfinite(x).all() for x in found.values())
    empty = numpy.zeros(arrays["Q"].shape[:3], bool)
    if "length" in arrays:
        empty[arrays["length"] == 0] = True
    else:
        empty[:, :, : arrays["Q"].shape[2] - arrays["K"].shape[2]] = True
    assert empty.any() and not found["Q"][empty].any()


def test_only_what_is_wanted_is_computed() -> None:
    made = gradient(examples.causal, wrt=["V"])
    assert made.wrt == ("V",) and made.backward.outputs == ("V_grad",)
    assert "O" not in made.backward.inputs
    made = gradient(examples.entropy, of=["H"])
    assert made.seeds == ("H_grad",) and made.wrt == ("Q", "K")


def test_selections_and_integers_have_no_gradient() -> None:
    c = cascade("I[i, j] = topk[k, 2](X[i, k])\nZ[i] = sum[k](X[i, k])\nreturn Z, I")
    made = gradient(c)
    assert made.of == ("Z",)
    with pytest.raises(PassError, match="doc has no gradient in document"):
        gradient(examples.document, wrt=["doc"])
    with pytest.raises(PassError, match="no input of cascade has a gradient"):
        gradient(cascade("Z[i] = floor(X[i])"))


@pytest.mark.parametrize("name", ITERATIVE)
def test_iterative_ranks_are_refused(name: str) -> None:
    with pytest.raises(PassError, match="iterative"):
        differentiate(example(name))


def test_unknown_names_are_told() -> None:
    with pytest.raises(PassError, match="W is no input of causal .its inputs: Q, K, V"):
        differentiate(examples.causal, wrt=["W"])
    with pytest.raises(PassError, match="S is no output of causal"):
        differentiate(examples.causal, of=["S"])


def test_a_recurrence_is_no_tensor_that_is_written_twice() -> None:
    c = cascade("H[size(i), f] = 0.5\nH[i, f] = max(H[i + 1, f], tanh(X[f, i]))\nZ[f] = H[0, f]")
    assert log_norm(c, beyond=True) is c
    assert log_norm(c) is c
