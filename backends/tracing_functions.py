"""What torch's functions and Python's operators are in the notation, by name, for tracing.

Each entry takes symbols, things with an ``expression`` and a ``kind``, and gives the expression and
the kind of the result, or None where the arguments have no form.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ..ir.expression import Apply, Constant, Expression

Result = tuple[Expression, str] | None
Build = Callable[..., Result]

KINDS = ("where", "abs", "minimum", "maximum", "clamp", "exp", "log", "tanh", "sigmoid", "sqrt")
"""Some functions, to be named in an error."""

BOOLEAN = ("and", "or", "not", "==", "!=", "<", "<=", ">", ">=")

CONVERTED = {
    **dict.fromkeys(("to", "type", "type_as", "contiguous", "clone", "detach"), ""),
    **dict.fromkeys(("float", "double", "half", "bfloat16"), "float"),
    **dict.fromkeys(("int", "long", "short"), "int"),
    "bool": "bool",
    **dict.fromkeys(("view", "reshape", "squeeze", "unsqueeze", "expand"), ""),
}
"""Methods that change at most the kind of a number, and to which."""

MADE = frozenset(("tensor", "scalar_tensor", "full", "zeros", "ones", "as_tensor"))
"""Functions of torch that make a tensor of numbers."""

COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
LONGER = {"less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge",
          "not_equal": "ne"}  # fmt: skip

ARITHMETIC = {"add": "+", "sub": "-", "subtract": "-", "mul": "*", "multiply": "*",
              "floordiv": "//", "floor_divide": "//", "mod": "%", "remainder": "%"}  # fmt: skip
REAL = ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "tanh", "sigmoid", "erf", "sin", "cos")
JOINED = {"and": "and", "or": "or", "bitwise_and": "and", "bitwise_or": "or",
          "logical_and": "and", "logical_or": "or"}  # fmt: skip
MIRRORED = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")


def plain(x: Any) -> Expression:
    """Return a symbol for arithmetic: a truth value is 1 or 0."""
    found: Expression = x.expression
    if x.kind != "bool":
        return found
    if isinstance(found, Constant):
        return Constant(int(found.value))
    return Apply("where", (found, Constant(1), Constant(0)))


def truth(x: Any) -> Expression:
    """Return a symbol as a truth value."""
    found: Expression = x.expression
    return found if x.kind == "bool" else Apply("!=", (found, Constant(0)))


def joined_kind(*given: Any) -> str:
    """Return the kind of number that arithmetic gives."""
    kinds = {x.kind for x in given}
    return "float" if "float" in kinds else "int"


def arithmetic(symbol: str) -> Build:
    """Return how a binary operator is written."""

    def build(a: Any, b: Any) -> Result:
        return Apply(symbol, (plain(a), plain(b))), joined_kind(a, b)

    return build


def comparison(symbol: str) -> Build:
    """Return how a comparison is written."""

    def build(a: Any, b: Any) -> Result:
        both = a.kind == b.kind == "bool"
        pair = (a.expression, b.expression) if both else (plain(a), plain(b))
        return Apply(symbol, pair), "bool"

    return build


def real(name: str) -> Build:
    """Return how a function of real numbers is written."""
    return lambda x: (Apply(name, (plain(x),)), "float")


def connective(symbol: str, logical: bool) -> Build:
    """Return how ``&`` and ``|`` are written: of truth values, or as bits where that is a rest."""

    def build(a: Any, b: Any) -> Result:
        if logical or a.kind == b.kind == "bool":
            sides = [truth(a), truth(b)]
            absorbing, neutral = Constant(symbol == "or"), Constant(symbol == "and")
            if absorbing in sides:
                return absorbing, "bool"
            left = [x for x in sides if x != neutral] or [neutral]
            return (left[0] if len(left) == 1 else Apply(symbol, (left[0], left[1]))), "bool"
        if symbol == "and" and isinstance(b.expression, Constant):
            # the low bits of a number are its rest
            mask = b.expression.value
            if isinstance(mask, int) and mask > 0 and mask & (mask + 1) == 0:
                return Apply("%", (plain(a), Constant(mask + 1))), "int"
        return None

    return build


def where(condition: Any, yes: Any, no: Any) -> Result:
    """Write a choice."""
    if yes.kind == no.kind == "bool":
        return Apply("where", (truth(condition), yes.expression, no.expression)), "bool"
    return Apply("where", (truth(condition), plain(yes), plain(no))), joined_kind(yes, no)


def extreme(name: str) -> Build:
    """Write the smaller or larger of two."""
    return lambda a, b: (Apply(name, (plain(a), plain(b))), joined_kind(a, b))


def clamp(x: Any, min: Any = None, max: Any = None) -> Result:
    """Write a number kept between two others."""
    found, kind = plain(x), x.kind
    for end, name in ((min, "max"), (max, "min")):
        if end is None:
            continue
        bound = Constant(end) if isinstance(end, int | float) else plain(end)
        if isinstance(end, float) or getattr(end, "kind", "") == "float":
            kind = "float"
        found = Apply(name, (found, bound))
    return found, kind


def divide(a: Any, b: Any, rounding_mode: str | None = None) -> Result:
    """Write a quotient, rounded down or not at all."""
    if rounding_mode == "floor":
        return arithmetic("//")(a, b)
    return None if rounding_mode else (Apply("/", (plain(a), plain(b))), "float")


def power(a: Any, b: Any) -> Result:
    """Write a power."""
    return Apply("**", (plain(a), plain(b))), joined_kind(a, b)


def negate(x: Any, logical: bool) -> Result:
    """Write the opposite of a truth value."""
    return (Apply("not", (truth(x),)), "bool") if logical or x.kind == "bool" else None


def shift(name: str) -> Build:
    """Write a shift by a number of bits as a product or quotient."""

    def build(a: Any, b: Any) -> Result:
        factor: Expression = Apply("**", (Constant(2), plain(b)))
        if isinstance(b.expression, Constant):
            factor = Constant(2**b.expression.value)
        return Apply(name, (plain(a), factor)), "int"

    return build


def mirrored(build: Build) -> Build:
    """Exchange two operands."""
    return lambda a, b: build(b, a)


@cache
def functions() -> dict[str, Build]:
    """Return how each function is written, by its name without underscores around it."""
    found: dict[str, Build] = {n: arithmetic(s) for n, s in ARITHMETIC.items()}
    found |= {n: comparison(s) for n, s in COMPARED.items()}
    found |= {long: found[short] for long, short in LONGER.items()}
    found |= {n: real(n) for n in REAL}
    found |= {n: connective(s, n.startswith("logical")) for n, s in JOINED.items()}
    found |= {n: extreme("min") for n in ("minimum", "min")}
    found |= {n: extreme("max") for n in ("maximum", "max")}
    found |= {n: divide for n in ("truediv", "div", "divide", "true_divide")}
    found |= {n: clamp for n in ("clamp", "clip")}
    found |= {n: lambda x: (Apply("abs", (plain(x),)), x.kind) for n in ("abs", "absolute")}
    found |= {n: lambda x: (Apply("neg", (plain(x),)), x.kind) for n in ("neg", "negative")}
    found |= {
        "where": where,
        "masked_fill": lambda x, condition, value: where(condition, value, x),
        "pow": power,
        "invert": lambda x: negate(x, False),
        "bitwise_not": lambda x: negate(x, False),
        "logical_not": lambda x: negate(x, True),
        "xor": lambda a, b: comparison("!=")(a, b) if a.kind == b.kind == "bool" else None,
        "logical_xor": lambda a, b: (Apply("!=", (truth(a), truth(b))), "bool"),
        "relu": lambda x: (Apply("relu", (plain(x),)), x.kind),
        "floor": lambda x: (Apply("floor", (plain(x),)), x.kind),
        "ceil": lambda x: (Apply("ceil", (plain(x),)), x.kind),
        "square": lambda x: (Apply("*", (plain(x), plain(x))), x.kind),
        "reciprocal": lambda x: (Apply("/", (Constant(1), plain(x))), "float"),
        "lshift": shift("*"),
        "rshift": shift("//"),
        "bitwise_left_shift": shift("*"),
        "bitwise_right_shift": shift("//"),
    }
    found["bitwise_xor"] = found["xor"]
    found |= {f"r{n}": mirrored(found[n]) for n in MIRRORED}
    found |= {"rdiv": mirrored(divide), "rsub": mirrored(found["sub"])}
    return found


@cache
def known_functions() -> frozenset[str]:
    """Return the names of all functions that have a form."""
    return frozenset(functions())
