"""Iterative tensors: loops over generations, nested ones, and what cannot be ordered."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest

from einfall.backends.interpreter import evaluate, interpret
from einfall.backends.interpreter_order import Loop, execution_order
from einfall.ir.cascade import Cascade, Einsum
from einfall.ir.errors import RankError
from einfall.ir.expression import Access, RankVariable
from einfall.ir.notation import cascade

Shape = list[str | tuple[str, "Shape"]]


def shape(steps: tuple[Einsum | Loop, ...]) -> Shape:
    return [s.name if isinstance(s, Einsum) else (s.rank, shape(s.steps)) for s in steps]


RUNNING = """
def f(X):
    H[0, e] = 1
    Y[i, e] = X[i, e] * 2
    H[i + 1, e] = H[i, e] * 0.5 + Y[i, e]
    G[i, e] = H[i + 1, e] - H[i, e]
    O[e] = H[size(i), e] + sum[i](G[i, e])
    return O
"""


def test_only_what_depends_on_itself_is_looped() -> None:
    order = shape(execution_order(cascade(RUNNING)))
    loop = ("i", ["H"])
    assert loop in order
    assert max(order.index("Y"), order.index("H")) < order.index(loop)
    assert order.index(loop) < order.index("G") < order.index("O")


def test_einsums_may_stand_in_any_order() -> None:
    c = cascade(RUNNING)
    turned = replace(c, einsums=c.einsums[::-1])
    x = numpy.arange(6.0).reshape(3, 2)
    h = [numpy.ones(2)]
    for row in x:
        h.append(h[-1] * 0.5 + 2 * row)
    for one in (c, turned):
        assert interpret(one, x).tolist() == (h[-1] + h[-1] - h[0]).tolist()


def test_all_generations_can_be_returned() -> None:
    c = cascade("def f(X):\n    H[0] = 0\n    H[i + 1] = H[i] + X[i]\n    return H")
    assert interpret(c, numpy.array([1.0, 2.0, 3.0])).tolist() == [0, 1, 3, 6]
    assert interpret(c, numpy.zeros(0)).tolist() == [0]
    assert interpret(c, numpy.array([1, 2])).dtype == numpy.int64


def test_an_absent_generation_stops_the_rest() -> None:
    c = cascade("def f(X):\n    H[0] = 1\n    H[i + 1: i < 2] = H[i] + X[i]\n    return H")
    t = evaluate(c, {"X": numpy.ones(4)})["H"]
    assert t.mask().tolist() == [True, True, True, False, False]
    assert t.values.tolist() == [1, 2, 3, 0, 0]


def test_a_tensor_without_a_first_generation_is_absent() -> None:
    c = cascade(RUNNING)
    c = replace(c, einsums=c.einsums[1:])
    t = evaluate(c, {"X": numpy.ones((3, 2))})
    assert not t["H"].mask().any()
    assert not t["O"].mask().any()


LAYERS = """
def f(X, A):
    Z[0, t] = X[t]
    H[l, 0] = 0
    H[l, t + 1] = A[l] * H[l, t] + Z[l, t]
    M[l] = H[l, size(t)] / size(t)
    Z[l + 1, t] = tanh(H[l, t + 1] - M[l])
    Y[t] = Z[size(l), t]
    return Y
"""


def test_iterations_nest() -> None:
    c = cascade(LAYERS)
    # M needs the last time step of its layer, so layers are the outer loop.
    loops = [s for s in shape(execution_order(c)) if isinstance(s, tuple)]
    assert len(loops) == 1
    assert loops[0][0] == "l"
    assert ("t", ["H"]) in loops[0][1]
    x, a = numpy.array([1.0, -2.0, 0.5, 3.0]), numpy.array([0.5, 0.9, -0.3])
    z = x
    for decay in a:
        h = [0.0]
        for value in z:
            h.append(decay * h[-1] + value)
        z = numpy.tanh(numpy.array(h[1:]) - h[-1] / len(x))
    numpy.testing.assert_allclose(interpret(c, x, a), z, rtol=1e-14)


def test_an_iteration_may_run_backward() -> None:
    c = cascade("""
def f(X, A):
    H[size(i), e] = 1
    M[i, e] = tanh(H[i + 1, e]) * X[i, e]
    H[i, e] = A[i] * H[i + 1, e] + M[i, e]
    return H
""")
    numbers = numpy.random.default_rng(0)
    x, a = numbers.standard_normal((5, 2)), numbers.standard_normal(5)
    h = numpy.ones((6, 2))
    for i in reversed(range(5)):
        h[i] = a[i] * h[i + 1] + numpy.tanh(h[i + 1]) * x[i]
    numpy.testing.assert_allclose(interpret(c, x, a), h, rtol=1e-14)
    loops = [s for s in execution_order(c) if isinstance(s, Loop)]
    assert [loop.backward for loop in loops] == [True]
    assert interpret(c, numpy.zeros((0, 2)), numpy.zeros(0)).tolist() == [[1, 1]]


def test_two_generations_back_exist_from_the_second_step_on() -> None:
    c = cascade("""
def f(X):
    H[0] = 1
    H[i + 1] = H[i] + default(H[i - 1], 0) * X[i]
    return H
""")
    assert interpret(c, numpy.ones(6)).tolist() == [1, 1, 2, 3, 5, 8, 13]


def test_a_selection_may_be_iterated() -> None:
    # Each step takes the largest of what no earlier step took.
    c = cascade("""
def f(X):
    B[0, m] = 0
    T[i, j] = topk[m, 1](X[m], forbidden=B[i, m] > 0)
    B[i + 1, m] = where(m in T[i], 1, B[i, m])
    return T, B
""")
    x = numpy.array([3.0, 9.0, 1.0, 7.0])
    taken, marks = interpret(c, x, sizes={"i": 3})
    assert taken.ravel().tolist() == [1, 3, 0]
    assert marks.sum(1).tolist() == [0, 1, 2, 3]


def test_a_cycle_within_one_generation_is_an_error() -> None:
    def plain(tensor: str) -> Access:
        return Access(tensor, (RankVariable("p"),))

    c = Cascade("f", (), (), (Einsum(plain("A"), plain("B")), Einsum(plain("B"), plain("A"))), ())
    with pytest.raises(RankError, match="A, B depend on each other"):
        execution_order(c)
