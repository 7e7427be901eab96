"""Base two: exponentials and logarithms of base two, their factor folded into scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Reduce,
    accesses,
    free_ranks,
    rewrite,
    walk,
)
from .align import fresh
from .facts import (
    NO_SIZES,
    exact_tensors,
    infinite_tensors,
    is_scalar,
    plain_writers,
    pointwise,
    weight,
)
from .fold import fold
from .product import factors, write_product
from .scaling import LN_2, Scaling, cost


def base_two(cascade: Cascade, *, sizes: Mapping[str, int] = NO_SIZES) -> Cascade:
    """Compute exponentials in base two, where that saves multiplications.

    ::

        S[p, m] = X[p, m] * scale
        G[p]    = max[m](S[p, m])
        N[p, m] = exp(S[p, m] - G[p])
        D[p]    = sum[m](N[p, m])
        L[p]    = G[p] + log(D[p])
        return N, L
        -->
        S[p, m] = X[p, m] * (scale * 1.4426950408889634)
        G[p]    = max[m](S[p, m])
        N[p, m] = exp2(S[p, m] - G[p])
        D[p]    = sum[m](N[p, m])
        L[p]    = G[p] * 0.6931471805599453 + log(D[p])
        return N, L

    Some tensors come to hold log2(e) times what they held; every other reading of them is
    repaired. Which ones is the choice that executes fewest operations (``scaling.cost``), found by
    changing one tensor at a time, from all and from none of those that enter an exponent; a rank
    without an entry in ``sizes`` counts as 64. An output keeps its value: where it pays, a scaled
    tensor ``T_two`` is computed and the output made from it.

    Requires: a flat cascade. Keeps: every output's value up to rounding; where points exist.
    Tensors that decide a filter or a choice stay as they are, and so do iterative ones.
    """
    search = _Search(cascade, sizes, infinite_tensors(cascade))
    candidates = _candidates(cascade)
    starts = (frozenset[str](), frozenset(candidates))
    best = min((search.descend(s, candidates) for s in starts), key=search.rank)
    if search.total(best) >= sum(body_cost(e.body, sizes) for e in cascade.einsums):
        return cascade
    return search.rewritten(best)


def _candidates(cascade: Cascade) -> tuple[str, ...]:
    """Return the tensors that may be scaled: those that exponents are made of."""
    exact, writers = exact_tensors(cascade), plain_writers(cascade)
    joined = {r for e in cascade.einsums if isinstance(e.body, Concatenate) for r in e.reads}
    front = [
        a.tensor
        for e in cascade.einsums
        for x in walk(e.body)
        if isinstance(x, Apply) and x.operator in ("exp", "log")
        for a in accesses(x)
    ]
    found: dict[str, None] = {}
    while front:
        name = front.pop()
        if name in found or name in exact | joined or name not in writers:
            continue
        if not _homogeneous(writers[name].body):
            continue
        found[name] = None
        front += writers[name].reads
    return tuple(e.name for e in cascade.einsums if e.name in found)


def _homogeneous(body: Expression) -> bool:
    """Whether a factor may stand inside an einsum's body; in a contraction it would be repeated."""
    if not isinstance(body, Reduce):
        return pointwise(body)
    if body.reducer in ("max", "min"):
        return pointwise(body.body)
    varying = [x for x in factors(body.body)[1] if not is_scalar(x.expression)]
    return body.reducer == "sum" and len(varying) == 1 and pointwise(body.body)


@dataclass(slots=True)
class _Search:
    """The search for the cheapest set of scaled tensors; einsums are rewritten once a choice."""

    cascade: Cascade
    sizes: Mapping[str, int]
    infinite: frozenset[str]
    bodies: dict[tuple[int, frozenset[str]], Expression] = field(default_factory=dict)

    def body(self, place: int, held: frozenset[str]) -> Expression:
        """Return the body of one einsum, for the tensors that are scaled."""
        einsum = self.cascade.einsums[place]
        near = held & {einsum.name, *einsum.reads}
        if (place, near) not in self.bodies:
            scaling = Scaling(near, self.sizes, self.infinite)
            if einsum.name not in near:
                new = self.unscaled(scaling, einsum.body)
            elif isinstance(einsum.body, Reduce):
                new = replace(einsum.body, body=scaling.scaled(einsum.body.body))
            else:
                new = scaling.scaled(einsum.body)
            self.bodies[place, near] = new
        return self.bodies[place, near]

    def unscaled(self, scaling: Scaling, body: Expression) -> Expression:
        """Return the body for a tensor that keeps its value."""
        if isinstance(body, Reduce):
            return replace(body, body=scaling.plain(body.body))
        return scaling.plain(body) if pointwise(body) else body

    def total(self, held: frozenset[str]) -> float:
        """Return the cost of the whole cascade, outputs restored."""
        places = range(len(self.cascade.einsums))
        bodies = sum(body_cost(self.body(k, held), self.sizes) for k in places)
        restored = [e for e in self.cascade.einsums if e.name in held & {*self.cascade.outputs}]
        return bodies + sum(weight(e.ranks, self.sizes) for e in restored)

    def rank(self, held: frozenset[str]) -> tuple[float, int]:
        """Order choices: the cheaper, then the smaller."""
        return self.total(held), len(held)

    def descend(self, held: frozenset[str], candidates: tuple[str, ...]) -> frozenset[str]:
        """Change one tensor at a time as long as that is better."""
        while candidates:
            near = min((held ^ {name} for name in candidates), key=self.rank)
            if self.rank(near) >= self.rank(held):
                break
            held = near
        return held

    def rewritten(self, held: frozenset[str]) -> Cascade:
        """Write the cascade for the tensors that are scaled."""
        taken = {*self.cascade.inputs, *self.cascade.ranks}
        taken |= {n for n, _ in self.cascade.parameters} | {e.name for e in self.cascade.einsums}
        returned = held & {*self.cascade.outputs}
        names = {
            e.name: fresh(f"{e.name}_two", taken)
            for e in self.cascade.einsums
            if e.name in returned
        }

        def rule(x: Expression) -> Expression | None:
            if isinstance(x, Access) and x.tensor in names:
                return replace(x, tensor=names[x.tensor])
            return None

        einsums: list[Einsum] = []
        for place, einsum in enumerate(self.cascade.einsums):
            body = self.body(place, held)
            new = einsum
            if body != einsum.body:
                folded = fold(body, infinite=self.infinite)
                new = replace(einsum, body=rewrite(folded, rule))
            if einsum.name not in names:
                einsums.append(new)
                continue
            output = replace(einsum.output, tensor=names[einsum.name])
            einsums.append(replace(new, output=output))
            restored = Apply("*", (output, Constant(LN_2)))
            einsums.append(replace(einsum, body=restored, filter=None))
        return replace(self.cascade, einsums=tuple(einsums))


def body_cost(body: Expression, sizes: Mapping[str, int]) -> float:
    """Return the cost of a body; a scalar factor of a sum can leave, so it counts outside."""
    if not isinstance(body, Reduce) or body.reducer != "sum":
        return cost(body, sizes)
    _, parts = factors(body.body)
    scalars = [x for x in parts if is_scalar(x.expression)]
    if not scalars:
        return cost(body, sizes)
    inside = write_product(tuple(x for x in parts if x not in scalars))
    return cost(inside, sizes) + weight(free_ranks(body), sizes)
