"""Sweep: the walk of reverse mode, from the outputs of a cascade to its inputs.

Each einsum, last to first, gives shares (``adjoint``) of the gradient of its tensor to those that
it read; a share is brought to the ranks of the tensor that was read (``scatter``) and summed over
what is left. A gradient of one plain part stays an expression; any other gets a name.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..ir.axes import ranks_of
from ..ir.cascade import Cascade, Einsum
from ..ir.expression import Access, Apply, Expression, RankVariable, Reduce, accesses, free_ranks
from .adjoint import Share, shares
from .align import conjunction, fresh
from .derivative import ZERO
from .existence import Conditions, Existence
from .facts import is_scalar
from .invariant import invariant_under
from .product import Factor, Term, factors, terms, write_product, write_sum
from .scatter import Scatter, scatter

END = "_grad"
"""What the name of a gradient ends in."""


@dataclass(slots=True)
class _Part:
    """One summand of a gradient, over the tensor's own ranks."""

    expression: Expression
    negative: bool
    conditions: Conditions


@dataclass(slots=True)
class Sweep:
    """One walk from the outputs of a cascade to its inputs."""

    cascade: Cascade
    results: tuple[str, ...]
    same: dict[tuple[str, str], Access]
    known: Existence = field(init=False)
    taken: set[str] = field(init=False)
    seeds: dict[str, str] = field(init=False)
    parts: dict[str, list[_Part]] = field(default_factory=dict)
    made: list[Einsum] = field(default_factory=list)
    ranks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pinned: dict[str, set[str]] = field(default_factory=dict)
    homed: frozenset[str] = frozenset()
    digits: dict[tuple[str, Expression], str] = field(default_factory=dict)
    computed: dict[Expression, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cascade = self.cascade
        self.known = Existence.of_cascade(cascade)
        self.homed = frozenset(
            c.rank
            for e in cascade.einsums
            for x in e.expressions()
            if isinstance(x, Access) and x.tensor in cascade.inputs
            for c in x.coordinates
            if isinstance(c, RankVariable)
        )
        self.taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
        self.taken |= {e.name for e in cascade.einsums}
        self.seeds = {t: fresh(f"{t}{END}", self.taken) for t in self.results}
        for name in (*cascade.inputs, *(e.name for e in cascade.einsums)):
            if name in cascade.inputs:
                self.ranks[name] = self.input_ranks(name)
            else:
                self.ranks[name] = self.known.writers[name].ranks

    def input_ranks(self, name: str) -> tuple[str, ...]:
        """Name the ranks of an input's gradient, also those that are read through expressions."""
        found: list[str] = []
        read = [a for e in self.cascade.einsums for x in e.expressions() for a in accesses(x)]
        first = next((a for a in read if a.tensor == name), None)
        for place, rank in enumerate(ranks_of(self.cascade, name)):
            if rank is None or rank in found:
                rank = self.rank_for(name, None if first is None else first.coordinates[place])
                self.pinned.setdefault(name, set()).add(rank)
            found.append(rank)
        return tuple(found)

    def rank_for(self, name: str, coordinate: Expression | None) -> str:
        """Name a rank of an input that is read at a computed coordinate; alike ones share it."""
        ranks = () if coordinate is None else free_ranks(coordinate)
        new = f"{ranks[0] if ranks else 'i'}_{name}"
        if coordinate is None or accesses(coordinate) or isinstance(coordinate, RankVariable):
            return fresh(new, self.taken)
        if coordinate not in self.computed:
            self.computed[coordinate] = fresh(new, self.taken)
        return self.computed[coordinate]

    def run(self, wanted: tuple[str, ...]) -> tuple[tuple[Einsum, ...], dict[str, str]]:
        """Return the einsums of the gradients, and the name of each wanted input's gradient."""
        cascade = self.cascade
        still = invariant_under(cascade, self.results)
        moving = self.dependent(frozenset(wanted), still)
        for result in self.results:
            writer = self.known.writers[result]
            seed = replace(writer.output, tensor=self.seeds[result])
            self.known.give(seed)
            self.parts[result] = [_Part(seed, False, self.known.found[result])]
        for einsum in reversed(cascade.einsums):
            if einsum.name not in moving or einsum.name not in self.parts:
                continue
            arriving = self.total(einsum.name)
            before: list[Einsum] = []
            for part in list(shares(einsum, arriving, self.known, self.taken, before)):
                if part.access.tensor in moving:
                    self.add(replace(part, expression=merged(part.expression, self.same)))
            self.made[:0] = before  # over forward tensors alone
        found: dict[str, str] = {}
        for name in wanted:
            if name in self.parts:
                found[name] = self.named(name)
        return tuple(self.made), found

    def dependent(self, wanted: frozenset[str], still: frozenset[str]) -> frozenset[str]:
        """Return the tensors through which a wanted input moves a result."""
        moving = set(wanted)
        for einsum in self.cascade.einsums:
            if einsum.name not in still and moving & set(einsum.reads):
                moving.add(einsum.name)
        return frozenset(moving)

    def add(self, part: Share) -> None:
        """Bring a share to the ranks of the tensor that was read, and note it."""
        name = part.access.tensor
        target = self.ranks[name]
        turned = scatter(
            part.access.coordinates,
            target,
            part.ranks,
            homed=self.homed,
            taken=self.taken,
            digits=self.digits,
        )
        self.pinned[name] = self.pinned.get(name, set()) - set(turned.paired)
        own = self.output(name, name)
        for c in turned.conditions:
            match c:
                case Apply("==", (_, RankVariable(rank=rank))) if rank in target:
                    self.pinned[name].add(rank)  # met by a comparison, which gives no size
        # What is read is there: its coordinates are those of a point of the gradient.
        asked = [c for c in part.conditions if not asks(c, part.access)]
        conditions = turned.settle([turned.moved(c) for c in asked])
        conditions = [c for c in (*conditions, *turned.conditions) if not asks(c, own)]
        met = {c for x in turned.conditions for c in self.known.of(x)}
        conditions = [c for c in conditions if c not in met]
        # A gradient is read only where the tensor itself exists.
        held = self.known.of(own)
        rows = tuple(dict.fromkeys(c for c in conditions if c not in held))
        negative, product = factors(part.expression)
        for term in self.apart(product, turned):
            minus, among = factors(turned.moved(term.expression))
            body = write_product(among)
            summed = self.summed(name, body, turned, rows)
            there = [c for c in self.known.of(summed) if c not in held]
            cut = () if isinstance(summed, Reduce) else tuple(dict.fromkeys((*rows, *there)))
            sign = (negative != minus) != term.negative
            self.parts.setdefault(name, []).append(_Part(summed, sign, cut))

    def summed(self, name: str, body: Expression, turned: Scatter, rows: Conditions) -> Expression:
        """Sum a share over what is left of its iteration ranks, the digits of a quotient last.

        Ranks that no comparison has come first: what lands at a looked up coordinate of ``name`` is
        summed where it was read before it is laid there.
        """
        missing = [c for c in rows if c not in self.known.of(body)]
        met = [c for c in missing if c in turned.conditions and _equates(c)]
        looked_up = {r for c in met for r in free_ranks(c)}
        first = tuple(r for r in turned.summed if r not in looked_up)
        then = tuple(r for r in turned.summed if r in looked_up)
        if first and then:
            inner = [c for c in missing if c not in met and set(first) & set(free_ranks(c))]
            part = Reduce("sum", first, body, conjunction(inner))
            free = free_ranks(part)
            lost = [r for r in free if r not in self.ranks[name]]
            order = (*lost, *(r for r in self.ranks[name] if r in free))
            read = Access(fresh(f"{name}{END}_read", self.taken), tuple(map(RankVariable, order)))
            self.write(Einsum(read, part))
            body, missing = read, [c for c in missing if c not in inner]
        ranks = then or first
        if ranks:
            body, missing = Reduce("sum", ranks, body, conjunction(missing)), []
        return Reduce("sum", turned.split, body, conjunction(missing)) if turned.split else body

    def apart(self, product: tuple[Factor, ...], turned: Scatter) -> tuple[Term, ...]:
        """Return a product, or the terms of it where a gradient in it is a sum with sums in it.

        ``sum[m]((sum[f](U[p, f] * V[m, f]) + X[p, m]) * A[p, m])`` is summed term by term, since
        the first of its sums may then be taken in another order.
        """
        whole = write_product(product)
        made = {e.name: e for e in self.made}
        for place, factor in enumerate(product):
            x = factor.expression
            if factor.divides or not isinstance(x, Access) or x.tensor not in made:
                continue
            inside = terms(made[x.tensor].body)
            plain = x.coordinates == made[x.tensor].output.coordinates
            loses = set(free_ranks(whole)) & set(turned.summed) & set(free_ranks(x))
            sums = [t for t in inside if isinstance(t.expression, Reduce)]
            if plain and loses and len(inside) > 1 and sums and self.narrows(whole, turned, x):
                return tuple(
                    Term(write_product(_put(product, place, t.expression)), t.negative)
                    for t in inside
                )
        return (Term(whole),)

    def narrows(self, whole: Expression, turned: Scatter, x: Access) -> bool:
        """Whether a sum leaves nothing but ranks that the gradient in it has."""
        left = set(free_ranks(whole)) - set(turned.summed)
        return left < set(free_ranks(x))

    def total(self, name: str) -> Expression:
        """Return the gradient of a tensor: what arrives, or the tensor that it is written to."""
        (first, *rest) = self.parts[name]
        cut = set(first.conditions) - set(self.known.of(first.expression))
        if not rest and not cut and not isinstance(first.expression, Reduce):
            whole = set(self.ranks[name])
            among = factors(first.expression)[1]
            full = [f for f in among if not f.divides and set(free_ranks(f.expression)) >= whole]
            plain = all(isinstance(f.expression, Access) or is_scalar(f.expression) for f in among)
            if plain and len(full) <= 1 and len(among) <= 3:
                x = first.expression
                return Apply("neg", (x,)) if first.negative else x
        if not rest and first.negative and isinstance(first.expression, Reduce):
            # The sum by itself may be one that is computed anyway.
            output = self.output(name, fresh(f"{name}{END}_sum", self.taken))
            self.write(Einsum(output, first.expression))
            return Apply("neg", (output,))
        return self.output(name, self.named(name))

    def output(self, name: str, gradient: str) -> Access:
        """Return the reading of a gradient at its tensor's ranks."""
        return Access(gradient, tuple(RankVariable(r) for r in self.ranks[name]))

    def named(self, name: str) -> str:
        """Write the gradient of a tensor to a tensor of its own, and return its name."""
        own = self.output(name, name)
        found: list[Term] = []
        filter: Expression | None = None
        for part in self.parts[name]:
            x = part.expression
            if len(self.parts[name]) == 1:
                # Where it is absent it counts as 0.
                filter = conjunction([c for c in part.conditions if c not in self.known.of(x)])
            elif part.conditions:
                test = conjunction(list(part.conditions))
                assert test is not None
                x = Apply("where", (test, x, ZERO))
            found.append(Term(x, part.negative))
        found.sort(key=lambda t: t.negative)  # a sum that begins with a sign reads badly
        end = f"{END}_all" if name in self.seeds else END
        gradient = fresh(f"{name}{end}", self.taken)
        output = replace(own, tensor=gradient)
        body = collected(tuple(found))
        if name in self.cascade.inputs and self.must_pin(name, body):
            if set(free_ranks(body)) >= set(self.ranks[name]) and not isinstance(body, Access):
                part_output = replace(output, tensor=fresh(f"{gradient}_sum", self.taken))
                self.write(Einsum(part_output, body, filter))
                body, filter = part_output, None
            # Reads the input for its extent: no value of it takes part.
            body = Apply("where", (Apply("==", (own, own)), body, body))
        self.write(Einsum(output, body, filter))
        return gradient

    def must_pin(self, name: str, body: Expression) -> bool:
        """Whether nothing else would tell the gradient how large the input is."""
        return bool(self.pinned.get(name)) or not set(free_ranks(body)) >= set(self.ranks[name])

    def write(self, einsum: Einsum) -> None:
        """Add an einsum to the gradients."""
        self.made.append(einsum)
        self.known.add(einsum)


def _equates(condition: Expression) -> bool:
    return isinstance(condition, Apply) and condition.operator == "=="


def _put(product: tuple[Factor, ...], place: int, x: Expression) -> tuple[Factor, ...]:
    return tuple(Factor(x) if k == place else f for k, f in enumerate(product))


def collected(found: tuple[Term, ...]) -> Expression:
    """Write a sum, with a tensor that is a factor of every term in front of it."""
    split = [factors(t.expression)[1] for t in found]
    common = [f for f in split[0] if isinstance(f.expression, Access) and not f.divides]
    common = [f for f in common if all(f in parts for parts in split)]
    wide = max(len(free_ranks(t.expression)) for t in found)
    common = [f for f in common if len(free_ranks(f.expression)) == wide]
    if len(found) < 2 or not common:
        return write_sum(found)
    rests: list[Term] = []
    for term, parts in zip(found, split, strict=True):
        place = parts.index(common[0])
        negative, _ = factors(term.expression)
        rest = write_product((*parts[:place], *parts[place + 1 :]))
        rests.append(Term(rest, term.negative != negative))
    return write_product((common[0], Factor(write_sum(tuple(rests)))))


def asks(condition: Expression, own: Access) -> bool:
    """Whether a condition only asks whether a point exists that is known to."""
    match condition:
        case Apply("default", (Apply("==", (x, _)), _)):
            return x == own
        case _:
            return False


def merged(x: Expression, same: dict[tuple[str, str], Access]) -> Expression:
    """Return a product in which a quotient that the cascade has under a name is read there."""
    negative, parts = factors(x)
    for (above, below), quotient in same.items():
        top = [f for f in parts if not f.divides and reads(f.expression, above)]
        low = [f for f in parts if f.divides and reads(f.expression, below)]
        if top and low:
            new = tuple(Factor(quotient) if f is top[0] else f for f in parts if f is not low[0])
            return write_product(new, negative=negative)
    return x


def reads(x: Expression, tensor: str) -> bool:
    """Whether an expression is a reading of a tensor."""
    return isinstance(x, Access) and x.tensor == tensor
