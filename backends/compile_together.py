"""Compile the kernels of one call side by side.

A launch compiles its kernel if that was not done before, so the kernels of a call would be compiled
one after the other. Most of what Triton does needs no lock of Python's, and the assembler is a
process of its own: two kernels in two threads take little longer than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TYPE_CHECKING

import torch

from .triton import triton

if TYPE_CHECKING:
    from .dispatch import Launch

THREADS = 8
"""The most kernels that are compiled at a time."""


def compile_together(launches: Sequence[Launch], tensors: Sequence[torch.Tensor]) -> None:
    """Compile what launches on these tensors would; what fails is left for a launch to say."""
    mode = getattr(triton(), "AsyncCompileMode", None)
    if mode is None or len(launches) < 2:
        return

    def begin() -> None:
        with ThreadPoolExecutor(THREADS) as pool, mode(pool, ignore_errors=True):
            for launch in launches:
                launch.compile(tensors)

    # Triton keeps its mode in the context, and leaves it there when it is interrupted
    copy_context().run(begin)
