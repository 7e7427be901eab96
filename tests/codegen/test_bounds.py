"""Bounds of a coordinate joined in one comparison, which has to hold where all of them do."""

from __future__ import annotations

from itertools import product

import pytest

from einfall.codegen.bounds import join_bounds
from einfall.codegen.loop_nest import Index, Number, Op, Scalar, Value

M, P = Index("m"), Index("p")
N, OTHER = Scalar("N"), Scalar("OTHER")
TESTS: dict[str, Value] = {
    "below": Op("<", (M, N)),
    "up to": Op("<=", (M, Op("+", (P, OTHER)))),
    "mirrored": Op(">=", (P, M)),
    "above": Op(">", (M, Op("-", (P, OTHER)))),
    "from": Op("<=", (Op("-", (P, Number(3))), M)),
    "apart": Op("!=", (M, P)),
    "of itself": Op("<", (M, Op("+", (M, P)))),
}


def whole(value: Value) -> str:
    return "int32"


def evaluate(value: Value, known: dict[str, int]) -> int:
    match value:
        case Number(value=x):
            return int(x)
        case Index(axis=name) | Scalar(name=name):
            return known[name]
        case Op(operator=operator, operands=operands):
            x, *rest = [evaluate(o, known) for o in operands]
            y = rest[0]
            return {
                "and": all((x, *rest)),
                "min": min(x, *rest),
                "max": max(x, *rest),
                "+": x + y,
                "-": x - y,
                "<": x < y,
                "<=": x <= y,
                ">": x > y,
                ">=": x >= y,
                "!=": x != y,
            }[operator]
    raise AssertionError(value)


@pytest.mark.parametrize("one", TESTS)
@pytest.mark.parametrize("other", TESTS)
def test_joined_bounds_hold_where_all_do(one: str, other: str) -> None:
    tests = [TESTS["below"], Op("and", (TESTS[one], TESTS[other]))]
    joined = join_bounds(tests, M, whole)
    for m, p, n, k in product(range(5), range(5), (1, 3), (0, 2)):
        known = {"m": m, "p": p, "N": n, "OTHER": k}
        assert all(evaluate(x, known) for x in joined) == all(evaluate(x, known) for x in tests)
    uppers = [x for x in joined if isinstance(x, Op) and x.operator in ("<", "<=")]
    alone = [x for x in uppers if x.operands[0] == M and x != TESTS["of itself"]]
    assert len(alone) == 1


def test_what_is_not_whole_or_alone_stays() -> None:
    real = [TESTS["below"], Op("<", (M, Scalar("x", "float32")))]
    assert join_bounds(real, M, lambda v: getattr(v, "dtype", "int32")) == tuple(real)
    assert join_bounds([TESTS["below"]], M, whole) == (TESTS["below"],)
    assert join_bounds([TESTS["below"], TESTS["up to"]], Number(3), whole) == (
        TESTS["below"],
        TESTS["up to"],
    )


def test_limits_of_numbers_are_numbers() -> None:
    tests: list[Value] = [Op("<=", (M, Number(7))), Op("<=", (M, Op("-", (N, Number(1)))))]
    assert join_bounds(tests, M, whole) == (Op("<", (M, Op("min", (Number(8), N)))),)
