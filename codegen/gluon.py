"""Print a scheduled loop nest as a Gluon kernel for Hopper: one warp fetches, the others compute.

The file has, from top to bottom: constants and layouts, small functions, the work on a tile (once
for whole tiles, once for tiles that may be cut), the warp that fetches, the warps that compute, and
the kernel, which hands each its part. Memory and arithmetic meet in *rings*: slots of shared memory
with a barrier that says full and one that says empty. A tile's early products, and the late ones of
the tile before it, run while the work on the tile is done (``split_nest.py``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .gluon_adder import Adder
from .gluon_boxes import box_of
from .gluon_draw import SLOTS, counter_argument, counter_buffer, counter_of
from .gluon_fetch import Fetcher
from .gluon_order import RowsInOrder, TileInOrder
from .gluon_room import room
from .gluon_rows import Rows
from .gluon_shares import layout_line, shared_of
from .gluon_text import ADDING, IMPORTED, IMPORTS, PIECES, pieces
from .gluon_turns import counts_argument, counts_buffer, counts_of
from .gluon_values import GluonPrinter, layout_name, layout_text
from .gluon_walk import kind
from .gluon_wide import operands_of
from .gluon_work import Work
from .in_order import issue_ahead
from .kernel import Argument, Kernel
from .layout import WIDTH, lay_out
from .loop_nest import Load, Nest
from .one_loop import one_loop
from .own_words import bound_anew, set_apart
from .schedule import Schedule, Section
from .split_nest import split_nest
from .triton_operators import HELPERS

ROWS = 64
"""Rows of one consumer: the height of the tensor cores' products."""

REGISTERS = {1: 232, 2: 240, 3: 160}
"""Registers of a thread that computes, by the number of consumers, 128 threads each."""

ALONE_REGISTERS = 24
"""The same of a warp that fetches, or adds."""

NUMBERS = ("CONSUMER", "ADDER")
"""What tells groups of warps apart that run the same function."""

HALF = 128
"""Registers of a thread, on average, where two programs share a processor."""

WORKS = {
    "whole": "Take a whole tile into the state.",
    "cut": "Take a tile into the state of which some points may not exist.",
    "tile": "Take a tile into the state, and test its points where some may not exist.",
    "whole_resting": "Take a whole tile into the state while frames rest.",
    "cut_resting": "Take a tile, some points of which may not exist, while frames rest.",
    "test": "Leave points out of a tile that do not exist.",
    "test_2": "Leave out points by the second part of the test.",
    "test_3": "Leave out points by the third part of the test.",
    "moving": "Take a tile into the state, which moves to a frame of its own.",
    "resting": "Take a tile into the state while frames rest.",
}
"""What the work on tiles of each kind does."""


def print_gluon(nest: Nest) -> Kernel | str:
    """Print a nest; or say why it has no kernel whose warps do different things."""
    if nest.crew is None or nest.crew.consumers not in REGISTERS:
        return "its tiles are not cut for warps that do different things"
    apart = set_apart(nest)
    if isinstance(apart, str):
        return apart
    assert apart.crew is not None
    nest, crew, plan = apart, apart.crew, split_nest(apart)
    if isinstance(plan, Schedule) and not crew.rotated:
        plan = one_loop(plan)
        plan = issue_ahead(plan) if crew.ahead else plan
    if isinstance(plan, str):
        return plan
    kernel = File(nest, plan).kernel()
    names = frozenset(a.name for a in kernel.arguments if a.kind != "tile")
    twice = bound_anew(kernel.text, names)
    return f"its text calls something of its own {twice}; choose another name" if twice else kernel


@dataclass(frozen=True, slots=True)
class Function:
    """A generated function; its parameters are the names that its body reads from outside.

    ``bundled`` ones come in one tuple, but for the number of a consumer or of a warp that adds.
    """

    name: str
    says: str
    parameters: tuple[str, ...]
    lines: tuple[str, ...]
    bundled: bool = False

    @property
    def bundle(self) -> tuple[str, ...]:
        """What is handed over in one tuple."""
        return tuple(p for p in self.parameters if p not in NUMBERS)

    @property
    def numbers(self) -> list[str]:
        """What tells one group of warps that runs it from another."""
        return [p for p in self.parameters if p in NUMBERS]

    def text(self) -> list[str]:
        """Return its lines."""
        typed = {p: f"{p}: gl.constexpr" for p in NUMBERS}
        words, lines = [typed.get(p, p) for p in self.parameters], list(self.lines)
        if self.bundled:
            words = [*(typed[p] for p in self.numbers), "given"]
            lines = [*listed("    ", "", self.bundle, " = given"), *lines]
        return ["@gluon.jit", *header(self.name, words), f'    """{self.says}"""', *lines]

    def call(self) -> str:
        """Return a call that passes names as they are."""
        return f"{self.name}({', '.join(self.parameters)})"


