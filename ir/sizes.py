"""Sizes: how large every rank of a cascade is, from the shapes of its arguments.

What gives a rank its size, in order; each rule runs until nothing new follows:

::

    given                sizes={"m0": 64}
    a plain coordinate   K[m, e]                     m and e have the sizes of K's shape
    a selection          T[p, j] = topk[m, k](...)   j has k slots (threshold, cover: size(m))
    a concatenation      C[n] = concat[n](A[m], B[c])    size(n) = size(m) + size(c)
    a mixed radix        K[m1 * M0 + m0]             size(m0) = M0, size(m1) = ceil(size / M0)
    a plain coordinate of an iterative tensor, H[j]  its number of generations
    a quotient           page[m // 64]               size(m) = 64 * size
    a filter             m: m < W                    size(m) = W, where nothing else is known

Where an argument and anything else disagree, that is an error; a quotient and a filter are bounds,
and are asked only for ranks that have no other size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, floor, isfinite

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
    walk,
)
from .plain_ranks import plain_sizes
from .scalar import scalar

WHOLE = 2**63
"""Whole numbers are below it."""


def bind_parameters(cascade: Cascade, parameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return every parameter's value: what was given, else its default.

    Raises ShapeError for a parameter without a value and for a name that is no parameter.
    """
    known = dict(cascade.parameters)
    for name in parameters:
        if name not in known:
            listing = ", ".join(known) if known else "none"
            raise ShapeError(
                f"{cascade.name} has no parameter {name!r} (its parameters: {listing}): "
                f"leave {name!r} out."
            )
    values = {name: parameters.get(name, default) for name, default in known.items()}
    bound: dict[str, Scalar] = {}
    for name, value in values.items():
        if value is None:
            raise ShapeError(f"parameter {name!r} of {cascade.name} has no value: pass {name}=....")
        if not isinstance(value, int | float | bool):
            number = value.item() if hasattr(value, "item") else None
            if not isinstance(number, int | float | bool):
                raise ShapeError(
                    f"parameter {name!r} of {cascade.name} is a number; "
                    f"{type(value).__name__} given."
                )
            value = number
        if value != value or isinstance(value, int) and abs(value) >= WHOLE:
            raise ShapeError(
                f"parameter {name!r} of {cascade.name} is a number that kernels can hold; "
                f"{value} given{' (inf and -inf are numbers)' if value != value else ''}."
            )
        bound[name] = value
    return bound


def rank_sizes(
    cascade: Cascade,
    shapes: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, Scalar],
    given: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return the size of every rank of the cascade.

    ``shapes`` has the shape of every input; ``given`` the sizes that the caller states.
    Raises ShapeError where arguments disagree (naming the rank, both sizes and both tensors), have
    the wrong number of ranks, are missing or unknown, and for a rank whose size nothing gives.
    """
    given = given or {}
    bound = bind_parameters(cascade, parameters)
    seen = None if given else plain_sizes(cascade, shapes)
    if seen is not None:
        return seen
    _check_arguments(cascade, shapes, given)
    found = _Sizes(cascade, bound)
    for rank, size in given.items():
        found.learn(rank, int(size), f"sizes={{{rank!r}: {int(size)}}}")
    for tensor in cascade.inputs:
        for access in _reads(cascade, tensor):
            for rank, size in _plain(access.coordinates, shapes[tensor]):
                found.learn(rank, size, f"{tensor} {tuple(shapes[tensor])}")
    rules = (
        *(_selections_and_parts, _mixed_radix, _computed, _turned, _generations, _quotients),
        _filters,
    )
    # A weaker rule runs only when every stronger one has nothing to add.
    progress = True
    while progress:
        progress = any(rule(found, shapes) for rule in rules)
    for rank in cascade.ranks:
        if rank not in found.sizes:
            raise ShapeError(
                f"rank {rank!r} of {cascade.name} has no size: no argument has it as a plain "
                f"coordinate. Let an input have it, a mask of zeros, say; interpret and lower also "
                f'take sizes={{"{rank}": 64}}.'
            )
    return {rank: found.sizes[rank] for rank in cascade.ranks}


def tensor_shape(cascade: Cascade, tensor: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of ``tensor``; along an iterative rank it has size + 1 generations.

    Raises ShapeError for an input with a rank that is read through expressions only, since sizes do
    not say how large that is.
    """
    shape = _shape(cascade, tensor, sizes)
    if None in shape:
        raise ShapeError(
            f"rank {shape.index(None)} of {tensor} is only read through expressions: "
            f"its size is that of the argument."
        )
    return tuple(x for x in shape if x is not None)


