"""Prepared launches: direct where the compiled variant fits, through Triton otherwise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from einfall.backends import dispatch
from einfall.backends.dispatch import Launch, dispatcher
from einfall.backends.memory import Piece
from einfall.backends.triton import illegal, triton
from einfall.ir.errors import BackendError


class Compiled:
    """Stands in for a compiled kernel; keeps what it is launched with."""

    function, packed_metadata = "function", "metadata"

    def __init__(self) -> None:
        self.runs: list[tuple[Any, ...]] = []

    def run(self, *arguments: Any) -> None:
        self.runs.append(arguments)


class Function:
    """Stands in for a Triton function that compiles once."""

    def __init__(self) -> None:
        self.compiled = Compiled()
        self.calls: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: Any) -> Any:
        def launch(*arguments: Any, **options: Any) -> Compiled:
            self.calls.append((grid, arguments, options))
            return self.compiled

        return launch


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> Function:
    monkeypatch.setattr(dispatch, "can_be_direct", lambda device: True)
    monkeypatch.setattr(dispatch, "current_stream", lambda: lambda index: 77)
    return Function()


def prepared(function: Function, *pieces: Piece) -> Any:
    slots = range(1 + len(pieces))
    launch = Launch(
        function, 5, [*[None] * len(slots), 3], [(k, k) for k in slots], {"num_warps": 4}
    )
    return dispatcher([launch], pieces, torch.device("cpu"))


def test_the_second_call_is_direct(function: Function) -> None:
    run, X = prepared(function), torch.zeros(8)
    run([X])
    assert function.calls == [((5,), (X, 3), {"num_warps": 4})]
    assert function.compiled.runs == []
    run([X])
    assert len(function.calls) == 1
    fixed = (5, 1, 1, 77, "function", "metadata", None, None, None)
    assert function.compiled.runs == [(*fixed, X.data_ptr(), 3)]


def test_an_address_that_is_not_aligned_goes_through_triton(function: Function) -> None:
    run, X = prepared(function), torch.zeros(8)
    run([X[1:]])
    run([X[1:]])
    assert len(function.calls) == 2
    run([X])
    run([X])
    assert len(function.calls) == 3
    assert len(function.compiled.runs) == 1
    run([X[1:]])
    assert len(function.calls) == 4


def test_a_profiler_sees_every_launch(function: Function) -> None:
    run, X = prepared(function), torch.zeros(8)
    run([X])
    hooks = triton().knobs.runtime.launch_enter_hook
    watch = print
    hooks.add(watch)
    try:
        run([X])
    finally:
        hooks.remove(watch)
    assert len(function.calls) == 2
    assert function.compiled.runs == []


def test_tensors_between_kernels_share_one_allocation(function: Function) -> None:
    piece = Piece(256, 24, torch.float32, (2, 3))
    run, X, memory = prepared(function, piece), torch.zeros(8), torch.empty(512, dtype=torch.uint8)
    run([X, memory])
    _, (first, between, _), _ = function.calls[0]
    assert first is X
    assert (between.shape, between.dtype) == ((2, 3), torch.float32)
    assert between.data_ptr() == memory.data_ptr() + 256
    run([X, memory])
    assert function.compiled.runs[0][-3:] == (X.data_ptr(), memory.data_ptr() + 256, 3)


def test_what_an_interpreter_runs_is_never_direct() -> None:
    assert not dispatch.can_be_direct(torch.device("cpu"))


def test_what_triton_cannot_launch_is_said_by_the_kernels_name() -> None:
    class Large:
        __name__ = "large_kernel"

        def __getitem__(self, grid: Any) -> Any:
            raise triton().runtime.errors.OutOfResources(300_000, 232_448, "shared memory")

    launch = Launch(Large(), 1, [], [], {})
    words = "large_kernel here .out of resource: shared memory.*num_stages=1"
    with pytest.raises(BackendError, match=words) as error:
        launch.through_triton([])
    assert illegal(error.value), "a partition that tuning leaves out"
