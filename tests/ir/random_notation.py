"""Random cascades for the round trip: well-formed, with every node and every odd nesting.

They need not mean anything sensible; sizes and values are never asked for.
"""

from __future__ import annotations

from math import inf

from hypothesis import strategies as st

from einfall.ir.cascade import Cascade, Einsum, Scalar
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
)
from einfall.ir.operators import OPERATORS, REDUCERS, SELECTORS

RANKS = ("b", "h", "p", "m", "e", "f")
INNER = ("c", "j", "k", "n")
INPUTS = {"X": 0, "Q": 1, "K": 2, "V": 3, "Sel": 2, **{f"P{n}": n for n in range(1, 5)}}
PARAMETERS = ("W", "G", "scale")

_NUMBERS = st.one_of(
    st.integers(-3, 10),
    st.floats(allow_nan=False, width=64),
    st.sampled_from((True, False, inf, -inf, -0.0, 1e300, 10**30)),
)
# Infix operators come three times as often: they are what parentheses are about.
_POINTWISE = (
    *(x for x in OPERATORS if x != "in"),
    *2 * tuple(x for x, facts in OPERATORS.items() if facts.symbol and x != "in"),
)


@st.composite
def expressions(
    draw: st.DrawFn,
    scope: tuple[str, ...],
    known: dict[str, int],
    depth: int = 3,
    spare: tuple[str, ...] = INNER,
) -> Expression:
    """Draw an expression in which only ranks of ``scope`` vary, over tensors ``known``."""
    leaves = ["constant", "parameter", "access"] + (["rank", "size"] if scope else [])
    kind = draw(st.sampled_from(leaves + ["apply", "apply", "reduce", "in", "chain"][: 5 * depth]))
    below = expressions(scope, known, max(depth - 1, 0), spare)
    match kind:
        case "constant":
            return Constant(draw(_NUMBERS))
        case "parameter":
            return Parameter(draw(st.sampled_from(PARAMETERS)))
        case "rank":
            return RankVariable(draw(st.sampled_from(scope)))
        case "size":
            return Size(draw(st.sampled_from(scope)))
        case "access":
            return draw(accesses(scope, known, depth))
        case "in":
            lists = {name: count - 1 for name, count in known.items() if count}
            return Apply("in", (draw(below), draw(accesses(scope, lists, 1))))
        case "chain":
            a, b, c = draw(below), draw(below), draw(below)
            first, second = draw(
                st.lists(st.sampled_from(("<", "<=", "==")), min_size=2, max_size=2)
            )
            return Apply("and", (Apply(first, (a, b)), Apply(second, (b, c))))
        case "reduce" if spare:
            return draw(reductions(scope, known, depth, spare))
        case _:
            name = draw(st.sampled_from(_POINTWISE))
            arity = OPERATORS[name].arity or draw(st.integers(2, 3))
            operands: list[Expression] = [draw(below) for _ in range(arity)]
            return Apply(name, tuple(operands))


@st.composite
def accesses(draw: st.DrawFn, scope: tuple[str, ...], known: dict[str, int], depth: int) -> Access:
    """Draw a tensor at coordinates that are ranks, or expressions of ranks and parameters."""
    name = draw(st.sampled_from(sorted(known)))
    plain = st.sampled_from(scope).map(RankVariable) if scope else st.just(Constant(0))
    coordinate: st.SearchStrategy[Expression]
    coordinate = plain if depth < 2 else st.one_of(plain, expressions(scope, known, depth - 2, ()))
    return Access(name, tuple(draw(coordinate) for _ in range(known[name])))


@st.composite
def reductions(
    draw: st.DrawFn,
    scope: tuple[str, ...],
    known: dict[str, int],
    depth: int,
    spare: tuple[str, ...],
) -> Reduce:
    """Draw a reduction over one or two ranks that occur in its body."""
    count = draw(st.integers(1, min(2, len(spare))))
    ranks, left = spare[:count], spare[count:]
    inner = (*scope, *ranks)
    body = draw(expressions(inner, known, max(depth - 1, 0), left))
    for rank in ranks:
        body = Apply(draw(st.sampled_from(("*", "+", "-", "**"))), (body, RankVariable(rank)))
    filter = draw(st.none() | conditions(inner, known, left))
    return Reduce(draw(st.sampled_from(sorted(REDUCERS))), ranks, body, filter)


