from __future__ import annotations

import keyword

from einfall.codegen.names import RESERVED, Names


def test_a_name_is_given_once() -> None:
    names = Names(("q", "Q"))
    assert [names.take(x) for x in ("q", "q", "s", "s", "q_2")] == [
        "q_2",
        "q_3",
        "s",
        "s_2",
        "q_2_2",
    ]


def test_a_tile_keeps_its_name() -> None:
    names = Names(("Q", "K", "q"))
    assert names.tile("Q") == "q_2"
    assert names.tile("K") == "k" and names.tile("K", "_0") == "k_0"
    assert names.tile("Q") == "q_2" and names.tile("K") == "k"


def test_tensors_that_differ_in_case_alone_are_told_apart() -> None:
    names = Names(("A", "a"))
    assert len({names.tile("A"), names.tile("a"), "A", "a"}) == 4


def test_what_python_and_triton_own_is_not_given() -> None:
    names = Names(())
    for word in (*keyword.kwlist, "tl", "triton", "pid", "min", "max", "range", "abs"):
        assert word in RESERVED
        assert names.take(word) == f"{word}_2"
    assert names.tile("If") == "if_3" and names.tile("Lambda") == "lambda_3"
