from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest

from einfall.backends import cache
from einfall.backends.cache import Records, cache_folder, source_hash, store_source
from einfall.ir.errors import BackendError

from .hand_kernels import rows_kernel

# Not forked from here, where torch's threads would not survive it, but from a process that has only
# imported.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["einfall.backends.cache"])


def test_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EINFALL_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.setenv("EINFALL_CACHE_DIR", "")
    assert cache_folder() == tmp_path / "xdg" / "einfall"
    monkeypatch.delenv("EINFALL_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "einfall"


def test_same_text_same_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EINFALL_CACHE_DIR", str(tmp_path))
    kernel = rows_kernel()
    path = store_source(kernel)
    assert path.parent == tmp_path / "kernels"
    assert path.name == f"rows_{source_hash(kernel.text)}.py"
    assert path.read_text() == kernel.text
    written = path.stat().st_mtime_ns
    assert store_source(rows_kernel(32, 64)) == path
    assert path.stat().st_mtime_ns == written
    other = store_source(replace(kernel, text=kernel.text + "\n# other\n"))
    assert other != path
    assert sorted(path.parent.iterdir()) == sorted([path, other])


def test_file_cut_short_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EINFALL_CACHE_DIR", str(tmp_path))
    kernel = rows_kernel()
    path = store_source(kernel)
    path.write_text(kernel.text[:40])
    assert store_source(kernel) == path
    assert path.read_text() == kernel.text


@pytest.mark.parametrize("package", ["einfall", "triton", "torch", "python"])
def test_every_version_is_in_the_key(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    before = source_hash("text")
    other = tuple((n, "0.0.1" if n == package else v) for n, v in cache.versions())
    assert other != cache.versions()
    monkeypatch.setattr(cache, "versions", lambda: other)
    assert source_hash("text") != before


def test_unwritable_folder_says_which_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    monkeypatch.setenv("EINFALL_CACHE_DIR", str(occupied))
    with pytest.raises(BackendError, match="EINFALL_CACHE_DIR"):
        store_source(rows_kernel())


def test_records_survive_each_other_and_a_broken_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(tmp_path / "deep" / "tuning.json")
    assert records.get("a") is None
    records.put("a", {"winner": "x", "trials": [1.5]})
    records.put("b", {"winner": "y"})
    assert Records(records.path).get("a") == {"winner": "x", "trials": [1.5]}
    assert set(json.loads(records.path.read_text())) == {"a", "b"}
    records.path.write_text('{"a": ')
    assert records.get("a") is None
    assert "not JSON" in caplog.text
    records.put("c", {"winner": "z"})
    assert records.get("c") == {"winner": "z"}


def put_many(path: Path, folder: str, process: int) -> None:
    os.environ["EINFALL_CACHE_DIR"] = folder
    for i in range(10):
        Records(path).put(f"{process}.{i}", {"i": i})
        kernel = rows_kernel()
        assert store_source(kernel).read_text() == kernel.text


def test_parallel_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tuning.json"
    workers = [PROCESSES.Process(target=put_many, args=(path, str(tmp_path), n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert Records(path).all() == {f"{n}.{i}": {"i": i} for n in range(3) for i in range(10)}
    # Neither temporary files nor second copies stay behind.
    assert len([p for p in (tmp_path / "kernels").iterdir() if p.suffix == ".py"]) == 1
    assert not [p for p in tmp_path.rglob(".*") if p.is_file()]
