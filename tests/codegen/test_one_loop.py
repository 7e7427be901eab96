"""One loop for tiles that may be cut and whole ones: what is tested, and where."""

from __future__ import annotations

from einfall.codegen.loop_nest import (
    Comment,
    Index,
    Let,
    Load,
    Number,
    Op,
    Ref,
    Scalar,
    Value,
    Var,
    When,
)
from einfall.codegen.one_loop import Joining

TESTED = Scalar("p_tested", "bool")
S, A, B, X = (Var(n, ("m", "p")) for n in "sabx")
LIVE = Var("live", ("m", "p"), "bool")
NARROWER = Op("<", (Index("p"), Scalar("size(p)")))


def where(value: Value) -> Op:
    return Op("where", (Ref(LIVE), value, Number(0.0)))


MASK = Let(LIVE, NARROWER)
MAKE_A = Let(A, Op("exp2", (Ref(S),)))
MAKE_B = Let(B, Op("*", (Ref(A), Ref(A))))


def test_a_redefined_result_is_tested_in_its_place() -> None:
    cut = (MASK, Let(S, where(Ref(S))), Comment("a"), MAKE_A, MAKE_B)
    found = Joining(TESTED, {}).joined(cut, (Comment("a"), MAKE_A, MAKE_B))
    assert found == (When(TESTED, cut[:2]), Comment("a"), MAKE_A, MAKE_B)


def test_a_value_inside_another_is_made_once() -> None:
    cut = (MASK, Let(A, where(MAKE_A.value)), MAKE_B)
    found = Joining(TESTED, {}).joined(cut, (MAKE_A, MAKE_B))
    assert found == (MAKE_A, When(TESTED, (MASK, Let(A, where(Ref(A))))), MAKE_B)


def test_an_operand_is_tested_as_soon_as_it_is_there() -> None:
    operand = Let(X, where(Ref(A)))
    cut = (MAKE_A, MAKE_B, MASK, operand)
    found = Joining(TESTED, {"x": A}).joined(cut, (MAKE_A, MAKE_B))
    assert found == (MAKE_A, Let(X, Ref(A)), When(TESTED, (MASK, operand)), MAKE_B)


def test_rows_that_do_not_exist_are_left_out_of_all_products() -> None:
    exists = Op("<", (Index("m"), Scalar("size(m)")))
    operand = Let(X, Op("where", (exists, Ref(A), Number(0.0))))
    joining = Joining(TESTED, {"x": A}, exists)
    found = joining.joined((MAKE_A, MAKE_B, operand), (MAKE_A, MAKE_B))
    assert found == (MAKE_A, When(TESTED, (Let(A, operand.value),)), MAKE_B)
    assert joining.operand(X) == A
    other = Joining(TESTED, {"x": A}, NARROWER)
    assert other.joined((MAKE_A, operand), (MAKE_A,)) != found
    assert other.operand(X) == X


def test_every_test_has_the_masks_that_it_reads() -> None:
    labels = Load(Var("labels", ("p",), "int32"), "L", (Index("p"),))
    mask = Let(LIVE, Op("==", (Ref(labels.var), Number(1))))
    tests = (Let(S, where(Ref(S))), Let(X, where(Ref(A))))
    cut = (labels, mask, tests[0], MAKE_A, tests[1])
    found = Joining(TESTED, {"x": A}).joined(cut, (MAKE_A,))
    assert found is not None
    bodies = [s.body for s in found if isinstance(s, When)]
    assert bodies == [(labels, mask, test) for test in tests]


def test_guards_of_cut_tiles_stay() -> None:
    guarded = Load(Var("d", ("p",)), "D", (Index("p"),), NARROWER)
    plain = Load(Var("d", ("p",)), "D", (Index("p"),))
    assert Joining(TESTED, {}).joined((guarded,), (plain,)) == (guarded,)


def test_what_is_more_than_tests_is_left_alone() -> None:
    # whole tiles do what cut ones do not, or in another order; a mask is read by more than tests
    assert Joining(TESTED, {}).joined((MAKE_A,), (MAKE_A, MAKE_B)) is None
    assert Joining(TESTED, {}).joined((MAKE_B, MAKE_A), (MAKE_A, MAKE_B)) is None
    reader = Let(B, where(Ref(A)))
    assert Joining(TESTED, {}).joined((MASK, MAKE_A, reader), (MAKE_A, MAKE_B)) is None
