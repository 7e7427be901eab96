"""A filter as a mask function in torch: text that reads like one written by hand, and runs.

::

    m <= p and doc[b, p] == doc[b, m]
    -->
    def mask_mod(b, h, p, m):
        return (m <= p) & (doc[b, p] == doc[b, m])

A tensor that may be read outside its shape is read at the nearest coordinate inside, and a test
says that no point is there.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from ..ir.cascade import Scalar
from ..ir.errors import BackendError
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Size,
    walk,
)
from ..ir.operators import OPERATORS
from ..ir.show import show_number
from ..passes.align import holds, inside

NUMBER = count(1)
TORCH = ("exp", "exp2", "log", "log2", "sqrt", "rsqrt", "tanh", "sigmoid", "relu", "erf", "sin",
         "cos", "floor", "ceil")  # fmt: skip
JOINING = {"and": "&", "or": "|"}
BITS = 31


@dataclass(frozen=True, slots=True)
class MaskText:
    """Prints a filter of four ranks; sizes, parameters and shapes of tensors are known."""

    sizes: Mapping[str, int]
    parameters: Mapping[str, Scalar]
    shapes: Mapping[str, tuple[int, ...]]
    boolean: frozenset[str]

    def text(self, x: Expression) -> str:
        """Return an expression as torch has it."""
        match x:
            case Constant(value=value):
                return show_number(value) if abs(value) != float("inf") else f"float('{value}')"
            case Parameter(name=name):
                return show_number(self.parameters[name])
            case Size(rank=rank):
                return str(self.sizes[rank])
            case RankVariable(rank=rank):
                return rank
            case Access(tensor=tensor, coordinates=()):
                return tensor
            case Access(tensor=tensor):
                return f"{tensor}[{', '.join(self.places(x))}]"
            case Apply("in", (item, Access() as fiber)):
                lists = f"{fiber.tensor}[{', '.join(self.places(fiber))}]"
                return f"({lists} == {self.inner(item)}[..., None]).any(-1)"
            case Apply(operator=name, operands=operands):
                return self.apply(name, operands)
            case _:
                raise BackendError(f"no mask function can say {type(x).__name__}")

    def places(self, access: Access) -> list[str]:
        """Return the coordinates of a reading, kept inside the tensor."""
        found = []
        for k, c in enumerate(access.coordinates):
            text = self.text(c)
            if not self.sure(access, k) and not isinstance(c, Constant):
                text = f"torch.clamp({text}, 0, {self.shapes[access.tensor][k] - 1})"
            found.append(text)
        return found

    def sure(self, access: Access, position: int) -> bool:
        """Whether a coordinate lies inside, whatever the point."""
        extent = Constant(self.shapes[access.tensor][position])
        tests = inside(access.coordinates[position], extent)
        return all(holds(t, self.sizes, self.parameters) for t in tests)

    def inner(self, x: Expression) -> str:
        """Return an expression as an operand: in brackets unless it is one word."""
        match x:
            case Apply(operator=name) if OPERATORS[name].precedence and name != "in":
                return f"({self.text(x)})"
            case Constant(value=value) if value < 0:
                return f"({self.text(x)})"
            case _:
                return self.text(x)

    def truth(self, x: Expression) -> str:
        """Return a condition; what is no truth value by itself is compared with 0."""
        match x:
            case Access(tensor=tensor) if tensor not in self.boolean:
                return f"{self.text(x)} != 0"
            case _:
                return self.text(x)

    def joined(self, x: Expression) -> str:
        """Return a condition as an operand."""
        return f"({self.truth(x)})" if self.truth(x) != self.text(x) else self.inner(x)

    def apply(self, name: str, operands: tuple[Expression, ...]) -> str:
        """Return an operator on operands."""
        parts = [self.inner(x) for x in operands]
        moving = [any(isinstance(y, RankVariable | Access) for y in walk(x)) for x in operands]
        match name:
            case "and" | "or":
                return f" {JOINING[name]} ".join(map(self.joined, operands))
            case "not":
                return f"{'~' if moving[0] else 'not '}{self.joined(operands[0])}"
            case "neg":
                return f"-{parts[0]}"
            case "abs":
                return f"abs({self.text(operands[0])})"
            case "where" if moving[0]:
                return f"torch.where({', '.join(self.text(x) for x in operands)})"
            case "where":
                return f"{parts[1]} if {parts[0]} else {parts[2]}"
            case "min" | "max":
                return self.extreme(name, operands, moving)
            case "bit_length":
                inner = self.text(operands[0])
                return f"sum(abs({inner}) >= 2**k for k in range({BITS}))"
            case "/" | "//" | "%" if not isinstance(operands[1], Constant) and moving[1]:
                whole = f"torch.where({parts[1]} == 0, 1, {parts[1]})"
                return f"torch.where({parts[1]} == 0, 0, {parts[0]} {name} {whole})"
            case _ if name in TORCH:
                return f"torch.{name}({self.text(operands[0])})"
            case _ if OPERATORS[name].precedence:
                return f" {OPERATORS[name].symbol} ".join(parts)
            case _:
                raise BackendError(f"no mask function can say {name}")

    def extreme(self, name: str, operands: tuple[Expression, ...], moving: list[bool]) -> str:
        """Return the least or greatest of several, some of them plain numbers."""
        plain = [self.text(x) for x, m in zip(operands, moving, strict=True) if not m]
        tensors = [self.text(x) for x, m in zip(operands, moving, strict=True) if m]
        number = f"{name}({', '.join(plain)})" if len(plain) > 1 else "".join(plain)
        if not tensors:
            return number
        found = tensors[0]
        for other in tensors[1:]:
            found = f"torch.{name}imum({found}, {other})"
        end = {"min": "max", "max": "min"}[name]
        return f"torch.clamp({found}, {end}={number})" if plain else found


def mask_text(
    filter: Expression,
    ranks: tuple[str, str, str, str],
    *,
    sizes: Mapping[str, int],
    parameters: Mapping[str, Scalar],
    shapes: Mapping[str, tuple[int, ...]],
    boolean: frozenset[str],
) -> str:
    """Return the text of a mask function of four coordinates; ``boolean`` tensors hold truths."""
    body = MaskText(sizes, parameters, shapes, boolean).truth(filter)
    if not any(isinstance(x, RankVariable) for x in walk(filter)):
        body = f"{ranks[3]} >= 0 if {body} else {ranks[3]} < 0"
    return f"def mask_mod({', '.join(ranks)}):\n    return {body}\n"


def mask_function(text: str, tensors: Mapping[str, torch.Tensor]) -> Callable[..., Any]:
    """Return the function that a mask's text defines; Python can show its source."""
    file = f"<mask {next(NUMBER)} of einfall>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    scope: dict[str, Any] = {"torch": torch, **tensors}
    exec(compile(text, file, "exec"), scope)
    found: Callable[..., Any] = scope["mask_mod"]
    return found
