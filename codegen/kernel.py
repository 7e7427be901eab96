"""A generated kernel: its text, and the data that a back end needs to launch it.

The text is a whole Python file that imports only Triton. Everything else here is derived from the
same loop nest, so that no back end ever has to read the text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of the kernel, in the order of its signature.

    kind : ``pointer`` (of ``tensor``), ``stride`` (of ``tensor`` at rank position ``position``, in
        elements), ``extent`` (of ``tensor`` at ``position``), ``size`` (of ``rank``), ``parameter``
        (the user's scalar ``name``), ``tile`` (a compile-time constant, its value in
        ``Kernel.tiles``), or ``box`` (a descriptor of ``tensor`` that fetches or stores ``block``,
        its rank positions in the order ``order``).
    name : the name in the signature.
    parameter : the user's name of a parameter, where the signature has another.
    """

    kind: str
    name: str
    tensor: str = ""
    position: int = 0
    rank: str = ""
    order: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    parameter: str = ""


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor that a kernel writes: allocated by the launcher, by rank sizes.

    dtype is a numpy-style name (``float16``, ``bfloat16``, ``float32``, ``int32``, ``int64``).
    ``generations`` names an iterative rank whose extent is size + 1, or "". ``tiles`` gives ranks
    of which the tensor has one element for each tile, with the tile's width; ``fixed`` ranks of its
    own, with their extents. ``zeros``: it holds 0 before a kernel writes some of it. ``most``: the
    greatest extent along some ranks.
    """

    tensor: str
    ranks: tuple[str, ...]
    dtype: str
    generations: str = ""
    tiles: tuple[tuple[str, int], ...] = ()
    fixed: tuple[tuple[str, int], ...] = ()
    zeros: bool = False
    most: tuple[tuple[str, int], ...] = ()

    def extent(self, rank: str, size: int) -> int:
        """Return how many elements lie along a rank of a size."""
        if rank in dict(self.fixed):
            return dict(self.fixed)[rank]
        tile = dict(self.tiles).get(rank, 1)
        found = -(-size // tile) + (rank == self.generations)
        return min(found, dict(self.most).get(rank, found))


@dataclass(frozen=True, slots=True)
class GridRank:
    """A parallel rank in the grid: ``size`` programs, or ``cdiv(size, tile)`` where it is tiled.

    ``tile`` is the name of the tile constant in ``Kernel.tiles``, or "" for one coordinate each.
    """

    rank: str
    tile: str = ""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel as text and launch data.

    The grid is one-dimensional: the product of ``grid``'s extents, the last varying fastest; the
    kernel decodes ``tl.program_id(0)`` itself. ``descriptors`` says that it makes tensor
    descriptors, for which Triton needs an allocator (``triton.set_allocator``). ``fixed`` says that
    what it writes depends on sizes and parameters alone, so that one run serves many calls.
    ``language`` is that of the text: ``triton``, or ``gluon``, which gives warps different work. Of
    a ``persistent`` one as many programs are launched as there are multiprocessors, at most; each
    walks several of the grid's. ``lengths`` are sizes among the arguments of which nothing is
    gained by knowing a divisor, so that one compiled kernel serves them all. One that ``follows``
    waits inside for the kernel before it, and may be launched while that runs. ``registers`` are
    the most that a thread has when a program begins, 0 where the compiler decides. ``shared`` are
    the bytes of shared memory that the text allocates, 0 where the compiler does.
    """

    name: str
    text: str
    arguments: tuple[Argument, ...]
    grid: tuple[GridRank, ...]
    tiles: tuple[tuple[str, int], ...]
    reads: tuple[str, ...]
    writes: tuple[Buffer, ...]
    num_warps: int = 4
    num_stages: int = 2
    descriptors: bool = False
    fixed: bool = False
    language: str = "triton"
    persistent: bool = False
    lengths: tuple[str, ...] = ()
    follows: bool = False
    registers: int = 0
    shared: int = 0

    @property
    def tile_sizes(self) -> dict[str, int]:
        """The tile constants by name."""
        return dict(self.tiles)
