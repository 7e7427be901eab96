"""Bound tables: a list of tiles has room for so many, and a run of tiles stands for the rest.

::

    m_tiles[p_tile, k], k < 8192            for each tile of rows, every tile of m
    -->
    m_tiles[p_tile, k], k < 1024            and behind the last that fits, all up to the last of all

A list for each tile of rows that could name every tile would grow with the square of the length: at
a million coordinates, 256 MiB. The tiles of the run are tested, so that no point is lost or added
where some of them have none; a row that needs the run walks further than it would have to.

Requires: tiles are cut. Keeps: which points exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.mapping import MappedKernel, Traversal

MOST = 1024
"""Tiles of a row that are listed."""


def bound_tables(kernel: MappedKernel, sizes: Mapping[str, int]) -> MappedKernel:
    """Bound the lists of a kernel's tables whose ranks have more tiles; see above."""

    def bounded(t: Traversal) -> Traversal:
        table, rank = t.domain.table, t.streaming.rank
        if table is None:
            return t
        most = MOST if sizes.get(rank, 0) > MOST * kernel.partition(rank).tile else 0
        return replace(t, domain=replace(t.domain, table=replace(table, most=most)))

    found = tuple(map(bounded, kernel.traversals))
    return kernel if found == kernel.traversals else replace(kernel, traversals=found)


def mark_tables(kernel: MappedKernel) -> MappedKernel:
    """Let a kernel's tables say which parts of its test a tile needs, where tiles share a loop.

    Where all tiles of a table are whole, but for the end of a rank, those loops stay two: in one,
    whole tiles take 3 % longer.
    """
    if kernel.crew is None or not kernel.crew.joined:
        return kernel
    tables = [t.domain.table for t in kernel.traversals]
    if any(table is not None and table.whole for table in tables):
        return replace(kernel, crew=replace(kernel.crew, joined=False))

    def marked(t: Traversal) -> Traversal:
        table = t.domain.table
        if table is None or len(table.parts) < 2:
            return t
        found = replace(table, name=f"{table.name}_marked", marked=True)
        return replace(t, domain=replace(t.domain, table=found))

    return replace(kernel, traversals=tuple(map(marked, kernel.traversals)))
