"""Reading expressions: from Python's syntax tree to the nodes of ``expression.py``.

The grammar of the notation, in Python's own:

::

    name                    a rank's coordinate, a parameter, or a tensor of no ranks
    T[x, y]                 a tensor at coordinates; T[()] one of no ranks
    x + y, -x, x ** y       - * / // % too
    x < y <= z              a chain is the conjunction of its links; == != > >= too
    x in T[y], x not in     membership in a list-valued tensor
    and, or, not            true where ...
    x if c else y           where(c, x, y)
    exp(x), max(x, y)       a function
    max[m, c](x)            a reduction; max[m: m <= p](x) over the points that the filter keeps
    topk[m, k](x)           a selection; concat[n](x, y) a concatenation; whole right sides only
    size(m)                 the size of a rank
    inf, True, False, 1.5   numbers

What a name means depends on where the text stands, in a cascade or in the body of a shorthand, so
``read`` asks a ``Names`` for it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from math import inf
from typing import NoReturn, Protocol

from .errors import Location, NotationError
from .expression import Access, Apply, Concatenate, Constant, Expression, Populate, Reduce
from .notation_words import FUNCTIONS, RESERVED, check_arity, suggestion
from .operators import REDUCERS, SELECTORS

_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
_COMPARISON: dict[type[ast.AST], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.In: "in",
}
_REMEDY: dict[type[ast.AST], str] = {
    ast.BitAnd: "'&' is no operator of the notation; conditions are joined with 'and'.",
    ast.BitOr: "'|' is no operator of the notation; conditions are joined with 'or'.",
    ast.BitXor: "'^' is no operator of the notation; a power is written '**'.",
    ast.MatMult: "'@' is no operator of the notation; write the product with its ranks, "
    "A[p, m] * V[m, f].",
    ast.LShift: "'<<' is no operator of the notation; write x * 2 ** n.",
    ast.RShift: "'>>' is no operator of the notation; write x // 2 ** n.",
    ast.Is: "'is' is no operator of the notation; numbers are compared with '=='.",
    ast.IsNot: "'is not' is no operator of the notation; numbers are compared with '!='.",
    ast.Invert: "'~' is no operator of the notation; a condition is turned with 'not'.",
}
_STRANGE: dict[type[ast.AST], str] = {
    ast.Attribute: "A name has no dots",
    ast.Lambda: "A lambda is no expression of the notation",
    ast.ListComp: "A list is no expression of the notation",
    ast.List: "A list is no expression of the notation",
    ast.Dict: "A dict is no expression of the notation",
    ast.Set: "A set is no expression of the notation",
    ast.Tuple: "One value stands here; a tuple was given",
    ast.JoinedStr: "Text is no expression of the notation",
    ast.Starred: "A star stands in the def only",
    ast.NamedExpr: "A name is given by an einsum on a line of its own",
    ast.Slice: "A filter stands on the left of an einsum or in the brackets of a reduction",
}


class Names(Protocol):
    """What the names in a text mean."""

    def at(self, node: ast.expr | ast.stmt | ast.keyword) -> Location:
        """Return the place that errors and nodes point to."""
        ...

    def bare(self, node: ast.Name) -> Expression:
        """Return what a name without brackets stands for."""
        ...

    def access(self, node: ast.Subscript, tensor: str) -> Expression:
        """Return the tensor at the subscript's coordinates."""
        ...

    def ranks(self, node: ast.expr) -> tuple[str, ...]:
        """Return the ranks that a name in the brackets of a reduction stands for."""
        ...

    def size(self, node: ast.Name) -> Expression:
        """Return the size of the rank named."""
        ...

    def inside(self, ranks: tuple[str, ...], filters: tuple[ast.expr, ...]) -> Names:
        """Return what names mean in a reduction over ``ranks``."""
        ...

    def filtering(self) -> Names:
        """Return what names mean in a filter."""
        ...

    def shorthand(self, node: ast.Call, name: str, whole: bool) -> Expression | None:
        """Return what a shorthand's call expands to; None if there is no such shorthand."""
        ...

    def shorthands(self) -> Iterable[str]:
        """Return the names of the shorthands known, for suggestions."""
        ...


