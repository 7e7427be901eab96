"""Locate: where an extremum stands, by an accumulator beside it (theory 3.3, F6 with k = 1).

::

    J[p] = argmax[m](X[p, m])
    -->
    J_max[p] = max[m](X[p, m])
    J_at[p]  = min[m](where(X[p, m] == J_max[p], m, inf))   where(J_max == J_max_next, J_at, inf)
    J[p]     = where(J_at[p] == inf, -1, J_at[p])

A condition ``X[p, m] == G[p]`` on the points of any other reduction is the same state.

The pair is one state: a coordinate counts as long as the extremum that it was found at stands. Of
equal values the lowest coordinate is kept, in whatever order tiles or shares come, for minima
commute. Coordinates are whole numbers of a float32, exact up to 2 ** 24.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..ir.expression import Access, Apply, Expression
from .closure import Accumulator
from .facts import is_positive
from .separate import Parts, Roles, Stuck, separate, sum_parts
from .stream_terms import Power, canonical, flatten_product, write_powers, write_terms


def located(body: Expression, tell: Roles) -> Expression | None:
    """Return what has its extremum where a body has it, free of results that come late.

    ::

        exp(S[p, m] - G[p]) / D[p]  -->  S[p, m]

    What does not vary along the rank is added or is a positive factor, and an exponential keeps the
    order of what stands in it. None where the order depends on late results.
    """
    if not tell.reads_late(body):
        return body
    parts = sum_parts(body, tell)
    if isinstance(parts, Parts):
        return write_terms(parts.early) if parts.early else None
    found = separate(body, tell)
    if isinstance(found, Stuck) or len(found) != 1:
        return None
    one = found[0]
    if one.shifts or one.coefficient <= 0:
        return None
    if not all(is_positive(p.base, tell.positive) for p in one.late):
        return None
    if not one.exponentials:
        return write_powers(one.early) if one.early else None
    moving = any(tell.streams(p.base) for p in one.early)
    if moving or len(one.exponentials) > 1 or not one.exponentials[0].early:
        return None
    if not all(is_positive(p.base, tell.positive) for p in one.early):
        return None
    early = one.exponentials[0].early
    if len(early) == 1 and early[0].coefficient > 0:
        return early[0].expression
    return write_terms(early)


def standing(
    test: Expression,
    extrema: Mapping[str, Accumulator],
    resolve: Callable[[Expression], Expression],
) -> tuple[Expression, Access] | None:
    """Return value and extremum of a condition that a point stands at an extremum of its own kind.

    ``S[p, m] == G[p]`` is one where ``G[p] = max[m](S[p, m])``, and so is what has the same
    positive factor on both sides. ``resolve`` says what late results are made of.
    """
    match test:
        case Apply("==", (a, b)):
            for here, there in ((a, b), (b, a)):
                number, powers = flatten_product(resolve(there))
                factor, value = flatten_product(here)
                match powers:
                    case (Power(base=Access() as extremum, power=1),) if number == factor > 0:
                        one = extrema.get(extremum.tensor)
                    case _:
                        continue
                if one is None or one.exponentials or one.shifts or not value or not one.powers():
                    continue
                if canonical(write_powers(one.powers())) == canonical(write_powers(value)):
                    return write_powers(value), extremum
    return None
