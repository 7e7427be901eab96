"""Words that the text of a Gluon kernel uses for its own, and names of the user's that are alike.

A parameter called ``step`` would be the number of a ring's step. It goes by another name in the
text, while callers keep theirs. Ranks and tensors, whose names stand for more than one argument,
are refused, and so is whatever else the finished text binds anew.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from .gluon_text import IMPORTED, PIECES
from .loop_nest import Nest, Scalar
from .names import Names
from .triton_operators import HELPERS

WORDS = frozenset(
    {"CONSUMER", "CONSUMERS", "ROWS", "STAGES", "given", "gl", "gluon", "next_tile"}
    | {"nothing", "step", "tested", "tile", "tiles", "turn", *IMPORTED, *PIECES, *HELPERS}
)
"""What is bound by functions of the text, or for all of them."""


def set_apart(nest: Nest) -> Nest | str:
    """Return the nest with other names for parameters that are called as words are, or a reason."""
    ranks = {*(a.name for a in nest.axes), *(g.rank for g in nest.grid)}
    tensors = {a.tensor for a in nest.arguments}
    for what, kept in (("rank", ranks), ("tensor", tensors)):
        for name in sorted(kept & WORDS):
            return f"its text uses the word {name} itself; call the {what} something else"
    alike = [a.name for a in nest.arguments if a.kind == "parameter" and a.name in WORDS]
    if not alike:
        return nest
    others = Names((*(a.name for a in nest.arguments), *ranks, *WORDS, *bound_names(nest)))
    names = {name: others.take(name) for name in alike}
    arguments = tuple(
        replace(a, name=names[a.name], parameter=a.name) if a.name in names else a
        for a in nest.arguments
    )
    apart = with_scalars(nest, names)
    assert isinstance(apart, Nest)
    return replace(apart, arguments=arguments)


def bound_names(node: Any) -> set[str]:
    """Return the names of all variables and scalars in a nest."""
    if isinstance(node, tuple):
        return {n for x in node for n in bound_names(x)}
    if not is_dataclass(node) or isinstance(node, type):
        return set()
    name = getattr(node, "name", "")
    return {name} | {n for f in fields(node) for n in bound_names(getattr(node, f.name))}


def with_scalars(node: Any, names: Mapping[str, str]) -> Any:
    """Return a nest, or a part of one, whose scalars are called otherwise."""
    match node:
        case Scalar(name=name):
            return replace(node, name=names[name]) if name in names else node
        case tuple():
            return tuple(with_scalars(x, names) for x in node)
        case _ if is_dataclass(node) and not isinstance(node, type):
            found = {f.name: with_scalars(getattr(node, f.name), names) for f in fields(node)}
            same = all(found[f.name] is getattr(node, f.name) for f in fields(node))
            return node if same else replace(node, **found)
        case _:
            return node


def inside(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, and those inside them."""
    for s in body:
        yield s
        for part in ("body", "orelse"):
            yield from inside(getattr(s, part, []))


def bound_anew(text: str, names: frozenset[str]) -> str:
    """Return one of the names that a function of the text binds to something else, or nothing."""
    for function in ast.parse(text).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        for x in inside(function.body):
            match x:
                case ast.Assign(value=ast.Name(id="given")):
                    continue
                case ast.Assign(targets=targets):
                    pass
                case ast.AugAssign(target=target) | ast.For(target=target):
                    targets = [target]
                case _:
                    continue
            found = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)} & names
            if found:
                return min(found)
    return ""
