"""The operator that torch traces: compiled, exported, checked, differentiated."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

import einfall
from einfall import examples

from .test_autograd import DEVICE, FORMULAS

PLACES = einfall.cascade("""
def places(Q, K, V):
    S[b, h, p, m] = Q[b, h, p, e] * K[b, h, m, e]
    J[b, h, p] = argmax[m](S[b, h, p, m])
    O[b, h, p, f] = sum[m](sigmoid(S[b, h, p, m]) * V[b, h, m, f])
    return O, J
""")
"""One output is of whole numbers."""


def qkv(rows: int = 6, keys: int = 8, *, learn: bool = False) -> list[Tensor]:
    draw = torch.Generator().manual_seed(rows)
    shapes = ((1, 2, rows, 4), (1, 2, keys, 4), (1, 2, keys, 3))
    return [
        torch.randn(s, generator=draw, dtype=torch.float64, requires_grad=learn) for s in shapes
    ]


class Model(torch.nn.Module):
    """A layer around a compiled cascade."""

    def __init__(self, cascade: einfall.Cascade, **parameters: Any) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(4, 4, dtype=torch.float64)
        self.attend = einfall.compile(cascade, backend="interpreter")
        self.parameters_given = parameters

    def forward(self, Q: Tensor, K: Tensor, V: Tensor) -> Any:
        return self.attend(self.mix(Q), K, V, **self.parameters_given)


def test_torch_compile_sees_one_operator() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model = Model(examples.sliding_window, W=3)
    Q, K, V = qkv()
    found = torch.compile(model, backend=keep, fullgraph=True)(Q, K, V)
    torch.testing.assert_close(found, model(Q, K, V))
    calls = [n for n in graphs[0].graph.nodes if "einfall" in str(n.target)]
    assert len(graphs) == 1 and len(calls) == 1
    assert "einfall.cascade_with_gradient" in str(calls[0].target)
    with torch.no_grad():
        still = torch.compile(model, backend=keep, fullgraph=True)(Q, K, V)
    torch.testing.assert_close(still, found)
    (call,) = (n for n in graphs[1].graph.nodes if "einfall" in str(n.target))
    assert "with_gradient" not in str(call.target)
    assert str(calls[0].args[1]).startswith('"def sliding_window(Q, K, V, *, W=1024):')
    assert calls[0].args[2] == "W=3" and "\n" not in str(calls[0].args[1])


@pytest.mark.parametrize(("name", "given"), [("causal", {}), ("sliding_window", {"W": 3})])
def test_gradients_through_torch_compile(name: str, given: dict[str, int]) -> None:
    model = Model(getattr(examples, name), **given)
    tensors = qkv(learn=True)
    weights = [*tensors, *model.mix.parameters()]
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(*tensors).square().sum(), weights)
    theirs = torch.autograd.grad(
        FORMULAS[name](model.mix(tensors[0]), *tensors[1:], **given).square().sum(), weights
    )
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


def test_inductor_writes_the_operator_into_its_program() -> None:
    f = einfall.compile(examples.causal, backend="interpreter")
    tensors = qkv(learn=True)
    g = torch.compile(f, fullgraph=True)
    ours = torch.autograd.grad(g(*tensors).sum(), tensors)
    theirs = torch.autograd.grad(f(*tensors).sum(), tensors)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


def test_kernels_run_behind_the_operator() -> None:
    f = einfall.compile(examples.causal, backend="triton", tiles={"p": 16, "m": 16})
    draw = torch.Generator().manual_seed(1)
    tensors = [torch.randn(1, 2, 20, 16, generator=draw).to(DEVICE).requires_grad_() for _ in "QKV"]
    g = torch.compile(f, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(g(*tensors).square().sum(), tensors)
    theirs = torch.autograd.grad(f(*tensors).square().sum(), tensors)
    for x, y in zip(ours, theirs, strict=True):
        assert x.dtype == torch.float32 and float((x - y).norm() / y.norm()) < 2e-6


def test_sizes_stay_open_where_they_are_symbols() -> None:
    traced: list[int] = []

    def count(graph: torch.fx.GraphModule, _: Any) -> Any:
        traced.append(len(graph.graph.nodes))
        return graph.forward

    f = einfall.compile(examples.causal_lse, backend="interpreter")
    g = torch.compile(f, backend=count, fullgraph=True, dynamic=True)
    for rows in (5, 6, 9):
        tensors = qkv(rows, rows + 2)
        for x, y in zip(g(*tensors), f(*tensors), strict=True):
            torch.testing.assert_close(x, y)
    assert len(traced) == 1


def test_an_exported_program_runs_again() -> None:
    model = Model(examples.causal)
    tensors = tuple(qkv())
    program = torch.export.export(model, tensors)
    assert "einfall.cascade" in str(program.graph)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    torch.testing.assert_close(again(*tensors), model(*tensors))


@pytest.mark.parametrize("wanted", [(False, False, False), (True, True, True), (True, False, True)])
@pytest.mark.parametrize("cascade", [examples.causal, examples.entropy, PLACES])
def test_torch_checks_the_operator(cascade: einfall.Cascade, wanted: tuple[bool, ...]) -> None:
    f = einfall.compile(cascade, backend="interpreter")
    tensors = [x.requires_grad_(w) for x, w in zip(qkv(), wanted, strict=True)]
    arguments = (tensors, f.declaration, "", f.options, list(wanted))
    operators = torch.ops.einfall
    operator = operators.cascade_with_gradient if any(wanted) else operators.cascade
    torch.library.opcheck(operator, arguments)


def test_a_second_derivative_is_refused() -> None:
    f = einfall.compile(examples.causal, backend="interpreter")
    tensors = qkv(learn=True)
    operator = torch.ops.einfall.cascade_with_gradient
    (out,) = operator(tensors, f.declaration, "", f.options, [True] * 3)[:1]
    (first,) = torch.autograd.grad(out.sum(), tensors[:1], create_graph=True)
    with pytest.raises(einfall.BackendError, match="differentiated twice"):
        torch.autograd.grad(first.sum(), tensors[:1])
