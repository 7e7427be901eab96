"""Triton's key is kept under what tells its files apart, and made again when one changed."""

from __future__ import annotations

import os
from inspect import unwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from einfall.backends.triton import triton
from einfall.backends.triton_key import checksum, files, keep_key, stamp


def library(folder: Path, made: list[str], version: str = "3.6.0") -> Any:
    """Return what stands in for a process's Triton, whose key is made anew when it is asked for."""

    def make() -> str:
        made.append(f"key {len(made)}\nof two lines")
        return made[-1]

    home = SimpleNamespace(triton_key=make)
    return SimpleNamespace(
        __file__=str(folder / "__init__.py"),
        __version__=version,
        runtime=SimpleNamespace(cache=home),
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EINFALL_CACHE_DIR", str(tmp_path / "cache"))
    names = ("runtime/cache.py", "_C/libtriton.so", "compiler/code.py", "backends/nvidia/driver.py")
    for name in names:
        path = tmp_path / "triton" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "triton"


def known(folder: Path, made: list[str], **more: str) -> str:
    """Return the key in a new process."""
    one = library(folder, made, **more)
    keep_key(one)
    key: str = one.runtime.cache.triton_key()
    return key


def test_a_second_process_knows_the_key(folder: Path) -> None:
    made: list[str] = []
    keep_key(library(folder, made))
    assert known(folder, made) == made[0] and len(made) == 1


@pytest.mark.parametrize("how", ["content", "time", "more", "less"])
def test_a_changed_file_makes_it_anew(folder: Path, how: str) -> None:
    made: list[str] = []
    keep_key(library(folder, made))
    path = folder / "backends" / "nvidia" / "driver.py"
    match how:
        case "content":
            was = path.stat()
            path.write_text("longer than before was")
            os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
        case "time":
            os.utime(path, ns=(1, 2))
        case "more":
            path.with_name("new.py").write_text("")
        case _:
            path.unlink()
    keep_key(library(folder, made))
    assert len(made) == 2


def test_a_file_that_is_not_whole_is_not_believed(folder: Path) -> None:
    made: list[str] = []
    keep_key(library(folder, made))
    (kept,) = (folder.parent / "cache" / "triton").iterdir()
    kept.write_text(kept.read_text()[:-1])
    keep_key(library(folder, made))
    assert len(made) == 2 and kept.read_text() == f"{checksum(made[1])}\n{made[1]}"


def test_other_versions_and_unwritable_folders_hash_as_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for _ in range(2):
        keep_key(library(folder, made, version="4.0.0"))
    assert len(made) == 2 and not (folder.parent / "cache").exists()
    monkeypatch.setenv("EINFALL_CACHE_DIR", str(folder / "runtime" / "cache.py"))
    for _ in range(2):
        keep_key(library(folder, made))
    assert len(made) == 4


def test_a_file_that_cannot_be_looked_at_is_left_to_triton(folder: Path) -> None:
    made: list[str] = []
    (folder / "compiler" / "gone.py").symlink_to(folder / "nowhere.py")
    keep_key(library(folder, made))
    assert len(made) == 1 and not (folder.parent / "cache").exists()


def test_the_files_are_those_that_triton_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    home = triton().runtime.cache
    folder = Path(triton().__file__).parent
    read: set[str] = set()
    plain = open

    def watched(path: Any, *more: Any, **named: Any) -> Any:
        read.add(str(path))
        if str(path).endswith(".so"):
            path = __file__  # 400 MB are not read for this
        return plain(path, *more, **named)

    monkeypatch.setattr("builtins.open", watched)
    unwrap(home.triton_key)()
    assert {str(x) for x in files(folder)} >= {x for x in read if x.startswith(str(folder))}
    assert len(stamp(triton())) == 20
