"""Scatter: the inverse of reading at computed coordinates.

An einsum reads ``X[c1, c2]`` at coordinates made of its iteration ranks; a gradient arrives at each
iteration point and belongs to the point of X that was read. ``scatter`` turns the coordinates
round: it gives each iteration rank as a function of X's ranks where that is possible, and says what
is left to be summed under which condition.

::

    X[p, e]                     nothing to turn
    X[p // G]                   p = x * G + g, summed over g of size G
    X[j * B + r]                j = x // B, r = x % B
    X[(e + 1) % size(e)]        e = (x - 1) % size(e)
    X[p - m + size(m) - 1]      p = x + m - size(m) + 1, summed over m
    X[idx[j]]                   summed over j where idx[j] == x
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..ir.expression import Apply, Expression, RankVariable, Size, free_ranks, rewrite, substitute
from ..ir.linear import Linear, delinear, linear
from .align import fresh
from .existence import inside
from .facts import is_scalar
from .solve_equalities import solution


@dataclass(slots=True)
class Scatter:
    """How iteration points map to the points of a tensor.

    values : iteration ranks, as expressions of the tensor's ranks and of those still summed.
    conditions : what must hold of the ranks that are left, beside the iteration's own conditions.
    summed : iteration ranks that are left, to be summed; ``split`` those that a quotient added.
    paired : the ranks of the tensor that a quotient goes with, which gives them their size.
    """

    values: dict[str, Expression] = field(default_factory=dict)
    conditions: list[Expression] = field(default_factory=list)
    summed: tuple[str, ...] = ()
    split: tuple[str, ...] = ()
    paired: tuple[str, ...] = ()

    def settle(self, conditions: list[Expression]) -> list[Expression]:
        """Put a rank that is to be summed where a condition says that it stands; return the others.

        ``sum[i: p // B == i](X[i])`` is ``X[p // B]`` where that lies inside.
        """
        for test in conditions:
            for rank in self.summed:
                place = solution(test, rank)
                if place is None or isinstance(place, RankVariable):
                    continue  # a tensor read at a bare rank would give the rank its size
                here: dict[str, Expression] = {rank: place}
                self.values = {r: substitute(x, here) for r, x in self.values.items()} | here
                self.conditions = [substitute(c, here) for c in self.conditions]
                self.conditions += inside(place, rank)
                self.summed = tuple(r for r in self.summed if r != rank)
                return self.settle([substitute(c, here) for c in conditions if c != test])
        return conditions

    def moved(self, x: Expression) -> Expression:
        """Return an expression of iteration ranks over the ranks that are left."""
        return rewrite(substitute(x, self.values), settled)


def scatter(
    coordinates: tuple[Expression, ...],
    ranks: tuple[str, ...],
    iteration: Iterable[str],
    *,
    homed: frozenset[str],
    taken: set[str],
    digits: dict[tuple[str, Expression], str],
) -> Scatter:
    """Turn coordinates round.

    ``ranks`` are the tensor's, one for each coordinate; ``iteration`` those of the einsum that
    reads. ``homed`` are ranks whose size an input gives, so that a digit of a mixed radix may be
    longer than its base. Names of new ranks are added to ``taken``; ``digits`` are those of low
    digits, by the high digit's rank and the base, so that alike readings share one.
    """
    found = Scatter()
    left = list(iteration)
    # An iteration rank with the name of another rank of the tensor gets out of the way.
    once: dict[str, str] = {}
    for rank in list(left):
        if rank in ranks and RankVariable(rank) != coordinates[ranks.index(rank)]:
            name = fresh(f"{rank}_2", taken)
            found.values[rank] = RankVariable(name)
            left[left.index(rank)] = name
            once[name] = rank
    moved = [substitute(c, dict(found.values)) for c in coordinates]

    def bind(rank: str, value: Expression) -> None:
        left.remove(rank)
        for name, old in found.values.items():
            found.values[name] = substitute(old, {rank: value})
        found.values[rank] = value

    order = sorted(range(len(moved)), key=lambda k: not isinstance(moved[k], RankVariable))
    for k in order:
        goal = RankVariable(ranks[k])
        c = rewrite(substitute(moved[k], dict(found.values)), settled)
        open_ones = [r for r in free_ranks(c) if r in left]
        match c:
            case RankVariable(rank=rank) if rank in left:
                bind(rank, goal)
                continue
            case Apply("//", (RankVariable(rank=rank), base)) if rank in left and is_scalar(base):
                key = (ranks[k], base)
                if key not in digits:
                    digits[key] = fresh(f"{rank}_digit", taken)
                digit = digits[key]
                left.append(digit)
                found.split += (digit,)
                found.paired += (ranks[k],)
                bind(rank, Apply("+", (Apply("*", (goal, base)), RankVariable(digit))))
                continue
        radix = two_digits(c, left)
        if radix is not None and radix[2] not in homed:
            high, base, low = radix
            bind(high, Apply("//", (goal, base)))
            bind(low, Apply("%", (goal, base)))
            continue
        match c:
            case Apply("%", (turned, Size(rank=rank) as size)):
                # A rotation of the rank: each of its points comes once.
                solved = solve(turned, goal, [r for r in open_ones if once.get(r, r) == rank])
                if solved is not None:
                    bind(solved[0], Apply("%", (solved[1], size)))
                    continue
        solved = solve(c, goal, open_ones)
        if solved is not None:
            rank, value = solved
            bind(rank, value)
            found.conditions += inside(value, once.get(rank, rank))
        else:
            found.conditions.append(Apply("==", (c, goal)))
    found.split = tuple(r for r in found.split if r in left)
    found.summed = tuple(r for r in left if r not in found.split)
    found.values = {r: v for r, v in found.values.items() if v != RankVariable(r)}
    return found


def settled(x: Expression) -> Expression | None:
    """Return the digits of ``a * B + d``, and of ``x // B * B + x % B`` the whole, x."""
    match x:
        case Apply(
            "%" | "//" as operator,
            (Apply("+", (Apply("*", (high, base)), RankVariable() as low)), other),
        ) if base == other:
            return low if operator == "%" else high
        case Apply("+", (Apply("*", (Apply("//", (whole, base)), one)), Apply("%", (x, two)))) if (
            whole == x and base == one == two
        ):
            return whole
        case _:
            return None


def two_digits(x: Expression, left: list[str]) -> tuple[str, Expression, str] | None:
    """Return (high, base, low) of a coordinate ``high * base + low`` of two open ranks."""
    match x:
        case Apply("+", (Apply("*", (RankVariable(rank=high), base)), RankVariable(rank=low))):
            pass
        case Apply("+", (Apply("*", (base, RankVariable(rank=high))), RankVariable(rank=low))):
            pass
        case _:
            return None
    if high in left and low in left and high != low and is_scalar(base):
        return high, base, low
    return None


def solve(c: Expression, goal: Expression, ranks: list[str]) -> tuple[str, Expression] | None:
    """Solve ``c == goal`` for a rank that occurs in it once, with the factor 1 or -1."""
    form = linear(c)
    for rank in ranks:
        atom = RankVariable(rank)
        inside_atoms = [m for m, _ in form.terms if any(rank in free_ranks(a) for a in m)]
        match [(m, f) for m, f in form.terms if m == (atom,)]:
            case [(_, 1 | -1 as sign)] if len(inside_atoms) == 1:
                rest = Linear(tuple(t for t in form.terms if t[0] != (atom,)), form.constant)
                value = delinear((linear(goal) - rest).scaled(sign))
                return rank, value
    return None
