"""Spare places: where walks are short, the next rows' operands are there when these rows end.

What stands between two walks counts where a walk has few tiles. So operands that stay have two
places, one for every other tile of rows, and nobody waits for them. Accumulators are not set to
their identities: that their first product begins them is one bit of it::

    O = 0;  O += P V;  O += P V    -->    O = P V;  O += P V
"""

from __future__ import annotations

from .gluon_told import Told
from .loop_nest import Let, Nest, Number
from .schedule import Schedule


def spare(nest: Nest, plan: Schedule, told: Told) -> bool:
    """Whether a kernel's operands have spare places, and its products begin accumulators."""
    assert nest.crew is not None
    wanted = nest.crew.spare and nest.crew.persistent and plan.joined is not None
    if not wanted or told.rows or any(s.place for s in plan.sections):
        return False
    accumulators = [x.accumulator.name for x in plan.late]
    zero = {s.var.name for s in begun_late(plan) if s.value == Number(0.0)}
    fetched = all(h.load is not None for h in plan.held)
    return fetched and len(set(accumulators)) == len(accumulators) and zero == set(accumulators)


def begun_late(plan: Schedule) -> tuple[Let, ...]:
    """Return what sets accumulators of late products to their identities."""
    names = {x.accumulator.name for x in plan.late}
    return tuple(s for s in plan.setup if isinstance(s, Let) and s.var.name in names)


def place(consumer: str) -> str:
    """Return which place the rows of a consumer have."""
    return f"turn % 2 * CONSUMERS + {consumer}"


PARITY = "turn // 2 & 1"
"""The parity of the barriers of such a place."""
