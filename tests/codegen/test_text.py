"""The text of kernels: a formatter leaves it alone, a linter accepts it, no set disorders it."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

import einfall
from einfall import examples
from einfall.codegen.kernel import Kernel

from .kernel_cases import WITH_KERNEL, arguments

FORMS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "plain": ("float16", {"p": 40, "m": 48, "e": 16, "f": 32, "block": 16}),
    "odd": ("float32", {"p": 40, "m": 48, "e": 80, "f": 96, "block": 16}),
}
"""A dtype and sizes: one part for each rank, and two."""


@cache
def kernels(name: str, form: str) -> tuple[Kernel, ...]:
    dtype, sizes = FORMS[form]
    tensors, parameters = arguments(name, dtype, sizes)
    return einfall.compile(getattr(examples, name)).lower(*tensors, **parameters).kernels


def digests() -> dict[str, str]:
    """Return a hash of every kernel's text and launch data."""
    return {
        f"{name} {form} {k.name}": hashlib.sha256(repr(k).encode()).hexdigest()
        for name in WITH_KERNEL
        for form in FORMS
        for k in kernels(name, form)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write every kernel of every example to a file of its own."""
    goal = tmp_path_factory.mktemp("kernels")
    for name in WITH_KERNEL:
        for form in FORMS:
            for kernel in kernels(name, form):
                goal.joinpath(f"{form}_{kernel.name}.py").write_text(kernel.text)
    assert len(list(goal.iterdir())) > 2 * len(WITH_KERNEL)
    return goal


def ruff(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "ruff", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode in (0, 1), run.stderr
    return run.stdout


def test_a_formatter_changes_nothing(folder: Path) -> None:
    found = ruff("format", "--no-cache", "--isolated", "--line-length", "100", "--diff", folder)
    assert found == ""


def test_a_linter_finds_nothing(folder: Path) -> None:
    options = ("--select", "E,F,I,UP,B", "--ignore", "E741", "--line-length", "100", "--quiet")
    assert ruff("check", "--no-cache", "--isolated", *options, folder) == ""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", WITH_KERNEL)
def test_a_kernel_is_a_module_of_its_own(name: str, form: str) -> None:
    for kernel in kernels(name, form):
        assert max(map(len, kernel.text.splitlines())) <= 100
        module = ast.parse(kernel.text)
        imported = {
            alias.name
            for node in ast.walk(module)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert imported == {"triton", "triton.language"}
        assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(module))
        defined = {x.name: x for x in module.body if isinstance(x, ast.FunctionDef)}
        assert kernel.name in defined
        for function in defined.values():
            assert [ast.unparse(d) for d in function.decorator_list] == ["triton.jit"]
        signature = [a.arg for a in defined[kernel.name].args.args]
        assert signature == [a.name for a in kernel.arguments]


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_a_kernel_quotes_what_it_computes(name: str) -> None:
    """Above each group of lines stands its einsum: every tensor stored is announced so."""
    for kernel in kernels(name, "plain"):
        quoted = [x.strip()[2:] for x in kernel.text.splitlines() if x.strip().startswith("# ")]
        for buffer in kernel.writes:
            assert any(x.startswith((f"{buffer.tensor}[", f"{buffer.tensor} ")) for x in quoted)


def test_hash_seeds_change_nothing() -> None:
    """Another process, which orders sets differently, writes the same bytes as this one."""
    seed = "4711" if os.environ.get("PYTHONHASHSEED") != "4711" else "1"
    run = subprocess.run(
        [sys.executable, "-m", __name__],
        env={**os.environ, "PYTHONHASHSEED": seed},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert run.stdout.count("\n") == len(digests()), run.stderr
    assert run.stdout == lines(digests())


def lines(hashes: Mapping[str, str]) -> str:
    return "".join(f"{key}: {value}\n" for key, value in hashes.items())


if __name__ == "__main__":
    sys.stdout.write(lines(digests()))
