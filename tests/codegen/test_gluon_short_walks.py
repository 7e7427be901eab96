"""Gluon kernels whose walks are short: one loop for all tiles, in which some are tested.

They run on the machine of ``gluon_machine.py``; truth is the interpreter in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.lowered import Lowered
from einfall.ir.mapping import Crew

from .kernel_cases import outputs, relative
from .test_gluon import case, run

LONG = {"b": 1, "h": 2, "p": 4096, "m": 4096, "e": 128, "f": 128}


def crew(name: str) -> Crew:
    f = einfall.compile(getattr(examples, name), emitter="gluon", target="sm_90", parts={"m": 1})
    found = f.lower(sizes=LONG, dtype="float16").mapping.kernels[-1].crew
    assert found is not None
    return found


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
    assert "live = below(" in found.source
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
