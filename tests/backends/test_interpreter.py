"""The language against numpy by hand: presence, coordinates, reductions, dtypes, blocks, errors."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy
import pytest
import torch

from einfall.backends.interpreter import evaluate, interpret
from einfall.backends.interpreter_space import Present
from einfall.ir.errors import ShapeError
from einfall.ir.notation import cascade

Array = numpy.ndarray[Any, Any]
X = numpy.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


@pytest.fixture(autouse=True)
def no_warning_leaks() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def run(text: str, *tensors: Any, **options: Any) -> Any:
    return interpret(cascade(text), *tensors, **options)


def test_a_filter_says_which_points_exist() -> None:
    t = evaluate(cascade("Y[p, m: m <= p] = X[p, m] + 1"), {"X": X})["Y"]
    assert t.mask().tolist() == [[True, False, False], [True, True, False]]
    assert t.values.tolist() == [[2, 0, 0], [5, 6, 0]]
    assert t.present is not None


def test_presence_is_kept_at_the_smallest_shape() -> None:
    x = numpy.ones((4, 5, 2, 3))
    t = evaluate(cascade("Y[b, h, p, m: m <= p] = X[b, h, p, m]"), {"X": x})["Y"]
    assert t.present is not None
    assert t.present.shape == (1, 1, 2, 3)
    everywhere = evaluate(cascade("Y[p, m: m <= p + size(m)] = X[p, m]"), {"X": X})["Y"]
    assert everywhere.present is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("A[m] + B[m]", [0, 22, 0]),  # intersection, for a sum too
        ("A[m] - B[m]", [0, -18, 0]),
        ("exp(A[m]) * 0 + 1", [1, 1, 0]),
        ("default(A[m], B[m])", [1, 2, 30]),
        ("default(A[m] + B[m], 7)", [7, 22, 7]),
        ("default(A[m], B[m + 1])", [1, 2, 0]),  # neither exists at 2
        ("where(m < 2, A[m], B[m])", [1, 2, 30]),  # the branch not chosen need not exist
        ("where(m < 1, B[m], A[m])", [0, 2, 0]),
        ("where(A[m] > 0, 5, 6)", [5, 5, 0]),  # the condition must
        ("max(A[m], B[m])", [0, 20, 0]),
    ],
)
def test_where_an_expression_exists(body: str, expected: list[float]) -> None:
    text = f"""
def f(X, Z):
    A[m: m < 2] = X[m]
    B[m: m > 0] = Z[m]
    Y[m] = {body}
    return Y
"""
    assert run(text, numpy.array([1.0, 2.0, 3.0]), numpy.array([10.0, 20.0, 30.0])).tolist() == (
        expected
    )


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("m < 2 or A[m] > 0", [0, 2, 3]),  # all operands of `or` must exist
        ("not A[m] > 2", [0, 2, 0]),
        ("A[m] > 2", [0, 0, 3]),
        ("default(A[m], 9) > 2", [1, 0, 3]),
    ],
)
def test_a_filter_must_exist_to_hold(condition: str, expected: list[float]) -> None:
    text = f"def f(X):\n    A[m: m > 0] = X[m]\n    Y[m: {condition}] = X[m]\n    return Y"
    assert run(text, numpy.array([1.0, 2.0, 3.0])).tolist() == expected


@pytest.mark.parametrize(
    ("coordinate", "expected"),
    [
        ("m + 1", [2, 3, 0]),
        ("m - 1", [0, 1, 2]),
        ("2 - m", [3, 2, 1]),
        ("2 * m", [1, 3, 0]),
        ("m // 2", [1, 1, 2]),
        ("m % 2", [1, 2, 1]),
        ("1", [2, 2, 2]),
        ("3", [0, 0, 0]),
        ("0 - 1", [0, 0, 0]),
        ("idx[m]", [3, 0, 1]),
        ("idx[m] + 1", [0, 1, 2]),
        ("m / 2", [1, 0, 2]),  # half coordinates read no point
        ("floor(m / 2)", [1, 1, 2]),
    ],
)
def test_coordinates(coordinate: str, expected: list[float]) -> None:
    text = f"def f(X, idx, Z):\n    Y[m] = X[{coordinate}] + Z[m] + 0 * idx[m]\n    return Y"
    x, idx = numpy.array([1.0, 2.0, 3.0]), numpy.array([2, -1, 0])
    assert run(text, x, idx, numpy.zeros(3)).tolist() == expected


def test_coordinates_of_several_axes() -> None:
    x = numpy.arange(24.0).reshape(2, 3, 4)
    p, m = numpy.arange(3)[:, None], numpy.arange(4)
    text = "def f(X, Z):\n    Y[m, p] = X[(p + m) % 2, p, m] + Z[p, m]\n    return Y"
    assert (run(text, x, numpy.zeros((3, 4))) == x[(p + m) % 2, p, m].T).all()
    text = "def f(X, Z):\n    Y[p, m] = X[1, (p * m) % 3, m] + Z[p, m]\n    return Y"
    assert (run(text, x, numpy.zeros((3, 4))) == x[1, (p * m) % 3, m]).all()
    text = "def f(Z):\n    Y[p] = Z[p, p]\n    return Y"
    assert run(text, numpy.arange(9.0).reshape(3, 3)).tolist() == [0, 4, 8]


def test_a_rank_read_as_a_number_is_its_coordinate() -> None:
    got = run("Y[p, m] = X[p, m] - 0.5 * (p - m) + size(m)", X)
    p, m = numpy.arange(2)[:, None], numpy.arange(3)
    assert (got == X - 0.5 * (p - m) + 3).all()


def test_reductions_take_in_existing_points_only() -> None:
    text = """
