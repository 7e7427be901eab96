"""Verification of cascades that were built, not read: what a pass may have got wrong."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import pytest

from einfall.ir.cascade import Cascade, Einsum
from einfall.ir.errors import (
    NOWHERE,
    LocatedError,
    Location,
    NotationError,
    RankError,
    SparsityError,
)
from einfall.ir.expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Parameter,
    Populate,
    RankVariable,
    Reduce,
)
from einfall.ir.notation import cascade
from einfall.ir.verify import verify

p, m, c = (RankVariable(x) for x in "pmc")
X, Y = Access("X", (p, m)), Access("Y", (p,))


def built(body: Expression, filter: Expression | None = None, *left: Expression) -> Cascade:
    """Return a cascade of one einsum that writes Y[p], or Y at the coordinates ``left``."""
    einsum = Einsum(Access("Y", left or (p,)), body, filter)
    inputs = tuple(x for x in einsum.reads if x != "Y")
    return Cascade("built", inputs, (("W", None),), (einsum,), ("Y",))


def test_a_good_cascade_comes_back_as_it_is() -> None:
    found = built(Reduce("sum", ("m",), X))
    assert verify(found) is found


BODIES: dict[str, tuple[Expression, type[LocatedError]]] = {
    "unknown operator": (Apply("cosh", (X,)), NotationError),
    "one operand too few": (Apply("+", (Constant(1),)), NotationError),
    "conjunction of one": (Apply("and", (Constant(True),)), NotationError),
    "not a number": (Constant(nan), NotationError),
    "unknown reducer": (Reduce("median", ("m",), X), NotationError),
    "unknown selector": (Populate("bottomk", "m", Constant(1), X), NotationError),
    "selection inside": (
        Apply("neg", (Populate("topk", "m", Constant(1), X),)),
        NotationError,
    ),
    "concatenation inside": (
        Apply("neg", (Concatenate("p", (X, X)),)),
        NotationError,
    ),
    "reduction over no rank": (Reduce("sum", (), X), RankError),
    "reduction twice over a rank": (Reduce("sum", ("m", "m"), X), RankError),
    "reduction over a kept rank": (Reduce("sum", ("p",), X), RankError),
    "reduction over an absent rank": (Reduce("sum", ("c",), X), RankError),
    "unbound rank": (X, RankError),
    "rank bound elsewhere only": (Apply("+", (Reduce("sum", ("m",), X), m)), RankError),
    "unknown parameter": (Parameter("V"), RankError),
    "itself": (Y, RankError),
    "two numbers of ranks": (
        Reduce("sum", ("m",), Apply("*", (X, Access("X", (m,))))),
        RankError,
    ),
    "membership in an expression": (Apply("in", (p, Apply("+", (p, p)))), RankError),
    "rank named like an input": (Access("Q", (RankVariable("Q"),)), RankError),
    "rank named like a parameter": (Access("Q", (RankVariable("W"),)), RankError),
    "filter of a reduction is a number": (Reduce("sum", ("m",), X, m), SparsityError),
    "filter of a reduction on an absent rank": (
        Reduce("sum", ("m",), X, Apply("<", (c, m))),
        SparsityError,
    ),
}


@pytest.mark.parametrize(("body", "kind"), BODIES.values(), ids=BODIES)
def test_a_wrong_right_side_is_found(body: Expression, kind: type[LocatedError]) -> None:
    with pytest.raises(LocatedError) as caught:
        verify(built(body))
    assert type(caught.value) is kind
    assert caught.value.at == NOWHERE


FILTERS: dict[str, Expression] = {
    "a number": Apply("-", (p, Constant(1))),
    "a rank": p,
    "a number in a conjunction": Apply("and", (Constant(True), p)),
    "a number in a negation": Apply("not", (Constant(1),)),
    "a number in a choice": Apply("where", (Constant(True), Constant(True), p)),
    "an absent rank": Apply("<", (m, p)),
    "a maximum": Reduce("max", ("m",), X),
}


@pytest.mark.parametrize("filter", FILTERS.values(), ids=FILTERS)
def test_a_filter_is_a_condition_on_ranks_that_are_there(filter: Expression) -> None:
    with pytest.raises(SparsityError):
        verify(built(Access("Q", (p,)), filter))


@pytest.mark.parametrize(
    "filter",
    [
        Constant(True),
        Parameter("W"),
        Access("keep", (p,)),
        Apply("in", (p, Access("lists", ()))),
        Apply("default", (Access("keep", (p,)), Constant(False))),
        Reduce("any", ("m",), Apply("<", (X, Constant(0)))),
    ],
)
def test_what_may_be_a_condition_is_one(filter: Expression) -> None:
    verify(built(Access("Q", (p,)), filter))


def test_a_filter_needs_a_rank_to_stand_on() -> None:
    einsum = Einsum(Access("Y", ()), Access("Q", ()), Parameter("W"))
    with pytest.raises(SparsityError, match="has none"):
        verify(Cascade("built", ("Q",), (("W", None),), (einsum,), ("Y",)))


@pytest.mark.parametrize("left", [(p, p), (Apply("//", (p, Constant(2))),), (Constant(0.5),)])
def test_a_left_coordinate_is_a_rank_or_a_generation(left: tuple[Expression, ...]) -> None:
    with pytest.raises(RankError):
        verify(built(Constant(1), None, *left))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"einsums": ()}, NotationError),
        ({"outputs": ()}, RankError),
        ({"outputs": ("Z",)}, RankError),
        ({"outputs": ("Y", "Y")}, RankError),
        ({"inputs": ("X", "Q")}, RankError),
        ({"inputs": ("X", "X")}, RankError),
        ({"inputs": ("X", "Y")}, RankError),
        ({"inputs": ()}, RankError),
        ({"inputs": ("X", "not a name")}, NotationError),
        ({"inputs": ("X", "lambda")}, NotationError),
        ({"parameters": (("X", 1),)}, RankError),
        ({"parameters": (("exp", 1),)}, NotationError),
    ],
)
def test_the_parts_of_a_cascade_fit(change: dict[str, object], kind: type[LocatedError]) -> None:
    with pytest.raises(LocatedError) as caught:
        verify(replace(built(Reduce("sum", ("m",), X)), **change))  # type: ignore[arg-type]
    assert type(caught.value) is kind


def test_places_of_arguments_are_pointed_at() -> None:
    here = Location("file", 3, 5, 3, 6, "def f(X, Q):")
    with pytest.raises(RankError) as caught:
        verify(replace(built(Reduce("sum", ("m",), X)), inputs=("X", "Q")), {"Q": here})
    assert caught.value.at == here


RECURRENCES = {
    "forward": "H[0] = 0\nH[i + 1] = a[i] * H[i] + K[i]",
    "backward": "H[size(i)] = 0\nH[i] = a[i] * H[i + 1] + K[i]",
    "two together": (
        "M[0, p] = -inf\nM[i + 1, p] = max(M[i, p], L[i, p])\n"
        "R[0, p] = 0\nR[i + 1, p] = R[i, p] * exp(M[i, p] - M[i + 1, p]) + L[i, p]"
    ),
    "each reads the other": (
        "A[0] = 0\nB[0] = 1\nA[i + 1] = A[i] + B[i] * K[i]\nB[i + 1] = A[i + 1] * B[i]\nreturn B"
    ),
    "through a tensor between": "H[0] = 0\nN[i] = H[i] * K[i]\nH[i + 1] = H[i] + N[i]\nreturn H",
    "nested": (
        "H[0, j] = 0\nH[i + 1, 0] = K[i]\nH[i + 1, j + 1] = H[i, j] + H[i + 1, j] * K[j]\nreturn H"
    ),
}


@pytest.mark.parametrize("text", RECURRENCES.values(), ids=RECURRENCES)
def test_a_recurrence_that_can_be_computed_is_accepted(text: str) -> None:
    found = cascade(text)
    assert verify(found) is found
    assert cascade(str(found)) == found


IMPOSSIBLE = {
    "reads what it writes": "H[0] = 0\nH[i + 1] = H[i + 1] + K[i]",
    "two in one generation": (
        "A[0] = 0\nB[0] = 1\nA[i + 1] = B[i + 1] * K[i]\nB[i + 1] = A[i + 1] * B[i]\nreturn B"
    ),
    "both directions": "H[0] = 0\nH[i + 1] = H[i] + N[i]\nN[i] = H[i + 2] * K[i]\nreturn N",
    "first from the last": "H[0] = E\nE = H[size(i)]\nH[i + 1] = H[i] + K[i]\nreturn H",
    "no iteration at all": "Z[i] = Z[i - 1] + K[i]",
}


@pytest.mark.parametrize("text", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_a_recurrence_without_a_beginning_is_refused(text: str) -> None:
    with pytest.raises(RankError, match="computed from|one way"):
        cascade(text)


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        ((p, m), (p, c), True),
        ((m, p), (c, p), True),
        ((p, m), (p, m), False),
        ((p, m), (c,), False),
        ((p, m, RankVariable("x")), (p, c), False),
        ((p, RankVariable("n")), (p, c), False),
        ((p, Apply("+", (m, Constant(1)))), (p, c), False),
    ],
)
def test_parts_of_a_concatenation_have_one_rank_of_their_own(
    first: tuple[Expression, ...], second: tuple[Expression, ...], fits: bool
) -> None:
    parts = (Access("A", first), Access("B", second))
    found = built(Concatenate("n", parts), None, p, RankVariable("n"))
    if fits:
        verify(found)
        return
    with pytest.raises(RankError):
        verify(found)
