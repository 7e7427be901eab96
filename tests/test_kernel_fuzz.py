"""Random cascades as kernels: each equals the interpreter, or is refused in words.

More seeds by hand: ``TRITON_INTERPRET=1 python -m tests.test_kernel_fuzz 1000 3000``.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall.ir.cascade import Cascade
from einfall.ir.errors import BackendError

from .codegen.kernel_cases import DEVICE, outputs, relative
from .random_cascades import FEATURES, random_cascade

triton_interpreter: Any = import_module("triton.runtime.interpreter")

PLAIN = frozenset({"filter", "coordinate", "gather"})
"""Features that kernels have."""

BATCHES = range(6)
BATCH = 35

TOLERANCE = 1e-3
"""Relative error in the L2 norm. A product of many small factors loses digits in float32; what is
computed wrongly is off by far more, for the values are of the size of 1.
"""


def splat(self: Any, kind: Any, value: Any) -> Any:
    """Repeat a scalar over a shape, as what it is.

    Triton 3.6's interpreter takes the truth value of a comparison of floats for a float here.
    """
    data = numpy.full(kind.shape, value.data.reshape(-1)[0], dtype=value.data.dtype)
    return triton_interpreter.TensorHandle(data, value.dtype.scalar)


@pytest.fixture(autouse=True)
def repaired_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_interpreter.InterpreterBuilder, "create_splat", splat)


@dataclass(slots=True)
class Tally:
    """What became of some seeds."""

    kernels: int = 0
    agreed: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


def run(seeds: range, features: frozenset[str]) -> Tally:
    """Run seeds through the Triton back end; any error but a refusal is raised."""
    tally = Tally()
    for seed in seeds:
        cascade, tensors, parameters = made(seed, features)
        truth = outputs(einfall.interpret(cascade, *(x.cpu() for x in tensors), **parameters))
        f = einfall.compile(cascade, backend="triton")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of numpy, for points that are not taken
                found = outputs(f(*tensors, **parameters))
        except BackendError as error:
            tally.refused[seed] = str(error)
            continue
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        for name, got, expected in zip(cascade.outputs, found, truth, strict=True):
            error_of = relative(got, expected)
            assert error_of < TOLERANCE, f"seed {seed}: {name} is off by {error_of:.1e}"
        tally.agreed.append(seed)
        tally.kernels += len(f.kernels)
    return tally


def made(seed: int, features: frozenset[str]) -> tuple[Cascade, list[torch.Tensor], dict[str, Any]]:
    """Return a random cascade, its arguments as tensors, in order, and its parameters."""
    cascade, arrays, parameters = random_cascade(seed, features)
    given = [torch.from_numpy(numpy.asarray(arrays[name])) for name in cascade.inputs]
    narrow = [x.float() if x.dtype.is_floating_point else x.to(torch.int32) for x in given]
    return cascade, [x.to(DEVICE) for x in narrow], {**parameters}


@pytest.mark.parametrize("batch", BATCHES)
def test_kernels_agree_with_the_interpreter(batch: int) -> None:
    """Most cascades have kernels, often several; what is refused needs too much at once."""
    tally = run(range(batch * BATCH, (batch + 1) * BATCH), PLAIN)
    assert len(tally.agreed) >= 0.75 * BATCH, tally.refused
    assert tally.kernels >= 1.5 * len(tally.agreed)
    ways = ("at once", "does not fit", "whole in one program", "bounded state", "crosses kernels")
    assert [x for x in tally.refused.values() if not any(w in x for w in ways)] == []


def test_without_filters_and_gathers_all_have_kernels() -> None:
    tally = run(range(BATCH), frozenset())
    assert tally.refused == {}


def test_other_features_are_refused_or_right() -> None:
    """Iterations, coordinates as values and the like are refused by name, never computed wrong."""
    tally = run(range(3 * BATCH), FEATURES)
    assert len(tally.agreed) >= 10
    words = ("concatenat", "iterative", "argmax", "argmin", "a coordinate has to be kept")
    named = [x for x in tally.refused.values() if any(w in x for w in words)]
    assert len(named) >= 0.9 * len(tally.refused)


def test_one_seed_gives_one_text() -> None:
    for seed in range(10):
        cascade, tensors, parameters = made(seed, PLAIN)
        try:
            first, second = (
                einfall.compile(cascade).lower(*tensors, **parameters).source for _ in range(2)
            )
        except BackendError:
            continue
        assert first == second


if __name__ == "__main__":
    triton_interpreter.InterpreterBuilder.create_splat = splat
    found = run(range(int(sys.argv[1]), int(sys.argv[2])), PLAIN)
    print(f"{len(found.agreed)} agree in {found.kernels} kernels, {len(found.refused)} refused")
