"""Reassociate: sums of products of sums of products, in the cheapest order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Concatenate,
    Expression,
    RankVariable,
    Reduce,
    accesses,
    free_ranks,
    substitute,
)
from .align import fresh
from .contraction import (
    Key,
    Leaf,
    Network,
    Node,
    Tree,
    TreeWriter,
    best_order,
    einsum_key,
    made_as,
)
from .defer import without_unread
from .facts import (
    NO_SIZES,
    exact_tensors,
    homed,
    infinite_tensors,
    is_finite,
    is_present,
    is_scalar,
    plain_writers,
    pointwise,
    present_tensors,
    unsized,
    weight,
)
from .product import factors
from .segments import own_rank
from .short_ranks import lowest_digits

MOST_FACTORS = 6
"""Products of more factors are left as they are written: the search is exhaustive."""

OPEN_SIZE = 4096
"""What a rank of unknown size counts if some input has it before its last place."""


def reassociate(cascade: Cascade, *, sizes: Mapping[str, int] = NO_SIZES) -> Cascade:
    """Choose the order of contractions by the number of multiplications.

    ::

        A[p, m] = sum[e](X[p, e] * Y[m, e])
        O[p, f] = sum[m](A[p, m] * V[m, f])
        D[p]    = sum[m](A[p, m])
        return O, D
        -->
        O_ef[e, f] = sum[m](Y[m, e] * V[m, f])
        O[p, f]    = sum[e](X[p, e] * O_ef[e, f])
        D_e[e]     = sum[m](Y[m, e])
        D[p]       = sum[e](X[p, e] * D_e[e])
        return O, D

    A contraction whose result other contractions read is written out in them, and each is computed
    in its cheapest order, if that is cheaper in all; a product that the cascade makes anyway is
    free, so ``sum[m](A[p, m] * sum[f](U[p, f] * V[m, f]))`` becomes ``sum[f](U[p, f] * O[p, f])``
    where O is ``sum[m](A * V)``. A filter that couples two ranks must be applied while both are
    there, so under one the order that is written stays the cheapest.

    ``sizes`` say what an order costs. A rank without an entry counts as 4096 if some input has it
    before its last place (a sequence, open at run time), else as 64 (a width).

    Requires: a flat cascade, its invariant factors deferred. Keeps: every output's value up to
    rounding, for finite inputs; where points exist. Tensors that decide a filter or a choice stay
    as they are.
    Source: contraction ordering; for a product of finite separation rank see theory 3.8.
    """
    while True:
        after = _once(cascade, extents(cascade, sizes))
        if after is cascade:
            return cascade
        cascade = after


def extents(cascade: Cascade, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes by which orders are compared."""
    open_ones = {
        r
        for e in cascade.einsums
        for x in e.expressions()
        if isinstance(x, Access) and x.tensor in cascade.inputs
        for c in x.coordinates[:-1]
        for r in free_ranks(c)
        if isinstance(c, RankVariable) or r not in lowest_digits(c)
    }
    found = {**dict.fromkeys(sorted(open_ones), OPEN_SIZE), **sizes}
    for einsum in cascade.einsums:
        if isinstance(einsum.body, Concatenate):
            parts = (own_rank(x, einsum) for x in einsum.body.parts)
            found.setdefault(einsum.body.rank, sum(found.get(r, OPEN_SIZE) for r in parts))
    return found


