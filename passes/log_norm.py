"""Log norm: a quotient of an exponential and its sum is the exponential of a difference."""

from __future__ import annotations

from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Expression,
    Reduce,
    free_ranks,
)
from .align import conjunction, fresh
from .facts import plain_writers, pointwise
from .product import Factor, Term, factors, terms, write_sum


def log_norm(cascade: Cascade, *, beyond: bool = False) -> Cascade:
    """Divide exponentials by their sum inside the exponent.

    ::

        G[p]    = max[m](S[p, m])
        N[p, m] = exp(S[p, m] - G[p])
        D[p]    = sum[m](N[p, m])
        A[p, m] = N[p, m] / D[p]
        O[p, f] = sum[m](A[p, m] * V[m, f])
        -->
        G[p]     = max[m](S[p, m])
        N[p, m]  = exp(S[p, m] - G[p])
        D[p]     = sum[m](N[p, m])
        A_log[p] = G[p] + log(D[p])
        A[p, m]  = exp(S[p, m] - A_log[p])
        O[p, f]  = sum[m](A[p, m] * V[m, f])

    One number for each row then says all that must be known of it to compute A from S again. Where
    the cascade computes that number anyway, it is read.

    With ``beyond``, quotients alone are rewritten that are only summed over rows, as the columns
    of ``C[m] = sum[p](A[p, m])``: another walk makes them, when the rows' sums are known.

    Requires: a flat cascade. Keeps: every output's value up to rounding; where points exist. The
    sum takes in every point of the numerator, with other exponentials at most, so it is above 0
    wherever a quotient exists.
    """
    if cascade.iterative_ranks:
        return cascade
    writers = plain_writers(cascade)
    taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    einsums: list[Einsum] = []
    moved: set[str] = set()
    changed = False
    for einsum in cascade.einsums:
        found = _rewritten(einsum, cascade, writers)
        if found is None or beyond and not _beyond(einsum, set(found[2].ranks), cascade):
            einsums.append(einsum)
            continue
        rest, norm, at, inner = found
        place = cascade.einsums.index(einsum)
        made = [e for e in cascade.einsums[:place] if e.body == norm and e.output == at(e.name)]
        made += [e for e in einsums if e.body == norm and e.output == at(e.name)]
        later = [e for e in cascade.einsums[place:] if e.body == norm and e.output == at(e.name)]
        if not made:
            name = later[0].name if later else fresh(f"{einsum.name}_log", taken)
            moved.add(name)
            made = [Einsum(at(name), norm)]
            einsums.append(made[0])
        changed = True
        body = Apply("exp", (Apply("-", (rest, made[0].output)),))
        filters = [x for x in (einsum.filter, inner) if x is not None]
        einsums.append(replace(einsum, body=body, filter=conjunction(filters)))
    if not changed:
        return cascade
    kept: list[Einsum] = []
    for e in einsums:
        again = e.name in moved and any(x.name == e.name for x in kept)
        if not again:  # what was moved up is not written once more below
            kept.append(e)
    return replace(cascade, einsums=tuple(kept))


class _At:
    """The reading of a tensor of any name at given coordinates."""

    def __init__(self, coordinates: tuple[Expression, ...]) -> None:
        self.coordinates = coordinates

    def __call__(self, name: str) -> Access:
        return Access(name, self.coordinates)

    @property
    def ranks(self) -> tuple[str, ...]:
        """The ranks of the coordinates."""
        return tuple(r for c in self.coordinates for r in free_ranks(c))


def _beyond(einsum: Einsum, rows: set[str], cascade: Cascade) -> bool:
    """Whether all that is made of a tensor reduces over one of the rows' ranks."""
    readers = [e for e in cascade.einsums if einsum.name in e.reads]
    if einsum.name in cascade.outputs or not readers:
        return False
    return all(
        bool(rows - set(e.ranks))
        if isinstance(e.body, Reduce)
        else pointwise(e.body) and _beyond(e, rows, cascade)
        for e in readers
    )


def _rewritten(
    einsum: Einsum, cascade: Cascade, writers: dict[str, Einsum]
) -> tuple[Expression, Expression, _At, Expression | None] | None:
    """Return the exponent without its frame, the log norm, where that is written, and a filter."""
    negative, parts = factors(einsum.body)
    match parts:
        case (Factor(Access() as above, divides=False), Factor(Access() as below, divides=True)):
            pass
        case _:
            return None
    if negative or not {above.tensor, below.tensor} <= set(writers):
        return None
    numerator, divisor = writers[above.tensor], writers[below.tensor]
    if above != numerator.output or below != divisor.output or divisor.filter is not None:
        return None
    if not _sums(divisor, numerator, writers) or not isinstance(numerator.body, Apply):
        return None
    match numerator.body:
        case Apply("exp", (exponent,)):
            pass
        case _:
            return None
    rows = set(divisor.ranks)
    shared = [t for t in terms(exponent) if set(free_ranks(t.expression)) <= rows]
    own = [t for t in terms(exponent) if t not in shared]
    frame = [Term(t.expression, not t.negative) for t in shared]
    norm = write_sum((*frame, Term(Apply("log", (below,)))))
    at = _At(divisor.output.coordinates)
    return (write_sum(tuple(own)), norm, at, numerator.filter) if own else None


def _sums(divisor: Einsum, numerator: Einsum, writers: dict[str, Einsum]) -> bool:
    """Whether a tensor is a sum that takes in every point of the numerator, and nothing below 0."""
    if not set(divisor.ranks) < set(numerator.ranks):
        return False
    seen = False
    for term in terms(divisor.body):
        x = term.expression
        if isinstance(x, Access) and x.tensor in writers and x == writers[x.tensor].output:
            x = writers[x.tensor].body if writers[x.tensor].filter is None else x
        match x:
            case Reduce(reducer="sum", ranks=ranks, body=Access() as inner, filter=None):
                whole = set(ranks) == set(numerator.ranks) - set(divisor.ranks)
                seen |= whole and inner == numerator.output
                if not _is_exponential(inner, writers):
                    return False
            case Reduce(reducer="sum", body=inner_body) if _is_exponential(inner_body, writers):
                same = inner_body == numerator.body and numerator.filter is None
                whole = set(x.ranks) == set(numerator.ranks) - set(divisor.ranks)
                seen |= same and whole and x.filter is None
            case _ if _is_exponential(x, writers):
                continue
            case _:
                return False
        if term.negative:
            return False
    return seen


def _is_exponential(x: Expression, writers: dict[str, Einsum]) -> bool:
    match x:
        case Apply("exp" | "exp2", _):
            return True
        case Access(tensor=tensor) if tensor in writers and pointwise(writers[tensor].body):
            return _is_exponential(writers[tensor].body, writers)
        case _:
            return False


def quotients(cascade: Cascade) -> dict[tuple[str, str], Access]:
    """Return, by numerator and divisor, the quotients that ``log_norm`` would rewrite."""
    writers = plain_writers(cascade)
    found: dict[tuple[str, str], Access] = {}
    for einsum in cascade.einsums:
        if _rewritten(einsum, cascade, writers) is not None:
            above, below = (p.expression for p in factors(einsum.body)[1])
            assert isinstance(above, Access) and isinstance(below, Access)
            found.setdefault((above.tensor, below.tensor), einsum.output)
    return found
