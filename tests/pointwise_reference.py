"""A second reading of the language, point by point: what the interpreter is compared with.

No arrays, no order of execution: the value of a tensor at a point is computed when it is asked for,
by the einsum whose output coordinates match, from the values that this one asks for in turn. It
shares no code with the interpreter and is far too slow for anything but a few hundred points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy

from einfall.ir.cascade import Cascade
from einfall.ir.expression import (
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
    free_ranks,
)

Number = int | float | bool
Point = dict[str, int]
NAN, INF = float("nan"), float("inf")


def reference(
    cascade: Cascade,
    inputs: Mapping[str, numpy.ndarray[Any, Any]],
    parameters: Mapping[str, Number],
    sizes: Mapping[str, int],
) -> Callable[[str, tuple[int, ...]], Number | None]:
    """Return ``value(tensor, point)``: the number there, or None where the point is absent."""
    known: dict[tuple[str, tuple[int, ...]], Number | None] = {}

    def value(tensor: str, at: tuple[int, ...]) -> Number | None:
        if (tensor, at) not in known:
            known[tensor, at] = find(tensor, at)
        return known[tensor, at]

    def find(tensor: str, at: tuple[int, ...]) -> Number | None:
        if tensor in cascade.inputs:
            inside = all(0 <= i < n for i, n in zip(at, inputs[tensor].shape, strict=True))
            number: Number | None = inputs[tensor][at].item() if inside else None
            return number
        for einsum in cascade.einsums:
            point = match(einsum.output.coordinates, at) if einsum.name == tensor else None
            if point is None:
                continue
            if einsum.filter is not None and not holds(einsum.filter, point):
                return None
            if isinstance(einsum.body, Populate):
                slot = next(r for r in point if r not in free_ranks(einsum.body))
                chosen = select(einsum.body, point)
                return chosen[point[slot]] if point[slot] < len(chosen) else None
            return ask(einsum.body, point)
        return None

    def match(coordinates: tuple[Expression, ...], at: tuple[int, ...]) -> Point | None:
        point: Point = {}
        for coordinate, place in zip(coordinates, at, strict=True):
            match coordinate:
                case Constant(value=value):
                    if place != value:
                        return None
                    continue
                case Size(rank=rank):
                    if place != sizes[rank]:
                        return None
                    continue
                case RankVariable(rank=rank):
                    point[rank] = place
                case Apply(operator="+", operands=(RankVariable(rank=rank), Constant(value=1))):
                    point[rank] = place - 1
            if not 0 <= point[rank] < sizes[rank]:
                return None
        return point

    def holds(filter: Expression, point: Point) -> bool:
        return bool(ask(filter, point))  # None, an absent filter, holds nowhere

    def ask(x: Expression, point: Point) -> Number | None:
        match x:
            case Constant(value=value_):
                return value_
            case Parameter(name=name):
                return parameters[name]
            case Size(rank=rank):
                return sizes[rank]
            case RankVariable(rank=rank):
                return point[rank]
            case Access(tensor=tensor, coordinates=coordinates):
                at = [ask(c, point) for c in coordinates]
                if any(c is None or not math.isfinite(c) or c != int(c) for c in at):
                    return None
                return value(tensor, tuple(int(c) for c in at if c is not None))
            case Apply(operator="in", operands=(item, Access(tensor=tensor, coordinates=fiber))):
                sought, at = ask(item, point), [ask(c, point) for c in fiber]
                if sought is None or any(c is None or c < 0 for c in at):
                    return None
                return member(sought, tensor, tuple(int(c) for c in at if c is not None))
            case Apply(operator="where", operands=(condition, yes, no)):
                chosen = ask(condition, point)
                return None if chosen is None else ask(yes if chosen else no, point)
            case Apply(operator="default", operands=(first, second)):
                found = ask(first, point)
                return ask(second, point) if found is None else found
            case Apply(operator=operator, operands=operands):
                numbers = [ask(y, point) for y in operands]
                return None if None in numbers else apply(operator, numbers)
            case Reduce(reducer=reducer, ranks=ranks, body=body, filter=filter):
                terms = []
                for places in product(*(range(sizes[rank]) for rank in ranks)):
                    inner = {**point, **dict(zip(ranks, places, strict=True))}
                    term = ask(body, inner) if filter is None or holds(filter, inner) else None
                    if term is not None:
                        terms.append((term, places[0]))
                return fold(reducer, terms)
            case Concatenate(rank=rank, parts=parts):
                place = point[rank]
                for part in parts:
                    own = next(r for r in free_ranks(part) if r not in point)
                    if place < sizes[own]:
                        return ask(part, {**point, own: place})
                    place -= sizes[own]
        raise AssertionError(f"{x} at {point}")

    def member(sought: Number, tensor: str, fiber: tuple[int, ...]) -> bool | None:
        if tensor in cascade.inputs:
            shape = inputs[tensor].shape
        else:
            shape = tuple(sizes[r] for r in cascade.einsum(tensor).ranks)
        if any(i >= n for i, n in zip(fiber, shape, strict=False)):
            return None
        return any(value(tensor, (*fiber, j)) == sought for j in range(shape[-1]))

    def select(x: Populate, point: Point) -> list[int]:
        argument = ask(x.argument, point)
        found: list[tuple[bool, Number, int]] = []
        for i in range(sizes[x.rank] if argument is not None else 0):
            inner = {**point, x.rank: i}
            number = ask(x.body, inner)
            banned = x.forbidden is not None and holds(x.forbidden, inner)
            if number is not None and not banned:
                found.append((x.forced is not None and holds(x.forced, inner), number, i))
        assert argument is not None or not found
        argument = argument or 0
        if x.selector == "threshold":
            return [i for forced, number, i in found if forced or number > argument]
        found.sort(key=lambda entry: (not entry[0], -entry[1], entry[2]))
        if x.selector == "topk":
            return [i for _, _, i in found[: max(int(argument), 0)]]
        chosen, mass = [], 0.0
        for forced, number, i in found:
            if not forced and mass >= argument:
                break
            chosen.append(i)
            mass += number
        return chosen

    return value


def fold(reducer: str, terms: list[tuple[Any, int]]) -> Number:
    """Reduce numbers, each with its coordinate along the (first) reduced rank."""
    numbers = [number for number, _ in terms]
    match reducer:
        case "sum":
            return (
                math.fsum(numbers) if any(isinstance(x, float) for x in numbers) else sum(numbers)
            )
        case "prod":
            product_: Number = math.prod(numbers)
            return product_
        case "max" | "argmax":
            best = max(numbers, default=-INF)
        case "min" | "argmin":
            best = min(numbers, default=INF)
        case "any":
            return any(numbers)
        case "all":
            return all(numbers)
    if reducer.startswith("arg"):
        return min((i for number, i in terms if number == best), default=-1)
    return best


def apply(operator: str, x: list[Any]) -> Number:
    """Apply a pointwise operator to numbers."""
    simple: dict[str, Callable[..., Number]] = {
        "or": lambda *x: any(x),
        "and": lambda *x: all(x),
        "not": lambda x: not x,
        "==": lambda x, y: x == y,
        "!=": lambda x, y: x != y,
        "<": lambda x, y: x < y,
        "<=": lambda x, y: x <= y,
        ">": lambda x, y: x > y,
        ">=": lambda x, y: x >= y,
        "+": lambda x, y: x + y,
        "-": lambda x, y: x - y,
        "*": lambda x, y: x * y,
        "/": lambda x, y: x / y if y else 0.0,
        "//": lambda x, y: x // y if y else 0,
        "%": lambda x, y: x % y if y else 0,
        "**": lambda x, y: x**y,
        "neg": lambda x: -x,
        "exp": math.exp,
        "exp2": lambda x: 2.0**x,
        "log": lambda x: math.log(x) if x > 0 else (-INF if x == 0 else NAN),
        "log2": lambda x: math.log2(x) if x > 0 else (-INF if x == 0 else NAN),
        "sqrt": lambda x: math.sqrt(x) if x >= 0 else NAN,
        "rsqrt": lambda x: 1 / math.sqrt(x) if x > 0 else (INF if x == 0 else NAN),
        "tanh": math.tanh,
        "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
        "relu": lambda x: max(x, 0),
        "erf": math.erf,
        "sin": math.sin,
        "cos": math.cos,
        "abs": abs,
        "floor": math.floor,
        "ceil": math.ceil,
        "bit_length": lambda x: int(x).bit_length(),
        "min": lambda *x: min(x),
        "max": lambda *x: max(x),
        "stop_gradient": lambda x: x,
    }
    return simple[operator](*x)
