"""What every Gluon kernel's file brings along: imports, and small functions in its own words."""

from __future__ import annotations

from .gluon_columns import NEEDED_BY as OF_COLUMNS
from .gluon_columns import PIECES as COLUMNS
from .gluon_draw import PIECES as DRAWING
from .gluon_quick import QUICK
from .gluon_slopes import NEEDED_BY as OF_SLOPES
from .gluon_slopes import PIECES as SLOPES
from .gluon_told import PIECES as TELLING
from .gluon_turns import NEEDED_BY as OF_TURNS
from .gluon_turns import PIECES as TURNS
from .gluon_wide import PIECES as WIDE

IMPORTS = """\
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)"""

IMPORTED = ("fence_async_shared", "mbarrier", "tma", "warpgroup_mma", "warpgroup_mma_wait")
"""The names that they bring."""

ADDING = """\
from triton._C.libtriton import ir
from triton.experimental.gluon.language._core import builtin"""
"""Imports of a file that adds to memory, for which Gluon has no function of its own."""

PIECES: dict[str, str] = QUICK | {
    "barriers": '''@gluon.jit
def barriers(COUNT: gl.constexpr, ARRIVALS: gl.constexpr):
    """Barriers in shared memory, each for a number of arrivals."""
    made = gl.allocate_shared_memory(gl.int64, [COUNT, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(COUNT):
        mbarrier.init(made.index(i), count=ARRIVALS)
    return made''',
    "fetch": '''@gluon.jit
def fetch(box, at, ring, full, empty, step):
    """Fetch a box into a step's slot of a ring, once the slot is empty."""
    slot = step % STAGES
    mbarrier.wait(empty.index(slot), (step // STAGES & 1) ^ 1)
    mbarrier.expect(full.index(slot), box.block_type.nbytes)
    tma.async_copy_global_to_shared(box, at, full.index(slot), ring.index(slot))''',
    "filled": '''@gluon.jit
def filled(ring, full, step):
    """A step's slot of a ring, once it is full."""
    slot = step % STAGES
    mbarrier.wait(full.index(slot), step // STAGES & 1)
    return ring.index(slot)''',
    "release": '''@gluon.jit
def release(empty, step):
    """Say that a step's slot of a ring has been read."""
    mbarrier.arrive(empty.index(step % STAGES))''',
    "across": '''@gluon.jit
def across(x, LAYOUT: gl.constexpr):
    """A value per row, along the rows of a tile; the same threads hold them."""
    return gl.convert_layout(x, gl.SliceLayout(1, LAYOUT), assert_trivial=True)[:, None]''',
    "every_row": '''@gluon.jit
def every_row(ALL: gl.constexpr, last, WARPS: gl.constexpr):
    """The places of all rows of a tile, for one group of warps; none lies behind the last."""
    LINE: gl.constexpr = gl.BlockedLayout([1], [32], [WARPS], [0])
    return gl.minimum(gl.arange(0, ALL, layout=LINE), last)''',
    "take_turn": '''@gluon.jit
def take_turn(CONSUMER: gl.constexpr):
    """Wait until the tensor cores are this consumer's; named barriers from 8 on are free."""
    gl.inline_asm_elementwise(
        "bar.sync " + turn(CONSUMER) + ", 256; mov.b32 $0, 0;",
        "=r,r",
        [gl.to_tensor(0)],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "pass_turn": '''@gluon.jit
def pass_turn(CONSUMER: gl.constexpr):
    """Leave the tensor cores to the next consumer."""
    gl.inline_asm_elementwise(
        "bar.arrive " + turn((CONSUMER + 1) % CONSUMERS) + ", 256; mov.b32 $0, 0;",
        "=r,r",
        [gl.to_tensor(0)],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "meet": '''@gluon.jit
def meet():
    """Wait until every consumer has come here."""
    gl.inline_asm_elementwise(
        "bar.sync 8, 256; mov.b32 $0, 0;",
        "=r,r",
        [gl.to_tensor(0)],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "begin_next": '''@gluon.jit
def begin_next():
    """Let the next kernel begin where multiprocessors are free; it waits for this one to end."""
    gl.inline_asm_elementwise(
        "griddepcontrol.launch_dependents; mov.b32 $0, 0;",
        "=r,r",
        [gl.to_tensor(0)],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "end_last": '''@gluon.jit
def end_last():
    """Wait until the kernel before this one has ended, so that what comes after both may begin."""
    gl.inline_asm_elementwise(
        "griddepcontrol.wait; mov.b32 $0, 0;",
        "=r,r",
        [gl.to_tensor(0)],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "by_thread": '''@gluon.jit
def by_thread(x):
    """The sums along rows of what each thread holds: pairs of columns, as products leave them."""
    pairs = x.reshape([x.shape[0], x.shape[1] // 8, 4, 2])
    return gl.sum(gl.sum(pairs, axis=3), axis=1)''',
    "by_thread_fused": '''@gluon.jit
def by_thread_fused(x):
    """The same sums in another order, in which products are multiplied and added at once."""
    pairs = x.reshape([x.shape[0], x.shape[1] // 8, 4, 2])
    LAYOUT: gl.constexpr = by_thread(x).type.layout
    return gl.convert_layout(gl.sum(gl.sum(pairs, axis=1), axis=2), LAYOUT, assert_trivial=True)''',
    "together": '''@gluon.jit
def together(x, LAYOUT: gl.constexpr):
    """The sums along rows of what threads have added up."""
    return gl.convert_layout(gl.sum(x, axis=1), LAYOUT, assert_trivial=True)''',
    **COLUMNS,
    **SLOPES,
    "watch": '''@gluon.jit
def watch(CONSUMER: gl.constexpr):
    """Make a register in which a warp notes for itself that a number was large."""
    gl.inline_asm_elementwise(
        noted(CONSUMER, ".reg .b32 NOTE; mov.b32 NOTE, 0; mov.b32 $0, 0;"),
        "=r,r",
        [gl.to_tensor(0)],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "note_large": '''@gluon.jit
def note_large(x, CONSUMER: gl.constexpr):
    """Note if numbers of this warp are 4096 or more, or none at all."""
    gl.inline_asm_elementwise(
        noted(
            CONSUMER,
            "{ .reg .pred p; setp.geu.f32 p, $1, 0f45800000; @p mov.b32 NOTE, 1; mov.b32 $0, 0; }",
        ),
        "=r,f",
        [x],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "note_moved": '''@gluon.jit
def note_moved(x, CONSUMER: gl.constexpr):
    """Note if factors of this warp are not 1, or none at all."""
    gl.inline_asm_elementwise(
        noted(
            CONSUMER,
            "{ .reg .pred p; setp.neu.f32 p, $1, 0f3F800000; @p mov.b32 NOTE, 1; mov.b32 $0, 0; }",
        ),
        "=r,f",
        [x],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "large": '''@gluon.jit
def large(CONSUMER: gl.constexpr):
    """Whether a lane of this warp noted a number; each warp branches for itself."""
    return gl.inline_asm_elementwise(
        noted(
            CONSUMER,
            "{ .reg .pred p; setp.ne.b32 p, NOTE, 0; vote.sync.any.pred p, p, 0xffffffff; "
            "mov.b32 NOTE, 0; selp.b32 $0, 1, 0, p; }",
        ),
        "=r,r",
        [gl.to_tensor(0)],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "anew": '''@gluon.jit
def anew(x):
    """A tile by another name: what was made of it before is not kept to be used again."""
    return gl.inline_asm_elementwise(
        "mov.b32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=False, pack=1
    )''',
    "anew_place": '''@gluon.jit
def anew_place(x):
    """A coordinate by another name, for the same end."""
    return gl.inline_asm_elementwise(
        "mov.b32 $0, $1;", "=r,r", [gl.to_tensor(x)], dtype=gl.int32, is_pure=False, pack=1
    )''',
    "noted": '''@gluon.constexpr_function
def noted(consumer, text):
    """Assembly with a consumer's own register; it is one function that all consumers are in."""
    return text.replace("NOTE", "note" + str(consumer))''',
    "turn": '''@gluon.constexpr_function
def turn(consumer):
    """The name of a consumer's barrier."""
    return str(8 + consumer)''',
    **DRAWING,
    **WIDE,
    **TELLING,
    **TURNS,
}
"""The functions by name; a file has those that it calls."""

NEEDED_BY = {
    **OF_COLUMNS,
    **OF_SLOPES,
    **OF_TURNS,
    "take_turn": ("turn",),
    "pass_turn": ("turn",),
    "watch": ("noted",),
    "by_thread_fused": ("by_thread",),
    "note_large": ("noted",),
    "note_moved": ("noted",),
    "large": ("noted",),
}
"""Which functions a function calls."""


def pieces(names: dict[str, None]) -> tuple[str, ...]:
    """Return the text of functions and of those that they call, in the order of ``PIECES``."""
    wanted = {*names, *(x for n in names for x in NEEDED_BY.get(n, ()))}
    return tuple(text for name, text in PIECES.items() if name in wanted)
