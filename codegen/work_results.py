"""What the work on a tile hands back: operands and factors of late products, by place."""

from __future__ import annotations

from .schedule import Schedule, Section


def positions(plan: Schedule) -> list[int]:
    """Return which operands and factors of late products the work hands back, each once."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for k in range(2 * len(plan.late)):
        names = tuple(own_name(s, k) for s in plan.sections)
        if "" not in names and names not in seen:
            seen.add(names)
            found.append(k)
    return found


def own_name(section: Section, k: int) -> str:
    """Return the k-th operand or factor of a section's late products, "" if there is none."""
    late = section.late[k // 2]
    if k % 2 == 0:
        return late.operand.name
    return "" if late.factor is None else late.factor.name
