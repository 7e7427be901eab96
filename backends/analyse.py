"""Analyse: what a cascade tells before any size is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..ir.cascade import Cascade, check_cascade
from ..ir.errors import PassError
from ..ir.expression import Reduce
from ..ir.streaming import Reason, Streaming
from ..ir.traversals import Footprint, Traversals, live_footprint
from ..ir.traversals import analyse as count_traversals
from ..passes.cancel_norms import cancel_norms
from ..passes.dead import remove_dead
from ..passes.flatten import flatten
from ..passes.stabilise import stabilise
from ..passes.stream import stream
from .explain_loops import explain_field
from .explain_numbers import listing, times
from .explain_text import field_lines, wrapped
from .explain_walks import families


@dataclass(frozen=True, slots=True)
class Analysis:
    """How often a cascade walks its ranks, and which walks one traversal can do together.

    traversals : by rank, of the cascade as written, with a sentence for each.
    footprints : by rank, the tensors that cross from one traversal to a later one.
    states : by reduced rank, the streaming state of a single traversal, or the reason against one.
    """

    cascade: Cascade
    traversals: Mapping[str, Traversals]
    footprints: Mapping[str, tuple[Footprint, ...]]
    states: Mapping[str, Streaming | Reason]

    def __str__(self) -> str:
        lines = [f"{self.cascade.name}, as written"]
        for name, ranks, counted in sorted(families(self.traversals), key=lambda f: -f[2].levels):
            if not any(r in self.states for r in ranks) and counted.levels < 2:
                continue
            lines.append(f"  {name}  {times(counted.levels, 'traversal')}")
            for line in self.rank_lines(ranks, counted):
                indent = line[: len(line) - len(line.lstrip())]
                lines += wrapped(line.strip(), f"      {indent}", f"        {indent}")
        return "\n".join(lines)

    def rank_lines(self, ranks: tuple[str, ...], counted: Traversals) -> Iterator[str]:
        """Yield what is said of one family of ranks."""
        if counted.levels > 1:
            yield from counted.reasons
            for tensor in self.cascade.inputs:
                wanted = sorted(counted.traversals_of.get(tensor, ()))
                if wanted:
                    many = "s" if len(wanted) > 1 else ""
                    yield f"{tensor}: wanted in traversal{many} {', '.join(map(str, wanted))}"
            for f in self.footprints.get(ranks[0], ()):
                if f.tensor not in self.cascade.inputs:
                    each = f" for each {', '.join(f.each)}" if f.each else ""
                    yield (
                        f"{f.tensor}: made again, or held along all of {', '.join(f.whole)}{each}"
                    )
        for rank in ranks:
            if rank in self.states:
                yield from state_lines(rank, self.states[rank])


def state_lines(rank: str, state: Streaming | Reason) -> Iterator[str]:
    """Yield what is said of a state, or of the reason against one."""
    if isinstance(state, Reason):
        where = f" at {state.tensor}" if state.tensor else ""
        yield f"No single traversal of {rank} was found{where} ({state.code}): {state.text}"
        if state.witness:
            yield f"  evidence: {state.witness}"
        for alternative in state.alternatives:
            yield f"  instead: {alternative}"
        return
    names = [f.tensor for f in state.fields]
    order = "in any order" if state.commutative else "in order"
    yield f"One traversal of {state.rank} is enough, {order}; it keeps {listing(names)}:"
    for field in state.fields:
        yield from field_lines(explain_field(field))


def analyse(cascade: Cascade) -> Analysis:
    """Count the traversals of every rank and derive a streaming state for each reduced one.

    Counting follows FuseMax (Nayak et al., MICRO 2024), section III; ``ir.traversals`` says how.
    States are derived as the pipeline does it, after ``flatten``, ``stabilise``, ``cancel_norms``.
    """
    check_cascade(cascade, "analyse")
    counted = count_traversals(cascade)
    steady = cancel_norms(stabilise(remove_dead(flatten(cascade))))
    reduced = dict.fromkeys(
        r for e in steady.einsums for x in e.expressions() if isinstance(x, Reduce) for r in x.ranks
    )
    footprints = {
        rank: live_footprint(cascade, answer.family)
        for rank, answer in counted.items()
        if answer.levels > 1
    }
    return Analysis(cascade, counted, footprints, {r: derive(steady, r) for r in reduced})


def derive(cascade: Cascade, rank: str) -> Streaming | Reason:
    """Return the state of a traversal of one rank; what the pass refuses becomes a reason."""
    try:
        return stream(cascade, rank=rank)
    except PassError as error:
        return Reason("NOT_APPLICABLE", "", str(error))
