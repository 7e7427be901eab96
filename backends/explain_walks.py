"""Explaining walks: how often each rank is traversed, as written, after passes, by kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..ir.cascade import Cascade
from ..ir.expression import Reduce
from ..ir.mapping import Mapping as Mapped
from ..ir.traversals import Traversals, analyse
from .explain_loops import reads_along


@dataclass(frozen=True, slots=True)
class TensorWalks:
    """When a walk of a rank wants an input's elements, as written, and how many loops read them."""

    tensor: str
    written: tuple[int, ...]
    loops: int


@dataclass(frozen=True, slots=True)
class RankWalks:
    """How often one rank is walked.

    rank : with the ranks that it is split in, comma-separated. written : sequential walks that the
    cascade as declared needs in every mapping; reasons : which dependence forces each of them.
    passes : the same after the passes, before a streaming state is derived; None: the rank is gone.
    loops : loops over it, by kernel. held : kernels in which a tile holds it whole.
    """

    rank: str
    written: int
    reasons: tuple[str, ...]
    passes: int | None
    loops: tuple[tuple[str, int], ...]
    held: tuple[str, ...]
    tensors: tuple[TensorWalks, ...]

    @property
    def walked(self) -> int:
        """Return the loops over the rank in all kernels together."""
        return sum(n for _, n in self.loops)


def rank_walks(cascade: Cascade, mapping: Mapped) -> tuple[RankWalks, ...]:
    """Return the walks of every rank that some kernel reduces, or that the cascade walks twice."""
    after = analyse(mapping.cascade)
    reduced = {
        r
        for e in mapping.cascade.einsums
        for x in e.expressions()
        if isinstance(x, Reduce)
        for r in x.ranks
    }
    found = []
    for name, ranks, written in families(analyse(cascade)):
        loops = []
        held = []
        for kernel in mapping.kernels:
            n = sum(t.streaming.rank in ranks for t in kernel.traversals)
            if kernel.search is not None and set(kernel.ranks("tiled")) & set(ranks):
                n += 1 if kernel.searches_rows else kernel.search.traversals
            loops += [(kernel.name, n)] if n else []
            held += [kernel.name] if set(kernel.ranks("resident")) & set(ranks) else []
        if not loops and written.levels < 2 and not reduced & set(ranks):
            continue  # nothing is walked: points of it have nothing to do with each other
        passes = [after[r].levels for r in ranks if r in after]
        tensors = []
        for tensor in cascade.inputs:
            wanted = tuple(sorted(written.traversals_of.get(tensor, ())))
            reading = sum(
                t.streaming.rank in ranks and reads_along(tensor, t)
                for k in mapping.kernels
                for t in k.traversals
            )
            if wanted:
                tensors.append(TensorWalks(tensor, wanted, reading))
        found.append(
            RankWalks(
                name,
                written.levels,
                written.reasons,
                max(passes, default=None),
                tuple(loops),
                tuple(held),
                tuple(tensors),
            )
        )
    return tuple(sorted(found, key=lambda w: -w.walked))


def families(
    counted: Mapping[str, Traversals],
) -> Iterator[tuple[str, tuple[str, ...], Traversals]]:
    """Yield each family of ranks once: its name, its ranks, its count."""
    seen: set[str] = set()
    for rank, answer in counted.items():
        if rank in seen:
            continue
        ranks = tuple(r for r, other in counted.items() if other is answer)
        seen |= set(ranks)
        yield ", ".join(ranks), ranks, answer
