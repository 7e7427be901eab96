"""Facts that can be proved of expressions by looking at them: signs, kinds, infinities, presence.

Every answer is one-sided: True means proved, False means unknown. Inputs and parameters are taken
to be finite; of their signs and kinds nothing is assumed. ``infinite``, ``positive``, ``present``
are sets of tensors, made for a whole cascade by the functions at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf, isfinite, isnan
from types import MappingProxyType

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Parameter,
    Populate,
    RankVariable,
    Reduce,
    Size,
    children,
    walk,
)
from ..ir.operators import OPERATORS

NO_SCALARS: Mapping[str, Scalar] = MappingProxyType({})
NO_SIZES: Mapping[str, int] = MappingProxyType({})
NONE: frozenset[str] = frozenset()

_ALWAYS_REAL = frozenset(
    (
        "random",
        "/",
        "exp",
        "exp2",
        "log",
        "log2",
        "sqrt",
        "rsqrt",
        "tanh",
        "sigmoid",
        "erf",
        "sin",
        "cos",
    )
)
_DECIDING = frozenset(
    (
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "in",
        "//",
        "%",
        "floor",
        "ceil",
        "bit_length",
        "not",
        "random",
    )
)
"""Operators whose result jumps where an operand changes by a rounding error."""


def is_scalar(expression: Expression) -> bool:
    """Whether the expression is one number for the whole cascade: it reads no rank, no tensor."""
    return not any(isinstance(x, Access | RankVariable | Reduce) for x in walk(expression))


def is_real(expression: Expression, real: frozenset[str] = NONE) -> bool:
    """Whether the values are floating point for certain; ``real`` are tensors known to be."""
    match expression:
        case Constant(value=value):
            return isinstance(value, float)
        case Access(tensor=tensor):
            return tensor in real
        case Apply(operator=operator) if operator in _ALWAYS_REAL:
            return True
        case Apply("+" | "-" | "*" | "//" | "%" | "min" | "max" | "**", operands):
            return any(is_real(x, real) for x in operands)
        case Apply("neg" | "abs" | "relu" | "floor" | "ceil" | "stop_gradient", (inner,)):
            return is_real(inner, real)
        case Apply("where", (_, x, y)):
            return is_real(x, real) or is_real(y, real)
        case Apply("default", (x, y)):
            return is_real(x, real) and is_real(y, real)
        case Reduce("sum" | "prod" | "max" | "min", _, body):
            return is_real(body, real)
        case _:
            return False


def is_integer(expression: Expression) -> bool:
    """Whether the values are whole numbers of integer kind for certain."""
    match expression:
        case Constant(value=value):
            return isinstance(value, int) and not isinstance(value, bool)
        case RankVariable() | Size():
            return True
        case Apply("+" | "-" | "*" | "//" | "%" | "neg" | "abs" | "min" | "max", operands):
            return all(is_integer(x) for x in operands)
        case Apply("bit_length", _):
            return True
        case _:
            return False


def is_boolean(expression: Expression) -> bool:
    """Whether the values are truth values for certain."""
    match expression:
        case Constant(value=value):
            return isinstance(value, bool)
        case Apply(operator=operator):
            return OPERATORS[operator].boolean
        case Reduce("any" | "all"):
            return True
        case _:
            return False


def is_finite(
    expression: Expression,
    infinite: frozenset[str] = NONE,
    positive: frozenset[str] = NONE,
    parameters: Mapping[str, Scalar] = NO_SCALARS,
) -> bool:
    """Whether finite inputs give finite values (overflow aside)."""

    def finite(x: Expression) -> bool:
        return is_finite(x, infinite, positive, parameters)

    match expression:
        case Constant(value=value):
            return isfinite(value)
        case Parameter(name=name):
            return isfinite(parameters.get(name, 0))
        case Access(tensor=tensor):
            return tensor not in infinite
        case Apply("log" | "log2" | "rsqrt", (inner,)):
            return finite(inner) and is_positive(inner, positive, infinite, parameters)
        case Apply("**", (base, exponent)):
            natural = isinstance(exponent, Constant) and exponent.value >= 0
            apart = natural or is_positive(base, positive, infinite, parameters)
            return apart and finite(base) and finite(exponent)
        case Reduce(reducer, _, body):
            return reducer not in ("max", "min") and finite(body)
        case Populate():
            return False
        case _:
            return all(finite(x) for x in children(expression))


def is_positive(
    expression: Expression,
    positive: frozenset[str] = NONE,
    infinite: frozenset[str] = NONE,
    parameters: Mapping[str, Scalar] = NO_SCALARS,
) -> bool:
    """Whether every value is above 0 (underflow aside). A rank is taken to have a coordinate."""

    def above(x: Expression) -> bool:
        return is_positive(x, positive, infinite, parameters)

    match expression:
        case Constant(value=value):
            return not isnan(value) and value > 0
        case Size():
            return True
        case Parameter(name=name):
            return parameters.get(name, 0) > 0
        case Access(tensor=tensor):
            return tensor in positive
        case Apply("exp" | "exp2" | "sigmoid", (inner,)):
            return is_finite(inner, infinite, positive, parameters)
        case Apply("*" | "/" | "+" | "min" | "default", operands):
            return all(above(x) for x in operands)
        case Apply("sqrt" | "rsqrt" | "relu" | "abs" | "stop_gradient", (inner,)):
            return above(inner)
        case Apply("**", (base, exponent)):
            return above(base) and is_finite(exponent, infinite, positive, parameters)
        case Apply("max", operands):
            return any(above(x) for x in operands)
        case Apply("where", (_, x, y)):
            return above(x) and above(y)
        case _:
            return False


def is_plain(einsum: Einsum) -> bool:
    """Whether an einsum writes each coordinate of distinct ranks: it is not iterative."""
    ranks = [c.rank for c in einsum.output.coordinates if isinstance(c, RankVariable)]
    return len(ranks) == len(einsum.output.coordinates) == len(set(ranks))


def plain_writers(cascade: Cascade) -> dict[str, Einsum]:
    """Return, by name, the tensors that one einsum writes at plain ranks."""
    count: dict[str, int] = {}
    for einsum in cascade.einsums:
        count[einsum.name] = count.get(einsum.name, 0) + 1
    return {e.name: e for e in cascade.einsums if count[e.name] == 1 and is_plain(e)}


def pointwise(expression: Expression) -> bool:
    """Whether an expression reduces, selects and concatenates nothing."""
    return not any(isinstance(x, Reduce | Populate | Concatenate) for x in walk(expression))


def needed(expression: Expression) -> Iterator[Access]:
    """Yield the accesses without which no point of a pointwise expression exists.

    The branches of ``where`` and what stands under ``default`` are needed at some points only.
    """
    match expression:
        case Access(coordinates=coordinates):
            yield expression
            for x in coordinates:
                yield from needed(x)
        case Apply("default" | "in", _):
            return
        case Apply("where", (condition, _, _)):
            yield from needed(condition)
        case _:
            for x in children(expression):
                yield from needed(x)


def is_present(
    expression: Expression, present: frozenset[str], writers: Mapping[str, Einsum]
) -> bool:
    """Whether every point of a pointwise expression exists.

    ``present`` are the tensors that have all their points. An input is read inside its shape by
    plain ranks, a written tensor by the ranks that it was written with.
    """
    for x in walk(expression):
        match x:
            case Access(tensor=tensor, coordinates=coordinates):
                writer = writers.get(tensor)
                inside = (
                    all(isinstance(c, RankVariable) for c in coordinates)
                    if writer is None
                    else coordinates == writer.output.coordinates
                )
                if tensor not in present or not inside:
                    return False
            case Apply("in", _):
                return False
            case _:
                pass
    return True


def present_tensors(cascade: Cascade) -> frozenset[str]:
    """Return the tensors all of whose points exist."""
    writers = plain_writers(cascade)
    found = set(cascade.inputs)
    for einsum in cascade.einsums:
        if einsum.filter is not None or einsum.name not in writers:
            continue
        if isinstance(einsum.body, Populate):
            continue
        if isinstance(einsum.body, Reduce) or is_present(einsum.body, frozenset(found), writers):
            found.add(einsum.name)
    return frozenset(found)


def infinite_tensors(cascade: Cascade) -> frozenset[str]:
    """Return the tensors that may hold an infinity although inputs and parameters are finite."""
    found: set[str] = set()
    positive = positive_tensors(cascade)
    while True:
        more = {
            e.name for e in cascade.einsums if not is_finite(e.body, frozenset(found), positive)
        }
        if more <= found:
            return frozenset(found)
        found |= more


def positive_tensors(cascade: Cascade) -> frozenset[str]:
    """Return the tensors whose values are above 0, from exponentials of what inputs bound."""
    writers = plain_writers(cascade)
    found: set[str] = set()
    infinite: set[str] = set()
    for einsum in cascade.einsums:
        known, endless = frozenset(found), frozenset(infinite)
        if einsum.name not in writers or not is_finite(einsum.body, endless, known):
            infinite.add(einsum.name)
        elif is_positive(einsum.body, known, endless):
            found.add(einsum.name)
    return frozenset(found)


def exact_tensors(cascade: Cascade) -> frozenset[str]:
    """Return the tensors that decide something: a filter, a coordinate, a comparison, a choice.

    A rounding error in one of them could move a point, so they are computed as they are written;
    and so is everything that they are computed from.
    """
    found: set[str] = set()
    for einsum in cascade.einsums:
        deciding: list[Expression] = [*einsum.output.coordinates]
        if einsum.filter is not None:
            deciding.append(einsum.filter)
        for x in walk(einsum.body):
            deciding += decisions(x)
        found |= {a.tensor for x in deciding for a in walk(x) if isinstance(a, Access)}
    while True:
        sources = {r for e in cascade.einsums if e.name in found for r in e.reads}
        if sources <= found:
            return frozenset(found)
        found |= sources


def decisions(expression: Expression) -> tuple[Expression, ...]:
    """Return the direct parts of one node that decide something by their exact value."""
    match expression:
        case Access(coordinates=coordinates):
            return coordinates
        case Apply(operator=operator, operands=operands) if operator in _DECIDING:
            return operands
        case Apply("where", (condition, _, _)):
            return (condition,)
        case Apply("and" | "or", operands):
            return operands
        case Reduce(reducer=reducer, body=body, filter=filter):
            parts: tuple[Expression, ...] = () if filter is None else (filter,)
            return (*parts, body) if reducer in ("argmax", "argmin", "any", "all") else parts
        case Populate():
            return children(expression)
        case _:
            return ()


def weight(ranks: Iterable[str], sizes: Mapping[str, int], other: int = 64) -> float:
    """Return how many points a space has; a rank of unknown size counts as ``other``."""
    total = 1.0
    for rank in ranks:
        total *= max(sizes.get(rank, other), 1)
    return min(total, inf)


def homed(einsum: Einsum, cascade: Cascade) -> set[str]:
    """Return the ranks that an einsum reads as plain coordinates of inputs: those give the size."""
    return {
        c.rank
        for x in einsum.expressions()
        if isinstance(x, Access) and x.tensor in cascade.inputs
        for c in x.coordinates
        if isinstance(c, RankVariable)
    }


def unsized(before: Cascade, after: Cascade) -> set[str]:
    """Return the ranks still used that inputs gave a size before a change and no longer do."""
    known = {r for e in after.einsums for r in homed(e, after)}
    lost = {r for e in before.einsums for r in homed(e, before)} - known
    return lost & set(after.ranks)