class File:
    """The text of one kernel's file."""

    def __init__(self, nest: Nest, plan: Schedule) -> None:
        assert nest.crew is not None
        self.nest, self.plan, self.crew = nest, plan, nest.crew
        self.stem = nest.name.removesuffix("_kernel")

    def kernel(self) -> Kernel:
        """Return the text with its launch data."""
        nest, plan = self.nest, self.plan
        rows = (Rows if self.crew.rotated else RowsInOrder)(nest, plan)
        fetcher = Fetcher(nest, plan)
        adder = Adder(nest, plan) if plan.sections[0].shares else None
        works = self.works(rows)
        rows.write({kind: f.call() for kind, f in works.items()})
        added = adder.boxes if adder else {}
        boxes = fetcher.boxes | added | rows.boxes
        shared = self.shared(rows, added)
        given = [*boxes, *(a.name for a in nest.arguments if a.kind != "tile")]
        given += [counter_of(nest)] if self.crew.drawn else []
        given += [counts_of(nest)] if self.crew.in_turn else []
        outside, wide = [*NUMBERS, *shared, *given], self.crew.wide
        says = "Fetch boxes in the order in which products read them."
        fetch = self.function("fetch", says, fetcher.lines, outside)
        says = f"Compute the rows of one consumer, which is {'eight' if wide else 'four'} warps."
        bodies = [fetch, self.function("rows", says, rows.lines, outside)]
        if adder:
            says = "Add what consumers give to memory."
            bodies.append(self.function("add", says, adder.lines, outside))
        bodies = [replace(f, bundled=True) for f in bodies]
        named = {p for f in bodies for p in f.parameters} | {b for b in boxes}
        arguments = [a for a in boxes.values() if a.name in named]
        arguments += [a for a in nest.arguments if a.name in named]
        writes = nest.writes
        if self.crew.drawn:
            arguments.append(counter_argument(nest))
            writes = (*writes, counter_buffer(nest))
        if self.crew.in_turn:
            arguments.append(counts_argument(nest))
            writes = (*writes, counts_buffer(nest, plan.columns))
        main = self.main(bodies, shared, [a.name for a in arguments])
        printers = [rows, fetcher, *([adder] if adder else [])]
        text = self.text(printers, [*works.values(), *bodies, main])
        return Kernel(
            nest.name,
            text,
            tuple(arguments),
            nest.grid,
            nest.tiles,
            nest.reads,
            writes,
            rows.warps,
            nest.num_stages,
            language="gluon",
            persistent=self.crew.persistent,
            registers=HALF if self.crew.consumers == 1 and not self.crew.wide else 0,
            follows=nest.beside,
            shared=self.room(shared, {a.name: a for a in arguments if a.kind == "box"}),
        )

    def works(self, rows: Rows) -> dict[str, Function]:
        """Return the work on tiles of each kind."""
        first = [d.var.name for d in self.plan.products]
        first += [v.name for v in self.plan.carried]
        found: dict[str, Function] = {}
        works = [self.kinds(x, rows) for x in self.plan.sections]
        for texts in works if rows.joined is None else [rows.shared_work(rows.joined)]:
            for name, lines in texts.items():
                free = free_names(lines)
                order = [*(n for n in dict.fromkeys(first) if n in free), *free]
                function = self.function(name, WORKS[name], lines, self.visible(order))
                assert found.setdefault(name, function) == function
        return found

    def kinds(self, section: Section, rows: Rows) -> dict[str, list[str]]:
        """Return the work on a section's tiles, and the same while frames rest, by name."""
        make = Work if self.crew.rotated else TileInOrder
        texts = {kind(section): make(self.nest, self.plan, section, rows).lines}
        if section.resting is not None:
            resting = Work(self.nest, self.plan, section, rows, rests=True).lines
            texts[f"{kind(section)}_resting"] = resting
        return texts

    def visible(self, names: list[str]) -> list[str]:
        """Return names that are none of the file's own."""
        own = {"gl", "float", *IMPORTED, *self.constants()}
        return [n for n in dict.fromkeys(names) if n not in own and not is_layout(n)]

    def function(self, end: str, says: str, lines: list[str], outside: list[str]) -> Function:
        """Return a function with the parameters that it needs, in the order of ``outside``."""
        free = set(free_names(lines))
        parameters = tuple(n for n in outside if n in free and not self.is_function(n))
        return Function(f"{self.stem}_{end}", says, parameters, tuple(lines))

    def is_function(self, name: str) -> bool:
        """Whether a name is that of a small function of the file."""
        return name in HELPERS or name in PIECES

    def constants(self) -> dict[str, str]:
        """Return the numbers that the file names."""
        walked = self.plan.columns
        return {
            "CONSUMERS": str(self.crew.consumers),
            "ROWS": str(ROWS),
            "STAGES": str(self.nest.num_stages),
            "ADDERS": str(self.crew.adders),
            self.plan.rows.constant: str(self.plan.rows.width),
            walked.constant: str(walked.width),
        }

    def shared(self, rows: Rows, added: Iterable[str]) -> dict[str, str]:
        """Return what lies in shared memory, by name, with the call that makes it."""
        made: dict[str, str] = {}
        for x in self.plan.held:
            name = x.var.name
            if x.load is None:
                width = self.plan_width(x.var.axes[1])
                layout = f"gl.NVMMASharedLayout.get_default_for([ROWS, {width}], gl.{x.dtype})"
                shape = f"[CONSUMERS, ROWS, {width}]"
                made[f"{name}_rows"] = f"gl.allocate_shared_memory(gl.{x.dtype}, {shape}, {layout})"
                continue
            box = self.box(x.load)
            places = "2 * CONSUMERS" if rows.spare else "CONSUMERS"
            made[f"{name}_rows"] = boxes_in(box, places)
            made[f"{name}_full"] = f"barriers({places}, 1)"
            if self.crew.persistent:
                made[f"{name}_empty"] = f"barriers({places}, 1)"
        loads = (*self.plan.fetched, *self.plan.vectors)
        carriers = [rows.carrier(x) for x in loads]
        for load in loads:
            name = load.var.name
            made[f"{name}_ring"] = boxes_in(self.box(load), "STAGES")
            if name in carriers:
                made[f"{name}_full"] = f"barriers(STAGES, {carriers.count(name)})"
                made[f"{name}_empty"] = "barriers(STAGES, CONSUMERS)"
        made |= shared_of(rows)
        made |= operands_of(rows)
        made |= rows.told.shared()
        made |= SLOTS if self.crew.drawn else {}
        for name in (*added, *rows.boxes):
            if name in added or any(f"{name}_rows" in line for line in rows.lines):
                own = name in added and self.crew.adders > 1
                made[f"{name}_rows"] = boxes_in(name, "ADDERS * CONSUMERS" if own else "CONSUMERS")
        return made

    def room(self, shared: dict[str, str], boxes: dict[str, Argument]) -> int:
        """Return how many bytes of shared memory that is."""
        constants = {name: int(value) for name, value in self.constants().items()}
        return room(shared.values(), constants, boxes, dict(self.nest.dtypes))

    def box(self, load: Load) -> str:
        """Return the name of a load's descriptor."""
        box = box_of(self.nest, self.plan, load.tensor, load.coordinates)
        assert box is not None
        return box.name

    def plan_width(self, axis: str) -> int:
        """Return how wide tiles are along an axis."""
        return self.nest.axis(axis).width

    def main(
        self, bodies: list[Function], shared: dict[str, str], arguments: list[str]
    ) -> Function:
        """Return the kernel: it makes what warps share, and hands each group its part."""
        fetch, rows, *adds = bodies
        lines = ["    begin_next()"] if self.nest.leads else []
        lines += [f"    {name} = {text}" for name, text in shared.items()]
        lines.append("    fence_async_shared()")
        lines += listed("    ", "for_rows = (", rows.bundle, ")")
        lines += listed("    ", "for_fetch = (", fetch.bundle, ")")
        for add in adds:
            lines += listed("    ", "for_add = (", add.bundle, ")")
        parts = [f"({rows.name}, ({k}, for_rows))" for k in range(self.crew.consumers)]
        parts.append(f"({fetch.name}, (for_fetch,))")
        for add in adds:
            numbers = [f"{k}, " for k in range(self.crew.adders)] if add.numbers else [""]
            parts += [f"({add.name}, ({k}for_add{'' if k else ','}))" for k in numbers]
        others = self.crew.consumers - 1
        alone = 1 + len(adds) * self.crew.adders
        warps = ", ".join(["4"] * others + ["1"] * alone)
        one = [str(REGISTERS[self.crew.consumers])]
        few = [str(self.alone_registers)]
        registers = ", ".join(one * others + few * alone)
        lines += [
            "    gl.warp_specialize(",
            *listed("        ", "[", tuple(parts), "],"),
            f"        [{warps}],",
            f"        [{registers}],",
            "    )",
        ]
        return Function(self.nest.name, "One program.", tuple(arguments), tuple(lines))

    @property
    def alone_registers(self) -> int:
        """Registers of a thread of a warp that works alone.

        Measured on an H100, TFLOP/s of five products added in any order, 64 features, 128 columns,
        with 32 and with 24: 471 and 424 (4096 rows), 509 and 457 (16384). With 64 columns the first
        consumer has too few then, and products wait for each other (548 became 476).
        """
        any_order = bool(self.plan.sections[0].shares) and not self.crew.in_turn
        return ALONE_REGISTERS + 8 * (any_order and self.plan.columns.width > ROWS)

    def text(self, printers: list[GluonPrinter], functions: list[Function]) -> str:
        """Return the whole file."""
        layouts = {axes: None for p in printers for axes in p.layouts}
        names = {n: None for p in printers for n in p.pieces} | {"barriers": None}
        names |= {"begin_next": None} if self.nest.leads else {}
        helpers = {n: None for p in printers for n in p.helpers}
        lines = [*printers[0].docstring(), ""]
        lines += [*(ADDING.splitlines() if "add_box" in names else []), *IMPORTS.splitlines(), ""]
        constants = self.constants()
        body = "\n".join(x for f in functions for x in f.text())
        lines += [
            f"{name} = gl.constexpr({value})"
            for name, value in constants.items()
            if re.search(rf"\b{name}\b", body) or name in ("STAGES", "ROWS", "CONSUMERS")
        ]
        lines += self.layouts(layouts, body, printers[0])
        blocks = [
            re.sub(r"\btl\.", "gl.", HELPERS[n]).replace("@triton", "@gluon") for n in helpers
        ]
        for block in (*pieces(names), *blocks):
            lines += ["", "", *block.splitlines()]
        for function in functions:
            lines += ["", "", *(x for line in function.text() for x in lay_out(line))]
        return "\n".join(x.rstrip() for x in lines) + "\n"

    def layouts(
        self, axes: dict[tuple[str, ...], None], body: str, printer: GluonPrinter
    ) -> list[str]:
        """Return the definitions of the layouts, tiles ahead of the vectors along them."""
        rows, columns = self.plan.rows.name, self.plan.columns.name
        order = [a.name for a in self.nest.axes]
        found = sorted(axes, key=lambda x: (-len(x), [order.index(a) for a in x]))
        lines = []
        for x in found:
            text = layout_text(x, rows, columns, self.plan_width(x[-1]), wide=self.crew.wide)
            lines.append(f"{layout_name(x)} = gl.constexpr({text})")
            left = f"LEFT_OF_{layout_name(x)}"
            if re.search(rf"\b{left}\b", body):
                lines.append(f"{left} = gl.constexpr(gl.DotOperandLayout(0, {layout_name(x)}, 2))")
        return [*lines, *(layout_line(printer, x) for x in self.plan.sections[0].shares)]


