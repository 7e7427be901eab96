"""Compile a kernel for a GPU that is not there, and read what the compiler made of it.

Triton's wheel holds all that is needed: the assembler, the disassembler, the AMD linker. Each
compilation runs in a process of its own, without ``TRITON_INTERPRET``, because Triton decides on
import whether it interprets, and because its passes can end the process when they fail; see
``triton_nursery.py``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..codegen.kernel import Kernel
from ..ir.errors import BackendError
from .triton_compile import Request, signature
from .triton_nursery import compile_apart
from .triton_report import Report, check, problems
from .triton_targets import register_file, shared_limit, target_of

__all__ = ["Report", "check", "compile_ahead", "problems", "register_file", "shared_limit"]

SECONDS = 600
"""The longest that one compilation may take."""


def compile_ahead(
    kernel: Kernel,
    dtypes: Mapping[str, str],
    target: str = "sm_90",
    divisible: bool = True,
    *,
    unit_strides: Collection[tuple[str, int]] | None = None,
) -> Report:
    """Compile ``kernel`` for ``target`` as a launch would have it compiled, and read the result.

    dtypes : of every tensor that the kernel reads, and of every parameter, by numpy-style name;
        what it writes has its dtype in ``kernel.writes``.
    divisible : whether sizes and strides are divisible by 16; pointers always are.
    unit_strides : (tensor, position) whose stride is 1, which becomes a constant at a launch; by
        default the last position of every tensor.

    Raises
    ------
    BackendError : the target is unknown, a dtype is missing, or the kernel does not compile; the
        compiler's own words are in it.
    """
    request = Request(kernel, signature(kernel, dtypes, divisible, unit_strides), target_of(target))
    found = compile_apart(request, SECONDS)
    if found.late:
        raise BackendError(
            f"compiling kernel {kernel.name} for {target} must end within {SECONDS} s, and did"
            " not; try smaller tiles"
        )
    if found.answer is None:
        raise BackendError(
            f"compiling kernel {kernel.name} for {target} ended the compiler"
            f" (exit status {found.status}); it said: {found.said}"
        )
    result = found.answer
    if isinstance(result, Report):
        return result
    raise BackendError(f"kernel {kernel.name} does not compile for {target}: {result}")
