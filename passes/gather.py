"""Gather: a product as what varies times one scalar, so that a kernel computes that scalar once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from ..ir.cascade import Scalar
from ..ir.expression import Apply, Constant, Expression, free_ranks
from .facts import is_finite, is_integer, is_positive, is_real, is_scalar
from .product import Factor, factors, write_product


def gather(
    expression: Expression,
    *,
    infinite: frozenset[str],
    real: frozenset[str],
    parameters: Mapping[str, Scalar],
) -> Expression:
    """Return a product as ``varying * (symbols * constant / divisors)``, or the argument itself.

    A scalar at a factor that has fewer ranks than the product stays there: it is computed less
    often. The product stays as it is where it is of whole numbers and divides, since rounding would
    show; and where a divisor may be 0 and what it divides infinite, since x / 0 is 0, inf * 0 not.
    """
    chain = _Chain(frozenset(free_ranks(expression)))
    chain.collect(expression)
    if not chain.over and not chain.under and not chain.negative:
        return expression
    varying = [x.expression for x in chain.varying]
    if varying and chain.under and all(is_integer(x) for x in varying):
        return expression
    if any(isinstance(x, Constant) and not x.value for x in chain.under):
        return expression
    if abs(prod(_values(chain.over))) >= 2**63:
        return expression
    signed = [x for x in chain.under if not isinstance(x, Constant)]
    open_ones = [x for x in signed if not is_positive(x, parameters=parameters)]
    if open_ones and len(chain.over) + len(chain.under) > 1:
        if not all(is_finite(x, infinite) for x in varying):
            return expression
    return chain.write(real)


@dataclass(slots=True)
class _Chain:
    """A product taken apart: what varies, in order, and the scalars over and under the line."""

    ranks: frozenset[str]
    varying: list[Factor] = field(default_factory=list)
    over: list[Expression] = field(default_factory=list)
    under: list[Expression] = field(default_factory=list)
    negative: bool = False

    def collect(self, x: Expression) -> None:
        """Take a factor apart, unless a scalar in it is computed less often where it stands."""
        match x:
            case _ if is_scalar(x) and not isinstance(x, Apply):
                self.over.append(x)
            case Apply("neg", (y,)):
                self.negative = not self.negative
                self.collect(y)
            case Apply("*" | "/") if self.settled(x):
                self.varying.append(Factor(x))
            case Apply("*", (y, z)):
                self.collect(y)
                self.collect(z)
            case Apply("/", (y, d)):
                self.collect(y)
                self.divide(d)
            case _ if is_scalar(x):
                self.over.append(x)
            case _:
                self.varying.append(Factor(x))

    def divide(self, d: Expression) -> None:
        match d:
            case Apply("neg", (inner,)):
                self.negative = not self.negative
                self.divide(inner)
            case Apply("*", (y, z)) if is_scalar(d):
                # A product is 0 where a factor is, so dividing by one after the other is the same.
                self.divide(y)
                self.divide(z)
            case _ if is_scalar(d):
                self.under.append(d)
            case _:
                self.varying.append(Factor(d, divides=True))

    def settled(self, x: Expression) -> bool:
        """Whether x has fewer ranks than the whole product and carries its own scalar."""
        ranks = set(free_ranks(x))
        return (
            bool(ranks)
            and ranks < self.ranks
            and any(is_scalar(part.expression) for part in factors(x)[1])
        )

    def write(self, real: frozenset[str]) -> Expression:
        """Write the product out."""
        constant: int | float = prod(_values(self.over))
        below = prod(_values(self.under))
        over: list[Expression] = [x for x in self.over if not isinstance(x, Constant)]
        under: list[Expression] = [x for x in self.under if not isinstance(x, Constant)]
        divided = any(isinstance(x, Constant) for x in self.under)
        alone = divided and constant == 1 and not over and not under
        if divided and not alone:
            constant = constant / below
        negative = self.negative
        if negative and constant != 1:
            constant, negative = -constant, False
        kept_real = bool(under) or any(is_real(x.expression, real) for x in self.varying)
        kept_real |= any(x.divides for x in self.varying)
        if constant != 1 or (isinstance(constant, float) and not (kept_real or alone)):
            over.append(Constant(constant))
        if alone:
            under.append(Constant(below))
        return self.join(over, under, negative)

    def join(self, over: list[Expression], under: list[Expression], negative: bool) -> Expression:
        scalars = [Factor(x) for x in over]
        numerator = write_product(tuple(scalars)) if scalars else None
        denominator = write_product(tuple(Factor(x) for x in under)) if under else None
        parts = list(self.varying)
        if not parts or parts[0].divides:
            parts.insert(0, Factor(Constant(1) if numerator is None else numerator))
            if denominator is not None:
                parts.insert(1, Factor(denominator, divides=True))
        elif numerator is not None:
            both = numerator if denominator is None else Apply("/", (numerator, denominator))
            parts.append(Factor(both))
        elif denominator is not None:
            parts.append(Factor(denominator, divides=True))
        return write_product(tuple(parts), negative=negative)


def _values(parts: list[Expression]) -> list[int | float]:
    return [
        int(x.value) if isinstance(x.value, bool) else x.value
        for x in parts
        if isinstance(x, Constant)
    ]
