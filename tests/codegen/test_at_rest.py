"""The work at rest in fewer operations: the same numbers, and the forms that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from einfall.codegen.at_rest import at_rest, form, multiple
from einfall.codegen.loop_nest import Fold, Let, Load, Number, Op, Ref, Statement, Value, Var

X, D = (Ref(Var(n, ("p0", "m0"))) for n in "xd")
G, H, W = Ref(Var("g", ("p0",))), Ref(Var("h", ("p0",))), Ref(Var("w", ()))
S, N, T = Var("s", ("p0", "m0")), Var("n", ("p0", "m0")), Var("t", ("p0",))


def times(x: Value, y: Value | float) -> Op:
    return Op("*", (x, Number(y) if isinstance(y, float) else y))


def minus(x: Value, y: Value) -> Op:
    return Op("-", (x, y))


def evaluated(body: Sequence[Statement], draw: int) -> dict[str, Any]:
    """Return what statements define, for drawn numbers."""
    random = np.random.default_rng(draw)
    shapes = {"p0": 4, "m0": 8}
    known: dict[str, Any] = {}
    for ref in (X, D, G, H, W):
        size = tuple(shapes[a] if a in ref.var.axes else 1 for a in ("p0", "m0"))
        known[ref.var.name] = random.normal(size=size)

    def value(x: Value) -> Any:
        match x:
            case Number(value=n):
                return n
            case Ref(var=var):
                return known[var.name]
            case Op(operator=operator, operands=operands):
                parts = [value(y) for y in operands]
                functions = {"+": np.add, "-": np.subtract, "*": np.multiply, "exp2": np.exp2}
                functions |= {"neg": np.negative, "/": np.divide}
                return functions[operator](*parts)
        raise AssertionError(x)

    for s in body:
        assert isinstance(s, Let | Fold)
        got = value(s.value)
        known[s.var.name] = got.sum(1, keepdims=True) if isinstance(s, Fold) else got
    return known


SUMS = (Fold(T, Ref(N), "m0", "sum"), Let(H.var, Op("+", (H, Ref(T)))))

BODIES = {
    "a penalty": (
        Let(S, minus(times(X, 0.3), times(W, D))),
        Let(N, Op("exp2", (minus(Ref(S), G),))),
        *SUMS,
    ),
    "a reward": (
        Let(S, Op("+", (times(X, 0.3), times(W, D)))),
        Let(N, Op("exp2", (Op("+", (minus(G, Ref(S)), H)),))),
        *SUMS,
    ),
    "taken away": (
        Let(N, Op("exp2", (Op("neg", (minus(times(X, D), minus(G, times(X, 2.0))),)),))),
        *SUMS,
    ),
    "a surprise": (
        Let(N, Op("exp2", (minus(times(X, 0.5), times(G, 0.5)),))),
        Fold(T, times(Ref(N), minus(times(G, 0.3), times(X, 0.3))), "m0", "sum"),
        Let(H.var, Op("+", (H, Ref(T)))),
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_results_are_the_same(name: str) -> None:
    body = BODIES[name]
    found = at_rest(body, ("n", "h"))
    assert found != body
    for draw in range(3):
        before, after = evaluated(body, draw), evaluated(found, draw)
        for x in ("n", "h"):
            assert np.allclose(before[x], after[x], rtol=1e-13)


def test_products_are_added_to_what_is_none() -> None:
    found, *_ = at_rest(BODIES["a penalty"], ("n", "h"))
    total = minus(times(X, 0.3), Op("+", (times(W, D), G)))
    assert found == Let(N, Op("exp2", (total,)))


def test_a_multiple_of_the_exponent_is_read_from_it() -> None:
    exponent, power, fold, added = at_rest(BODIES["a surprise"], ("n", "h"))
    assert isinstance(exponent, Let) and isinstance(power, Let) and isinstance(fold, Fold)
    assert power.value == Op("exp2", (Ref(exponent.var),))
    assert fold.value == times(Ref(N), Ref(exponent.var))
    assert added == Let(H.var, Op("+", (H, times(Ref(T), -0.6))))


def test_what_is_handed_on_or_read_elsewhere_keeps_its_name() -> None:
    body = BODIES["a penalty"]
    assert at_rest(body, ("n", "h", "s"))[0] == body[0]
    load = Load(Var("v", ("p0", "m0")), "V", (Ref(S),), None, 0.0)
    assert at_rest((*body, load), ("n", "h"))[0] == body[0]


def test_multiples_are_of_all_terms() -> None:
    whole = form(minus(times(X, 2.0), G))
    assert multiple(minus(G, times(X, 2.0)), whole) == -1.0
    assert multiple(minus(times(X, 2.0), times(G, 1.5)), whole) is None
    assert multiple(times(X, 2.0), whole) is None
    assert multiple(times(X, 2.0), form(X)) is None  # one term: it is as near as the exponent
