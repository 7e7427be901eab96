"""What a call hands in, checked: tensors on one device, with dtypes that kernels read; numbers.

Checked once for each combination that a launch plan meets, never on its fast path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..ir.cascade import Cascade, Scalar
from ..ir.errors import BackendError, ShapeError
from ..ir.sizes import bind_parameters
from .arguments import check_count
from .triton import interpreting

FLOATS = ("float16", "bfloat16", "float32")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "bool")


def check_tensors(cascade: Cascade, tensors: Sequence[Any]) -> torch.device:
    """Return the one device on which all tensors are.

    Raises
    ------
    ShapeError : there are too many or too few.
    BackendError : one is no strided torch tensor, has a dtype without code, or is elsewhere.
    """
    names = cascade.inputs
    check_count(cascade, tensors)
    for name, tensor in zip(names, tensors, strict=True):
        what = kind_of(tensor)
        if what:
            raise BackendError(
                f"the Triton back end takes strided torch tensors, and {name} is {what};"
                " convert it (torch.from_numpy, to_dense), or use backend='interpreter' for"
                " numpy arrays"
            )
        check_dtype(name, tensor.dtype)
    devices = {name: tensor.device for name, tensor in zip(names, tensors, strict=True)}
    nowhere = torch.device("cpu" if interpreting() else "cuda")
    device = next(iter(devices.values()), nowhere)
    for name, other in devices.items():
        if other != device:
            raise BackendError(
                f"all tensors must be on one device: {names[0]} is on {device}, {name} on {other};"
                f" move it with {name}.to({str(device)!r})"
            )
    if device.type == "cpu" and not interpreting():
        raise BackendError(
            "compiled kernels need tensors on a GPU, and these are on the CPU; move them with"
            " .to('cuda'), use backend='interpreter', or set TRITON_INTERPRET=1 before the"
            " program starts to run the kernels in Triton's interpreter"
        )
    if device.type not in ("cpu", "cuda"):
        raise BackendError(
            f"the Triton back end runs on 'cuda' devices (NVIDIA and AMD), not on {device};"
            " use backend='interpreter'"
        )
    return device


def kind_of(given: Any) -> str:
    """Return what an argument is that is no strided tensor, else nothing."""
    if not isinstance(given, torch.Tensor):
        return f"a {type(given).__name__}"
    if given.is_nested:
        return "a nested tensor"
    return "" if given.layout == torch.strided else f"a {str(given.layout)[6:]} tensor"


def check_dtype(name: str, dtype: torch.dtype) -> None:
    """Raise BackendError for a dtype that kernels cannot read, with what to use instead."""
    short = str(dtype).removeprefix("torch.")
    if short == "bfloat16" and interpreting():
        raise BackendError(
            f"{name} is bfloat16, which Triton's interpreter computes wrongly (its dots take the"
            " bit patterns for numbers); use float16 or float32 there"
        )
    if short == "float64":
        raise BackendError(
            f"{name} is float64, and kernels compute in float32; use backend='interpreter', or"
            f" {name}.float()"
        )
    if short not in (*FLOATS, *INTEGERS):
        raise BackendError(
            f"{name} is {short}, and kernels read {', '.join((*FLOATS, *INTEGERS))};"
            " convert it to one of these"
        )


def check_parameters(cascade: Cascade, given: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return every parameter's value as a Python number, by name.

    Raises
    ------
    ShapeError : one is unknown, missing, or no number. A tensor is none: its number could change
        without a trace in what a plan remembers, and reading it waits for the GPU.
    """
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            raise ShapeError(
                f"parameter {name} of {cascade.name} must be a number, and a tensor was given;"
                f" write {name}=... with its .item()"
            )
    return bind_parameters(cascade, given)
