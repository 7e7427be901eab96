"""Solve equalities: a reduction along a diagonal walks one rank, not two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Apply,
    Constant,
    Expression,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    substitute,
    tensors,
)
from ..ir.linear import delinear, linear
from .align import conjunction
from .stream_presence import conjuncts


def solve_equalities(cascade: Cascade, *, short: frozenset[str] = frozenset()) -> Cascade:
    """Solve a filter's equality for one of several reduced ranks, and put that in its place.

    ::

        A[p, m] = K[p, e] * Q[m, e]
        R[p]    = sum[m](A[p, m])
        C[d]    = sum[p, m: p - m == d](A[p, m] * R[p] * W[d])
        return C
        -->
        A[p, m] = sum[e](K[p, e] * Q[m, e])
        R[p]    = sum[m](A[p, m])
        C[d]    = sum[p: 0 <= p - d and p - d < size(m)](A[p, p - d] * R[p] * W[d])
        return C

    What is left is one sum along each diagonal; nothing is scattered, and no tensor over both ranks
    is stored. Of two ranks that could be put in the other's place the one goes along which fewer
    results of reductions would have to be looked up elsewhere.

    ``short`` ranks are held whole by a program and cost no walk, so they stay; the last long one
    goes all the same, and nothing is walked.

    Requires: a flat cascade. Keeps: every output's value.
    """
    writers = {e.name: e for e in cascade.einsums}
    einsums = tuple(solved(e, writers, short) for e in cascade.einsums)
    if all(a is b for a, b in zip(einsums, cascade.einsums, strict=True)):
        return cascade
    return replace(cascade, einsums=einsums)


def solved(einsum: Einsum, writers: Mapping[str, Einsum], short: frozenset[str]) -> Einsum:
    """Solve what can be solved in one einsum's reduction."""
    body = einsum.body
    if not isinstance(body, Reduce):
        return einsum
    long = [r for r in body.ranks if r not in short]
    if not long or len(body.ranks) < 2:
        return einsum
    for test in conjuncts(body.filter):
        solutions = {r: x for r in long if (x := solution(test, r)) is not None}
        if not solutions:
            continue
        gone = min(reversed(list(solutions)), key=lambda r: looked_up(body.body, r, writers, short))
        place = solutions[gone]
        rest = [c for c in conjuncts(body.filter) if c is not test]
        inside = [
            Apply("<=", (Constant(0), place)),
            Apply("<", (place, Size(gone))),
            *(substitute(c, {gone: place}) for c in rest),
        ]
        new = replace(
            body,
            ranks=tuple(r for r in body.ranks if r != gone),
            body=substitute(body.body, {gone: place}),
            filter=conjunction(inside),
        )
        return solved(replace(einsum, body=new), writers, short)
    return einsum


def solution(test: Expression, rank: str) -> Expression | None:
    """Return the only coordinate of a rank at which an equality holds; None if there is no such.

    ``p + size(m) - size(p) - m == d`` gives ``m = p + size(m) - size(p) - d``.
    """
    match test:
        case Apply("==", (left, right)):
            form = linear(left) - linear(right)
        case _:
            return None
    mine = [(m, c) for m, c in form.terms if rank in ranks_of(m)]
    if len(mine) != 1 or mine[0][0] != (RankVariable(rank),) or mine[0][1] not in (1, -1):
        return None
    rest = replace(form, terms=tuple(t for t in form.terms if t != mine[0]))
    return delinear(rest.scaled(-1 if mine[0][1] == 1 else 1))


def ranks_of(monomial: Iterable[Expression]) -> set[str]:
    """Return the ranks that vary in a product of atoms."""
    return {r for atom in monomial for r in free_ranks(atom)}


def looked_up(
    expression: Expression, rank: str, writers: Mapping[str, Einsum], short: frozenset[str]
) -> int:
    """How many results of reductions over long ranks, behind an expression, keep a rank."""
    found: set[str] = set()
    seen: set[str] = set()
    front = list(tensors(expression))
    while front:
        name = front.pop()
        if name in seen or name not in writers:
            continue
        seen.add(name)
        writer = writers[name]
        front += writer.reads
        if isinstance(writer.body, Reduce) and set(writer.body.ranks) - short:
            found |= {name} if rank in writer.ranks else set()
    return len(found)
