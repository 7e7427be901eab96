"""Print a value of a loop nest as an expression of Triton, with the fewest parentheses.

A tile of fewer axes than its place has gets the shape in which it broadcasts: ``x[:, None]``.
"""

from __future__ import annotations

from .loop_nest import (
    Cast,
    Index,
    Nest,
    Number,
    Op,
    Ref,
    Scalar,
    Value,
    nonnegative,
    value_axes,
)
from .triton_operators import FUNCTIONS, HELPERS, INFIX, number

GROUPED = ("+", "-", "*", "/", "//", "%")
"""Operators whose right operand keeps its parentheses."""

ATOM = 20
"""Precedence of what needs no parentheses."""


class Values:
    """What a text needs to know about a nest to name its values."""

    def __init__(self, nest: Nest) -> None:
        self.axes = {a.name: a for a in nest.axes}
        self.order = tuple(self.axes)
        self.sizes = dict(nest.sizes)
        self.helpers: dict[str, None] = {}

    def ordered(self, axes: frozenset[str]) -> tuple[str, ...]:
        """Axes in layout order."""
        return tuple(a for a in self.order if a in axes)

    def expand(self, text: str, own: tuple[str, ...], axes: tuple[str, ...]) -> str:
        """Give a value of fewer axes the shape in which it broadcasts."""
        if own == axes or not own:
            return text
        return f"{text}[{', '.join(':' if a in own else 'None' for a in axes)}]"

    def broadcast(self, value: Value, axes: tuple[str, ...], *, tight: bool = False) -> str:
        """Return a value's text, in the shape in which it broadcasts to ``axes``."""
        own = self.ordered(value_axes(value))
        text = self.value(value, own)
        if (own != axes and own) or tight:
            text = f"({text})" if self.loose(value) else text
        return self.expand(text, own, axes)

    def loose(self, value: Value) -> bool:
        """Whether a value's text needs parentheses before a subscript or a method."""
        return (
            isinstance(value, Op)
            and (value.operator in INFIX or value.operator in ("neg", "not", "**", "//", "%"))
            or isinstance(value, Number)
        )

    def spread(self, value: Value, axes: tuple[str, ...], dtype: str) -> str:
        """Return a value repeated over axes along which it does not vary."""
        shape = ", ".join(self.axes[a].constant or str(self.axes[a].width) for a in axes)
        if isinstance(value, Number):
            kind = dtype.replace("bool", "int1")
            if not axes:
                return f"tl.cast({number(value.value)}, tl.{kind})"
            if value.value == 0:
                return f"tl.zeros([{shape}], tl.{kind})"
            return f"tl.full([{shape}], {number(value.value)}, tl.{kind})"
        return f"tl.broadcast_to({self.broadcast(value, axes)}, [{shape}])"

    def value(self, value: Value, axes: tuple[str, ...]) -> str:
        """Return a value's text, for a place where axes ``axes`` are meant."""
        return self.term(value, axes)[0]

    def term(self, value: Value, axes: tuple[str, ...]) -> tuple[str, int]:
        """Return a value's text and its precedence."""
        match value:
            case Number(value=n):
                return number(n), ATOM if n >= 0 else 7
            case Scalar(name=name):
                known = name.startswith("size(")
                return (self.sizes[name[5:-1]] if known else name), ATOM
            case Ref(var=var):
                return self.expand(var.name, var.axes, axes), ATOM
            case Index(axis=name, clamped=clamped):
                own = self.axes[name]
                if value.row:
                    return self.expand(f"{own.rank}_row", (name,), axes), ATOM
                text = f"({own.rank}_first + {own.rank}_safe)" if clamped and own.first else name
                return self.expand(text, (name,), axes), ATOM
            case Cast(value=inner, dtype=dtype) if not value_axes(inner):
                # an argument that is 1 becomes a constant, which has no methods
                return f"tl.cast({self.value(inner, ())}, tl.{dtype})", ATOM
            case Cast(value=inner, dtype=dtype):
                text = self.broadcast(inner, axes, tight=True)
                return f"{text}.to(tl.{dtype})", ATOM
            case Op():
                return self.operation(value, axes)

    def operation(self, op: Op, axes: tuple[str, ...]) -> tuple[str, int]:
        """Return the text of an operator on operands brought to one shape."""
        own = self.ordered(value_axes(op))
        if own != axes:
            text, level = self.operation(op, own)
            if not own:
                return text, level
            return self.expand(text if level == ATOM else f"({text})", own, axes), ATOM
        name, operands = op.operator, op.operands
        if name in ("//", "%") and not all(nonnegative(x) for x in operands):
            name = {"//": "floor_divide", "%": "floor_modulo"}[name]
        if name == "**" and operands[1] in (Number(2), Number(3), Number(4)):
            text, _ = self.bracketed(operands[0], own, 7)
            return " * ".join([text] * int(operands[1].value)), 6
        if name in INFIX:
            symbol, level = INFIX[name]
            parts = [
                # what was grouped stays grouped: scalars are joined before they meet a tile
                self.bracketed(x, own, level + (1 if k and name in GROUPED else 0))[0]
                for k, x in enumerate(operands)
            ]
            return f" {symbol} ".join(parts), level
        if name == "<<":
            left, right = (self.bracketed(x, own, ATOM)[0] for x in operands)
            return f"({left} << {right})", ATOM
        if name == "neg":
            return f"-{self.bracketed(operands[0], own, 8)[0]}", 7
        if name == "not":
            return f"~{self.bracketed(operands[0], own, ATOM)[0]}", 7
        texts = [self.term(x, own)[0] for x in operands]
        if name in ("min", "max"):
            function = {"min": "tl.minimum", "max": "tl.maximum"}[name]
            text = texts[0]
            for x in texts[1:]:
                text = f"{function}({text}, {x})"
            return text, ATOM
        function = self.function(name, own)
        if function in HELPERS:
            self.helpers.setdefault(function)
        return f"{function}({', '.join(texts)})", ATOM

    def function(self, operator: str, axes: tuple[str, ...]) -> str:
        """Return the name of the function that computes an operator of a tile over these axes."""
        return FUNCTIONS[operator]

    def bracketed(self, value: Value, axes: tuple[str, ...], level: int) -> tuple[str, int]:
        """Return a value's text, in parentheses if it binds looser than ``level``."""
        text, own = self.term(value, axes)
        return (f"({text})", ATOM) if own < level else (text, own)
