"""Derivatives of the pointwise operators: the table on which ``differentiate`` stands.

Where an operator has a kink the rule is a subgradient, and always the same one: ``max`` and ``min``
give to the first of equal operands, ``relu`` and ``abs`` give nothing at 0. A quotient by 0 is 0,
so its derivative is 0 too. Operators that jump (``floor``, ``//``, comparisons) have none.
"""

from __future__ import annotations

from math import log, pi, sqrt

from ..ir.expression import Apply, Constant, Expression

WITHOUT = frozenset(
    ("or", "and", "not", "in", "==", "!=", "<", "<=", ">", ">=", "//", "floor", "ceil")
) | frozenset(("bit_length", "stop_gradient", "random"))
"""Operators through which no gradient passes."""

BY_RESULT = frozenset(("exp", "exp2", "sqrt", "rsqrt", "tanh", "sigmoid"))
"""Operators whose derivative is read off their result, which is worth a name for that."""

ZERO = Constant(0.0)


def partials(
    operator: str, operands: tuple[Expression, ...], result: Expression, gradient: Expression
) -> tuple[Expression | None, ...]:
    """Return, for each operand, the gradient of the result times the partial derivative.

    ``result`` is an expression for ``operator(operands)``, ``gradient`` the gradient that arrives
    there. None stands for an operand that has no part in it. ``where`` and ``default`` are not
    here: they choose, and a choice is a condition.
    """
    if operator in WITHOUT:
        return (None,) * len(operands)
    match operator, operands:
        case "+", _:
            return (gradient, gradient)
        case "-", _:
            return (gradient, negative(gradient))
        case "neg", _:
            return (negative(gradient),)
        case "*", (x, y):
            return (times(gradient, y), times(gradient, x))
        case "/", (x, y):
            return (over(gradient, y), negative(over(times(gradient, result), y)))
        case "%", (x, y):
            whole = Apply("floor", (over(x, y),))
            return (gradient, negative(times(gradient, whole)))
        case "**", (x, Constant(value=power)):
            return (_power(x, power, gradient), None)
        case "**", (x, y):
            base = times(times(gradient, y), Apply("**", (x, Apply("-", (y, Constant(1))))))
            exponent = times(times(gradient, result), Apply("log", (x,)))
            return (base, Apply("where", (Apply(">", (x, Constant(0))), exponent, ZERO)))
        case "max" | "min", _:
            return _extremum(operator, operands, gradient)
        case _, (x,):
            return (_function(operator, x, result, gradient),)
    raise AssertionError(f"{operator} has no derivative")


def _function(operator: str, x: Expression, result: Expression, g: Expression) -> Expression:
    """Return the gradient through a function of one operand."""
    zero, one = Constant(0), Constant(1)
    match operator:
        case "exp":
            return times(g, result)
        case "exp2":
            return times(times(g, result), Constant(log(2)))
        case "log":
            return over(g, x)
        case "log2":
            return over(g, times(x, Constant(log(2))))
        case "sqrt":
            return over(g, times(Constant(2), result))
        case "rsqrt":
            return over(times(g, result), times(Constant(-2), x))
        case "tanh":
            return times(g, Apply("-", (one, times(result, result))))
        case "sigmoid":
            return times(times(g, result), Apply("-", (one, result)))
        case "relu":
            return Apply("where", (Apply(">", (x, zero)), g, ZERO))
        case "abs":
            below = Apply("where", (Apply("<", (x, zero)), negative(g), ZERO))
            return Apply("where", (Apply(">", (x, zero)), g, below))
        case "erf":
            bell = Apply("exp", (negative(times(x, x)),))
            return times(times(g, Constant(2 / sqrt(pi))), bell)
        case "sin":
            return times(g, Apply("cos", (x,)))
        case "cos":
            return negative(times(g, Apply("sin", (x,))))
    raise AssertionError(f"{operator} has no derivative")


def _power(x: Expression, power: float, g: Expression) -> Expression | None:
    if power == 0:
        return None
    if power == 1:
        return g
    lower = x if power == 2 else Apply("**", (x, Constant(power - 1)))
    return times(times(g, Constant(power)), lower)


def _extremum(
    operator: str, operands: tuple[Expression, ...], g: Expression
) -> tuple[Expression, ...]:
    """Give to the first operand that none exceeds."""
    better, equal = (">", ">=") if operator == "max" else ("<", "<=")
    found: list[Expression] = []
    for place, x in enumerate(operands):
        tests = tuple(
            Apply(better if other < place else equal, (x, y))
            for other, y in enumerate(operands)
            if other != place
        )
        test = tests[0] if len(tests) == 1 else Apply("and", tests)
        found.append(Apply("where", (test, g, ZERO)))
    return tuple(found)


def times(x: Expression, y: Expression) -> Expression:
    """Return a product."""
    return Apply("*", (x, y))


def over(x: Expression, y: Expression) -> Expression:
    """Return a quotient."""
    return Apply("/", (x, y))


def negative(x: Expression) -> Expression:
    """Return the expression with the other sign."""
    return Apply("neg", (x,))
