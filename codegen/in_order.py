"""Put a tile's products and its work in one order, each product under work that needs it not.

A rotated loop (``split_nest.py``) carries what late products read from one tile to the next. Where
a tile has several of them, that takes more registers than there are. In order, a tile is finished
before the next begins: early products are issued together, a late one as soon as its operand is
made, and a wait stands only ahead of work that reads a result::

    S, T early; P of S; U late, of P; R of P and T; W late, of R
    -->
    issue S, T; wait for S; P; issue U; wait for T; R; issue W; wait for U, for W

Consumers drift apart, so that one's products run under another's work. One early product may be
issued a tile ahead, beside the last late one, so that work on its result can begin with the tile::

    issue S, T; wait for S; ...   -->   issue T; ...; issue S of the next tile; wait for W, for S

What consumers share out (``gluon_shares.py``) reads the operands of all. It is multiplied one tile
behind, so that they may drift apart by nearly a tile::

    ...; R; issue W; meet; issue Y of the tile before; lay down R; wait for W, for Y; give Y; arrive
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from .loop_nest import Comment, Dot, Fold, Let, Load, Statement, Var, statements, value_vars
from .operands import bare
from .schedule import Late, Schedule, Section, Share
from .signature import values


@dataclass(frozen=True, slots=True)
class Get:
    """Wait until a fetched tile is there; a vector is read at once.

    there : it was waited for, such as one tile before.
    """

    load: Load
    there: bool = False


@dataclass(frozen=True, slots=True)
class Issue:
    """Begin a product; of what is shared out, that over the rows of consumer ``part``.

    ahead : it is one of the next tile.
    """

    product: Dot | Late | Share
    part: int = 0
    ahead: bool = False

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
    """Wait until every consumer has laid down its operands of the tile before."""


@dataclass(frozen=True, slots=True)
class Arrive:
    """Say that this consumer has laid down its operands, and has read those of the tile before."""


@dataclass(frozen=True, slots=True)
class Room:
    """Wait until what was given last is taken.

    It stands ahead of the next tile's product: one test more while that runs is too much for ptxas
    12.8, which ends in the middle of its work or makes products wait for each other.
    """


@dataclass(frozen=True, slots=True)
class Give:
    """Give a finished product to the warp that adds."""

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


Step = Get | Issue | Put | Meet | Arrive | Room | Give | Wait | Free | Statement


def in_order(plan: Schedule, section: Section, consumers: int) -> tuple[Step, ...]:
    """Return what one of so many consumers does for a tile of a section, in order."""
    return Tile(plan, section, consumers).steps()


def issue_ahead(plan: Schedule) -> Schedule:
    """Return a schedule whose first early product is issued one tile ahead, where it may be.

    All tiles have to share a loop, and a late product has to read the same operand, so that its
    slot is not let go before the tile has begun.
    """
    first, *others = plan.products
    alone = first.start is None and all(x.var != first.var for x in others)
    fetched = [x for x in plan.fetched if reads(first, x)]
    kept = all(plan.read_late(x) for x in fetched) and bool(fetched)
    joined = len(plan.sections) == 1 or all(s.tests for s in plan.sections)
    placed = any(s.place for s in plan.sections)
    if not (others and alone and kept and joined) or placed:
        return plan
    return replace(plan, ahead=first)


def carrier(plan: Schedule, load: Load) -> Load:
    """Return the tile that a vector is fetched with, so that one wait and one release do for both.

    It is an operand of the product that begins with the vector, or else of the first one. A tile is
    fetched with itself.
    """
    tiles = [x for x in plan.fetched if x.var == load.var]
    if tiles:
        return tiles[0]
    begin = (d for d in plan.products if d.start and load.var.name in value_vars(d.start))
    dot = next(begin, plan.products[0])
    return next(x for x in plan.fetched if reads(dot, x))


def reads(dot: Dot, load: Load) -> bool:
    """Whether a product has a fetched tile as an operand."""
    return any(v is not None and v.name == load.var.name for v in (bare(dot.left), bare(dot.right)))


class Tile:
    """The order of one tile, while it is made."""

    def __init__(self, plan: Schedule, section: Section, consumers: int) -> None:
        self.plan, self.section, self.consumers = plan, section, consumers
        self.fetched = {x.var.name: x for x in (*plan.fetched, *plan.vectors)}
        self.readers = {n: 0 for n in self.fetched}
        products: tuple[Dot | Late, ...] = (*plan.products, *section.late)
        for product in products:
            if product is plan.ahead:
                continue
            for name in self.operands(product):
                self.readers[name] += 1
        self.carriers = {x.var.name: carrier(plan, x).var.name for x in plan.vectors}
        for name in self.carriers.values():
            self.readers[name] += 1
        self.found: list[Step] = []
        self.waited: set[str] = set()
        self.running: list[Issue] = []
        self.got: set[str] = set()
        self.shared: list[Share] = []

    def steps(self) -> tuple[Step, ...]:
        """Return the order."""
        said, started = self.start()
        work = [s for s in self.section.work if s not in started]
        made = Counter(defined(statements(tuple(work))))
        waiting = self.begin(list(self.section.late), made)
        shares = list(self.section.shares)
        for s in work:
            if isinstance(s, Comment):
                self.found.append(s)
                continue
            inside = tuple(statements((s,)))
            for name in sorted({n for x in inside for v in values(x) for n in value_vars(v)}):
                self.finish(name)
            self.take(s)
            made.subtract(defined(inside))
            waiting = self.begin(waiting, made)
            there = [x for x in shares if made[x.operand.name] <= 0]
            if there and not self.shared:
                self.share_out()
            self.found += [Put(x) for x in there]
            shares = [x for x in shares if x not in there]
        assert not waiting and not shares
        self.end(said)
        return tuple(self.found)

    def start(self) -> tuple[list[Step], list[Statement]]:
        """Issue early products, and read what they begin with.

        Returns what is said of the product that was issued one tile ahead, and what was read.
        """
        said: list[Step] = []
        started: list[Statement] = []
        for s in self.plan.early:
            if not isinstance(s, Dot):
                self.found.append(s)
                continue
            if s is self.plan.ahead:
                said, self.found = self.found, []
                names = sorted(self.operands(s))
                self.got |= set(names)
                self.waited |= set(names)
                self.found += [Get(self.fetched[n], there=True) for n in names]
                continue
            begins = frozenset() if s.start is None else value_vars(s.start)
            for x in self.section.work:
                if isinstance(x, Load) and x.var.name in begins:
                    self.take(x)
                    started.append(x)
            self.issue(s)
        return said, started

    def end(self, said: list[Step]) -> None:
        """Issue the next tile's product, and wait for all others; it runs while sums are added."""
        if self.plan.ahead is not None:
            last = [x for x in self.running if isinstance(x.product, Late)][-1]
            while self.running[0] is not last:
                self.finish(self.running[0].result.name)
            self.found += [Room()] if self.shared else []
            self.found += said
            self.running.append(Issue(self.plan.ahead, ahead=True))
            self.found.append(self.running[-1])
        while any(isinstance(x.product, Share) for x in self.running):
            self.finish(self.running[0].result.name)
        self.found += [Room()] if self.shared and self.plan.ahead is None else []
        self.found += [Give(x) for x in self.shared]
        while self.running:
            self.finish(self.running[0].result.name)
        if self.shared:
            self.found.append(Arrive())

    def share_out(self) -> None:
        """Issue this consumer's part of what is shared out, once the operands of all are there."""
        self.found.append(Meet())
        for share in self.section.shares:
            self.shared.append(share)
            for part in range(self.consumers):
                self.running.append(Issue(share, part))
                self.found.append(self.running[-1])

    def take(self, statement: Statement) -> None:
        """Do a statement; a vector that was fetched is read from where it lies."""
        if isinstance(statement, Load) and statement.var.name in self.fetched:
            name = self.carriers[statement.var.name]
            self.get(statement, name)
            self.read(name)
            return
        self.found.append(statement)

    def get(self, load: Load, name: str) -> None:
        """Get a fetched tile, whose barriers have a name; they are waited for once."""
        self.found.append(Get(load, there=name in self.waited))
        self.waited.add(name)

    def read(self, name: str) -> None:
        """Let a fetched tile go if nothing is left to read it."""
        self.readers[name] -= 1
        if self.readers[name] == 0:
            self.found.append(Free(self.fetched[name]))

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
            self.get(self.fetched[name], name)
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
            for read in () if x.ahead else sorted(self.operands(x.product)):
                self.read(read)


def defined(body: Iterable[Statement]) -> Iterator[str]:
    """Yield the name of each variable as often as statements define it."""
    return (s.var.name for s in body if isinstance(s, Let | Fold | Load))
