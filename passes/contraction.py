"""Contraction order: in which order a sum of a product is best computed.

A *network* is a set of factors, each with its ranks, and conditions (filters) that hold for the
product. Two factors are contracted at a time; a rank is summed as soon as no factor and no
condition outside has it, and a condition is applied as soon as its ranks are there. So a condition
that couples two ranks keeps them both until it was applied.

Source: the exhaustive search of opt_einsum (Smith and Gray, JOSS 2018), with conditions and with
factors that are summed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from ..ir.cascade import Einsum
from ..ir.expression import Access, Expression, RankVariable, Reduce, free_ranks
from .align import conjunction, fresh
from .facts import weight
from .product import Factor, factors, write_product

Ranks = frozenset[str]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A factor of the product, e.g. one tensor."""

    expression: Expression
    ranks: Ranks


@dataclass(frozen=True, slots=True)
class Node:
    """The product of one or two parts, with conditions applied and ranks summed.

    ``ranks`` are those that are left; ``space`` are those that are iterated.
    """

    parts: tuple[Tree, ...]
    ranks: Ranks
    space: Ranks
    summed: Ranks
    conditions: tuple[Expression, ...]


Tree = Leaf | Node


@dataclass(frozen=True, slots=True)
class Network:
    """What is contracted: factors, conditions with their ranks, and the ranks that are kept."""

    leaves: tuple[Leaf, ...]
    conditions: tuple[tuple[Expression, Ranks], ...]
    kept: Ranks


def best_order(
    network: Network, sizes: Mapping[str, int], made: Callable[[Node], bool]
) -> tuple[float, Tree]:
    """Return the cheapest order and its cost: the points that its contractions iterate.

    ``made`` says whether a node is computed anyway, which makes it free. Exhaustive, so meant for a
    handful of factors. Among orders of equal cost the first found wins, which contracts factors in
    the order of the product.
    """
    open_ones = frozenset(range(len(network.conditions)))

    def price(node: Node) -> float:
        return 0.0 if made(node) else weight(node.space, sizes)

    return _search(network.leaves, open_ones, network, price)


def _search(
    factors: tuple[Tree, ...],
    conditions: frozenset[int],
    network: Network,
    price: Callable[[Node], float],
) -> tuple[float, Tree]:
    alone = _sum_alone(factors, conditions, network)
    if alone is not None:
        place, node, left = alone
        rest = (*factors[:place], node, *factors[place + 1 :])
        if len(rest) == 1:
            return price(node), node
        total, tree = _search(rest, left, network, price)
        return total + price(node), tree
    if len(factors) == 1:
        return 0.0, factors[0]
    best: tuple[float, Tree] | None = None
    for i, j in combinations(range(len(factors)), 2):
        others = tuple(x for k, x in enumerate(factors) if k not in (i, j))
        node, left = contract((factors[i], factors[j]), others, conditions, network)
        total, tree = _search((*others[:i], node, *others[i:]), left, network, price)
        total += price(node)
        if best is None or total < best[0]:
            best = (total, tree)
    assert best is not None
    return best


def _sum_alone(
    factors: tuple[Tree, ...], conditions: frozenset[int], network: Network
) -> tuple[int, Node, frozenset[int]] | None:
    """Sum a factor over ranks that only it has: never dearer, since it makes the factor smaller."""
    for place, factor in enumerate(factors):
        others = (*factors[:place], *factors[place + 1 :])
        if not isinstance(factor, Leaf):
            continue
        node, left = contract((factor,), others, conditions, network)
        if node.summed:
            return place, node, left
    return None


def contract(
    parts: tuple[Tree, ...],
    others: tuple[Tree, ...],
    conditions: frozenset[int],
    network: Network,
) -> tuple[Node, frozenset[int]]:
    """Multiply parts, apply the conditions whose ranks are there, sum what nothing else needs."""
    space = frozenset[str]().union(*(x.ranks for x in parts))
    applied = [k for k in sorted(conditions) if network.conditions[k][1] <= space]
    left = conditions - set(applied)
    needed = network.kept.union(*(x.ranks for x in others))
    needed = needed.union(*(network.conditions[k][1] for k in left))
    tests = tuple(network.conditions[k][0] for k in applied)
    return Node(parts, space & needed, space, space - needed, tests), left


Key = tuple[tuple[str, ...], frozenset[str], str]
"""What a contraction computes: its factors in any order, the ranks summed, the filter."""


def einsum_key(einsum: Einsum) -> Key:
    """Return what an einsum computes, whatever the order of its factors."""
    body = einsum.body
    inside = body.body if isinstance(body, Reduce) else body
    parts = tuple(sorted(repr(p.expression) for p in factors(inside)[1]))
    summed = frozenset(body.ranks) if isinstance(body, Reduce) else frozenset[str]()
    return parts, summed, repr(body.filter) if isinstance(body, Reduce) else repr(None)


def node_key(node: Node, made: Mapping[Key, Access]) -> Key | None:
    """Return what a node computes of tensors; None if a part of it is a node that is not made."""
    parts: list[str] = []
    for x in node.parts:
        read = x.expression if isinstance(x, Leaf) else made_as(x, made)
        if read is None:
            return None
        parts.append(repr(read))
    return tuple(sorted(parts)), node.summed, repr(conjunction(list(node.conditions)))


def made_as(node: Node, made: Mapping[Key, Access]) -> Access | None:
    """Return the access that reads what a node computes, if that is made."""
    key = node_key(node, made)
    return None if key is None else made.get(key)


class TreeWriter:
    """Writes the einsums of one order, the last under the reader's name."""

    def __init__(
        self,
        reader: Einsum,
        made: Mapping[Key, Access],
        taken: set[str],
    ) -> None:
        self.reader, self.made, self.taken = reader, made, taken
        self.found: list[Einsum] = []

    def einsums(self, tree: Tree) -> tuple[Einsum, ...]:
        """Return the einsums, in order."""
        if isinstance(tree, Leaf):
            return (replace(self.reader, body=tree.expression),)
        body, condition = self.body(tree)
        if condition is not None:
            both = [x for x in (self.reader.filter, condition) if x is not None]
            self.found.append(replace(self.reader, body=body, filter=conjunction(both)))
        else:
            self.found.append(replace(self.reader, body=body))
        return tuple(self.found)

    def body(self, node: Node) -> tuple[Expression, Expression | None]:
        """Return the body of a node and, where it sums nothing, its condition."""
        product = write_product(tuple(Factor(self.read(x)) for x in node.parts))
        condition = conjunction(list(node.conditions))
        if not node.summed:
            return product, condition
        order = tuple(r for r in free_ranks(product) if r in node.summed)
        return Reduce("sum", order, product, condition, self.reader.body.at), None

    def read(self, tree: Tree) -> Expression:
        """Return the expression that reads a part, after writing the einsums that make it."""
        if isinstance(tree, Leaf):
            return tree.expression
        body, condition = self.body(tree)
        ranks = tuple(r for r in free_ranks(body) if r in tree.ranks)
        if (access := made_as(tree, self.made)) is not None:
            return access
        name = fresh(f"{self.reader.name}_{''.join(ranks) or 'all'}", self.taken)
        access = Access(name, tuple(RankVariable(r) for r in ranks))
        self.found.append(Einsum(access, body, condition, self.reader.at))
        return access