def read(node: ast.expr, names: Names, *, whole: bool = False) -> Expression:
    """Return the expression; ``whole`` says that it is the whole right side of an einsum.

    Raises NotationError for what the notation does not have.
    """
    at = names.at(node)
    match node:
        case ast.Constant(value=bool() | int() | float() as value):
            return Constant(value, at)
        case ast.Name(id="inf"):
            return Constant(inf, at)
        case ast.Name(id=name) if name in RESERVED:
            example = f"{name}[m](x)" if name in REDUCERS else f"{name}(...)"
            raise NotationError(f"{name!r} names a function, and no value: write {example}.", at)
        case ast.Name():
            return names.bare(node)
        case ast.Subscript(value=ast.Name(id=name)) if name in RESERVED:
            brackets = name in REDUCERS or name in SELECTORS or name == "concat"
            raise NotationError(
                f"What {name} works on stands in parentheses: "
                f"{ast.unparse(node) if brackets else name}(...).",
                at,
            )
        case ast.Subscript(value=ast.Name(id=name)):
            return names.access(node, name)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return read(operand, names)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = read(operand, names)
            # A minus that touches a number belongs to it: this alone tells -1 from -(1).
            touches = (operand.lineno, operand.col_offset) == (node.lineno, node.col_offset + 1)
            match inner:
                case Constant(value=int() | float() as value) if (
                    touches and not isinstance(value, bool) and _is_number(operand)
                ):
                    return Constant(-value, at)
            return Apply("neg", (inner,), at)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return Apply("not", (read(operand, names),), at)
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            return Apply(_BINARY[type(op)], (read(left, names), read(right, names)), at)
        case ast.BoolOp(op=op, values=values):
            operator = "and" if isinstance(op, ast.And) else "or"
            return Apply(operator, tuple(read(x, names) for x in values), at)
        case ast.Compare():
            return _comparison(node, names)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return Apply("where", tuple(read(x, names) for x in (test, body, orelse)), at)
        case ast.Call():
            return _call(node, names, whole)
        case _:
            _refuse(node, at)


def bracket(index: ast.expr) -> tuple[ast.expr, ...]:
    """Return what stands between the brackets of a subscript, one expression a comma."""
    return tuple(index.elts) if isinstance(index, ast.Tuple) else (index,)


def split_filter(node: ast.expr, names: Names) -> tuple[ast.expr, ast.expr | None]:
    """Return the coordinate and the filter of one element ``m: m <= p``."""
    match node:
        case ast.Slice(lower=ast.expr() as lower, upper=ast.expr() as upper, step=None):
            return lower, upper
        case ast.Slice(step=step):
            what = "a second colon" if step is not None else "one side of the colon only"
            raise NotationError(
                f"A filter is written 'm: m <= p', rank, colon, condition; {what} found.",
                names.at(node),
            )
        case _:
            return node, None


def read_filters(filters: Iterable[ast.expr], names: Names) -> Expression | None:
    """Return the conjunction of filters, None if there is none."""
    parts: list[Expression] = []
    nodes = list(filters)
    for node in nodes:
        part = read(node, names.filtering())
        # Several filters give one flat conjunction, which prints as one filter.
        flat = len(nodes) > 1 and isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And)
        parts += part.operands if flat and isinstance(part, Apply) else [part]
    if len(parts) < 2:
        return parts[0] if parts else None
    return Apply("and", tuple(parts), parts[0].at)


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and node.id == "inf")


def _comparison(node: ast.Compare, names: Names) -> Expression:
    at = names.at(node)
    values = [node.left, *node.comparators]
    read_values = [read(x, names) for x in values]
    links: list[Expression] = []
    for op, left, right in zip(node.ops, read_values, read_values[1:], strict=False):
        if isinstance(op, ast.NotIn):
            links.append(Apply("not", (Apply("in", (left, right), at),), at))
        elif type(op) in _COMPARISON:
            links.append(Apply(_COMPARISON[type(op)], (left, right), at))
        else:
            raise NotationError(_REMEDY[type(op)], at)
    return links[0] if len(links) == 1 else Apply("and", tuple(links), at)


