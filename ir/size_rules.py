"""How sizes of ranks follow from each other: one rule a function, until nothing new follows.

``sizes.py`` lists the rules in their order. Each takes what is known and the shapes of the inputs,
adds what follows, and returns whether that is anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, floor, isfinite

from .axes import known_axes, reads_of, right_sides
from .cascade import Cascade, Einsum, Scalar
from .errors import RankError, ShapeError
from .expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Populate,
    RankVariable,
    Reduce,
    Size,
    children,
    free_ranks,
    substitute,
)
from .scalar import scalar


@dataclass(slots=True)
class Sizes:
    """What is known so far, and from where; the only thing here that changes."""

    cascade: Cascade
    parameters: Mapping[str, Scalar]
    sizes: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def learn(self, rank: str, size: int, source: str) -> bool:
        """Record a size; whether it is new. A second, different one is an error."""
        if rank not in self.sizes:
            self.sizes[rank], self.sources[rank] = size, source
            return True
        if self.sizes[rank] != size:
            raise ShapeError(
                f"rank {rank!r} has size {self.sizes[rank]} in {self.sources[rank]} "
                f"and {size} in {source}: one rank has one size."
            )
        return False

    def number(self, expression: Expression) -> Scalar | None:
        """Return an expression's value, None where it is not known yet."""
        return scalar(expression, self.sizes, self.parameters)


def part_rank(part: Expression, scope: frozenset[str]) -> str:
    """Return the one rank of a concatenated part that its surroundings (``scope``) have not."""
    own = tuple(rank for rank in free_ranks(part) if rank not in scope)
    if len(own) != 1:
        raise RankError(
            f"a part of a concatenation has one rank of its own; this one has "
            f"{', '.join(own) or 'none'}.",
            part.at,
        )
    return own[0]


def _known_shape(
    found: Sizes, shapes: Mapping[str, tuple[int, ...]], tensor: str
) -> tuple[int | None, ...]:
    return shapes[tensor] if tensor in shapes else known_axes(found.cascade, tensor, found.sizes)