@st.composite
def conditions(
    draw: st.DrawFn, scope: tuple[str, ...], known: dict[str, int], spare: tuple[str, ...] = ()
) -> Expression:
    """Draw a condition that is true or false for certain."""
    number = expressions(scope, known, 1, spare)
    kind = draw(st.sampled_from(("compare", "compare", "not", "and", "or", "truth", "access")))
    match kind:
        case "not":
            return Apply("not", (draw(conditions(scope, known, spare)),))
        case "and" | "or":
            size = draw(st.integers(2, 3))
            return Apply(kind, tuple(draw(conditions(scope, known, spare)) for _ in range(size)))
        case "truth":
            return Constant(draw(st.booleans()))
        case "access":
            return draw(accesses(scope, known, 1))
        case _:
            operator = draw(st.sampled_from(("<", "<=", ">", ">=", "==", "!=")))
            return Apply(operator, (draw(number), draw(number)))


@st.composite
def cascades(draw: st.DrawFn) -> Cascade:
    """Draw a cascade of one to four einsums; each may read those above."""
    known = dict(INPUTS)
    einsums: list[Einsum] = []
    for number in range(draw(st.integers(1, 4))):
        name = f"T{number}"
        written = draw(_einsums(name, known))
        einsums += written
        known[name] = len(written[0].output.coordinates)
    read = {name for einsum in einsums for name in einsum.reads}
    inputs = tuple(x for x in draw(st.permutations(sorted(INPUTS))) if x in read)
    names = [e.name for e in einsums]
    outputs = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    parameters: list[tuple[str, Scalar | None]] = [
        (x, draw(st.none() | _NUMBERS)) for x in draw(st.permutations(PARAMETERS))
    ]
    return Cascade("random", inputs, tuple(parameters), tuple(einsums), tuple(outputs))


@st.composite
def _einsums(draw: st.DrawFn, name: str, known: dict[str, int]) -> tuple[Einsum, ...]:
    ranks = tuple(draw(st.lists(st.sampled_from(RANKS), max_size=3, unique=True)))
    output = Access(name, tuple(RankVariable(x) for x in ranks))
    filter = draw(st.none() | conditions(ranks, known)) if ranks else None
    kind = draw(st.sampled_from(("plain", "plain", "plain", "iterative", "select", "concat")))
    if kind == "select":
        return (draw(_selections(name, ranks, known)),)
    if kind == "concat":
        return (draw(_concatenations(name, ranks)),)
    body = expressions(ranks, known)
    if kind == "plain" or not ranks:
        return (Einsum(output, draw(body), filter),)
    step, *others = output.coordinates
    previous = Apply("*", (Parameter("scale"), output))
    if draw(st.booleans()):  # from the first generation on
        first = Access(name, (Constant(0), *others))
        moved = Access(name, (Apply("+", (step, Constant(1))), *others))
    else:  # from the last one back
        first, moved = Access(name, (Size(ranks[0]), *others)), output
        previous = Apply(
            "*", (Parameter("scale"), Access(name, (Apply("+", (step, Constant(1))), *others)))
        )
    start = draw(expressions(ranks[1:], known, 1))
    return (
        Einsum(first, start),
        Einsum(moved, Apply("+", (previous, draw(body))), filter),
    )


@st.composite
def _selections(
    draw: st.DrawFn, name: str, ranks: tuple[str, ...], known: dict[str, int]
) -> Einsum:
    scope = (*ranks, "m0")
    body = Apply("*", (draw(expressions(scope, known, 2)), RankVariable("m0")))
    for rank in ranks:
        body = Apply("+", (RankVariable(rank), body))
    selection = Populate(
        draw(st.sampled_from(SELECTORS)),
        "m0",
        draw(expressions(ranks, known, 1, ())),
        body,
        draw(st.none() | conditions(scope, known)),
        draw(st.none() | conditions(scope, known)),
        draw(st.booleans()),
    )
    return Einsum(Access(name, tuple(RankVariable(x) for x in (*ranks, "slot"))), selection)


@st.composite
def _concatenations(draw: st.DrawFn, name: str, ranks: tuple[str, ...]) -> Einsum:
    parts: list[Expression] = []
    for own in INNER[: draw(st.integers(2, 3))]:
        coordinates = tuple(RankVariable(x) for x in draw(st.permutations((own, *ranks))))
        parts.append(Access(f"P{len(coordinates)}", coordinates))
    output = Access(name, tuple(RankVariable(x) for x in ("joint", *ranks)))
    return Einsum(output, Concatenate("joint", tuple(parts)))
