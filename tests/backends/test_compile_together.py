"""Kernels of one call are compiled side by side; what fails is said by the launch."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

import pytest
import torch

from einfall.backends import dispatch
from einfall.backends.compile_together import compile_together
from einfall.backends.dispatch import Launch, dispatcher


class Function:
    """Stands in for a Triton function: compiles as Triton's do, in the mode that is active."""

    def __init__(self, compiles: Any) -> None:
        self.compiles, self.done, self.launched = compiles, False, 0

    def run(self, *arguments: Any, grid: tuple[int], warmup: bool, **options: int) -> None:
        assert warmup and arguments[1] == 3 and options == {"num_warps": 4}
        mode = import_module("triton.runtime._async_compile").active_mode.get()
        mode.submit(id(self), self.compiles, self.finish)

    def finish(self, kernel: object) -> None:
        self.done = True

    def __getitem__(self, grid: tuple[int]) -> Any:
        def launch(*arguments: Any, **options: int) -> None:
            self.launched += 1

        return launch


def launch(function: Function) -> Launch:
    return Launch(function, 5, [None, 3], [(0, 0)], {"num_warps": 4})


def test_two_kernels_are_compiled_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)
    functions = [Function(both.wait), Function(both.wait)]
    compile_together([launch(f) for f in functions], [torch.zeros(1)])
    assert all(f.done for f in functions) and not any(f.launched for f in functions)


def test_a_kernel_that_does_not_compile_is_left_to_its_launch() -> None:
    def fail() -> None:
        raise RuntimeError("no code for this")

    right, wrong = Function(lambda: None), Function(fail)
    for _ in range(2):  # the second time meets no mode that was left active
        compile_together([launch(wrong), launch(right)], [torch.zeros(1)])
        assert right.done and not wrong.done


def test_a_plan_compiles_together_once_and_a_single_kernel_by_its_launch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "can_be_direct", lambda device: True)
    monkeypatch.setattr(dispatch, "current_stream", lambda: lambda index: 77)
    compiled: list[int] = []
    functions = [Function(lambda: compiled.append(1)), Function(lambda: compiled.append(2))]
    run = dispatcher([launch(f) for f in functions], (), torch.device("cpu"))
    run([torch.zeros(8)])
    run([torch.zeros(8)])
    assert sorted(compiled) == [1, 2] and [f.launched for f in functions] == [2, 2]
    alone = Function(lambda: compiled.append(3))
    dispatcher([launch(alone)], (), torch.device("cpu"))([torch.zeros(8)])
    assert alone.launched == 1 and not alone.done
