"""The house holds: floors, words, sizes and names of files, style and types.

The text of every file is read, so a comment breaks a rule as code does.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOOR = {"ir": 0, "passes": 1, "codegen": 1, "backends": 2}
FACE = "einfall"

WORDS = (
    *("attention", "softmax", "sparsemax", "causal", "sliding", "window", "alibi", "rope"),
    *("gqa", "mqa", "mla", "flash", "softcap", "landmark", "sinkhorn", "kv cache", "kv-cache"),
    *("query", "queries", "differential attention", "decode step", "prefill", "logits", "lse"),
)
"""What ``passes/`` and ``codegen/`` must not know: names of variants and of their parts."""

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "base", "misc"}
MOST_LINES = 500


def python_files() -> list[Path]:
    """Return every Python file of the checkout, each once, without what git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        return [ROOT / x for x in sorted(listed.stdout.split("\n")) if x and (ROOT / x).is_file()]
    rooms = (*FLOOR, FACE, "tests", "examples")
    return [x for room in rooms for x in sorted((ROOT / room).rglob("*.py"))]


FILES = python_files()


def breaches(file: Path, text: str) -> Iterator[str]:
    """Yield every import of a file that climbs, or that names a room without its dots."""
    parts = file.parts
    room, depth = parts[0], len(parts) - 1
    rooms = {*FLOOR, FACE}
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ImportFrom(module=target, names=names, level=level) if level > depth:
                # From the package's root: the first word is a room, or part of the face.
                for goal in [target.split(".")[0]] if target else [name.name for name in names]:
                    if goal != room and FLOOR.get(goal, 3) >= FLOOR[room]:
                        yield f"{file}:{node.lineno}: {room} may not use {goal}"
            case ast.ImportFrom(module=str(target), level=0) if target.split(".")[0] in rooms:
                yield f"{file}:{node.lineno}: write it relatively: {target}"
            case ast.Import(names=names):
                for name in names:
                    if name.name.split(".")[0] in rooms:
                        yield f"{file}:{node.lineno}: write it relatively: {name.name}"


def test_floors_hold() -> None:
    files = [f for f in FILES if f.relative_to(ROOT).parts[0] in FLOOR]
    assert len(files) > 30
    found = [b for f in files for b in breaches(f.relative_to(ROOT), f.read_text())]
    assert found == []


@pytest.mark.parametrize(
    ("file", "line", "breach"),
    [
        ("ir/x.py", "from ..passes.fold import fold", "ir may not use passes"),
        ("ir/x.py", "from .. import backends", "ir may not use backends"),
        ("passes/x.py", "from ..codegen import lower", "passes may not use codegen"),
        ("codegen/x.py", "from ..backends.cache import store", "codegen may not use backends"),
        ("backends/x.py", "from ..compile import f", "backends may not use compile"),
        ("passes/x.py", "def f():\n    from ..codegen.a import b", "passes may not use codegen"),
        ("passes/a/x.py", "from ...codegen import lower", "passes may not use codegen"),
        ("passes/x.py", "from einfall.ir.cascade import Cascade", "write it relatively"),
        ("passes/x.py", "import einfall.ir.cascade", "write it relatively"),
        ("passes/x.py", "import ir.cascade", "write it relatively"),
        ("passes/x.py", "from ..ir.cascade import Cascade", ""),
        ("passes/x.py", "from .fold import fold", ""),
        ("passes/a/x.py", "from ..fold import fold", ""),
        ("backends/x.py", "from ..codegen import lower", ""),
    ],
)
def test_breaches_are_found(file: str, line: str, breach: str) -> None:
    found = list(breaches(Path(file), line))
    assert len(found) == bool(breach)
    assert not breach or breach in found[0]


def forbidden_words(text: str) -> list[str]:
    """Return the forbidden words of a text; ``_`` and digits end a word, so does a capital."""
    words = "|".join(re.escape(word) for word in WORDS)
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])|[_0-9]", " ", text)
    return re.findall(rf"\b(?:{words})s?\b", apart, re.IGNORECASE)


def test_passes_and_codegen_know_no_variant() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}: {word}"
        for file in FILES
        if file.relative_to(ROOT).parts[0] in ("passes", "codegen")
        for number, line in enumerate(file.read_text().split("\n"), 1)
        for word in forbidden_words(f"{file.stem} {line}")
    ]
    assert found == []


def test_forbidden_words_are_found() -> None:
    text = "def fold_softmax(x):  # for FlashAttention\n    isCausal = W_window2 + relaxed"
    assert forbidden_words(text) == ["softmax", "Flash", "Attention", "Causal", "window"]
    assert forbidden_words("ellipse, scope, group, increase, false, parallels") == []


def test_no_file_is_too_long() -> None:
    counts = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in FILES}
    assert {name: n for name, n in counts.items() if n > MOST_LINES} == {}


def test_files_are_named_for_what_they_hold() -> None:
    assert [str(f.relative_to(ROOT)) for f in FILES if f.stem in FORBIDDEN_NAMES] == []


def test_no_test_is_left_out() -> None:
    """Nothing is skipped or expected to fail; what needs a GPU says so with its marker."""
    ways = re.compile(r"mark\.(?:skip|skipif|xfail)\b|pytest\.(?:skip|xfail)\(|importorskip")
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in FILES
        if file.relative_to(ROOT).parts[0] == "tests" and file != Path(__file__)
        for number, line in enumerate(file.read_text().split("\n"), 1)
        if ways.search(line)
    ]
    assert found == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(file.relative_to(ROOT))
        for file in FILES
        if file.relative_to(ROOT).parts[0] != "tests"
        and not ast.get_docstring(ast.parse(file.read_text()))
    ]
    assert silent == []


def test_ir_imports_without_torch_and_triton() -> None:
    """Reading, checking and printing a cascade needs neither of the heavy packages."""
    program = (
        "import sys, types, pathlib\n"
        "package = types.ModuleType('einfall')\n"
        f"package.__path__ = [{str(ROOT / 'einfall')!r}]\n"
        "sys.modules['einfall'] = package\n"
        "import einfall.ir.notation\n"
        "print([m for m in ('torch', 'triton', 'sympy') if m in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stdout + run.stderr


CHECKS = {
    "ruff check": ["ruff", "check", "--no-cache", "."],
    "ruff format": ["ruff", "format", "--no-cache", "--check", "."],
    "mypy": ["mypy"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_style_and_types(name: str) -> None:
    command = [sys.executable, "-m", *CHECKS[name]]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