def boxes_in(box: str, count: str) -> str:
    """Return the call that allocates shared memory for a number of boxes."""
    return (
        f"gl.allocate_shared_memory({box}.dtype, [{count}] + {box}.block_type.shape, {box}.layout)"
    )


def is_layout(name: str) -> bool:
    """Whether a name is that of a layout."""
    return name.startswith(("ALONG_", "LEFT_OF_", "SHARE_OF_")) or "_BY_" in name


def header(name: str, words: list[str]) -> list[str]:
    """Return the first line of a function, broken where it is too long."""
    line = f"def {name}({', '.join(words)}):"
    if len(line) <= WIDTH:
        return [line]
    if len(f"    {', '.join(words)}") <= WIDTH:
        return [f"def {name}(", f"    {', '.join(words)}", "):"]
    return [f"def {name}(", *(f"    {w}," for w in words), "):"]


def listed(indent: str, head: str, words: tuple[str, ...], tail: str) -> list[str]:
    """Return words in a row, or one a line where they are too many for one."""
    line = f"{indent}{head}{', '.join(words)}{tail}"
    if len(line) <= WIDTH and len(words) > 1:
        return [line]
    opened = head or "("
    closed = tail if head else f"){tail}"
    return [f"{indent}{opened}", *(f"{indent}    {w}," for w in words), f"{indent}{closed}"]


def free_names(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the names that lines of code read before they define them, in order."""
    text = "def f():\n" + "\n".join(lines)
    found: dict[str, None] = {}
    known: set[str] = set()

    def read(node: ast.AST) -> None:
        for x in ast.walk(node):
            if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Load) and x.id not in known:
                found.setdefault(x.id)

    def visit(body: list[ast.stmt]) -> None:
        for s in body:
            match s:
                case ast.For(target=target, iter=walked, body=inner):
                    read(walked)
                    known.update(x.id for x in ast.walk(target) if isinstance(x, ast.Name))
                    visit(inner)
                case ast.If(test=test, body=inner, orelse=other):
                    read(test)
                    visit([*inner, *other])
                case ast.Assign(targets=targets, value=value):
                    read(value)
                    for t in targets:
                        known.update(x.id for x in ast.walk(t) if isinstance(x, ast.Name))
                case _:
                    read(s)

    function = ast.parse(text).body[0]
    assert isinstance(function, ast.FunctionDef)
    visit(function.body)
    return tuple(found)
