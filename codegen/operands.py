"""What operands of products are, and statements as they are compared."""

from __future__ import annotations

from dataclasses import replace

from .loop_nest import Cast, Comment, Fold, Load, Ref, Statement, Value, Var

NARROW = ("float16", "bfloat16")
"""Dtypes of which tensor cores multiply tiles that warps of different work share."""


def bare(value: Value) -> Var | None:
    """Return the variable that a value is, whatever its dtype; None if it is computed."""
    match value:
        case Ref(var=var) | Cast(value=Ref(var=var)):
            return var
        case _:
            return None


def dtype_of(value: Value) -> str:
    """Return the dtype of an operand."""
    match value:
        case Cast(dtype=dtype) | Ref(var=Var(dtype=dtype)):
            return dtype
        case _:
            return "float32"


def plain(items: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """Return statements without comments; a fetched tile counts without what guards it."""
    return tuple(
        replace(s, guard=None) if isinstance(s, Load) else s
        for s in items
        if not isinstance(s, Comment)
    )


def tidy(work: list[Statement]) -> tuple[Statement, ...]:
    """Drop comments that no statement follows."""
    kept = [
        s
        for s, following in zip(work, [*work[1:], None], strict=True)
        if not (isinstance(s, Comment) and (following is None or isinstance(following, Comment)))
    ]
    return tuple(kept)


def of_every_row(fold: Fold, setup: tuple[Statement, ...], rows: str) -> Load | None:
    """Return what a reduction over all rows of a tile loads, if that is all it takes.

    Then every group of warps can make it alone, though each has its share of the rows only.
    """
    loads = {s.var.name: s for s in setup if isinstance(s, Load)}
    match fold.value:
        case Ref(var=var) if fold in setup and var.name in loads:
            load = loads[var.name]
            alone = load.guard is None and load.var.axes == (rows,)
            return load if alone and fold.reducer in ("min", "max") else None
        case _:
            return None
