"""Save: a file that stands alone, imports only torch and triton, and tests itself.

It holds the kernels as they are, a launcher written out in full, and values that the float64
interpreter gave on a small example; ``python file.py`` runs the launcher on that example and
compares. The text is what a formatter would make of it.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from ..codegen.kernel import Argument, Buffer, Kernel
from ..codegen.layout import WIDTH, lay_out
from ..ir.axes import ranks_of
from ..ir.cascade import Cascade
from ..ir.errors import BackendError, EinfallError
from ..ir.expression import Access, Expression, RankVariable
from ..ir.mapping import Cut
from ..ir.show import show_expression
from .explain_visits import WIDTHS
from .parts import PROCESSORS, processors_of, tiles_of_part
from .save_check import self_test

if TYPE_CHECKING:
    from .lowered import Lowered

STANDARD = ("import triton", "import triton.language as tl")
"""What the kernels' files import, and the saved file imports once."""

WORKSPACE = '''\
def boxed(tensor):
    """Return a tensor of which boxes can be fetched: rows contiguous, at multiples of 16 bytes."""
    steps = [n * tensor.element_size() % 16 for n in tensor.stride()[:-1]]
    if tensor.stride(-1) == 1 and not any(steps) and tensor.data_ptr() % 16 == 0:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def workspace(size, alignment, stream):
    """Return the memory in which tensor descriptors live."""
    return torch.empty(size, dtype=torch.int8, device="cuda")
'''.splitlines()

TAKEN = (
    *("os", "torch", "triton", "tl", "wave", "test", "workspace", "boxed"),
    *("name", "tensor", "dtype", "shape", "found", "programs"),
    *("tiles", "slots", "tiles_of_part", "processors_of", "PROCESSORS"),
)
"""Names of the launcher's own, which no tensor may have."""


def save(lowered: Lowered, path: Path) -> Path:
    """Write the file and return its path.

    All kernels are saved in Triton. Lengths of long ranks stay arguments: a kernel from which known
    sizes took a condition is lowered again without them, so that the file is right for every
    length.

    Raises
    ------
    BackendError : no small example could be made for the self-test, or a tensor has the name of
        something that the launcher needs.
    """
    if any(kernel.language == "gluon" or kernel.follows for kernel in lowered.kernels):
        lowered = in_triton(lowered)
    text = standalone(general(lowered))
    try:
        path.write_text(text)
    except OSError as error:
        raise BackendError(
            f"{path} cannot be written ({error.strerror}); give a file in a folder that exists"
        ) from error
    return path


def in_triton(lowered: Lowered) -> Lowered:
    """Return the same kernels in Triton, which runs on every target and in its interpreter."""
    from .lowered import lower_cascade

    known = lowered.known
    if any(kernel.language == "gluon" for kernel in lowered.kernels) and known.emitter == "gluon":
        raise BackendError(
            f"a Gluon kernel of {lowered.cascade.name} cannot be saved alone; compile it with"
            ' emitter="tl", or with "auto", whose kernels are saved in Triton'
        )
    return lower_cascade(lowered.cascade, replace(known, emitter="tl", overlap=False))


def general(lowered: Lowered) -> Lowered:
    """Return kernels that are right for every length; the same ones if they are already."""
    from .lowered import lower_cascade

    known = lowered.known
    static = static_sizes(lowered)
    tiles = {p.rank: p.tile for k in lowered.mapping.kernels for p in k.partitions}
    # An open parameter is a float, so those that are not keep their value, which is their dtype.
    whole = {n: v for n, v in known.parameters.items() if isinstance(v, int)}
    cut = {r: n for r, n in tiles.items() if r not in static}
    warps = {k.num_warps for k in lowered.kernels}
    stages = {k.num_stages for k in lowered.kernels}
    open_ = replace(
        known,
        sizes=static,
        shapes={},
        parameters=whole,
        tiles=cut,
        num_warps=warps.pop() if len(warps) == 1 else None,
        num_stages=stages.pop() if len(stages) == 1 else None,
        described=tuple(t for t in known.described if boxed_by_copying(lowered, t)),
    )
    try:
        other = lower_cascade(lowered.cascade, open_)
    except EinfallError:
        return lowered
    same = [k.text for k in other.kernels] == [k.text for k in lowered.kernels]
    if same and other.mapping.requires == lowered.mapping.requires:
        return lowered
    return replace(other, known=replace(known, sizes=static, shapes={}))


