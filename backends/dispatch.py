"""Dispatch: prepared launches, past Triton's own dispatch once it has compiled what they need.

Triton looks at every argument of every call to find the variant of a kernel that fits: which
integers are 1 or multiples of 16, which addresses are aligned. In a prepared launch all arguments
but the addresses are the same each time, so the variant that the first launch found is launched
directly as long as every address is a multiple of 16 bytes. Anything else goes through Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .compile_together import compile_together
from .memory import New, Piece
from .quick import ALIGNED, quick_call
from .triton import illegal, interpreting, refusal, triton
from .triton_boxes import Maker

DIRECT = ("3.6",)
"""Versions of Triton whose compiled kernels are launched directly; others dispatch themselves."""


@dataclass(slots=True)
class Launch:
    """One launch of one kernel, arguments and all.

    function : the Triton function. arguments : None for pointers; ``pointers`` has (position, slot)
        for each, ``boxes`` also what makes a descriptor of the tensor. options : passed to Triton
        besides. compiled : what the first aligned launch gave, as (run, function, packed metadata).
    """

    function: Any
    programs: int
    arguments: list[Any]
    pointers: list[tuple[int, int]]
    options: dict[str, int]
    boxes: list[tuple[int, int, Maker]] = field(default_factory=list)
    compiled: tuple[Any, Any, Any] | None = None

    def through_triton(self, tensors: Sequence[torch.Tensor]) -> Any:
        """Launch by Triton's dispatch, which compiles if it has to; return what it compiled."""
        try:
            return self.function[(self.programs,)](*self.filled(tensors), **self.options)
        except Exception as error:
            if not illegal(error):
                raise
            name = getattr(self.function, "__name__", str(self.function))
            raise refusal(error, name) from error

    def compile(self, tensors: Sequence[torch.Tensor]) -> None:
        """Compile what that would launch, if it has to be compiled."""
        self.function.run(*self.filled(tensors), grid=(self.programs,), warmup=True, **self.options)

    def filled(self, tensors: Sequence[torch.Tensor]) -> list[Any]:
        """Return the arguments with tensors by slot."""
        arguments = self.arguments.copy()
        for position, slot in self.pointers:
            arguments[position] = tensors[slot]
        for position, slot, make in self.boxes:
            arguments[position] = make(tensors[slot])
        return arguments


def dispatcher(
    launches: Sequence[Launch], pieces: Sequence[Piece], device: torch.device
) -> Callable[[list[torch.Tensor]], None]:
    """Return a function that runs the launches on tensors by slot.

    With ``pieces``, the last tensor is the memory that they lie in; their slots follow the others.
    """
    direct = can_be_direct(device)
    stream_of = current_stream() if direct else None
    knobs = triton().knobs.runtime
    index = device.index
    described = any(launch.boxes for launch in launches)
    offsets = [piece.offset for piece in pieces]

    def through_triton(tensors: list[torch.Tensor], aligned: bool) -> None:
        if pieces:
            memory = tensors.pop()
            tensors = [*tensors, *(piece.of(memory) for piece in pieces)]
        if direct and not begun:
            begun.append(True)
            compile_together(launches, tensors)
        for launch in launches:
            found = launch.through_triton(tensors)
            if direct and aligned and hasattr(found, "packed_metadata"):
                launch.compiled = (found.run, found.function, found.packed_metadata)

    def dispatch(tensors: list[torch.Tensor]) -> None:
        addresses = [t.data_ptr() for t in tensors]
        low = 0
        for address in addresses:
            low |= address
        if (
            low % ALIGNED
            or not ready[0]
            or knobs.launch_enter_hook.calls
            or knobs.launch_exit_hook.calls
        ):
            through_triton(tensors, low % ALIGNED == 0)
            ready[0] = direct and all(launch.compiled for launch in launches)
            return
        if offsets:
            memory = addresses.pop()
            addresses += [memory + offset for offset in offsets]
            if described:
                tensors = [*tensors[:-1], *(piece.of(tensors[-1]) for piece in pieces)]
        stream = stream_of(index)  # type: ignore[misc]
        for launch in launches:
            run, function, metadata = launch.compiled  # type: ignore[misc]
            arguments = launch.arguments.copy()
            for position, slot in launch.pointers:
                arguments[position] = addresses[slot]
            for position, slot, make in launch.boxes:
                arguments[position] = make(tensors[slot])
            run(launch.programs, 1, 1, stream, function, metadata, None, None, None, *arguments)

    ready = [False]
    begun: list[bool] = []
    return dispatch


def quickened(
    inputs: int,
    made: Sequence[New | torch.Tensor],
    pieces: Sequence[Piece],
    launches: Sequence[Launch],
    wanted: Sequence[int],
    device: torch.device,
) -> Callable[..., Any] | None:
    """Return a plan as one function, None before its launches have been compiled."""
    if not can_be_direct(device) or not all(launch.compiled for launch in launches):
        return None
    return quick_call(inputs, made, pieces, launches, wanted, device, current_stream())


def current_stream() -> Callable[[int | None], int]:
    """Return the function with which Triton asks for a device's current stream."""
    found: Callable[[int | None], int] = triton().runtime.driver.active.get_current_stream
    return found


def can_be_direct(device: torch.device) -> bool:
    """Whether compiled kernels may be launched past Triton's dispatch."""
    version = str(getattr(triton(), "__version__", ""))
    return device.type == "cuda" and version.startswith(DIRECT) and not interpreting()
