from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from einfall.backends.launch import Plan, plan
from einfall.backends.triton import triton
from einfall.backends.triton_tune import fingerprint, tune
from einfall.ir.errors import BackendError

from .hand_kernels import ROWS, rows_kernel

TIMES = {16: 3.0, 32: 1.0, 64: 2.0}


def candidates(*tiles: int) -> list[Plan]:
    return [plan((rows_kernel(p=tile),), ROWS) for tile in tiles]


def tile(chosen: Plan) -> int:
    return chosen.kernels[0].tile_sizes["P0"]


class Machine:
    """A machine on which the tile decides the time; tiles in ``illegal`` do not fit it."""

    def __init__(self, *illegal: int) -> None:
        self.illegal = illegal
        self.measured: list[int] = []
        self.now = 0

    def call(self, chosen: Plan) -> None:
        self.now = tile(chosen)
        if self.now in self.illegal:
            raise triton().runtime.errors.OutOfResources(300_000, 232_448, "shared memory")

    def measure(self, function: Callable[[], object]) -> float:
        function()
        self.measured.append(self.now)
        return TIMES[self.now]

    def tune(self, *tiles: int) -> int:
        return tile(tune(candidates(*tiles), self.call, "rows", measure=self.measure))


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("EINFALL_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("EINFALL_TUNE", "quick")
    return tmp_path


def test_off_takes_the_first(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.delenv("EINFALL_TUNE")
    machine = Machine()
    assert machine.tune(16, 32) == 16
    assert machine.measured == [] and not list(folder.iterdir())
    monkeypatch.setenv("EINFALL_TUNE", "fast")
    with pytest.raises(BackendError, match="off or quick, and it is 'fast'"):
        machine.tune(16, 32)


def test_the_fastest_is_kept_and_not_measured_again() -> None:
    machine = Machine()
    assert machine.tune(16, 32, 64) == 32
    assert machine.measured == [16, 32, 64]
    assert machine.tune(64, 16) == 64
    assert machine.tune(32, 16) == 32
    assert machine.measured == [16, 32, 64]


def test_a_new_candidate_is_measured() -> None:
    machine = Machine()
    assert machine.tune(16, 64) == 64
    assert machine.tune(16, 64, 32) == 32
    assert machine.measured == [16, 64, 16, 64, 32]


def test_what_does_not_fit_is_passed_over_and_recorded(folder: Path) -> None:
    machine = Machine(32)
    assert machine.tune(16, 32, 64) == 64
    assert machine.measured == [16, 64]
    (record,) = json.loads((folder / "tuning.json").read_text()).values()
    trials = {x["candidate"]: x for x in record["trials"]}
    refused = trials[fingerprint(candidates(32)[0])]
    assert refused["milliseconds"] is None
    assert "shared memory" in refused["reason"]


def test_nothing_fits() -> None:
    with pytest.raises(BackendError, match="none does.*shared memory"):
        Machine(16, 64).tune(64, 16)


def test_other_errors_are_not_swallowed() -> None:
    def call(chosen: Plan) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        tune(candidates(16, 32), call, "rows", measure=lambda function: 1.0)


def test_no_gpu_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    machine = Machine()
    assert tile(tune(candidates(16, 32), machine.call, "rows")) == 16
    assert "rows is not tuned" in caplog.text


@pytest.mark.gpu
def test_measured_on_a_gpu() -> None:
    X = torch.randn(512, 512, device="cuda")
    first = tune(candidates(16, 32), lambda chosen: chosen(X, scale=1.0), "rows")
    second = tune(candidates(16, 32), lambda chosen: chosen(X, scale=1.0), "rows")
    assert tile(first) == tile(second)
