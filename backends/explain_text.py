"""An explanation as text for a terminal, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import TYPE_CHECKING

from .explain_cost import KernelCost
from .explain_loops import FieldExplanation, LoopExplanation
from .explain_numbers import digits, duration, listing, percent, quantity, times
from .explain_points import PointsStored
from .explain_walks import RankWalks

if TYPE_CHECKING:
    from .explain import Explanation, KernelExplanation, RankRole

WIDTH = 100

SCATTERED = 2.0
"""Points computed for each that exists, above which an explanation warns."""

LISTED = {
    "once": "once for equal sizes and parameters",
    "kept": "again only when a tensor that it follows changes",
    "call": "at each call",
}
"""When a table of tiles is made."""


def text(x: Explanation) -> str:
    """Return the explanation as lines of at most 100 columns."""
    lines: list[str] = []
    for k, (title, section) in enumerate(sections(x)):
        lines += [""] if k else []
        lines += [*wrapped(title, "", "")]
        lines += indented(section, "  ")
    return "\n".join(lines)


def indented(section: Iterable[str], by: str = "", width: int = WIDTH) -> list[str]:
    """Break a section's lines, each by its own indentation, which what follows exceeds by two."""
    found: list[str] = []
    for line in section:
        indent = by + line[: len(line) - len(line.lstrip())]
        found += wrapped(line.strip(), indent, f"{indent}  ", width)
    return found


def wrapped(line: str, first: str, later: str, width: int = WIDTH) -> list[str]:
    """Break a line between words."""
    return wrap(
        line,
        width,
        initial_indent=first,
        subsequent_indent=later,
        break_long_words=True,
        break_on_hyphens=False,
    ) or [""]


def sections(x: Explanation) -> Iterator[tuple[str, list[str]]]:
    """Yield titles with their lines; an indented line belongs to the one above it."""
    yield f"{x.name}, compiled for {x.target}", list(summary(x))
    yield (
        "How often each rank is walked",
        [y for w in x.walks for y in walks(w)]
        or ["No rank is walked: every program computes its points on its own."],
    )
    if x.refusals:
        yield "What one walk could not do", list(x.refusals)
    if x.parts:
        yield "What is reduced in parts", list(x.parts)
    for kernel in x.kernels:
        yield f"Kernel {kernel.name}", list(kernel_lines(kernel))
    if x.points is not None:
        yield "Which points exist", list(points(x.points))
    if len(x.kernels) > 1:
        yield "Stored between kernels", list(stored(x))
    yield from costs(x)


def summary(x: Explanation) -> Iterator[str]:
    """Yield what is computed of what."""
    typed = [f"{t} ({d})" for t, d in x.inputs]
    made = [f"{t} ({d})" if d else t for t, d in x.outputs]
    yield f"makes {listing(made)} from {listing(typed)} in {times(len(x.kernels), 'kernel')}"
    if x.sizes:
        yield f"sizes: {', '.join(f'{r} = {n}' for r, n in x.sizes)}"
    if x.open:
        yield f"open sizes, given at the call: {', '.join(x.open)}"
    if x.parameters:
        yield f"parameters: {', '.join(f'{n} = {v}' for n, v in x.parameters)}"
    yield from x.squares


def walks(w: RankWalks) -> Iterator[str]:
    """Yield how often one rank is walked, and why."""
    if w.loops:
        loops = [f"{times(n, 'loop')} in {k}" for k, n in w.loops]
        end = f"compiled: {w.walked}" + (f" ({listing(loops)})" if len(w.loops) > 1 else "")
    elif w.held:
        end = "compiled: no loop, a tile holds it whole"
    else:
        end = "compiled: no loop, every program has its own coordinates"
    between = "" if w.passes is None or not w.loops else f"; after the passes: {w.passes}"
    yield f"{w.rank}  written: {times(w.written, 'traversal')}{between}; {end}"
    if w.loops and w.written > 1:
        for reason in w.reasons:
            yield f"    {reason}"
    if w.loops:
        for t in w.tensors:
            at = ", ".join(map(str, t.written))
            many = "s" if len(t.written) > 1 else ""
            read = times(t.loops, "loop")
            yield f"    {t.tensor}: wanted in traversal{many} {at}; read by {read}"


