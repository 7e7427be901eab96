"""Gradients through torch: the interpreter in float64, kernels in Triton's interpreter.

The formulas here are dense torch, written by hand; torch's own autograd differentiates them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

import einfall
from einfall import examples
from einfall.backends.compile import Compiled
from einfall.backends.launch import Prepared
from einfall.examples.inputs import make
from einfall.passes.differentiate import gradient

from . import dense_formulas

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def scores(Q: Tensor, K: Tensor) -> Tensor:
    return Q @ K.mT / math.sqrt(Q.shape[-1])


def positions(S: Tensor) -> tuple[Tensor, Tensor]:
    P, M = S.shape[-2:]
    return torch.arange(M - P, M)[:, None], torch.arange(M)[None]


def weights(S: Tensor, keep: Tensor | None = None) -> Tensor:
    if keep is not None:
        S = S.masked_fill(~keep, -math.inf)
    some = torch.isfinite(S).any(-1, keepdim=True)
    return torch.where(some, torch.softmax(torch.where(some, S, 0.0), -1), 0.0)


def causally(S: Tensor) -> Tensor:
    p, m = positions(S)
    return weights(S, (m <= p).expand(S.shape))


def window(Q: Tensor, K: Tensor, V: Tensor, W: int) -> Tensor:
    p, m = positions(scores(Q, K))
    S = scores(Q, K)
    return weights(S, ((m <= p) & (p - m < W)).expand(S.shape)) @ V


def alibi(Q: Tensor, K: Tensor, V: Tensor, slope: Tensor) -> Tensor:
    p, m = positions(scores(Q, K))
    return causally(scores(Q, K) - slope[:, None, None] * (p - m)) @ V


def relative(Q: Tensor, K: Tensor, V: Tensor, R: Tensor) -> Tensor:
    P, M = Q.shape[2], K.shape[2]
    place = torch.arange(P)[:, None] - torch.arange(M)[None] + M - 1
    return weights(scores(Q, K) + R[:, place]) @ V


def sink(Q: Tensor, K: Tensor, V: Tensor, logit: Tensor) -> Tensor:
    S = scores(Q, K)
    p, m = positions(S)
    extra = logit[:, None, None].expand(*S.shape[:3], 1)
    S = torch.cat([S.masked_fill(m > p, -math.inf), extra], -1)
    return torch.softmax(S, -1)[..., :-1] @ V


def differential(Q1: Tensor, K1: Tensor, Q2: Tensor, K2: Tensor, V: Tensor, w: Tensor) -> Tensor:
    A1, A2 = causally(scores(Q1, K1)), causally(scores(Q2, K2))
    return (A1 - w[:, None, None] * A2) @ V


def document(Q: Tensor, K: Tensor, V: Tensor, doc: Tensor) -> Tensor:
    S = scores(Q, K)
    p, m = positions(S)
    keep = (m <= p) & (doc[:, None, :, None] == doc[:, None, None, :])
    return weights(S, keep.expand(S.shape)) @ V


def entropy(Q: Tensor, K: Tensor, V: Tensor) -> tuple[Tensor, ...]:
    S = scores(Q, K)
    p, m = positions(S)
    S = S.masked_fill(m > p, -math.inf)
    A = weights(S)
    H = -torch.where(A > 0, A * torch.log(torch.where(A > 0, A, 1.0)), 0.0).sum(-1)
    some = torch.isfinite(S).any(-1)
    L = torch.where(some, torch.logsumexp(torch.where(some[..., None], S, 0.0), -1), -math.inf)
    return A @ V, L, H


def gqa(Q: Tensor, K: Tensor, V: Tensor, G: int) -> Tensor:
    K, V = K.repeat_interleave(G, 1), V.repeat_interleave(G, 1)
    return causally(scores(Q, K)) @ V


def softcap(Q: Tensor, K: Tensor, V: Tensor, cap: float) -> Tensor:
    return causally(cap * torch.tanh(scores(Q, K) / cap)) @ V


def sigmoid(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    return torch.sigmoid(scores(Q, K) - math.log(K.shape[2])) @ V


def landmark(Q: Tensor, K: Tensor, V: Tensor, B: int) -> Tensor:
    S = scores(Q, K)
    rows = []
    for p in range(Q.shape[2]):
        own = [m for m in range(p // B * B, p + 1) if m % B != B - 1]
        gates = [j * B + B - 1 for j in range(p // B)]
        row = torch.softmax(S[:, :, p, own + gates], -1)
        total = torch.einsum("bhm,bhmf->bhf", row[:, :, : len(own)], V[:, :, own])
        for k, gate in enumerate(gates):
            inside = list(range(gate - B + 1, gate))
            share = torch.softmax(S[:, :, p, inside], -1)
            values = torch.einsum("bhm,bhmf->bhf", share, V[:, :, inside])
            total = total + row[:, :, len(own) + k, None] * values
        rows.append(total)
    return torch.stack(rows, 2)


FORMULAS: dict[str, Callable[..., Any]] = {
    "attention": lambda Q, K, V: weights(scores(Q, K)) @ V,
    "attention_naive": lambda Q, K, V: weights(scores(Q, K)) @ V,
    "attention_softmax": lambda Q, K, V: weights(scores(Q, K)) @ V,
    "causal": lambda Q, K, V: causally(scores(Q, K)) @ V,
    "sliding_window": window,
    "alibi": alibi,
    "relative_bias": relative,
    "sink": sink,
    "differential": differential,
    "document": document,
    "entropy": entropy,
    "gqa": gqa,
    "softcap": softcap,
    "sigmoid": sigmoid,
    "landmark": landmark,
    **dense_formulas.FORMULAS,
}


def arguments(name: str, dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Any]]:
    """Return an example's arguments; real ones require a gradient."""
    arrays, parameters = make(name, 4, "float64")
    found = [torch.from_numpy(numpy.asarray(x)) for x in arrays]
    return [
        x.to(dtype).requires_grad_() if x.dtype.is_floating_point else x for x in found
    ], parameters


