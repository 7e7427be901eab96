"""Density: of all points, those that exist and those that kernels compute, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .explain_parts import parts_known
from .explain_visits import Facts, Visits, visits

if TYPE_CHECKING:
    from .lowered import Lowered


@dataclass(frozen=True, slots=True)
class LoopDensity:
    """One loop over all programs.

    tiles : how many there are; skipped, full, partial ones, and those that lists name, so that
    ``tiles == skipped + full + partial + listed``. executed : the share of tiles that is visited.
    nominal : the share of points that exist; None where they were not counted. exact : False where
    lists are not given, and were taken to be as long as they can be. open : why nothing is known;
    then the numbers are 0.
    """

    kernel: str
    rank: str
    tiles: int
    skipped: int
    full: int
    partial: int
    listed: int
    executed: float
    nominal: float | None
    exact: bool
    open: str = ""

    @property
    def inflation(self) -> float | None:
        """How many points are computed for each that exists."""
        return self.executed / self.nominal if self.nominal else None


def density(
    lowered: Lowered,
    *tensors: Any,
    sizes: Mapping[str, int] | None = None,
    reads: Mapping[str, Any] | None = None,
) -> tuple[LoopDensity, ...]:
    """Return the densities of every loop, in order.

    Parameters
    ----------
    tensors : the arguments of a call; or ``reads``, those that filters and lists read, by name.
    sizes : of ranks, beside those known when it was lowered.
    """
    given = {**dict(zip(lowered.cascade.inputs, tensors, strict=False)), **(reads or {})}
    arrays = {n: x.detach().cpu().numpy() if hasattr(x, "detach") else x for n, x in given.items()}
    at, values = parts_known(lowered, {**lowered.known.sizes, **(sizes or {})})
    facts = Facts.of(lowered, at, arrays).with_parameters(values)
    found = []
    for kernel in lowered.mapping.kernels:
        for traversal in kernel.traversals:
            counted = visits(kernel, traversal, facts)
            found.append(loop_density(kernel.name, traversal.streaming.rank, counted))
    return tuple(found)


def loop_density(kernel: str, rank: str, found: Visits | str) -> LoopDensity:
    """Return what was counted of one loop."""
    if isinstance(found, str):
        return LoopDensity(kernel, rank, 0, 0, 0, 0, 0, 0.0, None, False, found)
    return LoopDensity(
        kernel,
        rank,
        found.total,
        found.skipped,
        found.full,
        found.partial,
        found.listed,
        found.executed_density,
        found.live_density,
        found.exact,
    )
