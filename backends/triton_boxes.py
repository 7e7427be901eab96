"""Descriptors made by the host: what tells the memory engine where a box of a tensor lies.

Triton encodes one at each launch. What does not change from call to call, sizes, steps and layout,
is worked out once; a call only puts its tensor in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from ..codegen.kernel import Argument
from ..ir.errors import BackendError

Maker = Callable[[torch.Tensor], Any]


def shared_layout(block: tuple[int, ...], dtype: str) -> Any:
    """Return the layout in which a box lies in shared memory: what tensor cores read fastest."""
    language = import_module("triton.experimental.gluon.language")
    return language.NVMMASharedLayout.get_default_for(list(block), getattr(language, dtype))


def box_type(argument: Argument, dtype: str, short: str) -> str:
    """Return the type of a descriptor in a kernel's signature; ``short`` is Triton's dtype."""
    block = list(argument.block)
    return f"tensordesc<{short}{block},{shared_layout(argument.block, dtype)!r}>"


def box_maker(
    argument: Argument,
    dtype: str,
    shapes: Mapping[str, tuple[int, ...]],
    strides: Mapping[str, tuple[int, ...]],
) -> Maker:
    """Return the function that makes an argument's descriptor from its tensor.

    Raises
    ------
    BackendError : the tensor has no elements, so that there is nothing to describe.
    """
    shape = [shapes[argument.tensor][k] for k in argument.order]
    steps = [strides[argument.tensor][k] for k in argument.order]
    if min(shape, default=0) < 1:
        raise BackendError(
            f"{argument.tensor} is empty, and a descriptor cannot say so; compile with"
            ' emitter="tl" for empty tensors'
        )
    library = import_module("triton.experimental.gluon.nvidia.hopper")
    kind = library.TensorDescriptor
    fixed = {
        "shape": shape,
        "strides": steps,
        "block_shape": list(argument.block),
        "layout": shared_layout(argument.block, dtype),
        "padding": "zero",
    }

    def make(tensor: torch.Tensor) -> Any:
        box = object.__new__(kind)
        box.__dict__.update(fixed)
        box.base = tensor
        return box

    return make
