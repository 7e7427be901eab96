"""What grows along columns: the same numbers on the machine, in the operations asked for."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import einfall
from einfall.backends.lowered import Lowered
from einfall.codegen.loop_nest import Axis, Cast, Index, Let, Number, Op, Ref, Scalar, Value, Var
from einfall.codegen.slopes import fma, growing, sloped

from .kernel_cases import relative
from .test_gluon import run

ROWS, COLUMNS = Index("p"), Index("m")
AXIS = Axis("m", "m", 128, "M0", "m_first")
S, W, G = Ref(Var("s", ("p", "m"))), Ref(Var("w", ())), Ref(Var("g", ("p",)))

EARLIER = ": m <= p + size(m) - size(p)"

MAPS = {
    "a slope": "X[b, h, p, m] - w[h] * (p + size(m) - size(p) - m)",
    "a slope both ways": "X[b, h, p, m] - w[h] * abs(p + 7 - m)",
    "a slope that rises": "X[b, h, p, m] + 0.25 * (m - 2 * p + 11) / 64",
    "a logarithm": "X[b, h, p, m] - w[h] * log(1 + p + size(m) - size(p) - m)",
    "a tangent": "4 * tanh(X[b, h, p, m] / 4)",
    "gates": "X[b, h, p, m] * r[b, h, p] * g[b, h, m]",
    "weights of columns": "X[b, h, p, m] + log(g[b, h, m])",
}


def lower(score: str, filtered: str) -> tuple[Lowered, list[torch.Tensor]]:
    """Lower a map of scores; return it with arguments."""
    names = [n for n in ("w", "r", "g") if f"{n}[" in score]
    text = f"""def mapped(Q, K, V{"".join(f", {n}" for n in names)}):
    X[b, h, p, m{filtered}] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))
    S[b, h, p, m] = {score}
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""
    random = torch.Generator().manual_seed(3)
    shapes = [(1, 2, 130, 64), (1, 2, 300, 64), (1, 2, 300, 64)]
    tensors = [torch.randn(s, generator=random).half() for s in shapes]
    more = {n: torch.rand(1, 2, k, generator=random) + 0.5 for n, k in (("r", 130), ("g", 300))}
    more["w"] = torch.tensor([0.7, 0.01])
    tensors += [more[n] for n in names]
    f = einfall.compile(einfall.cascade(text), emitter="gluon", target="sm_90", parts={"m": 1})
    return f.lower(*tensors), tensors


@pytest.mark.parametrize("name", MAPS)
def test_maps_compute_what_they_mean(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einfall.passes.specialise.RESTS", 0)
    found, tensors = lower(MAPS[name], "" if "slope " in name else EARLIER)
    truth = einfall.interpret(found.cascade, *tensors)
    (got,) = run(found, tensors, {}, programs=2)
    assert relative(got, np.asarray(truth)) < 1e-3
    assert ("along(" in found.source) == ("slope" in name or "logarithm" in name)
    # one select of a point is enough, whatever function stands between it and its weight
    assert len(re.findall(r"gl\.where\(live|= kept\(", found.source)) <= 1


def test_a_term_is_a_multiplication_with_the_column() -> None:
    away = Op("-", (ROWS, COLUMNS))
    value = Op("-", (Op("*", (S, Number(0.5))), Op("+", (Op("*", (W, away)), G))))
    begin = Cast(Op("-", (ROWS, Scalar("m_first"))), "float32")
    step = Op("*", (W, Number(-1.0)))
    whole = Op("-", (Op("neg", (Op("*", (W, begin)),)), G))
    grown = Op("fma", (Index("m", row=True), Op("neg", (step,)), whole))
    found = sloped(Let(Var("n", ("p", "m")), Op("exp2", (value,))), AXIS)
    expected: Value = Op("exp2", (Op("+", (Op("*", (S, Number(0.5))), grown)),))
    assert found == Let(Var("n", ("p", "m")), expected)


def test_what_grows() -> None:
    twice = Op("+", (COLUMNS, Op("-", (COLUMNS, ROWS))))
    found = growing(twice, AXIS)
    assert found is not None and found[0] == Number(2.0)
    first = Scalar("m_first")
    assert found[1] == Cast(Op("+", (first, Op("-", (first, ROWS)))), "float32")
    assert fma(found, AXIS) == Op("fma", (Index("m", row=True), *found))
    assert growing(ROWS, AXIS) is None
    assert growing(Op("*", (COLUMNS, COLUMNS)), AXIS) is None
    # whole numbers stay whole where they are compared or looked up by
    index = Let(Var("i", ("p", "m"), "int32"), Op("-", (ROWS, COLUMNS)))
    assert sloped(index, AXIS) == index
