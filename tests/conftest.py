"""What every test needs: Triton's interpreter where no GPU is, a cache folder, golden files."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

CUDA = torch.cuda.is_available()

if not CUDA:
    # Triton reads this when it is imported, so it stands before any import of it.
    os.environ["TRITON_INTERPRET"] = "1"

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the generated texts to tests/golden/ instead of comparing with them",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked ``gpu`` where there is none; pytest reports it as deselected."""
    if CUDA:
        return
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if needing:
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


@pytest.fixture(scope="session", autouse=True)
def quick_interpreter() -> None:
    """Let Triton's interpreter fold slices, and leave out what has no effect."""
    from .triton_shortcuts import take_shortcuts
    from .triton_slices import SLICES, fold_by

    fold_by(SLICES)
    take_shortcuts()


@pytest.fixture(scope="session", autouse=True)
def einfall_cache() -> Iterator[Path]:
    """Keep generated files and tuning records of the tests out of the user's cache."""
    with tempfile.TemporaryDirectory(prefix="einfall-tests-") as folder:
        before = os.environ.get("EINFALL_CACHE_DIR")
        os.environ["EINFALL_CACHE_DIR"] = folder
        yield Path(folder)
        if before is None:
            del os.environ["EINFALL_CACHE_DIR"]
        else:
            os.environ["EINFALL_CACHE_DIR"] = before


@pytest.fixture
def device() -> str:
    """Where tests put the tensors that kernels read."""
    return "cuda" if CUDA else "cpu"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return ``compare(name, text)``: ``text`` is what ``tests/golden/<name>.py`` holds.

    ``pytest --update-golden`` writes the file instead; the change is then read in the diff.
    """
    update = bool(request.config.getoption("--update-golden"))

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.py"
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        if not path.exists():
            pytest.fail(f"{path} does not exist; write it with: pytest --update-golden")
        expected = path.read_text()
        if text != expected:
            lines = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), str(path), "generated", lineterm=""
            )
            pytest.fail("\n".join(lines) + "\nif this is meant: pytest --update-golden")

    return compare
