"""Cancel norms: a divisor that a later quotient takes out again is not summed."""

from __future__ import annotations

from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import Access, Apply, Expression, Reduce, accesses
from .defer import Known, facts_of, without_unread
from .facts import NO_SCALARS, pointwise
from .product import Factor, Term, factors, terms, write_product, write_sum
from .reframe import Reframing


def cancel_norms(cascade: Cascade) -> Cascade:
    """Leave out a row's divisor where the row is divided by a sum of its own once more.

    ::

        N[p, m] = exp(S[p, m])
        D[p]    = sum[m](N[p, m])
        A[p, m] = N[p, m] / D[p]
        X[p, m] = A[p, m] * g[m]
        Z[p]    = sum[m](X[p, m])
        O[p, f] = sum[m](X[p, m] / Z[p] * V[m, f])
        -->
        N[p, m] = exp(S[p, m])
        A[p, m] = N[p, m]
        X[p, m] = A[p, m] * g[m]
        Z[p]    = sum[m](X[p, m])
        O[p, f] = sum[m](X[p, m] / Z[p] * V[m, f])

    What is scaled and normalised again is then one state of one walk: a maximum, the sum Z and the
    sum of products. The scale stays a factor of the exponential, and does not become a term
    ``log(g)`` of the exponent: either is one operation a point, but a term would need a logarithm
    and join the maximum, which then could not give up its own scale (``defer``); and a factor may
    be 0 or negative. It lifts nothing that the exponential has already lost: what lies below the
    maximum by more than the range of the numbers is 0, before as after.

    That nothing changes is proved by degrees (``reframe``). With c for D where D is above 0, and 1
    where it is 0, what was divided becomes c times that; every tensor made of it must be c to a
    power times what it was, and the results must have the power 0. Where D is 0, so is all that it
    sums, for that is not negative: the row that was divided is 0 before and after, and an empty one
    is empty. So D must be a sum over every point, without a filter, and all that it divides must be
    a multiple of what it sums.

    Requires: a flat cascade, its exponentials with their frames (``stabilise``). Keeps: every
    output's value up to rounding, for finite inputs; where points exist. A divisor that anything
    else reads stays, as it is summed anyway; so do those of powers other than 1 and -1, which could
    leave the range of the numbers. Tensors that decide a filter or a choice stay as they are.
    Source: a state scaled by its frame, theory 3.2.
    """
    if cascade.iterative_ranks:
        return cascade
    while True:
        after = _once(cascade)
        if after is cascade:
            return cascade
        cascade = after


def _once(cascade: Cascade) -> Cascade:
    known = facts_of(cascade, NO_SCALARS)
    for divisor in cascade.einsums:
        if divisor.name in known.writers and divisor.name not in cascade.outputs:
            found = _without(divisor, cascade, known)
            if found is not None:
                return found
    return cascade


def _without(divisor: Einsum, cascade: Cascade, known: Known) -> Cascade | None:
    """Return the cascade without one divisor; None where that is not proved to be the same."""
    match divisor:
        case Einsum(body=Reduce(reducer="sum", body=summed, filter=None), filter=None):
            pass
        case _:
            return None
    if not _never_negative(summed, known) or not _bounded(summed, known):
        return None
    divided: dict[str, Einsum] = {}
    for reader in cascade.einsums:
        if divisor.name in reader.reads:
            whole = _undivided(reader, divisor, summed, known)
            if whole is None:
                return None
            divided[reader.name] = whole
    if not divided or not _cancels(divisor, divided, cascade, known):
        return None
    einsums = tuple(divided.get(e.name, e) for e in cascade.einsums)
    return without_unread(cascade, replace(cascade, einsums=einsums))


def _undivided(reader: Einsum, divisor: Einsum, summed: Expression, known: Known) -> Einsum | None:
    """Return a reader of the divisor that no longer divides; None where it does anything else."""
    if reader.name not in known.writers or reader.name in known.exact:
        return None
    if reader.filter is not None and divisor.name in {a.tensor for a in accesses(reader.filter)}:
        return None
    negative, parts = factors(reader.body)
    rest = tuple(p for p in parts if p != Factor(divisor.output, divides=True))
    product = write_product(rest, negative=negative)
    if len(rest) + 1 != len(parts) or not pointwise(reader.body):
        return None
    if divisor.name in {a.tensor for a in accesses(product)}:
        return None
    return replace(reader, body=product) if _vanishes(product, summed, known) else None


