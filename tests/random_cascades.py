"""Random cascades that run: what fuzz tests of the interpreter, passes and kernels draw from.

``random_cascade(seed)`` gives a cascade, its inputs and its parameters, always the same for a seed.
Every value is finite but for maxima and minima, which are infinite over nothing; whatever reads
one of these clamps it, or reads it only where the reduced points exist. Decisions (comparisons of
reals, selections, positions of extrema) are made on inputs alone, not on computed values, so that
two ways of rounding do not decide differently; the one exception is a divisor that is made 0 below
an odd threshold.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy

from einfall.ir.cascade import Cascade, Einsum, Scalar
from einfall.ir.errors import ShapeError
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
from einfall.ir.sizes import rank_sizes

Made = tuple[Cascade, dict[str, numpy.ndarray[Any, Any]], dict[str, Scalar]]

FEATURES = frozenset(
    {"filter", "coordinate", "gather", "selection", "concatenation", "iteration", "position"}
)
"""What a cascade may contain beside plain einsums; leave some out for a back end without them."""

RANKS = ("h", "p", "m", "e", "f")
LIMIT = 50.0


def random_cascade(seed: int, features: frozenset[str] = FEATURES) -> Made:
    """Return a random cascade with 3-12 einsums over 2-5 ranks of size 1-6, and its arguments."""
    for attempt in range(100):
        made = _grow(seed * 100 + attempt, features)
        try:
            cascade, inputs, parameters = made
            rank_sizes(cascade, {n: x.shape for n, x in inputs.items()}, parameters)
        except ShapeError:
            continue  # a rank that no input shows plainly: draw again
        return made
    raise AssertionError(f"seed {seed} gives no cascade whose sizes follow from its inputs")


@dataclass(slots=True)
class _Tensor:
    """A tensor to read: its ranks, a bound of its magnitude, and whether it may be infinite."""

    name: str
    ranks: tuple[str, ...]
    bound: float = 4.0
    infinite: bool = False


@dataclass(slots=True)
class _Plot:
    """A cascade while it grows."""

    choose: random.Random
    features: frozenset[str]
    sizes: dict[str, int]
    inputs: dict[str, numpy.ndarray[Any, Any]]
    reals: list[_Tensor]
    integers: list[_Tensor]
    lists: list[_Tensor] = field(default_factory=list)
    einsums: list[Einsum] = field(default_factory=list)
    bounds: dict[str, _Tensor] = field(default_factory=dict)

    def chance(self, probability: float, feature: str = "") -> bool:
        return (not feature or feature in self.features) and self.choose.random() < probability

    def name(self) -> str:
        return f"T{len(self.einsums)}"

    def write(
        self,
        body: Expression,
        bound: float,
        filter: Expression | None = None,
        infinite: bool = False,
    ) -> _Tensor:
        """Append an einsum whose output has the ranks of its body, in random order."""
        ranks = list(free_ranks(body))
        self.choose.shuffle(ranks)
        tensor = _Tensor(self.name(), tuple(ranks), bound, infinite)
        self.einsums.append(Einsum(_at(tensor.name, *ranks), body, filter))
        self.reals.append(tensor)
        return tensor


def _grow(seed: int, features: frozenset[str]) -> Made:
    choose = random.Random(seed)
    numbers = numpy.random.default_rng(seed)
    ranks = sorted(choose.sample(RANKS, choose.randint(2, 5)))
    sizes = {rank: choose.randint(1, 6) for rank in ranks}
    plot = _Plot(choose, features, sizes, {}, [], [])
    for name in ("X", "Y", "Z", "U")[: choose.randint(2, 4)]:
        own = tuple(choose.sample(ranks, choose.randint(1, min(3, len(ranks)))))
        plot.inputs[name] = numbers.uniform(-2, 2, [sizes[r] for r in own])
        plot.reals.append(_Tensor(name, own, 2.0))
    for name in ("I", "J"):
        own = tuple(choose.sample(ranks, choose.randint(1, 2)))
        plot.inputs[name] = numbers.integers(-1, 6, [sizes[r] for r in own])
        plot.integers.append(_Tensor(name, own, 6.0))
    target = choose.randint(3, 8)  # one maker may add five
    makers = [_pointwise, _pointwise, _contraction, _contraction, _reduction, _normalised, _nested]
    makers += [_selection] * ("selection" in features)
    makers += [_concatenation] * ("concatenation" in features)
    makers += [_iteration] * ("iteration" in features)
    makers += [_position] * ("position" in features)
    while len(plot.einsums) < target:
        choose.choice(makers)(plot)
    read = {name for einsum in plot.einsums for name in einsum.reads}
    written = tuple(dict.fromkeys(e.name for e in plot.einsums))
    outputs = tuple(name for name in written if name not in read or choose.random() < 0.2)
    inputs = {name: x for name, x in plot.inputs.items() if name in read}
    bare = Cascade("fuzz", tuple(inputs), (), tuple(plot.einsums), outputs or written[-1:])
    values: dict[str, Scalar] = {"W": choose.randint(0, 6), "scale": 0.5}
    defaults: dict[str, Scalar | None] = {"W": None, "scale": 0.25}
    used = bare.parameters_read()
    cascade = Cascade(
        "fuzz",
        bare.inputs,
        # Keyword-only arguments of the def: any order is legal there.
        tuple((name, defaults[name]) for name in used),
        bare.einsums,
        bare.outputs,
    )
    return cascade, inputs, {name: values[name] for name in used}


def _at(tensor: str, *coordinates: str | Expression) -> Access:
    return Access(tensor, tuple(RankVariable(c) if isinstance(c, str) else c for c in coordinates))


def _apply(operator: str, *operands: Expression) -> Apply:
    return Apply(operator, operands)


def _read(plot: _Plot, *, inputs_only: bool = False) -> tuple[Expression, float]:
    """Return a tensor at plain or computed coordinates, and a bound of its magnitude."""
    pool = [t for t in plot.reals if t.name in plot.inputs] if inputs_only else plot.reals
    # Late tensors more often, so that cascades grow deep.
    tensor = plot.choose.choice(pool[-4:] if plot.chance(0.6) else pool)
    coordinates = [_coordinate(plot, rank) for rank in tensor.ranks]
    access: Expression = _at(tensor.name, *coordinates)
    if tensor.infinite or tensor.bound > LIMIT:
        low, high = Constant(4.0), Apply("neg", (Constant(4.0),))
        return _apply("max", _apply("min", access, low), high), 4.0
    return access, tensor.bound


def _coordinate(plot: _Plot, rank: str) -> Expression:
    variable = RankVariable(rank)
    if plot.chance(0.15, "coordinate"):
        other = RankVariable(plot.choose.choice(list(plot.sizes)))
        step = Constant(plot.choose.randint(1, 2))
        shapes: list[Expression] = [
            _apply("+", variable, step),
            _apply("-", variable, step),
            _apply("//", other, Constant(2)),
            _apply("%", other, Constant(2)),
            _apply("-", _apply("-", _apply("+", variable, Size(rank)), Constant(1)), other),
            _apply("-", _apply("-", Size(rank), Constant(1)), variable),
            Constant(plot.choose.randint(0, 2)),
        ]
        return plot.choose.choice(shapes)
    if plot.chance(0.08, "gather"):
        index = plot.choose.choice(plot.integers + plot.lists)
        return _at(index.name, *index.ranks)
    return variable


def _condition(plot: _Plot, ranks: tuple[str, ...]) -> Expression | None:
    """Return a condition over some of the ranks, or None where there are none."""
    if not ranks:
        return None
    rank, other = (RankVariable(plot.choose.choice(ranks)) for _ in range(2))
    choices: list[Expression] = [
        _apply("<=", rank, other),
        _apply("<", _apply("-", other, rank), Parameter("W")),
        _apply("==", _apply("%", rank, Constant(2)), Constant(0)),
        _apply("!=", rank, Constant(plot.choose.randint(0, 3))),
        _apply("<", _apply("abs", _apply("-", rank, other)), Constant(2)),
        _apply(">=", _apply("bit_length", rank), Constant(2)),
        _apply(">=", _apply("+", rank, Parameter("W")), Size(rank.rank)),
    ]
    if "gather" in plot.features:
        choices += [
            _apply("<", _at(t.name, *t.ranks), RankVariable(rank.rank))
            for t in plot.integers
            if set(t.ranks) <= set(ranks)
        ]
    choices += [
        _apply(">", _at(t.name, *t.ranks), Constant(-0.5))
        for t in plot.reals
        if t.name in plot.inputs and set(t.ranks) <= set(ranks) and len(t.ranks) > 1
    ]
    choices += [
        _apply("in", rank, _at(t.name, *t.ranks[:-1]))
        for t in plot.lists
        if set(t.ranks[:-1]) <= set(ranks)
    ]
    condition = plot.choose.choice(choices)
    if plot.chance(0.25):
        more = _condition(plot, ranks)
        assert more is not None
        return _apply(plot.choose.choice(["and", "or"]), condition, more)
    return _apply("not", condition) if plot.chance(0.15) else condition


def _filter(plot: _Plot, ranks: tuple[str, ...], probability: float = 0.4) -> Expression | None:
    return _condition(plot, ranks) if plot.chance(probability, "filter") else None


def _some(plot: _Plot, ranks: tuple[str, ...]) -> tuple[str, ...]:
    """Return at least one of the ranks, in their order."""
    chosen = plot.choose.sample(ranks, plot.choose.randint(1, min(2, len(ranks))))
    return tuple(rank for rank in ranks if rank in chosen)


def _expression(plot: _Plot, depth: int = 2) -> tuple[Expression, float]:
    """Return a pointwise expression and a bound of its magnitude."""
    if depth == 0 or plot.chance(0.3):
        return _read(plot)
    x, bound = _expression(plot, depth - 1)
    kind = plot.choose.randint(0, 10)
    if kind <= 1:
        name = plot.choose.choice(["tanh", "sigmoid", "sin", "cos", "erf"])
        return _apply(name, x), 1.0
    if kind == 2:
        # The cap stands in the exponent, so nothing overflows.
        return _apply(plot.choose.choice(["exp", "exp2"]), _apply("min", x, Constant(2))), 8.0
    if kind == 3:
        positive = _apply("+", _apply("abs", x), Constant(0.5))
        name = plot.choose.choice(["log", "log2", "sqrt", "rsqrt"])
        return _apply(name, positive), 8.0 + bound
    if kind == 4:
        name = plot.choose.choice(["neg", "relu", "abs", "stop_gradient"])
        return _apply(name, x), bound
    if kind == 5:
        rank = RankVariable(plot.choose.choice(list(plot.sizes)))
        return _apply("*", x, _apply("*", Parameter("scale"), rank)), 3 * bound
    if kind == 6:
        condition = _condition(plot, free_ranks(x))
        if condition is not None:
            y, other = _expression(plot, depth - 1)
            return _apply("where", condition, x, y), max(bound, other)
    y, other = _expression(plot, depth - 1)
    if kind == 7:
        return _apply("default", x, Constant(1.5)), max(bound, 1.5)
    if kind == 8:
        divisor = _apply("where", _apply("<", _apply("abs", y), Constant(0.4817)), Constant(0), y)
        return _apply("/", x, divisor), 2.1 * bound
    name = plot.choose.choice(["+", "-", "*", "max", "min", "+"])
    return _apply(name, x, y), bound * other if name == "*" else bound + other


def _pointwise(plot: _Plot) -> None:
    body, bound = _expression(plot)
    if not free_ranks(body) or prod(plot.sizes[r] for r in free_ranks(body)) > 400:
        return
    plot.write(body, bound, _filter(plot, free_ranks(body), 0.6))


def _contraction(plot: _Plot) -> None:
    factors = [_read(plot) for _ in range(plot.choose.randint(2, 3))]
    body, bound = factors[0]
    for factor, other in factors[1:]:
        body, bound = _apply("*", body, factor), bound * other
    if not free_ranks(body) or prod(plot.sizes[r] for r in free_ranks(body)) > 1500:
        return
    ranks = _some(plot, free_ranks(body))
    bound *= prod(plot.sizes[rank] for rank in ranks)
    reduced = Reduce("sum", ranks, body, _filter(plot, free_ranks(body), 0.25))
    plot.write(reduced, bound, _filter(plot, free_ranks(reduced)))


def _reduction(plot: _Plot) -> None:
    body, bound = _expression(plot, 1)
    ranks = free_ranks(body)
    if not ranks or prod(plot.sizes[r] for r in ranks) > 400:
        return
    reducer = plot.choose.choice(["sum", "max", "min", "prod", "any", "all"])
    if reducer == "prod":
        body, bound = _apply("tanh", body), 1.0
    if reducer in ("any", "all"):
        condition = _condition(plot, ranks)
        if condition is None or not free_ranks(condition):
            return
        body, ranks, bound = condition, free_ranks(condition), 1.0
    reduced_ranks = _some(plot, ranks)
    if reducer == "sum":
        bound *= prod(plot.sizes[rank] for rank in reduced_ranks)
    reduced = Reduce(reducer, reduced_ranks, body, _filter(plot, ranks, 0.3))
    filter = _filter(plot, free_ranks(reduced), 0.2)
    plot.write(reduced, bound, filter, infinite=reducer in ("max", "min"))


def _normalised(plot: _Plot) -> None:
    """Write the four einsums of exponentials over their sum."""
    score, _ = _read(plot)
    if len(free_ranks(score)) < 2:
        return
    ranks = free_ranks(score)
    bounded = _apply("*", Constant(3), _apply("tanh", score))
    scores = plot.write(bounded, 3.0, _filter(plot, ranks, 0.8))
    reduced = (plot.choose.choice(ranks),)
    s = _at(scores.name, *scores.ranks)
    top = plot.write(Reduce("max", reduced, s), 3.0, infinite=True)
    exps = plot.write(_apply("exp", _apply("-", s, _at(top.name, *top.ranks))), 1.0)
    n = _at(exps.name, *exps.ranks)
    total = plot.write(Reduce("sum", reduced, n), 6.0)
    plot.write(_apply("/", n, _at(total.name, *total.ranks)), 1.0)


def _nested(plot: _Plot) -> None:
    """Write a reduction inside a pointwise expression."""
    (x, bound), (y, other) = _read(plot), _read(plot)
    free = [rank for rank in free_ranks(y) if rank not in free_ranks(x)]
    if not free:
        return
    rank = plot.choose.choice(free)
    inner = Reduce("sum", (rank,), _apply("*", y, x), _filter(plot, free_ranks(y), 0.3))
    body = _apply("+", x, inner) if plot.chance(0.5) else _apply("*", inner, Parameter("scale"))
    plot.write(body, bound + bound * other * plot.sizes[rank], _filter(plot, free_ranks(body)))


def _position(plot: _Plot) -> None:
    x, _ = _read(plot, inputs_only=True)
    if not free_ranks(x):
        return
    rank = plot.choose.choice(free_ranks(x))
    name = plot.choose.choice(["argmax", "argmin"])
    plot.write(Reduce(name, (rank,), x, _filter(plot, free_ranks(x), 0.5)), 6.0)


def _selection(plot: _Plot) -> None:
    x, _ = _read(plot, inputs_only=True)
    rank = plot.choose.choice(free_ranks(x) or ("",))
    slots = f"j{len(plot.einsums)}"
    if not rank:
        return
    selector = plot.choose.choice(["topk", "threshold", "cover"])
    if selector == "topk":
        plot.sizes[slots] = plot.choose.randint(1, 4)
        argument = Constant(plot.sizes[slots])
    else:
        argument = Constant(0.5)
        plot.sizes[slots] = plot.sizes[rank]
    if selector == "cover":
        x = _apply("abs", x)
    selected = Populate(
        selector, rank, argument, x, _filter(plot, free_ranks(x)), _filter(plot, free_ranks(x))
    )
    ranks = (*(r for r in free_ranks(selected)), slots)
    tensor = _Tensor(plot.name(), ranks, 6.0)
    plot.einsums.append(Einsum(_at(tensor.name, *ranks), selected))
    plot.lists.append(tensor)


def _concatenation(plot: _Plot) -> None:
    """Lay two tensors that differ in one rank end to end."""
    pairs = [
        (a, b)
        for a in plot.reals
        for b in plot.reals
        if not a.infinite and not b.infinite
        and len(set(a.ranks) - set(b.ranks)) == len(set(b.ranks) - set(a.ranks)) == 1
        and len(a.ranks) + len(b.ranks) <= 5
    ]  # fmt: skip
    if not pairs:
        return
    a, b = plot.choose.choice(pairs)
    rank = f"n{len(plot.einsums)}"
    (own_a,), (own_b,) = set(a.ranks) - set(b.ranks), set(b.ranks) - set(a.ranks)
    plot.sizes[rank] = plot.sizes[own_a] + plot.sizes[own_b]
    body = Concatenate(rank, (_at(a.name, *a.ranks), _at(b.name, *b.ranks)))
    ranks = [*(r for r in a.ranks if r != own_a), rank]
    plot.choose.shuffle(ranks)
    tensor = _Tensor(plot.name(), tuple(ranks), max(a.bound, b.bound))
    plot.einsums.append(Einsum(_at(tensor.name, *ranks), body, _filter(plot, tuple(ranks), 0.2)))
    plot.reals.append(tensor)


def _iteration(plot: _Plot) -> None:
    """Write a decaying recurrence, sometimes with a second tensor that runs beside it."""
    x, bound = _read(plot)
    if len(free_ranks(x)) < 2 or bound > LIMIT:
        return
    rank = plot.choose.choice(free_ranks(x))
    kept = [r for r in free_ranks(x) if r != rank]
    name, n = f"H{len(plot.einsums)}", RankVariable(rank)
    following: Expression = _apply("+", n, Constant(1))
    first: Expression = Constant(0)
    final: Expression = Size(rank)
    earlier: Expression = n
    written = following
    if plot.chance(0.3):  # the other way: from the last generation down to 0
        earlier, written, first, final = following, n, final, first
    before = _at(name, earlier, *kept)
    plot.einsums.append(Einsum(_at(name, first, *kept), Constant(0.5)))
    step: Expression = _apply("+", _apply("*", Constant(0.5), before), _apply("default", x, before))
    ranks = (*(r for r in kept), rank)
    if plot.chance(0.5):
        beside = f"B{len(plot.einsums)}"
        mixed = _apply("tanh", _apply("-", before, x))
        plot.einsums.append(Einsum(_at(beside, *ranks), mixed))
        step = _apply("+", step, _apply("default", _at(beside, *ranks), Constant(0.25)))
        plot.reals.append(_Tensor(beside, ranks, 1.0))
    elif plot.chance(0.5):
        step = _apply("max", before, _apply("tanh", x))
    plot.einsums.append(Einsum(_at(name, written, *kept), step))
    total = (2 * bound + 3) * 2 ** plot.sizes[rank]
    result = _at(name, n if plot.chance(0.5) else final, *kept)
    plot.write(_apply("tanh", result) if total > LIMIT else result, total)