def kernel_lines(k: KernelExplanation) -> Iterator[str]:
    """Yield what a kernel does, rank by rank and loop by loop."""
    launched = "" if k.programs is None else f"; {times(k.programs, 'program')}"
    yield f"reads {listing(k.reads)}, writes {listing(k.writes)}"
    yield f"{times(k.warps, 'warp')}, {times(k.stages, 'stage')} of loads in flight{launched}"
    yield from language(k)
    yield from unequal(k)
    if k.boxes:
        yield f"tiles of {listing(k.boxes)} are fetched as boxes, by tensor descriptors"
    alone = [r.rank for r in k.ranks if r.role == "grid"]
    if alone:
        yield f"{', '.join(alone)}: one coordinate for each program"
    for rank in k.ranks:
        yield from role(rank)
    for name, coordinate in k.views:
        yield f"{name} of memory is at {coordinate}"
    if k.scattered:
        yield f"where nothing is stored {listing(k.scattered)} holds 0"
    yield from k.search
    for e in () if k.search else k.before:
        yield f"first {e}"
    for loop in k.loops:
        yield from loop_lines(loop)
    for e in k.after:
        yield f"last {e}"


def unequal(k: KernelExplanation) -> Iterator[str]:
    """Yield how unequal programs are, and what that costs."""
    b = k.balance
    if b is None:
        return
    said = f"a program visits {b.least:,} to {b.most:,} tiles, {digits(b.mean)} on average"
    if b.issued is None or b.longest_first is None:
        yield said
        return
    yield f"{said}; the last multiprocessor ends"
    yield (
        f"  at {b.issued:.2f}x of the time that equal shares would take,"
        f" {b.longest_first:.2f}x with the longest programs first"
    )


def language(k: KernelExplanation) -> Iterator[str]:
    """Yield what a kernel is written in, and how its warps share the work."""
    _, _, reason = k.emitter.partition(", because ")
    if reason:
        yield f"written in Triton, not in Gluon: {reason}"
    if k.crew is None:
        return
    yield "written in Gluon: one warp fetches, the others compute"
    turns = ", in turns at the tensor cores" if k.crew.turns else ""
    yield f"{times(k.crew.consumers, 'consumer')} of {k.crew.warps} warps and 64 rows{turns}"
    if k.crew.persistent:
        yield "a program stays for several tiles of rows; the next one is fetched meanwhile"
    if k.crew.drawn:
        yield "it draws the next when it is done with one, for the data say how long each takes"
    if k.crew.joined:
        yield "tiles that are tested share the loop of whole ones"
    if k.crew.spare:
        yield "operands that stay have two places, so that the next rows' are there in time"
    if k.crew.ahead:
        yield "a tile's first product is issued beside the last one of the tile before"
    if k.crew.in_turn:
        yield "programs add to a tile in turn, in the order of their tiles of rows"
    if k.crew.resting:
        grown = " and ".join(k.crew.resting)
        yield f"frames rest while a tile adds little to {grown}; else it is taken once more"
    if k.crew.lagging:
        yield "frames move only where they are far behind"


def role(r: RankRole) -> Iterator[str]:
    """Yield what a program has of one rank, unless it is one coordinate."""
    order = ", the last tiles first, for they are the longest" if r.reverse else ""
    if r.role == "tiled":
        yield f"{r.rank}: a tile of {r.tile} for each program{order}"
    if r.role == "streamed":
        yield f"{r.rank}: walked, {r.tile} at a time"
    if r.role == "resident":
        cut = " + ".join(str(w) for _, w, _ in r.parts)
        padded = sum(w - v for _, w, v in r.parts)
        rest = f", {padded} of padding" if padded else ""
        parts = f" as {cut}{rest}" if len(r.parts) > 1 or padded else ""
        yield f"{r.rank}: held whole, {r.tile}{parts}"


