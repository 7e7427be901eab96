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

from .axes import known_axes, reads_of, reads_with_ranks
from .cascade import Cascade, Scalar
from .errors import ShapeError
from .expression import Expression, RankVariable
from .plain_ranks import plain_sizes
from .size_rules import RULES, Sizes

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
    found = Sizes(cascade, bound)
    for rank, size in given.items():
        found.learn(rank, int(size), f"sizes={{{rank!r}: {int(size)}}}")
    for tensor in cascade.inputs:
        for access in reads_of(cascade, tensor):
            for rank, size in _plain(access.coordinates, shapes[tensor]):
                found.learn(rank, size, f"{tensor} {tuple(shapes[tensor])}")
    progress = True
    while progress:
        progress = any(rule(found, shapes) for rule in RULES)
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
    shape = known_axes(cascade, tensor, sizes)
    if None in shape:
        raise ShapeError(
            f"rank {shape.index(None)} of {tensor} is only read through expressions: "
            f"its size is that of the argument."
        )
    return tuple(x for x in shape if x is not None)


def _check_arguments(
    cascade: Cascade, shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, int]
) -> None:
    for tensor in cascade.inputs:
        if tensor not in shapes:
            raise ShapeError(
                f"{cascade.name} reads {tensor}, which is missing: "
                f"pass {', '.join(cascade.inputs)}, in this order."
            )
        for access, ranks in reads_with_ranks(cascade, tensor):
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


def _plain(
    coordinates: tuple[Expression, ...], shape: tuple[int | None, ...]
) -> Iterator[tuple[str, int]]:
    for coordinate, size in zip(coordinates, shape, strict=False):
        if isinstance(coordinate, RankVariable) and size is not None:
            yield coordinate.rank, size