def gradients(f: Callable[..., Any], tensors: list[Tensor], parameters: Any) -> list[Tensor]:
    """Return the gradients of a fixed random weighting of what a function returns."""
    found = f(*tensors, **parameters)
    found = found if isinstance(found, tuple) else (found,)
    draw = torch.Generator().manual_seed(9)
    total: Any = 0
    for x in found:
        weight = torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x.dtype)
        finite = torch.isfinite(x)
        total = total + (torch.where(finite, x, 0.0) * torch.where(finite, weight, 0.0)).sum()
    wanted = [x for x in tensors if x.requires_grad]
    return list(torch.autograd.grad(total, wanted))


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_those_of_a_dense_formula(name: str) -> None:
    tensors, parameters = arguments(name, torch.float64)
    f = einfall.compile(getattr(examples, name), backend="interpreter")
    ours = gradients(f, tensors, parameters)
    theirs = gradients(FORMULAS[name], tensors, parameters)
    for x, y in zip(ours, theirs, strict=True):
        assert x.dtype == torch.float64
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["attention", "softcap", "entropy"])
def test_gradcheck(name: str) -> None:
    tensors, parameters = arguments(name, torch.float64)
    small = [x[:1, :1, :4, :3].detach().requires_grad_() for x in tensors]
    f = einfall.compile(getattr(examples, name), backend="interpreter")

    def finite(*x: Tensor) -> tuple[Tensor, ...]:
        found = f(*x, **parameters)
        return found if isinstance(found, tuple) else (found,)

    assert torch.autograd.gradcheck(finite, tuple(small))


