"""Errors: one class per thing the reader does next, each with a place to look at.

::

    EinfallError
    ├── LocatedError (a SyntaxError, so Python underlines the characters)
    │   ├── NotationError    the text is not a cascade
    │   ├── RankError        ranks or tensors disagree: unknown, repeated, unbound, unused
    │   └── SparsityError    a filter contradicts the mathematics
    ├── ShapeError           the arguments do not fit the declaration
    ├── PassError            a pass was asked for and cannot apply
    ├── BackendError         this back end cannot do this (dtype, device, size)
    └── VerificationError    Einfall's own fault: a pass broke an invariant

``EinfallError`` is never caught inside Einfall: what is raised reaches the user.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """Where something stands in the user's text.

    Lines and columns count from 1, as ``SyntaxError`` does; ``end_column`` is one past the last
    character. ``text`` is the whole source line, kept so that a caret can be drawn later.
    """

    file: str
    line: int
    column: int
    end_line: int
    end_column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


NOWHERE = Location("<built>", 0, 0, 0, 0, "")
"""The location of what a pass wrote, for which no user's text exists."""


def underlined(at: Location) -> str:
    """Return the characters at a location as Python shows them, to stand below a message."""
    if at == NOWHERE:
        return ""
    text = at.text.lstrip()
    start = at.column - 1 - (len(at.text) - len(text))
    end = at.end_column if at.end_line == at.line else len(at.text) + 1
    marks = " " * start + "^" * max(1, min(end - at.column, len(text) - start))
    return f'\n  File "{at.file}", line {at.line}\n    {text}\n    {marks}'


class EinfallError(Exception):
    """Base of everything that Einfall raises on purpose."""


class LocatedError(EinfallError, SyntaxError):
    """An error that points at characters of the user's text.

    Parameters
    ----------
    message : one sentence, present tense, in the user's names: expectation, finding, remedy.
    at : where; ``NOWHERE`` gives an error without a caret.
    """

    def __init__(self, message: str, at: Location = NOWHERE) -> None:
        if at == NOWHERE:
            super().__init__(message)
        else:
            place = (at.file, at.line, at.column, at.text, at.end_line, at.end_column)
            super().__init__(message, place)
        self.at = at


class NotationError(LocatedError):
    """The text is not a cascade: change the characters under the caret."""


class RankError(LocatedError):
    """Ranks or tensors disagree: an unknown, repeated, unbound or unused name."""


class SparsityError(LocatedError):
    """A filter contradicts the mathematics, e.g. it constrains a rank that is not there."""


class ShapeError(EinfallError):
    """The arguments do not fit the declaration: sizes, number of ranks, dtypes, parameters."""


class PassError(EinfallError):
    """A pass was asked for by name and cannot apply; the message names the failed requirement."""


class BackendError(EinfallError):
    """A back end cannot do what is asked: a dtype, a device, a size or a construct."""


class VerificationError(EinfallError):
    """A pass broke an invariant of the IR. That is Einfall's fault, not the user's."""