def loop_lines(loop: LoopExplanation) -> Iterator[str]:
    """Yield the state of a loop and the tiles it visits."""
    free = "in any order" if loop.commutative else "in order"
    verb = "goes on with" if loop.continues else "keeps"
    yield f"loop over {loop.rank}, {free}; it {verb} {times(len(loop.fields), 'accumulator')}:"
    for f in loop.fields:
        yield from field_lines(f)
    if loop.body:
        yield "  of each tile it makes"
        for e in loop.body:
            yield f"    {e}"
    for f in loop.additions:
        yield f"  to memory it adds {f.tensor}[{', '.join(f.ranks)}], the {f.reducer} of {f.lift}"
    if loop.additions:
        yield "    programs add in whatever order they come: calls may differ in the last bits"
    if loop.finalise:
        yield "  and behind the loop"
        for e in loop.finalise:
            yield f"    {e}"
    yield from visited(loop)


def field_lines(f: FieldExplanation) -> Iterator[str]:
    """Yield one accumulator."""
    condition = "" if f.filter is None else f", where {f.filter}"
    yield f"  {f.tensor}[{', '.join(f.ranks)}] is the {f.reducer} of {f.lift}{condition}"
    if f.transport is not None:
        yield f"    when {listing(f.frame)} moves it becomes {f.transport}"
    yield f"    {f.family}: {f.proof}"


def visited(loop: LoopExplanation) -> Iterator[str]:
    """Yield the tiles of a loop, as bounds and as numbers."""
    for k, r in enumerate(loop.ranges):
        then = "visits" if k == 0 else "then"
        yield f"  {then} {loop.rank} from {r.begin} to {r.end}"
        if not loop.table and (r.full_begin, r.full_end) != (r.begin, r.end):
            yield f"    tiles between {r.full_begin} and {r.full_end} have all their points"
    for x in loop.lists:
        what = "coordinate" if x.width == 1 else f"block of {x.width}"
        yield f"  {'then ' * bool(loop.ranges)}each {what} that {x.entry} names"
        yield f"    for {x.rank} below {' and '.join(x.ends)}" + (
            f", if {x.kept}" if x.kept else ""
        )
        for test in x.tests:
            yield f"    tests there: {test}"
    if not loop.ranges and not loop.lists:
        yield "  visits nothing: no point exists"
    if loop.table:
        often = LISTED[loop.table]
        yield f"  of these, tiles without points are left out: a table lists the others, {often}"
        yield "    full tiles are walked first, and carry no test"
    if loop.test is not None:
        where = "partial tiles" if loop.exact or loop.table else "every tile"
        yield f"  tests on {where}: {loop.test}"
    for note in loop.notes:
        yield f"  {note}"
    if loop.tiles is None:
        yield f"  number of tiles: open, {loop.open}"
        return
    t = loop.tiles
    exist = "" if t.live_density is None else f", {percent(t.live_density)} of the points exist"
    most = "" if t.exact else "at most "
    lists = f", {most}{t.listed:,} listed" if loop.lists else ""
    yield (
        f"  {times(t.total, 'tile')}: {t.skipped:,} skipped, {t.full:,} full, {t.partial:,} partial"
        f"{lists}"
    )
    yield f"  executed density {most}{percent(t.executed_density)}{exist}"
    if t.live_density and t.executed_density > SCATTERED * t.live_density:
        many = digits(t.executed_density / t.live_density)
        yield (
            f"  scattered points: {many} are computed for each that exists; smaller tiles, or ranks"
            " cut so that the points lie together, would compute fewer"
        )


def points(found: tuple[PointsStored, ...]) -> Iterator[str]:
    """Yield what is stored to say which points exist."""
    if not found:
        yield "filters alone say it: no mask is stored, 0 bytes"
    for x in found:
        much = "an open number of bytes" if x.bytes is None else quantity(x.bytes, "B")
        how = "an input" if x.origin == "input" else f"listed {LISTED[x.origin]}"
        yield f"{x.tensor}, {x.dtype}, {much}: {how}"


