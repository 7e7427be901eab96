"""The mapped cascade, the second level: the same mathematics, divided in kernels and partitioned.

::

    mapping   = Mapping(cascade, kernels)
    kernel    = MappedKernel(name, roles, before, traversals, after, writes, partitions, ...)
    traversal = Traversal(streaming, domain, walks, ...)            one sequential loop, or several
    role      = grid       one coordinate of the rank for each program
              | tiled      a tile of the rank for each program; the tile's rows run side by side
              | streamed   the rank that the loop walks, a tile at a time
              | resident   the whole rank is held in a tile (cut in power-of-two parts)

A mapping says nothing about values: interpreting ``mapping.cascade`` gives the meaning of all the
kernels together. TeAAL (Nayak et al., MICRO 2023) separates the same concerns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from .cascade import Cascade, Einsum
from .domain import Domain, Walk
from .expression import Expression
from .streaming import Field, Streaming

Role = Literal["grid", "tiled", "streamed", "resident"]


@dataclass(frozen=True, slots=True)
class Traversal:
    """One loop over a streamed rank; ``domain`` says which of its tiles a tile of rows visits.

    walks : lists whose entries are visited after that; no point is visited twice.
    tests : for each condition of the traversal, what is left of it outside the lists; empty where
        there are none.
    continues : the accumulators go on from where the traversal before left them, as along the
        second part of a concatenated rank; it has the same fields.
    taking : for each field, the condition under which a point takes part in this loop; fields
        without an entry are found in the kernel's.
    """

    streaming: Streaming
    domain: Domain
    walks: tuple[Walk, ...] = ()
    tests: tuple[tuple[Expression | None, Expression | None], ...] = ()
    continues: bool = False
    taking: tuple[tuple[str, Expression | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Partition:
    """How a rank is cut: ``tile`` coordinates at a time; ``parts`` of a resident rank.

    A part is (offset, width, valid): width is a power of two, of which ``valid`` coordinates exist.
    """

    rank: str
    tile: int
    parts: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """A rank of memory that a kernel walks under ranks of its own, at ``coordinate`` of these."""

    rank: str
    coordinate: Expression


@dataclass(frozen=True, slots=True)
class Cut:
    """A streamed rank that is reduced in parts side by side: which rank of the grid counts them.

    Part number ``part`` has the coordinates from ``part * step`` on, ``step`` of them; ``step`` is
    a parameter that the launcher chooses, a multiple of every tile of the rank, and ``part`` has
    enough coordinates to cover ``rank``. Where every row walks but a stretch of the rank, of at
    most ``extent`` coordinates, parts are counted from where that begins, rounded down to
    ``step``; None where the whole rank is walked. ``states`` hold the parts' states between the
    kernel that walks the rank and the one that merges.
    positions : where a list says what is walked, the rank of its positions, which parts then count
    instead; each stands for ``width`` coordinates.
    tile : the widest tile of the rank. residents : programs that one multiprocessor runs at a time.
    parts : how many the user wants; 0: the launcher's rule. least : tiles of a part, at least.
    stored : what the states of a part cost, in hundredths of a program's step over a tile.
    """

    rank: str
    part: str
    step: str
    states: tuple[str, ...] = ()
    tile: int = 1
    residents: int = 1
    parts: int = 0
    least: int = 1
    stored: int = 0
    extent: Expression | None = None
    positions: str = ""
    width: int = 1

    @property
    def unit(self) -> int:
        """What parts count in: coordinates of a tile, or positions of a list that fill one."""
        return max(1, self.tile // self.width) if self.positions else self.tile


@dataclass(frozen=True, slots=True)
class Crew:
    """Warps of different work (``passes/specialise.py``): one fetches, groups of four compute.

    wide : whether the one group that computes is eight warps, of which four have the first half of
    each tile's columns and four the last; its rows are 64 as ever.

    consumers : groups that divide the rows of a program. turns : whether they take turns at the
    tensor cores. persistent : whether a program stays for several tiles of rows, one after another.
    paired : whether it takes the last tile left with the first, where one walks further.
    drawn : whether it takes the next tile that is left when it is done with one, where only the
    data say how far each walks. slowest : whether a tile of rows is taken of all coordinates of the
    grid before the next one, so that the last ones are short.
    joined : whether tested tiles share the loop of whole ones (``codegen/join_tiles.py``).
    spare : whether operands that stay have two places (``codegen/gluon_spare.py``).
    rotated : whether a tile's late products run under the next tile's work
    (``codegen/split_nest.py``) or, in order, under its own (``codegen/in_order.py``).
    ahead : whether, in order, a tile's first product is issued beside the last of the tile before.
    resting : accumulators that tell, by how little they grow in a tile, that frames may stay as
    they are (``passes/resting.py``); none where frames move with every tile.
    in_turn : whether programs add to a tile in turn (``codegen/gluon_turns.py``). backwards :
    whether each walks from the end to where it begins. adders : warps that add, one tile each in
    turn (``codegen/gluon_adder.py``). lagging : whether, in order, frames move only where they are
    far behind (``codegen/lag.py``).
    """

    consumers: int
    turns: bool = False
    persistent: bool = False
    paired: bool = False
    rotated: bool = True
    ahead: bool = False
    resting: tuple[str, ...] = ()
    drawn: bool = False
    slowest: bool = False
    lagging: bool = False
    in_turn: bool = False
    backwards: bool = False
    adders: int = 1
    joined: bool = False
    spare: bool = False
    wide: bool = False

    @property
    def warps(self) -> int:
        """Warps of a consumer."""
        return 8 if self.wide else 4


@dataclass(frozen=True, slots=True)
class Search:
    """How members of a long rank are found: by kernels that each look at all of its tiles once.

    selection : the einsum that selects. digits : how many bits of a value's code each of the first
    kernels tells apart, none where the bound is known. mass : whether values are summed, not
    counted. stem : how the names of what passes between the kernels begin. most : coordinates of
    the rank, at most, as a power of two; 0 if that is not known.
    """

    selection: str
    digits: tuple[int, ...]
    mass: bool
    stem: str
    most: int = 0

    @property
    def traversals(self) -> int:
        """How often the rank is walked, tile by tile: for each digit, to count, and to list."""
        return len(self.digits) + 2


@dataclass(frozen=True, slots=True)
class MappedKernel:
    """One kernel: what it reads and writes, the role of each rank, its loops in order.

    before : einsums computed once per program, ahead of the loops.
    after : einsums computed once per program, behind the loops.
    presence : for each tensor, the condition under which a point of it exists; None: always,
        inside the shape. taking : for each field, the condition under which a point takes part.
    writes : tensors stored, in the cascade's order.
    static : sizes that are compile-time constants (resident ranks).
    reverse : grid ranks whose tiles are issued from the last to the first (longest first).
    infinite : tensors that may hold an infinity although inputs are finite, e.g. the maximum of a
        row that may be empty.
    ordered : a resident rank that is put in order, and the rank of the list that this gives; tiles
        of the two have one width.
    search : how this kernel and those ahead of it choose from a rank that no program holds whole.
    steps : for a tiled rank, a number that its tile has to divide: the rows of a tile share a list.
    aligned : parameters that are multiples of every streamed tile, so that what begins there begins
        with a whole tile.
    views : ranks that tensors in memory have and the kernel has not.
    scattered : tensors whose points are stored where a list says, in memory that holds 0 before.
    residents : programs that a multiprocessor is taken to run at a time.
    described : tensors whose tiles may be fetched by a tensor descriptor: the last rank contiguous,
        everything else aligned to 16 bytes, a target that has them.
    crew : how warps of different work share a program; None where all warps do the same.
    in_turn : whether programs add to a tile of a sum in memory one after the other, in the order of
        their tiles of rows, of which the first sets it.
    emitter : ``tl`` or ``gluon``, with the reason where the other was considered.
    """

    name: str
    roles: tuple[tuple[str, Role], ...]
    before: tuple[Einsum, ...]
    traversals: tuple[Traversal, ...]
    after: tuple[Einsum, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    presence: tuple[tuple[str, Expression | None], ...] = ()
    taking: tuple[tuple[str, Expression | None], ...] = ()
    partitions: tuple[Partition, ...] = ()
    static: tuple[tuple[str, int], ...] = ()
    reverse: tuple[str, ...] = ()
    infinite: tuple[str, ...] = ()
    ordered: tuple[tuple[str, str], ...] = ()
    search: Search | None = None
    steps: tuple[tuple[str, int], ...] = ()
    aligned: tuple[str, ...] = ()
    views: tuple[View, ...] = ()
    scattered: tuple[str, ...] = ()
    described: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 2
    residents: int = 1
    crew: Crew | None = None
    in_turn: bool = False
    emitter: str = "tl"
    notes: tuple[str, ...] = field(default=())

    def ranks(self, role: Role) -> tuple[str, ...]:
        """Return the ranks of one role, in order."""
        return tuple(rank for rank, r in self.roles if r == role)

    def role(self, rank: str) -> Role:
        """Return the role of a rank."""
        return dict(self.roles)[rank]

    def partition(self, rank: str) -> Partition:
        """How a tiled, streamed or resident rank is cut."""
        return next(p for p in self.partitions if p.rank == rank)

    @property
    def searches_rows(self) -> bool:
        """Whether one program holds all that a list is chosen from, and finds its members."""
        if self.search is None or self.search.mass:
            return False
        (rank,) = self.ranks("tiled")
        return 0 < self.search.most <= self.partition(rank).tile

    def einsums(self) -> Iterator[Einsum | Field]:
        """Yield all that the kernel computes, in order."""
        yield from self.before
        for traversal in self.traversals:
            yield from traversal.streaming.body
            yield from traversal.streaming.finalise
        yield from self.after


@dataclass(frozen=True, slots=True)
class Mapping:
    """A cascade divided in kernels, in the order in which they run.

    ``dtypes`` gives every tensor that crosses memory its dtype by numpy-style name. ``cuts`` are
    the streamed ranks that are reduced in parts. ``made`` are the sizes of ranks that kernels walk
    in place of the cascade's, ``requires`` what has to hold of sizes and extents at a call.
    """

    cascade: Cascade
    kernels: tuple[MappedKernel, ...]
    dtypes: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    cuts: tuple[Cut, ...] = ()
    made: tuple[tuple[str, Expression], ...] = ()
    requires: tuple[Expression, ...] = ()

    def dtype(self, tensor: str) -> str:
        """Return the dtype in memory of an input, an output or a tensor between kernels."""
        return dict(self.dtypes)[tensor]