def _refuse(node: ast.expr, at: Location) -> NoReturn:
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        raise NotationError(_REMEDY[type(node.op)], at)
    if isinstance(node, ast.Constant):
        raise NotationError(
            f"A value is a number, True, False or inf; {ast.unparse(node)} is none.", at
        )
    if isinstance(node, ast.Subscript):
        raise NotationError(
            f"A tensor is a name before its brackets; {ast.unparse(node.value)} is none.", at
        )
    said = _STRANGE.get(type(node), "This is no expression of the notation")
    raise NotationError(f"{said}: {ast.unparse(node)}.", at)


def _call(node: ast.Call, names: Names, whole: bool) -> Expression:
    match node.func:
        case ast.Name(id="size"):
            return _size(node, names)
        case ast.Name(id=name):
            return _function(node, name, names, whole)
        case ast.Subscript(value=ast.Name(id=name), slice=index):
            return _bracketed(node, name, bracket(index), names, whole)
        case _:
            raise NotationError(
                f"A function is a name; {ast.unparse(node.func)} is none.", names.at(node.func)
            )


def _size(node: ast.Call, names: Names) -> Expression:
    match node:
        case ast.Call(args=[ast.Name() as rank], keywords=[]):
            return names.size(rank)
        case _:
            raise NotationError("size takes the name of one rank: size(e).", names.at(node))


def _function(node: ast.Call, name: str, names: Names, whole: bool) -> Expression:
    at = names.at(node)
    if (expanded := names.shorthand(node, name, whole)) is not None:
        return expanded
    if name not in FUNCTIONS:
        if name in RESERVED:
            raise NotationError(
                f"{name} takes its rank in brackets: {name}[m](...).", names.at(node.func)
            )
        known = suggestion(name, (*FUNCTIONS, *names.shorthands()))
        hint = known or f"; functions are {', '.join(FUNCTIONS)}."
        raise NotationError(f"{name!r} is no function of the notation{hint}", names.at(node.func))
    operands = _positional(node, name, names)
    check_arity(name, len(operands), at)
    return Apply(name, tuple(read(x, names) for x in operands), at)


def _positional(node: ast.Call, name: str, names: Names) -> list[ast.expr]:
    if node.keywords:
        word = node.keywords[0].arg or "**"
        raise NotationError(f"{name} takes no {word}=.", names.at(node.keywords[0]))
    return node.args


def _bracketed(
    node: ast.Call, name: str, index: tuple[ast.expr, ...], names: Names, whole: bool
) -> Expression:
    at = names.at(node)
    if name in REDUCERS:
        return _reduction(node, name, index, names)
    if name in SELECTORS or name == "concat":
        if not whole:
            raise NotationError(
                f"{name}[...] is the whole right side of an einsum; here it stands inside an "
                "expression. Give it an einsum of its own.",
                at,
            )
        if name == "concat":
            return _concatenation(node, index, names)
        return _selection(node, name, index, names)
    if (expanded := names.shorthand(node, name, whole)) is not None:
        return expanded
    if name in RESERVED:
        raise NotationError(
            f"{name} works point by point and takes no rank: {name}(...).", names.at(node.func)
        )
    hint = suggestion(name, (*REDUCERS, *SELECTORS, "concat", *names.shorthands()))
    hint = hint or f"; reductions are {', '.join(REDUCERS)}."
    raise NotationError(f"{name!r} is no reduction of the notation{hint}", names.at(node.func))


def read_bracket(
    index: tuple[ast.expr, ...], names: Names
) -> tuple[tuple[str, ...], tuple[ast.expr, ...]]:
    """Return the ranks and the filters in the brackets of a reduction, ``[m, c: c <= p]``."""
    pairs = [split_filter(x, names) for x in index]
    ranks = tuple(rank for x, _ in pairs for rank in names.ranks(x))
    return ranks, tuple(x for _, x in pairs if x is not None)


