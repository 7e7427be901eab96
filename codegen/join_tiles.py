"""Join the tiles of a walk in one loop: tested ones are whole ones behind a test.

Where frames rest, the work on a tile that is tested is the work on a whole one, done on what a test
left of its early products. So both kinds share a loop, in which only some tiles are tested, and the
text, of which a processor holds no more than some hundred thousand bytes, is half as long::

    for m in whole: work(s)                    for m in whole, tested:
    for m in tested: work(test(s))    -->          if m is tested: s = test(s)
                                                   work(s)

Where a list names the tiles, it says of each which parts of the test it needs.

*Requires* a walk in any order, in which all frames may rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .loop_nest import Comment, Let, Load, Statement, Value, When, value_vars
from .signature import values

if TYPE_CHECKING:
    from .schedule import Section


@dataclass(frozen=True, slots=True)
class Test:
    """What leaves points out of some tiles: those for which the condition holds."""

    condition: Value | None
    work: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """What all tiles of a walk have in common.

    whole : how many sections of the walk, the first ones, are of whole tiles. tests : leave points
    out of a tile's early products, each under a condition; None where that follows from the
    section. moving, resting : the work on a tile, once its frame moves and while it rests.
    seldom : whether tests are seldom needed: a tile that needs one is worked on as if it did not,
    and then once more, with the test, as one is whose frame has to move. That spares the others a
    branch around the test, which takes 3 % of a tile's time.
    """

    whole: int
    tests: tuple[Test, ...]
    moving: tuple[Statement, ...]
    resting: tuple[Statement, ...]
    seldom: bool = False

    @property
    def marks(self) -> tuple[str, ...]:
        """What says of a tile which tests it needs, by name; none where its section does."""
        conditions = [t.condition for t in self.tests if t.condition is not None]
        return tuple(n for c in conditions for n in sorted(value_vars(c)))


def arranged(
    sections: tuple[Section, ...], products: Iterable[str], *, join: bool, sort: bool
) -> tuple[Section, ...]:
    """Return the sections of a walk in the order that is best.

    ``sort`` : whether they may be taken in any order; ``join``, in one loop, where that pays.
    Joined, whole tiles come first: a tile that is tested has fewer points to take a frame from.
    Otherwise tested ones do, for the first tile is tested in any case; and their frames move, for a
    loop for each kind in two versions is more text than a processor holds.
    """
    found = tuple(sorted(sections, key=lambda s: s.loop.cut))
    if join and joined(found, products) is not None:
        return found
    found = tuple(sorted(sections, key=lambda s: not s.loop.cut)) if sort else sections
    return tuple(s if s.place or not s.loop.cut else replace(s, resting=None) for s in found)


def joined(sections: tuple[Section, ...], products: Iterable[str]) -> Joined | None:
    """Return what the tiles of a walk have in common, None if whole and tested ones differ more.

    ``products`` are the names of the early ones.
    """
    if len(sections) == 1 and sections[0].place:
        return joined_by_list(sections[0], products)
    whole = [s for s in sections if not s.loop.cut]
    cut = sections[len(whole) :]
    if not whole or not cut or not all(s.loop.cut for s in cut):
        return None
    if any(s.place or s.shares or s.resting is None for s in sections):
        return None
    first, last = whole[0], cut[0]
    assert first.resting is not None and last.resting is not None
    tail, body = first.resting.body, last.resting.body
    test = body[: len(body) - len(tail)]
    moving = last.work[len(test) :]
    if first.late != last.late or (*test, *tail) != body or (*test, *moving) != last.work:
        return None
    if not test or not all(isinstance(s, Let | Comment) for s in test):
        return None
    inner = {s.var.name for s in test if isinstance(s, Let)} - set(products)
    read = {n for s in (*moving, *tail) for v in values(s) for n in value_vars(v)}
    return None if inner & read else Joined(len(whole), (Test(None, test),), moving, tail)


def joined_by_list(section: Section, products: Iterable[str]) -> Joined | None:
    """Return what tiles have in common of which a list says what tests each needs."""
    if section.resting is None or section.shares:
        return None
    tests, moving = leading_tests(section.work)
    same, resting = leading_tests(section.resting.body)
    made = {s.var.name for t in tests for s in t.work if isinstance(s, Let | Load)} - set(products)
    read = {n for s in (*moving, *resting) for v in values(s) for n in value_vars(v)}
    asked = all(t.condition is not None and value_vars(t.condition) for t in tests)
    if tests != same or not asked or made & read:
        return None
    # of blocks that a list names few are cut; of the tiles that a table names those are
    listed = bool(section.loop.tile)
    seldom = listed and not any(isinstance(s, Load) for t in tests for s in t.work)
    return Joined(0, tests, moving, resting, seldom)


def leading_tests(work: tuple[Statement, ...]) -> tuple[tuple[Test, ...], tuple[Statement, ...]]:
    """Return the tests with which the work on a tile begins, and the rest of it."""
    k = next((k for k, s in enumerate(work) if not isinstance(s, When)), len(work))
    tests = tuple(Test(s.condition, s.body) for s in work[:k] if isinstance(s, When))
    return tests, work[k:]
