"""Closure: accumulators, and what carries them from one frame to the next.

An accumulator's lift is a product of early factors, powers of shifts ``u(x) + w(r)`` and
exponentials ``exp(v(x) + z(r))``, where r is the frame. When the frame moves from r to r',

::

    exp(v + z')   = exp(z' - z) * exp(v + z)                                  theory 3.3, F2 and F3
    (u + w') ** n = sum over k of  binomial(n, k) * (w' - w) ** (n - k) * (u + w) ** k          F4

so the lifts with lower powers close the family: their accumulators are siblings, and the transport
is linear in them. It is what differentiating by the frame would find (theory 3.4, test 3), in
closed form and for any w and z. What stands at an extremum g counts while g stands:

::

    where(x == g', y, identity)  =  where(g == g', where(x == g, y, identity), identity)         F6

for no x is beyond g, so that an x equal to g' was equal to g.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import comb

from ..ir.expression import Access, Apply, Constant, Expression, rewrite
from ..ir.operators import REDUCERS
from ..ir.streaming import NEXT
from .monomial import Exponential, Shift, join_powers, powers_key, terms_key
from .separate import late_tensors
from .stream_terms import ONE, Power, Scaled, canonical, write_powers, write_terms


@dataclass(frozen=True, slots=True)
class Accumulator:
    """A reduction of one monomial: ``reducer`` over ``reduced`` (the streamed rank first).

    ranks : the ranks kept. presence : conditions under which a point takes part.
    located : a value and its extremum; only points where the two are equal count.
    """

    reducer: str
    ranks: tuple[str, ...]
    reduced: tuple[str, ...]
    early: tuple[Power, ...] = ()
    shifts: tuple[Shift, ...] = ()
    exponentials: tuple[Exponential, ...] = ()
    presence: tuple[Expression, ...] = ()
    located: tuple[Expression, Access] | None = None

    @property
    def key(self) -> object:
        """What two accumulators share if they hold the same value."""
        return (
            self.reducer,
            self.ranks,
            frozenset(self.reduced),
            powers_key(self.early),
            frozenset((terms_key(s.early), terms_key(s.late), s.power) for s in self.shifts),
            frozenset(
                (e.operator, terms_key(e.early), terms_key(e.late)) for e in self.exponentials
            ),
            frozenset(canonical(x) for x in self.presence),
            self.located,
        )

    def late_expressions(self) -> tuple[Expression, ...]:
        """Return the late terms inside, by which the frame is read."""
        inside = [t.expression for e in self.exponentials for t in e.late]
        extremum = () if self.located is None else (self.located[1],)
        return (*inside, *(t.expression for s in self.shifts for t in s.late), *extremum)

    def frame(self, late: frozenset[str]) -> tuple[str, ...]:
        """Return the late tensors that the lift reads."""
        return late_tensors(self.late_expressions(), late)

    def powers(self) -> tuple[Power, ...]:
        """Return the whole lift as a product of powers, exponentials first."""
        inside = [
            Power(Apply(e.operator, (write_terms((*e.early, *e.late)),))) for e in self.exponentials
        ]
        shifted = [Power(write_terms((*s.early, *s.late)), s.power) for s in self.shifts]
        return join_powers(tuple(inside), tuple(shifted), self.early)


def lower(one: Accumulator) -> Iterator[tuple[tuple[int, ...], Accumulator | None]]:
    """Yield the siblings with lower powers of the shifts, by those powers; None where one is 0.

    The first power of a centred shift sums to 0, so it needs no accumulator.
    """
    for powers in product(*(range(s.power + 1) for s in one.shifts)):
        pairs = list(zip(one.shifts, powers, strict=True))
        if any(s.centred and k == 1 for s, k in pairs):
            yield powers, None
            continue
        kept = tuple(replace(s, power=k) for s, k in pairs if k)
        yield powers, replace(one, shifts=kept)


def transport(
    one: Accumulator, name: Callable[[Accumulator], Access], frame: tuple[str, ...]
) -> Expression:
    """Return the accumulator after its frame moved, over the values before.

    ``name`` gives the reading of an accumulator; ``frame`` the tensors of the frame.
    """
    if one.located is not None:
        extremum = one.located[1]
        stands = Apply("==", (extremum, replace(extremum, tensor=extremum.tensor + NEXT)))
        return Apply("where", (stands, name(one), Constant(REDUCERS[one.reducer].identity)))
    ratio: list[Power] = []
    for e in one.exponentials:
        moved = write_terms(difference(e.late, frame))
        if e.late:
            ratio.append(Power(Apply(e.operator, (moved,))))
    if not one.shifts:
        return write_powers((Power(name(one)), *ratio))
    terms: list[Expression] = []
    whole = tuple(s.power for s in one.shifts)
    for powers, sibling in sorted(lower(one), key=lambda x: x[0], reverse=True):
        if sibling is None:
            continue
        weight = 1
        factors: list[Power] = []
        for s, k, n in zip(one.shifts, powers, whole, strict=True):
            weight *= comb(n, k)
            if n > k:
                factors.append(Power(write_terms(difference(s.late, frame)), n - k))
        terms.append(write_powers((*factors, Power(name(sibling))), weight))
    total = terms[0]
    for term in terms[1:]:
        total = Apply("+", (total, term))
    return write_powers((*ratio, Power(total)))


def difference(late: tuple[Scaled, ...], frame: tuple[str, ...]) -> tuple[Scaled, ...]:
    """Return what late terms are after the frame moved, less what they were."""

    def rule(x: Expression) -> Expression | None:
        if isinstance(x, Access) and x.tensor in frame:
            return replace(x, tensor=x.tensor + NEXT)
        return None

    after = tuple(Scaled(t.coefficient, rewrite(t.expression, rule)) for t in late)
    before = tuple(Scaled(-t.coefficient, t.expression) for t in late)
    return tuple(t for pair in zip(before, after, strict=True) for t in pair)


def lift(one: Accumulator, named: tuple[tuple[Access, Accumulator], ...]) -> Expression:
    """Return the contribution of one point; factors that have a tensor of their own are read.

    ``named`` are tensors that hold a product of some factors, the longest first.
    """
    early = {(canonical(p.base), p.power > 0): p for p in one.early}
    exponentials = list(one.exponentials)
    shifts = list(one.shifts)
    found: list[Power] = []
    for access, held in named:
        if not held.exponentials and not held.shifts:
            continue
        inside = {_key(e) for e in exponentials} >= {_key(e) for e in held.exponentials}
        shifted = {_shift_key(s): s.power for s in shifts}
        inside &= all(shifted.get(_shift_key(s), 0) >= s.power for s in held.shifts)
        for p in held.early:
            old = early.get((canonical(p.base), p.power > 0))
            inside &= old is not None and abs(old.power) >= abs(p.power)
        if not inside:
            continue
        exponentials = [
            e for e in exponentials if _key(e) not in {_key(x) for x in held.exponentials}
        ]
        taken = {_shift_key(s): s.power for s in held.shifts}
        shifts = [
            replace(s, power=s.power - taken.get(_shift_key(s), 0))
            for s in shifts
            if s.power > taken.get(_shift_key(s), 0)
        ]
        for p in held.early:
            key = (canonical(p.base), p.power > 0)
            early[key] = Power(p.base, early[key].power - p.power)
        found.append(Power(access))
    rest = replace(
        one,
        early=tuple(p for p in early.values() if p.power),
        shifts=tuple(shifts),
        exponentials=tuple(exponentials),
    )
    powers = (*found, *rest.powers())
    value = write_powers(powers) if powers else ONE
    if one.located is None:
        return value
    identity = Constant(REDUCERS[one.reducer].identity)
    return Apply("where", (Apply("==", one.located), value, identity))


def _key(e: Exponential) -> object:
    return e.operator, terms_key(e.early), terms_key(e.late)


def _shift_key(s: Shift) -> object:
    return terms_key(s.early), terms_key(s.late)
