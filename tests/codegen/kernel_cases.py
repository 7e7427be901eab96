"""What tests of generated kernels share: arguments, truth, errors, loop nests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import torch

import einfall
from einfall import examples
from einfall.backends.lowered import Lowered
from einfall.backends.parts import PROCESSORS
from einfall.backends.walked_sizes import walked_sizes
from einfall.codegen.kernel import Buffer
from einfall.codegen.loop_nest import Nest
from einfall.codegen.lower import lower
from einfall.codegen.run_nest import run_nest
from einfall.codegen.search import search_nests
from einfall.codegen.tables import table_nests
from einfall.examples.inputs import SCALES, make
from einfall.ir.cascade import Cascade
from einfall.ir.sizes import bind_parameters, rank_sizes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where kernels run; on the CPU, in Triton's interpreter."""

WITHOUT_KERNEL = {"fusemax_1pass": "iterative", "fusemax_cascade3": "iterative"}
"""Examples that no kernel computes, and a word of the refusal."""

WITH_KERNEL = sorted(set(examples.names()) - set(WITHOUT_KERNEL))

TOLERANCE = {"float32": 2e-5, "float16": 4e-3}
"""Relative error in the L2 norm: float32 sums of a hundred terms; float16 weights in a dot."""


ONE_HEAD = ("landmark", "seer_target")
"""Examples whose programs take block after block, so that Triton's interpreter takes long."""


def arguments(
    name: str, dtype: str = "float32", scale: str | Mapping[str, int] = "small", seed: int = 1
) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """Return an example's arguments as torch tensors, its real ones of the given dtype."""
    sizes = SCALES[scale] if isinstance(scale, str) else scale
    sizes = {**sizes, "h": 1} if name in ONE_HEAD else sizes
    arrays, parameters = make(name, seed=seed, scale=sizes)
    given = [torch.from_numpy(numpy.asarray(x)) for x in arrays]
    goal = getattr(torch, dtype)
    narrow = [x.to(goal) if x.dtype.is_floating_point else x for x in given]
    return [x.to(DEVICE) for x in narrow], parameters


def outputs(x: Any) -> tuple[Any, ...]:
    """Return what a call gave as a tuple."""
    return x if isinstance(x, tuple) else (x,)


def relative(got: Any, truth: Any) -> float:
    """Return the relative error in the L2 norm; infinities have to stand at the same points."""
    if isinstance(got, torch.Tensor):
        got = got.double().cpu().numpy()
    got, truth = numpy.asarray(got, numpy.float64), numpy.asarray(truth, numpy.float64)
    assert got.shape == truth.shape
    finite = numpy.isfinite(truth)
    assert numpy.array_equal(got[~finite], truth[~finite])
    scale = float(numpy.linalg.norm(truth[finite])) or 1.0
    return float(numpy.linalg.norm(got[finite] - truth[finite])) / scale


def nests(lowered: Lowered) -> Iterator[Nest]:
    """Yield the loop nest of every kernel of a lowering, in order."""
    mapping = lowered.mapping
    dtypes = dict(mapping.dtypes)
    ranks = {e.name: e.ranks for e in mapping.cascade.einsums}
    made: set[str] = set()
    for kernel in mapping.kernels:
        for table in table_nests(kernel, dtypes=dtypes):
            if table.name not in made:
                made.add(table.name)
                yield table
        buffers = {
            t: Buffer(t, ranks[t], dtypes[t], zeros=t in kernel.scattered) for t in kernel.writes
        }
        if kernel.search is not None:
            yield from search_nests(kernel, dtypes=dtypes, buffers=buffers)
            continue
        yield lower(kernel, dtypes=dtypes, buffers=buffers)


def run_nests(
    cascade: Cascade, lowered: Lowered, tensors: list[torch.Tensor], parameters: Mapping[str, Any]
) -> tuple[Any, ...]:
    """Run every loop nest in numpy, in float64; return the cascade's outputs."""
    values = bind_parameters(cascade, parameters)
    memory = {n: x.double().cpu().numpy() for n, x in zip(cascade.inputs, tensors, strict=True)}
    sizes = rank_sizes(cascade, {n: x.shape for n, x in memory.items()}, values)
    shapes = {n: x.shape for n, x in memory.items()}
    sizes, values = walked_sizes(
        lowered.mapping, lowered.kernels, shapes, values, sizes, PROCESSORS
    )
    for nest in nests(lowered):
        memory |= run_nest(nest, memory, sizes, values)
    return tuple(memory[name] for name in cascade.outputs)


def assert_kernels_agree(
    cascade: Cascade,
    tensors: list[torch.Tensor],
    parameters: Mapping[str, Any],
    tolerance: float,
    tiles: Mapping[str, int] | None = None,
    **options: Any,
) -> Lowered:
    """Run a cascade as kernels and compare every output with the interpreter in float64."""
    truth = outputs(einfall.interpret(cascade, *(x.cpu() for x in tensors), **parameters))
    f = einfall.compile(cascade, backend="triton", tiles=tiles, **options)
    found = outputs(f(*tensors, **parameters))
    for output, got, expected in zip(cascade.outputs, found, truth, strict=True):
        error = relative(got, expected)
        assert error < tolerance, f"{cascade.name}: {output} is off by {error:.1e}"
    return f.lower(*tensors, **parameters)