def _once(cascade: Cascade, sizes: Mapping[str, int]) -> Cascade:
    known = _Known.of(cascade)
    for name in [e.name for e in cascade.einsums if known.expandable(e.name)]:
        readers = [e for e in cascade.einsums if name in e.reads]
        summing = [e for e in readers if isinstance(e.body, Reduce) and known.contracts(e)]
        whole = readers and len(summing) == len(readers) and name not in cascade.outputs
        for group in ([readers] if whole else []) + [[e] for e in summing]:
            for inside in _expansions(name, group, known):
                plan = _plan(group, inside, cascade, known, sizes)
                if plan is not None:
                    return plan
    return cascade


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a cascade while contractions are reordered."""

    cascade: Cascade
    writers: Mapping[str, Einsum]
    exact: frozenset[str]
    infinite: frozenset[str]
    present: frozenset[str]

    @staticmethod
    def of(cascade: Cascade) -> _Known:
        return _Known(
            cascade,
            plain_writers(cascade),
            exact_tensors(cascade),
            infinite_tensors(cascade),
            present_tensors(cascade),
        )

    def contracts(self, einsum: Einsum) -> bool:
        """Whether an einsum is the plain sum of a product of finite factors."""
        if einsum.name not in self.writers or einsum.name in self.exact:
            return False
        body = einsum.body
        if isinstance(body, Reduce):
            return body.reducer == "sum" and self.is_product(body.body)
        return pointwise(body) and self.is_product(body) and len(factors(body)[1]) > 1

    def is_product(self, x: Expression) -> bool:
        negative, parts = factors(x)
        return not negative and all(
            not p.divides and not is_scalar(p.expression) and is_finite(p.expression, self.infinite)
            for p in parts
        )

    def expandable(self, name: str) -> bool:
        """Whether a tensor may be written out in the contractions that read it."""
        writer = self.writers.get(name)
        return writer is not None and self.contracts(writer)

    def read_as_factor(self, reader: Einsum, name: str) -> bool:
        """Whether a reader has the tensor as factors only, at the ranks it was written with."""
        inside = reader.body.body if isinstance(reader.body, Reduce) else reader.body
        found = [p.expression for p in factors(inside)[1]]
        whole = [x for x in found if isinstance(x, Access) and x.tensor == name]
        every = [a for x in (inside, reader.filter) if x is not None for a in accesses(x)]
        return len(whole) == sum(a.tensor == name for a in every) and all(
            x.coordinates == self.writers[name].output.coordinates for x in whole
        )


def _expansions(name: str, group: list[Einsum], known: _Known) -> Iterator[frozenset[str]]:
    """Yield what to write out: the tensor, and with it whatever it alone is made of."""
    if not all(known.read_as_factor(e, name) for e in group):
        return
    yield frozenset((name,))
    found = {name}
    front = [name]
    while front:
        writer = known.writers[front.pop()]
        for source in writer.reads:
            users = [e.name for e in known.cascade.einsums if source in e.reads]
            alone = users == [writer.name] and source not in known.cascade.outputs
            if alone and known.expandable(source) and known.read_as_factor(writer, source):
                found.add(source)
                front.append(source)
    if len(found) > 1:
        yield frozenset(found)


def _plan(
    group: list[Einsum],
    inside: frozenset[str],
    cascade: Cascade,
    known: _Known,
    sizes: Mapping[str, int],
) -> Cascade | None:
    """Return the cascade with the group reordered, or None where that is not cheaper."""
    taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
    taken |= {e.name for e in cascade.einsums}
    gone = _gone(inside, group, cascade)
    new: dict[str, tuple[Einsum, ...]] = {}
    before = after = 0.0
    for reader in group:
        network = _network(reader, inside, known, set(taken))
        if network is None:
            return None
        place = cascade.einsums.index(reader)
        made = {
            einsum_key(e): e.output
            for e in cascade.einsums[:place]
            if e.name not in gone and _makes(e, known)
        }
        total, tree = best_order(network, sizes, partial(_is_made, made))
        if isinstance(reader.body, Reduce) and not _everywhere(tree, known):
            return None
        before += _written(reader, sizes)
        after += total
        new[reader.name] = TreeWriter(reader, made, taken).einsums(tree)
    before += sum(_written(known.writers[name], sizes) for name in sorted(gone))
    if after >= before:
        return None
    einsums = tuple(x for e in cascade.einsums for x in new.get(e.name, (e,)))
    changed = without_unread(cascade, replace(cascade, einsums=einsums))
    # what is free because another einsum makes it may be that einsum's only use
    cheaper = _all_written(changed, sizes) < _all_written(cascade, sizes)
    return changed if cheaper and not unsized(cascade, changed) else None


def _gone(inside: frozenset[str], group: list[Einsum], cascade: Cascade) -> frozenset[str]:
    """Return the tensors of ``inside`` that only the group reads, or what goes with them."""
    gone = inside - {*cascade.outputs}
    while True:
        stay = [e for e in cascade.einsums if e not in group and e.name not in gone]
        left = gone - {r for e in stay for r in e.reads}
        if left == gone:
            return gone
        gone = left


def _everywhere(tree: Tree, known: _Known) -> bool:
    """Whether a tree's result exists wherever its reader does, as a sum over nothing does."""
    if isinstance(tree, Leaf):
        return is_present(tree.expression, known.present, known.writers)
    parts = (_everywhere(x, known) for x in tree.parts)
    return bool(tree.summed) or (not tree.conditions and all(parts))


def _written(einsum: Einsum, sizes: Mapping[str, int]) -> float:
    """Return the points that an einsum iterates."""
    inner = einsum.body.ranks if isinstance(einsum.body, Reduce) else ()
    return weight(dict.fromkeys((*einsum.ranks, *inner)), sizes)


def _all_written(cascade: Cascade, sizes: Mapping[str, int]) -> float:
    """Return the points that all einsums iterate."""
    return sum(_written(e, sizes) for e in cascade.einsums)


def _network(
    reader: Einsum, inside: frozenset[str], known: _Known, taken: set[str]
) -> Network | None:
    """Write the chosen tensors out in a reader; None where ranks or factors are in the way."""
    leaves: list[Leaf] = []
    conditions: list[tuple[Expression, frozenset[str]]] = []
    bound = set(reader.ranks)

    def visit(einsum: Einsum, *, top: bool) -> bool:
        body = einsum.body
        inner = body.ranks if isinstance(body, Reduce) else ()
        names: dict[str, Expression] = {}
        for rank in inner:
            if rank in bound:
                if rank not in homed(einsum, known.cascade):
                    return False
                names[rank] = RankVariable(fresh(f"{rank}_2", taken))
            bound.add(free_ranks(names.get(rank, RankVariable(rank)))[0])
        filters = [] if top else [einsum.filter]
        filters += [body.filter] if isinstance(body, Reduce) else []
        for test in filters:
            if test is not None:
                moved = substitute(test, names)
                conditions.append((moved, frozenset(free_ranks(moved))))
        for part in factors(body.body if isinstance(body, Reduce) else body)[1]:
            x = part.expression
            if isinstance(x, Access) and x.tensor in inside:
                if names or not visit(known.writers[x.tensor], top=False):
                    return False
            else:
                moved = substitute(x, names)
                leaves.append(Leaf(moved, frozenset(free_ranks(moved))))
        return True

    if not visit(reader, top=True) or len(leaves) > MOST_FACTORS:
        return None
    ranks = frozenset[str]().union(*(x.ranks for x in leaves))
    kept = frozenset(reader.ranks)
    if not kept <= ranks or any(not r <= ranks for _, r in conditions) or not bound <= ranks:
        return None
    return Network(tuple(leaves), tuple(conditions), kept)


def _is_made(made: Mapping[Key, Access], node: Node) -> bool:
    return made_as(node, made) is not None


def _makes(einsum: Einsum, known: _Known) -> bool:
    return einsum.filter is None and known.contracts(einsum)
