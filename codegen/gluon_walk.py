"""The walk over a rotated loop's tiles, as every group of warps takes it; all must agree on it."""

from __future__ import annotations

from .gluon_values import GluonPrinter
from .loop_nest import Loop
from .schedule import Schedule, Section


def walk_begin(printer: GluonPrinter, plan: Schedule) -> str:
    """Return where the walk's first tile begins: the first loop's that is not empty."""
    *others, last = [s.loop for s in plan.sections]
    text = printer.value(last.begin, ())
    for loop in reversed(others):
        text = f"tl.where({nonempty(printer, loop)}, {printer.value(loop.begin, ())}, {text})"
    return text


def loop_begin(printer: GluonPrinter, plan: Schedule, section: Section) -> str:
    """Return where a loop begins, which leaves out the walk's first tile if that is its own."""
    loop = section.loop
    before = [nonempty(printer, s.loop) for s in plan.sections[: plan.sections.index(section)]]
    begin = printer.value(loop.begin, ())
    second = loop.tile if begin == "0" else f"{begin} + {loop.tile}"
    if not before:
        return second
    test = before[0] if len(before) == 1 else " | ".join(f"({x})" for x in before)
    return f"tl.where({test}, {begin}, {second})"


def nonempty(printer: GluonPrinter, loop: Loop) -> str:
    """Return the condition that a loop has a tile."""
    return f"{printer.value(loop.begin, ())} < {printer.value(loop.end, ())}"


def stay(printer: GluonPrinter, body: list[str], before: list[str], after: list[str]) -> list[str]:
    """Return a function's lines; in a program that stays, the body is repeated for its tiles.

    Where some tiles of rows walk further than others, a program takes the longest with the
    shortest, so that all pairs are alike.
    """
    ahead, behind = (["    " + x for x in lines] for lines in (before, after))
    if not printer.crew.persistent:
        return [*ahead, *body, *behind]
    counts = []
    for g in printer.nest.grid:
        size = printer.sizes[g.rank]
        counts.append(f"gl.cdiv({size}, {g.tile})" if g.tile else size)
    body = [x.replace("pid = gl.program_id(0)", "pid = tile") for x in body]
    start = ["    step = 0", "    turn = 0", f"    tiles = {' * '.join(counts)}"]
    if printer.paired:
        walk = [
            "    for pair in range(gl.program_id(0), gl.cdiv(tiles, 2), gl.num_programs(0)):",
            "        for tile in range(2 * pair, gl.minimum(2 * pair + 2, tiles)):",
        ]
    else:
        walk = ["    for tile in range(gl.program_id(0), tiles, gl.num_programs(0)):"]
    return [*ahead, *start, *walk, *body, "    " * (1 + len(walk)) + "turn += 1", *behind]
