"""``analyse``: what a cascade tells before any size is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..ir.cascade import Cascade
from ..ir.expression import Reduce
from ..ir.streaming import Reason, Streaming
from ..ir.traversals import analyse as count_traversals
from ..passes.flatten import flatten
from ..passes.stabilise import stabilise
from ..passes.stream import stream


@dataclass(frozen=True, slots=True)
class Analysis:
    """Traversals of each rank as declared, and the streaming state or the reason against one.

    traversals : by rank, how often the cascade as written walks it, with the reasons.
    states : by reduced rank, the derived streaming state, or why there is none.
    """

    cascade: Cascade
    traversals: dict[str, Any]
    states: dict[str, Streaming | Reason]


def analyse(cascade: Cascade) -> Analysis:
    """Count the traversals of every rank and derive a streaming state for each reduced one.

    Counting follows FuseMax (Nayak et al., MICRO 2024), section III; ``ir.traversals`` says how.
    """
    flat = flatten(cascade)
    steady = stabilise(flat)
    reduced = dict.fromkeys(
        r for e in steady.einsums if isinstance(e.body, Reduce) for r in e.body.ranks
    )
    kept = {r for t in cascade.outputs for e in steady.einsums if e.name == t for r in e.ranks}
    states = {r: stream(steady, rank=r) for r in reduced if r not in kept}
    return Analysis(cascade, count_traversals(flat), states)
