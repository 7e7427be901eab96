"""Roofline: what a machine does in a second, and how long counted work takes on it at least.

A machine's figures are the vendor's, for dense work without sparsity; a figure that no vendor
states is None, and the term that needs it is left out and named. The model is the one of Williams,
Waterman and Patterson (CACM 2009), with one term for each unit that attention keeps busy: tensor
cores, special-function units, 32-bit lanes, memory.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from ..ir.errors import BackendError


@dataclass(frozen=True, slots=True)
class Machine:
    """One accelerator, in work per second.

    target : what kernels are generated for, e.g. ``sm_90``. multiprocessors : where programs run.
    matrix16, matrix8 : FLOP/s of tensor cores on 16-bit and 8-bit floats, sums in 32 bits.
    lanes : 32-bit operations per second, a fused multiply-add counted once; None: not known.
    special : exponentials, logarithms, reciprocals, ... per second; None: not known.
    memory : bytes per second.
    source : where the figures are from.
    """

    name: str
    target: str
    multiprocessors: int
    matrix16: float
    matrix8: float | None
    lanes: float | None
    special: float | None
    memory: float
    source: str


def _nvidia(
    name: str,
    target: str,
    multiprocessors: int,
    gigahertz: float,
    matrix: float,
    matrix8: float | None,
    lanes: int,
    memory: float,
    source: str,
) -> Machine:
    clocks = multiprocessors * gigahertz * 1e9
    return Machine(
        name,
        target,
        multiprocessors,
        matrix * 1e12,
        None if matrix8 is None else matrix8 * 1e12,
        lanes * clocks,
        # 16 results a clock for compute capability 8.x and 9.0 alike
        16 * clocks,
        memory * 1e12,
        source,
    )


_HOPPER = (
    "NVIDIA data sheet; 16 special functions and 128 32-bit lanes a clock and multiprocessor "
    "(CUDA C++ Programming Guide, arithmetic throughput) at 1.755 GHz"
)

MACHINES: dict[str, Machine] = {
    x.name: x
    for x in (
        _nvidia("H100", "sm_90", 132, 1.755, 989.4, 1978.9, 128, 3.35, _HOPPER),
        _nvidia("H200", "sm_90", 132, 1.755, 989.4, 1978.9, 128, 4.8, _HOPPER),
        _nvidia(
            "A100",
            "sm_80",
            108,
            1.41,
            312.0,
            None,
            64,
            2.039,
            "NVIDIA data sheet, 80 GB SXM; 16 special functions and 64 32-bit lanes a clock and "
            "multiprocessor (CUDA C++ Programming Guide, arithmetic throughput) at 1.41 GHz",
        ),
        Machine(
            "MI300X",
            "gfx942",
            304,
            1307.4e12,
            2614.9e12,
            None,
            None,
            5.3e12,
            "AMD data sheet; the rate of special functions is in no data sheet",
        ),
    )
}
"""Machines whose figures are certain. Others are absent on purpose: a guess would be worse."""


def machine_for(target: str, name: str | None = None) -> Machine | None:
    """Return a machine by its name, or the first that runs kernels of ``target``; None if none.

    Raises
    ------
    BackendError : no machine of that name.
    """
    if name is not None:
        found = next((m for m in MACHINES.values() if m.name.lower() == name.lower()), None)
        if found is None:
            raise BackendError(
                f"figures are known of {', '.join(MACHINES)}; {name!r} is none of them, "
                "leave it out for bounds without times"
            )
        return found
    here = _device_name()
    fitting = [m for m in MACHINES.values() if m.target == target]
    return next((m for m in fitting if m.name in here), fitting[0] if fitting else None)


def _device_name() -> str:
    """Return the name of the GPU that is here, or an empty text."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


@dataclass(frozen=True, slots=True)
class Work:
    """Work counted: what a kernel, or a sequence of kernels, does.

    matrix16, matrix32 : FLOPs of products of two tiles, by the width of their operands; products of
        32-bit tiles run on the 32-bit lanes, at full precision.
    exponentials : exp and exp2. special : further results of the special-function units.
    other : remaining 32-bit operations. bytes : moved between memory and the chip.
    """

    matrix16: float = 0
    matrix8: float = 0
    matrix32: float = 0
    exponentials: float = 0
    special: float = 0
    other: float = 0
    bytes: float = 0

    @property
    def matrix(self) -> float:
        """FLOPs of products of two tiles, whatever their width."""
        return self.matrix16 + self.matrix8 + self.matrix32

    def __add__(self, more: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(more, f.name) for f in fields(Work)))

    def times(self, n: float) -> Work:
        """Return the work of ``n`` repetitions."""
        return Work(*(getattr(self, f.name) * n for f in fields(Work)))


Unit = Literal["tensor cores", "special functions", "32-bit lanes", "memory"]


@dataclass(frozen=True, slots=True)
class Term:
    """The least time that one unit needs. ``share`` is relative to the longest term; 1 binds."""

    unit: Unit
    seconds: float
    share: float

    @property
    def binding(self) -> bool:
        """Whether no other unit needs longer."""
        return self.share == 1.0


def terms(work: Work, machine: Machine) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """Return the terms of the roofline, the longest first, and the units whose rate is not known.

    Nothing is said of what overlaps: the longest term is a lower bound of the time, and the sum of
    all is what it takes if the units wait for each other.
    """
    seconds: dict[Unit, float] = {}
    unknown: list[str] = []

    def term(unit: Unit, amount: float, rate: float | None) -> None:
        if amount and rate is None:
            unknown.append(unit)
        elif amount and rate is not None:
            seconds[unit] = seconds.get(unit, 0.0) + amount / rate

    term("tensor cores", work.matrix16, machine.matrix16)
    term("tensor cores", work.matrix8, machine.matrix8)
    term("special functions", work.exponentials + work.special, machine.special)
    term("32-bit lanes", work.other + work.matrix32 / 2, machine.lanes)
    term("memory", work.bytes, machine.memory)
    longest = max(seconds.values(), default=0.0)
    found = [Term(u, s, s / longest if longest else 0.0) for u, s in seconds.items()]
    return tuple(sorted(found, key=lambda t: -t.seconds)), tuple(dict.fromkeys(unknown))
