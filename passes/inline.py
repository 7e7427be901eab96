"""Inline: a pointwise tensor that one reader reads, point for point, is written out there."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Concatenate,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    accesses,
    free_ranks,
    rewrite,
)


def inline(cascade: Cascade) -> Cascade:
    """Write out pointwise tensors that are read once, by an einsum over the same ranks.

    ::

        X[p, m] = sum[e](Q[p, e] * K[m, e])
        Y[p, m] = X[p, m] / 8
        S[p, m] = tanh(Y[p, m] / 50) * 50
        return S
        -->
        X[p, m] = sum[e](Q[p, e] * K[m, e])
        S[p, m] = tanh(X[p, m] / 8 / 50) * 50
        return S

    Constants that stood apart can then be folded into one. A reader over more ranks is left alone,
    for it would compute the same value again and again.

    Requires: a flat cascade. Keeps: every output's value. An einsum with a filter of its own stays,
    because the filter is part of what its reader sees.
    """
    while True:
        reads = Counter(
            access.tensor
            for einsum in cascade.einsums
            for x in (einsum.body, *(() if einsum.filter is None else (einsum.filter,)))
            for access in accesses(x)
        )
        found = next(
            (
                (source, reader)
                for reader in cascade.einsums
                for source in cascade.einsums
                if reads[source.name] == 1 and fits(cascade, source, reader)
            ),
            None,
        )
        if found is None:
            return cascade
        source, reader = found
        whole = source.output.coordinates

        def rule(x: Expression, source: Einsum = source) -> Expression | None:
            same = isinstance(x, Access) and x.tensor == source.name
            return source.body if same else None

        written = replace(reader, body=rewrite(reader.body, rule))
        assert all(isinstance(c, RankVariable) for c in whole)
        kept = [written if e is reader else e for e in cascade.einsums if e is not source]
        cascade = replace(cascade, einsums=tuple(kept))


def fits(cascade: Cascade, source: Einsum, reader: Einsum) -> bool:
    """Whether ``source`` may be written out in ``reader``."""
    if source is reader or source.name in cascade.outputs or source.filter is not None:
        return False
    if isinstance(source.body, Reduce | Populate | Concatenate):
        return False
    if isinstance(reader.body, Populate | Concatenate):
        return False
    if sum(e.name in (source.name, reader.name) for e in cascade.einsums) != 2:
        return False
    body = reader.body.body if isinstance(reader.body, Reduce) else reader.body
    read = [x for x in accesses(body) if x.tensor == source.name]
    return (
        len(read) == 1
        and read[0].coordinates == source.output.coordinates
        and all(isinstance(c, RankVariable) for c in source.output.coordinates)
        and set(free_ranks(body)) == set(source.ranks)
    )