def boxed_by_copying(lowered: Lowered, tensor: str) -> bool:
    """Return whether every row of a contiguous copy begins at a multiple of 16 bytes."""
    last = ranks_of(lowered.cascade, tensor)[-1]
    width = static_sizes(lowered).get(last or "", 1)
    return width * WIDTHS.get(lowered.known.dtypes[tensor], 1) % 16 == 0


def static_sizes(lowered: Lowered) -> dict[str, int]:
    """Return the sizes that are constants of the kernels."""
    return {r: n for k in lowered.mapping.kernels for r, n in k.static}


def standalone(lowered: Lowered) -> str:
    """Return the text of the file."""
    cascade = lowered.cascade
    clash = [n for n in (*cascade.inputs, *parameters(cascade), cascade.name) if n in TAKEN]
    if clash:
        raise BackendError(
            f"a saved file has {clash[0]} as a name of its own; rename {clash[0]} of {cascade.name}"
        )
    imports, blocks = pieces(lowered.kernels, cascade.name)
    lines = [*docstring(lowered), "", "import os", "", "import torch", *sorted(imports)]
    for block in blocks:
        lines += ["", "", *block.splitlines()]
    if boxed_tensors(lowered):
        lines += ["", "", *WORKSPACE]
    if any(not cut.parts for cut in lowered.mapping.cuts):
        lines += ["", "", f"PROCESSORS = {PROCESSORS}"]
        for function in (tiles_of_part, processors_of):
            lines += ["", "", *inspect.getsource(function).rstrip().splitlines()]
    lines += ["", "", *launcher(lowered), "", "", *self_test(lowered), "", ""]
    lines += ['if __name__ == "__main__":', "    test()"]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def docstring(lowered: Lowered) -> Iterator[str]:
    """Yield the file's first words."""
    name = lowered.cascade.name
    yield f'"""{name}: kernels, a launcher and a test, generated by Einfall from this cascade:'
    yield ""
    for line in str(lowered.cascade).splitlines():
        yield from wrap(
            line,
            WIDTH - 4,
            initial_indent="    ",
            subsequent_indent="            ",
            drop_whitespace=True,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    yield ""
    yield "Run the file to test it on a GPU, or with TRITON_INTERPRET=1 on the CPU."
    yield '"""'


def pieces(kernels: tuple[Kernel, ...], launcher: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the imports and the functions of the kernels' files, each once, in order.

    A function with the launcher's name gets another one.
    """
    imports: dict[str, None] = dict.fromkeys(STANDARD)
    blocks: dict[str, None] = {}
    for kernel in kernels:
        lines = kernel.text.splitlines()
        nodes = ast.parse(kernel.text).body
        clash = any(isinstance(n, ast.FunctionDef) and n.name == launcher for n in nodes)
        for node in nodes:
            decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
            first = min([node.lineno, *(d.lineno for d in decorators)])
            text = "\n".join(lines[first - 1 : node.end_lineno])
            if clash:
                text = re.sub(rf"(?<![.\w]){launcher}(?=\()", f"{launcher}_function", text)
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports.setdefault(text)
            elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                blocks.setdefault(text)
    return tuple(imports), tuple(blocks)


def launcher(lowered: Lowered) -> Iterator[str]:
    """Yield the function that checks arguments, allocates outputs and launches the kernels."""
    cascade = lowered.cascade
    sizes, keywords = size_sources(lowered)
    words = [*cascade.inputs]
    named = [f"{n}" if v is None else f"{n}={v!r}" for n, v in cascade.parameters]
    named += [f"size_{r}" for r in keywords]
    words += ["*", *named] if named else []
    yield from signature(cascade.name, words)
    shapes = ", ".join(f"{t}[{', '.join(shown(cascade, t))}]" for t in cascade.inputs)
    first = f'    """Compute {", ".join(cascade.outputs)} from {shapes}.'
    if len(first) + 3 <= WIDTH:
        yield first + '"""'
    else:
        yield f'    """Compute {", ".join(cascade.outputs)}.'
        yield ""
        yield from wrap(shapes, WIDTH - 4, initial_indent="    ", subsequent_indent="    ")
        yield '    """'
    for rank, source in sizes.items():
        yield f"    size_{rank} = {source}"
    yield "    for name, tensor, dtype, shape in ("
    for t in cascade.inputs:
        dtype = f"torch.{lowered.known.dtypes[t]}"
        yield from entry([f'"{t}"', t, dtype, extents(cascade, t, sizes, keywords)])
    yield "    ):"
    yield "        if tensor.dtype != dtype or tensor.shape != shape:"
    yield '            found = f"{tensor.dtype} of shape {tuple(tensor.shape)}"'
    yield '            raise ValueError(f"{name} must be {dtype} of shape {shape}; {found} given")'
    for one, other, tensor in same_sizes(lowered, sizes):
        yield f"    if size_{one} != size_{other}:"
        yield f'        raise ValueError("{one} and {other} of {tensor} must be equally long")'
    boxed = boxed_tensors(lowered)
    for tensor in boxed:
        yield f"    {tensor} = boxed({tensor})"
    if boxed:
        yield "    triton.set_allocator(workspace)"
    made: set[str] = set()
    for condition in lowered.mapping.requires:
        yield from lay_out(f"    if not {number(condition)}:")
        yield f'        raise ValueError("the kernels are for {show_expression(condition)}")'
    for rank, size in lowered.mapping.made:
        yield from lay_out(f"    size_{rank} = {number(size)}")
    for cut in lowered.mapping.cuts:
        yield from parts(cut, lowered)
    for kernel in lowered.kernels:
        yield from launch(kernel, cascade, made)
    yield f"    return {', '.join(cascade.outputs)}"


def number(expression: Expression) -> str:
    """Return an expression of sizes, extents and parameters as the launcher writes it."""
    text = re.sub(r"size\((\w+)\)", r"size_\1", show_expression(expression))
    return re.sub(r"(\w+?)_size_(\d+)", r"\1.shape[\2]", text)


def parts(cut: Cut, lowered: Lowered) -> Iterator[str]:
    """Yield how many parts a rank is reduced in, and how long they are."""
    size = f"size_{cut.positions or cut.rank}"
    stretch = size if cut.extent is None else number(cut.extent)
    more = "" if cut.extent is None else " + 1"
    yield from lay_out(f"    tiles = max(1, -(-{stretch} // {cut.unit}))")
    if cut.parts:
        yield f"    {cut.step} = -(-tiles // {cut.parts}) * {cut.unit}"
        yield f"    size_{cut.part} = {cut.parts}{more}"
        return
    kernel = next(k for k in lowered.kernels if any(g.rank == cut.part for g in k.grid))
    counts = grid_counts(kernel, without=cut.part)
    yield from lay_out(f"    programs = {' * '.join(counts) or '1'}")
    device = f"{lowered.cascade.inputs[0]}.device"
    yield f"    slots = {cut.residents} * processors_of({device})"
    given = ", ".join(str(x) for x in (cut.least, cut.stored) if x)
    yield f"    {cut.step} = tiles_of_part(tiles, programs, slots, {given}) * {cut.unit}"
    yield f"    size_{cut.part} = -(-tiles * {cut.unit} // {cut.step}){more}"


def grid_counts(kernel: Kernel, without: str = "") -> list[str]:
    """Return the extents of a kernel's grid as text, but for one rank's."""
    tiles = kernel.tile_sizes
    return [
        f"triton.cdiv(size_{g.rank}, {tiles[g.tile]})" if g.tile else f"size_{g.rank}"
        for g in kernel.grid
        if g.rank != without
    ]


def entry(words: list[str]) -> list[str]:
    """Return a tuple among others, one element a line where they do not fit in one."""
    line = f"        ({', '.join(words)}),"
    if len(line) <= WIDTH:
        return [line]
    return ["        (", *(f"            {word}," for word in words), "        ),"]


def signature(name: str, words: list[str]) -> Iterator[str]:
    """Yield the first line of a function, one argument a line where they do not fit in one."""
    line = f"def {name}({', '.join(words)}):"
    if len(line) <= WIDTH:
        yield line
    elif len(f"    {', '.join(words)}") <= WIDTH and "*" not in words:
        yield from (f"def {name}(", f"    {', '.join(words)}", "):")
    else:
        yield f"def {name}("
        yield from (f"    {word}," for word in words)
        yield "):"


def launch(kernel: Kernel, cascade: Cascade, made: set[str]) -> Iterator[str]:
    """Yield a kernel's launch, behind the allocation of what it writes first."""
    tiles, counts = kernel.tile_sizes, grid_counts(kernel)
    for buffer in kernel.writes:
        if buffer.tensor not in made:
            made.add(buffer.tensor)
            yield from allocation(buffer, kernel, cascade)
    yield from lay_out(f"    programs = {' * '.join(counts) or '1'}")
    yield "    if programs:"
    yield f"        {kernel.name}[(programs,)]("
    for argument in kernel.arguments:
        yield f"            {argument.name}={passed(argument, tiles)},"
    yield f"            num_warps={kernel.num_warps},"
    yield f"            num_stages={kernel.num_stages},"
    yield "            enable_fp_fusion=True,"
    yield "        )"


def allocation(buffer: Buffer, kernel: Kernel, cascade: Cascade) -> Iterator[str]:
    """Yield the allocation of a tensor that a kernel writes."""
    tiles, fixed = dict(buffer.tiles), dict(buffer.fixed)
    extents = [
        str(fixed[r])
        if r in fixed
        else (f"triton.cdiv(size_{r}, {tiles[r]})" if r in tiles else f"size_{r}")
        + (" + 1" if r == buffer.generations else "")
        for r in buffer.ranks
    ]
    # Where a rank of the grid is empty nothing is written, and what there is must be 0.
    whole = {g.rank for g in kernel.grid} <= set(buffer.ranks) and not buffer.zeros
    make = "empty" if whole else "zeros"
    device = f"{cascade.inputs[0]}.device"
    place = f"dtype=torch.{buffer.dtype}, device={device}"
    yield from lay_out(f"    {buffer.tensor} = torch.{make}([{', '.join(extents)}], {place})")


def passed(argument: Argument, tiles: dict[str, int]) -> str:
    """Return what a launch passes for an argument."""
    match argument.kind:
        case "pointer":
            return argument.tensor
        case "stride":
            return f"{argument.tensor}.stride({argument.position})"
        case "extent":
            return f"{argument.tensor}.shape[{argument.position}]"
        case "size":
            return f"size_{argument.rank}"
        case "tile":
            return str(tiles[argument.name])
        case _:
            return argument.name


def size_sources(lowered: Lowered) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return where each rank's size comes from, and the ranks whose size has to be passed.

    A constant of the kernels is written as a number; another size is read off the first input that
    has the rank as a plain coordinate.
    """
    cascade, static = lowered.cascade, static_sizes(lowered)
    homes: dict[str, str] = {}
    for tensor in cascade.inputs:
        for position, rank in enumerate(ranks_of(cascade, tensor)):
            if rank is not None:
                homes.setdefault(rank, f"{tensor}.shape[{position}]")
    needed = {a.rank for k in lowered.kernels for a in k.arguments if a.kind == "size"}
    needed |= {
        r for k in lowered.kernels for b in k.writes for r in b.ranks if r not in dict(b.fixed)
    }
    needed |= {g.rank for k in lowered.kernels for g in k.grid}
    needed |= {c.positions for c in lowered.mapping.cuts if c.positions}
    sources = {r: str(n) for r, n in static.items() if r in homes or r in needed}
    sources |= {r: home for r, home in homes.items() if r not in static}
    wanted = tuple(r for r in cascade.ranks if r in needed and r not in sources)
    return sources, wanted


def extents(cascade: Cascade, tensor: str, sizes: dict[str, str], keywords: tuple[str, ...]) -> str:
    """Return the shape that an input must have, as text; its own where no rank gives it."""
    texts = []
    for position, rank in enumerate(ranks_of(cascade, tensor)):
        known = rank is not None and (rank in sizes or rank in keywords)
        texts.append(f"size_{rank}" if known else f"{tensor}.shape[{position}]")
    return f"({', '.join(texts)}{',' * (len(texts) == 1)})"


def boxed_tensors(lowered: Lowered) -> tuple[str, ...]:
    """Return the inputs of which some kernel makes a tensor descriptor."""
    made = [
        base
        for kernel in lowered.kernels
        for base in re.findall(r"make_tensor_descriptor\(\s*(\w+)", kernel.text)
    ]
    return tuple(
        t
        for t in lowered.cascade.inputs
        if any(re.fullmatch(rf"{t}(_at(_\d+)?)?", base) for base in made)
    )


def same_sizes(lowered: Lowered, sizes: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return (rank, other rank, tensor) where an input has two ranks at one place."""
    found: dict[tuple[str, str, str], None] = {}
    cascade = lowered.cascade
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            if isinstance(x, Access) and x.tensor in cascade.inputs:
                for c, first in zip(x.coordinates, ranks_of(cascade, x.tensor), strict=False):
                    if isinstance(c, RankVariable) and first is not None and c.rank != first:
                        found.setdefault((first, c.rank, x.tensor))
    return [(a, b, t) for a, b, t in found if a in sizes and b in sizes]


def shown(cascade: Cascade, tensor: str) -> tuple[str, ...]:
    """Return a tensor's coordinates as first read."""
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            if isinstance(x, Access) and x.tensor == tensor:
                return tuple(show_expression(c) for c in x.coordinates)
    return ()


def parameters(cascade: Cascade) -> tuple[str, ...]:
    """Return the names of a cascade's parameters."""
    return tuple(n for n, _ in cascade.parameters)
