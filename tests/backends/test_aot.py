"""Each report here is compiled once, in a process of its own; together they take some seconds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from einfall.backends.aot import Report, check, compile_ahead, problems, register_file, shared_limit
from einfall.backends.triton_compile import signature
from einfall.ir.errors import BackendError

from .hand_kernels import rows_kernel, stream_kernel

HALVES = {"Q": "float16", "K": "float16", "V": "float16"}


@cache
def stream_report(target: str) -> Report:
    # More than four of AMD's wide warps would compute some of the rows twice.
    amd = stream_kernel(m=64, num_warps=4, num_stages=1)
    kernel = amd if target == "gfx942" else stream_kernel()
    return compile_ahead(kernel, HALVES, target)


@cache
def starved_report() -> Report:
    """Too few warps for the tile, and more shared memory than there is."""
    return compile_ahead(stream_kernel(num_warps=4, num_stages=4), HALVES, "sm_90")


@pytest.mark.parametrize(
    ("target", "instruction"),
    [("sm_80", "mma"), ("sm_90", "wgmma"), ("sm_100", "tcgen05"), ("gfx942", "mfma")],
)
def test_every_target_gets_its_dots(target: str, instruction: str) -> None:
    report = stream_report(target)
    assert dict(report.tensor_core).keys() == {instruction}
    (loop,) = report.loops
    assert loop.innermost and loop.tensor_core >= 8
    # One for each score of the tile, shared by the program's threads, and one or two a row.
    scores, threads = (128 * 64, 4 * 64) if target == "gfx942" else (128 * 128, 8 * 32)
    assert scores // threads < loop.exponentials <= scores // threads + 2
    assert 64 < report.registers <= 512
    check(report, tensor_core=instruction)


def test_hopper_in_numbers() -> None:
    report = stream_report("sm_90")
    assert report.num_warps == 8
    # Q once, K and V twice (two stages), 128 x 128 halves each.
    assert report.shared == 5 * 128 * 128 * 2
    assert report.spill_stores == report.spill_loads == report.stack == 0
    assert "HGMMA" in report.assembly
    assert "16 wgmma" in str(report)


def test_spills_and_shared_memory_are_found() -> None:
    report = starved_report()
    assert report.spill_stores > 0 and report.stack > 0
    assert sum(x.local_loads + x.local_stores for x in report.loops) > 10
    found = " | ".join(problems(report))
    assert "spills" in found and "shared memory" in found and "serialized" in found
    with pytest.raises(BackendError, match="stream for sm_90: loop 0"):
        check(report)
    assert "spills" not in " | ".join(problems(report, local=10_000))


def test_bounds_that_a_caller_sets() -> None:
    report = stream_report("sm_90")
    assert problems(report, registers=report.registers) == ()
    assert problems(report, registers=report.registers - 1)
    assert "no tcgen05 instruction, only wgmma" in problems(report, tensor_core="tcgen05")
    none = replace(report, tensor_core=())
    assert problems(none) == ("no tensor-core instruction",)
    assert problems(none, tensor_core=False) == ()


def test_what_is_known_of_the_arguments_matters() -> None:
    """Strides that are no multiple of 16 forbid wide loads: more, narrower instructions."""
    kernel = rows_kernel(16, 128)
    dtypes = {"X": "float32", "scale": "float32"}
    wide = compile_ahead(kernel, dtypes)
    narrow = compile_ahead(kernel, dtypes, divisible=False)
    assert wide.assembly.count("LDG.E.128") > narrow.assembly.count("LDG.E.128") == 0
    assert problems(wide, tensor_core=False) == ()


def test_text_that_does_not_compile() -> None:
    kernel = rows_kernel()
    wrong = replace(kernel, text=kernel.text.replace("tl.max(y, 1)", "tl.max(y, 7)"))
    with pytest.raises(BackendError, match="rows does not compile for sm_90.*CompilationError"):
        compile_ahead(wrong, {"X": "float32", "scale": "float32"})


def test_compiler_that_dies() -> None:
    kernel = rows_kernel()
    wrong = replace(kernel, text="import os\n\nos._exit(3)\n" + kernel.text)
    with pytest.raises(BackendError, match="exit status 3"):
        compile_ahead(wrong, {"X": "float32", "scale": "float32"})


def test_signature_is_the_launchers() -> None:
    kernel = stream_kernel(dtype="float32")
    told = signature(kernel, HALVES)
    types = dict(told.types)
    assert types["Q"] == "*fp16" and types["O"] == "*fp32"
    assert types["K_b"] == types["K_m"] == types["P"] == "i32"
    assert types["K_e"] == types["M0"] == "constexpr"
    names = [name for name, _ in told.types]
    constants = {names[i]: value for i, value in told.constants}
    assert constants == {
        **dict.fromkeys(("Q_e", "K_e", "V_f", "O_f"), 1),
        **dict.fromkeys(("P0", "M0", "E0", "F0"), 128),
    }
    assert {names[i] for i in told.multiples} == set(names) - set(constants)
    loose = signature(kernel, HALVES, divisible=False, unit_strides=[("K", 1)])
    assert {names[i] for i in loose.multiples} == {"Q", "K", "V", "O"}
    assert dict(loose.types)["K_m"] == "constexpr" and dict(loose.types)["K_e"] == "i32"


def test_missing_dtypes_and_unknown_targets() -> None:
    with pytest.raises(BackendError, match="dtype for V"):
        signature(stream_kernel(), {"Q": "float16", "K": "float16"})
    with pytest.raises(BackendError, match="dtype for scale"):
        signature(rows_kernel(), {"X": "float32"})
    with pytest.raises(BackendError, match="dtype for X"):
        signature(rows_kernel(), {"X": "float64", "scale": "float32"})
    with pytest.raises(BackendError, match="'sm_70' is none of them"):
        compile_ahead(stream_kernel(), HALVES, "sm_70")


def test_facts() -> None:
    limits = {name: shared_limit(name) for name in ("sm_80", "sm_90", "sm_100", "gfx942")}
    assert limits == {"sm_80": 166912, "sm_90": 232448, "sm_100": 232448, "gfx942": 65536}
    assert register_file("sm_90") == 65536
