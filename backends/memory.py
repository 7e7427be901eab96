"""Memory of what kernels write: the shapes of buffers, and tensors that each call makes anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from ..codegen.kernel import Buffer
from .triton_arguments import check_dtype


@dataclass(frozen=True, slots=True)
class New:
    """A tensor that each call makes anew, contiguous: undefined if kernels write it, else zeros."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    written: bool = True

    def make(self) -> torch.Tensor:
        """Return the tensor."""
        make = torch.empty if self.written else torch.zeros
        return make(self.shape, dtype=self.dtype, device=self.device)


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor between kernels: its place in the one allocation that holds them all, in bytes."""

    offset: int
    size: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def of(self, memory: torch.Tensor) -> torch.Tensor:
        """Return the tensor."""
        flat = memory[self.offset : self.offset + self.size]
        return flat.view(self.dtype).view(self.shape)


def new(
    buffer: Buffer, shape: tuple[int, ...], device: torch.device, *, written: bool = True
) -> New:
    """Return how a buffer is made; raises BackendError for a dtype that Triton lacks."""
    return New(shape, dtype_of(buffer), device, written)


def piece(buffer: Buffer, shape: tuple[int, ...], offset: int) -> Piece:
    """Return a buffer's place in an allocation that it shares; raises BackendError as ``new``."""
    dtype = dtype_of(buffer)
    return Piece(offset, math.prod(shape) * dtype.itemsize, dtype, shape)


def dtype_of(buffer: Buffer) -> torch.dtype:
    """Return a buffer's dtype; raises BackendError for one that Triton lacks."""
    dtype: torch.dtype = getattr(torch, buffer.dtype)
    check_dtype(buffer.tensor, dtype)
    return dtype


def buffer_shape(buffer: Buffer, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of a buffer; its iterative rank has the first generation besides."""
    return tuple(buffer.extent(rank, sizes.get(rank, 0)) for rank in buffer.ranks)


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a new tensor of this shape, in elements."""
    steps = accumulate((max(n, 1) for n in reversed(shape[1:])), lambda a, b: a * b, initial=1)
    return tuple(reversed(list(steps)))[-len(shape) :] if shape else ()


def strided(device: torch.device) -> Callable[..., torch.Tensor]:
    """Return torch's quickest way to memory on a device: of a shape, strides and a dtype.

    What torch's own compiler allocates with takes a third of the time of ``torch.empty``, which
    stands in for it where a version of torch has none. It allocates on the current device.
    """
    found: Any = getattr(guards(), f"_empty_strided_{device.type}", None)
    if found is not None:
        return found  # type: ignore[no-any-return]
    return lambda shape, strides, dtype: torch.empty(shape, dtype=dtype, device=device)


def guards() -> Any:
    """Return the module of torch with what its compiler runs at each call; None if it has none."""
    try:
        from torch._C._dynamo import guards as found
    except ImportError:
        return None
    return found


def likeness(tensors: tuple[torch.Tensor, ...]) -> Callable[..., bool] | None:
    """Return a function that says, of as many tensors, whether they are of the same kind as these.

    That is: class, shape, strides, dtype, device, ``requires_grad`` and what dispatches them; the
    address is not looked at, and no tensor is kept. A tenth of the time of a key made of these. It
    is what torch's own compiler asks; None where this version of torch has none, or asks otherwise.
    """
    make = getattr(guards(), "TensorGuards", None)
    if make is None or not tensors:
        return None
    try:
        sizes, strides = [[*t.shape] for t in tensors], [[*t.stride()] for t in tensors]
        alike = make(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides).check
        return alike if alike(*tensors) is True else None
    except (SystemError, TypeError, RuntimeError):
        return None
