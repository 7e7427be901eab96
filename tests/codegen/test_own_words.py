"""Names of the user's that the text of a Gluon kernel has for something of its own."""

from __future__ import annotations

import ast

import pytest
import torch

import einfall
from einfall import BackendError
from einfall.codegen.gluon_text import IMPORTED, PIECES
from einfall.codegen.own_words import WORDS, bound_anew

from .kernel_cases import outputs, relative

TEXT = """
def f(Q, K, V, *, {word}=3):
    S[b, h, p, m: m <= p] = Q[b, h, p, e] * K[b, h, m, e] * {word}
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""


def lowered(text: str) -> str:
    tensors = [torch.zeros(1, 2, 512, 64, dtype=torch.float16) for _ in "QKV"]
    compiled = einfall.compile(
        einfall.cascade(text), backend="triton", target="sm_90", emitter="gluon"
    )
    return compiled.lower(*tensors).source


@pytest.mark.parametrize("word", ["step", "turn", "nothing", "tiles", "given", "held"])
def test_a_parameter_goes_by_another_name(word: str) -> None:
    source = lowered(TEXT.format(word=word))
    plain = lowered(TEXT.format(word="amount"))
    assert f"{word}_2" in source and f"{word}_2" not in plain
    names = [
        len({n.id for n in ast.walk(ast.parse(x)) if isinstance(n, ast.Name)})
        for x in (source, plain)
    ]
    assert names[0] == names[1]


def test_the_callers_keep_the_name() -> None:
    compiled = einfall.compile(
        einfall.cascade(TEXT.format(word="step")), backend="triton", target="sm_90", emitter="gluon"
    )
    tensors = [torch.zeros(1, 2, 512, 64, dtype=torch.float16) for _ in "QKV"]
    (kernel,) = compiled.lower(*tensors, step=2).kernels
    (found,) = [a for a in kernel.arguments if a.kind == "parameter"]
    assert (found.name, found.parameter) == ("step_2", "step")


@pytest.mark.parametrize("word", ["step", "turn"])
def test_a_rank_and_a_tensor_are_refused(word: str) -> None:
    text = TEXT.format(word="amount")
    with pytest.raises(BackendError, match=f"uses the word {word} itself; call the rank"):
        lowered(text.replace("b, h, p, m", f"b, {word}, p, m").replace("b, h,", f"b, {word},"))
    with pytest.raises(BackendError, match=f"uses the word {word} itself; call the tensor"):
        lowered(text.replace("V[", f"{word}[").replace("K, V,", f"K, {word},"))


def test_plain_triton_takes_any_word() -> None:
    for word in ("step", "live", "tile"):
        compiled = einfall.compile(
            einfall.cascade(TEXT.format(word=word)), backend="triton", emitter="tl"
        )
        draw = torch.Generator().manual_seed(1)
        tensors = [torch.randn(1, 2, 70, 16, generator=draw) for _ in "QKV"]
        truth = einfall.interpret(
            einfall.cascade(TEXT.format(word=word)), *[x.double().numpy() for x in tensors]
        )
        assert relative(outputs(compiled(*tensors))[0], outputs(truth)[0]) < 1e-6


def test_a_name_bound_anew_is_found() -> None:
    text = "def f(given):\n    (step, W) = given\n    for i in range(step):\n        {} = 1\n"
    assert bound_anew(text.format("j"), frozenset({"step", "W"})) == ""
    assert bound_anew(text.format("step"), frozenset({"step", "W"})) == "step"
    assert bound_anew(text.replace("i in", "W in").format("j"), frozenset({"W"})) == "W"


def test_words_are_what_the_text_brings() -> None:
    assert {*IMPORTED, *PIECES} <= WORDS
