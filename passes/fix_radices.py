"""Fix radices: the page size of a paged tensor becomes a number of the kernel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    accesses,
    rewrite,
    walk,
)


def fix_radices(cascade: Cascade, *, parameters: Mapping[str, Scalar]) -> Cascade:
    """Write the parameters that cut a rank in two coordinates of an access as their values.

    ::

        S[m] = K[page[m // B], m % B] * (m // B)
        -->
        S[m] = K[page[m // 16], m % 16] * (m // 16)

    for B = 16. A tile of m that divides 16 then lies in one page, which code generation can see.

    Requires: ``parameters`` are the values of the call. Keeps: every output's value.
    """
    known = dict(cascade.parameters) | dict(parameters)
    values = {
        n: Constant(v)
        for n in radices(cascade)
        if isinstance(v := known.get(n), int) and not isinstance(v, bool) and v > 0
    }
    if not values:
        return cascade

    def fixed(x: Expression) -> Expression | None:
        return values.get(x.name) if isinstance(x, Parameter) else None

    def written(e: Einsum) -> Einsum:
        filter = None if e.filter is None else rewrite(e.filter, fixed)
        return replace(e, body=rewrite(e.body, fixed), filter=filter)

    return replace(cascade, einsums=tuple(written(e) for e in cascade.einsums))


def radices(cascade: Cascade) -> tuple[str, ...]:
    """Return the parameters B that occur as ``m // B`` and as ``m % B`` in one access."""
    found: dict[str, None] = {}
    for einsum in cascade.einsums:
        for access in accesses(einsum.body):
            halves = {"//": set(divisions(access, "//")), "%": set(divisions(access, "%"))}
            found |= dict.fromkeys(name for _, name in sorted(halves["//"] & halves["%"]))
    return tuple(found)


def divisions(access: Access, operator: str) -> Iterator[tuple[str, str]]:
    """Yield rank and parameter of each division of a rank by a parameter in an access."""
    for x in walk(access):
        match x:
            case Apply(op, (RankVariable(rank=rank), Parameter(name=name))) if op == operator:
                yield rank, name
            case _:
                continue
