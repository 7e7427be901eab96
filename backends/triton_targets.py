"""What Einfall knows of the GPUs that Triton compiles for; no GPU is needed to ask.

Sources: CUDA C++ Programming Guide, table of technical specifications per compute capability
(shared memory a block may opt in to, registers a multiprocessor); CDNA 3 ISA guide (LDS, VGPRs).
"""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.errors import BackendError


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of GPU.

    vendor, architecture : what Triton calls it, e.g. ``cuda`` and 90.
    lanes : threads of a warp.
    shared : bytes of shared memory that one program can have.
    registers : 32-bit registers of a multiprocessor, which its resident programs share.
    thread_registers : the most that one thread can have.
    tensor_core : the instruction of a full-rate dot.
    """

    name: str
    vendor: str
    architecture: int | str
    lanes: int
    shared: int
    registers: int
    thread_registers: int
    tensor_core: str


TARGETS = {
    target.name: target
    for target in (
        Target("sm_80", "cuda", 80, 32, 163 * 1024, 65536, 255, "mma"),
        Target("sm_90", "cuda", 90, 32, 227 * 1024, 65536, 255, "wgmma"),
        Target("sm_100", "cuda", 100, 32, 227 * 1024, 65536, 255, "tcgen05"),
        # Four SIMDs of 512 registers by 64 lanes; half of a thread's are accumulators.
        Target("gfx942", "hip", "gfx942", 64, 64 * 1024, 131072, 512, "mfma"),
    )
}


def target_of(name: str) -> Target:
    """Return the facts of a target by name, e.g. ``sm_90``.

    Raises
    ------
    BackendError : it is not among those that Einfall compiles for ahead of time.
    """
    if name not in TARGETS:
        raise BackendError(
            f"targets are {', '.join(TARGETS)}, and {name!r} is none of them; use the nearest"
        )
    return TARGETS[name]


def shared_limit(target: str) -> int:
    """Return how many bytes of shared memory one program can have."""
    return target_of(target).shared


def register_file(target: str) -> int:
    """Return how many 32-bit registers a multiprocessor (compute unit) has."""
    return target_of(target).registers
