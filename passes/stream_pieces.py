"""Pieces: a reduction as accumulators, each with a weight that is known at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import comb

from ..ir.expression import Expression, tensors
from .closure import Accumulator
from .monomial import Shift, join_powers
from .stream_terms import Power, Scaled, flatten_product, write_powers, write_terms


@dataclass(frozen=True, slots=True)
class Piece:
    """An accumulator and what it is multiplied with at the end, or what is added to it."""

    accumulator: Accumulator
    coefficient: int | float = 1
    factors: tuple[Power, ...] = ()
    added: tuple[Scaled, ...] = ()

    @property
    def bare(self) -> bool:
        """Whether the accumulator is the result itself."""
        return self.coefficient == 1 and not self.factors and not self.added

    def applied(self, access: Expression) -> Expression:
        """Return the accumulator's contribution to the result."""
        value = write_powers((Power(access), *self.factors), self.coefficient)
        return write_terms((Scaled(1, value), *self.added)) if self.added else value

    def reads(self) -> tuple[str, ...]:
        """Return the tensors that the weight reads."""
        inside = (*(p.base for p in self.factors), *(t.expression for t in self.added))
        return tuple(dict.fromkeys(n for x in inside for n in tensors(x)))


@dataclass(frozen=True, slots=True)
class Plan:
    """A reduction as a sum of pieces; ``direct`` where its one accumulator is the result."""

    pieces: tuple[Piece, ...]
    direct: Accumulator | None = None


def expand(scale: Piece, shifts: list[Shift], rests: list[tuple[Scaled, ...]]) -> list[Piece]:
    """Multiply out the deferred part of each shift by the binomial theorem."""
    pieces = []
    for powers in product(*(range(s.power, -1 if rest else s.power - 1, -1)
                            for s, rest in zip(shifts, rests, strict=True))):  # fmt: skip
        coefficient, factors = scale.coefficient, list(scale.factors)
        held = scale.accumulator
        for s, rest, k in zip(shifts, rests, powers, strict=True):
            coefficient *= comb(s.power, k)
            if k < s.power:
                number, inner = flatten_product(write_terms(rest))
                coefficient *= number ** (s.power - k)
                factors += [Power(p.base, p.power * (s.power - k)) for p in inner]
            if k and s.late:
                held = replace(held, shifts=(*held.shifts, replace(s, power=k)))
            elif k:
                number, inner = flatten_product(write_terms(s.early))
                coefficient *= number**k
                early = tuple(Power(p.base, p.power * k) for p in inner)
                held = replace(held, early=join_powers(held.early, early))
        pieces.append(Piece(held, coefficient, join_powers(tuple(factors))))
    return pieces


def join_pieces(pieces: list[Piece]) -> tuple[Piece, ...]:
    """Add the coefficients of equal pieces."""
    found: dict[object, Piece] = {}
    for piece in pieces:
        weights = frozenset((p.power, p.base) for p in piece.factors)
        key = (piece.accumulator.key, weights)
        old = found.get(key)
        if old is None:
            found[key] = piece
        else:
            found[key] = replace(old, coefficient=old.coefficient + piece.coefficient)
    kept = tuple(p for p in found.values() if p.coefficient != 0)
    return kept or (replace(pieces[0], coefficient=0),)
