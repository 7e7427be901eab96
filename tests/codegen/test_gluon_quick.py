"""Functions of a tile's points: what is taken into their arguments."""

from __future__ import annotations

from einfall.codegen.gluon_quick import times
from einfall.codegen.loop_nest import Number, Op, Ref, Scalar, Var

X = Ref(Var("x", ("p0", "m0")))


def test_a_factor_is_taken_into_terms_and_joined_with_theirs() -> None:
    n = Op("log", (Scalar("M"),))
    value = Op("-", (Op("/", (X, Number(8.0))), n))
    expected = Op("-", (Op("*", (X, Number(0.25))), Op("*", (n, Number(2.0)))))
    assert times(value, 2.0) == expected
    assert times(Op("*", (Number(3.0), X)), 2.0) == Op("*", (Number(6.0), X))
    assert times(Op("neg", (Op("*", (X, Scalar("c"))),)), 2.0) == Op(
        "neg", (Op("*", (X, Op("*", (Scalar("c"), Number(2.0))))),)
    )
    assert times(X, 2.0) == Op("*", (X, Number(2.0)))
