"""Three-valued truth of a filter on a box of coordinates: none, some, or all of its points.

A box gives each rank a first and a last coordinate. Numbers become intervals [lo, hi]; a comparison
``a <= b`` becomes the sign of ``a - b`` in linear form, where each coordinate stands once, so that
affine filters are decided exactly (at the corners of the box). Interval arithmetic is Moore's
(Interval Analysis, 1966); the three values and their connectives are Kleene's.

The answer is sound: ``NONE`` and ``ALL`` are certain, ``SOME`` is the absence of a proof. What a
tensor holds is unknown. A tensor may also hold no point where it is read, and then the filter drops
the point; reads at plain coordinates are taken to exist, other reads are never part of an ``ALL``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf, isfinite

from .expression import Access, Apply, Constant, Expression, Parameter, RankVariable, Size, walk
from .interval_arithmetic import UNKNOWN, Interval, Number, apply_to_intervals, times
from .linear import Linear, linear
from .operators import OPERATORS


class Truth(Enum):
    """How many points of a box a filter keeps; ``SOME`` also where that is not known."""

    NONE = "none"
    SOME = "some"
    ALL = "all"

    def __invert__(self) -> Truth:
        return {Truth.NONE: Truth.ALL, Truth.ALL: Truth.NONE}.get(self, Truth.SOME)


@dataclass(frozen=True, slots=True)
class _Box:
    ranks: Mapping[str, tuple[int, int]]
    parameters: Mapping[str, Number] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


def evaluate(
    filter: Expression,
    box: Mapping[str, tuple[int, int]],
    *,
    parameters: Mapping[str, Number] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Truth:
    """Return how many points of ``box`` the filter keeps.

    Parameters
    ----------
    box : first and last coordinate, both inclusive, of each rank; a rank that is missing may be
        anywhere inside its size.
    parameters, sizes : known scalars; one that is missing may have any value.
    """
    truth = _truth(filter, _Box(box, parameters or {}, sizes or {}))
    if truth is Truth.ALL and any(not surely_present(x) for x in walk(filter)):
        return Truth.SOME
    return truth


def surely_present(expression: Expression, sure: frozenset[str] = frozenset()) -> bool:
    """Whether reading this node never misses a tensor's shape: plain ranks, ``h // G``, ``h % n``.

    Sizes are derived from such coordinates, so they are inside by construction; the values of
    ``sure`` tensors, and those plus a constant, by promise.
    """

    def inside(x: Expression) -> bool:
        match x:
            case RankVariable() | Constant():
                return True
            case Apply("//" | "%", (inner, Constant() | Parameter() | Size())):
                return inside(inner)
            case Access(tensor=tensor, coordinates=coordinates):
                return tensor in sure and all(map(inside, coordinates))
            case Apply("+" | "-", (Access() as inner, Constant())):
                return inside(inner)
            case _:
                return False

    return not isinstance(expression, Access) or all(map(inside, expression.coordinates))


def interval(
    expression: Expression,
    box: Mapping[str, tuple[int, int]],
    *,
    parameters: Mapping[str, Number] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Interval:
    """Return bounds, both inclusive, of a number-valued expression on a box."""
    return _bounds(expression, _Box(box, parameters or {}, sizes or {}))


def _truth(filter: Expression, box: _Box) -> Truth:
    match filter:
        case Constant(value=value):
            return Truth.ALL if value else Truth.NONE
        case Apply("not", (inner,)):
            return ~_truth(inner, box)
        case Apply("and", operands):
            return _conjunction([_truth(x, box) for x in operands])
        case Apply("or", operands):
            return ~_conjunction([~_truth(x, box) for x in operands])
        case Apply("where", (condition, yes, no)):
            chosen = _truth(condition, box)
            if chosen is not Truth.SOME:
                return _truth(yes if chosen is Truth.ALL else no, box)
            either = {_truth(yes, box), _truth(no, box)}
            return either.pop() if len(either) == 1 else Truth.SOME
        case Apply(">" | ">=" as symbol, (left, right)):
            mirrored = "<" if symbol == ">" else "<="
            return _truth(Apply(mirrored, (right, left)), box)
        case Apply("!=", operands):
            return ~_truth(Apply("==", operands), box)
        case Apply("==" | "<" | "<=" as symbol, (left, right)):
            return _comparison(symbol, left, right, box)
        case Apply("in"):
            return Truth.SOME
        case _:
            low, high = _bounds(filter, box)
            if low > 0 or high < 0:
                return Truth.ALL
            return Truth.NONE if low == high == 0 else Truth.SOME


def _conjunction(parts: list[Truth]) -> Truth:
    if Truth.NONE in parts:
        return Truth.NONE
    return Truth.SOME if Truth.SOME in parts else Truth.ALL


def _comparison(symbol: str, left: Expression, right: Expression, box: _Box) -> Truth:
    """Decide by the two sides and, where all is integer and so exact, by their difference too."""
    (a, b), (c, d) = _bounds(left, box), _bounds(right, box)
    tests: dict[str, Callable[[Number, Number], tuple[bool, bool]]] = {
        "<": lambda low, high: (low >= 0, high < 0),
        "<=": lambda low, high: (low > 0, high <= 0),
        "==": lambda low, high: (low > 0 or high < 0, low == high == 0),
    }
    differences = [(_minus(a, d), _minus(b, c))]
    if all(_integer(x, box) for side in (left, right) for x in walk(side)):
        differences.append(_sum(linear(left) - linear(right), box))
    for low, high in differences:
        none, all_ = tests[symbol](low, high)
        if none:
            return Truth.NONE
        if all_:
            return Truth.ALL
    return Truth.SOME


def _minus(x: Number, y: Number) -> Number:
    """Return x - y with an exact sign; infinities of one sign decide nothing."""
    if x == y:
        return 0 if isfinite(x) else (inf if x > 0 else -inf)
    return x - y


_WHOLE = frozenset("+ - * // % neg abs min max bit_length floor ceil where".split())


def _integer(x: Expression, box: _Box) -> bool:
    """Whether this node by itself gives integers from integers, so that no sum is rounded."""
    match x:
        case Constant(value=value):
            return isinstance(value, int)
        case Parameter(name=name):
            return isinstance(box.parameters.get(name), int)
        case Size() | RankVariable():
            return True
        case Apply(operator=operator):
            return operator in _WHOLE or OPERATORS[operator].boolean
        case _:
            return False


def _sum(form: Linear, box: _Box) -> Interval:
    low: Number = form.constant
    high: Number = form.constant
    for monomial, coefficient in form.terms:
        a, b = (coefficient, coefficient)
        for atom in monomial:
            a, b = times((a, b), _bounds(atom, box))
        low, high = low + a, high + b
    return low, high


def _bounds(expression: Expression, box: _Box) -> Interval:
    match expression:
        case Constant(value=value):
            return (int(value), int(value)) if isinstance(value, bool) else (value, value)
        case Parameter(name=name):
            known = box.parameters.get(name)
            return UNKNOWN if known is None else (known, known)
        case Size(rank=rank):
            return (box.sizes[rank], box.sizes[rank]) if rank in box.sizes else (0, inf)
        case RankVariable(rank=rank):
            return box.ranks.get(rank, (0, box.sizes.get(rank, inf) - 1))
        case Apply("where", (condition, yes, no)):
            chosen = _truth(condition, box)
            if chosen is not Truth.SOME:
                return _bounds(yes if chosen is Truth.ALL else no, box)
            (a, b), (c, d) = _bounds(yes, box), _bounds(no, box)
            return min(a, c), max(b, d)
        case Apply(operator=name) if OPERATORS[name].boolean:
            truth = _truth(expression, box)
            return (int(truth is Truth.ALL), int(truth is not Truth.NONE))
        case Apply(operator=name, operands=operands):
            return apply_to_intervals(name, [_bounds(x, box) for x in operands])
        case _:
            return UNKNOWN