def f(X):
    S[p, m: m < p] = X[p, m]
    A[p] = sum[m](S[p, m])
    B[p] = max[m](S[p, m])
    C[p] = min[m](S[p, m])
    D[p] = prod[m](S[p, m])
    E[p] = argmax[m](S[p, m])
    F[p] = any[m](S[p, m] > 0)
    G[p] = all[m](S[p, m] > 4)
    return A, B, C, D, E, F, G
"""
    inf = numpy.inf
    expected = [[0, 4], [-inf, 4], [inf, 4], [1, 4], [-1, 0], [False, True], [True, False]]
    results = run(text, X)
    assert [r.tolist() for r in results] == expected
    assert [r.dtype.kind for r in results] == ["f", "f", "f", "f", "i", "b", "b"]


def test_a_reduction_may_have_its_own_filter() -> None:
    text = "def f(X):\n    Y[p] = sum[m: m <= p](X[p, m]) + max[m: m > p](X[p, m])\n    return Y"
    assert run(text, X).tolist() == [1 + 3, 9 + 6]
    text = "def f(X, Z):\n    Y[p, q] = sum[m: m <= p](X[p, m] * Z[q, m])\n    return Y"
    assert (run(text, X, X) == numpy.tril(X) @ X.T).all()


def test_a_sum_counts_points_in_which_nothing_varies() -> None:
    assert run("Y[p] = sum[m](default(2, X[p, m]))", X).tolist() == [6, 6]
    assert run("Y[p] = sum[m: m <= p](default(2, X[p, m]))", X).tolist() == [2, 4]
    assert run("Y[p] = sum[m](default(2, X[p, m]) * 3)", X).tolist() == [18, 18]


def test_infinities_survive_a_sum_of_products_over_absent_points() -> None:
    text = """
def f(X, Z):
    S[p, m: m <= p] = X[p, m]
    Y[p] = sum[m](S[p, m] * Z[m])
    return Y
"""
    z = numpy.array([1.0, 2.0, numpy.inf])  # never met: m = 2 is absent in both rows
    assert run(text, X, z).tolist() == [1, 14]
    z = numpy.array([1.0, numpy.inf, 1.0])
    assert run(text, X, z).tolist() == [1, numpy.inf]


def test_absent_points_give_no_nan() -> None:
    text = """
def f(X):
    S[p, m: m < p] = log(X[p, m]) / X[p, m]
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    A[p, m] = N[p, m] / D[p]
    O[p] = sum[m](N[p, m] * X[p, m]) / D[p]
    L[p] = G[p] + log(D[p])
    return A, O, L
"""
    a, o, length = run(text, numpy.array([[-1.0, -1.0], [2.0, -1.0]]))
    assert a.tolist() == [[0, 0], [1, 0]]
    assert o.tolist() == [0, 2]
    assert length.tolist() == [-numpy.inf, numpy.log(2) / 2]


def test_reductions_nest_and_hide_ranks_of_the_same_name() -> None:
    text = "def f(X):\n    Y[p] = max[m](X[p, m] - sum[q](X[q, m]) / size(q))\n    return Y"
    assert run(text, X).tolist() == (X - X.mean(0)).max(1).tolist()


def test_concatenation() -> None:
    text = """
