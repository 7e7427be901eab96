"""Frames that lag behind, where a tile is finished before the next begins.

Results are the same in any frame (``passes/resting.py``), so one moves only where it is far behind,
by a factor of 256 or more::

    g' = max(g, t);  r = exp2(k g - k g')
    -->
    g' = max(g, t);  r' = exp2(k g - k g');  far = r' < 1/256
    g' = where(far, g', g);  r = where(far, r', 1)

and accumulators are carried along only by warps in which one did.
"""

from __future__ import annotations

from dataclasses import replace

from .loop_nest import Let, Number, Op, Ref, Statement, Var, value_vars
from .schedule import Section

FAR = 1 / 256
"""The factor below which a frame is far behind: weights in half precision have room for that."""


def lag(section: Section) -> Section:
    """Return a section whose frames move only where they are far behind."""
    work = section.work
    for factor in dict.fromkeys(x.factor for x in section.late if x.factor is not None):
        work = lagging(work, factor)
    return replace(section, work=work)


def lagging(work: tuple[Statement, ...], factor: Var) -> tuple[Statement, ...]:
    """Let the frame lag of which a factor tells how far it moves; as it was if there is none."""
    power = next((s.value for s in work if isinstance(s, Let) and s.var == factor), None)
    read = frozenset() if power is None else value_vars(power)
    moved = []
    for s in work:
        match s:
            case Let(var=new, value=Op("max", (Ref(var=old), Ref()))):
                if {new.name, old.name} == read:
                    moved.append((new, old))
    if not moved or not isinstance(power, Op) or power.operator != "exp2":
        return work
    ((new, old),) = moved
    seen, far = Var(f"{factor.name}_seen", factor.axes), Var(f"{new.name}_far", new.axes, "bool")
    found: list[Statement] = []
    for s in work:
        if isinstance(s, Let) and s.var == factor:
            s = Let(factor, Op("where", (Ref(far), Ref(seen), Number(1.0))))
        found.append(s)
        if isinstance(s, Let) and s.var == new:
            found.append(Let(seen, power))
            found.append(Let(far, Op("<", (Ref(seen), Number(FAR)))))
            found.append(Let(new, Op("where", (Ref(far), Ref(new), Ref(old)))))
    return tuple(found)
