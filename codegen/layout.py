"""Break long lines of generated Python the way a formatter would, so that formatting is a no-op."""

from __future__ import annotations

WIDTH = 100
_OPEN, _CLOSE = "([{", ")]}"


def lay_out(line: str) -> list[str]:
    """Break one logical line (its indent included) into physical lines of at most ``WIDTH``.

    Breaks inside the last bracket pair that ends the line, else in added parentheses before the
    loosest operators; one argument a line, with a trailing comma, where all do not fit in one.
    """
    if len(line) <= WIDTH or line.lstrip().startswith("#"):
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    text = line.strip()
    tail = text[-1] if text[-1] in ":," else ""
    body = text.removesuffix(tail) if tail else text
    start = _last_bracket(body)
    if start is not None and start > 0:
        head, inside, end = body[: start + 1], body[start + 1 : -1], body[-1]
        return [indent + head, *_inside(inside, indent + "    "), indent + end + tail]
    name, equals, value = _assignment(body)
    if tail == ",":
        *first, last = _operands(body)
        return [*(indent + p for p in first), f"{indent}{last},"]
    if equals:
        inner = indent + "    "
        parts = _operands(value)
        lines = [inner + p for p in parts]
        if len(lines) > 1:
            return [f"{indent}{name} = (", *(x for p in lines for x in lay_out(p)), f"{indent})"]
    return [line]


def _inside(text: str, indent: str) -> list[str]:
    if len(indent + text) <= WIDTH:
        return [indent + text]
    parts = _split(text, ",")
    if len(parts) > 1:
        return [x for p in parts for x in lay_out(f"{indent}{p.strip()},")]
    return [indent + p for p in _operands(text)]


def _last_bracket(text: str) -> int | None:
    """Where the bracket opens that closes at the very end of the text."""
    if not text or text[-1] not in _CLOSE:
        return None
    depth = 0
    for k in range(len(text) - 1, -1, -1):
        if text[k] in _CLOSE:
            depth += 1
        elif text[k] in _OPEN:
            depth -= 1
            if depth == 0:
                before = text[:k]
                loose = any(f" {op} " in _flat(before.partition(" = ")[2]) for op in "+-*/&|")
                return None if loose else k
    return None


def _flat(text: str) -> str:
    """Return the text with everything in brackets left out."""
    depth, kept = 0, []
    for c in text:
        depth += (c in _OPEN) - (c in _CLOSE)
        kept.append(c if depth == 0 else "_")
    return "".join(kept)


def _assignment(text: str) -> tuple[str, str, str]:
    flat = _flat(text)
    k = flat.find(" = ")
    return (text[:k], "=", text[k + 3 :]) if k >= 0 else (text, "", "")


def _split(text: str, separator: str) -> list[str]:
    """Split at separators outside brackets."""
    flat, parts, begin = _flat(text), [], 0
    for k, c in enumerate(flat):
        if c == separator:
            parts.append(text[begin:k])
            begin = k + 1
    last = text[begin:]
    return [*parts, last] if last.strip() else parts


def _operands(text: str) -> list[str]:
    """Split an expression before its loosest operators."""
    flat = _flat(text)
    for operators in (("|",), ("&",), ("+", "-"), ("*", "/", "//", "%")):
        marks = [k for op in operators for k in range(len(flat)) if flat.startswith(f" {op} ", k)]
        if marks:
            bounds = [0, *sorted(m + 1 for m in marks), len(text)]
            return [text[a:b].strip() for a, b in zip(bounds, bounds[1:], strict=False)]
    return [text]
