"""Inline scales: a tensor that only scales another one is written out where it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.expression import (
    Access,
    Apply,
    Expression,
    Reduce,
    accesses,
    children,
    rewrite,
    tensors,
)
from .align import conjunction
from .facts import (
    NO_SCALARS,
    exact_tensors,
    is_positive,
    is_scalar,
    plain_writers,
    pointwise,
)
from .product import factors


def inline_scales(cascade: Cascade, *, parameters: Mapping[str, Scalar] = NO_SCALARS) -> Cascade:
    """Write ``T * c`` for a tensor S that is just that, c a positive scalar.

    ::

        T[p, m] = sum[e](Q[p, e] * K[m, e])
        S[p, m: m <= p] = T[p, m] * 0.125
        G[p]    = max[m](S[p, m])
        N[p, m] = exp2(S[p, m] - G[p])
        return N
        -->
        T[p, m: m <= p] = sum[e](Q[p, e] * K[m, e])
        G[p]    = max[m](T[p, m] * 0.125)
        N[p, m] = exp2(T[p, m] * 0.125 - G[p])
        return N

    The maximum then gives the factor up (``defer``), and the exponent is one fused multiplication
    and addition. Only tensors go that are read as a term of a sum, next to another scalar, or whole
    by a reduction: there the multiplication costs nothing or leaves.

    Requires: a flat cascade. Keeps: every output's value; where points exist, for the filter of S
    goes to T, if nothing else reads T, or to each reader.
    """
    while True:
        after = _once(cascade, parameters)
        if after is cascade:
            return cascade
        cascade = after


def _once(cascade: Cascade, parameters: Mapping[str, Scalar]) -> Cascade:
    writers, exact = plain_writers(cascade), exact_tensors(cascade)
    for einsum in cascade.einsums:
        if einsum.name not in writers or einsum.name in exact or einsum.name in cascade.outputs:
            continue
        source = scaled(einsum, parameters)
        readers = [e for e in cascade.einsums if einsum.name in e.reads]
        if source is None or not readers:
            continue
        if all(_welcome(e, einsum, writers) for e in readers):
            below = writers.get(source.tensor)
            if einsum.filter is None:
                return _replaced(cascade, einsum, None, None)
            if below is not None and source.coordinates == below.output.coordinates:
                if below.filter == einsum.filter:
                    return _replaced(cascade, einsum, None, None)
                if _alone(below, einsum, cascade):
                    return _replaced(cascade, einsum, below, None)
            return _replaced(cascade, einsum, None, einsum.filter)
    return cascade


def _alone(below: Einsum, einsum: Einsum, cascade: Cascade) -> bool:
    """Whether nothing else reads ``below`` and it can carry the filter of ``einsum``."""
    others = [e for e in cascade.einsums if below.name in e.reads and e is not einsum]
    if others or below.name in cascade.outputs or einsum.filter is None:
        return False
    return set(tensors(einsum.filter)) <= set(cascade.inputs)


def scaled(einsum: Einsum, parameters: Mapping[str, Scalar]) -> Access | None:
    """Return the tensor that an einsum multiplies by a positive scalar, if it does just that."""
    negative, parts = factors(einsum.body)
    varying = [x for x in parts if not is_scalar(x.expression)]
    if negative or len(varying) != 1 or len(parts) == 1 or varying[0].divides:
        return None
    source = varying[0].expression
    signs = all(is_positive(x.expression, parameters=parameters) for x in parts if x not in varying)
    return source if signs and isinstance(source, Access) else None


def _welcome(reader: Einsum, einsum: Einsum, writers: Mapping[str, Einsum]) -> bool:
    """Whether each reading is one in which the multiplication costs nothing."""
    if (
        reader.name not in writers
        or reader.filter is not None
        and any(a.tensor == einsum.name for a in accesses(reader.filter))
    ):
        return False
    body = reader.body
    inside = body.body if isinstance(body, Reduce) else body
    if isinstance(body, Reduce) and (
        body.reducer not in ("max", "min", "sum")
        or (body.filter is not None and any(a.tensor == einsum.name for a in accesses(body.filter)))
    ):
        return False
    if not pointwise(inside):
        return False
    reading = [a for a in accesses(inside) if a.tensor == einsum.name]
    if any(a.coordinates != einsum.output.coordinates for a in reading):
        return False
    summed = body.ranks if isinstance(body, Reduce) else ()
    if set(einsum.ranks) != {*reader.ranks, *summed}:
        # The reader iterates more points: the product is made less often where it stands, unless
        # it leaves a sum as a whole.
        found = [x.expression for x in factors(inside)[1] if not x.divides]
        whole = [x for x in found if isinstance(x, Access) and x.tensor == einsum.name]
        if not (isinstance(body, Reduce) and body.reducer == "sum" and len(whole) == 1):
            return False
        return all(a in whole for a in reading)
    free = [a for a in _free(inside, whole=isinstance(body, Reduce)) if a.tensor == einsum.name]
    return len(reading) == len(free)


def _free(x: Expression, *, whole: bool) -> Iterator[Access]:
    """Yield the accesses at which a multiplication by a scalar costs nothing, or leaves."""
    match x:
        case Access():
            if whole:
                yield x
        case Apply("+" | "-", operands):
            for y in operands:
                yield from _free(y, whole=True)
        case Apply("neg", (y,)):
            yield from _free(y, whole=whole)
        case Apply("*" | "/", (y, z)):
            yield from _free(y, whole=whole or is_scalar(z))
            if x.operator == "*":
                yield from _free(z, whole=whole or is_scalar(y))
            else:
                yield from _free(z, whole=False)
        case Apply("where" | "default", _):
            # The points of what is read here do not decide which points exist.
            return
        case _:
            for y in children(x):
                yield from _free(y, whole=False)


def _replaced(
    cascade: Cascade, gone: Einsum, below: Einsum | None, filter: Expression | None
) -> Cascade:
    """Write ``gone`` out in its readers; its filter goes to ``below`` or to them."""

    def rule(x: Expression) -> Expression | None:
        return gone.body if isinstance(x, Access) and x.tensor == gone.name else None

    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        if einsum is gone:
            continue
        if einsum is below:
            einsum = replace(einsum, filter=joined(einsum.filter, gone.filter))
        body = rewrite(einsum.body, rule)
        if body is not einsum.body:
            if filter is None:
                einsum = replace(einsum, body=body)
            elif isinstance(body, Reduce):
                einsum = replace(einsum, body=replace(body, filter=joined(body.filter, filter)))
            else:
                einsum = replace(einsum, body=body, filter=joined(einsum.filter, filter))
        einsums.append(einsum)
    return replace(cascade, einsums=tuple(einsums))


def joined(one: Expression | None, two: Expression | None) -> Expression | None:
    """Return the filter under which both hold."""
    return conjunction([x for x in (one, two) if x is not None])
