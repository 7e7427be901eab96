"""Gluon kernels: run on a machine with adversarial memory, broken on purpose, refused with reasons.

The machine is ``gluon_machine.py``; truth is the interpreter in float64.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.launch import count_programs
from einfall.backends.lowered import Lowered
from einfall.ir.errors import BackendError
from einfall.ir.sizes import bind_parameters, rank_sizes

from .gluon_machine import DeadlockError, arguments, run_text
from .kernel_cases import outputs, relative

SIZES = {"b": 1, "h": 2, "p": 200, "m": 333, "e": 64, "f": 64}
"""Two tiles of rows, three of what is walked, all cut at the end."""

NAMES = (
    "causal_lse", "sliding_window", "sink_window", "gqa", "alibi", "softcap", "entropy", "sigmoid",
    "relative_bias", "differential", "l2_normalised", "document", "moa",
)  # fmt: skip


@cache
def case(name: str, rows: int = 200, columns: int = 333, width: int = 64) -> Any:
    """Return an example's arguments, parameters and true outputs."""
    from einfall.examples.inputs import make

    sizes = SIZES | {"p": rows, "m": columns, "e": width, "f": width}
    if name == "document":
        sizes["m"] = rows
    arrays, parameters = make(name, seed=5, scale=sizes)
    tensors = [torch.from_numpy(np.asarray(x)) for x in arrays]
    tensors = [x.half() if x.dtype.is_floating_point else x for x in tensors]
    truth = einfall.interpret(getattr(examples, name), *tensors, **parameters)
    return tensors, parameters, outputs(truth)


def lowered(name: str, *, choice: int = 0, **options: int) -> Lowered:
    tensors, parameters, _ = case(name, **options)
    whole = {"m": 1}  # never in parts
    f = einfall.compile(getattr(examples, name), emitter="gluon", target="sm_90", parts=whole)
    return f.lower(*tensors, choice=choice, **parameters)


def run(
    found: Lowered,
    tensors: list[torch.Tensor],
    parameters: Mapping[str, Any],
    *,
    seed: int = 0,
    programs: int | None = None,
    text: str | None = None,
) -> tuple[np.ndarray, ...]:
    """Run a lowering's kernels on the machine; return the outputs."""
    cascade = found.cascade
    values = bind_parameters(cascade, parameters)
    memory = {n: x.numpy() for n, x in zip(cascade.inputs, tensors, strict=True)}
    sizes = rank_sizes(cascade, {n: x.shape for n, x in memory.items()}, values)
    for kernel in found.kernels:
        for b in kernel.writes:
            shape = [b.extent(r, sizes.get(r, 0)) for r in b.ranks]
            nothing = np.nan if np.issubdtype(np.dtype(b.dtype), np.floating) else 2**30
            nothing = 0 if b.zeros else nothing
            memory[b.tensor] = np.full(shape, nothing, np.dtype(b.dtype))
        given = arguments(kernel, memory, sizes, values)
        count = count_programs(kernel, sizes)
        if programs is not None and kernel.persistent:
            count = min(count, programs)
        run_text(kernel, given, count, seed, text)
    return tuple(memory[n] for n in cascade.outputs)


def assert_right(
    name: str, *, seed: int = 0, choice: int = 0, programs: int = 2, **sizes: int
) -> None:
    tensors, parameters, truth = case(name, **sizes)
    got = run(
        lowered(name, choice=choice, **sizes), tensors, parameters, seed=seed, programs=programs
    )
    for x, expected in zip(got, truth, strict=True):
        assert relative(x, expected) < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_kernel_computes_what_the_cascade_means(name: str) -> None:
    assert_right(name)


def choice_of(consumers: int, persistent: bool, **sizes: int) -> int:
    """Return the number of the first configuration with such a crew."""
    for choice in range(10):
        crew = lowered("attention", choice=choice, **sizes).mapping.kernels[0].crew
        if crew is not None and (crew.consumers, crew.persistent) == (consumers, persistent):
            return choice
    raise AssertionError("no configuration has such a crew")


@pytest.mark.parametrize("persistent", (False, True))
@pytest.mark.parametrize("consumers", (2, 3))
def test_every_crew_computes_the_same(consumers: int, persistent: bool) -> None:
    choice = choice_of(consumers, persistent, rows=450)
    assert_right("attention", choice=choice, rows=450, seed=choice)