def stored(x: Explanation) -> Iterator[str]:
    """Yield what crosses memory between kernels, and why."""
    for s in x.stored:
        much = "an open number of bytes" if s.bytes is None else quantity(s.bytes, "B")
        yield f"{s.tensor}[{', '.join(s.ranks)}], {s.dtype}, {much}"
        yield f"  written by {s.writer}, read by {listing(s.readers)}"
        yield f"  {s.why}"
    if not x.stored:
        yield "nothing: no kernel reads what another one writes"


def costs(x: Explanation) -> Iterator[tuple[str, list[str]]]:
    """Yield work, roofline and bound."""
    c = x.cost
    if c.open or c.executed is None or c.useful is None:
        lines = [f"open: {c.open}"]
        lines += [f"{kind} of {name}: {formula}" for kind, name, formula in c.formulas]
        if c.compulsory is not None:
            lines.append(f"bytes of inputs and outputs: {quantity(c.compulsory, 'B')}")
        yield "Work", lines
        return
    done, need = c.executed, c.useful
    lines = []
    if done.matrix:
        spent = f" (of them {percent(need.matrix / done.matrix)} on points that exist)"
        lines.append(f"products: {quantity(done.matrix, 'FLOP')}{spent}")
    lines.append(f"exponentials: {quantity(done.exponentials, '')}")
    if done.special:
        lines.append(f"other special functions: {quantity(done.special, '')}")
    lines.append(f"other operations: {quantity(done.other, '')}")
    if c.compulsory is not None and c.moved is not None:
        lines.append(
            f"memory: {quantity(c.moved, 'B')} moved, {quantity(c.compulsory, 'B')} compulsory"
        )
    loaded = sum(k.loaded for k in c.kernels)
    lines.append(f"loaded by programs, mostly from caches: {quantity(loaded, 'B')}")
    yield "Work", lines
    if x.machine is None:
        yield (
            "Roofline",
            [f"no times: the figures of no machine with target {x.target} are certain enough"],
        )
        return
    lines = []
    for k in c.kernels:
        lines += [f"{k.name}:"] if len(c.kernels) > 1 else []
        lines += ["  " * (len(c.kernels) > 1) + y for y in kernel_terms(k)]
    lines += list(bounds(x))
    yield f"Roofline of {x.machine}", lines


def kernel_terms(k: KernelCost) -> Iterator[str]:
    """Yield the terms of one kernel, the binding one first."""
    width = max((len(t.unit) for t in k.terms), default=0)
    for t in k.terms:
        bar = "#" * max(1, round(20 * t.share))
        what = "binds" if t.binding else percent(t.share)
        yield f"{t.unit:<{width}}  {duration(t.seconds):>8}  {what:>9}  {bar}"
    for unit in k.unknown:
        yield f"{unit}: its rate is in no data sheet"


def bounds(x: Explanation) -> Iterator[str]:
    """Yield what all terms come to."""
    c = x.cost
    waiting = sum(k.waiting or 0.0 for k in c.kernels)
    if c.seconds is not None:
        yield (
            f"at least {duration(c.seconds)} if all units overlap, {duration(waiting)} if none do"
        )
    if c.intensity is not None and c.ridge is not None:
        side = "below" if c.intensity < c.ridge else "above"
        yield (
            f"{digits(c.intensity)} FLOP for each byte moved, {side} the ridge at {digits(c.ridge)}"
        )
    if c.bound is not None and c.distance is not None:
        yield f"compulsory bound {duration(c.bound)} ({c.bound_by}); this is at {c.distance:.2f}x"
    for k in x.kernels:
        if c.multiprocessors and k.programs is not None:
            who = "" if len(x.kernels) == 1 else f" of {k.name}"
            few = k.programs < c.multiprocessors
            idle = ": some stand idle, and the times above are out of reach" if few else ""
            ran = times(k.programs, "program")
            yield f"{ran}{who} on {c.multiprocessors} multiprocessors{idle}"
    yield f"figures: {c.source}"
