"""Source text with its places: from a string, a file or a function to Python's syntax tree.

Whatever it came from, lines and columns are the user's: of the string, of the file, or of the file
in which the function stands. Columns count characters, from 1.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import Location, NotationError

_TEXT = "<cascade>"


@dataclass(frozen=True, slots=True)
class Source:
    """Lines of text, ``first`` being the number of the first of them in ``file``.

    ``wrapped``: the text is indented and was parsed under one more line of its own above it.
    """

    file: str
    lines: tuple[str, ...]
    first: int = 1
    wrapped: bool = False

    def at(self, node: ast.stmt | ast.expr | ast.arg | ast.keyword) -> Location:
        """Return where a node of the tree stands in the user's text."""
        end_line = node.end_lineno or node.lineno
        end = node.end_col_offset if node.end_col_offset is not None else node.col_offset
        return self._location(
            node.lineno,
            self._column(node.lineno, node.col_offset),
            end_line,
            self._column(end_line, end),
        )

    def fault(self, error: SyntaxError) -> NotationError:
        """Return Python's complaint about the text, at the user's line and column."""
        line = error.lineno or 1
        column = max(error.offset or 1, 1)
        end_line = error.end_lineno or line
        end = error.end_offset or 0
        if end_line == line and end <= column:
            end = column + 1
        return NotationError(
            f"The notation is a part of Python's grammar, and this is not Python: {error.msg}.",
            self._location(line, column, end_line, end),
        )

    def _location(self, line: int, column: int, end_line: int, end_column: int) -> Location:
        shift = self.first - (2 if self.wrapped else 1)
        text = self._line(line)
        return Location(self.file, line + shift, column, end_line + shift, end_column, text)

    def _line(self, line: int) -> str:
        index = line - (2 if self.wrapped else 1)
        return self.lines[index] if 0 <= index < len(self.lines) else ""

    def _column(self, line: int, byte: int) -> int:
        return len(self._line(line).encode()[:byte].decode(errors="ignore")) + 1


def parse_text(text: str, file: str = _TEXT, first: int = 1) -> tuple[Source, list[ast.stmt]]:
    """Return the text's places and its statements. Raises NotationError where it is not Python."""
    # Python ends lines at these characters only; str.splitlines knows more.
    lines = tuple(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
    code = next((x for x in lines if x.strip() and not x.lstrip().startswith("#")), "")
    wrapped = code[:1].isspace()
    source = Source(file, lines, first, wrapped)
    try:
        tree = ast.parse("if True:\n" + text if wrapped else text, file)
    except SyntaxError as error:
        raise source.fault(error) from None
    except ValueError as error:  # null characters, before Python 3.12
        raise NotationError(f"The notation is text; this is not: {error}.") from None
    if not wrapped:
        return source, tree.body
    # Text that ends its own indentation leaves statements beside the line above it.
    if len(tree.body) > 1:
        raise NotationError(
            "All lines of a cascade start at the same column; this one starts further left.",
            source.at(tree.body[1]),
        )
    block = tree.body[0]
    assert isinstance(block, ast.If)
    return source, block.body


def parse_file(path: str | os.PathLike[str]) -> tuple[Source, list[ast.stmt]]:
    """Return the places and statements of a file. Raises NotationError where it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise NotationError(
            f"A path names a file with a cascade; {os.fspath(path)!r} cannot be read: {reason}."
        ) from None
    return parse_text(text, os.fspath(path))


def parse_function(function: Callable[..., object]) -> tuple[Source, list[ast.stmt]]:
    """Return the places and statements of a Python function's source; it is never executed.

    Raises NotationError for a function without source, or that is no ``def``.
    """
    name = getattr(function, "__qualname__", repr(function))
    try:
        lines, first = inspect.getsourcelines(function)
        file = inspect.getsourcefile(function) or _TEXT
    except (OSError, TypeError):
        raise NotationError(
            f"A cascade is read from the source of a function, and {name} has none that can be "
            "read; give the notation as text."
        ) from None
    source, statements = parse_text("".join(lines), file, max(first, 1))
    if len(statements) != 1 or not isinstance(statements[0], ast.FunctionDef):
        raise NotationError(
            f"A cascade is written as a def; {name} is something else.", source.at(statements[0])
        )
    return source, statements