SHARED_OPERAND = """
def keys_are_values(Q, K):
    S[b, h, p, m] = Q[b, h, p, e] * K[b, h, m, e] / 8
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, e] = A[b, h, p, m] * K[b, h, m, e]
    return O
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_tile_of_early_and_late_products_is_kept_for_both(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((1, 2, 130, 64), (1, 2, 600, 64))
    tensors = [torch.randn(s, generator=generator).half() for s in shapes]
    cascade = einfall.cascade(SHARED_OPERAND)
    f = einfall.compile(cascade, emitter="gluon", target="sm_90", parts={"m": 1})
    found = f.lower(*tensors)
    assert found.source.count("_ring = ") == 1
    (got,) = run(found, tensors, {}, seed=seed, programs=2)
    assert relative(got, einfall.interpret(cascade, *tensors)) < 1e-3


@pytest.mark.parametrize("width", (80, 128, 256))
def test_widths_of_one_part_and_of_two(width: int) -> None:
    assert_right("causal", rows=130, columns=260, width=width)


@pytest.mark.parametrize("seed", range(2))
def test_rings_go_round(seed: int) -> None:
    assert_right("attention", rows=128, columns=650, seed=seed)
    assert_right("causal_lse", rows=400, columns=400, seed=seed)


BREAKS = {
    "early operands let go too soon": (
        r"( +s_sum = warpgroup_mma_wait\(1, .*\n)( +release\(k_empty, step\)\n)", r"\2\1"),
    "late operands let go too soon": (
        r"( +o_sum = warpgroup_mma_wait\(0, .*\n)( +release\(v_empty, step - 1\)\n)", r"\2\1"),
    "a full slot taken for empty": (r"\(step // STAGES & 1\) \^ 1", "step // STAGES & 1"),
    "an empty slot taken for full": (
        r"full\.index\(slot\), step // STAGES & 1", "full.index(slot), step // STAGES & 1 ^ 1"),
    "too many products under way": (r"warpgroup_mma_wait\(1,", "warpgroup_mma_wait(2,"),
    "the late products of this tile": (
        r"m_first_before, 0\), v_ring, v_full", "m_first, 0), v_ring, v_full"),
    "rows that never leave": (r" +tma\.store_wait\(0\)\n", ""),
    "a turn not passed on": (r"( +)pass_turn\(CONSUMER\)\n +s_sum", r"\1s_sum"),
    "one consumer answers for both": (r"barriers\(STAGES, CONSUMERS\)", "barriers(STAGES, 1)"),
    "rows fetched over rows in use": (
        r"( +for m_first in range\((?:.|\n)*)( +mbarrier\.arrive\(q_empty\.index\(CONSUMER\)\)\n)",
        r"        mbarrier.arrive(q_empty.index(CONSUMER))\n\1"),
}  # fmt: skip
"""Ways to break the protocol: a pattern, and what stands for it."""


@pytest.mark.parametrize("how", BREAKS)
def test_machine_catches_a_broken_protocol(how: str) -> None:
    pattern, other = BREAKS[how]
    sizes = {"rows": 200, "columns": 600}
    tensors, parameters, truth = case("attention", **sizes)
    found = lowered("attention", **sizes)
    begin = found.source.index("def attention_rows") if "q_empty" in pattern else 0
    text = found.source[:begin] + re.sub(pattern, other, found.source[begin:])
    assert text != found.source
    for seed in range(3):
        try:
            got = run(found, tensors, parameters, seed=seed, programs=2, text=text)
        except (AssertionError, DeadlockError):
            return
        if not np.isfinite(got[0]).all() or relative(got[0], truth[0]) > 1e-3:
            return
    pytest.fail(f"nothing noticed: {how}")


REFUSED = {
    "rope_in_kernel": "right side was not fetched",
    "padding": "right side was not fetched",
    "cosine": "no operand alone",
    "linear": "walks one rank once",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_says_why(name: str) -> None:
    with pytest.raises(BackendError, match=REFUSED[name]):
        sizes = {"e": 64, "f": 64}
        einfall.compile(getattr(examples, name), emitter="gluon").lower(sizes=sizes, target="sm_90")


def test_other_targets_and_short_ranks_are_refused() -> None:
    f = einfall.compile(examples.attention, emitter="gluon")
    with pytest.raises(BackendError, match="sm_80 has no such kernels"):
        f.lower(sizes={"e": 64, "f": 64}, target="sm_80")
    with pytest.raises(BackendError, match="p has fewer than 128"):
        f.lower(sizes={"e": 64, "f": 64, "p": 1}, target="sm_90")
    with pytest.raises(BackendError, match="K is not laid out for descriptors"):
        f.lower(sizes={"e": 63, "f": 64}, target="sm_90")
    with pytest.raises(BackendError, match="emitter is one of auto, tl, gluon"):
        einfall.compile(examples.attention, emitter="cuda")


LARGE = {"b": 4, "h": 16, "p": 4096, "m": 4096, "e": 128, "f": 128}


@pytest.mark.parametrize(
    ("name", "sizes", "reason"),
    [
        ("causal", LARGE, ""),
        ("softcap", LARGE, ""),
        ("attention", {"e": 64, "f": 64}, ""),
        ("causal", LARGE | {"m": 512}, ""),
        ("causal", LARGE | {"m": 128}, ""),
        ("causal", LARGE | {"m": 127}, "m has fewer than 128 coordinates"),
        ("causal", LARGE | {"m": 512, "e": 64, "f": 64}, "m has fewer than 1024 coordinates"),
        ("causal", LARGE | {"b": 1, "h": 1}, ""),
        ("causal", LARGE | {"b": 1, "h": 1, "p": 3968}, "31 tiles of rows leave most of 132"),
        (
            "causal",
            LARGE | {"e": 64, "f": 64, "b": 1, "h": 1},
            "32 tiles of rows leave most of 132",
        ),
        ("attention", LARGE | {"e": 256, "b": 1, "h": 1}, "32 tiles of rows leave most of 132"),
        ("attention", LARGE | {"e": 256, "f": 256}, ""),
        ("attention", LARGE | {"e": 512}, "more than 256 features"),
        ("sliding_window", LARGE, ""),
        ("sink_window", LARGE, ""),
        ("differential", LARGE, ""),
        ("differential", LARGE | {"e": 256}, "several products of more than 128 features"),
    ],
)
def test_automatic_choice_and_its_reason(
    name: str, sizes: dict[str, int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("einfall.backends.compile.gluon_missing", str)  # there is a GPU
    f = einfall.compile(getattr(examples, name), target="sm_90", parts={"m": 1})
    found = f.lower(sizes=sizes, dtype="bfloat16")
    emitter = found.mapping.kernels[0].emitter
    assert found.kernels[0].language == ("triton" if reason else "gluon")
    assert emitter.startswith(f"tl, because {reason}" if reason else "gluon")
    shown = str(found.explain())
    assert ("written in Triton, not in Gluon: " + reason if reason else "one warp fetches") in shown


@pytest.mark.parametrize("backwards", [False, True])
def test_a_choice_is_of_its_sizes_whatever_was_lowered_before(
    backwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("einfall.backends.compile.gluon_missing", str)  # there is a GPU
    f = einfall.compile(examples.attention, target="sm_90", parts={"m": 1})
    sizes = {"b": 1, "h": 8, "m": 2048, "e": 64, "f": 64}
    reasons = {
        1000: "tl, because 62 tiles of rows leave most of 132",
        1024: "gluon",
        1100: "gluon",
        2048: "gluon",
    }
    for rows in sorted(reasons, reverse=backwards):
        found = f.lower(sizes={**sizes, "p": rows}, dtype="bfloat16").mapping.kernels[0]
        assert found.emitter.startswith(reasons[rows])


def test_what_is_saved_is_in_triton(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("einfall.backends.compile.gluon_missing", str)  # there is a GPU
    f = einfall.compile(examples.causal, target="sm_90")
    found = f.lower(sizes=LARGE, dtype="bfloat16")
    assert found.kernels[0].language == "gluon"
    text = found.save(tmp_path / "causal.py").read_text()
    assert "tl.dot(" in text and "gluon" not in text
    forced = einfall.compile(examples.causal, target="sm_90", emitter="gluon")
    with pytest.raises(BackendError, match="cannot be saved alone"):
        forced.lower(sizes=LARGE).save(tmp_path / "forced.py")


def test_crew_of_three_only_where_the_work_is_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einfall.passes.specialise.RESTS", 10**9)  # two are faster where they rest
    sizes = LARGE | {"e": 64, "f": 64}
    crews = {}
    for name in ("attention", "causal", "softcap"):
        f = einfall.compile(getattr(examples, name), emitter="gluon", target="sm_90")
        crew = f.lower(sizes=sizes, dtype="bfloat16").mapping.kernels[0].crew
        assert crew is not None
        crews[name] = crew.consumers
    assert crews == {"attention": 3, "causal": 2, "softcap": 2}


@pytest.mark.parametrize("name", ("causal_lse", "sink_window", "differential"))
def test_einsums_of_late_products_stand_above_them(name: str) -> None:
    text = lowered(name).source
    for tensor in {"O_sum", "O_sum_2"} & set(re.findall(r"\w+", text)):
        quoted = re.findall(rf"# {tensor}\[.*\n((?:.+\n)+)", text)
        assert len(quoted) >= 2
        assert all(f"{tensor.lower()} = warpgroup_mma(" in lines for lines in quoted)


@pytest.mark.parametrize("name", ("causal_lse", "sink_window", "entropy"))
def test_text_is_formatted_and_clean(name: str, tmp_path: Path) -> None:
    for choice in (0, 1):
        text = lowered(name, choice=choice).source
        file = tmp_path / f"{name}_{choice}.py"
        file.write_text(text)
        command = [
            sys.executable,
            "-m",
            "ruff",
            "format",
            "--line-length",
            "100",
            "--diff",
            str(file),
        ]
        told = subprocess.run(command, capture_output=True, text=True)
        assert told.returncode == 0, told.stdout
        command = [sys.executable, "-m", "ruff", "check", "--select", "F,I,W", str(file)]
        told = subprocess.run(command, capture_output=True, text=True)
        assert told.returncode == 0, told.stdout