def f(X, Z):
    A[p, m: m <= p] = X[p, m]
    B[p, c] = Z[c] + 0 * p
    E[p, d: d <= p] = X[p, d]
    C[n, p] = concat[n](A[p, m], B[p, c], E[p, d])
    G[p] = max[n](C[n, p])
    K[p] = sum[n](where(C[n, p] > 0, 1, 1))
    return C, G, K
"""
    c, g, count = run(text, X, numpy.array([9.0, 5.0]))
    assert c.T.tolist() == [[1, 0, 0, 9, 5, 1, 0, 0], [4, 5, 0, 9, 5, 4, 5, 0]]
    assert g.tolist() == [9, 9]
    assert count.tolist() == [4, 6]


def test_integers_and_truth_values_keep_their_kind() -> None:
    text = """
def f(I, B):
    S[p] = I[p] * 2 + 1
    M = max[p](I[p])
    N[p] = not B[p]
    C = sum[p](B[p])
    R[p] = I[p] / 2
    return S, M, N, C, R
"""
    integers = numpy.array([2**60, 3])
    s, m, n, c, r = run(text, integers, numpy.array([True, False]))
    assert s.tolist() == [2**61 + 1, 7]
    assert s.dtype == m.dtype == c.dtype == numpy.int64
    assert m.shape == ()
    assert (m, c) == (2**60, 1)
    assert n.tolist() == [False, True]
    assert r.dtype == numpy.float64


def test_tensors_of_every_library_and_dtype_are_taken() -> None:
    c = cascade("Y[p] = X[p] * 1")
    for x in (
        [1.0, 2.0],
        numpy.array([1, 2], numpy.uint8),
        numpy.array([1, 2], numpy.float16),
        torch.tensor([1, 2]),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        torch.tensor([1.0, 2.0], requires_grad=True),
    ):
        got = interpret(c, x)
        assert isinstance(got, numpy.ndarray)
        assert got.tolist() == [1, 2]
        assert got.dtype in (numpy.int64, numpy.float64)
    with pytest.raises(ShapeError, match="complex"):
        interpret(c, numpy.array([1j]))


@pytest.mark.parametrize(
    ("left", "right", "result"),
    [
        (torch.float16, torch.float16, numpy.float16),
        (torch.float32, torch.float16, numpy.float32),
        (torch.bfloat16, torch.float16, numpy.float32),
        (torch.float64, torch.float16, numpy.float64),
    ],
)
def test_declared_dtypes_round_results(left: Any, right: Any, result: type) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    q, k = q.to(left), k.to(right)
    c = cascade("S[p, m] = sum[e](Q[p, e] * K[m, e])")
    got = interpret(c, q, k, dtype="declared")
    exact = interpret(c, q, k)
    assert exact.dtype == numpy.float64
    assert got.dtype == result
    numpy.testing.assert_allclose(got, exact, rtol=2 * float(numpy.finfo(result).eps), atol=1e-5)


def test_declared_bfloat16_rounds_as_torch_does() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    got = interpret(cascade("Y[p] = X[p] * X[p]"), x, dtype="declared")
    assert torch.equal(torch.from_numpy(got), (x.float() * x.float()).bfloat16().float())


def test_declared_dtypes_compute_in_single_precision() -> None:
    x, z = numpy.array([1.0, 1e-9], numpy.float32), numpy.ones(1, numpy.float32)
    c = cascade("def f(X, Z):\n    Y[q] = sum[p](X[p]) - Z[q]\n    return Y")
    assert interpret(c, x, z) > 0
    assert interpret(c, x, z, dtype="declared") == 0


def test_empty_ranks() -> None:
    text = """
def f(Q, K):
    S[p, m] = sum[e](Q[p, e] * K[m, e])
    G[p] = max[m](S[p, m])
    D[p] = sum[m](exp(S[p, m] - G[p]))
    I[p] = argmax[m](S[p, m])
    A[p, m] = exp(S[p, m] - G[p]) / D[p]
    return S, G, D, I, A
