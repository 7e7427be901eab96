"""Draws: programs that stay take the next tile of rows when they are done with one.

Where only the data say how far each row walks, no program can be given its tiles beforehand: some
would end late. A program begins with the tile of its own number. The warp that fetches draws the
next from a counter in memory while this one is worked on, and says it to the others through two
slots of shared memory, as tiles come through rings::

    fetches:   tile = own number;  loop: fetch the first of the walk, draw the next, fetch the rest
    computes:  tile = own number;  loop: walk, read the next from its slot
"""

from __future__ import annotations

from .kernel import Argument, Buffer
from .loop_nest import Nest

SLOTS = {
    "drawn_tiles": "gl.allocate_shared_memory("
    "gl.int32, [2, 1], gl.SwizzledSharedLayout(1, 1, 1, [0]))",
    "drawn_full": "barriers(2, 1)",
    "drawn_empty": "barriers(2, CONSUMERS)",
}
"""What lies in shared memory, by name, with the call that makes it."""

PIECES = {
    "draw_tile": '''@gluon.jit
def draw_tile(counter, slots, full, empty, turn):
    """Draw the next tile of rows, and say to those that compute which it is."""
    ONE: gl.constexpr = gl.BlockedLayout([1], [32], [1], [0])
    tile = gl.num_programs(0) + gl.atomic_add(counter, 1, sem="relaxed")
    mbarrier.wait(empty.index(turn % 2), (turn // 2 & 1) ^ 1)
    slots.index(turn % 2).store(gl.full([1], tile, gl.int32, ONE))
    mbarrier.arrive(full.index(turn % 2))
    return tile''',
    "drawn_tile": '''@gluon.jit
def drawn_tile(slots, full, empty, turn):
    """The tile of rows that was drawn."""
    ONE: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])
    mbarrier.wait(full.index(turn % 2), turn // 2 & 1)
    tile = gl.max(slots.index(turn % 2).load(ONE), axis=0)
    mbarrier.arrive(empty.index(turn % 2))
    return tile''',
}
"""The small functions of a file whose programs draw."""

DRAWN = "drawn_tile(drawn_tiles, drawn_full, drawn_empty, turn)"
"""What the groups that compute take for the next tile."""


def counter_of(nest: Nest) -> str:
    """Return the name of the tensor that counts what was drawn; each kernel has its own."""
    return f"{nest.name.removesuffix('_kernel')}_draws"


def drawing(nest: Nest) -> str:
    """Return the line that draws the next tile, for the warp that fetches."""
    return f"next_tile = draw_tile({counter_of(nest)}, drawn_tiles, drawn_full, drawn_empty, turn)"


def counter_argument(nest: Nest) -> Argument:
    """Return the argument of the counter."""
    return Argument("pointer", counter_of(nest), counter_of(nest))


def counter_buffer(nest: Nest) -> Buffer:
    """Return how the counter is made: each launch has a new one."""
    return Buffer(counter_of(nest), ("draws",), "int32", fixed=(("draws", 1),), zeros=True)
