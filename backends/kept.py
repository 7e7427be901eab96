"""Kept tensors: what a kernel wrote once and later calls read, on whatever stream they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Run = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Kept:
    """Tensors, the stream on which they were written, and the event behind which they are there.

    On a CPU there is neither stream nor event.
    """

    tensors: tuple[torch.Tensor, ...]
    stream: Any = None
    done: Any = None


def keep(tensors: list[torch.Tensor], device: torch.device) -> Kept:
    """Return what has just been written on the current stream, to be read later."""
    if device.type != "cuda":
        return Kept(tuple(tensors))
    stream = torch.cuda.current_stream(device)
    return Kept(tuple(tensors), stream, stream.record_event())


def behind(run: Run, kept: tuple[Kept, ...], device: torch.device) -> Run:
    """Make ``run`` wait, on the device, for what it reads, where that was written elsewhere."""

    def run_behind(*tensors: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        stream = torch.cuda.current_stream(device)
        for each in kept:
            # a graph begins when all is done, and may not wait for what is outside it
            if stream != each.stream and not torch.cuda.is_current_stream_capturing():
                stream.wait_event(each.done)
                for tensor in each.tensors:
                    tensor.record_stream(stream)
        return run(*tensors)

    return run_behind
