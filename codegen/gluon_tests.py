"""What a joined loop does to a tile that is tested, before the work that all tiles share.

Of a tile's early products points are left out, by one test or by the parts of one; where a list
names the tiles, a part that a tile does not need is not asked::

    if m_test + m_test_1 != 0:
        if m_test != 0:      S = where(m <= p, S, -inf)
        if m_test_1 != 0:    S = where(doc[p] == doc[m], S, -inf)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .gluon_told import ring

if TYPE_CHECKING:
    from .gluon_rows import Rows

Calls = Mapping[str, str]
"""What calls the work on a tile, by the name of that."""


def test_name(k: int) -> str:
    """Return what part k of a test is called."""
    return "test" if k == 0 else f"test_{k + 1}"


def hear(rows: Rows, calls: Iterable[str], step: str) -> None:
    """Take to registers what is told of a tile: what its work reads, and which tests it needs."""
    marks = rows.joined.marks if rows.joined else ()
    text = " ".join(calls)
    for name in rows.told.tiles:
        if name in marks or re.search(rf"\b{name}\b", text):
            rows.add(f"{name} = told({ring(name)}.index({step} % STAGES))")


def leave_out(rows: Rows, calls: Calls, step: str, at: str, *, heard: bool = False) -> None:
    """Leave points out of a tile that is ``at`` places into the walk, where it needs that.

    ``heard`` : whether it is in registers already where the tile lies.
    """
    assert rows.joined is not None
    made = ", ".join(dict.fromkeys(d.var.name for d in rows.plan.products))
    tests, depth, first = rows.joined.tests, rows.depth, rows.plan.columns.first
    if len(tests) > 1:
        rows.add(f"if {' + '.join(rows.joined.marks)} != 0:")
        rows.depth += 1
    for k, test in enumerate(tests):
        call, condition = calls[test_name(k)], test.condition
        ends = f"{rows.walk.whole_end} <= {at}"
        rows.add(f"if {ends if condition is None else rows.value(condition, ())}:")
        rows.depth += 1
        if set(test.work) & set(rows.plan.vectors):
            rows.read_vectors()
        if not heard and first in rows.told.tiles and re.search(rf"\b{first}\b", call):
            rows.add(f"{first} = told({ring(first)}.index({step} % STAGES))")
        rows.add(f"{made} = {call}")
        rows.depth -= 1
    rows.depth = depth