def ranks_of(cascade: Cascade, tensor: str) -> tuple[str | None, ...]:
    """Return the rank along each axis of ``tensor``; None where it is never a plain coordinate.

    An iterative rank stands for its ``i + 1`` generations. An input that different einsums read at
    different ranks (``X[p, e]`` and ``X[m, e]``) has the ranks of the first.
    """
    writers = [e.output.coordinates for e in cascade.einsums if e.name == tensor]
    if writers:
        return tuple(
            next((rank for c in written for rank in free_ranks(c)), None)
            for written in zip(*writers, strict=True)
        )
    reads = list(_reads(cascade, tensor))
    if not reads:
        raise KeyError(tensor)
    ranks: list[str | None] = [None] * max(len(access.coordinates) for access in reads)
    for access in reads:
        for axis, coordinate in enumerate(access.coordinates):
            if isinstance(coordinate, RankVariable) and ranks[axis] is None:
                ranks[axis] = coordinate.rank
    return tuple(ranks)


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


@dataclass(slots=True)
class _Sizes:
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
        return scalar(expression, self.sizes, self.parameters)


def _check_arguments(
    cascade: Cascade, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, int]
) -> None:
    for tensor in cascade.inputs:
        if tensor not in shapes:
            raise ShapeError(
                f"{cascade.name} reads {tensor}, which is missing: "
                f"pass {', '.join(cascade.inputs)}, in this order."
            )
        for access, ranks in _reads_with_ranks(cascade, tensor):
            if ranks != len(shapes[tensor]):
                error = ShapeError(
                    f"{tensor} has {ranks} ranks in {cascade.name}; an argument of shape "
                    f"{tuple(shapes[tensor])} has {len(shapes[tensor])}."
                )
                error.add_note(f"{tensor} is read at {access.at}")
                raise error
    for tensor in shapes:
        if tensor not in cascade.inputs:
            listing = ", ".join(cascade.inputs)
            raise ShapeError(f"{cascade.name} has no input {tensor!r}; its inputs are {listing}.")
    for rank, size in given.items():
        if rank not in cascade.ranks:
            listing = ", ".join(cascade.ranks)
            raise ShapeError(
                f"sizes names {rank!r}, which is no rank of {cascade.name} (its ranks: {listing})."
            )
        if size < 0:
            raise ShapeError(f"rank {rank!r} cannot have size {size}: a size is 0 or more.")


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


def _right(einsum: Einsum) -> Iterator[Expression]:
    """Yield every expression of body and filter."""
    yield from walk(einsum.body)
    if einsum.filter is not None:
        yield from walk(einsum.filter)


def _reads_with_ranks(cascade: Cascade, tensor: str) -> Iterator[tuple[Access, int]]:
    """Yield each access of ``tensor`` and how many ranks it says that the tensor has."""
    for einsum in cascade.einsums:
        if tensor not in einsum.reads:
            continue
        fibers: set[int] = set()
        for x in _right(einsum):
            match x:
                case Apply(operator="in", operands=(_, Access() as access)):
                    fibers.add(id(access))  # a fiber's access has one coordinate fewer
            if isinstance(x, Access) and x.tensor == tensor:
                yield x, len(x.coordinates) + (id(x) in fibers)


