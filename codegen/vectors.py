"""Vectors: what a tile's work reads along the walked axis alone, which descriptors may fetch too.

A label of each column that points are compared by takes as long to come as a product to run, and
so does a number of each column that scores are added to or multiplied with. It is fetched into a
ring, as operands are, and is there when the work begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .join_tiles import leading_tests
from .loop_nest import Axis, Index, Load, Nest, value_axes, value_vars
from .operands import plain

if TYPE_CHECKING:
    from .schedule import Section

NARROW = 64
"""Features of a sum beside which consumers have registers for numbers of each column.

They are kept for a tile that is taken once more; with 128 features 25 accesses to memory of the
threads' own stand in the loop.
"""

FETCHED = ("float32", "int32", "float16", "bfloat16")
"""Dtypes of numbers along the walked axis that are fetched."""


def vectors_of(nest: Nest, sections: tuple[Section, ...], columns: Axis) -> tuple[Load, ...]:
    """Return the loads along the walked axis alone that descriptors may fetch.

    What lies outside the tensor is fetched as 0, so that nothing else may stand for it. In a
    rotated loop, those of all tiles, or of tested ones, where whole ones need none.
    """
    if nest.crew is None:
        return ()
    found = {s: loads_along(nest, s, columns) for s in sections}
    if nest.crew.rotated:
        whole = [loads for s, loads in found.items() if not s.loop.cut]
        if not any(whole):
            found = {s: loads for s, loads in found.items() if s.loop.cut}
        elif any(s.place for s in sections) or len(set(found.values())) == 1 < len(found):
            return ()  # what a list names, or tiles that may share a loop
        elif any(nest.axis(x.accumulator.axes[1]).width > NARROW for x in sections[0].late):
            return ()
    first, *others = found.values() or [()]
    return first if all(plain(x) == plain(first) for x in others) else ()


def loads_along(nest: Nest, section: Section, columns: Axis) -> tuple[Load, ...]:
    """Return a section's loads of vectors; where its tests have parts, those of the part with any.

    They are fetched for tiles that need that part alone.
    """
    tests, rest = leading_tests(section.work)
    bodies = [t.work for t in tests] if section.place and tests else [rest]
    found = [[s for s in x if isinstance(s, Load) and is_vector(nest, s, columns)] for x in bodies]
    loads = [tuple(x) for x in found if x]
    return loads[0] if len(loads) == 1 else ()


def is_vector(nest: Nest, s: Load, columns: Axis) -> bool:
    """Whether a piece of a tensor along the walked axis, and no more, is loaded."""
    return (
        s.tensor in nest.described
        and s.other == 0.0
        and s.var.axes == (columns.name,)
        and s.coordinates[-1] == Index(columns.name)
        and len(s.coordinates) <= 5
        and not any(value_axes(c) | value_vars(c) for c in s.coordinates[:-1])
        and dict(nest.dtypes)[s.tensor] in FETCHED
    )
