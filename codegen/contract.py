"""Reductions inside a tile: dots where a product has two sides, folds elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from math import frexp

from ..ir.errors import BackendError
from ..ir.expression import Access, Apply, Constant, Expression, RankVariable, accesses
from ..ir.operators import REDUCERS
from .absent import FINITE, UNKNOWN, ZERO, abstract, is_identity, obviously_positive
from .arithmetic import NARROW
from .bands import Bands
from .loop_nest import (
    Dot,
    Fold,
    Index,
    Number,
    Op,
    Ref,
    Value,
    Var,
    value_axes,
)
from .tiles import Parts

FOLDABLE = ("sum", "max", "min", "prod", "any", "all")
WIDEST = {"int32": 2**31 - 1, "int64": 2**63 - 1}
"""The largest whole number of a dtype."""
SMALLEST_DOT = 16
"""Tensor cores take no narrower operand."""


class Contractions(Bands):
    """Lowering of reductions."""

    def reduce(
        self,
        name: str,
        reducer: str,
        ranks: tuple[str, ...],
        lift: Expression,
        parts: Parts,
        *,
        test: Callable[[Parts], Value] | None = None,
        start: Value | None = None,
    ) -> Var:
        """Reduce ``lift`` over ``ranks``, at points where ``test`` holds.

        ``start`` is what the result is added to.
        """
        if REDUCERS[reducer].extremum:
            return self.locate(name, reducer, ranks, lift, parts, test)
        if reducer not in FOLDABLE:
            raise BackendError(
                f'{name} reduces by {reducer}, which has no tile form; use backend="interpreter"'
            )
        var: Var | None = None
        for inner in self.assignments(ranks):
            here = {**parts, **inner}
            axes = self.axes_of(ranks, here)
            where = None if test is None else test(here)
            sides = self.sides(lift, axes, here, where) if reducer == "sum" else None
            banded = self.banded(name, lift, axes, here, where, start) if reducer == "sum" else None
            if banded is not None:
                var = banded
            elif sides is not None:
                left, right, result, scale, exists = sides
                if scale is None and exists is None:
                    var = Var(name, result)
                    self.say(Dot(var, left, right, axes[0], start))
                else:
                    how = "everywhere" if scale is None else "unscaled"
                    product = Var(self.names.take(f"{name}_{how}"), result)
                    self.say(Dot(product, left, right, axes[0], None))
                    found: Value = Ref(product)
                    if scale is not None:
                        found = Op("*", (found, scale))
                    if exists is not None:
                        found = Op("where", (exists, found, Number(0.0)))
                    var = self.let(name, found if start is None else Op("+", (start, found)))
            else:
                value = self.present(lift, axes, reducer, here, where)
                for axis in axes:
                    value = self.fold(name, value, axis, reducer, named=start is None)
                if start is not None:
                    value = Op(REDUCERS[reducer].operator, (start, value))
                folded = value.var if isinstance(value, Ref) else None
                var = folded if folded and folded.name == name else self.let(name, value)
            start = Ref(var)
        assert var is not None, "every resident rank has a part"
        return var

    def locate(
        self,
        name: str,
        reducer: str,
        ranks: tuple[str, ...],
        lift: Expression,
        parts: Parts,
        test: Callable[[Parts], Value] | None,
    ) -> Var:
        """Find the lowest coordinate at which a value is extreme, -1 where there is none."""
        extremum = REDUCERS[reducer].extremum
        best = self.reduce(
            self.names.take(f"{name}_{extremum}"), extremum, ranks, lift, parts, test=test
        )
        there = Access(f"{best.name} best", tuple(RankVariable(r) for r in parts))
        self.made[(there.tensor, self.key(tuple(parts), parts))] = best
        nowhere = Constant(REDUCERS["min"].identity)
        at = Apply("where", (Apply("==", (lift, there)), RankVariable(ranks[0]), nowhere))
        first = self.reduce(self.names.take(f"{name}_at"), "min", ranks, at, parts, test=test)
        found = Op("==", (Ref(first), identity_value("min")))
        return self.let(name, Op("where", (found, Number(-1), Ref(first))))

    def fold(self, name: str, value: Value, axis: str, reducer: str, *, named: bool) -> Value:
        """Reduce a value over one axis."""
        if axis not in value_axes(value):
            return self.repeated(value, axis, reducer)
        kept = tuple(a for a in self.ordered(value_axes(value)) if a != axis)
        var = Var(name if named else self.names.take(f"{name}_tile"), kept, self.dtype(value))
        self.say(Fold(var, value, axis, reducer))
        return Ref(var)

    def repeated(self, value: Value, axis: str, reducer: str) -> Value:
        """Reduce a value over an axis along which it does not vary."""
        if REDUCERS[reducer].idempotent:
            return value
        if reducer == "sum":
            many = float(self.axes[axis].valid)
            if isinstance(value, Number):
                return Number(value.value * many)
            return Op("*", (value, Number(many)))
        axes = self.ordered(value_axes(value) | {axis})
        wide = self.let(self.names.take("factor"), value, axes)
        return self.fold("factor", Ref(wide), axis, reducer, named=False)

    def present(
        self,
        lift: Expression,
        axes: tuple[str, ...],
        reducer: str,
        parts: Parts,
        where: Value | None,
    ) -> Value:
        """Return the lift's value, with the reducer's identity at points that do not exist."""
        value = self.wide(lift, parts)
        if reducer in ("any", "all") and self.dtype(value) != "bool":
            value = Op("!=", (value, Number(0)))
        if where is not None:
            value = Op("where", (where, value, identity_value(reducer)))
        for name in axes:
            axis = self.axes[name]
            if axis.padded and not is_identity(self.at_padding(lift, axis.rank), reducer):
                test = Op("<", (Index(name), Number(axis.offset + axis.valid)))
                # whole numbers stay whole: some other coordinate exists, so no infinity is left
                whole = axis.valid > 0 and WIDEST.get(self.dtype(value))
                other = identity_value(reducer)
                if whole and reducer in ("min", "max"):
                    other = Number(whole if reducer == "min" else -whole)
                value = Op("where", (test, value, other))
        return value

    def at_padding(self, lift: Expression, rank: str) -> str:
        """Return the abstract value of a lift where a resident rank is only padding."""
        values: dict[str | Access, str] = {}
        if self.static.get(rank) == 0:
            return UNKNOWN  # what was made here may be infinite: an extremum over nothing
        for access in accesses(lift):
            over = any(isinstance(c, RankVariable) and c.rank == rank for c in access.coordinates)
            made = any(tensor == access.tensor for tensor, _ in self.made)
            open_value = UNKNOWN if access.tensor in self.kernel.infinite else FINITE
            values[access] = ZERO if over and not made else open_value
        return abstract(lift, values, obviously_positive)

    def sides(
        self, lift: Expression, axes: tuple[str, ...], parts: Parts, where: Value | None
    ) -> tuple[Value, Value, tuple[str, ...], Value | None, Value | None] | None:
        """Split a product in the two operands of a dot over ``axes``; None if it has no such form.

        Each operand has the contracted axis and one of its own; a factor that varies with neither
        the contracted axis nor the other side joins its side. What is one number for the whole tile
        stands behind them, as what the dot is to be multiplied by, where an operand in half
        precision would be rounded once more with it. Last comes a test of the result: whether
        anything exists at its points, if that does not vary with the contracted axis.
        """
        if len(axes) != 1 or self.axes[axes[0]].valid == 0:
            return None
        axis = axes[0]
        terms = [(x, frozenset(value_axes(self.axes_probe(x, parts)))) for x in factors(lift)]
        own = self.ordered(frozenset().union(*(a for _, a in terms)) - {axis})
        if len(own) != 2 or any(self.axes[a].width < SMALLEST_DOT for a in (*own, axis)):
            return None
        groups: tuple[list[Expression], list[Expression]] = ([], [])
        spans = [set[str](), set[str]()]
        numbers = [x for x, found in terms if not found and not exact_factor(x)]
        for x, found in ((x, found) for x, found in terms if x not in numbers):
            side = 1 if own[1] in found else 0
            if own[0] in found and own[1] in found:
                return None
            groups[side].append(x)
            spans[side] |= found
        if not all(axis in s for s in spans):
            return None
        scale: Value | None = self.product(numbers, parts) if numbers else None
        values = [self.product(group, parts) for group in groups]
        if scale is not None and self.common_dtype(*values) not in NARROW:
            values[0], scale = Op("*", (self.widen(values[0]), scale)), None
        exists: Value | None = None
        if where is not None:
            sides = [k for k in (0, 1) if value_axes(where) <= spans[k]]
            if sides:
                k = sides[0]
                values[k] = Op("where", (where, self.widen(values[k]), Number(0.0)))
            elif axis not in value_axes(where):
                exists = where
            else:
                return None
        if self.axes[axis].padded and self.at_padding(lift, self.axes[axis].rank) != ZERO:
            valid = self.axes[axis].offset + self.axes[axis].valid
            inside = Op("<", (Index(axis), Number(valid)))
            values[0] = Op("where", (inside, self.widen(values[0]), Number(0.0)))
        for k, value in enumerate(values):
            if value_axes(value) != spans[k]:  # one number, as a weight that all points have
                axes_of_side = self.ordered(frozenset(spans[k]))
                values[k] = Ref(self.let(self.names.take("factor"), value, axes_of_side))
        left, right = self.matched(*values)
        return left, right, own, scale, exists

    def banded(
        self,
        name: str,
        lift: Expression,
        axes: tuple[str, ...],
        parts: Parts,
        where: Value | None,
        start: Value | None,
    ) -> Var | None:
        """Return a sum of products with what lies along the diagonals of a tile, if it is one."""
        if len(axes) != 1 or self.axes[axes[0]].valid == 0:
            return None
        axis = self.axes[axes[0]]
        found = self.band_of(factors(lift), axis, parts, SMALLEST_DOT)
        if found is None:
            return None
        summed = found.across == found.along
        if where is not None and axis.name in value_axes(where) and not summed:
            return None
        band = self.diagonals(found, parts)
        side = self.product(list(found.sides), parts)
        if summed:
            if where is not None:
                side = Op("where", (where, self.widen(side), Number(0.0)))
            return self.across_band(name, found, parts, side, band, start)
        if axis.padded and self.at_padding(lift, axis.rank) != ZERO:
            inside = Op("<", (Index(axis.name), Number(axis.offset + axis.valid)))
            side = Op("where", (inside, self.widen(side), Number(0.0)))
        if where is None and start is None:
            return self.along_band(name, found, parts, axis, side, band)
        value: Value = Ref(self.along_band(f"{name}_here", found, parts, axis, side, band))
        if where is not None:
            value = Op("where", (where, value, Number(0.0)))
        return self.let(name, value if start is None else Op("+", (start, value)))

    def product(self, terms: list[Expression], parts: Parts) -> Value:
        """Return the product of some factors; a single tensor stays in its own dtype."""
        if len(terms) == 1:
            return self.tile(terms[0], parts)
        value = self.wide(terms[0], parts)
        for x in terms[1:]:
            value = Op("*", (value, self.wide(x, parts)))
        return value


def exact_factor(expression: Expression) -> bool:
    """Whether a factor is a power of two or its negative, so that nothing is rounded by it."""
    match expression:
        case Constant(value=value):
            return not isinstance(value, bool) and abs(frexp(value)[0]) == 0.5
        case _:
            return False


def identity_value(reducer: str) -> Number:
    """Return a reducer's identity as a value."""
    identity = REDUCERS[reducer].identity
    return Number(identity if isinstance(identity, bool) else float(identity))


def factors(expression: Expression) -> tuple[Expression, ...]:
    """Return the factors of a product, left to right; signs and reciprocals stand alone."""
    match expression:
        case Apply("*", (left, right)):
            return (*factors(left), *factors(right))
        case Apply("/", (left, right)) if left != Constant(1.0):
            return (*factors(left), Apply("/", (Constant(1.0), right)))
        case Apply("neg", (inner,)):
            return (Constant(-1.0), *factors(inner))
        case Access() | _:
            return (expression,)
