"""Every pass's ``before --> after`` blocks, executed: its documentation and its first test.

A block counts if it stands in the docstring of a public function of ``passes/`` that takes one
cascade (options have defaults) and returns one. Both sides are read as notation; a last line
``return X, Y`` names the outputs of both sides, else they are what the right side does not read.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import einfall.passes
from einfall.ir.cascade import Cascade
from einfall.ir.notation import cascade

Pass = Callable[[Cascade], Cascade]


def takes_one_cascade(function: Callable[..., object]) -> bool:
    first, *options = inspect.signature(function).parameters.values()
    returned = inspect.signature(function).return_annotation
    return first.annotation == returned == "Cascade" and all(
        x.default is not inspect.Parameter.empty for x in options
    )


def blocks(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield before and after of each indented block that has a line ``-->``."""
    lines = inspect.cleandoc(docstring).splitlines()
    block: list[str] = []
    for line in (*lines, "end"):
        if line.startswith("    ") or not line.strip():
            block.append(line)
            continue
        text = textwrap.dedent("\n".join(block)).strip()
        if "\n-->\n" in text:
            before, after = text.split("\n-->\n")
            yield before, after
        block = []


def documented() -> Iterator[tuple[str, Pass, str, str]]:
    for path in sorted(Path(einfall.passes.__path__[0]).glob("*.py")):
        if "-->" not in path.read_text():
            continue
        loaded = importlib.import_module(f"einfall.passes.{path.stem}")
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            if name.startswith("_") or function.__module__ != loaded.__name__:
                continue
            if not inspect.signature(function).parameters or not takes_one_cascade(function):
                continue
            for k, (before, after) in enumerate(blocks(function.__doc__ or "")):
                yield f"{path.stem}.{name}-{k}", function, before, after


CASES = list(documented())


def outputs(text: str) -> str:
    """Return the line that names as outputs what nothing in the text reads."""
    written: dict[str, None] = {}
    read: set[str] = set()
    for statement in ast.parse(text).body:
        assert isinstance(statement, ast.Assign)
        target = statement.targets[0]
        assert isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name)
        written.setdefault(target.value.id)
        read |= {x.id for x in ast.walk(statement.value) if isinstance(x, ast.Name)}
    return f"return {', '.join(name for name in written if name not in read)}"


@pytest.mark.parametrize(
    ("function", "before", "after"), [x[1:] for x in CASES], ids=[x[0] for x in CASES]
)
def test_the_rewrite_in_the_docstring_happens(function: Pass, before: str, after: str) -> None:
    given = [x for x in (*before.splitlines(), *after.splitlines()) if x.startswith("return ")]
    returned = given[0] if given else outputs(after)
    expected, found = (
        cascade(text if returned in text else f"{text}\n{returned}") for text in (after, before)
    )
    found = function(found)
    assert "\n".join(map(str, found.einsums)) == "\n".join(map(str, expected.einsums))
    assert found.einsums == expected.einsums


def test_every_simplification_is_documented() -> None:
    names = {name.split("-")[0] for name, *_ in CASES}
    own = ("fold.fold_cascade", "share.share", "defer.defer", "base_two.base_two")
    more = ("reassociate.reassociate", "simplify.simplify", "inline_scales.inline_scales")
    assert {*own, *more} <= names
