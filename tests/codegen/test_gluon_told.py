"""What the fetching warp reads of lists and tells the others: where tiles lie, what they need.

Kernels run on the machine of ``gluon_machine.py``; truth is the interpreter in float64.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.lowered import Lowered

from . import gluon_machine
from .gluon_machine import DeadlockError
from .kernel_cases import outputs, relative
from .test_gluon import run
from .test_gluon_walks import blocks, documents, qkv

Case = tuple[Lowered, list[torch.Tensor], tuple[np.ndarray, ...]]

SQUARED = """
def squared(Q, K, V, doc):
    R[b, h, p, m] = Q[b, h, p, e] * K[b, h, m, e] / 8
    S[b, h, p, m: m <= p and doc[b, p] == doc[b, m]] = R[b, h, p, m] * R[b, h, p, m]
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""

SPACED = """
def spaced(Q, K, V, doc, *, s=3):
    S[b, h, p, m: m <= p and doc[b, p] == doc[b, m] and (p - m) % s != 1] = (
        Q[b, h, p, e] * K[b, h, m, e] / 8
    )
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""

BELOW = """
def below(Q, K, V, Blocks: unique, Count, *, P0=128, M0=128):
    List[b, h, i, j: j < Count[b, h, i]] = Blocks[b, h, i, j]
    S[b, h, p, m: m // M0 in List[b, h, p // P0] and m <= p] = Q[b, h, p, e] * K[b, h, m, e] / 8
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""

DECLARED = {
    "labels": examples.document,
    "scores that are squared before they are tested": einfall.cascade(SQUARED),
    "a test of three parts": einfall.cascade(SPACED),
    "lists below a limit": einfall.cascade(BELOW),
}


@pytest.fixture(autouse=True)
def at_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einfall.passes.specialise.RESTS", 0)


@cache
def case(name: str) -> Case:
    """Return a kernel, its arguments, its parameters and what it has to compute."""
    given = [*qkv(rows=420, columns=420), documents(30, 320, 50, 20)]
    if name == "lists below a limit":
        given = [*qkv(rows=500, columns=500), *blocks(0.7, 4, 4)]
    truth = outputs(einfall.interpret(DECLARED[name], *given))
    f = einfall.compile(DECLARED[name], emitter="gluon", target="sm_90", parts={"m": 1})
    return f.lower(*given), given, truth


def run_broken(name: str, pattern: str, other: str, seed: int) -> np.ndarray:
    """Run a kernel with something else in the place of what matches a pattern."""
    found, given, _ = case(name)
    *before, last = found.kernels
    text = re.sub(pattern, other, last.text)
    assert text != last.text
    found = replace(found, kernels=(*before, replace(last, text=text)))
    return run(found, given, {}, seed=seed, programs=2)[0]


@pytest.mark.parametrize("name", DECLARED)
def test_each_part_of_a_test_is_asked_where_a_tile_needs_it(name: str) -> None:
    found, given, truth = case(name)
    assert "told(m_test_ring" in found.source and "gl.load(m_tiles" not in rows_of(found)
    (got,) = run(found, given, {}, seed=len(name), programs=2)
    assert relative(got, truth[0]) < 1e-3


def rows_of(found: Lowered) -> str:
    """Return the text of what the consumers do."""
    return found.kernels[-1].text.partition("_rows(CONSUMER")[2]


BREAKS = {
    "told before it was read": (r" +mbarrier\.wait\(k_empty\.index\(step % STAGES.*\n", ""),
    "a limit that is not asked": (r"if m_test != 0:", "if False:"),
    "labels that are not asked": (r"if m_test_1 != 0:\n( +)doc", r"if False:\n\1doc"),
    "no tile said to be tested": (r"tell\(m_test(_1)?_ring(.*), m_test(_1)?\)",
                                  r"tell(m_test\1_ring\2, 0)"),
    "told of the next tile": (r"told\(m_first_ring\.index\(step %",
                              "told(m_first_ring.index((step + 1) %"),
    "labels fetched for every tile": (r"if m_test_1 != 0:\n( +)fetch", r"if True:\n\1fetch"),
    "how far it walks told too late": (
        r"( +tell\(full_tiles.*\n)( +tell.*\n)( +mbarrier\.expect\(q.*\n)", r"\3"),
}  # fmt: skip
"""Ways to break what is told: a pattern, and what stands for it."""


@pytest.mark.parametrize("how", BREAKS)
def test_machine_catches_what_is_told_wrongly(how: str) -> None:
    truth = case("labels")[-1][0]
    for seed in range(3):
        try:
            got = run_broken("labels", *BREAKS[how], seed)
        except (AssertionError, DeadlockError):
            return
        if not np.isfinite(got).all() or relative(got, truth) > 1e-3:
            return
    pytest.fail(f"nothing noticed: {how}")


def test_a_listed_block_that_is_cut_is_taken_once_more() -> None:
    name = "lists below a limit"
    found, _, truth = case(name)
    assert "if large(CONSUMER) + m_test == 0:" in rows_of(found)
    got = run_broken(name, r"large\(CONSUMER\) \+ m_test", "large(CONSUMER)", 0)
    assert relative(got, truth[0]) > 1e-2


def test_tiles_that_are_all_whole_have_a_loop_of_their_own() -> None:
    f = einfall.compile(examples.radial_blocks, emitter="gluon", target="sm_90", parts={"m": 1})
    sizes = {"b": 1, "h": 2, "p": 4096, "m": 4096, "e": 64, "f": 64, "d": 16, "o": 3}
    text = rows_of(f.lower(sizes=sizes, dtype="float16", s=256, B=128))
    whole = text.partition("range(gl.where(0 < partial_tiles, 0, 1), full_tiles)")[2]
    assert "radial_blocks_whole_resting(" in whole and "told(m_" not in whole


def test_rows_without_tiles_give_nothing() -> None:
    _, given, _ = case("lists below a limit")
    given = [*given[:-1], torch.zeros_like(given[-1])]
    f = einfall.compile(
        DECLARED["lists below a limit"], emitter="gluon", target="sm_90", parts={"m": 1}
    )
    (got,) = run(f.lower(*given), given, {}, programs=2)
    assert (got == 0).all()


def test_bounds_of_each_row_are_told() -> None:
    sizes = {"b": 1, "h": 2, "p": 4096, "m": 4096, "e": 64, "f": 64}
    f = einfall.compile(examples.document_starts, emitter="gluon", target="sm_90")
    found = f.lower(sizes=sizes, dtype="float16", dtypes={"begin": "int32"})
    assert "every_row(P0" in found.source and "every_row(P0" not in rows_of(found)
    assert "m_begin = told(m_begin_ring.index(CONSUMER))" in rows_of(found)


def test_a_row_without_points_in_a_tile_does_not_have_it_taken_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows of a second document meet tiles of the first, with nothing taken in yet."""
    found, given, _ = case("labels")
    given = [*given[:-1], documents(400, 20)]
    truth = outputs(einfall.interpret(examples.document, *given))
    again: list[int] = []
    language = gluon_machine.language
    counting = {"taken_again": lambda: again.append(1)}
    monkeypatch.setattr(gluon_machine, "language", lambda *x: {**language(*x), **counting})
    *before, last = found.kernels
    text = re.sub(r"\n( +)(a_n, .* = document_moving\(anew)", r"\n\1taken_again()\n\1\2", last.text)
    assert text.count("taken_again()") == 1
    found = replace(found, kernels=(*before, replace(last, text=text)))
    (got,) = run(found, given, {}, programs=2)
    assert relative(got, truth[0]) < 1e-3
    assert len(again) == 4  # of each head, by each consumer, at the tile that has their point
