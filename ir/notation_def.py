"""Reading a ``def``: its arguments, its lines and what it returns, as Python's syntax tree.

::

    def name(Q, K, scale=1.0, *, W=1024):
        '''A docstring, comments and blank lines.'''
        S[p, m] = ...
        return S

Cascades and shorthands have this form in common; what the names in it mean differs.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from .cascade import Scalar
from .errors import Location, NotationError
from .notation_source import Source
from .notation_words import check_name

_STATEMENTS: dict[type[ast.AST], str] = {
    ast.AugAssign: "An einsum is written with '=', and a sum on the right; '{op}=' found.",
    ast.AnnAssign: "A filter stands inside the brackets, T[p, m: m <= p]; here it stands behind.",
    ast.For: "A cascade has no loops; a rank ranges by itself.",
    ast.While: "A cascade has no loops; a step is written H[i + 1] = ....",
    ast.If: "A cascade has no branches; write where(condition, x, y), or a filter.",
    ast.Import: "A cascade imports nothing.",
    ast.ImportFrom: "A cascade imports nothing.",
    ast.FunctionDef: "A shorthand is defined before the cascade, not inside.",
}


@dataclass(frozen=True, slots=True)
class Definition:
    """A ``def`` as written: ``arguments`` before the star, ``keywords`` after it.

    ``defaults`` has the arguments that are given one (None for ``=None``); ``unique`` names those
    that are declared so, ``Blocks: unique``. Other annotations are the reader's own.
    """

    name: str
    source: Source
    at: Location
    arguments: tuple[ast.arg, ...]
    keywords: tuple[ast.arg, ...]
    defaults: dict[str, Scalar | None]
    lines: tuple[ast.Assign, ...]
    returned: ast.Return | None

    @property
    def unique(self) -> tuple[str, ...]:
        """The arguments that are declared unique."""
        return tuple(
            x.arg
            for x in self.arguments
            if isinstance(x.annotation, ast.Name) and x.annotation.id == "unique"
        )


def read_definition(node: ast.FunctionDef, source: Source) -> Definition:
    """Return the parts of a ``def``. Raises NotationError for what the notation does not have."""
    every = node.args
    for extra in (every.vararg, every.kwarg):
        if extra is not None:
            raise NotationError(
                f"The arguments of {node.name} are listed one by one; *{extra.arg} stands for any.",
                source.at(extra),
            )
    arguments = (*every.posonlyargs, *every.args)
    defaults: dict[str, Scalar | None] = {}
    tail = arguments[len(arguments) - len(every.defaults) :]
    for argument, value in (
        *zip(tail, every.defaults, strict=True),
        *zip(every.kwonlyargs, every.kw_defaults, strict=True),
    ):
        if value is not None:
            defaults[argument.arg] = _default(argument.arg, value, source)
    for argument in (*arguments, *every.kwonlyargs):
        check_name(argument.arg, source.at(argument))
    lines, returned = read_lines(node.body, source)
    where = Location(
        source.file,
        source.at(node).line,
        source.at(node).column,
        source.at(node).line,
        len(source.at(node).text) + 1,
        source.at(node).text,
    )
    return Definition(
        node.name, source, where, arguments, tuple(every.kwonlyargs), defaults, lines, returned
    )


def read_lines(
    statements: Sequence[ast.stmt], source: Source
) -> tuple[tuple[ast.Assign, ...], ast.Return | None]:
    """Return the einsum lines and the ``return``, which stands last if there is one."""
    lines: list[ast.Assign] = []
    returned: ast.Return | None = None
    for number, statement in enumerate(statements):
        if returned is not None:
            raise NotationError(
                "return is the last line of a cascade; this line stands behind it.",
                source.at(statement),
            )
        match statement:
            case ast.Expr(value=ast.Constant(value=str())) if number == 0:
                pass
            case ast.Return():
                returned = statement
            case ast.Assign(targets=[ast.Name() | ast.Subscript(value=ast.Name())]):
                lines.append(statement)
            case _:
                _refuse(statement, source)
    return tuple(lines), returned


def _default(name: str, node: ast.expr, source: Source) -> Scalar | None:
    match node:
        case ast.Constant(value=bool() | int() | float() | None as value):
            return value
        case ast.Name(id="inf"):
            return inf
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
            return -inf
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if (
            not isinstance(value, bool)
        ):
            return -value
        case _:
            raise NotationError(
                f"The default of {name} is a number, True, False or inf; "
                f"{ast.unparse(node)} given.",
                source.at(node),
            )


def _refuse(statement: ast.stmt, source: Source) -> None:
    at = source.at(statement)
    match statement:
        case ast.AugAssign(op=op):
            said = ast.unparse(ast.BinOp(ast.Name("x"), op, ast.Name("y")))[2:-2]
            message = _STATEMENTS[ast.AugAssign].format(op=said)
        case ast.Assign(targets=[target]):
            message = (
                f"The left side of an einsum is a tensor, T[p, m]; {ast.unparse(target)} found."
            )
            at = source.at(target)
        case ast.Assign():
            message = "An einsum writes one tensor; several '=' found. Write one line for each."
        case ast.Expr():
            message = "An einsum is written 'T[ranks] = expression'; this line has no '='."
        case _:
            message = _STATEMENTS.get(
                type(statement), "A line of a cascade is an einsum, 'T[ranks] = expression'."
            )
    raise NotationError(message, at)