def test_kernels_give_gradients_in_the_dtype_of_the_inputs() -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = ((1, 2, 40, 16), (1, 2, 33, 16), (1, 2, 33, 32))
    tensors = [torch.randn(s, generator=draw).to(DEVICE).requires_grad_() for s in shapes]
    f = einfall.compile(examples.causal, backend="triton")
    ours = gradients(f, tensors, {})
    wide = [x.detach().double().cpu().requires_grad_() for x in tensors]
    theirs = gradients(FORMULAS["causal"], wide, {})
    for x, y in zip(ours, theirs, strict=True):
        assert x.dtype == torch.float32 and torch.isfinite(x).all()
        assert float((x.double().cpu() - y).norm() / y.norm()) < 2e-6
    assert [k.name for k in f.gradient.kernels][-1] == "causal_gradient_k_grad_v_grad_kernel"
    # what is kept beside the output is one number a row
    assert f.source.count('"""Computes O, A_log_kept of this cascade') == 1
    half = [x.detach().half().requires_grad_() for x in tensors]
    assert {x.dtype for x in gradients(f, half, {})} == {torch.float16}


def test_only_the_gradients_that_are_wanted_are_computed() -> None:
    draw = torch.Generator().manual_seed(0)
    Q, K, V = (torch.randn(1, 1, 20, 16, generator=draw).to(DEVICE) for _ in range(3))
    f = einfall.compile(examples.attention, backend="triton")
    out = f(Q, K, V.requires_grad_())
    out.sum().backward()
    assert f.gradient.cascade.outputs == ("V_grad",)
    assert V.grad is not None and Q.grad is None
    with pytest.raises(einfall.EinfallError, match="has run no gradient"):
        einfall.compile(examples.attention).gradient  # noqa: B018


def test_a_forward_that_keeps_nothing_has_gradients() -> None:
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(2, 1, 20, 16, generator=draw).to(DEVICE).requires_grad_() for _ in "QKV"]
    f = einfall.compile(examples.sigmoid, backend="triton")
    ours = gradients(f, tensors, {})
    wide = [x.detach().double().cpu().requires_grad_() for x in tensors]
    for x, y in zip(ours, gradients(FORMULAS["sigmoid"], wide, {}), strict=True):
        assert float((x.double().cpu() - y).norm() / y.norm()) < 2e-6


@pytest.mark.parametrize(
    ("wanted", "kept", "kernels"),
    [
        ("Q", ("A_log_kept", "O"), [""]),
        ("K", ("A_log_kept", "O"), ["a_log_grad_sum", "k_grad"]),
        ("V", ("A_log_kept",), [""]),
        ("KV", ("A_log_kept", "O"), ["a_log_grad_sum", "k_grad_v_grad"]),
    ],
)
def test_what_needs_no_gradient_costs_none(
    wanted: str, kept: tuple[str, ...], kernels: list[str]
) -> None:
    made = gradient(examples.causal, wrt=[*wanted])
    assert made.kept == kept
    narrow = {"A_log_kept": "float32"}
    f = einfall.compile(made.backward, parts=dict.fromkeys(made.backward.ranks, 1))
    k = f.lower(sizes={"e": 64, "f": 64}, dtypes=narrow, target="sm_80")
    found = [x.name.removeprefix("causal_gradient").removesuffix("_kernel") for x in k.kernels]
    assert [x.removeprefix("_") for x in found] == kernels


def test_without_gradients_nothing_is_recorded() -> None:
    tensors, _ = arguments("attention", torch.float64)
    f = einfall.compile(examples.attention, backend="interpreter")
    with torch.no_grad():
        assert not f(*tensors).requires_grad
    assert not f(*(x.detach() for x in tensors)).requires_grad
    assert f(*tensors).requires_grad


