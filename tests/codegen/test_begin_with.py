"""Products that begin with what their results are added to."""

from __future__ import annotations

import pytest

from einfall.codegen.begin_with import begin_with
from einfall.codegen.loop_nest import Dot, Index, Let, Load, Number, Op, Ref, Statement, Value, Var

S, D, OTHER = Var("s", ("p", "m")), Var("d", ("m",)), Var("t", ("p", "m"))
PRODUCT = Dot(S, Ref(Var("q", ("p", "e"))), Ref(Var("k", ("e", "m"))), "e")
LOAD = Load(D, "D", (Index("m"),))


def begun(*values: Value) -> tuple[Value | None, list[Value]]:
    """Return what the product begins with, and what is left of the work."""
    work: tuple[Statement, ...] = (LOAD,)
    work += tuple(Let(Var(f"r{k}", ("p", "m")), v) for k, v in enumerate(values))
    (product,), (left,) = begin_with((PRODUCT,), (work,), frozenset())
    assert isinstance(product, Dot)
    return product.start, [s.value for s in left if isinstance(s, Let)]


@pytest.mark.parametrize(
    ("value", "start"),
    [
        (Op("-", (Ref(S), Ref(D))), Op("-", (Number(0.0), Ref(D)))),
        (Op("+", (Ref(S), Ref(D))), Ref(D)),
        (Op("+", (Ref(D), Ref(S))), Ref(D)),
    ],
)
def test_a_product_begins_with_what_it_is_added_to(value: Value, start: Value) -> None:
    found, (left,) = begun(Op("*", (Ref(OTHER), value)))
    assert found == start
    assert left == Op("*", (Ref(OTHER), Ref(S)))


@pytest.mark.parametrize(
    "values",
    [
        # read twice; scaled first; a number for each point; from nowhere that is known; alone
        (Op("-", (Ref(S), Ref(D))), Ref(S)),
        (Op("*", (Op("-", (Ref(S), Ref(D))), Ref(S))),),
        (Op("-", (Op("*", (Ref(S), Number(2.0))), Ref(D))),),
        (Op("-", (Ref(S), Ref(OTHER))),),
        (Op("-", (Ref(S), Ref(Var("x", ("m",))))),),
        (Op("-", (Ref(D), Ref(S))),),
        (Ref(S),),
    ],
)
def test_others_begin_with_nothing(values: tuple[Value, ...]) -> None:
    found, left = begun(*values)
    assert found is None
    assert left == list(values)


def test_products_that_are_only_added_up_have_one_accumulator() -> None:
    other = Dot(OTHER, Ref(Var("r", ("p", "x"))), Ref(Var("n", ("x", "m"))), "x")
    both, result = Op("+", (Ref(S), Ref(OTHER))), Var("y", ("p", "m"))
    work = (Let(result, Op("*", (both, Number(2.0)))),)
    products, (left,) = begin_with((PRODUCT, other), (work,), frozenset())
    assert products == (PRODUCT, Dot(S, other.left, other.right, "x", Ref(S)))
    assert left == (Let(result, Op("*", (Ref(S), Number(2.0)))),)
    # one is read besides, or changed, or their difference is read
    for more in (Let(Var("z", ("p", "m")), Ref(OTHER)), Let(S, Op("tanh", (Ref(S),)))):
        found = begin_with((PRODUCT, other), ((more, *work),), frozenset())
        assert found == ((PRODUCT, other), ((more, *work),))
    apart = (Let(result, Op("-", (Ref(S), Ref(OTHER)))),)
    assert begin_with((PRODUCT, other), (work, apart), frozenset())[0] == (PRODUCT, other)


def test_sections_have_to_agree() -> None:
    one = (LOAD, Let(Var("r", ("p", "m")), Op("-", (Ref(S), Ref(D)))))
    other = (LOAD, Let(Var("r", ("p", "m")), Op("+", (Ref(S), Ref(D)))))
    (product,), works = begin_with((PRODUCT,), (one, other), frozenset())
    assert product == PRODUCT
    assert works == (one, other)