"""
    s, g, d, i, a = run(text, numpy.ones((2, 3)), numpy.ones((0, 3)))
    assert s.shape == a.shape == (2, 0)
    assert g.tolist() == [-numpy.inf] * 2
    assert d.tolist() == [0, 0]
    assert i.tolist() == [-1, -1]
    s, g, d, i, a = run(text, numpy.ones((0, 3)), numpy.ones((2, 3)))
    assert s.shape == a.shape == (0, 2)
    assert g.shape == d.shape == i.shape == (0,)
    assert run(text, numpy.ones((2, 0)), numpy.ones((2, 0)))[0].tolist() == [[0, 0]] * 2


def test_an_argument_may_have_absent_points() -> None:
    c = cascade("Y[p] = sum[m](X[p, m] * X[p, m])")
    live = numpy.array([[True, False, False]])
    got = evaluate(c, {"X": Present(X, live)})
    assert got["Y"].values.tolist() == [1, 16]
    assert got["X"].values.tolist() == [[1, 0, 0], [4, 0, 0]]


def test_results_are_new_arrays_in_the_order_of_return() -> None:
    text = """
def f(X, Z):
    A[p] = X[p] + Z[p]
    B[p] = X[p] - Z[p]
    C[p] = X[p]
    return B, A, C
"""
    x, z = numpy.array([1.0, 2.0]), numpy.array([5.0, 7.0])
    b, a, same = run(text, x, z)
    assert (a.tolist(), b.tolist(), same.tolist()) == ([6, 9], [-4, -5], [1, 2])
    same[0] = 9
    assert x[0] == 1


def test_arguments_that_do_not_fit() -> None:
    c = cascade("def f(X, Z, *, W=1):\n    Y[p] = X[p] * Z[p] * W\n    return Y")
    with pytest.raises(ShapeError, match="takes 2 tensors"):
        interpret(c, X)
    with pytest.raises(ShapeError, match="'p' has size 2 in X"):
        interpret(c, numpy.ones(2), numpy.ones(3))
    with pytest.raises(ShapeError, match="no parameter 'V'"):
        interpret(c, numpy.ones(2), numpy.ones(2), V=1)
    with pytest.raises(ShapeError, match="dtype is"):
        interpret(c, numpy.ones(2), numpy.ones(2), dtype="float16")  # type: ignore[arg-type]
    assert interpret(c, numpy.ones(2), numpy.ones(2), W=3).tolist() == [3, 3]


BLOCKED = """
def f(Q, K, V, *, W=3):
    S[b, p, m: m <= p and p - m < W + b] = sum[e](Q[b, p, e] * K[b, m, e])
    G[b, p] = max[m](S[b, p, m])
    N[b, p, m] = exp(S[b, p, m] - G[b, p])
    D[b, p] = sum[m](default(N[b, p, m], 0) + 0.5 * (p - m))
    C[b, p, n] = concat[n](N[b, p, m], V[b, f, p])
    T[b, p, j] = topk[m, 2](S[b, p, m])
    L[p, b: b < 1] = sum[m: m in T[b, p]](where(m < p, K[b, m, 0], Q[b, p, 1]))
    M[m] = max[p, b](S[b, p, m])
    return C, L, M
"""


@pytest.mark.parametrize("block", [1, 5, 40, 300])
def test_blocks_equal_the_whole(block: int) -> None:
    numbers = numpy.random.default_rng(0)
    tensors = {
        "Q": numbers.standard_normal((2, 6, 4)),
        "K": numbers.standard_normal((2, 6, 4)),
        "V": numbers.standard_normal((2, 3, 6)),
    }
    c = cascade(BLOCKED)
    whole, parts = evaluate(c, tensors), evaluate(c, tensors, block=block)
    for name, tensor in whole.items():
        assert tensor.values.dtype == parts[name].values.dtype
        numpy.testing.assert_allclose(parts[name].values, tensor.values, rtol=1e-13, atol=1e-13)
        assert numpy.array_equal(parts[name].mask(), tensor.mask())


def test_a_large_iteration_space_needs_little_memory_and_time() -> None:
    # p * m * e = 2**28 points, 2 GB at once.
    x = numpy.random.default_rng(0).standard_normal((1024, 256))
    start = time.perf_counter()
    got = run("D[p, m] = sum[e](abs(X[p, e] - X[m, e]) < 2) * 1", x[:512])
    assert time.perf_counter() - start < 6
    assert got.shape == (512, 512)
    assert got[3, 5] == (numpy.abs(x[3] - x[5]) < 2).sum()
