"""The face: names that other people's code stands on, and how they work together."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import no_type_check

import numpy as np
import pytest
import torch

import einfall
from einfall.ir.streaming import Reason, Streaming

TEXT = """
def cut(Q, K, V, *, scale=0.5):
    S[b, p, m: m <= p] = Q[b, p, e] * K[b, m, e] * scale
    A[b, p, m] = softmax[m](S[b, p, m])
    O[b, p, f] = A[b, p, m] * V[b, m, f]
    return O
"""

MEDIAN = """
def squashed(X, V):
    G[p] = max[m](X[p, m])
    N[p] = sum[m](sigmoid(X[p, m] - G[p]) * V[m])
    return N
"""


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = ((1, 20, 16), (1, 24, 16), (1, 24, 16))
    Q, K, V = (torch.randn(s, generator=draw) for s in shapes)
    return Q, K, V


def test_the_names() -> None:
    for name in einfall.__all__:
        assert hasattr(einfall, name)
    assert {"cascade", "compile", "interpret", "analyse", "EinfallError"} <= set(einfall.__all__)
    assert issubclass(einfall.NotationError, SyntaxError)
    assert issubclass(einfall.NotationError, einfall.EinfallError)


def test_a_cascade_from_text_path_and_function(tmp_path: Path) -> None:
    path = tmp_path / "cut.einsum"
    path.write_text(TEXT)

    @einfall.cascade
    @no_type_check
    def cut(Q, K, V, *, scale=0.5):  # noqa
        S[b, p, m : m <= p] = Q[b, p, e] * K[b, m, e] * scale  # noqa
        A[b, p, m] = softmax[m](S[b, p, m])  # noqa
        O[b, p, f] = A[b, p, m] * V[b, m, f]  # noqa
        return O  # noqa

    c = einfall.cascade(TEXT)
    assert c == einfall.cascade(path) == einfall.cascade(str(path)) == cut
    assert einfall.cascade(str(c)) == c
    assert c.inputs == ("Q", "K", "V") and c.outputs == ("O",)
    assert c.parameters == (("scale", 0.5),) and set(c.ranks) == set("bpmef")


def test_interpret_and_compile_agree(device: str) -> None:
    c, arguments = einfall.cascade(TEXT), tensors()
    exact = einfall.interpret(c, *arguments, scale=0.25)
    assert isinstance(exact, np.ndarray) and exact.dtype == np.float64
    found = einfall.compile(c, backend="triton")(*(t.to(device) for t in arguments), scale=0.25)
    assert isinstance(found, torch.Tensor)
    error = np.linalg.norm(found.cpu().numpy() - exact) / np.linalg.norm(exact)
    assert error < 1e-5


def test_numpy_in_numpy_out() -> None:
    c = einfall.cascade(TEXT)
    arguments = [t.numpy() for t in tensors()]
    found = einfall.compile(c)(*arguments)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, einfall.interpret(c, *arguments), rtol=0, atol=0)


def test_before_the_first_call_it_says_how_to_lower() -> None:
    f = einfall.compile(einfall.cascade(TEXT))
    for look in (lambda: f.source, lambda: f.mapping, lambda: f.explain(), lambda: f.save("x.py")):
        with pytest.raises(einfall.EinfallError, match="lower"):
            look()


def test_a_lowering_is_attributes_to_read(tmp_path: Path) -> None:
    f = einfall.compile(einfall.cascade(TEXT))
    k = f.lower(sizes={"e": 16, "f": 16}, dtype="float16", target="sm_90")
    assert "@triton.jit" in k.source and k.source == f.source
    assert [x.name for x in k.kernels] == [x.name for x in k.mapping.kernels]
    assert k.cascade == f.cascade == einfall.cascade(TEXT)
    assert k.steps[0].before == k.cascade and k.steps[-1].after == k.mapping.cascade
    assert k.save(tmp_path / "cut.py") == tmp_path / "cut.py"
    assert k.explain().to_dict()["open"] == ["b", "p", "m"]
    with pytest.raises(einfall.BackendError):
        k.benchmark(*tensors())


def test_a_call_and_a_lowering_with_its_arguments_are_explained_alike(device: str) -> None:
    f = einfall.compile(einfall.cascade(TEXT), backend="triton")
    arguments = [t.to(device) for t in tensors()]
    f(*arguments)
    assert str(f.explain()) == str(f.lower(*arguments).explain())
    assert "m = 24" in str(f.explain())


def test_options_of_compile_are_keywords() -> None:
    parameters = list(inspect.signature(einfall.compile).parameters.values())
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters[1:])
    with pytest.raises(einfall.BackendError, match="auto"):
        einfall.compile(einfall.cascade(TEXT), backend="abacus")


def test_analyse_needs_no_sizes() -> None:
    a = einfall.analyse(einfall.cascade(TEXT))
    assert a.traversals["m"].levels == 3
    assert a.traversals["m"].traversals_of["K"] == {1, 2, 3}
    state = a.states["m"]
    assert isinstance(state, Streaming)
    assert [f.reducer for f in state.fields] == ["max", "sum", "sum"]
    assert any(x.whole == ("m",) for x in a.footprints["m"])
    text = str(a)
    assert text.startswith("cut, as written\n  m  3 traversals\n")
    assert "One traversal of m is enough" in text
    assert max(map(len, text.splitlines())) <= 100


def test_analyse_gives_reasons() -> None:
    a = einfall.analyse(einfall.cascade(MEDIAN))
    reason = a.states["m"]
    assert isinstance(reason, Reason)
    assert reason.tensor == "N" and "sigmoid" in reason.text
    assert f"({reason.code})" in str(a)


def test_a_text_is_not_compiled_unread() -> None:
    with pytest.raises(TypeError, match=r"a str is given; einfall\.cascade\(text\) reads one"):
        einfall.compile("def f(X):\n    return X\n")  # type: ignore[arg-type]