def _turned(found: Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Learn that a rank read backwards, or rolled, is as long as what it is read from."""
    news = False
    for tensor in found.cascade.inputs:
        for access in reads_of(found.cascade, tensor):
            for c, size in zip(access.coordinates, shapes[tensor], strict=False):
                match c:
                    case Apply("-", (Apply("-", (Size(rank=of), Constant(1))), RankVariable(rank))):
                        pass
                    case Apply("%", (Apply("+" | "-", (RankVariable(rank), by)), Size(rank=of))):
                        of = "" if free_ranks(by) else of
                    case _:
                        continue
                if of == rank:
                    news |= found.learn(rank, size, f"{tensor} {tuple(shapes[tensor])}")
    return news


def _selections_and_parts(found: Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    news = False
    for einsum in found.cascade.einsums:
        for x, scope in _scoped(einsum):
            match x:
                case Populate(selector=selector, rank=rank, argument=argument):
                    lists = [r for r in einsum.ranks if r not in free_ranks(x)]
                    if len(lists) != 1:
                        raise RankError(
                            f"a selection writes one list rank, which only {einsum.name} has; "
                            f"{len(lists)} found.",
                            x.at,
                        )
                    slots = found.number(argument) if selector == "topk" else None
                    size = found.sizes.get(rank) if slots is None else int(slots)
                    if size is not None:
                        if size < 0:
                            raise ShapeError(f"{einsum.name} selects {size}: select 0 or more.")
                        source = f"the selection that writes {einsum.name}"
                        news |= found.learn(lists[0], size, source)
                case Concatenate(rank=rank, parts=parts):
                    own = [found.sizes.get(part_rank(part, scope)) for part in parts]
                    lengths = [n for n in own if n is not None]
                    if len(lengths) == len(parts):
                        text = " + ".join(map(str, lengths))
                        source = f"the concatenation of {text} that writes {einsum.name}"
                        news |= found.learn(rank, sum(lengths), source)
    return news


def _computed(found: Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return _from_computed(found, shapes, generations=False)


def _generations(found: Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return _from_computed(found, shapes, generations=True)


def _from_computed(
    found: Sizes, shapes: Mapping[str, tuple[int, ...]], *, generations: bool
) -> bool:
    """Read sizes off plain coordinates of tensors that the cascade computes.

    Generations are read off last and never compared: ``H[i]`` of size(i) + 1 generations is how the
    step reads the one before it.
    """
    for einsum in found.cascade.einsums:
        for x in right_sides(einsum):
            if isinstance(x, Access) and x.tensor not in shapes:
                shape = _known_shape(found, shapes, x.tensor)
                written = [
                    e.output.coordinates for e in found.cascade.einsums if e.name == x.tensor
                ]
                for axis, (coordinate, size) in enumerate(zip(x.coordinates, shape, strict=False)):
                    if size is None or not isinstance(coordinate, RankVariable):
                        continue
                    plain = all(isinstance(output[axis], RankVariable) for output in written)
                    if plain == generations or (generations and coordinate.rank in found.sizes):
                        continue
                    if found.learn(coordinate.rank, size, f"{x.tensor} {shape}"):
                        return True
    return False


def _mixed_radix(found: Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    news = False
    for access, size in _coordinates(found, shapes):
        terms = _radix(access, found)
        if terms is None:
            continue
        above: int | None = None
        for rank, weight in sorted(terms.items(), key=lambda term: -term[1]):
            if rank not in found.sizes:
                digits = -(-size // weight) if above is None else above // weight
                news |= found.learn(rank, digits, "a mixed radix coordinate")
            above = weight
    return news


def _radix(coordinate: Expression, found: Sizes) -> dict[str, int] | None:
    """Return each rank's weight in ``m1 * M0 + m0``, or None where it is no mixed radix."""
    terms: dict[str, int] = {}
    written_as_product: list[str] = []

    def visit(x: Expression, factor: int) -> bool:
        match x:
            case RankVariable(rank=rank) if rank not in terms:
                terms[rank] = factor
                return True
            case Apply(operator="+", operands=(a, b)):
                return visit(a, factor) and visit(b, factor)
            case Apply(operator="*", operands=(a, b)):
                for inner, outer in ((a, found.number(b)), (b, found.number(a))):
                    if isinstance(outer, int) and outer > 0:
                        written_as_product.extend(free_ranks(inner))
                        return visit(inner, factor * outer)
        return False

    if isinstance(coordinate, RankVariable) or not visit(coordinate, 1):
        return None
    weights = sorted(terms.items(), key=lambda term: -term[1])
    for (rank, weight), (_, below) in zip(weights, weights[1:], strict=False):
        # `p + s` has equal weights too, but is a shift; `m1 * M0 + m0` with M0 = 1 is a radix.
        if rank not in written_as_product or weight % below:
            return None
    return terms


def _coordinates(
    found: Sizes, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[Expression, int]]:
    """Yield every coordinate that is read, with the size of the tensor there, where known."""
    for einsum in found.cascade.einsums:
        for x in right_sides(einsum):
            if isinstance(x, Access):
                shape = _known_shape(found, shapes, x.tensor)
                for coordinate, size in zip(x.coordinates, shape, strict=False):
                    if size is not None:
                        yield coordinate, size


def _quotients(found: Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    for coordinate, size in _coordinates(found, shapes):
        match coordinate:
            case Apply(operator="//", operands=(RankVariable(rank=rank), by)):
                divisor = found.number(by)
                if rank not in found.sizes and isinstance(divisor, int) and divisor > 0:
                    return found.learn(rank, divisor * size, "a quotient coordinate")
    return False


def _filters(found: Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Bound a rank by ``m < W`` or ``m <= p`` in the conjuncts of a filter."""
    for einsum in found.cascade.einsums:
        filters = [] if einsum.filter is None else [einsum.filter]
        filters += [x.filter for x in right_sides(einsum) if isinstance(x, Reduce) and x.filter]
        for conjunct in (c for f in filters for c in _conjuncts(f)):
            match conjunct:
                case Apply(operator="<" | "<=" as operator, operands=(RankVariable(rank=r), above)):
                    pass
                case Apply(operator=">" | ">=" as operator, operands=(above, RankVariable(rank=r))):
                    pass
                case _:
                    continue
            if r in found.sizes or r in free_ranks(above):
                continue
            if any(rank not in found.sizes for rank in free_ranks(above)):
                continue
            # A coordinate is largest at its rank's end, and only +, * and the like occur here;
            # both ends are tried, so that `m < N - p` is bounded too.
            bounds = []
            for end in (lambda n: max(n - 1, 0), lambda n: 0):
                at = {x: Constant(end(found.sizes[x])) for x in free_ranks(above)}
                bounds.append(found.number(substitute(above, dict(at))))
            reached = [b for b in bounds if b is not None and isfinite(b)]
            if len(reached) == 2:
                bound = max(reached)
                size = ceil(bound) if operator in ("<", ">") else floor(bound) + 1
                return found.learn(r, max(size, 0), "a filter")
    return False


def _conjuncts(filter: Expression) -> Iterator[Expression]:
    match filter:
        case Apply(operator="and", operands=parts):
            for part in parts:
                yield from _conjuncts(part)
        case _:
            yield filter


def _scoped(einsum: Einsum) -> Iterator[tuple[Expression, frozenset[str]]]:
    """Yield every expression of body and filter with the ranks that are bound around it."""

    def visit(x: Expression, scope: frozenset[str]) -> Iterator[tuple[Expression, frozenset[str]]]:
        yield x, scope
        inner = scope
        match x:
            case Reduce(ranks=ranks):
                inner = scope | set(ranks)
            case Populate(rank=rank):
                inner = scope | {rank}
        for child in children(x):
            yield from visit(child, inner)

    scope = frozenset(einsum.ranks)
    yield from visit(einsum.body, scope)
    if einsum.filter is not None:
        yield from visit(einsum.filter, scope)


RULES = (
    *(_selections_and_parts, _mixed_radix, _computed, _turned, _generations, _quotients),
    _filters,
)
"""All rules; a weaker one runs only when every stronger one has nothing to add."""
