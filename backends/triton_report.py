"""What a compiler made of a kernel, as data, and what would be wrong with shipping it."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.errors import BackendError
from .triton_disassembly import Loop
from .triton_targets import target_of


@dataclass(frozen=True, slots=True)
class Report:
    """What the compiler made of a kernel.

    registers : 32-bit registers of a thread (AMD: with the accumulators).
    spill_stores, spill_loads : bytes a thread that the assembler says it spilled (AMD: spilled
        registers x 4, and no loads).
    stack : bytes a thread of its own memory. shared : bytes of shared memory a program.
    tensor_core : dots by instruction (``wgmma``, ``mma``, ``tcgen05``, ``mfma``) in the whole text.
    warnings : what the assembler said, e.g. that asynchronous dots were serialised.
    assembly : the machine code as text.
    """

    kernel: str
    target: str
    num_warps: int
    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int
    tensor_core: tuple[tuple[str, int], ...]
    loops: tuple[Loop, ...]
    warnings: tuple[str, ...]
    seconds: float
    assembly: str

    def __str__(self) -> str:
        dots = ", ".join(f"{n} {name}" for name, n in self.tensor_core) or "no tensor-core dots"
        head = (
            f"{self.kernel} for {self.target}, {self.num_warps} warps: {self.registers} registers,"
            f" {self.spill_stores} B spilled, {self.shared} B shared, {dots}"
        )
        loops = (
            f"  loop at depth {x.depth}: {x.instructions} instructions, {x.tensor_core} dots,"
            f" {x.exponentials} exponentials, {x.local_loads + x.local_stores} local accesses"
            for x in self.loops
        )
        return "\n".join((head, *loops, *(f"  {warning}" for warning in self.warnings)))


def problems(
    report: Report,
    *,
    local: int = 0,
    tensor_core: bool | str = True,
    registers: int | None = None,
) -> tuple[str, ...]:
    """Return why a kernel should not be shipped, one sentence each; () if nothing is wrong.

    local : accesses to local memory (spills) allowed in a loop.
    tensor_core : whether some dot must run on the tensor cores; a name asks for that instruction.
    registers : the most that a thread may use.
    """
    target = target_of(report.target)
    dots = dict(report.tensor_core)
    found = [
        f"loop {i} at depth {loop.depth} has {traffic} local-memory accesses (spills)"
        for i, loop in enumerate(report.loops)
        if (traffic := loop.local_loads + loop.local_stores) > local
    ]
    if report.shared > target.shared:
        found.append(f"{report.shared} B of shared memory, and {target.name} has {target.shared} B")
    if isinstance(tensor_core, str) and tensor_core not in dots:
        found.append(f"no {tensor_core} instruction, only {', '.join(dots) or 'none'}")
    if tensor_core is True and not dots:
        found.append("no tensor-core instruction")
    if registers is not None and report.registers > registers:
        found.append(f"{report.registers} registers a thread, and {registers} are allowed")
    return (*found, *report.warnings)


def check(
    report: Report,
    *,
    local: int = 0,
    tensor_core: bool | str = True,
    registers: int | None = None,
) -> None:
    """Raise BackendError with all that ``problems`` finds, if it finds anything."""
    found = problems(report, local=local, tensor_core=tensor_core, registers=registers)
    if found:
        name = f"kernel {report.kernel} for {report.target}"
        raise BackendError(f"{name}: {'; '.join(found)}; try smaller tiles or more warps")