def _cancels(divisor: Einsum, divided: dict[str, Einsum], cascade: Cascade, known: Known) -> bool:
    """Whether no result changes when what is divided is multiplied by a number for each row."""
    if divided.keys() & {*cascade.outputs}:
        return False
    grades: dict[str, tuple[float, float]] = {t: (1, 0) for t in divided}
    pass_ = Reframing(divisor.output, "exp", frozenset(), known.writers, grades)
    for einsum in cascade.einsums:
        reads_any = pass_.grades.keys() & {*einsum.reads}
        if einsum.name in divided:
            if reads_any:
                return False
            continue
        # an einsum that comes back as it is puts nothing back
        if reads_any and (einsum.name not in known.writers or pass_.einsum(einsum) != einsum):
            return False
    plain = all(abs(degree) <= 1 and not shift for degree, shift in pass_.grades.values())
    settled = not pass_.grades.keys() & {*cascade.outputs}
    return plain and settled and pass_.cancelled and not (pass_.failed or pass_.moved)


def _vanishes(x: Expression, summed: Expression, known: Known) -> bool:
    """Whether an expression is 0 wherever all that is summed is 0: a multiple of it."""
    if x == summed:
        return True
    match x:
        case Apply("neg", (inner,)):
            return _vanishes(inner, summed, known)
        case Apply("*", (a, b)):
            return any(_vanishes(y, summed, known) and known.finite(z) for y, z in ((a, b), (b, a)))
        case Apply("/", (a, b)):
            return _vanishes(a, summed, known) and known.finite(b)
        case _:
            return False


def _never_negative(x: Expression, known: Known) -> bool:
    """Whether no value is below 0."""
    match x:
        case Access(tensor=tensor) if tensor in known.writers:
            body = known.writers[tensor].body
            return pointwise(body) and _never_negative(body, known)
        case Apply("exp" | "exp2" | "sigmoid" | "relu" | "abs" | "sqrt", _):
            return True
        case Apply("*" | "/" | "+", (a, b)):
            return _never_negative(a, known) and _never_negative(b, known)
        case Apply("where", (_, a, b)):
            return _never_negative(a, known) and _never_negative(b, known)
        case _:
            return known.above(x)


def _bounded(x: Expression, known: Known, where: Expression | None = None) -> bool:
    """Whether every value is finite: by itself, or as an exponential below its own maximum.

    ``where`` is what holds at the points.
    """
    if known.finite(x):
        return True
    match x:
        case Access(tensor=tensor) if tensor in known.writers:
            writer = known.writers[tensor]
            return x == writer.output and _bounded(writer.body, known, writer.filter)
        case Apply("exp" | "exp2", (exponent,)):
            parts = terms(exponent)
            return any(
                t.negative and _is_maximum(t.expression, write_sum(_but(parts, t)), known, where)
                for t in parts
            )
        case _:
            return False


def _but(parts: tuple[Term, ...], one: Term) -> tuple[Term, ...]:
    return tuple(t for t in parts if t is not one)


def _is_maximum(x: Expression, of: Expression, known: Known, where: Expression | None) -> bool:
    """Whether x is at least ``of`` at the points ``where`` that exists, both finite there."""
    if not known.finite(of):
        return False
    match x:
        case Access(tensor=tensor) if tensor in known.writers:
            writer = known.writers[tensor]
            return x == writer.output and _is_maximum(writer.body, of, known, where)
        case Reduce(reducer="max", body=body, filter=filter):
            return body == of and filter in (None, where)
        case Apply("max", operands):
            # the others are finite or a maximum over nothing, which the first then exceeds
            others = all(known.finite(y) or _largest(y, known) for y in operands)
            return others and any(_is_maximum(y, of, known, where) for y in operands)
        case _:
            return False


def _largest(x: Expression, known: Known) -> bool:
    """Whether x is a maximum of finite values, -inf over nothing."""
    match x:
        case Access(tensor=tensor) if tensor in known.writers:
            return _largest(known.writers[tensor].body, known)
        case Reduce(reducer="max", body=body):
            return known.finite(body)
        case Apply("max", operands):
            return all(known.finite(y) or _largest(y, known) for y in operands)
        case _:
            return False
