"""Kernels whose frames rest: right where scores rise by little, by much, and beyond all numbers."""

from __future__ import annotations

import numpy as np
import pytest

import einfall
from einfall import examples

from .kernel_cases import outputs, relative
from .test_gluon import case, lowered, run

SIZES = {"rows": 130, "columns": 650}


@pytest.fixture(autouse=True)
def at_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einfall.passes.specialise.RESTS", 0)


PLAIN = ("attention", "causal_lse", "sliding_window", "entropy")
CASES = [(name, rise) for name in PLAIN for rise in (1, 40)]


@pytest.mark.parametrize(("name", "rise"), [*CASES, ("alibi", 1), ("differential", 40)])
def test_scores_that_rise(name: str, rise: int) -> None:
    tensors, parameters, _ = case(name, **SIZES)
    tensors = [x.clone() for x in tensors]
    tensors[1][..., 300:, :] *= rise
    truth = outputs(einfall.interpret(getattr(examples, name), *tensors, **parameters))
    found = lowered(name, **SIZES)
    assert "if large(CONSUMER) == 0:" in found.source
    assert "frames rest while a tile adds little to" in str(found.explain())
    got = run(found, tensors, parameters, programs=2)
    for x, expected in zip(got, truth, strict=True):
        assert relative(x, expected) < 1e-3


def test_frames_that_lag() -> None:
    sizes = {**SIZES, "width": 128}
    tensors, parameters, _ = case("differential", **sizes)
    tensors = [x.clone() for x in tensors]
    tensors[1][..., 300:, :] *= 20
    tensors[3][..., 500:, :] *= 20
    (truth,) = outputs(einfall.interpret(examples.differential, *tensors, **parameters))
    found = lowered("differential", **sizes)
    assert found.source.count("note_moved(rescale") == 2
    assert "frames move only where they are far behind" in str(found.explain())
    (got,) = run(found, tensors, parameters, programs=2)
    assert relative(got, truth) < 1e-3
    # a factor that is left out is missed
    text = found.source.replace("large(CONSUMER) != 0", "large(CONSUMER) == 2")
    (wrong,) = run(found, tensors, parameters, programs=2, text=text)
    assert not np.isfinite(wrong).all() or relative(wrong, truth) > 1e-2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_it_is_asked_whether_frames_may_rest() -> None:
    tensors, parameters, _ = case("attention", **SIZES)
    tensors = [x.clone() for x in tensors]
    tensors[1][..., 300:, :] *= 40
    truth = outputs(einfall.interpret(examples.attention, *tensors, **parameters))
    found = lowered("attention", **SIZES)
    text = found.source.replace("if large(CONSUMER) == 0:", "if True:")
    (got,) = run(found, tensors, parameters, programs=2, text=text)
    assert not np.isfinite(got).all() or relative(got, truth[0]) > 1e-3


def test_frames_move_in_short_walks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("einfall.passes.specialise.RESTS", 4096)
    einfall.compile(examples.attention, emitter="gluon")  # another compilation, not a kept one
    assert "note_large" not in lowered("causal_lse", rows=131, columns=650).source