def test_outputs_without_gradient_are_marked() -> None:
    c = einfall.cascade(
        """
def f(X):
    I[i, j] = topk[k, 2](X[i, k])
    Z[i] = sum[k](X[i, k] * X[i, k])
    return Z, I
"""
    )
    X = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    Z, places = einfall.compile(c, backend="interpreter")(X)
    assert Z.requires_grad and not places.requires_grad
    Z.sum().backward()
    assert X.grad is not None
    torch.testing.assert_close(X.grad, 2 * X.detach())


def test_an_output_that_nothing_uses_has_gradient_zero() -> None:
    tensors, _ = arguments("lse", torch.float64)
    f = einfall.compile(examples.lse, backend="interpreter")
    out, _ = f(*tensors)
    ours = torch.autograd.grad(out.sum(), tensors)
    theirs = torch.autograd.grad(FORMULAS["attention"](*tensors).sum(), tensors)
    for x, y in zip(ours, theirs, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-11)


def test_more_of_an_input_than_is_read_has_gradient_zero() -> None:
    c = einfall.cascade("Z[h] = X[h] * Y[h // 2]")
    X, Y = (torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    einfall.compile(c, backend="interpreter")(X, Y).sum().backward()
    assert Y.grad is not None and Y.grad.shape == (5,) and not Y.grad[2:].any()


def test_a_second_derivative_is_refused() -> None:
    tensors, _ = arguments("attention", torch.float64)
    f = einfall.compile(examples.attention, backend="interpreter")
    (first,) = torch.autograd.grad(f(*tensors).sum(), tensors[:1], create_graph=True)
    with pytest.raises(einfall.BackendError, match="attention was differentiated twice"):
        torch.autograd.grad(first.sum(), tensors[:1])


def test_an_input_without_gradient_is_told() -> None:
    tensors, _ = arguments("document", torch.float64)
    doc = tensors[3].double().requires_grad_()
    f = einfall.compile(examples.document, backend="interpreter")
    with pytest.raises(einfall.PassError, match="doc has no gradient in document"):
        f(*tensors[:3], doc)


def test_the_face_gives_the_gradient_to_read() -> None:
    g = einfall.differentiate(examples.causal, wrt=["Q"])
    assert g.outputs == ("Q_grad",)
    assert einfall.cascade(str(g)) == g


def test_what_is_fixed_for_the_forward_holds_with_gradients_too() -> None:
    f = einfall.compile(examples.attention, backend="triton", tiles={"p": 32, "m": 16})
    Q, K, V = (torch.randn(1, 1, 40, 16, device=DEVICE, requires_grad=True) for _ in range(3))
    f(Q, K, V).sum().backward()
    (kernel,) = f.mapping.kernels
    assert (kernel.partition("p").tile, kernel.partition("m").tile) == (32, 16)
    assert Q.grad is not None and bool(torch.isfinite(Q.grad).all())


def test_quick_calls_know_whether_torch_records(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def prepared(compiled: Compiled, tensors: Any, parameters: Any) -> Prepared:
        count = len(compiled.declared.outputs)

        def run(*given: Tensor) -> Any:
            calls.append(count)
            return given[0] * 2 if count == 1 else tuple(given[0] * 2 for _ in range(count))

        return Prepared(run, lambda: run)

    monkeypatch.setattr(Compiled, "prepared", prepared)
    f = einfall.compile(examples.causal, backend="triton")
    learning = [torch.randn(1, 1, 4, 4, requires_grad=True) for _ in "QKV"]
    still = [x.detach() for x in learning]
    for _ in range(3):  # the second call of a kind makes it quick, the third is
        with torch.no_grad():
            assert not f(*learning).requires_grad and not f(*still).requires_grad
        with torch.inference_mode():
            assert f(*still).is_inference()
        found = f(*learning)
        assert found.requires_grad and not f(*still).requires_grad
        gradients = torch.autograd.grad(found.sum(), learning)
        assert [x.shape for x in gradients] == [x.shape for x in learning]
    assert len(f._kinds.entries) == 2 and len(f._still.entries) == 3
    assert set(calls) == {1, 2, 3}
