"""Numbers of each column that scores are added to or multiplied with: they come with every tile."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import einfall
from einfall.backends.aot import check, compile_ahead
from einfall.backends.lowered import Lowered

from .kernel_cases import outputs, relative
from .test_gluon import run

CAUSAL = """
def weighed(Q, K, V, w):
    S[b, h, p, m: m <= p + size(m) - size(p)] = SCORE
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""

SCORES = {
    "added": "Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e)) + w[b, m]",
    "times": "Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e)) * w[b, m]",
}


@pytest.fixture(autouse=True)
def at_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einfall.passes.specialise.RESTS", 0)


def compiled(score: str, masked: bool = True) -> einfall.Cascade:
    text = CAUSAL.replace("SCORE", SCORES[score])
    return einfall.cascade(text if masked else text.replace(": m <= p + size(m) - size(p)", ""))


def tensors(rise: float, m: int = 652) -> list[torch.Tensor]:
    draw = np.random.default_rng(3)
    shapes = [(1, 1, 130, 64), (1, 1, m, 64), (1, 1, m, 64)]
    found = [torch.from_numpy(draw.normal(size=s)).half() for s in shapes]
    found[1][..., 300:, :] *= rise
    return [*found, torch.from_numpy(draw.uniform(0.5, 2, size=(1, m))).float()]


def lowered(score: str, given: list[torch.Tensor], masked: bool = True) -> Lowered:
    cascade = compiled(score, masked)
    f = einfall.compile(cascade, emitter="gluon", target="sm_90", parts={"m": 1})
    return f.lower(*given)


@pytest.mark.parametrize(
    ("score", "rise", "masked"), [("added", 1, True), ("times", 1, False), ("added", 40, False)]
)
def test_they_are_there_when_the_work_begins(score: str, rise: float, masked: bool) -> None:
    given = tensors(rise)
    found = lowered(score, given, masked)
    assert "gl.load(" not in found.source and "w_box" in found.source
    (truth,) = outputs(einfall.interpret(compiled(score, masked), *given))
    for seed in range(2):
        (got,) = run(found, given, {}, programs=2, seed=seed)
        assert relative(got, truth) < 1e-3


def test_what_has_no_rows_of_16_bytes_is_read_by_those_who_compute() -> None:
    given = tensors(1, m=650)
    assert "gl.load(w_at" in lowered("added", given).source


def test_128_features_leave_no_registers_for_them() -> None:
    f = einfall.compile(compiled("times"), emitter="gluon", target="sm_90", parts={"m": 1})
    assert "gl.load(w_at" in f.lower(sizes={"e": 128, "f": 128}).source


def test_nothing_spills_and_no_warp_waits_for_others_where_it_goes_its_own_way() -> None:
    sizes = {"e": 64, "f": 64, "m": 2048}
    f = einfall.compile(compiled("times"), emitter="gluon", target="sm_90")
    (kernel,) = (found := f.lower(sizes=sizes, dtype="bfloat16")).kernels
    report = compile_ahead(kernel, dict(found.mapping.dtypes), "sm_90")
    check(report, local=20, tensor_core="wgmma")
    hot = [x for x in report.loops if x.innermost and x.tensor_core]
    assert hot and not any(x.local_loads + x.local_stores for x in hot)
    lines = [x.strip() for x in report.assembly.splitlines()]
    votes = [k for k, x in enumerate(lines) if "VOTE.ANY" in x]
    assert len(votes) == 2  # of each consumer
    for k in votes:
        branch = next(x for x in lines[k:] if " BRA " in x)
        target = re.search(r"`\((\S+)\)", branch)
        assert target is not None
        inside = lines[lines.index(branch, k) : lines.index(f"{target[1]}:")]
        assert len(inside) > 100 and not any("BAR." in x or "WARPGROUP" in x for x in inside)
