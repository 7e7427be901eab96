"""Name results: a function whose derivative is read off its result gets an einsum of its own."""

from __future__ import annotations

from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    accesses,
    free_ranks,
    rewrite,
)
from .align import fresh
from .derivative import BY_RESULT


def name_results(cascade: Cascade) -> Cascade:
    """Give exponentials, roots and the like inside an expression a name.

    ::

        S[p, m] = 50.0 * tanh(X[p, m] / 50.0)
        D[p]    = sum[m](exp(S[p, m] - 1))
        -->
        S_tanh[p, m] = tanh(X[p, m] / 50.0)
        S[p, m]      = 50.0 * S_tanh[p, m]
        D_exp[p, m]  = exp(S[p, m] - 1)
        D[p]         = sum[m](D_exp[p, m])

    The slope of tanh is 1 - tanh ** 2, so the name is read twice instead of computing it again.

    Requires: a flat cascade. Keeps: every output's value; where points exist. Iterative tensors
    stay as they are.
    """
    if cascade.iterative_ranks:
        return cascade
    taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        body = einsum.body
        if isinstance(body, Populate | Concatenate):
            einsums.append(einsum)
            continue
        named: dict[str, Access] = {}

        def rule(
            x: Expression, einsum: Einsum = einsum, named: dict[str, Access] = named
        ) -> Expression | None:
            if not isinstance(x, Apply) or x.operator not in BY_RESULT or not accesses(x):
                return None
            key = repr(x)
            if key not in named:
                name = fresh(f"{einsum.name}_{x.operator}", taken)
                named[key] = Access(name, tuple(RankVariable(r) for r in free_ranks(x)))
                einsums.append(Einsum(named[key], x, None, einsum.at))
            return named[key]

        if isinstance(body, Reduce):
            new: Expression = replace(body, body=rewrite(body.body, rule))
        elif isinstance(body, Apply) and body.operator in BY_RESULT:
            new = replace(body, operands=tuple(rewrite(x, rule) for x in body.operands))
        else:
            new = rewrite(body, rule)
        einsums.append(replace(einsum, body=new) if named else einsum)
    if len(einsums) == len(cascade.einsums):
        return cascade
    return replace(cascade, einsums=tuple(einsums))
