"""Monomials: products in which every factor is early, late, or a sum or exponential of both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..ir.expression import Apply, Expression
from .stream_terms import ONE, Power, Scaled, canonical, flatten_product, write_powers

INVERSE = {"exp": "log", "exp2": "log2"}


@dataclass(frozen=True, slots=True)
class Shift:
    """``(early + late) ** power``; ``centred`` where its first power sums to 0 in every state."""

    early: tuple[Scaled, ...]
    late: tuple[Scaled, ...]
    power: int = 1
    centred: bool = False


@dataclass(frozen=True, slots=True)
class Exponential:
    """``exp(early + late)`` or ``exp2(early + late)``."""

    operator: str
    early: tuple[Scaled, ...]
    late: tuple[Scaled, ...]


@dataclass(frozen=True, slots=True)
class Monomial:
    """A product in which every factor is early, late, or a sum or exponential of both."""

    coefficient: int | float = 1
    early: tuple[Power, ...] = ()
    late: tuple[Power, ...] = ()
    shifts: tuple[Shift, ...] = ()
    exponentials: tuple[Exponential, ...] = ()


def exponential(operator: str, early: tuple[Scaled, ...], late: tuple[Scaled, ...]) -> Monomial:
    """Write an exponential; the exponential of a logarithm is a power."""
    powers: list[Power] = []
    rest: list[Scaled] = []
    for term in late:
        match term.expression:
            case Apply(name, (inner,)) if name == INVERSE[operator]:
                powers.append(Power(inner, term.coefficient))
            case _:
                rest.append(term)
    made = (Exponential(operator, early, tuple(rest)),) if early or rest else ()
    return Monomial(late=tuple(powers), exponentials=made)


def times(scale: Scaled, term: Scaled) -> Scaled:
    """Multiply two terms."""
    coefficient, powers = flatten_product(Apply("*", (scale.expression, term.expression)))
    total = scale.coefficient * term.coefficient * coefficient
    return Scaled(total, write_powers(powers) if powers else ONE)


def joined(terms: Iterable[Scaled]) -> tuple[Scaled, ...]:
    """Join like terms."""
    found: dict[Expression, Scaled] = {}
    for t in terms:
        key = canonical(t.expression)
        old = found.get(key)
        found[key] = t if old is None else replace(old, coefficient=old.coefficient + t.coefficient)
    return tuple(t for t in found.values() if t.coefficient != 0)


def join_powers(*groups: tuple[Power, ...]) -> tuple[Power, ...]:
    """Multiply: powers of one base and one sign are added."""
    found: dict[tuple[Expression, bool], Power] = {}
    for p in (p for group in groups for p in group):
        key = (canonical(p.base), p.power > 0)
        old = found.get(key)
        found[key] = p if old is None else Power(old.base, old.power + p.power)
    return tuple(found.values())


def multiply(a: Monomial, b: Monomial) -> Monomial:
    """Multiply two monomials: powers and exponents add."""
    exponentials: dict[str, Exponential] = {}
    for e in (*a.exponentials, *b.exponentials):
        old = exponentials.get(e.operator)
        exponentials[e.operator] = (
            e
            if old is None
            else Exponential(
                e.operator, joined((*old.early, *e.early)), joined((*old.late, *e.late))
            )
        )
    shifts: dict[tuple[frozenset[object], frozenset[object]], Shift] = {}
    for s in (*a.shifts, *b.shifts):
        key = (terms_key(s.early), terms_key(s.late))
        before = shifts.get(key)
        shifts[key] = s if before is None else replace(before, power=before.power + s.power)
    return Monomial(
        a.coefficient * b.coefficient,
        join_powers(a.early, b.early),
        join_powers(a.late, b.late),
        tuple(shifts.values()),
        tuple(e for e in exponentials.values() if e.early or e.late),
    )


def raised(one: Monomial, n: int | float) -> Monomial:
    """Return a power of a monomial."""

    def scaled(terms: tuple[Scaled, ...]) -> tuple[Scaled, ...]:
        return tuple(replace(t, coefficient=t.coefficient * n) for t in terms)

    return Monomial(
        one.coefficient**n,
        tuple(Power(p.base, p.power * n) for p in one.early),
        tuple(Power(p.base, p.power * n) for p in one.late),
        tuple(replace(s, power=s.power * int(n)) for s in one.shifts),
        tuple(replace(e, early=scaled(e.early), late=scaled(e.late)) for e in one.exponentials),
    )


def terms_key(terms: Iterable[Scaled]) -> frozenset[object]:
    """Return what two sums share if they are equal up to order."""
    return frozenset((t.coefficient, canonical(t.expression)) for t in terms)


def powers_key(powers: Iterable[Power]) -> frozenset[object]:
    """Return what two products share if they are equal up to order."""
    return frozenset((p.power, canonical(p.base)) for p in powers)
