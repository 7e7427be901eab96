"""Generated kernels compiled for absent GPUs: no spills in loops, tensor cores in use."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.aot import check, compile_ahead

CASES = (
    ("attention", 64, "sm_90", "float16"),
    ("causal", 128, "sm_90", "bfloat16"),
    ("sliding_window", 128, "sm_90", "float16"),
    ("softcap", 128, "sm_90", "float16"),
    ("entropy", 128, "sm_90", "float16"),
    ("causal", 64, "sm_80", "float16"),
    ("gqa", 128, "sm_80", "float16"),
    ("causal", 128, "sm_100", "float16"),
    ("causal", 64, "gfx942", "float16"),
    ("causal", 128, "gfx942", "float16"),
)


@pytest.mark.parametrize(("name", "features", "target", "dtype"), CASES)
def test_kernel_compiles_well(name: str, features: int, target: str, dtype: str) -> None:
    parameters: dict[str, Any] = {"G": 4} if name == "gqa" else {}
    lowered = einfall.compile(getattr(examples, name), emitter="tl").lower(
        sizes={"e": features, "f": features}, dtype=dtype, target=target, **parameters
    )
    for kernel in lowered.kernels:
        report = compile_ahead(kernel, dict(lowered.mapping.dtypes), target)
        check(report)
        assert report.shared <= 227 * 1024


def test_a_search_in_one_program_compiles() -> None:
    text = "def f(X, *, k):\n    T[p, j] = topk[m, k](X[p, m], forced=m < 1)\n    return T"
    lowered = einfall.compile(einfall.cascade(text), emitter="tl").lower(
        torch.empty(32, 4000), k=200, target="sm_90"
    )
    assert len(lowered.kernels) == 3
    report = compile_ahead(lowered.kernels[0], dict(lowered.mapping.dtypes), "sm_90")
    assert report.spill_stores == 0
