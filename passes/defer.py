"""Defer: factors that do not vary over a reduced rank leave the reduction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.expression import Access, Constant, Expression, Reduce, Size, free_ranks, walk
from .align import conjunction, fresh
from .facts import (
    NO_SCALARS,
    exact_tensors,
    infinite_tensors,
    is_finite,
    is_positive,
    is_present,
    plain_writers,
    pointwise,
    positive_tensors,
    present_tensors,
)
from .product import Factor, Term, factors, terms, write_product, write_sum

ONE = Constant(1)
"""What a product of divisors alone begins with; it stays, or it would be written again."""


def defer(cascade: Cascade, *, parameters: Mapping[str, Scalar] = NO_SCALARS) -> Cascade:
    """Move invariant factors out of sums, positive ones and invariant terms out of extrema.

    ::

        N[p, m] = exp(S[p, m])
        D[p]    = sum[m](N[p, m])
        A[p, m] = N[p, m] / D[p]
        O[p, f] = sum[m](A[p, m] * V[m, f])
        -->
        N[p, m]     = exp(S[p, m])
        D[p]        = sum[m](N[p, m])
        O_sum[p, f] = sum[m](N[p, m] * V[m, f])
        O[p, f]     = O_sum[p, f] / D[p]

    and, the factor being positive, or a term::

        G[p] = max[m](X[p, m] * 0.5 + b[p])
        -->
        G_max[p] = max[m](X[p, m])
        G[p]     = G_max[p] * 0.5 + b[p]

    A sum looks through a pointwise tensor that it multiplies. Where something besides one tensor is
    left of it, that gets a name: ``A = f(x) / d`` becomes ``A_part = f(x)``, ``A = A_part / d``.

    Requires: a flat cascade. Keeps: every output's value up to rounding; where points exist. What
    moves exists everywhere and is finite for finite inputs, for a sum over nothing is 0 and
    0 * inf is not; a divisor moves always, as a quotient by 0 is 0 before and after.
    ``parameters`` tell the sign of a scale; one of unknown sign stays in an extremum. Tensors that
    decide a filter or a choice stay as they are.
    Source: division deferral, FuseMax (MICRO 2024), reassociation 1.
    """
    while True:
        after = _once(cascade, parameters)
        if after is cascade:
            return cascade
        cascade = after


def _once(cascade: Cascade, parameters: Mapping[str, Scalar]) -> Cascade:
    """Move what can be moved out of the first reduction that has something to move."""
    known = facts_of(cascade, parameters)
    for place, einsum in enumerate(cascade.einsums):
        if einsum.name not in known.writers or einsum.name in known.exact:
            continue
        if not isinstance(einsum.body, Reduce):
            continue
        match einsum.body.reducer:
            case "sum":
                found = _from_sum(einsum, einsum.body, known)
            case "max" | "min":
                found = _from_extremum(einsum, einsum.body, known)
            case _:
                continue
        if found is not None:
            return without_unread(cascade, _insert(cascade, place, found))
    return cascade


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a cascade while factors move."""

    writers: Mapping[str, Einsum]
    exact: frozenset[str]
    present: frozenset[str]
    infinite: frozenset[str]
    positive: frozenset[str]
    parameters: Mapping[str, Scalar]
    taken: frozenset[str]

    def everywhere(self, x: Expression) -> bool:
        """Whether every point of an expression exists."""
        return is_present(x, self.present, self.writers)

    def finite(self, x: Expression) -> bool:
        """Whether an expression is finite for finite inputs."""
        return is_finite(x, self.infinite, self.positive, self.parameters)

    def above(self, x: Expression) -> bool:
        """Whether an expression is positive and finite."""
        positive = is_positive(x, self.positive, self.infinite, self.parameters)
        return positive and self.finite(x)


def facts_of(cascade: Cascade, parameters: Mapping[str, Scalar]) -> Known:
    """Collect what is known of a cascade."""
    names = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    return Known(
        plain_writers(cascade),
        exact_tensors(cascade),
        present_tensors(cascade),
        infinite_tensors(cascade),
        positive_tensors(cascade),
        parameters,
        frozenset(names | {e.name for e in cascade.einsums}),
    )


@dataclass(frozen=True, slots=True)
class Change:
    """Einsums that take the place of one, and einsums that change elsewhere, by name."""

    instead: tuple[Einsum, ...]
    elsewhere: Mapping[str, tuple[Einsum, ...]]


def _from_sum(einsum: Einsum, body: Reduce, known: Known) -> Change | None:
    reduced = frozenset(body.ranks)
    negative, parts = factors(body.body)
    taken = set(known.taken)
    elsewhere: dict[str, tuple[Einsum, ...]] = {}
    conditions: list[Expression] = []
    seen: list[Factor] = []
    doors: dict[Expression, _Opened | None] = {}
    for factor in parts:
        # One tensor may be a factor twice; it is taken apart once.
        if factor.expression not in doors:
            doors[factor.expression] = _open(factor.expression, reduced, known, taken)
        opened = None if factor.divides else doors[factor.expression]
        if opened is None:
            seen.append(factor)
            continue
        negative ^= opened.negative
        seen += opened.parts
        conditions += opened.conditions
        elsewhere.update(opened.elsewhere)
    moving = [x for x in seen if _leaves(x, reduced, known)]
    staying = [x for x in seen if x not in moving]
    if not (moving or negative) or not any(_varies(x.expression, reduced) for x in staying):
        return None
    inside = replace(
        body,
        body=write_product(tuple(staying)),
        filter=conjunction([*([] if body.filter is None else [body.filter]), *conditions]),
    )
    name = fresh(f"{einsum.name}_sum", taken)
    split = _split(einsum, name, inside)
    if split is None:
        return None
    part, rest = split
    outside = write_product((Factor(part.output), *moving), negative=negative)
    return Change((part, replace(rest, body=outside)), elsewhere)


