"""The numbers behind the names of ``ir/operators.py``: pointwise operators and reductions in numpy.

Arrays are boolean, int64 or ``real`` (float64, or float32 where declared dtypes are followed).
Integers stay integers as long as an operator allows it; where integers meet floats, or an operator
has no integer meaning, they become ``real``. Truth values count as 0 and 1.

Conventions: a quotient by 0 is 0, for ``//`` too, and so is a remainder. ``//`` rounds down and
``%`` has the sign of the divisor, as in Python. Everything else follows IEEE: ``log(0)`` is -inf,
``rsqrt(0)`` is inf, ``sqrt(-1)`` is NaN. An integer to an integer power is an integer where the
exponent is one number and not negative, else ``real``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import erf
from typing import Any

import numpy
from numpy.typing import NDArray

from ..ir.errors import BackendError

Array = NDArray[Any]
DType = numpy.dtype[Any]


def pointwise(operator: str, operands: Sequence[Array], real: DType) -> Array:
    """Apply an operator of ``OPERATORS`` to arrays of equal number of ranks, broadcasting.

    ``in`` and ``default`` are not here: they ask for presence, not for numbers alone.
    """
    match operator:
        case "and" | "or":
            truths = [_truth(x) for x in operands]
            return reduce(numpy.logical_and if operator == "and" else numpy.logical_or, truths)
        case "not":
            return numpy.logical_not(_truth(operands[0]))
        case "where":
            chosen = unify(operands[1:], real)
            return numpy.where(_truth(operands[0]), chosen[0], chosen[1])
        case "stop_gradient":
            return operands[0]
        case "min" | "max":
            pick = numpy.minimum if operator == "min" else numpy.maximum
            return reduce(pick, numbers(operands, real))
        case "/":
            return _divide(numpy.divide, *_reals(operands, real))
        case "//" | "%":
            divide = numpy.floor_divide if operator == "//" else numpy.remainder
            return _divide(divide, *numbers(operands, real))
        case "**":
            base, exponent = numbers(operands, real)
            whole = base.dtype.kind == "i" and exponent.size == 1 and exponent.min() >= 0
            x, y = (base, exponent) if whole else _reals((base, exponent), real)
            return numpy.power(x, y)
        case "floor" | "ceil":
            x = numbers(operands, real)[0]
            if x.dtype.kind == "i":
                return x
            return numpy.floor(x) if operator == "floor" else numpy.ceil(x)
        case "random":
            return uniform(numbers(operands, real), real)
        case "bit_length":
            return _bit_length(numbers(operands, real)[0])
    if operator in _COMPARE:
        return _COMPARE[operator](*unify(operands, real))
    if operator in _ARITHMETIC:
        return _ARITHMETIC[operator](*numbers(operands, real))
    if operator in _FUNCTIONS:
        return _FUNCTIONS[operator](_reals(operands, real)[0])
    raise BackendError(f"the interpreter has no code for the operator {operator!r}.")


def unify(arrays: Sequence[Array], real: DType) -> list[Array]:
    """Bring arrays to one kind: all boolean, all int64, or all ``real``."""
    kinds = {x.dtype.kind for x in arrays}
    if len(kinds) == 1:
        return list(arrays)
    return [x.astype(real if "f" in kinds else numpy.int64, copy=False) for x in arrays]


def numbers(arrays: Sequence[Array], real: DType) -> list[Array]:
    """Bring arrays to one kind of number: all int64, or all ``real``."""
    return [x.astype(numpy.int64) if x.dtype == bool else x for x in unify(arrays, real)]


def reduction(
    reducer: str, x: Array, present: Array | None, axes: tuple[int, ...], real: DType
) -> Array:
    """Reduce the points of ``x`` that are present, over ``axes``, which stay with length 1.

    ``present`` broadcasts to ``x``. Over nothing the result is the reducer's identity; the maximum
    of nothing is -inf, so integers become ``real`` where some fiber has no point. ``argmax`` and
    ``argmin`` give positions along their one axis, the lowest among equals, -1 over nothing.
    """
    match reducer:
        case "sum" | "prod":
            x = numbers((x,), real)[0]
            fold, identity = (numpy.sum, 0) if reducer == "sum" else (numpy.prod, 1)
            live = x if present is None else numpy.where(present, x, x.dtype.type(identity))
            return numpy.asarray(fold(live, axis=axes, keepdims=True, dtype=x.dtype))
        case "any":
            truth = _truth(x) if present is None else _truth(x) & present
            return numpy.asarray(numpy.any(truth, axis=axes, keepdims=True))
        case "all":
            truth = _truth(x) if present is None else _truth(x) | ~present
            return numpy.asarray(numpy.all(truth, axis=axes, keepdims=True))
        case "max" | "min":
            return _extremum(reducer, numbers((x,), real)[0], present, axes, real)
        case "argmax" | "argmin" if len(axes) == 1:
            return _position(reducer[3:], numbers((x,), real)[0], present, axes[0], real)
    raise BackendError(
        f"the interpreter has no code for {reducer!r} over {len(axes)} ranks"
        f"{': reduce one rank' if reducer.startswith('arg') else ''}."
    )


def _extremum(
    reducer: str, x: Array, present: Array | None, axes: tuple[int, ...], real: DType
) -> Array:
    fold = numpy.max if reducer == "max" else numpy.min
    over_nothing = -numpy.inf if reducer == "max" else numpy.inf
    if x.dtype.kind == "f":
        live = x if present is None else numpy.where(present, x, x.dtype.type(over_nothing))
        return numpy.asarray(fold(live, axis=axes, keepdims=True, initial=over_nothing))
    limits = numpy.iinfo(numpy.int64)
    lowest = limits.min if reducer == "max" else limits.max
    live = x if present is None else numpy.where(present, x, lowest)
    result = numpy.asarray(fold(live, axis=axes, keepdims=True, initial=lowest))
    some = numpy.ones((1,) * x.ndim, bool) if present is None else present
    filled = numpy.any(numpy.broadcast_to(some, x.shape), axis=axes, keepdims=True)
    return result if filled.all() else numpy.where(filled, result.astype(real), over_nothing)


def _position(extremum: str, x: Array, present: Array | None, axis: int, real: DType) -> Array:
    best = _extremum(extremum, x, present, (axis,), real)
    hit = x == best if present is None else (x == best) & present
    if hit.shape[axis] == 0:
        return numpy.full(best.shape, -1)
    first = numpy.argmax(hit, axis=axis, keepdims=True)
    return numpy.where(numpy.any(hit, axis=axis, keepdims=True), first, -1)


def _truth(x: Array) -> Array:
    return x if x.dtype == bool else x != 0


def _reals(arrays: Sequence[Array], real: DType) -> list[Array]:
    return [x.astype(real, copy=False) for x in arrays]


def _divide(divide: Callable[..., Array], x: Array, y: Array) -> Array:
    out = numpy.zeros(numpy.broadcast_shapes(x.shape, y.shape), x.dtype)
    divide(x, y, out=out, where=y != 0)
    return out


def uniform(operands: Sequence[Array], real: DType) -> Array:
    """Return a number in [0, 1) for each combination of whole numbers, the same everywhere.

    A counter-based generator (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011):
    a state of 32 bits takes in one operand after the other, each time through the finaliser of
    MurmurHash3 (Appleby); 24 of the bits become the fraction, which float32 holds exactly.
    """
    state: Array = numpy.zeros((), numpy.uint32)
    for x in operands:
        if x.dtype.kind == "f":
            if not numpy.all(x == numpy.floor(x)):
                raise BackendError("random takes whole numbers: a seed and coordinates.")
            x = x.astype(numpy.int64)
        state = scramble(state, x)
    return numpy.asarray((state >> numpy.uint32(8)).astype(real) * real.type(2.0**-24))


def scramble(state: Array, x: Array) -> Array:
    """Take a whole number into a state of 32 bits."""
    word = (x & 0xFFFFFFFF).astype(numpy.uint64) * numpy.uint64(0x9E3779B1)
    z: Array = state.astype(numpy.uint64) ^ (word & numpy.uint64(0xFFFFFFFF))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        z = ((z ^ (z >> numpy.uint64(shift))) * numpy.uint64(factor)) & numpy.uint64(0xFFFFFFFF)
    return z.astype(numpy.uint32)


def _bit_length(x: Array) -> Array:
    left = numpy.abs(numpy.floor(x)).astype(numpy.int64)
    bits = numpy.zeros_like(left)
    for step in (32, 16, 8, 4, 2, 1):  # halve the interval in which the highest bit lies
        high = left >= (1 << step)
        bits += numpy.where(high, step, 0)
        left = numpy.where(high, left >> step, left)
    return numpy.asarray(bits + (left > 0))


def _erf(x: Array) -> Array:
    # numpy has no error function; Python's is exact to the last bit or two.
    return numpy.asarray(numpy.frompyfunc(erf, 1, 1)(x), x.dtype)


def _sigmoid(x: Array) -> Array:
    # exp of the negative magnitude alone, so that neither tail loses digits.
    small = numpy.exp(-numpy.abs(x))
    return numpy.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype, copy=False)


_COMPARE: dict[str, Callable[..., Array]] = {
    "==": numpy.equal,
    "!=": numpy.not_equal,
    "<": numpy.less,
    "<=": numpy.less_equal,
    ">": numpy.greater,
    ">=": numpy.greater_equal,
}

_ARITHMETIC: dict[str, Callable[..., Array]] = {
    "+": numpy.add,
    "-": numpy.subtract,
    "*": numpy.multiply,
    "neg": numpy.negative,
    "abs": numpy.abs,
    "relu": lambda x: numpy.maximum(x, x.dtype.type(0)),
}

_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "exp": numpy.exp,
    "exp2": numpy.exp2,
    "log": numpy.log,
    "log2": numpy.log2,
    "sqrt": numpy.sqrt,
    "rsqrt": lambda x: x.dtype.type(1) / numpy.sqrt(x),
    "tanh": numpy.tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
    "sin": numpy.sin,
    "cos": numpy.cos,
}
