"""Put a tile's products and its work in one order, each product under work that needs it not.

A rotated loop (``schedule.py``) carries what late products read from one tile to the next. Where a
tile has several of them, that takes more registers than there are. In order, a tile is finished
before the next begins: early products are issued together, a late one as soon as its operand is
made, and a wait stands only ahead of work that reads a result::

    S, T early; P of S; U late, of P; R of P and T; W late, of R
    -->
    issue S, T; wait for S; P; issue U; wait for T; R; issue W; wait for U, for W

Consumers drift apart, so that one's products run under another's work.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from .loop_nest import Comment, Dot, Fold, Let, Load, Statement, Var, value_vars
from .operands import bare
from .schedule import Late, Schedule, Section, Share
from .signature import values


@dataclass(frozen=True, slots=True)
class Get:
    """Wait until a fetched tile is there; a vector is read at once, and its slot let go."""

    load: Load


@dataclass(frozen=True, slots=True)
class Issue:
    """Begin a product; of what is shared out, that over the rows of consumer ``part``."""

    product: Dot | Late | Share
    part: int = 0

    @property
    def result(self) -> Var:
        """The variable that holds the result."""
        return self.product.accumulator if isinstance(self.product, Late) else self.product.var


@dataclass(frozen=True, slots=True)
class Put:
    """Lay an operand where every consumer's products may read it."""

    share: Share


@dataclass(frozen=True, slots=True)
class Meet:
    """Wait until every consumer has laid down its operands."""


@dataclass(frozen=True, slots=True)
class Add:
    """Add a finished product to memory."""

    share: Share


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until at most ``pending`` products run; ``done`` are the results of those that ended."""

    pending: int
    done: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Free:
    """Let a fetched tile's slot go."""

    load: Load


Step = Get | Issue | Put | Meet | Add | Wait | Free | Statement


def in_order(plan: Schedule, section: Section, consumers: int) -> tuple[Step, ...]:
    """Return what one of so many consumers does for a tile of a section, in order."""
    return Tile(plan, section, consumers).steps()


class Tile:
    """The order of one tile, while it is made."""

    def __init__(self, plan: Schedule, section: Section, consumers: int) -> None:
        self.plan, self.section, self.consumers = plan, section, consumers
        self.fetched = {x.var.name: x for x in (*plan.fetched, *plan.vectors)}
        self.readers = {n: 0 for n in self.fetched}
        products: tuple[Dot | Late, ...] = (*plan.products, *section.late)
        for product in products:
            for name in self.operands(product):
                self.readers[name] += 1
        self.found: list[Step] = []
        self.running: list[Issue] = []
        self.got: set[str] = set()

    def steps(self) -> tuple[Step, ...]:
        """Return the order."""
        started: list[Statement] = []
        for s in self.plan.early:
            if not isinstance(s, Dot):
                self.found.append(s)
                continue
            begins = frozenset() if s.start is None else value_vars(s.start)
            for x in self.section.work:
                if isinstance(x, Load) and x.var.name in begins:
                    self.take(x)
                    started.append(x)
            self.issue(s)
        work = [s for s in self.section.work if s not in started]
        made = Counter(s.var.name for s in work if isinstance(s, Let | Fold | Load))
        waiting = self.begin(list(self.section.late), made)
        shares = list(self.section.shares)
        for s in work:
            if isinstance(s, Comment):
                self.found.append(s)
                continue
            for name in sorted({n for v in values(s) for n in value_vars(v)}):
                self.finish(name)
            self.take(s)
            if isinstance(s, Let | Fold | Load):
                made[s.var.name] -= 1
            there = [x for x in shares if made[x.operand.name] <= 0]
            self.found += [Put(x) for x in there]
            shares = [x for x in shares if x not in there]
            waiting = self.begin(waiting, made)
        assert not waiting and not shares
        if self.section.shares:
            self.found.append(Meet())
        for share in self.section.shares:
            for part in range(self.consumers):
                self.running.append(Issue(share, part))
                self.found.append(self.running[-1])
        while self.running:
            self.finish(self.running[0].result.name)
        self.found += [Add(x) for x in self.section.shares]
        return tuple(self.found)

    def take(self, statement: Statement) -> None:
        """Do a statement; a vector that was fetched is read from where it lies."""
        if isinstance(statement, Load) and statement.var.name in self.fetched:
            self.found.append(Get(statement))
            return
        self.found.append(statement)

    def operands(self, product: Dot | Late | Share) -> set[str]:
        """Return which fetched tiles a product reads."""
        if isinstance(product, Share):
            return set()
        if isinstance(product, Late):
            return {product.right.name}
        sides = (bare(product.left), bare(product.right))
        return {v.name for v in sides if v is not None and v.name in self.fetched}

    def begin(self, waiting: list[Late], made: Counter[str]) -> list[Late]:
        """Issue the late products whose operands are there; ``made`` are those still to come."""
        left = []
        for x in waiting:
            needed = (x.operand, *(() if x.factor is None else (x.factor,)))
            if any(made[v.name] > 0 for v in needed):
                left.append(x)
            else:
                self.issue(x)
        return left

    def issue(self, product: Dot | Late) -> None:
        """Issue a product, once what it reads was fetched."""
        for name in sorted(self.operands(product) - self.got):
            self.got.add(name)
            self.found.append(Get(self.fetched[name]))
        self.running.append(Issue(product))
        self.found.append(self.running[-1])

    def finish(self, name: str) -> None:
        """Wait for a result, if its product runs; what was read so far is let go."""
        places = [k for k, x in enumerate(self.running) if x.result.name == name]
        if not places:
            return
        count = max(places) + 1
        ended, self.running = self.running[:count], self.running[count:]
        self.found.append(Wait(len(self.running), tuple({x.result.name: 0 for x in ended})))
        for x in ended:
            for read in sorted(self.operands(x.product)):
                self.readers[read] -= 1
                if self.readers[read] == 0:
                    self.found.append(Free(self.fetched[read]))
