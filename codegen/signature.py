"""The signature of a kernel: which sizes, strides and parameters its statements need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..ir.mapping import MappedKernel
from .kernel import Argument, Buffer, GridRank
from .loop_nest import (
    Axis,
    Cast,
    Dot,
    Fold,
    Gather,
    Histogram,
    Index,
    Let,
    Load,
    Loop,
    Nest,
    Op,
    Order,
    Place,
    Scalar,
    Scan,
    Statement,
    Store,
    Value,
    When,
    statements,
)
from .names import Names


def sign(
    kernel: MappedKernel,
    body: tuple[Statement, ...],
    axes: Mapping[str, Axis],
    buffers: tuple[Buffer, ...],
    dtypes: Mapping[str, str],
    names: Names,
) -> Nest:
    """Give lowered statements their signature and their grid."""
    positions: dict[str, int] = {}
    along: dict[tuple[str, int], str] = {}
    for s in statements(body):
        if isinstance(s, Load | Store):
            positions[s.tensor] = len(s.coordinates)
            for k, c in enumerate(s.coordinates):
                along.setdefault((s.tensor, k), rank_along(c, axes) or str(k))
    grid = tuple(GridRank(r) for r in kernel.ranks("grid"))
    tiled = tuple(GridRank(r, axes[r].constant) for r in kernel.ranks("tiled"))
    first = kernel.crew is not None and kernel.crew.slowest
    grid = (*tiled, *grid) if first else (*grid, *tiled)
    used = list(dict.fromkeys(s.name for s in scalars(body)))
    sizes = {g.rank: None for g in grid}
    sizes |= {axes[s.var.axes[0]].rank: None for s in statements(body)
              if isinstance(s, Load) and s.described}  # fmt: skip
    sizes |= {n[5:-1]: None for n in used if n.startswith("size(")}
    known = {g.rank for g in grid} | {a.first for a in axes.values()}
    known |= {f"{r}_{end}" for r in kernel.ranks("tiled") for end in ("last", "tile")}
    known |= {a.constant for a in axes.values()} | {f"{r}_last" for r in kernel.ranks("streamed")}
    known |= {s.first for s in statements(body) if isinstance(s, Loop)}
    given = [n for n in used if n not in known and not n.startswith("size(")]
    names.taken.update(given)  # a parameter keeps its name
    size_names = {r: names.take(r.upper()) for r in sizes}
    arguments = [Argument("pointer", t, t) for t in positions]
    arguments += [
        Argument("stride", names.take(f"{t}_{along[t, k]}"), t, k)
        for t, n in positions.items()
        for k in range(n)
    ]
    arguments += [Argument("size", name, rank=r) for r, name in size_names.items()]
    for name in given:
        tensor, _, position = name.rpartition("_size_")
        if tensor:
            arguments.append(Argument("extent", name, tensor, int(position)))
        else:
            arguments.append(Argument("parameter", name))
    tiles = tuple(dict.fromkeys((a.constant, a.width) for a in axes.values() if a.constant))
    arguments += [Argument("tile", name) for name, _ in tiles]
    return Nest(
        kernel.name,
        (),
        tuple(axes.values()),
        tuple(arguments),
        tiles,
        grid,
        kernel.reverse,
        tuple(size_names.items()),
        body,
        tuple(t for t in positions if t not in {b.tensor for b in buffers}),
        buffers,
        tuple((t, dtypes[t]) for t in positions),
        kernel.num_warps,
        kernel.num_stages,
        kernel.described,
        kernel.crew,
        all(t.streaming.commutative for t in kernel.traversals),
    )


def rank_along(coordinate: Value, axes: Mapping[str, Axis]) -> str:
    """Return the rank after which a stride is named: the first that the coordinate reads."""
    match coordinate:
        case Index(axis=name):
            return axes[name].rank
        case Scalar(name=name) if not name.startswith("size("):
            return next((a.rank for a in axes.values() if a.first == name), name)
        case Op(operands=operands):
            return next((r for x in operands if (r := rank_along(x, axes))), "")
        case Cast(value=inner):
            return rank_along(inner, axes)
        case _:
            return ""


def scalars(body: tuple[Statement, ...]) -> Iterator[Scalar]:
    """Yield every scalar that some statement reads."""
    for statement in statements(body):
        for value in values(statement):
            yield from inside(value)


def values(statement: Statement) -> tuple[Value, ...]:
    """Return the values that a statement reads."""
    match statement:
        case Let(value=value) | Fold(value=value) | Place(value=value) | Scan(value=value):
            return (value,)
        case Load(coordinates=coordinates, guard=guard):
            return (*coordinates, *(() if guard is None else (guard,)))
        case Store(coordinates=coordinates, value=value, guard=guard):
            return (*coordinates, value, *(() if guard is None else (guard,)))
        case Dot(left=left, right=right, start=start):
            return (left, right, *(() if start is None else (start,)))
        case Order(group=group, value=value):
            return (group, *(() if value is None else (value,)))
        case Gather(value=value, place=place):
            return (value, place)
        case Histogram(value=value, guard=guard):
            return (value, guard)
        case Loop(begin=begin, end=end):
            return (begin, end)
        case When(condition=condition):
            return (condition,)
        case _:
            return ()


def inside(value: Value) -> Iterator[Scalar]:
    """Yield the scalars inside a value."""
    match value:
        case Scalar():
            yield value
        case Op(operands=operands):
            for x in operands:
                yield from inside(x)
        case Cast(value=x):
            yield from inside(x)
        case _:
            return
