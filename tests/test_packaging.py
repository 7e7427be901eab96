"""The wheel holds every package and every example, and nothing lands outside ``einfall``."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("ir", "passes", "codegen", "backends", "examples")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that neither old build folders nor the checkout matter."""
    source = tmp_path_factory.mktemp("checkout")
    rubbish = shutil.ignore_patterns("__pycache__")
    for folder in ("einfall", *ROOMS):
        shutil.copytree(ROOT / folder, source / folder, symlinks=True, ignore=rubbish)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, source / file)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
    run = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (found,) = target.glob("einfall-*.whl")
    return found


def test_every_file_is_in_the_wheel(wheel: Path) -> None:
    held = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    wanted = {f"einfall/{file.name}" for file in (ROOT / "einfall").glob("*.py")}
    wanted.add("einfall/py.typed")
    for room in ROOMS:
        for suffix in ("*.py", "*.einsum"):
            wanted |= {f"einfall/{x.relative_to(ROOT)}" for x in (ROOT / room).rglob(suffix)}
    assert len(wanted) > 100
    assert sorted(wanted - held) == []
    assert sorted(n for n in held - wanted if n.endswith((".py", ".einsum"))) == []


def test_the_installed_package_stands_alone(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, the wheel imports itself, and no bare room can be imported."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = f"""
import importlib.util, sys
sys.path.insert(0, {str(tmp_path / "site")!r})
import einfall.examples, numpy
from einfall.backends.interpreter import interpret
assert einfall.__file__.startswith({str(tmp_path)!r}), einfall.__file__
assert einfall.examples.refused() == ("median", "sigmoid_of_max", "sparsemax")
print(interpret(einfall.examples.attention, *[numpy.ones((1, 1, 1, 1))] * 3).item())
print([room for room in {ROOMS!r} if importlib.util.find_spec(room)])
"""
    run = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n") == ["1.0", "[]", ""]


def test_links_of_the_checkout() -> None:
    """Each room is in the package by a relative link, which survives a clone."""
    for room in ROOMS:
        link = ROOT / "einfall" / room
        assert link.is_symlink() and link.readlink() == Path("..") / room
        assert importlib.util.find_spec(f"einfall.{room}") is not None
