from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall.backends import launch
from einfall.backends.launch import READY_LIMIT, Plan, plan
from einfall.backends.memory import contiguous_strides
from einfall.backends.triton import triton
from einfall.codegen.kernel import Argument, Buffer, GridRank, Kernel
from einfall.ir.cascade import Cascade
from einfall.ir.errors import BackendError, ShapeError, VerificationError

from .hand_kernels import ROWS, STREAM, rows_kernel, stream_kernel


def rows() -> Plan:
    return plan((rows_kernel(),), ROWS)


def stream(dtype: str = "float32") -> Plan:
    return plan((stream_kernel(32, 32, 16, 16, dtype),), STREAM)


def rows_expected(X: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    Y = X.double() * scale
    G = Y.max(1).values
    return G, (Y - G[:, None]).exp().sum(1)


def stream_expected(Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
    S = torch.einsum("bpe,bme->bpm", Q.double(), K.double())
    return torch.einsum("bpm,bmf->bpf", S.softmax(2), V.double())


def operands(device: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Return Q, K, V with b, p, m, e, f = 2, 37, 45, 16, 12: ragged tiles, a padded f."""
    make = torch.Generator().manual_seed(5)
    shapes = ((2, 37, 16), (2, 45, 16), (2, 45, 12))
    return tuple(torch.randn(s, generator=make).to(device, dtype) for s in shapes)


def close(got: Any, expected: torch.Tensor, relative: float) -> None:
    assert isinstance(got, torch.Tensor)
    assert got.shape == expected.shape
    error = (got.double() - expected).norm() / expected.norm()
    assert error < relative, f"relative error {error:.2e}"


def test_two_outputs_in_order(device: str) -> None:
    X = torch.randn(37, 70, generator=torch.Generator().manual_seed(1)).to(device)
    G, D = rows()(X, scale=0.5)
    expected = rows_expected(X, 0.5)
    close(G, expected[0], 1e-6)
    close(D, expected[1], 1e-6)
    only = plan((rows_kernel(),), ROWS, outputs=("D",))(X, scale=0.5)
    assert isinstance(only, torch.Tensor)
    assert torch.equal(only, D)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_two_dots(device: str, dtype: torch.dtype) -> None:
    Q, K, V = operands(device, dtype)
    name = str(dtype).removeprefix("torch.")
    O = stream(name)(Q, K, V)  # noqa: E741
    assert isinstance(O, torch.Tensor) and O.dtype == dtype and O.is_contiguous()
    # On a GPU float32 dots are tf32 unless told otherwise.
    bound = 2e-3 if dtype == torch.float16 or device == "cuda" else 1e-6
    close(O, stream_expected(Q, K, V), bound)


def test_any_strides(device: str) -> None:
    """Transposed, sliced with a step and an offset, and expanded: never copied, same answer."""
    Q, K, V = operands(device)
    run = stream()
    expected = run(Q.contiguous(), K[:1].expand(2, 45, 16).contiguous(), V.contiguous())
    big = torch.full((2, 91, 24), float("nan"), device=device)
    big[:, 1::2, ::2] = V
    views = (Q.transpose(1, 2).contiguous().transpose(1, 2), K[:1].expand(2, 45, 16))
    got = run(*views, big[:, 1::2, ::2])
    assert views[0].stride()[1:] == (1, 37) and views[1].stride()[0] == 0
    assert isinstance(got, torch.Tensor) and isinstance(expected, torch.Tensor)
    # A GPU's kernel is compiled for the strides, and may add in another order.
    close(got, expected.double(), 1e-5 if device == "cuda" else 1e-30)
    assert len(run.ready) == 2


def test_empty_grid_launches_nothing(device: str) -> None:
    X = torch.empty(0, 8, device=device)
    G, D = rows()(X, scale=1.0)
    assert G.shape == D.shape == (0,)


def test_empty_reduction_is_written_by_the_kernel(device: str) -> None:
    G, D = rows()(torch.empty(3, 0, device=device), scale=1.0)
    assert G.tolist() == [-float("inf")] * 3
    assert D.tolist() == [0.0] * 3
    Q, K, V = operands(device)
    got = stream()(Q, K[:, :0], V[:, :0])
    assert isinstance(got, torch.Tensor)
    assert torch.equal(got, torch.zeros_like(got))


def test_what_an_empty_grid_would_write_is_zero(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank of the grid that the buffer has not: nothing runs, the buffer holds zeros."""
    kernel = replace(rows_kernel(), grid=(GridRank("p", "P0"), GridRank("m", "M0")))

    def sevens(shape: tuple[int, ...], **options: Any) -> torch.Tensor:
        return torch.full(shape, 7.0, **options)

    monkeypatch.setattr(torch, "empty", sevens)
    G, D = plan((kernel,), ROWS)(torch.ones(3, 0, device=device), scale=1.0)
    assert G.tolist() == D.tolist() == [0.0] * 3


class Recorder:
    """Stands in for a Triton function; keeps grids and arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments, **options: self.calls.append((grid, arguments, options))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(launch, "load", lambda kernel: recorder)
    return recorder


def test_arguments_and_grid(recorder: Recorder, device: str) -> None:
    Q, K, V = operands(device)
    K = K.transpose(1, 2).contiguous().transpose(1, 2)
    O = stream()(Q, K, V)  # noqa: E741
    ((grid, arguments, options),) = recorder.calls
    assert grid == (2 * 2,)  # b, and two tiles of 32 for p = 37
    assert options == {"num_warps": 8, "num_stages": 2, "enable_fp_fusion": True}
    assert [a.data_ptr() for a in arguments[:4]] == [t.data_ptr() for t in (Q, K, V, O)]  # type: ignore[union-attr]
    assert arguments[4:] == (
        *(37 * 16, 16, 1),
        *(45 * 16, 1, 45),
        *(45 * 12, 12, 1),
        *(37 * 12, 12, 1),
        *(37, 45, 16, 12),
        *(32, 32, 16, 16),
    )


def test_buffers_are_passed_on_and_generations_counted(recorder: Recorder, device: str) -> None:
    first = Kernel(
        name="first",
        text="",
        arguments=(Argument("pointer", "X", "X"), Argument("pointer", "H", "H")),
        grid=(GridRank("p"),),
        tiles=(),
        reads=("X",),
        writes=(Buffer("H", ("m", "p"), "float32", generations="m"),),
    )
    second = replace(
        first,
        name="second",
        arguments=(
            Argument("pointer", "H", "H"),
            Argument("stride", "H_m", "H", position=0),
            Argument("pointer", "G", "G"),
            Argument("pointer", "D", "D"),
        ),
        reads=("H",),
        writes=(Buffer("G", ("p",), "float16"), Buffer("D", (), "int32")),
    )
    X = torch.zeros(3, 5, device=device)
    G, D = plan((first, second), ROWS)(X, scale=1)
    (_, (x, written), _), (_, (read, stride, g, d), _) = recorder.calls
    assert x is X and read is written and g is G and d is D
    assert written.shape == (6, 3) and stride == 3
    assert (G.dtype, D.dtype, D.shape) == (torch.float16, torch.int32, ())


def test_extents_are_the_tensors(recorder: Recorder, device: str) -> None:
    """Of inputs read at expressions, whose shape no rank tells, and of buffers."""
    added = (Argument("extent", "X_length", "X", 1), Argument("extent", "H_length", "H", 0))
    kernel = replace(
        rows_kernel(),
        arguments=(Argument("pointer", "X", "X"), *added),
        writes=(*rows_kernel().writes, Buffer("H", ("m",), "float32", generations="m")),
    )
    X = torch.zeros(3, 5, device=device)
    plan((kernel,), ROWS)(X, scale=1.0)
    assert recorder.calls[0][1][1:] == (5, 6)


def test_descriptors_get_their_memory_in_every_thread(
    recorder: Recorder, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []

    def set_allocator(allocator: Any) -> None:
        assert allocator is launch.workspace
        given.append((threading.get_ident(), len(recorder.calls)))

    monkeypatch.setattr(triton(), "set_allocator", set_allocator)
    X = torch.zeros(3, 5, device=device)
    rows()(X, scale=1.0)
    assert given == []
    run = plan((replace(rows_kernel(), descriptors=True),), ROWS)
    run(X, scale=1.0)
    thread = threading.Thread(target=lambda: run(X, scale=1.0))
    thread.start()
    thread.join()
    # Each time before the launch, by the thread that launches.
    assert given == [(threading.get_ident(), 1), (thread.ident, 2)]


def test_inconsistent_kernels_are_our_fault() -> None:
    kernel = rows_kernel()
    with pytest.raises(VerificationError, match="reads Z"):
        plan((replace(kernel, reads=("Z",)),), ROWS)
    with pytest.raises(VerificationError, match="output D"):
        plan((replace(kernel, writes=kernel.writes[:1]),), ROWS)
    with pytest.raises(VerificationError, match="writes X"):
        plan((replace(kernel, writes=(Buffer("X", ("p",), "float32"),)),), ROWS)
    other = replace(kernel, writes=(Buffer("G", ("p",), "float16"),))
    with pytest.raises(VerificationError, match="declared differently"):
        plan((kernel, other), ROWS)


def test_unknown_argument_is_our_fault(recorder: Recorder, device: str) -> None:
    kernel = replace(rows_kernel(), arguments=(Argument("stride", "X_q", "X", position=2),))
    with pytest.raises(VerificationError, match="kernel rows asks for an argument"):
        plan((kernel,), ROWS)(torch.zeros(3, 5, device=device), scale=1.0)


def test_ready_is_keyed_by_all_that_matters(recorder: Recorder, device: str) -> None:
    run = rows()
    X = torch.zeros(4, 6, device=device)
    run(X, scale=1)
    run(X.clone(), scale=1)
    assert len(run.ready) == 1
    calls: list[tuple[torch.Tensor, Any]] = [
        (X, 1.0),
        (X, True),
        (X, 2),
        (X.half(), 1),
        (X.t().contiguous().t(), 1),
        (X[:3], 1),
        (X[:3, :3], 1),
    ]
    for tensor, scale in calls:
        run(tensor, scale=scale)
    assert len(run.ready) == 1 + len(calls)
    kinds = [type(arguments[9]) for _, arguments, _ in recorder.calls]
    flag = bool if device == "cuda" else int  # which Triton's interpreter cannot be given
    assert kinds == [int, int, float, flag, int, int, int, int, int]


def test_ready_does_not_grow_without_bound(recorder: Recorder, device: str) -> None:
    run = rows()
    for m in range(READY_LIMIT + 10):
        run(torch.empty(1, m, device=device), scale=1.0)
    assert len(run.ready) == READY_LIMIT
    newest = (((1, READY_LIMIT + 9), (max(READY_LIMIT + 9, 1), 1)),)
    assert next(reversed(run.ready))[0][0][:2] == newest[0]


def test_wrong_calls_say_what_to_write(device: str) -> None:
    X = torch.zeros(4, 6, device=device)
    run = rows()
    wrong: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
        ((), {"scale": 1.0}, ShapeError, r"takes 1 tensors \(X\); 0 given"),
        ((X, X), {"scale": 1.0}, ShapeError, "2 given"),
        ((X,), {}, ShapeError, "scale=..."),
        ((X,), {"scale": 1.0, "W": 3}, ShapeError, "'W'.*scale"),
        ((X,), {"scale": "1"}, ShapeError, "scale"),
        ((X,), {"scale": [1.0]}, ShapeError, "scale"),
        ((X,), {"scale": torch.ones(())}, ShapeError, r"\.item\(\)"),
        ((X.double(),), {"scale": 1.0}, BackendError, r"X\.float\(\)"),
        ((X.to(torch.complex64),), {"scale": 1.0}, BackendError, "X is complex64"),
        ((X.cpu().numpy(),), {"scale": 1.0}, BackendError, "X is a ndarray"),
        ((X.to_sparse(),), {"scale": 1.0}, BackendError, "strided"),
        ((X.to("meta"),), {"scale": 1.0}, BackendError, "not on meta"),
    ]
    for tensors, parameters, kind, text in wrong:
        with pytest.raises(kind, match=text):
            run(*tensors, **parameters)
    assert not run.ready
    Q, K, V = operands(device)
    with pytest.raises(BackendError, match="K on meta"):
        stream()(Q, K.to("meta"), V)
    with pytest.raises(ShapeError):
        stream()(Q, K[:, :, :15], V)


def test_cpu_tensors_need_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einfall.backends.triton_arguments.interpreting", lambda: False)
    with pytest.raises(BackendError, match="TRITON_INTERPRET=1"):
        rows()(torch.zeros(4, 6), scale=1.0)


def test_bfloat16_is_refused_in_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einfall.backends.triton_arguments.interpreting", lambda: True)
    with pytest.raises(BackendError, match="X is bfloat16"):
        rows()(torch.zeros(4, 6, dtype=torch.bfloat16), scale=1.0)


def test_numpy_numbers_are_numbers(recorder: Recorder, device: str) -> None:
    run: Callable[..., Any] = rows()
    for scale in (numpy.float32(0.5), numpy.int64(2), numpy.array(0.25)):
        run(torch.zeros(4, 6, device=device), scale=scale)
    passed = [arguments[9] for _, arguments, _ in recorder.calls]
    assert passed == [0.5, 2, 0.25]
    assert [type(x) for x in passed] == [float, int, float]


def test_default_of_a_parameter(recorder: Recorder, device: str) -> None:
    cascade = Cascade(ROWS.name, ROWS.inputs, (("scale", 0.25),), ROWS.einsums, ROWS.outputs)
    run = plan((rows_kernel(),), cascade)
    run(torch.zeros(4, 6, device=device))
    run(torch.zeros(4, 6, device=device), scale=3.0)
    assert [arguments[9] for _, arguments, _ in recorder.calls] == [0.25, 3.0]


def test_grid_too_large_names_the_rank(recorder: Recorder, device: str) -> None:
    kernel = replace(rows_kernel(), grid=(GridRank("p"), GridRank("m", "M0")))
    X = torch.zeros(1, 1, device=device).expand(2**31, 40)
    with pytest.raises(BackendError, match="p: 2147483648 x m: 2.*parts of p"):
        plan((kernel,), ROWS)(X, scale=1.0)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (2, 0, 3), (0,), (1, 1)])
def test_strides_are_torchs(shape: tuple[int, ...]) -> None:
    assert contiguous_strides(shape) == torch.empty(shape).stride()


def test_overhead_of_a_call(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """All that a plan adds to a launch, allocation included, in the best of many rounds."""

    class Nothing:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *arguments, **options: None

    monkeypatch.setattr(launch, "load", lambda kernel: Nothing())
    Q, K, V = operands(device)
    run = stream()
    run(Q, K, V)
    rounds = []
    for _ in range(60):
        start = time.perf_counter()
        for _ in range(50):
            run(Q, K, V)
        rounds.append((time.perf_counter() - start) / 50)
    best = min(rounds) * 1e6
    print(f"{best:.2f} us a call beyond the launch itself")
    assert best < 20


@pytest.mark.parametrize("filter", ["m <= p // B", "m % B == 0", "m // (2 * B) < 3"])
def test_a_parameter_that_divides_by_zero_is_refused(filter: str) -> None:
    cascade = einfall.cascade(
        f"def f(X, *, B):\n    S[p, m: {filter}] = X[p, m]\n    O[p] = S[p, m]\n    return O"
    )
    f = einfall.compile(cascade, backend="triton")
    with pytest.raises(einfall.ShapeError, match="divides by 0, and kernels"):
        f(torch.zeros(4, 5), B=0)
    with pytest.raises(einfall.ShapeError, match="divides by 0, and kernels"):
        f.lower(sizes={}, B=0)
    einfall.interpret(cascade, torch.zeros(4, 5), B=0)
