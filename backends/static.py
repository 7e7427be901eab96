"""Static inputs: what depends on them alone is made once, and made again when they change.

A tensor is told by its storage, which is held weakly, and its place in it; a change by the version
that torch counts with each write in place. Both are read on the host, so nothing waits. Writes that
torch does not count, through ``.data`` or by kernels of others, are not seen; nor is any to a
tensor made in inference mode, which has no version.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing import reductions

from ..codegen.kernel import Kernel

Run = Callable[..., Any]

weakly: Any = reductions.StorageWeakRef
"""Holds a storage weakly: while it does, no other storage has the same identity."""

HELD = 8
"""Sets of static tensors whose tables are kept for one kind of arguments; the oldest goes first."""


def lasting(
    kernels: Sequence[Kernel], static: Collection[str], outputs: Collection[str]
) -> frozenset[str]:
    """Return the kernels, by name, whose results change only when static inputs do.

    They read static inputs and what such kernels write; no other kernel writes with them, and what
    they write is no output, which each call makes anew.
    """
    known = set(static)
    found: list[Kernel] = []
    for kernel in kernels:
        own = {b.tensor for b in kernel.writes}
        if set(kernel.reads) <= known and not own & set(outputs):
            found.append(kernel)
            known |= own
    while True:
        rest = [k for k in kernels if k not in found]
        shared = {b.tensor for k in rest for b in k.writes}
        kept = [
            k
            for k in found
            if not shared & {b.tensor for b in k.writes} and not shared & set(k.reads)
        ]
        if len(kept) == len(found):
            return frozenset(k.name for k in found if not k.fixed)
        found = kept


@dataclass(slots=True)
class Made:
    """What was made for one set of static tensors.

    run, quicken : as of a plan, with what is kept in place. refill : makes it again, in place.
    """

    run: Run
    quicken: Callable[[], Run | None]
    refill: Run
    quick: Run | None = None
    held: tuple[Any, ...] = ()
    versions: tuple[int, ...] = ()
    stream: Any = None
    done: Any = None

    def fill(self, *tensors: torch.Tensor) -> None:
        """Make it, on the current stream."""
        self.refill(*tensors)
        device = tensors[0].device
        if device.type == "cuda":
            self.stream = torch.cuda.current_stream(device)
            self.done = self.stream.record_event()

    def wait(self, tensors: Sequence[torch.Tensor]) -> None:
        """Make the current stream wait, on the device, where another one made it."""
        if self.stream is not None:
            stream = torch.cuda.current_stream(tensors[0].device)
            # a graph begins when all is done, and may not wait for what is outside it
            if stream != self.stream and not torch.cuda.is_current_stream_capturing():
                stream.wait_event(self.done)


class Static:
    """Answers calls with what is kept for their static tensors.

    positions : of the static ones among the tensors of a call. make : prepares a plan for tensors.
    """

    def __init__(self, positions: Sequence[int], make: Callable[..., Made]) -> None:
        self.positions, self.make = tuple(positions), make
        self.entries: dict[tuple[int, ...], Made] = {}

    def run(self, *tensors: torch.Tensor) -> Any:
        """Run on tensors of the kind for which this was made."""
        key, versions = self.told(tensors)
        entry = self.entries.get(key)
        if entry is not None and any(ref.expired() for ref in entry.held):
            entry = None
        if entry is None or entry.versions != versions:
            if capturing(tensors):
                # a graph that replays makes its own each time, and nothing else may read that
                fresh = self.make(*tensors)
                fresh.refill(*tensors)
                return fresh.run(*tensors)
            if entry is None:
                entry = self.make(*tensors)
                entry.held = tuple(weakly(tensors[k].untyped_storage()) for k in self.positions)
                while len(self.entries) >= HELD:
                    self.entries.pop(next(iter(self.entries)))
                self.entries[key] = entry
            entry.fill(*tensors)
            entry.versions = versions
        entry.wait(tensors)
        return entry.run(*tensors)

    def quicken(self) -> Run | None:
        """Return the function that answers what is kept and compiled, the rest NotImplemented."""
        for entry in self.entries.values():
            entry.quick = entry.quick or entry.quicken()
        if not any(entry.quick for entry in self.entries.values()):
            return None

        def quick(*tensors: torch.Tensor) -> Any:
            key, versions = self.told(tensors)
            entry = self.entries.get(key)
            if entry is None or entry.versions != versions or entry.quick is None:
                return NotImplemented
            if any(ref.expired() for ref in entry.held):
                return NotImplemented
            entry.wait(tensors)
            return entry.quick(*tensors)

        return quick

    def told(self, tensors: Sequence[torch.Tensor]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return what tells the static tensors of a call from others, and their versions."""
        key: list[int] = []
        versions = []
        for k in self.positions:
            t = tensors[k]
            key += (t.untyped_storage()._cdata, int(t.storage_offset()))
            versions.append(0 if t.is_inference() else t._version)
        return tuple(key), tuple(versions)


def capturing(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether a CUDA graph is being captured."""
    return any(t.is_cuda for t in tensors) and torch.cuda.is_current_stream_capturing()
