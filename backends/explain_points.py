"""Explaining points: what is stored to say which points exist, and how many bytes that takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..ir.cascade import Cascade
from ..ir.domain import Table
from ..ir.expression import Access, Expression, Populate, Reduce, walk
from ..ir.mapping import MappedKernel, Mapping
from .explain_visits import Facts


@dataclass(frozen=True, slots=True)
class PointsStored:
    """A tensor that decides which points exist.

    origin : ``input``, or when a kernel makes it: ``once`` for equal sizes and parameters,
    ``kept`` while the inputs that it follows do not change, or at each ``call``.
    bytes : None where a size is open.
    """

    tensor: str
    dtype: str
    bytes: int | None
    origin: str


def points_stored(
    cascade: Cascade, mapping: Mapping, facts: Facts
) -> tuple[PointsStored, ...] | None:
    """Return what decides about points, inputs first; None where no filter does.

    () says that filters alone decide: nothing is stored.
    """
    filters = [f for e in cascade.einsums for f in filters_of(e.filter, e.body)]
    if not filters:
        return None
    read = dict.fromkeys(
        x.tensor
        for f in filters
        for x in walk(f)
        if isinstance(x, Access) and x.tensor in cascade.inputs
    )
    found = []
    for tensor in read:
        shape = facts.shapes.get(tensor)
        size = None if shape is None else int(facts.bytes_of(tensor, prod(shape)))
        found.append(PointsStored(tensor, facts.dtypes.get(tensor, ""), size, "input"))
    for kernel in mapping.kernels:
        found += [x for x in tables_of(kernel, facts) if x not in found]
    return tuple(found)


def filters_of(filter: Expression | None, body: Expression) -> list[Expression]:
    """Return the filters of an einsum and of the reductions and selections inside it."""
    found = [] if filter is None else [filter]
    for x in walk(body):
        match x:
            case Reduce(filter=inner) if inner is not None:
                found.append(inner)
            case Populate(forced=forced, forbidden=forbidden):
                found += [y for y in (forced, forbidden) if y is not None]
    return found


def tables_of(kernel: MappedKernel, facts: Facts) -> list[PointsStored]:
    """Return the tables of tiles that are made for a kernel's loops."""
    found = []
    for traversal in kernel.traversals:
        table, rank = traversal.domain.table, traversal.streaming.rank
        if table is None:
            continue
        rows = kernel.ranks("tiled")
        tiles = {r: kernel.partition(r).tile for r in (*rows, rank)}
        outer = [r for r in kernel.ranks("grid") if r in table.ranks]
        size = None
        if all(r in facts.sizes for r in (*outer, *tiles)):
            many = prod(facts.sizes[r] for r in outer)
            many *= prod(-(-facts.sizes[r] // tiles[r]) for r in rows)
            size = 4 * many * (-(-facts.sizes[rank] // tiles[rank]) + 2)
        found.append(PointsStored(table.name, "int32", size, made_when(table, facts.static)))
    return found


def made_when(table: Table, static: tuple[str, ...]) -> str:
    """Return when a table is made: ``once``, again when ``static`` inputs change, or each call."""
    read = {x.tensor for y in expressions(table) for x in walk(y) if isinstance(x, Access)}
    return "once" if table.fixed else "kept" if read <= set(static) else "call"


def expressions(table: Table) -> list[Expression]:
    """Return the conditions of a table."""
    parts = (table.some, table.every, table.test)
    return [x for x in parts if x is not None]
