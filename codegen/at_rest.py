"""The work on a tile while frames rest, in fewer operations.

Nothing reads a score there but the exponential, so a sum may be taken in another order::

    S = X * c - w * d;  N = exp2(S - G)   -->   N = exp2(X * c - (w * d + G))

where every addition is part of a fused multiplication. What is a multiple of the exponent is read
from it, and the factor is taken out of the sum over the tile. Factors that are one number a row are
multiplied before they meet points::

    N = exp2(k * S - k * G);  T = sum(N * (c * G - c * S));  H = H + T
    -->
    E = k * S - k * G;  N = exp2(E);  T = sum(N * E);  H = H + T * (-c / k)

    X * r * y * c    -->    X * y * (r * c)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from math import isclose

from .loop_nest import (
    Cast,
    Fold,
    Let,
    Number,
    Op,
    Ref,
    Statement,
    Value,
    Var,
    value_axes,
    value_vars,
)
from .signature import values

Form = Mapping[Value, float]
"""A sum of values, each times a number."""


def at_rest(body: Sequence[Statement], kept: Collection[str]) -> tuple[Statement, ...]:
    """Return the work in fewer operations; variables named in ``kept`` are handed on."""
    return tuple(fused(grouped(s)) for s in by_exponents(inlined(body, kept)))


def grouped(statement: Statement) -> Statement:
    """Multiply factors that are one number a row with each other first."""
    axes = statement.var.axes if isinstance(statement, Let | Fold) else ()
    folded = (statement.axis,) if isinstance(statement, Fold) else ()

    def rule(x: Value) -> Value | None:
        if not (isinstance(x, Op) and x.operator == "*" and len(value_axes(x)) == 2):
            return None
        rows = {a for f in factors(x) for a in value_axes(f)} - set(axes[1:]) - set(folded)
        still = [f for f in factors(x) if value_axes(f) <= rows]
        moving = [f for f in factors(x) if f not in still]
        if len(still) < 2 or not moving or len(moving) + len(still) != len(factors(x)):
            return None
        parts = (reduce(lambda y, z: Op("*", (y, z)), side) for side in (moving, still))
        return Op("*", tuple(parts))

    return changed(statement, rule)


def inlined(body: Sequence[Statement], kept: Collection[str]) -> tuple[Statement, ...]:
    """Put sums of points where they are read, if that is one place."""
    known: dict[Value, Value] = {}
    found: list[Statement] = []
    for k, s in enumerate(body):
        s = changed(s, known.get)
        match s:
            case Let(var=Var(axes=(_, _)) as var, value=Op("+" | "-")) if var.name not in kept:
                if sum(reads(t, Ref(var)) for t in body[k + 1 :]) == 1:
                    known[Ref(var)] = s.value
                    continue
        found.append(s)
    return tuple(found)


def by_exponents(body: Sequence[Statement]) -> tuple[Statement, ...]:
    """Read from exponents what is a multiple of them."""
    sums = [s for s in body if isinstance(s, Fold) and s.reducer == "sum"]
    exponents: dict[Value, Form] = {}
    multiples: dict[Value, Value] = {}
    found: list[Statement] = []
    for s in body:
        match s:
            case Let(var=var, value=Op("exp2", (x,))) if any(
                multiple(y, form(x)) for t in sums for y in factors(t.value)
            ):
                exponent = Var(f"{var.name}_exponent", var.axes, var.dtype)
                exponents[Ref(exponent)] = form(x)
                found.append(Let(exponent, x))
                s = Let(var, Op("exp2", (Ref(exponent),)))
            case Fold(var=var, value=value, reducer="sum"):
                for name, exponent_form in exponents.items():
                    parts = factors(value)
                    held = [multiple(y, exponent_form) for y in parts]
                    if sum(f is not None for f in held) == 1:
                        factor = next(f for f in held if f is not None)
                        parts = [y if f is None else name for y, f in zip(parts, held, strict=True)]
                        s = replace(s, value=reduce(lambda y, z: Op("*", (y, z)), parts))
                        multiples[Ref(var)] = Op("*", (Ref(var), Number(factor)))
                        break
            case _:
                s = changed(s, multiples.get)
        found.append(s)
    return tuple(found)


def fused(statement: Statement) -> Statement:
    """Order the terms of exponents so that each product is multiplied and added at once."""

    def rule(x: Value) -> Value | None:
        match x:
            case Op("exp2", (inner,)):
                parts = terms(inner)
                products = [p for p in parts if multiplies(p[0])]
                others = [p for p in parts if not multiplies(p[0])]
                if len(products) < 2 or not others:
                    return None
                return Op("exp2", (nested(products, others),))
        return None

    return changed(statement, rule)


Term = tuple[Value, bool]
"""A term of a sum, and whether it is taken away."""


def nested(products: Sequence[Term], others: Sequence[Term]) -> Value:
    """Return a sum as ``p - (q + r)``, each product outside of what follows."""
    total, away = others[0]
    for value, taken in others[1:]:
        total = Op("+" if taken == away else "-", (total, value))
    for value, taken in reversed(products):
        total, away = Op("+" if taken == away else "-", (value, total)), taken
    return Op("neg", (total,)) if away else total


def terms(value: Value, away: bool = False) -> list[Term]:
    """Return the terms of a sum of tiles."""
    match value:
        case Op("+", (x, y)):
            return [*terms(x, away), *terms(y, away)]
        case Op("-", (x, y)):
            return [*terms(x, away), *terms(y, not away)]
        case Op("neg", (x,)):
            return terms(x, not away)
        case _:
            return [(value, away)]


def multiplies(value: Value) -> bool:
    """Whether a term is a product that is made anew for every point."""
    return isinstance(value, Op) and value.operator == "*" and len(value_axes(value)) == 2


def factors(value: Value) -> list[Value]:
    """Return the factors of a product."""
    match value:
        case Op("*", (x, y)):
            return [*factors(x), *factors(y)]
        case _:
            return [value]


def form(value: Value) -> Form:
    """Return a value as a sum of others, each times a number."""
    match value:
        case Op("+" | "-" as operator, (x, y)):
            found = dict(form(x))
            for atom, factor in form(y).items():
                found[atom] = found.get(atom, 0.0) + (factor if operator == "+" else -factor)
            return found
        case Op("neg", (x,)):
            return {atom: -factor for atom, factor in form(x).items()}
        case Op("*", (Number(value=n), x)) | Op("*", (x, Number(value=n))):
            return {atom: n * factor for atom, factor in form(x).items()}
        case Op("/", (x, Number(value=n))):
            return {atom: factor / n for atom, factor in form(x).items()}
        case _:
            return {value: 1.0}


def multiple(value: Value, of: Form) -> float | None:
    """Return how many times a sum of several values another one is; None if it is no multiple."""
    found = form(value)
    if len(of) < 2 or found.keys() != of.keys() or not all(of.values()):
        return None
    ratios = [found[atom] / of[atom] for atom in of]
    return ratios[0] if all(isclose(r, ratios[0], rel_tol=1e-12) for r in ratios) else None


def changed(statement: Statement, rule: Callable[[Value], Value | None]) -> Statement:
    """Return a statement with the outermost values replaced for which ``rule`` has another."""

    def rewritten(x: Value) -> Value:
        other = rule(x)
        if other is not None:
            return other
        match x:
            case Op(operands=operands):
                return replace(x, operands=tuple(map(rewritten, operands)))
            case Cast(value=inner):
                return replace(x, value=rewritten(inner))
            case _:
                return x

    if isinstance(statement, Let | Fold):
        return replace(statement, value=rewritten(statement.value))
    return statement


def reads(statement: Statement, ref: Ref) -> int:
    """Return how often a statement reads a variable; twice, where it is not rewritten."""
    if not isinstance(statement, Let | Fold):
        return 2 * any(ref.var.name in value_vars(v) for v in values(statement))
    count = 0

    def rule(x: Value) -> Value | None:
        nonlocal count
        count += x == ref
        return None

    changed(statement, rule)
    return count
