"""Kernels whose frames rest: right where scores rise by little, by much, and beyond all numbers."""

from __future__ import annotations

from pathlib import Path

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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("resting", (True, False))
def test_rows_that_meet_their_first_point_in_a_tested_tile(resting: bool) -> None:
    """Scores so low that a frame of 0 would leave nothing of them, in windows inside a tile."""
    tensors, parameters, _ = case("sliding_window", rows=300, columns=300)
    tensors = [x.clone() for x in tensors]
    tensors[0][:], tensors[1][:] = 4, -32
    parameters = {**parameters, "W": 20}
    truth = outputs(einfall.interpret(examples.sliding_window, *tensors, **parameters))
    f = einfall.compile(examples.sliding_window, emitter="gluon", target="sm_90", parts={"m": 1})
    found = f.lower(*tensors, **parameters)
    text = found.source
    assert "if m_whole_end_2 <= m_at:" in text  # tested tiles are in the loop of whole ones
    if not resting:
        text = text.replace("note_large(a_d_resting", "note_large(a_d_shares")
    (got,) = run(found, tensors, parameters, programs=2, text=text)
    assert (relative(got, truth[0]) < 1e-3) == resting


def test_tested_tiles_rest_where_only_weights_read_frames() -> None:
    text = lowered("sliding_window", **SIZES).source
    assert "sliding_window_test(" in text and "sliding_window_cut(" not in text
    # the entropy adds up weights times scores less their frame
    declared = (Path(examples.__file__).parent / "entropy.einsum").read_text()
    band = declared.replace("m: m <= p + size(m) - size(p)", "m: 0 <= p - m < 200")
    assert band != declared
    f = einfall.compile(einfall.cascade(band), emitter="gluon", target="sm_90", parts={"m": 1})
    text = f.lower(sizes={"e": 64, "f": 64, "p": 650, "m": 650}).source
    assert "entropy_whole_resting(" in text and "entropy_cut(" in text


def test_frames_move_in_short_walks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("einfall.passes.specialise.RESTS", 4096)
    einfall.compile(examples.attention, emitter="gluon")  # another compilation, not a kept one
    assert "note_large" not in lowered("causal_lse", rows=131, columns=650).source
