"""Every example as kernels: the loop nest in numpy and the text in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.lowered import Lowered
from einfall.codegen.lower import lower
from einfall.codegen.run_nest import run_nest
from einfall.codegen.kernel import Buffer
from einfall.examples.inputs import make
from einfall.ir.sizes import bind_parameters, rank_sizes

WITHOUT_KERNEL = {
    "fusemax_1pass": "iterative",
}
"""Examples that no kernel computes yet, and the word of the refusal."""

TILES = {"p": 32, "m": 32}
TOLERANCE = {"float32": 2e-5, "float16": 4e-3}
"""Relative error in the L2 norm: float32 sums of a hundred terms; float16 weights in a dot."""


def arguments(name: str, dtype: str) -> tuple[list[torch.Tensor], dict[str, Any]]:
    tensors, parameters = make(name, seed=1, scale="small")
    goal = getattr(torch, dtype)
    given = [torch.from_numpy(np.asarray(x)) for x in tensors]
    return [x.to(goal) if x.dtype.is_floating_point else x for x in given], parameters


def relative(got: Any, truth: Any) -> float:
    got, truth = np.asarray(got, np.float64), np.asarray(truth, np.float64)
    finite = np.isfinite(truth)
    assert np.array_equal(got[~finite], truth[~finite])
    scale = float(np.linalg.norm(truth[finite])) or 1.0
    return float(np.linalg.norm(got[finite] - truth[finite])) / scale


def outputs(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def nests(lowered: Lowered) -> Any:
    mapping = lowered.mapping
    dtypes = dict(mapping.dtypes)
    ranks = {e.name: e.ranks for e in mapping.cascade.einsums}
    for kernel in mapping.kernels:
        buffers = {t: Buffer(t, ranks[t], dtypes[t]) for t in kernel.writes}
        yield lower(kernel, dtypes=dtypes, buffers=buffers)


@pytest.mark.parametrize("name", sorted(set(examples.names()) - set(WITHOUT_KERNEL)))
def test_loop_nest_means_what_the_cascade_means(name: str) -> None:
    cascade = getattr(examples, name)
    tensors, parameters = arguments(name, "float32")
    truth = outputs(einfall.interpret(cascade, *tensors, **parameters))
    lowered = einfall.compile(cascade, tiles=TILES).lower(*tensors, **parameters)
    values = bind_parameters(cascade, parameters)
    memory = {n: x.double().numpy() for n, x in zip(cascade.inputs, tensors, strict=True)}
    shapes = {n: x.shape for n, x in memory.items()}
    sizes = rank_sizes(cascade, shapes, values)
    for nest in nests(lowered):
        memory |= run_nest(nest, memory, sizes, values)
    for output, expected in zip(cascade.outputs, truth, strict=True):
        assert relative(memory[output], expected) < 1e-12, output


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", sorted(set(examples.names()) - set(WITHOUT_KERNEL)))
def test_kernel_agrees_with_interpreter(name: str, dtype: str) -> None:
    cascade = getattr(examples, name)
    tensors, parameters = arguments(name, dtype)
    truth = outputs(einfall.interpret(cascade, *tensors, **parameters))
    f = einfall.compile(cascade, backend="triton", tiles=TILES)
    found = outputs(f(*tensors, **parameters))
    for output, got, expected in zip(cascade.outputs, found, truth, strict=True):
        assert relative(got.double(), expected) < TOLERANCE[dtype], output


@pytest.mark.parametrize("name", sorted(WITHOUT_KERNEL))
def test_what_has_no_kernel_is_refused(name: str) -> None:
    tensors, parameters = arguments(name, "float32")
    with pytest.raises(einfall.BackendError, match=WITHOUT_KERNEL[name]):
        einfall.compile(getattr(examples, name), backend="triton")(*tensors, **parameters)
