"""A nest's schedule: what warps that fetch bring, and what warps that compute do with each tile.

``split_nest.py`` makes one of a nest, and says what early and late products are; ``in_order.py``
makes one whose loop is not rotated.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .join_tiles import Joined, joined
from .loop_nest import (
    Axis,
    Comment,
    Dot,
    Load,
    Loop,
    Resting,
    Statement,
    Store,
    Value,
    Var,
    value_vars,
)


@dataclass(frozen=True, slots=True)
class Late:
    """A late product, by tile: ``factor`` carries the accumulator along, None if nothing does.

    operand, factor : variables of the work; right : the tile that was fetched. said : its einsum.
    """

    accumulator: Var
    operand: Var
    dtype: str
    right: Var
    axis: str
    factor: Var | None
    said: Comment | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Share:
    """A product over the rows of a program, by tile, that is added to what memory holds.

    operand : a variable of the work, rows by columns; right : an operand that the loop does not
    move. store : where the product ``var`` is added.
    """

    var: Var
    operand: Var
    dtype: str
    right: Var
    store: Store


@dataclass(frozen=True, slots=True)
class Held:
    """An operand that the loop does not move: ``load`` fetches it; None if the setup computes it.

    dtype : as an operand.
    """

    var: Var
    dtype: str
    load: Load | None


@dataclass(frozen=True, slots=True)
class Section:
    """One loop's share of the walk: its bounds, and the work of one of its tiles.

    place : where the loop walks a list, what finds a tile; the last of it is a ``Place``.
    resting : the work of a tile while frames rest, if there is such; late products have no factor.
    tests : whether the work tests by itself, so that all sections share a loop (``one_loop.py``).
    blanked : the fetched tiles of which only what their guard says takes part (``gluon_wide.py``).
    """

    loop: Loop
    work: tuple[Statement, ...]
    late: tuple[Late, ...]
    place: tuple[Statement, ...] = ()
    shares: tuple[Share, ...] = ()
    resting: Resting | None = None
    tests: bool = False
    blanked: tuple[Load, ...] = ()


@dataclass(frozen=True, slots=True)
class Schedule:
    """A nest, split.

    rows : the axis whose rows are divided among the warps that compute. columns : the walked axis.
    setup : what every program computes before its first tile, but for what ``held`` fetches.
    fetched : the tiles that move, those of early products first. vectors : what moves along the
    walked axis alone, and may be fetched too. early : with the comments above them.
    carried : variables that the work hands on to the next tile. finish : what follows.
    ahead : the early product that is issued one tile ahead (``in_order.py``).
    """

    rows: Axis
    columns: Axis
    setup: tuple[Statement, ...]
    held: tuple[Held, ...]
    fetched: tuple[Load, ...]
    early: tuple[Statement, ...]
    sections: tuple[Section, ...]
    carried: tuple[Var, ...]
    finish: tuple[Statement, ...]
    vectors: tuple[Load, ...] = ()
    ahead: Dot | None = None

    @property
    def products(self) -> tuple[Dot, ...]:
        """The early products."""
        return tuple(s for s in self.early if isinstance(s, Dot))

    @property
    def joined(self) -> Joined | None:
        """What all tiles have in common, if whole and tested ones share a loop."""
        return joined(self.sections, [d.var.name for d in self.products])

    @property
    def needs_vectors(self) -> Value | None:
        """Whether a tile's vectors are fetched, where a list says that; None: a tested tile's."""
        tests = () if self.joined is None else self.joined.tests
        reading = (t for t in tests if set(t.work) & set(self.vectors))
        return next((t.condition for t in reading), None)

    @property
    def vectors_always(self) -> bool:
        """Whether the work on whole tiles reads vectors too, so that each tile comes with them."""
        names = {x.var.name for x in self.vectors}
        whole = [s for x in self.sections if not x.loop.cut for s in x.work]
        return any(isinstance(s, Load) and s.var.name in names for s in whole)

    @property
    def late(self) -> tuple[Late, ...]:
        """The late products, as the first section has them; the others differ in names at most."""
        return self.sections[0].late

    def read_early(self, load: Load) -> bool:
        """Whether a fetched tile is an operand of early products."""
        sides = (side for dot in self.products for side in (dot.left, dot.right))
        return any(load.var.name in value_vars(side) for side in sides)

    def read_late(self, load: Load) -> bool:
        """Whether a fetched tile is an operand of late products; it is kept until they are done."""
        return any(load.var.name == x.right.name for x in self.late)
