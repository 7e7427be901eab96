"""Trace a mask function of other libraries into a filter of the notation.

``mask_mod(b, h, q, kv)``, as FlexAttention and transformers call it, is run once on symbols. What
it does with them, comparisons, ``& | ~``, arithmetic, ``torch.where`` and the like, and reading
tensors that it captured, becomes an expression; its tensors become inputs, under their names where
these can be found.

::

    def mask_mod(b, h, q, kv):
        return (q >= kv) & (doc[b, q] == doc[b, kv])
    -->
    p >= m and doc[b, p] == doc[b, m]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import getclosurevars
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..ir.errors import BackendError
from ..ir.expression import Access, Apply, Constant, Expression, RankVariable
from ..ir.show import show_expression

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%",
    "pow": "**", "and": "and", "or": "or",
}  # fmt: skip
"""Python's operators on symbols that have the same name on either side."""

COMPARED = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}

FUNCTIONS: dict[Any, tuple[str, int]] = {
    torch.where: ("where", 3),
    torch.abs: ("abs", 1),
    torch.minimum: ("min", 2),
    torch.maximum: ("max", 2),
    torch.logical_and: ("and", 2),
    torch.logical_or: ("or", 2),
    torch.logical_not: ("not", 1),
}
"""torch's functions that a filter knows, with the number of their operands."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter and the tensors that it reads, by the names that it gives them."""

    expression: Expression
    tensors: tuple[tuple[str, torch.Tensor], ...]

    def __str__(self) -> str:
        return show_expression(self.expression)


class Symbol:
    """A number or truth value that is not known yet."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expression: Expression) -> None:
        self.expression = expression

    def __bool__(self) -> bool:
        raise BackendError(
            "a mask function that branches on its coordinates cannot be traced; write the choice "
            "with torch.where, & and |"
        )

    def __invert__(self) -> Symbol:
        return Symbol(Apply("not", (self.expression,)))

    def __neg__(self) -> Symbol:
        return Symbol(Apply("neg", (self.expression,)))

    def __abs__(self) -> Symbol:
        return Symbol(Apply("abs", (self.expression,)))

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Symbol:
        return apply(function, args)


def _operator(symbol: str, mirrored: bool = False) -> Callable[[Symbol, Any], Symbol]:
    def build(self: Symbol, other: Any) -> Symbol:
        pair = (self.expression, written(other))
        return Symbol(Apply(symbol, pair[::-1] if mirrored else pair))

    return build


for _name, _symbol in {**INFIX, **COMPARED}.items():
    setattr(Symbol, f"__{_name}__", _operator(_symbol))
for _name, _symbol in INFIX.items():
    setattr(Symbol, f"__r{_name}__", _operator(_symbol, mirrored=True))


def written(value: Any) -> Expression:
    """Return what a symbol, a number or a tensor of one number is in the notation."""
    match value:
        case Symbol():
            return value.expression
        case bool() | int() | float():
            return Constant(value)
        case torch.Tensor() if value.dim() == 0:
            return Constant(value.item())
        case _:
            raise BackendError(
                f"a mask function combines a coordinate with {type(value).__name__}, which no "
                "filter can say; read tensors at coordinates, as in doc[b, q]"
            )


def apply(function: Any, args: tuple[Any, ...]) -> Symbol:
    """Return what one of torch's functions does to symbols."""
    known = FUNCTIONS.get(function)
    if known is None or len(args) != known[1]:
        name = getattr(function, "__name__", str(function))
        raise BackendError(
            f"a mask function calls {name}, which no filter can say; filters know comparisons, "
            "arithmetic, & | ~, where, abs, minimum, maximum and reading tensors at coordinates"
        )
    return Symbol(Apply(known[0], tuple(map(written, args))))


class _Reading(TorchFunctionMode):
    """Takes reads of captured tensors at symbols for accesses."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.tensors: dict[int, tuple[str, torch.Tensor]] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is not torch.Tensor.__getitem__:
            return function(*args, **(kwargs or {}))
        tensor, index = args
        at = index if isinstance(index, tuple) else (index,)
        if not any(isinstance(x, Symbol) for x in at):
            return function(*args, **(kwargs or {}))
        if len(at) != tensor.dim():
            raise BackendError(
                f"a mask function reads a tensor of {tensor.dim()} ranks at {len(at)} coordinates; "
                "give one for each"
            )
        wish = self.names.get(id(tensor), f"captured_{len(self.tensors) + 1}")
        name, _ = self.tensors.setdefault(id(tensor), (wish, tensor))
        return Symbol(Access(name, tuple(map(written, at))))


def trace_filter(
    mask_mod: Callable[..., Any], ranks: tuple[str, str, str, str] = ("b", "h", "p", "m")
) -> Filter:
    """Return the filter that a mask function is.

    ``ranks`` name batch, head, query and key in the filter. Tensors that the function reads keep
    the names of the variables that it finds them by; others are ``captured_1`` and so on.

    Raises
    ------
    BackendError : the function does something that no filter can say.
    """
    reading = _Reading(variables(mask_mod, ranks))
    with reading:
        found = mask_mod(*(Symbol(RankVariable(r)) for r in ranks))
    return Filter(written(found), tuple(reading.tensors.values()))


def block_filter(
    block_mask: Any, ranks: tuple[str, str, str, str] = ("b", "h", "p", "m"), name: str = "Keep"
) -> Filter:
    """Return the filter that FlexAttention's ``BlockMask`` is: its blocks, and its mask function.

    The blocks become a boolean tensor ``name``, one element for each block, read at the numbers of
    a point's blocks; full blocks and partial ones are told apart by the function alone, as the
    class promises.

    Raises
    ------
    BackendError : the mask function does something that no filter can say.
    """
    from torch.nn.attention.flex_attention import noop_mask

    kept = block_mask.to_dense() != 0
    b, h, p, m = ranks
    places: list[Expression] = [
        RankVariable(r) if n > 1 else Constant(0)
        for r, n in zip((b, h), kept.shape[:2], strict=True)
    ]
    for rank, width in zip((p, m), block_mask.BLOCK_SIZE, strict=True):
        places.append(Apply("//", (RankVariable(rank), Constant(width))))
    blocks: Expression = Access(name, tuple(places))
    if block_mask.mask_mod is noop_mask:
        return Filter(blocks, ((name, kept),))
    points = trace_filter(block_mask.mask_mod, ranks)
    both = Apply("and", (blocks, points.expression))
    return Filter(both, ((name, kept), *points.tensors))


def variables(function: Callable[..., Any], ranks: tuple[str, ...]) -> dict[int, str]:
    """Return the names of the tensors that a function finds outside itself, by identity."""
    try:
        outside = getclosurevars(function)
    except TypeError:  # an object that can be called
        return {}
    found = {**outside.globals, **outside.nonlocals}
    return {id(x): n for n, x in found.items() if isinstance(x, torch.Tensor) and n not in ranks}
