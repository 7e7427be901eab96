"""Cascades whose traversals are derived in tests: plain declarations, without hints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy

from einfall.ir.cascade import Cascade, Scalar
from einfall.ir.notation import cascade
from einfall.passes.flatten import flatten

SIZES = {"b": 2, "h": 2, "p": 3, "m": 7, "e": 4, "f": 3, "g": 3, "j": 3, "c": 2, "n": 7}


@dataclass(frozen=True)
class Case:
    """A declaration, the rank that streams, and what is expected of the state.

    fields : tensor, reducer and family of each accumulator, in order.
    shapes : shapes of inputs that are not named by their ranks in ``SIZES``.
    positive : inputs that are drawn above 0. spread : how large inputs are; where a result is a
    small difference of large sums, scores are kept apart from one-hot weights.
    """

    name: str
    text: str
    fields: tuple[tuple[str, str, str], ...]
    rank: str = "m"
    parameters: dict[str, Scalar] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    positive: tuple[str, ...] = ()
    spread: float = 2.0

    def flat(self) -> Cascade:
        """The declaration as the pass takes it."""
        return flatten(cascade(self.text))


def tensors(case: Case, flat: Cascade, seed: int, spread: float | None = None) -> dict[str, Any]:
    """Draw the inputs: normal numbers, positive ones where the case says so."""
    from einfall.ir.axes import ranks_of

    draw = numpy.random.default_rng(seed)
    found = {}
    for name in flat.inputs:
        shape = case.shapes.get(name)
        if shape is None:
            shape = tuple(SIZES[r] for r in ranks_of(flat, name) if r is not None)
        values = (case.spread if spread is None else spread) * draw.standard_normal(shape)
        found[name] = numpy.abs(values) + 0.1 if name in case.positive else values
    return found
