"""Counting what a mapped kernel does: points of its tiles, by the unit that works on them.

Every part of an expression is evaluated once for each point of the ranks that it varies with, so
``G - G_next`` costs a row and not a tile; a part that occurs twice in a loop counts once.
Coordinates and conditions are not counted: they are integers, and stand in partial tiles alone. The
model is theory 7.2: work is that of the tiles visited, padding included.
"""

from __future__ import annotations

from math import prod

from ..ir.cascade import Einsum
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Reduce,
    children,
    free_ranks,
    walk,
)
from ..ir.mapping import MappedKernel
from ..ir.operators import OPERATORS
from ..ir.streaming import Field
from .explain_visits import Facts, Visits, programs
from .roofline import Work

NARROW = ("float16", "bfloat16")
SMALLEST = 16
"""Coordinates of the narrowest operand that tensor cores take."""

EXPONENTIALS = {"exp": 1, "exp2": 1, "sigmoid": 1}
SPECIAL = {
    **dict.fromkeys(("log", "log2", "sqrt", "rsqrt", "tanh", "sin", "cos", "erf", "/"), 1),
    "sigmoid": 1,
    "**": 2,
}
FREE = ("default", "stop_gradient")


class Counter:
    """Work of one kernel, of known sizes. ``useful`` leaves out absent points and padding."""

    def __init__(self, kernel: MappedKernel, facts: Facts, seen: tuple[Visits, ...]) -> None:
        self.kernel, self.facts, self.visits = kernel, facts, seen
        self.programs = programs(kernel, facts.sizes)
        self.executed, self.useful = Work(), Work()
        self.loaded = 0.0
        """Bytes that programs load through the caches."""
        self.met: set[object] = set()
        self.held: set[str] = set()

    def count(self) -> None:
        """Count everything that the kernel computes and moves."""
        for einsum in self.kernel.before:
            self.item(einsum, None)
        for k, traversal in enumerate(self.kernel.traversals):
            for item in (*traversal.streaming.body, *traversal.streaming.additions):
                self.item(item, k)
            for einsum in traversal.streaming.finalise:
                self.item(einsum, None)
        for einsum in self.kernel.after:
            self.item(einsum, None)
        moved = sum(
            self.facts.bytes_of(t, n) * self.deliveries(t)
            for t in (*self.kernel.reads, *self.kernel.writes)
            if (n := self.elements(t)) is not None
        )
        self.add(Work(bytes=moved))

    def elements(self, tensor: str) -> int | None:
        """How many elements a tensor has."""
        shape = self.facts.shapes.get(tensor)
        return None if shape is None else prod(shape)

    def deliveries(self, tensor: str) -> int:
        """How often a kernel wants a whole tensor from memory: once for each loop along it."""
        loops = 0
        if self.kernel.search is not None and tensor in self.kernel.reads:
            return 1 if self.kernel.searches_rows else self.kernel.search.traversals
        for traversal in self.kernel.traversals:
            rank = traversal.streaming.rank
            loops += any(
                isinstance(x, Access) and x.tensor == tensor and rank in free_ranks(x)
                for item in traversal.streaming.body
                for x in walk(item.lift if isinstance(item, Field) else item.body)
            )
        return max(1, loops)

    def item(self, item: Einsum | Field, loop: int | None) -> None:
        """Count one einsum or accumulator."""
        reducer, ranks, kept = "", tuple[str, ...](), item.ranks
        if isinstance(item, Field):
            reducer, ranks, lift = item.reducer, item.ranks_reduced, item.lift
        elif isinstance(item.body, Reduce):
            reducer, ranks, lift = item.body.reducer, item.body.ranks, item.body.body
        else:
            lift = item.body
        inner = tuple(dict.fromkeys((*kept, *ranks)))
        product_of = self.sides(lift, ranks, inner) if reducer == "sum" else None
        if product_of is not None:
            self.product(product_of, inner, loop)
            for factor in factors(lift):
                self.expression(factor, loop)
            return self.transport(item, loop)
        self.expression(lift, loop)
        if reducer:
            self.operations("+", inner, loop)
        return self.transport(item, loop)

    def transport(self, item: Einsum | Field, loop: int | None) -> None:
        """Count what a moved frame costs, once a tile."""
        if isinstance(item, Field) and item.transport is not None:
            self.expression(item.transport, loop, every=True)

    def expression(self, x: Expression, loop: int | None, *, every: bool = False) -> None:
        """Count an expression's operators, and the tiles that it loads."""
        if (x, loop, every) in self.met:
            return
        self.met.add((x, loop, every))
        match x:
            case Access(tensor=tensor) if tensor in self.kernel.reads:
                self.load(x, loop)
            case Access():
                pass
            case Apply(operator=operator) if not OPERATORS[operator].boolean:
                for child in children(x):
                    self.expression(child, loop, every=every)
                if operator == "/":
                    # the reciprocal is taken of what divides, and the product where both vary
                    self.operations("/", free_ranks(x.operands[1]), loop, every=every)
                    operator = "*"
                self.operations(operator, free_ranks(x), loop, x=x, every=every)
            case Reduce(body=body):
                self.expression(body, loop, every=every)
                self.operations("+", (*free_ranks(x), *x.ranks), loop, every=every)
            case _:
                pass

    def load(self, x: Access, loop: int | None) -> None:
        """Count the bytes of a tile that is loaded once a program, or once a step of a loop."""
        ranks = free_ranks(x)
        times, _ = self.points(ranks, loop)
        self.loaded += self.facts.bytes_of(x.tensor, times)

    def operations(
        self,
        operator: str,
        ranks: tuple[str, ...],
        loop: int | None,
        *,
        x: Expression | None = None,
        every: bool = False,
    ) -> None:
        """Count one operator over the points of some ranks."""
        if operator in FREE:
            return
        times, live = self.points(ranks, loop, every=every)
        arity = len(x.operands) - 1 if isinstance(x, Apply) and len(x.operands) > 2 else 1
        small = isinstance(x, Apply) and operator == "**" and isinstance(x.operands[1], Constant)
        exponentials = EXPONENTIALS.get(operator, 0)
        special = 0 if small else SPECIAL.get(operator, 0)
        other = 0 if exponentials + special else arity
        one = Work(exponentials=exponentials, special=special, other=other)
        self.add(one.times(times), one.times(live))

    def product(self, width: int, ranks: tuple[str, ...], loop: int | None) -> None:
        """Count a product of two tiles whose operands have ``width`` bytes."""
        times, live = self.points(ranks, loop)
        one = {1: Work(matrix8=2), 2: Work(matrix16=2)}.get(width, Work(matrix32=2))
        self.add(one.times(times), one.times(live))

    def add(self, executed: Work, useful: Work | None = None) -> None:
        """Add work."""
        self.executed += executed
        self.useful += executed if useful is None else useful

    def points(
        self, ranks: tuple[str, ...], loop: int | None, *, every: bool = False
    ) -> tuple[float, float]:
        """How many points are computed, and how many of them exist.

        ``every``: once for each step of the loop, also where the streamed rank does not occur.
        """
        width = valid = 1
        streamed = None if loop is None else self.kernel.traversals[loop].streaming.rank
        for rank in dict.fromkeys(ranks):
            role = dict(self.kernel.roles).get(rank, "grid")
            if role == "resident":
                width *= sum(w for _, w, _ in self.kernel.partition(rank).parts)
                valid *= self.facts.sizes[rank]
            elif role == "tiled" or rank == streamed:
                width *= self.kernel.partition(rank).tile
                valid *= self.kernel.partition(rank).tile
            elif role == "streamed":
                # an input along the walked rank, read before the walk
                width *= self.facts.sizes[rank]
                valid *= self.facts.sizes[rank]
        if loop is not None and (every or streamed in ranks):
            seen = self.visits[loop]
            part = 1.0 if seen.live is None or not seen.points else seen.live / seen.points
            return seen.visited * width, seen.visited * valid * part
        return self.programs * width, self.programs * valid

    def sides(
        self, lift: Expression, reduced: tuple[str, ...], ranks: tuple[str, ...]
    ) -> int | None:
        """Return the bytes of an element if a sum is a product of two tiles, else None."""
        if len(reduced) != 1:
            return None
        local = {r for r, role in self.kernel.roles if role != "grid"}
        terms = [(x, frozenset(free_ranks(x)) & local) for x in factors(lift)]
        own = frozenset().union(*(s for _, s in terms)) - {*reduced}
        if len(own) != 2 or any(self.narrowest(r) < SMALLEST for r in (*own, *reduced)):
            return None
        if any(own <= s for _, s in terms):
            return None
        second = max(own, key=ranks.index)
        groups: list[list[Expression]] = [[], []]
        spans: list[set[str]] = [set(), set()]
        for x, s in terms:
            side = int(second in s)
            groups[side].append(x)
            spans[side] |= s
        if not all(reduced[0] in s for s in spans):
            return None
        return self.operand_width(groups)

    def operand_width(self, groups: list[list[Expression]]) -> int:
        """Return the bytes in which operands meet: what is loaded decides, else what is read."""
        loaded = {
            self.facts.dtypes.get(group[0].tensor, "")
            for group in groups
            if len(group) == 1
            and isinstance(group[0], Access)
            and group[0].tensor in self.kernel.reads
        }
        floats = {self.facts.dtypes.get(t, "") for t in self.kernel.reads}
        narrow = {d for d in loaded if d in NARROW} or {d for d in floats if d in NARROW}
        if any(d.startswith("float8") for d in loaded):
            return 1
        wide = not (loaded & set(NARROW)) and bool(floats & {"float32", "float64"})
        return 2 if len(narrow) == 1 and not wide else 4

    def narrowest(self, rank: str) -> int:
        """Return the narrowest tile of a rank."""
        cut = self.kernel.partition(rank)
        return min((w for _, w, _ in cut.parts), default=cut.tile)


def factors(expression: Expression) -> tuple[Expression, ...]:
    """Return the factors of a product, left to right; signs and constant divisors count nothing."""
    match expression:
        case Apply("*", (left, right)):
            return (*factors(left), *factors(right))
        case Apply("/", (over, under)) if not free_ranks(under):
            return factors(over)
        case Apply("neg", (inner,)):
            return factors(inner)
        case _:
            return (expression,)
