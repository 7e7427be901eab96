"""Run a traversal by its definition, in numpy, to certify it against the interpreter.

A tile is any subset of the streamed rank's coordinates. ``fold`` takes tiles one after the other,
as a loop does; ``merge`` joins states made apart, as a split reduction does. Both read the new
frame as 0 and the old frame as the new one where a frame is still at its identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from einfall.backends.interpreter import evaluate
from einfall.backends.interpreter_space import Present
from einfall.ir.cascade import Cascade, Einsum
from einfall.ir.expression import Access, Apply, Constant, Expression, RankVariable, Reduce, tensors
from einfall.ir.operators import REDUCERS
from einfall.ir.streaming import NEXT, Field, Streaming

State = dict[str, Any]

TILE = "_tile"
JOIN = {
    "sum": numpy.add,
    "max": numpy.maximum,
    "min": numpy.minimum,
    "prod": numpy.multiply,
    "any": numpy.logical_or,
    "all": numpy.logical_and,
}


@dataclass
class Traversal:
    """A streaming state with everything that its einsums read by name."""

    streaming: Streaming
    known: Mapping[str, Any]
    parameters: Mapping[str, Any]
    sizes: Mapping[str, int]

    def compute(self, einsum: Einsum, values: Mapping[str, Any]) -> Any:
        """Evaluate one einsum on named tensors."""
        reads = tuple(einsum.reads)
        cascade = Cascade(
            "one",
            reads,
            tuple((n, v) for n, v in self.parameters.items()),
            (einsum,),
            (einsum.name,),
        )
        found = {name: values[name] for name in reads}
        ranks = set(cascade.ranks)
        sizes = {r: n for r, n in self.sizes.items() if r in ranks}
        return evaluate(cascade, found, self.parameters, sizes)[einsum.name]

    def identity(self) -> State:
        """The state of no element."""
        found = {}
        for f in self.streaming.fields:
            start = REDUCERS[f.reducer].identity
            shape = tuple(self.sizes[r] for r in f.ranks)
            found[f.tensor] = numpy.full(shape, start, bool if isinstance(start, bool) else float)
        return found

    def guarded(self, state: State) -> State:
        """A frame that is read: 0 where it is still an identity."""
        guarded = dict(state)
        for f in self.streaming.fields:
            if f.reducer in ("max", "min"):
                empty = state[f.tensor] == REDUCERS[f.reducer].identity
                guarded[f.tensor] = numpy.where(empty, 0.0, state[f.tensor])
        return guarded

    def moved(self, f: Field, old: State, new: State) -> Any:
        """An accumulator of an old state, carried to the frame of a new one."""
        if f.transport is None:
            return old[f.tensor]
        ahead = self.guarded({**old, **new})
        values: dict[str, Any] = dict(self.known) | dict(old)
        for other in self.streaming.fields:
            if other.tensor in f.frame:
                before = old[other.tensor]
                if other.reducer in ("max", "min"):
                    empty = before == REDUCERS[other.reducer].identity
                    before = numpy.where(empty, ahead[other.tensor], before)
                values[other.tensor] = before
                values[other.tensor + NEXT] = ahead[other.tensor]
        output = Access("_moved", tuple(RankVariable(r) for r in f.ranks))
        return self.compute(Einsum(output, f.transport), values).filled()

    def step(self, state: State, tile: Sequence[int]) -> State:
        """Take one tile: frames first, then everything in the new frame."""
        inside = numpy.zeros(self.sizes[self.streaming.rank])
        inside[list(tile)] = 1
        chosen = Apply(">", (Access(TILE, (RankVariable(self.streaming.rank),)), Constant(0)))
        values: dict[str, Any] = dict(self.known) | {TILE: inside}
        new: State = {}
        for item in self.streaming.body:
            if isinstance(item, Einsum):
                values[item.name] = self.compute(item, values)
                continue
            output = Access("_part", tuple(RankVariable(r) for r in item.ranks))
            filter: Expression = chosen
            if item.filter is not None:
                filter = Apply("and", (item.filter, chosen))
            reduce = Reduce(item.reducer, item.ranks_reduced, item.lift, filter)
            part = self.compute(Einsum(output, reduce), values).filled()
            new[item.tensor] = JOIN[item.reducer](self.moved(item, state, new), part)
            values[item.tensor] = self.guarded({**self.identity(), **new})[item.tensor]
        return new

    def fold(self, tiles: Sequence[Sequence[int]]) -> State:
        """Take tiles one after the other."""
        state = self.identity()
        for tile in tiles:
            state = self.step(state, tile)
        return state

    def merge(self, one: State, two: State) -> State:
        """Join two states in their common frame."""
        new: State = {}
        for f in self.streaming.fields:
            left, right = self.moved(f, one, new), self.moved(f, two, new)
            new[f.tensor] = JOIN[f.reducer](left, right)
        return new

    def finish(self, state: State) -> dict[str, Present]:
        """Make the cascade's tensors from the accumulators."""
        values: dict[str, Any] = dict(self.known) | dict(state)
        for einsum in self.streaming.finalise:
            values[einsum.name] = self.compute(einsum, values)
        return values


def lifted_tensors(streaming: Streaming) -> set[str]:
    """Every tensor that a lift reads."""
    return {t for f in streaming.fields for t in tensors(f.lift)}


def show(streaming: Streaming) -> str:
    """A traversal as text, for tests that read it."""
    from einfall.ir.show import show_einsum, show_expression

    lines = []
    for item in streaming.body:
        if isinstance(item, Einsum):
            lines.append(show_einsum(item))
            continue
        reduced = Reduce(item.reducer, item.ranks_reduced, item.lift, item.filter)
        lines.append(f"{item.tensor}[{', '.join(item.ranks)}] = {show_expression(reduced)}")
        if item.transport is not None:
            lines[-1] += f"    moved: {show_expression(item.transport)}"
    lines += [show_einsum(e) for e in streaming.finalise]
    return "\n".join(lines)
