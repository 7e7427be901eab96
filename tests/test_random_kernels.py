"""Random cascades as kernels: where one is made, it gives what the interpreter gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import einfall
from tests.random_cascades import FEATURES, random_cascade

FIRST, SEEDS = 100, 250
BATCHES = 5
PLAIN = FEATURES - {"iteration", "selection", "concatenation"}
"""What kernels are made for."""

AT_LEAST = 0.3
"""The share of random cascades that must get a kernel; the others are refused by name."""


def outcome(seed: int) -> str:
    """Compile and run one random cascade; "kernel" or "refused"."""
    cascade, inputs, found_parameters = random_cascade(seed, features=PLAIN)
    parameters: dict[str, Any] = dict(found_parameters)
    arrays = [np.asarray(inputs[n]) for n in cascade.inputs]
    tensors = [torch.from_numpy(np.array(x)) for x in arrays]
    tensors = [x.float() if x.dtype.is_floating_point else x for x in tensors]
    truth = einfall.interpret(cascade, *tensors, **parameters)
    try:
        found = einfall.compile(cascade, backend="triton")(*tensors, **parameters)
    except einfall.BackendError:
        return "refused"
    many = isinstance(truth, tuple)
    for name, x, y in zip(
        cascade.outputs, found if many else (found,), truth if many else (truth,), strict=True
    ):
        compare(f"seed {seed}, {name}\n{cascade}", x.double().numpy(), np.asarray(y, np.float64))
    return "kernel"


def compare(label: str, got: Any, expected: Any) -> None:
    """Float32 against float64: what overflows a float32 may be infinite there."""
    small = np.abs(expected) < 1e30
    scale = np.maximum(np.abs(expected), 1.0)
    wrong = small & ~(np.abs(got - expected) <= 2e-3 * scale)
    assert not wrong.any(), f"{label}\n{got[wrong][:4]} for {expected[wrong][:4]}"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_cascades_as_kernels(batch: int) -> None:
    seeds = range(FIRST + batch, FIRST + SEEDS, BATCHES)
    made = [outcome(seed) for seed in seeds]
    assert made.count("kernel") >= AT_LEAST * len(made)
