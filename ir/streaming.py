"""Streaming states: what a chain of dependent reductions over one rank becomes in one traversal.

A state is a tuple of *fields*, one accumulator each. A field's ``lift`` is the contribution of one
element of the streamed rank; it may read fields before it, its *frame*. When the frame moves from r
to r', ``transport`` carries the accumulator along:

::

    merge     (r, t) with (s, u)  =  w = r merged with s;  transport(t, r, w) (+) transport(u, s, w)
    tile      r' = r (+) reduce(lift of the frame)
              t' = transport(t, r, r') (+) reduce(lift in the frame r')

This is conditions T1 and T2 of theory section 3.2: transport maps the lift in one frame to the lift
in the other, and is a homomorphism of the field's reduction.
"""

from __future__ import annotations

from dataclasses import dataclass

from .cascade import Einsum
from .expression import Expression

NEXT = "_next"
"""In a transport, ``Access("G", ...)`` is the frame before, ``Access("G_next", ...)`` after."""


@dataclass(frozen=True, slots=True)
class Field:
    """One accumulator of a streaming state.

    tensor : the accumulator's name; ``ranks`` are the ranks it keeps (never the streamed one).
    reducer : how contributions join, e.g. ``sum``; ``ranks_reduced`` are reduced (streamed first).
    lift : the contribution of one point; reads inputs, streamed einsums, and frame fields by name.
    filter : points that the lift leaves out (None: the points that exist).
    frame : the earlier fields that ``lift`` depends on; () for an independent accumulator.
    transport : this accumulator after the frame moved, over ``Access(field, ranks)`` (old values of
        this and sibling fields), ``Access(frame, ...)`` and ``Access(frame + NEXT, ...)``; None
        where there is no frame.
    family : F0, F1, F1', F2, F3, F4, F6, F7 (theory 3.3).
    proof : how T1 and T2 were shown, in one sentence.
    """

    tensor: str
    ranks: tuple[str, ...]
    reducer: str
    ranks_reduced: tuple[str, ...]
    lift: Expression
    filter: Expression | None = None
    frame: tuple[str, ...] = ()
    transport: Expression | None = None
    family: str = "F0"
    proof: str = "independent of every other accumulator"


@dataclass(frozen=True, slots=True)
class Streaming:
    """One traversal of ``rank``: what is computed per element, kept, and made at the end.

    body : in order, einsums that keep the streamed rank (computed per tile, in the new frame) and
        fields (accumulated).
    finalise : einsums without the streamed rank, from the accumulators to the cascade's tensors.
    commutative : whether tiles may be visited in any order.
    additions : sums over the tiled rank, in memory: every tile of the walk adds its share.
    """

    rank: str
    body: tuple[Einsum | Field, ...]
    finalise: tuple[Einsum, ...]
    commutative: bool = True
    additions: tuple[Field, ...] = ()

    @property
    def fields(self) -> tuple[Field, ...]:
        """The accumulators, in order."""
        return tuple(x for x in self.body if isinstance(x, Field))

    @property
    def sums(self) -> tuple[Field, ...]:
        """All that points are taken into: the accumulators, and what is added to in memory."""
        return (*self.fields, *self.additions)

    def fields_of(self, other: Streaming) -> bool:
        """Whether it has the accumulators of another traversal, and so goes on with them."""
        return [f.tensor for f in self.fields] == [f.tensor for f in other.fields]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why no single traversal was found.

    code : ``NOT_SEPARABLE``, ``UNBOUNDED_SUPPORT``, ``STREAM_OUTPUT``, ``NONLINEAR_STATE``, ...
    tensor : the reduction or output at which the derivation stopped.
    text : one sentence for the user.
    witness : the evidence, e.g. a minor that does not vanish, as text.
    alternatives : what the user may do instead.
    """

    code: str
    tensor: str
    text: str
    witness: str = ""
    alternatives: tuple[str, ...] = ()
