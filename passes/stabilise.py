"""Stabilise: give sums of exponentials a frame that keeps them in range, or take it away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import networkx

from ..ir.cascade import Cascade, Einsum, Scalar, dependencies
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    RankVariable,
    Reduce,
    accesses,
    free_ranks,
    rewrite,
    walk,
)
from .align import conjunction, fresh
from .facts import is_plain, pointwise
from .ranges import Ranges, ranges
from .reframe import Graded, Reframing
from .stream_roles import backward_slice
from .stream_terms import canonical, scaled_terms, write_terms

STATIC = 8.0
"""How far from 0 an exponent may go without a frame: e ** 8 and e ** -8 are normal in float16."""

ROUNDS = 8
"""How often the exponentials of one frame may be joined by others."""


def stabilise(
    cascade: Cascade,
    *,
    parameters: Mapping[str, Scalar] | None = None,
    static: float = STATIC,
) -> Cascade:
    """Give every normalised sum of exponentials a maximum to stand on.

    ::

        N[p, m] = exp(S[p, m])
        D[p]    = sum[m](N[p, m])
        U[p, f] = sum[m](N[p, m] * V[m, f])
        O[p, f] = U[p, f] / D[p]
        L[p]    = log(D[p])
        -->
        S_max[p] = max[m](S[p, m])
        N[p, m]  = exp(S[p, m] - S_max[p])
        D[p]     = sum[m](N[p, m])
        U[p, f]  = sum[m](N[p, m] * V[m, f])
        O[p, f]  = U[p, f] / D[p]
        L_framed[p] = log(D[p])
        L[p]     = L_framed[p] + S_max[p]
        return O, L

    A frame is put in where an exponent has no known upper bound and the factor that it takes away
    goes out again in a quotient or a logarithm; where a result would change, the factor or its
    logarithm is put back. A term without the factor that is added to such a sum joins the maximum.
    A sum that is never normalised stays as it is: a frame would have to be undone, with overflow.
    Where a logarithm is taken of an exponential itself, as in log(1 + exp(S[p, m])), each point has
    a frame of its own.

    A frame that is there goes away where the exponent is known to stay within ``static`` of 0
    without it. ``parameters`` are values known for certain; defaults are not.

    Requires: a flat cascade. Keeps: every output's value up to rounding, and where it exists.
    Returns the cascade itself where there is nothing to do.
    See: theory 3.2 (frame freedom) and 3.3.
    """
    # Each round settles the exponentials of one frame at least.
    for _ in range(len(cascade.einsums)):
        known = ranges(cascade, parameters=parameters)
        found = drop_frame(cascade, known, static) or put_frame(cascade, known, static)
        if found is None:
            break
        cascade = found
    return cascade


@dataclass(frozen=True, slots=True)
class Place:
    """An exponential in an einsum: its exponent, and the filter under which it is summed.

    alone : whether a logarithm of the same einsum is taken of it, which takes away a frame of each
    of its points.
    """

    einsum: str
    operator: str
    exponent: Expression
    summed: tuple[str, ...]
    filter: Expression | None
    alone: bool = False


def exponentials(cascade: Cascade) -> Iterator[Place]:
    """Yield the exponentials of plain einsums with the ranks over which they are summed first."""
    for einsum in cascade.einsums:
        if not is_plain(einsum):
            continue
        body = einsum.body.body if isinstance(einsum.body, Reduce) else einsum.body
        if not pointwise(body):
            continue
        logs = [y for y in walk(body) if isinstance(y, Apply) and y.operator in ("log", "log2")]
        for x in walk(body):
            match x:
                case Apply("exp" | "exp2" as operator, (inner,)) if any(x in walk(y) for y in logs):
                    yield Place(einsum.name, operator, inner, (), einsum.filter, alone=True)
                case Apply("exp" | "exp2" as operator, (inner,)):
                    ranks, filters = summed(cascade, einsum, inner)
                    conditions = [f for f in (einsum.filter, *filters) if f is not None]
                    filter = conjunction(conditions)
                    yield Place(einsum.name, operator, inner, ranks, filter)


def summed(
    cascade: Cascade, einsum: Einsum, exponent: Expression
) -> tuple[tuple[str, ...], tuple[Expression | None, ...]]:
    """Return the ranks of the first sums over an exponent's ranks, and a filter they all have."""
    varying = set(free_ranks(exponent))
    front, seen = [einsum], {einsum.name}
    while front:
        found: list[Reduce] = []
        after: list[Einsum] = []
        for e in front:
            if isinstance(e.body, Reduce):
                if e.body.reducer == "sum" and varying & set(e.body.ranks):
                    found.append(e.body)
            else:
                after += [r for r in cascade.einsums if e.name in r.reads and r.name not in seen]
        if found:
            ranks = tuple(r for r in found[0].ranks if r in varying)
            filters = {canonical(r.filter) if r.filter else None for r in found}
            return ranks, ((found[0].filter,) if len(filters) == 1 else ())
        seen |= {e.name for e in after}
        front = after
    return (), ()


