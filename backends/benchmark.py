"""Benchmark: how long a call takes on the GPU that is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..ir.cascade import Scalar
from ..ir.errors import BackendError
from .triton import interpreting, triton

if TYPE_CHECKING:
    from .launch import Plan

WARMUP, REPEAT = 25, 100
"""Milliseconds for which a call is repeated before, and while, it is measured."""


def benchmark(plan: Plan, *tensors: Any, **parameters: Scalar) -> float:
    """Return the median time of a call on these tensors, in milliseconds.

    Everything is checked and compiled before the clock starts; the caches of the GPU are emptied
    between calls, and what is timed is the kernels with the allocation of what they write.

    Raises
    ------
    BackendError : there is no GPU, a tensor is not on it, or kernels run in Triton's interpreter.
    ShapeError : tensors or parameters do not fit the declaration.
    """
    import torch

    if not torch.cuda.is_available():
        raise BackendError(
            "a benchmark needs a GPU, and none is here; explain() tells the least time that the "
            "work takes on known machines"
        )
    if interpreting():
        raise BackendError("a benchmark needs compiled kernels; unset TRITON_INTERPRET")
    elsewhere = [
        name
        for name, t in zip(plan.cascade.inputs, tensors, strict=False)
        if getattr(getattr(t, "device", None), "type", "cpu") != "cuda"
    ]
    if elsewhere:
        raise BackendError(
            f"a benchmark takes tensors on the GPU; {', '.join(elsewhere)} of {plan.cascade.name} "
            f"is not, use {elsewhere[0]}.cuda()"
        )
    run = plan.prepare(*tensors, **parameters)
    run(*tensors)
    milliseconds = triton().testing.do_bench(
        lambda: run(*tensors), warmup=WARMUP, rep=REPEAT, return_mode="median"
    )
    return float(milliseconds)
