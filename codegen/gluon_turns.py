"""Turns: programs that add to the same tile of a sum, one after the other.

Sums of floating point numbers are the same bits in every call if they are added in one order: here
that of the tiles of rows. A counter in memory tells how many programs have added to each tile. The
warp that adds waits for those before its own, and counts on when memory has what it added::

    programs:  tile of rows 0, 1, 2, ...; each walks tiles t
    adds:      wait until count[t] == own tile of rows;  add;  wait for memory;  count[t] += 1

A warp that adds alone counts on one tile later, when memory has long had the tile, so that it need
not wait for that. The first sets what the others add to. Programs begin in the order of their
numbers, and wait only for smaller ones, so that none waits for one that could not begin. Each walks
the same tiles in the same order, a little behind the one before it; once they do, nobody waits. So
that they begin far enough apart, tiles of rows of several coordinates of the grid come side by
side::

    tiles of rows:  a0 a1 a2 ... b0 b1 b2 ... c0 ...    -->    a0 b0 a1 b1 a2 b2 ... c0 d0 c1 ...

Where later rows begin their walk later, all walk backwards, from the end that they share, so that
whoever walks a tile is behind all rows before. Then the first need not walk all tiles, and sums
begin with 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .kernel import Argument, Buffer
from .loop_nest import Axis, Nest

SIDE_BY_SIDE = {1: 32768, 2: 65536}
"""Coordinates that are walked, together, for the coordinates of the grid that come side by side.

By the number of warps that add: two leave more to wait for at the beginning. Measured on an H100,
TFLOP/s of five products, 128 features, two warps, 8, 16 and 32 side by side at 4096: 516, 526 and
497, walked backwards 427, 446 and 428, of heads that share keys 419, 437 and 419; 2, 4 and 8 at
16384: 570, 573 and 562, backwards 525, 535 and 549. 64 features, one warp, 1, 2, 4 and 8: 367, 396,
425 and 430 at 4096, 453, 451 and 430 (1, 2 and 4) at 16384. What they read, and add to, has to
share the cache.
"""

PIECES = {
    "add_box": '''@builtin
def add_box(box, at, source, _semantic=None):
    """Add a tile in shared memory to a box of a tensor; others may add to it at the same time."""
    at = _semantic._convert_to_ir_values(at, require_i64=False)
    kind = ir.DESCRIPTOR_REDUCE_KIND.ADD
    _semantic.builder.create_async_tma_reduce(kind, box.handle, at, source.handle)''',
    "await_turn": '''@gluon.jit
def await_turn(count, before):
    """Wait until so many programs have added to a tile."""
    gl.inline_asm_elementwise(
        """{
        .reg .pred p;
        .reg .b32 t;
        AGAIN:
        ld.acquire.gpu.global.s32 t, [$1];
        setp.lt.s32 p, t, $2;
        @p bra AGAIN;
        fence.proxy.async;
        mov.b32 $0, 0;
        }""",
        "=r,l,r",
        [count.to(gl.int64, bitcast=True), before],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "end_turn": '''@gluon.jit
def end_turn(count, PENDING: gl.constexpr):
    """Count one program more that has added to a tile, once memory has all but so many boxes."""
    gl.inline_asm_elementwise(
        had(
            PENDING,
            """{
            .reg .pred p;
            .reg .b32 t;
            cp.async.bulk.wait_group PENDING;
            bar.warp.sync 0xffffffff;
            mov.u32 t, %laneid;
            setp.eq.u32 p, t, 0;
            @p red.release.gpu.global.add.s32 [$1], 1;
            mov.b32 $0, 0;
            }""",
        ),
        "=r,l",
        [count.to(gl.int64, bitcast=True)],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )''',
    "had": '''@gluon.constexpr_function
def had(pending, text):
    """Assembly that waits until memory has all but so many boxes."""
    return text.replace("PENDING", str(pending))''',
}
"""The small functions of a file that adds."""

NEEDED_BY = {"end_turn": ("had",)}
"""Which functions a function calls."""


def counts_of(nest: Nest) -> str:
    """Return the name of the tensor that counts how many programs have added to each tile."""
    return f"{nest.name.removesuffix('_kernel')}_counts"


def counts_argument(nest: Nest) -> Argument:
    """Return the argument of the counters."""
    return Argument("pointer", counts_of(nest), counts_of(nest))


def counts_buffer(nest: Nest, columns: Axis) -> Buffer:
    """Return how the counters are made: each launch has new ones."""
    outer = tuple(g.rank for g in nest.grid if not g.tile)
    ranks, tiles = (*outer, columns.rank), ((columns.rank, columns.width),)
    return Buffer(counts_of(nest), ranks, "int32", tiles=tiles, zeros=True)


def taking_turns(
    lines: list[str], nest: Nest, columns: Axis, sizes: Mapping[str, str]
) -> list[str]:
    """Return the lines that decode a program's number, with coordinates side by side."""
    *outer, rows = nest.grid
    tile, size = f"{rows.rank}_tile", f"tl.cdiv({sizes[rows.rank]}, {rows.tile})"
    k = next(k for k, x in enumerate(lines) if x.strip().startswith(f"{tile} = "))
    indent = lines[k][: -len(lines[k].lstrip())]
    count = " * ".join(sizes[g.rank] for g in outer)
    assert nest.crew is not None
    most = SIDE_BY_SIDE[nest.crew.adders]
    walked = f"{rows.rank}_beside"
    new = [
        f"{walked} = tl.maximum({most} // {sizes[columns.rank]}, 1)",
        f"{rows.rank}_order = pid % ({walked} * {size})",
        f"pid = pid // ({walked} * {size}) * {walked}",
        f"{walked} = tl.minimum({walked}, {count} - pid)",
        f"{tile} = {rows.rank}_order // {walked}",
        f"pid = pid + {rows.rank}_order % {walked}",
    ]
    new = [indent + re.sub(r"\btl\.", "gl.", x) for x in new]
    return [*lines[:k], *new, *lines[k + 2 :]]