def put_frame(cascade: Cascade, known: Ranges, static: float) -> Cascade | None:
    """Subtract a maximum from the first exponent that needs one; None where none does."""
    places = [p for p in exponentials(cascade) if p.summed or p.alone]
    for place in places:
        if known.bounded_above(place.exponent, place.filter) <= static:
            continue
        kept = tuple(r for r in free_ranks(place.exponent) if r not in place.summed)
        found = _Framing(cascade, known, static, kept, place).framed()
        if found is not None:
            return found
    return None


@dataclass(slots=True)
class _Framing:
    """One frame to put in: the exponentials that share it are found by trying."""

    cascade: Cascade
    known: Ranges
    static: float
    ranks: tuple[str, ...]
    first: Place

    def framed(self) -> Cascade | None:
        """Return the cascade with the frame, or None where nothing is won by it."""
        seeds = [self.first.exponent]
        zero = False
        for _ in range(ROUNDS):
            taken = {*self.cascade.inputs, *self.cascade.ranks}
            taken |= {n for n, _ in self.cascade.parameters}
            taken |= {e.name for e in self.cascade.einsums}
            match self.first.exponent:
                case Access(tensor=tensor):
                    name = fresh(f"{tensor}_max", taken)
                case _:
                    name = fresh(f"{self.first.einsum}_max", taken)
            frame = Access(name, tuple(RankVariable(r) for r in self.ranks))
            made = self.maxima(frame, seeds, zero, taken)
            if made is None:
                return None
            writers = {e.name: e for e in self.cascade.einsums}
            keys = frozenset(canonical(x) for x in seeds)
            pass_ = Reframing(frame, self.first.operator, keys, writers)
            einsums = [pass_.einsum(e) for e in self.cascade.einsums]
            more = [x for y in pass_.loose for x in self.inside(y)]
            more = list({canonical(x): x for x in more if canonical(x) not in keys}.values())
            if more or (pass_.loose and not zero and not self.all_joined(pass_.loose, keys)):
                seeds += more
                zero = zero or not more
                continue
            if pass_.failed or pass_.moved or not pass_.cancelled:
                return None
            return finished(self.cascade, (*made, *einsums), pass_, taken)
        return None

    def inside(self, x: Expression) -> Iterator[Expression]:
        """Yield the unbounded exponents that an expression is made of."""
        for y in walk(x):
            match y:
                case Apply(operator, (inner,)) if operator == self.first.operator:
                    frame = isinstance(inner, Apply) and inner.operator == "neg"
                    if not frame and self.known.bounded_above(inner) > self.static:
                        yield inner
                case Access(tensor=tensor) if tensor in self.known.writers:
                    body = self.known.writers[tensor].body
                    yield from self.inside(body.body if isinstance(body, Reduce) else body)
                case _:
                    continue

    def all_joined(self, loose: list[Expression], keys: frozenset[Expression]) -> bool:
        """Whether every loose term is an exponential of the frame's own."""
        return all(any(canonical(x) in keys for x in self.inside(y)) for y in loose)

    def maxima(
        self, frame: Access, seeds: list[Expression], zero: bool, taken: set[str]
    ) -> tuple[Einsum, ...] | None:
        """Write the frame: the largest of all the exponents that share it."""
        parts: list[Expression] = []
        for exponent in seeds:
            filters: dict[Expression | None, Expression | None] = {}
            for place in exponentials(self.cascade):
                if canonical(place.exponent) == canonical(exponent):
                    key = None if place.filter is None else canonical(place.filter)
                    filters.setdefault(key, place.filter)
            varying = set(free_ranks(exponent))
            if not set(self.ranks) >= varying and not varying >= set(self.ranks):
                return None
            over = tuple(r for r in free_ranks(exponent) if r not in self.ranks)
            for filter in filters.values() or (None,):
                if over:
                    parts.append(Reduce("max", over, exponent, filter))
                else:
                    parts.append(exponent)
        if zero:
            parts.append(Constant(0))
        if len(parts) == 1:
            return (Einsum(frame, parts[0]),)
        made: list[Einsum] = []
        read: list[Expression] = []
        for part in parts:
            if isinstance(part, Reduce):
                name = fresh(f"{frame.tensor}_part", taken)
                made.append(Einsum(replace(frame, tensor=name), part))
                part = made[-1].output
            read.append(part)
        total = read[0]
        for part in read[1:]:
            total = Apply("max", (total, part))
        return (*made, Einsum(frame, total))


