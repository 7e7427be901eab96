"""Break long lines of generated Python the way a formatter would, so that formatting is a no-op.

The rules are those of ``ruff format`` for the statements that a kernel has: assignments of names,
calls, and headers of loops. Text stays text; all that is asked of it is where its brackets are and
which operators stand outside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

WIDTH = 100
_OPEN, _CLOSE = "([{", ")]}"

OPERATORS: tuple[tuple[str, ...], ...] = (
    ("<", "<=", ">", ">=", "==", "!="),
    ("|",),
    ("&",),
    ("<<", ">>"),
    ("+", "-"),
    ("*", "/", "//", "%"),
)
"""The infix operators of generated text, loosest first."""


def lay_out(line: str) -> list[str]:
    """Break one logical line (its indent included) into physical lines of at most ``WIDTH``.

    An assigned value that has no operator is broken inside its brackets. So is one with a single
    loosest operator that begins with a bracket or ends with a call; any other is put in
    parentheses, one operand a line. Inside brackets a value is broken before its loosest operators.
    """
    if len(line) <= WIDTH or line.lstrip().startswith("#"):
        return [line]
    text = line.strip()
    indent = line[: len(line) - len(line.lstrip())]
    head, tail = "", ""
    if text.startswith("for ") and text.endswith(":"):
        at = text.index(" in ") + len(" in ")
        head, text, tail = text[:at], text[at:-1], ":"
    elif (at := _flat(text).find(" = ")) >= 0:
        head, text = text[: at + 3], text[at + 3 :]
    operands = _operands(text)
    if len(operands) > 1:
        bracketed = text[0] in _OPEN or text[-1] == ")"
        if len(operands) > 2 or not bracketed or not _hugs(indent, head, text):
            lines = _element(indent + "    ", text, "")
            return [f"{indent}{head}(", *lines, f"{indent}){tail}"]
    return _chain(indent, head, text, tail)


def comment(text: str, width: int) -> Iterator[str]:
    """Fold a comment's text at spaces."""
    line = ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = "   "
        line = f"{line} {word}" if line else word
    yield line


def folded(line: str) -> Iterator[str]:
    """Fold a line of a docstring, keeping its indent."""
    text = line.lstrip()
    indent = line[: len(line) - len(text)]
    yield from (indent + x for x in comment(text, WIDTH - len(indent)))


def needed(lines: list[str], header: int) -> list[str]:
    """Drop those of the first ``header`` lines that define what nothing reads."""
    kept = lines[header:]
    for line in reversed(lines[:header]):
        name, equals, _ = line.strip().partition(" = ")
        code = (x for x in kept if not x.lstrip().startswith("#"))
        if not equals or any(re.search(rf"\b{name}\b", x) for x in code):
            kept.insert(0, line)
    return kept


def _chain(indent: str, head: str, text: str, tail: str) -> list[str]:
    """Open those brackets, left to right, without which the line would be too long."""
    lines, line, at = [], indent + head, 0
    groups = _groups(text)
    for k, (begin, end) in enumerate(groups):
        line += text[at : begin + 1]
        following = groups[k + 1][0] + 1 if k + 1 < len(groups) else len(text + tail)
        if len(line) + following - begin - 1 <= WIDTH:
            line += text[begin + 1 : end + 1]
        else:
            listed = begin > 0 and (text[begin - 1].isalnum() or text[begin - 1] in "_)]")
            lines += [line, *_inside(indent + "    ", text[begin + 1 : end], listed)]
            line = indent + text[end]
        at = end + 1
    return [*lines, line + text[at:] + tail]


def _inside(indent: str, text: str, listed: bool) -> list[str]:
    """Lay out what stands in brackets: in one line if it fits, else one part a line."""
    if len(indent + text) <= WIDTH:
        return [indent + text]
    parts = _split(text) if listed else [text]
    if len(parts) == 1:
        return _element(indent, text, "")
    return [x for part in parts for x in _element(indent, part, ",")]


def _element(indent: str, text: str, tail: str) -> list[str]:
    """Lay out an argument or an operand: operators begin lines, then brackets open."""
    if len(indent + text + tail) <= WIDTH:
        return [indent + text + tail]
    operands = _operands(text)
    if len(operands) > 1:
        *first, last = operands
        lines = [x for o in first for x in _element(indent, o, "")]
        return [*lines, *_element(indent, last, tail)]
    return _chain(indent, "", text, tail)


def _hugs(indent: str, head: str, text: str) -> bool:
    """Say whether a value's lines fit once all its brackets are open."""
    bounds = [0, *(k + d for group in _groups(text) for k, d in zip(group, (1, 0), strict=True))]
    bounds.append(len(text))
    first, *rest = (text[a:b] for a, b in zip(bounds[::2], bounds[1::2], strict=True))
    return all(len(indent + x) <= WIDTH for x in (head + first, *rest))


def _groups(text: str) -> list[tuple[int, int]]:
    """Where the outermost brackets open and close that hold something."""
    depth, begin, found = 0, 0, []
    for k, c in enumerate(text):
        if c in _OPEN:
            depth += 1
            if depth == 1:
                begin = k
        elif c in _CLOSE:
            depth -= 1
            if depth == 0 and k > begin + 1:
                found.append((begin, k))
    return found


def _flat(text: str) -> str:
    """Blank out what stands in brackets."""
    flat = list(text)
    for begin, end in _groups(text):
        flat[begin : end + 1] = "_" * (end + 1 - begin)
    return "".join(flat)


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets."""
    flat, parts, begin = _flat(text), [], 0
    for k, c in enumerate(flat):
        if c == ",":
            parts.append(text[begin:k].strip())
            begin = k + 1
    return [*parts, text[begin:].strip()] if text[begin:].strip() else parts


def _operands(text: str) -> list[str]:
    """Split an expression before its loosest operators; a sign belongs to its operand."""
    flat = _flat(text)
    for operators in OPERATORS:
        marks = {k + 1 for op in operators for k in _places(flat, f" {op} ")}
        # an operator at the beginning is what this operand was split at
        bounds = [0, *sorted(marks), len(text)]
        if marks:
            return [text[a:b].strip() for a, b in zip(bounds, bounds[1:], strict=False)]
    return [text]


def _places(text: str, part: str) -> list[int]:
    """Where a part begins in a text."""
    found, k = [], text.find(part)
    while k >= 0:
        found.append(k)
        k = text.find(part, k + 1)
    return found
