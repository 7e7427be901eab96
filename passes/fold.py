"""Fold: compute what is constant, drop what is neutral, gather the scalars of a product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ir.cascade import Cascade, Einsum, Scalar
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    Populate,
    Reduce,
    Size,
    free_ranks,
    walk,
)
from .constants import compute
from .facts import (
    NO_SCALARS,
    NO_SIZES,
    NONE,
    decisions,
    exact_tensors,
    infinite_tensors,
    is_boolean,
    is_integer,
    is_real,
)
from .gather import gather


def fold_cascade(
    cascade: Cascade,
    *,
    sizes: Mapping[str, int] = NO_SIZES,
    parameters: Mapping[str, Scalar] = NO_SCALARS,
) -> Cascade:
    """Fold every expression of a cascade.

    ::

        S[p, m] = X[p, m] * 1 / sqrt(size(m)) * 3.0
        T[p]    = sum[m](2.0 * S[p, m] * 4.0 + 0)
        -->
        S[p, m] = X[p, m] * (3.0 / sqrt(size(m)))
        T[p]    = sum[m](S[p, m] * 8.0)

    Requires: nothing. Keeps: every value up to the rounding of products; tensors that decide a
    filter, a coordinate, a comparison or a choice to the last bit; where points exist.
    """
    exact, infinite = exact_tensors(cascade), infinite_tensors(cascade)
    real: set[str] = set()
    einsums: list[Einsum] = []
    for einsum in cascade.einsums:
        known = frozenset(real)

        def folded(x: Expression, *, exact: bool, known: frozenset[str] = known) -> Expression:
            new = fold(
                x,
                sizes=sizes,
                parameters=parameters,
                exact=exact,
                infinite=infinite,
                real=known,
            )
            # An einsum's ranks are those that vary in it, so none may vanish.
            return new if set(free_ranks(new)) == set(free_ranks(x)) else x

        body = folded(einsum.body, exact=einsum.name in exact)
        filter = None if einsum.filter is None else folded(einsum.filter, exact=True)
        if isinstance(filter, Constant) and filter.value is True:
            filter = None
        if body is not einsum.body or filter is not einsum.filter:
            einsum = replace(einsum, body=body, filter=filter)
        if is_real(einsum.body, known) and not einsum.generation:
            real.add(einsum.name)
        einsums.append(einsum)
    if all(a is b for a, b in zip(einsums, cascade.einsums, strict=True)):
        return cascade
    return replace(cascade, einsums=tuple(einsums))


def fold(
    expression: Expression,
    *,
    sizes: Mapping[str, int] = NO_SIZES,
    parameters: Mapping[str, Scalar] = NO_SCALARS,
    exact: bool = False,
    infinite: frozenset[str] = NONE,
    real: frozenset[str] = NONE,
) -> Expression:
    """Return the expression with constants computed and the scalars of each product gathered.

    ``x * a * b`` becomes ``x * (a * b)`` for scalars a and b (constants, parameters, sizes and
    what is made of them), ``x / sqrt(size(e)) * 3`` becomes ``x * (3 / sqrt(size(e)))``, so that
    one number multiplies each point. A scalar at a factor with fewer ranks than the product stays
    there, where it is computed less often. ``x + 0``, ``x * 1``, double negation and conditions
    that are constant go.

    ``sizes`` and ``parameters`` are put in where given. ``exact`` forbids what could change a
    rounding; coordinates, filters and comparisons are always folded so. ``infinite`` are tensors
    that may hold infinities: a divisor that may be 0 stays with them, for x / 0 is 0 and inf * 0
    is not. ``real`` are tensors of floating point: ``x * 1.0`` is x for those alone.

    Keeps: integers stay integers and floats floats; a quotient by 0 stays 0. The sign of a zero is
    not kept. Returns the argument itself where there is nothing to fold.
    """
    return _Fold(sizes, parameters, infinite, real).visit(expression, exact)


@dataclass(frozen=True, slots=True)
class _Fold:
    sizes: Mapping[str, int]
    parameters: Mapping[str, Scalar]
    infinite: frozenset[str]
    real: frozenset[str]

    def visit(self, x: Expression, exact: bool) -> Expression:
        """Fold the parts, then the node, until the node stays."""
        new = self.node(self.inside(x, exact), exact)
        return x if new is x or same(new, x) else self.visit(new, exact)

    def inside(self, x: Expression, exact: bool) -> Expression:
        """Fold the parts of a node; a part that decides something exactly."""
        deciding = decisions(x)

        def part(y: Expression) -> Expression:
            return self.visit(y, exact or any(y is d for d in deciding))

        match x:
            case Access(coordinates=parts):
                return replace(x, coordinates=tuple(part(y) for y in parts))
            case Apply(operands=parts):
                return replace(x, operands=tuple(part(y) for y in parts))
            case Reduce(body=body, filter=filter):
                new = part(body)
                # The ranks reduced must go on varying in the body, or they would lose their extent.
                kept = new if set(free_ranks(new)) == set(free_ranks(body)) else body
                condition = None if filter is None else self.visit(filter, True)
                if isinstance(condition, Constant) and condition.value is True:
                    condition = None
                return replace(x, body=kept, filter=condition)
            case Populate(argument=argument):
                return replace(x, argument=part(argument))
            case _:
                return x

    def node(self, x: Expression, exact: bool) -> Expression:
        match x:
            case Size(rank=rank) if rank in self.sizes:
                return Constant(self.sizes[rank])
            case Parameter(name=name) if name in self.parameters:
                return Constant(self.parameters[name])
            case Apply(operator, operands):
                values = [y.value for y in operands if isinstance(y, Constant)]
                if len(values) == len(operands):
                    result = compute(operator, values, exact=exact)
                    if result is not None:
                        return Constant(result)
                if operator in ("+", "-", "neg"):
                    return self.sum(x, exact)
                if operator in ("*", "/"):
                    return self.product(x, exact)
                return self.other(x)
            case _:
                return x

    def sum(self, x: Apply, exact: bool) -> Expression:
        """Drop zeros, turn signs into one form, add up trailing constants."""
        match x:
            case Apply("neg", (Apply("neg", (y,)),)) if not is_boolean(y):
                return y
            case Apply("+", (y, Apply("neg", (z,)))):
                return Apply("-", (y, z))
            case Apply("-", (y, Apply("neg", (z,)))):
                return Apply("+", (y, z))
            case Apply("+", (Apply("neg", (y,)), z)):
                return Apply("-", (z, y))
            case Apply("+" | "-", (y, Constant() as zero)) if self.neutral(y, zero, 0):
                return y
            case Apply("+", (Constant() as zero, y)) if self.neutral(y, zero, 0):
                return y
            case Apply("-", (Constant() as zero, y)) if self.neutral(y, zero, 0):
                return Apply("neg", (y,))
            case Apply("+", (Constant() as c, y)) if not exact:
                return Apply("+", (y, c))
            case Apply(
                ("+" | "-") as outer, (Apply(("+" | "-") as inner, (y, Constant(a))), Constant(b))
            ) if not exact or (is_integer(y) and isinstance(a, int) and isinstance(b, int)):
                total = (a if inner == "+" else -a) + (b if outer == "+" else -b)
                negative = total < 0
                return Apply("-" if negative else "+", (y, Constant(abs(total))))
            case Apply("+", (y, Constant(c))) if not isinstance(c, bool) and c < 0:
                return Apply("-", (y, Constant(-c)))
            case Apply("-", (y, Constant(c))) if not isinstance(c, bool) and c < 0:
                return Apply("+", (y, Constant(-c)))
        return x

    def product(self, x: Apply, exact: bool) -> Expression:
        match x:
            case Apply("*", (y, Constant() as one)) if self.neutral(y, one, 1):
                return y
            case Apply("*", (Constant() as one, y)) if self.neutral(y, one, 1):
                return y
            case Apply("/", (y, Constant(value=1))) if is_real(y, self.real):
                return y
        if exact:
            return x
        return gather(x, infinite=self.infinite, real=self.real, parameters=self.parameters)

    def neutral(self, y: Expression, c: Constant, value: int) -> bool:
        """Whether adding 0 or multiplying by 1 leaves y, kind included."""
        if c.value != value or isinstance(c.value, bool) or is_boolean(y):
            return False
        return isinstance(c.value, int) or is_real(y, self.real)

    def other(self, x: Apply) -> Expression:
        match x:
            case Apply("and" | "or", operands):
                return _connect(x, operands)
            case Apply("not", (Apply("not", (y,)),)) if is_boolean(y):
                return y
            case Apply("where", (Constant(value=condition), y, z)):
                chosen = y if condition else z
                return chosen if self.kind_kept(chosen, z if condition else y) else x
            case Apply("//", (y, Constant(value=1))) if is_integer(y):
                return y
            case Apply("**", (y, Constant(value=1 as one))) if isinstance(one, int):
                return x if is_boolean(y) or isinstance(one, bool) else y
            case Apply("stop_gradient", (Constant() | Size() as y,)):
                return y
        return x

    def kind_kept(self, chosen: Expression, other: Expression) -> bool:
        """Whether leaving the other branch away keeps the kind of number and the ranks."""
        if set(free_ranks(other)) - set(free_ranks(chosen)):
            return False
        same = is_boolean(chosen) and is_boolean(other)
        whole = is_integer(other) and not is_boolean(chosen)
        return same or whole or is_real(chosen, self.real)


def _connect(x: Apply, operands: tuple[Expression, ...]) -> Expression:
    """Drop from ``and`` and ``or`` the constants that decide nothing."""
    neutral = x.operator == "and"
    rest = tuple(y for y in operands if not (isinstance(y, Constant) and bool(y.value) is neutral))
    settled = any(isinstance(y, Constant) for y in rest)
    # What is left away must exist everywhere, for else its absence would be lost.
    if settled and not any(isinstance(y, Access) for z in rest for y in walk(z)):
        return Constant(not neutral)
    if not rest:
        return Constant(neutral)
    if len(rest) == 1 and is_boolean(rest[0]):
        return rest[0]
    return x if len(rest) in (1, len(operands)) else replace(x, operands=rest)


def same(x: Expression, y: Expression) -> bool:
    """Whether two expressions are the same, kinds of constants included (1 is not 1.0)."""
    return x == y and repr(x) == repr(y)