def drop_frame(cascade: Cascade, known: Ranges, static: float) -> Cascade | None:
    """Take the first frame away that keeps nothing in range; None where all are needed."""
    for name in frames(cascade, known, static):
        writer = known.writers[name]
        frame = writer.output
        operators = {p.operator for p in exponentials(cascade) if name in reads(p.exponent)}
        if len(operators) != 1:
            continue
        writers = {e.name: e for e in cascade.einsums}
        pass_ = Reframing(frame, operators.pop(), frozenset(), writers, {name: (0, 1)})
        einsums = [e if e.name == name else pass_.einsum(e) for e in cascade.einsums]
        if pass_.failed or pass_.moved or pass_.loose:
            continue
        pass_.grades.pop(name)
        taken = {*cascade.inputs, *cascade.ranks, *(n for n, _ in cascade.parameters)}
        taken |= {e.name for e in cascade.einsums}
        after = finished(cascade, tuple(einsums), pass_, taken)
        if after is not None and name not in {r for e in after.einsums for r in e.reads}:
            return after
    return None


def reads(expression: Expression) -> set[str]:
    """Return the tensors that an expression reads."""
    return {a.tensor for a in accesses(expression)}


def frames(cascade: Cascade, known: Ranges, static: float) -> Iterator[str]:
    """Yield maxima that are subtracted from exponents which stay near 0 without them."""
    for name, writer in known.writers.items():
        match writer.body:
            case Reduce(reducer="max") | Apply(operator="max"):
                pass
            case _:
                continue
        exponents = [p.exponent for p in exponentials(cascade) if name in reads(p.exponent)]
        bounds = []
        for exponent in exponents:
            rest = scaled_terms(Apply("+", (exponent, writer.output)))
            if name in reads(write_terms(rest)):
                bounds.append((-static - 1, static + 1))
            else:
                bounds.append(known.bounds(write_terms(rest)))
        if bounds and all(-static <= low and high <= static for low, high in bounds):
            yield name


def finished(
    cascade: Cascade, einsums: tuple[Einsum, ...], pass_: Reframing, taken: set[str]
) -> Cascade | None:
    """Repair the outputs that lack something, leave out what is no longer read, and sort."""
    renamed = {n: fresh(f"{n}_framed", taken) for n in cascade.outputs if n in pass_.grades}
    made: list[Einsum] = []
    for e in einsums:
        made.append(rename(e, renamed))
        if e.name in renamed:
            degree, shift = pass_.grades[e.name]
            new = Access(renamed[e.name], e.output.coordinates)
            value: Expression = new
            if degree:
                value = Apply("*", (new, pass_.factor(degree)))
            if shift:
                value = pass_.unshifted(Graded(new, 0, shift)).expression
            made.append(Einsum(e.output, value, e.filter, e.at))
    before = {e.name for e in backward_slice(cascade, cascade.outputs)}
    new_cascade = replace(cascade, einsums=tuple(made))
    alive = {e.name for e in backward_slice(new_cascade, cascade.outputs)}
    kept = tuple(e for e in made if e.name in alive or e.name not in before)
    return replace(cascade, einsums=in_order(replace(cascade, einsums=kept)))


def rename(e: Einsum, names: Mapping[str, str]) -> Einsum:
    """Give tensors other names."""

    def rule(x: Expression) -> Expression | None:
        if isinstance(x, Access) and x.tensor in names:
            return replace(x, tensor=names[x.tensor])
        return None

    if not {e.name, *e.reads} & set(names):
        return e
    filter = None if e.filter is None else rewrite(e.filter, rule)
    output = replace(e.output, tensor=names.get(e.name, e.name))
    return replace(e, output=output, body=rewrite(e.body, rule), filter=filter)


def in_order(cascade: Cascade) -> tuple[Einsum, ...]:
    """Return the einsums so that each stands after what it reads, as near as they stood."""
    graph = dependencies(cascade)
    graph.remove_edges_from(list(networkx.selfloop_edges(graph)))
    if not networkx.is_directed_acyclic_graph(graph):
        return cascade.einsums
    place = {e.name: k for k, e in reversed(list(enumerate(cascade.einsums)))}
    order = list(networkx.lexicographical_topological_sort(graph, key=lambda n: place.get(n, -1)))
    return tuple(sorted(cascade.einsums, key=lambda e: order.index(e.name)))
