"""Share: what is computed twice under two names is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Concatenate,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    rewrite,
)
from .facts import homed, plain_writers, unsized


def share(cascade: Cascade) -> Cascade:
    """Let einsums that compute the same be one.

    ::

        S[p, m] = sum[e](Q[p, e] * K[m, e])
        T[n, q] = sum[d](Q[q, d] * K[n, d])
        O[p]    = sum[m](S[p, m] * exp(T[m, p]))
        -->
        S[p, m] = sum[e](Q[p, e] * K[m, e])
        O[p]    = sum[m](S[p, m] * exp(S[p, m]))

    Ranks may have other names as long as an input gives both names the same size; where the input
    is then read by one name alone, the other goes. Of two outputs both stay.

    Requires: a flat cascade. Keeps: every value, to the last bit; where points exist. Iterative and
    list-valued tensors stay as they are.
    """
    while True:
        after = _once(cascade)
        if after is cascade:
            return cascade
        cascade = after


def _once(cascade: Cascade) -> Cascade:
    shareable = plain_writers(cascade)
    first: dict[str, tuple[str, tuple[str, ...]]] = {}
    partners: dict[str, str] = {}
    moved: dict[str, tuple[str, tuple[int, ...]]] = {}
    einsums: list[Einsum] = []
    outputs = set(cascade.outputs)

    def rule(x: Expression) -> Expression | None:
        if not isinstance(x, Access) or x.tensor not in moved:
            return None
        while x.tensor in moved:
            name, order = moved[x.tensor]
            x = Access(name, tuple(x.coordinates[k] for k in order), x.at)
        return x

    for einsum in cascade.einsums:
        einsum = reread(einsum, rule)
        if einsum.name not in shareable or isinstance(einsum.body, Populate | Concatenate):
            einsums.append(einsum)
            continue
        key, all_ranks = canonical(einsum, cascade)
        name, all_kept = first.get(key, (einsum.name, all_ranks))
        ranks = tuple(r for r in all_ranks if r in einsum.ranks)
        kept = tuple(r for r, s in zip(all_kept, all_ranks, strict=True) if s in ranks)
        if name == einsum.name:
            first[key] = (name, all_ranks)
            einsums.append(einsum)
            continue
        other = dict(zip(all_ranks, all_kept, strict=True))
        if einsum.name not in outputs:
            partners.update(other)
            moved[einsum.name] = (name, permutation(einsum, kept, ranks, writer(einsums, name)))
        elif name not in outputs:
            # The name that is returned survives, in the place of the other.
            partners.update(other)
            earlier = writer(einsums, name)
            there = dict(zip(ranks, kept, strict=True))
            output = tuple(RankVariable(there[r]) for r in einsum.ranks)
            new = replace(earlier, output=replace(einsum.output, coordinates=output))
            moved[name] = (einsum.name, permutation(earlier, ranks, kept, einsum))
            einsums = [reread(new if e is earlier else e, rule) for e in einsums]
            first[key] = (einsum.name, all_kept)
        else:
            einsums.append(einsum)
    if not moved:
        return cascade
    return resize(cascade, replace(cascade, einsums=tuple(einsums)), partners)


def canonical(einsum: Einsum, cascade: Cascade) -> tuple[str, tuple[str, ...]]:
    """Return the einsum's right side with ranks renamed in order of sight, and those ranks.

    Only ranks that an input gives their size are renamed, for a rank's name is its extent.
    """
    homes = homed(einsum, cascade)
    bound = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
    inside = einsum.body.body if isinstance(einsum.body, Reduce) else einsum.body
    ranks = tuple(dict.fromkeys((*free_ranks(inside), *bound, *einsum.ranks)))
    names = {r: f"{k}" if r in homes else r for k, r in enumerate(ranks)}

    new = renamed(einsum, names)
    body = new.body
    if isinstance(body, Reduce):
        body = replace(body, ranks=tuple(sorted(body.ranks)))
    places = tuple(names[r] for r in ranks if r in einsum.ranks)
    # repr tells 1 from 1.0 and True, which are equal but not the same.
    return repr((places, body, new.filter)), ranks


def resize(before: Cascade, after: Cascade, partners: dict[str, str]) -> Cascade:
    """Rename ranks that no input gives a size any more to their partners.

    Where one einsum has both, or there is no partner, the cascade before is returned.
    """
    lost = unsized(before, after)
    if not lost <= set(partners):
        return before
    einsums: list[Einsum] = []
    for einsum in after.einsums:
        ranks = {*Cascade("", (), (), (einsum,), ()).ranks}
        names = {r: partners[r] for r in sorted(lost & ranks)}
        if len({*names.values()} - ranks) < len(names):
            return before
        einsums.append(renamed(einsum, names) if names else einsum)
    return replace(after, einsums=tuple(einsums))


def renamed(einsum: Einsum, names: dict[str, str]) -> Einsum:
    """Give ranks other names, in what is written and in what is read."""

    def rule(x: Expression) -> Expression | None:
        match x:
            case RankVariable(rank=rank) | Size(rank=rank) if rank in names:
                return replace(x, rank=names[rank])
            case Reduce(ranks=ranks):
                return replace(x, ranks=tuple(names.get(r, r) for r in ranks))
            case _:
                return None

    coordinates = tuple(rewrite(c, rule) for c in einsum.output.coordinates)
    return replace(reread(einsum, rule), output=replace(einsum.output, coordinates=coordinates))


def permutation(
    gone: Einsum, kept: tuple[str, ...], ranks: tuple[str, ...], survivor: Einsum
) -> tuple[int, ...]:
    """For each coordinate of the survivor, the position of its rank in the einsum that goes.

    ``kept`` and ``ranks`` are the corresponding ranks of survivor and gone, in order of sight.
    """
    there = dict(zip(kept, ranks, strict=True))
    return tuple(gone.ranks.index(there[r]) for r in survivor.ranks)


def writer(einsums: list[Einsum], name: str) -> Einsum:
    """Return the einsum that writes ``name``."""
    return next(e for e in einsums if e.name == name)


def reread(einsum: Einsum, rule: Callable[[Expression], Expression | None]) -> Einsum:
    """Apply a rule to what an einsum reads."""
    body = rewrite(einsum.body, rule)
    filter = None if einsum.filter is None else rewrite(einsum.filter, rule)
    if body is einsum.body and filter is einsum.filter:
        return einsum
    return replace(einsum, body=body, filter=filter)