def _reads(cascade: Cascade, tensor: str) -> Iterator[Access]:
    return (access for access, _ in _reads_with_ranks(cascade, tensor))


def _plain(
    coordinates: tuple[Expression, ...], shape: tuple[int | None, ...]
) -> Iterator[tuple[str, int]]:
    for coordinate, size in zip(coordinates, shape, strict=False):
        if isinstance(coordinate, RankVariable) and size is not None:
            yield coordinate.rank, size


def _shape(cascade: Cascade, tensor: str, sizes: Mapping[str, int]) -> tuple[int | None, ...]:
    """Return the shape of a tensor as far as it is known."""
    if tensor in cascade.inputs:
        ranks = ranks_of(cascade, tensor)
        return tuple(None if rank is None else sizes.get(rank) for rank in ranks)
    writers = [e.output.coordinates for e in cascade.einsums if e.name == tensor]
    shape: list[int | None] = []
    for written in zip(*writers, strict=True):
        # The last coordinate that any writer reaches, whatever it is written as, plus one.
        lasts: list[Scalar | None] = []
        for c in written:
            read = {*free_ranks(c), *(x.rank for x in walk(c) if isinstance(x, Size))}
            ends = {r: Constant(sizes[r] - 1) for r in free_ranks(c) if r in sizes}
            known = read <= set(sizes)
            lasts.append(scalar(substitute(c, dict(ends)), sizes, {}) if known else None)
        reached = [int(last) for last in lasts if last is not None]
        shape.append(max(reached) + 1 if len(reached) == len(lasts) else None)
    return tuple(shape)


def _known_shape(
    found: _Sizes, shapes: Mapping[str, tuple[int, ...]], tensor: str
) -> tuple[int | None, ...]:
    return shapes[tensor] if tensor in shapes else _shape(found.cascade, tensor, found.sizes)


def _turned(found: _Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Learn that a rank read backwards, or rolled, is as long as what it is read from."""
    news = False
    for tensor in found.cascade.inputs:
        for access in _reads(found.cascade, tensor):
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


def _selections_and_parts(found: _Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
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


def _computed(found: _Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return _from_computed(found, shapes, generations=False)


def _generations(found: _Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return _from_computed(found, shapes, generations=True)


def _from_computed(
    found: _Sizes, shapes: Mapping[str, tuple[int, ...]], *, generations: bool
) -> bool:
    """Read sizes off plain coordinates of tensors that the cascade computes.

    Generations are read off last and never compared: ``H[i]`` of size(i) + 1 generations is how the
    step reads the one before it.
    """
    for einsum in found.cascade.einsums:
        for x in _right(einsum):
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


def _mixed_radix(found: _Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
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


def _radix(coordinate: Expression, found: _Sizes) -> dict[str, int] | None:
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
    found: _Sizes, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[Expression, int]]:
    """Yield every coordinate that is read, with the size of the tensor there, where known."""
    for einsum in found.cascade.einsums:
        for x in _right(einsum):
            if isinstance(x, Access):
                shape = _known_shape(found, shapes, x.tensor)
                for coordinate, size in zip(x.coordinates, shape, strict=False):
                    if size is not None:
                        yield coordinate, size


def _quotients(found: _Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    for coordinate, size in _coordinates(found, shapes):
        match coordinate:
            case Apply(operator="//", operands=(RankVariable(rank=rank), by)):
                divisor = found.number(by)
                if rank not in found.sizes and isinstance(divisor, int) and divisor > 0:
                    return found.learn(rank, divisor * size, "a quotient coordinate")
    return False


def _filters(found: _Sizes, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Bound a rank by ``m < W`` or ``m <= p`` in the conjuncts of a filter."""
    for einsum in found.cascade.einsums:
        filters = [] if einsum.filter is None else [einsum.filter]
        filters += [x.filter for x in _right(einsum) if isinstance(x, Reduce) and x.filter]
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