def _one(node: ast.Call, name: str, names: Names) -> ast.expr:
    if len(node.args) != 1:
        raise NotationError(
            f"{name}[...] takes one expression; {len(node.args)} given.", names.at(node)
        )
    return node.args[0]


def _reduction(node: ast.Call, name: str, index: tuple[ast.expr, ...], names: Names) -> Expression:
    ranks, filters = read_bracket(index, names)
    if not ranks:
        raise NotationError(f"{name}[...] names a rank to reduce: {name}[m](...).", names.at(node))
    _positional(node, f"{name}[...]", names)
    body = _one(node, name, names)
    inner = names.inside(ranks, filters)
    return Reduce(name, ranks, read(body, inner), read_filters(filters, inner), names.at(node))


def _selection(node: ast.Call, name: str, index: tuple[ast.expr, ...], names: Names) -> Expression:
    at = names.at(node)
    argument = {"topk": "k", "threshold": "tau"}.get(name, "alpha")
    if len(index) != 2 or any(isinstance(x, ast.Slice) for x in index):
        raise NotationError(
            f"{name} takes a rank and a number in brackets: {name}[m, {argument}](...).",
            names.at(node.func),
        )
    ranks = names.ranks(index[0])
    if len(ranks) != 1:
        raise NotationError(f"{name} selects from one rank; {len(ranks)} given.", at)
    inner = names.inside(ranks, ())
    marks: dict[str, Expression] = {}
    ascending = False
    for keyword in node.keywords:
        if keyword.arg == "ascending":
            ascending = _truth(keyword.value, names)
            continue
        if keyword.arg not in ("forced", "forbidden"):
            raise NotationError(
                f"{name} takes forced=, forbidden= and ascending=; {keyword.arg or '**'} given.",
                names.at(keyword),
            )
        marks[keyword.arg] = read(keyword.value, inner.filtering())
    return Populate(
        name,
        ranks[0],
        read(index[1], names),
        read(_one(node, name, names), inner),
        marks.get("forced"),
        marks.get("forbidden"),
        ascending,
        at,
    )


def _truth(node: ast.expr, names: Names) -> bool:
    match node:
        case ast.Constant(value=bool(value)):
            return value
    raise NotationError("ascending is True or False.", names.at(node))


def _concatenation(node: ast.Call, index: tuple[ast.expr, ...], names: Names) -> Expression:
    at = names.at(node)
    ranks, filters = read_bracket(index, names)
    if len(ranks) != 1 or filters:
        raise NotationError("concat names the rank that it makes: concat[n](S, T).", at)
    parts = _positional(node, "concat[...]", names)
    if len(parts) < 2:
        raise NotationError(f"concat takes two tensors or more; {len(parts)} given.", at)
    return Concatenate(ranks[0], tuple(read(x, names) for x in parts), at)


def read_access(
    node: ast.Subscript,
    tensor: str,
    names: Names,
    rest: tuple[Expression, ...] | None = None,
    coordinate: Callable[[ast.expr], tuple[Expression, ...]] | None = None,
) -> Access:
    """Return a tensor at the coordinates in brackets; ``rest`` is what ``...`` stands for."""
    coordinates: list[Expression] = []
    for element in bracket(node.slice):
        match element:
            case ast.Constant(value=value) if value is ...:
                if rest is None:
                    raise NotationError(
                        "'...' stands for ranks in the definition of a shorthand only; "
                        "write the ranks.",
                        names.at(element),
                    )
                coordinates += rest
            case ast.Slice():
                raise NotationError(
                    "A filter stands on the left of an einsum; on the right write "
                    "sum[m: m <= p](...), or filter the einsum that writes the tensor.",
                    names.at(element),
                )
            case _ if coordinate is not None:
                coordinates += coordinate(element)
            case _:
                coordinates.append(read(element, names))
    return Access(tensor, tuple(coordinates), names.at(node))
