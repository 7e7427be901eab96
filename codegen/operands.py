"""What operands of products are, and statements as they are compared."""

from __future__ import annotations

from dataclasses import replace

from .loop_nest import Cast, Comment, Load, Ref, Statement, Value, Var

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
