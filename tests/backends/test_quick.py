"""Quick calls: what they launch, what they hand back to the slower way, and what tells kinds."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

import einfall
import einfall.examples
from einfall.backends import dispatch, launch, triton_arguments
from einfall.backends.dispatch import Launch
from einfall.backends.memory import New, Piece, contiguous_strides, likeness, strided
from einfall.backends.quick import quick_call
from einfall.backends.triton import triton
from einfall.ir.errors import EinfallError

CPU = torch.device("cpu")


class Recorder:
    """Stands in for what launches a compiled kernel; keeps what it is launched with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any) -> None:
        self.calls.append(arguments)


class Launcher(Recorder):
    """Triton's own launcher, as far as quick calls know it."""

    global_scratch_size = profile_scratch_size = 0
    launch_cooperative_grid, launch_pdl = False, True

    def __init__(self) -> None:
        super().__init__()
        self.launch = Recorder()


def one(run: Any, **options: Any) -> Launch:
    """Return a compiled launch of an input, a new tensor, a piece and numbers."""
    arguments = [None, 3, None, None, 0.5, float("inf")]
    pointers = [(0, 0), (2, 1), (3, 2)]
    compiled = (run, "function", "metadata")
    return Launch(None, 5, arguments, pointers, {}, compiled=compiled, **options)


def call_of(run: Any) -> Any:
    made = [New((2, 3), torch.float32, CPU), New((512,), torch.uint8, CPU)]
    piece = Piece(256, 24, torch.float32, (2, 3))
    return quick_call(1, made, [piece], [one(run)], [1], CPU, lambda index: 77)


def test_a_call_launches_with_addresses() -> None:
    run, X = Recorder(), torch.zeros(8)
    found = call_of(run)(X)
    assert (found.shape, found.stride(), found.dtype) == ((2, 3), (3, 1), torch.float32)
    fixed = (5, 1, 1, 77, "function", "metadata", None, None, None)
    between = run.calls[0][-3]
    assert run.calls == [(*fixed, X.data_ptr(), 3, found.data_ptr(), between, 0.5, float("inf"))]


def test_kernels_that_ask_for_no_memory_skip_what_looks_for_it() -> None:
    run, X = Launcher(), torch.zeros(8)
    call_of(run)(X)
    assert run.calls == []
    fixed = (5, 1, 1, 77, "function", False, True, None, None, "metadata", None, None, None)
    assert run.launch.calls[0][: len(fixed)] == fixed
    run.global_scratch_size = 128
    call_of(run)(X)
    assert len(run.calls) == len(run.launch.calls) == 1


def test_addresses_that_are_not_aligned_and_profilers_are_left_to_others() -> None:
    run, X = Recorder(), torch.zeros(8)
    call = call_of(run)
    assert call(X[1:]) is NotImplemented
    hooks, watch = triton().knobs.runtime.launch_exit_hook, print
    hooks.add(watch)
    try:
        assert call(X) is NotImplemented
    finally:
        hooks.remove(watch)
    assert run.calls == []
    assert call(X) is not NotImplemented


def test_several_outputs_and_what_is_kept() -> None:
    kept, X = torch.ones(4), torch.zeros(8)
    made: list[New | torch.Tensor] = [
        kept,
        New((0, 3), torch.float16, CPU),
        New((2,), torch.int32, CPU, written=False),
    ]
    launch = Launch(None, 1, [None], [(0, 1)], {}, compiled=(run := Recorder(), "f", "m"))
    a, b, c, d = quick_call(1, made, (), [launch], [0, 1, 2, 3], CPU, lambda index: 0)(X)
    assert a is X and b is kept and c.shape == (0, 3) and d.tolist() == [0, 0]
    assert run.calls[0][-1] == kept.data_ptr()


@pytest.mark.parametrize("shape", [(2, 3), (0, 4), ()])
def test_memory_is_contiguous(shape: tuple[int, ...]) -> None:
    found = strided(CPU)(shape, contiguous_strides(shape), torch.float16)
    assert (found.shape, found.stride(), found.dtype) == (
        shape,
        torch.empty(shape).stride(),
        torch.float16,
    )


def test_alike_is_what_a_key_would_tell_apart() -> None:
    X, Y = torch.zeros(4, 6, dtype=torch.float16), torch.zeros(3)
    alike = likeness((X, Y))
    assert alike is not None
    assert alike(torch.ones(4, 6, dtype=torch.float16), torch.ones(3))
    others = [
        torch.zeros(4, 7, dtype=torch.float16),
        torch.zeros(6, 4, dtype=torch.float16).T,
        torch.zeros(4, 6, dtype=torch.bfloat16),
        torch.zeros(4, 6, 1, dtype=torch.float16),
        torch.zeros(4, 6, dtype=torch.float16, requires_grad=True),
        torch.zeros(4, 6, dtype=torch.float16, device="meta"),
        torch.nn.Parameter(torch.zeros(4, 6, dtype=torch.float16), requires_grad=False),
        X.numpy(),
        None,
    ]
    assert [alike(other, Y) for other in others] == [False] * len(others)


def test_no_tensor_is_kept() -> None:
    X = torch.zeros(4)
    alike, seen = likeness((X,)), weakref.ref(X)
    assert alike is not None
    del X
    gc.collect()
    assert seen() is None


class Function:
    """Stands in for a Triton function; what it compiled is launched by ``run``."""

    def __init__(self) -> None:
        self.run, self.calls = Recorder(), 0
        self.function, self.packed_metadata = "function", "metadata"

    def __getitem__(self, grid: Any) -> Any:
        def launched(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            return self

        return launched


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> Function:
    """Let calls on the CPU be as on a GPU, but for the launch."""
    made = Function()
    monkeypatch.setattr(launch, "load", lambda kernel: made)
    monkeypatch.setattr(dispatch, "can_be_direct", lambda device: True)
    monkeypatch.setattr(dispatch, "current_stream", lambda: lambda index: 0)
    monkeypatch.setattr(triton_arguments, "interpreting", lambda: True)
    return made


def tensors(length: int = 64) -> tuple[torch.Tensor, ...]:
    return tuple(torch.zeros(1, 2, length, 32, dtype=torch.float16) for _ in "qkv")


def test_the_second_call_of_a_kind_is_quick(function: Function) -> None:
    f = einfall.compile(einfall.examples.sliding_window, backend="triton", target="sm_80")
    for _ in range(3):
        f(*tensors(), W=8)
    assert (function.calls, len(function.run.calls)) == (1, 2)
    f(*tensors(), W=9)
    f(*tensors(48), W=8)
    assert function.calls == 3
    for _ in range(2):
        f(*tensors(), W=8)
        f(*tensors(48), W=8)
    assert (function.calls, len(f._ready)) == (3, 3)


def test_what_a_quick_call_cannot_answer_goes_the_whole_way(function: Function) -> None:
    f = einfall.compile(einfall.examples.sliding_window, backend="triton", target="sm_80")
    Q, K, V = tensors()
    for _ in range(2):
        f(Q, K, V, W=8)
    with pytest.raises(EinfallError):
        f(Q, K, W=8)
    with pytest.raises(EinfallError):
        f(Q, K, V[:, :, :, :3].transpose(1, 2), W=8)
    with pytest.raises(EinfallError):
        f(Q, K, V, W=8, G=2)
    with pytest.raises(EinfallError):
        f(Q, K, V.numpy(), W=8)
    before = function.calls
    odd = torch.zeros(Q.numel() + 1, dtype=torch.float16)[1:].view(Q.shape)
    f(odd, K, V, W=8)
    assert function.calls == before + 1
