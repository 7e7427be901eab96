"""Benchmarks: what is refused without a GPU, and what is measured on one."""

from __future__ import annotations

import pytest
import torch

import einfall
from einfall.backends import benchmark as module
from einfall.backends.bench import measured
from einfall.backends.explain import explain
from einfall.ir.errors import BackendError

PRODUCT = """
def product(X, Y):
    Z[p, m] = X[p, e] * Y[m, e]
    return Z
"""


def lower() -> einfall.backends.lowered.Lowered:
    return einfall.compile(einfall.cascade(PRODUCT), target="sm_90").lower(
        sizes={"p": 256, "m": 128, "e": 64}, dtype="float16"
    )


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="needs a GPU"):
        lower().benchmark(torch.zeros(256, 64), torch.zeros(128, 64))


def test_interpreted_kernels_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    k = lower()  # before it looks for a GPU's multiprocessors
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "interpreting", lambda: True)
    with pytest.raises(BackendError, match="TRITON_INTERPRET"):
        k.benchmark(torch.zeros(256, 64), torch.zeros(128, 64))


def test_tensors_must_be_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    k = lower()  # before it looks for a GPU's multiprocessors
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "interpreting", lambda: False)
    with pytest.raises(BackendError, match="X, Y .*X.cuda"):
        k.benchmark(torch.zeros(256, 64), torch.zeros(128, 64))


def test_a_measurement_beside_the_roofline() -> None:
    x = explain(lower(), machine="H100")
    assert x.cost.useful is not None and x.cost.seconds is not None and x.cost.bound is not None
    lines = measured(x, 4 * x.cost.seconds)
    rate = 2 * 256 * 128 * 64 / (4 * x.cost.seconds)
    assert f"{rate / 1e12:.1f} TFLOP/s" in lines[0]
    assert any("25 % reached" in line and "memory" in line for line in lines)
    assert lines[-1].endswith(f"{4 * x.cost.seconds / x.cost.bound:.2f}x away")


@pytest.mark.gpu
def test_a_call_is_measured() -> None:
    tensors = [torch.randn(n, 64, device="cuda", dtype=torch.float16) for n in (256, 128)]
    f = einfall.compile(einfall.cascade(PRODUCT))
    milliseconds = f.benchmark(*tensors)
    assert 1e-4 < milliseconds < 1.0
