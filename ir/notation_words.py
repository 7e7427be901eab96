"""The words of the notation: which names it keeps for itself, and what a function takes."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from .errors import Location, NotationError
from .operators import OPERATORS, REDUCERS, SELECTORS

FUNCTIONS = tuple(name for name, x in OPERATORS.items() if not x.symbol)
"""The operators that are written as a call."""

RESERVED = frozenset((*FUNCTIONS, *REDUCERS, *SELECTORS, "concat", "size", "inf"))
"""Names that the notation keeps for itself: no tensor, rank or parameter has one."""


def check_name(name: str, at: Location) -> None:
    """Raise NotationError if the notation keeps the name for itself."""
    if name in RESERVED:
        raise NotationError(
            f"{name!r} is a word of the notation; a tensor, rank or parameter has another name.", at
        )


def check_arity(name: str, given: int, at: Location) -> None:
    """Raise NotationError unless the operator takes that many operands."""
    arity = OPERATORS[name].arity
    if arity is None and given < 2:
        reduction = f"; a reduction is written {name}[m](...)" if name in REDUCERS else ""
        raise NotationError(f"{name} takes two operands or more; {given} given{reduction}.", at)
    if arity is not None and given != arity:
        plural = "" if arity == 1 else "s"
        raise NotationError(f"{name} takes {arity} operand{plural}; {given} given.", at)


def suggestion(name: str, candidates: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the candidate that is most like the name, else ''."""
    close = get_close_matches(name, list(candidates), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
