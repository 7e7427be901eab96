"""Gluon kernels whose walks are short: one loop for all tiles, in which some are tested.

They run on the machine of ``gluon_machine.py``; truth is the interpreter in float64.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.lowered import Lowered
from einfall.ir.mapping import Crew

from .gluon_machine import DeadlockError
from .kernel_cases import outputs, relative
from .test_gluon import case, run

LONG = {"b": 1, "h": 2, "p": 4096, "m": 4096}


def crew(name: str, features: int = 128) -> Crew:
    f = einfall.compile(getattr(examples, name), emitter="gluon", target="sm_90", parts={"m": 1})
    sizes = {**LONG, "e": features, "f": features}
    found = f.lower(sizes=sizes, dtype="float16").mapping.kernels[-1].crew
    assert found is not None
    return found


def test_operands_have_spare_places_where_walks_are_short_and_memory_is_left() -> None:
    assert crew("sliding_window").spare and crew("sink_window").spare
    assert not crew("causal").spare
    wide = crew("sliding_window", 256)
    assert wide.joined and not wide.spare


def test_walks_whose_begin_and_end_move_are_joined() -> None:
    assert crew("sliding_window").joined and crew("sink_window").joined
    assert not crew("causal").joined and not crew("attention").joined


def window(rows: int, **parameters: Any) -> tuple[Lowered, list[torch.Tensor], dict[str, Any], Any]:
    tensors, _, _ = case("sink_window", rows=rows, columns=rows)
    truth = outputs(einfall.interpret(examples.sink_window, *tensors, **parameters))
    f = einfall.compile(examples.sink_window, emitter="gluon", target="sm_90", parts={"m": 1})
    return f.lower(*tensors, **parameters), tensors, parameters, truth


@pytest.fixture(autouse=True)
def at_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einfall.passes.specialise.RESTS", 0)


@pytest.mark.parametrize(("span", "sinks"), ((1, 0), (60, 70), (129, 3), (300, 130)))
def test_each_limit_leaves_out_its_points(span: int, sinks: int) -> None:
    found, tensors, parameters, truth = window(420, W=span, sinks=sinks)
    assert "live = below(" in found.source and "q_rows.index(own)" in found.source
    (got,) = run(found, tensors, parameters, seed=span, programs=2)
    assert relative(got, truth[0]) < 1e-3


@pytest.mark.parametrize("limit", (0, 1))
def test_every_limit_counts(limit: int) -> None:
    found, tensors, parameters, truth = window(420, W=60, sinks=0)
    tested = found.source.index("def sink_window_test")
    *before, test = found.source[tested:].split("m_first, M0)", limit + 1)
    text = found.source[:tested] + "m_first, M0)".join(before) + "m_first + 1, M0)" + test
    assert text != found.source
    (got,) = run(found, tensors, parameters, programs=2, text=text)
    assert not np.isfinite(got).all() or relative(got, truth[0]) > 1e-3


BREAKS = {
    "rows read before they are there": (r"mbarrier\.wait\(q_full\.index.*\n", "pass\n"),
    "the place of the rows before": (r"own = turn % 2 \*", "own = (turn + 1) % 2 *"),
    "sums that go on in a loop": (r"use_acc=m_at > M0, ", ""),
    "sums that go on behind it": (r"use_acc=m_\w*end\w* > M0, ", ""),
    "sums that begin anew": (r"use_acc=m_at > M0, ", "use_acc=False, "),
}
"""Ways to break the protocol: a pattern, and what stands for it."""


@pytest.mark.parametrize("how", BREAKS)
def test_machine_catches_broken_spare_places(how: str) -> None:
    pattern, other = BREAKS[how]
    found, tensors, parameters, truth = window(500, W=200, sinks=0)
    if "behind" in how:  # rows of one tile
        found, tensors, parameters, truth = window(130, W=60, sinks=0)
    begin = found.source.index("def sink_window_rows")
    text = found.source[:begin] + re.sub(pattern, other, found.source[begin:])
    assert text != found.source
    for seed in range(8):
        try:
            (got,) = run(found, tensors, parameters, seed=seed, programs=1, text=text)
        except (AssertionError, DeadlockError):
            return
        if not np.isfinite(got).all() or relative(got, truth[0]) > 1e-3:
            return
    pytest.fail(f"nothing noticed: {how}")
