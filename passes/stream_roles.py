"""Roles: what every einsum of a slice does with regard to a streamed rank.

::

    before     neither touches the rank nor depends on a reduction over it: read by name
    streaming  keeps the rank; *mixed* if it depends on a reduction over the rank
    reduction  reduces over the rank
    after      keeps the rank no longer and depends on a reduction over it

Results of reductions and what stands after them are *late*.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    walk,
)
from ..ir.streaming import Reason
from .facts import is_plain, is_positive


@dataclass(frozen=True, slots=True)
class SliceRoles:
    """The roles in one slice, each in dependence order."""

    rank: str
    writers: dict[str, Einsum]
    streaming: tuple[str, ...]
    mixed: tuple[str, ...]
    reductions: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def late(self) -> frozenset[str]:
        """Results of reductions over the rank, and what is made of them."""
        return frozenset((*self.reductions, *self.after))


def backward_slice(cascade: Cascade, outputs: Iterable[str]) -> tuple[Einsum, ...]:
    """Return the einsums that the outputs need, in the cascade's order."""
    needed = set(outputs)
    front = list(needed)
    while front:
        name = front.pop()
        for einsum in cascade.einsums:
            if einsum.name == name:
                front += [r for r in einsum.reads if r not in needed]
                needed |= set(einsum.reads)
    return tuple(e for e in cascade.einsums if e.name in needed)


def find_roles(slice: tuple[Einsum, ...], rank: str) -> SliceRoles | Reason:
    """Give every einsum of a slice its role, or say what has none."""
    streaming: list[str] = []
    mixed: set[str] = set()
    reductions: list[str] = []
    after: list[str] = []
    late: set[str] = set()
    writers = {e.name: e for e in slice}
    repeated = {e.name for e in slice if not is_plain(e)}
    for einsum in slice:
        reads = set(einsum.reads)
        follows = bool(reads & (late | mixed))
        reduces = isinstance(einsum.body, Reduce) and rank in einsum.body.ranks
        keeps = rank in einsum.ranks
        selects = isinstance(einsum.body, Populate) and einsum.body.rank == rank
        if not (follows or reduces or keeps or selects or reads & set(streaming)):
            continue
        if einsum.name in repeated:
            return Reason(
                "NOT_YET",
                einsum.name,
                f"{einsum.name} is iterative and depends on {rank}: its traversal is a recurrence, "
                "not a fold of independent contributions.",
                alternatives=("write the recurrence as a sum over its steps",),
            )
        moved = _gathered(einsum, rank, {*streaming}, writers)
        if moved is not None:
            return Reason(
                "GATHERED",
                einsum.name,
                f"{einsum.name} reads {moved} elsewhere along {rank} than at {rank} itself, so it "
                "needs elements that have passed or are yet to come.",
                str(moved),
                (f"return {moved} and read it in a cascade of its own",),
            )
        if keeps:
            streaming.append(einsum.name)
            if follows:
                mixed.add(einsum.name)
        elif reduces:
            reductions.append(einsum.name)
            late.add(einsum.name)
        elif selects:
            return _selection(einsum, rank)
        else:
            after.append(einsum.name)
            late.add(einsum.name)
    for einsum in slice:
        if isinstance(einsum.body, Populate | Concatenate) and einsum.name in mixed:
            return _selection(einsum, rank)
    return SliceRoles(
        rank,
        writers,
        tuple(streaming),
        tuple(n for n in streaming if n in mixed),
        tuple(reductions),
        tuple(after),
    )


def _selection(einsum: Einsum, rank: str) -> Reason:
    """Refuse a selection: for now if its list has a fixed length, for good if it grows."""
    body = einsum.body
    if isinstance(body, Populate):
        grows = any(isinstance(x, Size) and x.rank == rank for x in walk(body.argument))
        if body.rank == rank and (body.selector != "topk" or grows):
            from ..ir.show import show_expression

            text = show_expression(body)
            return Reason(
                "UNBOUNDED_SUPPORT",
                einsum.name,
                f"{einsum.name} lists elements of {rank}, and how many grows with {rank}: until "
                "the end any of them may have to be remembered.",
                text,
                (
                    f"select into {einsum.name} in a cascade of its own",
                    "list a fixed number of the largest and check that it was enough",
                ),
            )
    return Reason(
        "NOT_YET",
        einsum.name,
        f"{einsum.name} selects or concatenates what depends on all of {rank}: it would need a "
        "sorted list of candidates as its state (theory 3.3, F6).",
        alternatives=("select in a cascade of its own",),
    )


def _gathered(
    einsum: Einsum, rank: str, streaming: set[str], writers: dict[str, Einsum]
) -> str | None:
    """Return a reading of a streaming tensor elsewhere than at the streamed coordinate."""
    from ..ir.show import show_expression

    for x in einsum.expressions():
        if not isinstance(x, Access) or x.tensor not in streaming or x is einsum.output:
            continue
        place = writers[x.tensor].ranks.index(rank)
        if place >= len(x.coordinates) or x.coordinates[place] != RankVariable(rank):
            return show_expression(x)
        if rank not in einsum.ranks and not isinstance(einsum.body, Reduce | Populate):
            return show_expression(x)
    return None


def compares_whole_fiber(einsum: Einsum, rank: str) -> Expression | None:
    """Return a comparison of one element of the rank with every other one, if there is one.

    ``sum[n](where(X[p, n] <= X[p, m], 1, 0))`` asks, for each element, for all of them: the ranks n
    and m run along the same place of X.
    """
    body = einsum.body
    if not isinstance(body, Reduce) or rank not in einsum.ranks:
        return None
    for x in einsum.expressions():
        if not isinstance(x, Apply) or x.operator not in ("<", "<=", ">", ">="):
            continue
        here = _places(x, rank)
        if any(here & _places(x, other) for other in body.ranks):
            return x
    return None


def _places(expression: Expression, rank: str) -> set[tuple[str, int]]:
    return {
        (x.tensor, k)
        for x in walk(expression)
        if isinstance(x, Access)
        for k, c in enumerate(x.coordinates)
        if c == RankVariable(rank)
    }


def positive_late(roles: SliceRoles) -> frozenset[str]:
    """Return the late and mixed tensors above 0 wherever they are made of any point at all."""
    found: set[str] = set()
    for name, einsum in roles.writers.items():
        body = einsum.body
        if isinstance(body, Reduce):
            if body.reducer in ("sum", "prod", "max", "min") and is_positive(
                body.body, frozenset(found)
            ):
                found.add(name)
        elif is_positive(body, frozenset(found)):
            found.add(name)
    return frozenset(found)


def reads_elsewhere(expression: Expression, rank: str, late: frozenset[str]) -> Access | None:
    """Return a reading of a late tensor at a coordinate that varies along the streamed rank."""
    for x in walk(expression):
        if isinstance(x, Access) and x.tensor in late:
            if any(rank in free_ranks(c) for c in x.coordinates):
                return x
    return None