def _split(einsum: Einsum, name: str, inside: Reduce) -> tuple[Einsum, Einsum] | None:
    """Return the reduction under a new name, with the ranks that it varies in, and the rest.

    A filter goes with the reduction if it can; None where no rank would be left.
    """
    varying = set(free_ranks(inside))
    ranks = tuple(c for c in einsum.output.coordinates if free_ranks(c)[0] in varying)
    if not ranks and einsum.output.coordinates:
        return None
    early = einsum.filter is not None and set(free_ranks(einsum.filter)) <= varying
    output = replace(einsum.output, tensor=name, coordinates=ranks)
    part = replace(einsum, output=output, body=inside, filter=einsum.filter if early else None)
    return part, replace(einsum, filter=None if early else einsum.filter)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A pointwise tensor taken apart: its factors, the filter that it had, the einsums renamed."""

    negative: bool
    parts: tuple[Factor, ...]
    conditions: tuple[Expression, ...]
    elsewhere: Mapping[str, tuple[Einsum, ...]]


def _open(x: Expression, reduced: frozenset[str], known: Known, taken: set[str]) -> _Opened | None:
    """Look through a pointwise tensor that has a factor to move; None where there is nothing."""
    if not isinstance(x, Access) or x.tensor not in known.writers or x.tensor in known.exact:
        return None
    writer = known.writers[x.tensor]
    if x.coordinates != writer.output.coordinates or not pointwise(writer.body):
        return None
    negative, parts = factors(writer.body)
    moving = tuple(p for p in parts if _leaves(p, reduced, known))
    staying = tuple(p for p in parts if p not in moving)
    if not moving or not any(_varies(p.expression, reduced) for p in staying):
        return None
    match staying:
        case (Factor(Access() as inner, divides=False),):
            below = known.writers.get(inner.tensor)
            covered = below is not None and below.filter == writer.filter
            aligned = below is not None and inner.coordinates == below.output.coordinates
            free = writer.filter is None or (covered and aligned)
            conditions = () if free or writer.filter is None else (writer.filter,)
            return _Opened(negative, (*staying, *moving), conditions, {})
        case _:
            name = fresh(f"{writer.name}_part", taken)
            output = replace(writer.output, tensor=name)
            if not set(free_ranks(write_product(staying))) >= set(writer.ranks):
                return None
            inner_part = replace(writer, output=output, body=write_product(staying))
            product = write_product((Factor(output), *moving), negative=negative)
            whole = replace(writer, body=product, filter=None)
            return _Opened(
                negative, (Factor(output), *moving), (), {writer.name: (inner_part, whole)}
            )


def _varies(x: Expression, reduced: frozenset[str]) -> bool:
    return not reduced.isdisjoint(free_ranks(x))


def _leaves(part: Factor, reduced: frozenset[str], known: Known) -> bool:
    """Whether a factor may leave a sum over ``reduced``."""
    x = part.expression
    if x == ONE or _varies(x, reduced) or not known.everywhere(x):
        return False
    return part.divides or known.finite(x)


def _from_extremum(einsum: Einsum, body: Reduce, known: Known) -> Change | None:
    reduced = frozenset(body.ranks)
    parts = terms(body.body)
    moving = [x for x in parts if _shifts(x.expression, reduced, known)]
    staying = body.body if not moving else write_sum(tuple(x for x in parts if x not in moving))
    negative, among = factors(staying)
    scaling = [x for x in among if _scales(x.expression, reduced, known)]
    if not (moving or scaling) or not any(_varies(x.expression, reduced) for x in among):
        return None
    if scaling:
        staying = write_product(tuple(x for x in among if x not in scaling), negative=negative)
    name = fresh(f"{einsum.name}_{body.reducer}", set(known.taken))
    split = _split(einsum, name, replace(body, body=staying))
    if split is None:
        return None
    part, rest = split
    outside = write_product((Factor(part.output), *scaling))
    return Change((part, replace(rest, body=write_sum((Term(outside), *moving)))), {})


def _shifts(x: Expression, reduced: frozenset[str], known: Known) -> bool:
    """Whether a term may leave an extremum over ``reduced``."""
    return not _varies(x, reduced) and known.everywhere(x) and known.finite(x)


def _scales(x: Expression, reduced: frozenset[str], known: Known) -> bool:
    """Whether a factor may leave an extremum over ``reduced``.

    Over an empty rank the extremum is infinite, and its size, if it divided, would make it 0.
    """
    own = x == ONE or any(isinstance(y, Size) and y.rank in reduced for y in walk(x))
    return not own and not _varies(x, reduced) and known.everywhere(x) and known.above(x)


def _insert(cascade: Cascade, place: int, change: Change) -> Cascade:
    einsums: list[Einsum] = []
    for k, einsum in enumerate(cascade.einsums):
        if k == place:
            einsums += change.instead
        else:
            einsums += change.elsewhere.get(einsum.name, (einsum,))
    return replace(cascade, einsums=tuple(einsums))


def without_unread(before: Cascade, after: Cascade) -> Cascade:
    """Leave out the tensors that were read before and no longer are."""
    while True:
        were = {r for e in before.einsums for r in e.reads} | {
            e.name for e in after.einsums if e.name not in {x.name for x in before.einsums}
        }
        now = {r for e in after.einsums for r in e.reads} | {*after.outputs}
        kept = tuple(e for e in after.einsums if e.name in now or e.name not in were)
        if len(kept) == len(after.einsums):
            return after
        after = replace(after, einsums=kept)
