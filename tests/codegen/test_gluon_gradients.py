"""Kernels of gradients in Gluon: tiles in order, vectors fetched, run on the adversarial machine.

What has no Gluon kernel, a sum ahead of the loops, is taken from the interpreter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.aot import check, compile_ahead
from einfall.backends.arguments import lowering_key
from einfall.backends.launch import count_programs
from einfall.backends.lowered import emit, lower_cascade
from einfall.codegen.kernel import Kernel
from einfall.examples.inputs import make
from einfall.ir.cascade import Cascade
from einfall.ir.errors import BackendError
from einfall.ir.mapping import MappedKernel
from einfall.ir.sizes import bind_parameters, rank_sizes
from einfall.passes.differentiate import gradient
from einfall.passes.pipeline import map_cascade

from .gluon_machine import DeadlockError, arguments, run_text
from .kernel_cases import relative

SIZES = {"b": 1, "h": 2, "p": 200, "m": 328, "e": 64, "f": 64}


@dataclass(frozen=True)
class Case:
    """A gradient with arguments and true values, and its kernels: None where none is in Gluon."""

    backward: Cascade
    memory: Mapping[str, np.ndarray]
    truth: Mapping[str, np.ndarray]
    parameters: Mapping[str, Any]
    kernels: tuple[tuple[MappedKernel, Kernel | None], ...]
    dtypes: Mapping[str, str]


@cache
def case(
    name: str,
    rows: int = 200,
    columns: int = 328,
    width: int = 64,
    *,
    choice: int = 0,
    atomics: bool = False,
    in_turn: bool = False,
) -> Case:
    """Return the gradient of an example by Q, K and V."""
    sizes = SIZES | {"p": rows, "m": columns, "e": width, "f": width}
    cascade = getattr(examples, name)
    found, parameters = make(name, seed=5, scale=sizes)
    arrays = [np.asarray(x, np.float16) for x in found]
    made = gradient(cascade, wrt=("Q", "K", "V"), sizes=sizes)
    kept = einfall.interpret(made.forward, *arrays, **parameters)
    memory = dict(zip(cascade.inputs, arrays, strict=True))
    memory |= zip(made.forward.outputs, kept if isinstance(kept, tuple) else (kept,), strict=True)
    generator = np.random.default_rng(7)
    for seed, of in zip(made.seeds, made.of, strict=True):
        memory[seed] = generator.standard_normal(np.shape(memory[of]))
    backward = made.backward
    wide = {n for n in backward.inputs if n.endswith("_kept")}
    tensors = [torch.from_numpy(np.asarray(memory[n])) for n in backward.inputs]
    tensors = [
        x.float() if n in wide else x.half() for n, x in zip(backward.inputs, tensors, strict=True)
    ]
    given = {n: v for n, v in parameters.items() if n in dict(backward.parameters)}
    f = einfall.compile(backward, target="sm_90", parts={})
    known = f.lower(*tensors, **given).known
    known = replace(known, emitter="gluon", choice=choice, atomics=atomics, in_turn=in_turn)
    mapping, _ = map_cascade(backward, known)
    kernels: list[tuple[MappedKernel, Kernel | None]] = []
    stored = list(backward.outputs)
    for kernel in mapping.kernels:
        try:
            kernels.append(emit(mapping, kernel, known))
        except BackendError:
            kernels.append((kernel, None))
        stored += kernel.writes
    wanted = tuple(dict.fromkeys(stored))
    values = einfall.interpret(replace(mapping.cascade, outputs=wanted), *tensors, **given)
    return Case(
        backward,
        {n: x.numpy() for n, x in zip(backward.inputs, tensors, strict=True)},
        dict(zip(wanted, values, strict=True)),
        bind_parameters(backward, given),
        tuple(kernels),
        dict(mapping.dtypes),
    )


@pytest.fixture(autouse=True)
def as_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pair tiles of rows as where there are more of them than multiprocessors."""
    monkeypatch.setattr("einfall.passes.specialise.worth_pairing", lambda *_: True)


def run(
    found: Case, kernel: Kernel, seed: int, text: str | None = None, together: int = 1
) -> dict[str, np.ndarray]:
    """Run one kernel on the machine, so many programs at a time; return what it writes."""
    memory = dict(found.memory)
    shapes = {n: x.shape for n, x in memory.items()}
    sizes = rank_sizes(found.backward, shapes, found.parameters)
    for tensor in kernel.reads:
        if tensor not in memory:
            memory[tensor] = np.asarray(found.truth[tensor], np.float32)
    for b in kernel.writes:
        # what is added to, but not set by the first, was set to 0 by a kernel before
        added = adds_to(kernel, b.tensor) and not set_first(kernel, b.tensor)
        start = 0 if b.zeros or added else np.nan
        dtype = np.int32 if b.zeros else np.float32
        memory[b.tensor] = np.full([b.extent(r, sizes[r]) for r in b.ranks], start, dtype)
    given = arguments(kernel, memory, sizes, found.parameters)
    count = count_programs(kernel, sizes)
    run_text(kernel, given, min(count, 2) if kernel.persistent else count, seed, text, together)
    return {b.tensor: memory[b.tensor] for b in kernel.writes if not b.zeros}


def adds_to(kernel: Kernel, tensor: str) -> bool:
    """Whether a kernel adds to what memory holds."""
    return re.search(rf"add_box\(\s*{tensor}_box", kernel.text) is not None


def set_first(kernel: Kernel, tensor: str) -> bool:
    """Whether the first program sets what others add to."""
    return re.search(rf"shared_to_global\(\s*{tensor}_box", kernel.text) is not None


def noticed(found: Case, kernel: Kernel, text: str, seeds: int, together: int = 1) -> bool:
    """Whether the machine stops at a broken text, or makes something else of it, at some seed."""
    for seed in range(seeds):
        try:
            got = run(found, kernel, seed, text, together)
        except (AssertionError, DeadlockError):
            return True
        if not all(relative(x, found.truth[n]) < 1e-3 for n, x in got.items()):
            return True
    return False


def walking(found: Case, word: str) -> tuple[MappedKernel, Kernel]:
    """Return the Gluon kernel that writes a tensor."""
    ((mapped, kernel),) = [x for x in found.kernels if word in x[0].writes]
    assert kernel is not None
    return mapped, kernel


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("attention", 200, 136),
        ("causal", 200, 328),
        ("softcap", 136, 136),
        ("sliding_window", 200, 200),
        ("gqa", 136, 136),
    ],
)
def test_gradients_are_those_of_the_cascade(name: str, rows: int, columns: int) -> None:
    found = case(name, rows, columns)
    ran = 0
    for _, kernel in found.kernels:
        if kernel is None:
            continue
        ran += 1
        for tensor, x in run(found, kernel, seed=rows).items():
            assert relative(x, found.truth[tensor]) < 1e-3
    assert ran == 2


def test_eight_warps_hold_two_sums_of_256_features() -> None:
    found = case("causal", 150, 200, 256)
    mapped, kernel = walking(found, "K_grad")
    assert mapped.crew is not None and mapped.crew.wide and kernel.num_warps == 8
    for tensor, x in run(found, kernel, seed=3).items():
        assert relative(x, found.truth[tensor]) < 1e-3
    laid = re.findall(r"^    (\w+_laid)\.store\(", kernel.text, re.M)
    assert sorted(set(laid)) == ["a_laid", "s_grad_laid"]
    for name in laid:  # without an operand, or before it is there
        text = re.sub(rf"^    {name}\.store\(.*\n", "", kernel.text, flags=re.M)
        assert noticed(found, kernel, text, seeds=2)


def test_tiles_are_finished_in_order() -> None:
    mapped, kernel = walking(case("causal"), "K_grad")
    assert mapped.crew is not None and not mapped.crew.rotated and mapped.crew.paired
    assert mapped.crew.ahead
    body = kernel.text.partition("_tile(")[2].partition("return")[0]
    order = re.findall(r"(\w+) = warpgroup_mma(_wait)?\(", body)
    assert order == [
        ("a_grad", ""), ("v_grad", ""), ("a_grad", "_wait"), ("k_grad_sum", ""),
        ("v_grad", "_wait"), ("s_sum", ""), ("k_grad_sum", "_wait"), ("s_sum", "_wait"),
    ]  # fmt: skip


def test_tiles_that_may_be_cut_share_a_loop_with_whole_ones() -> None:
    found = case("causal")
    for word in ("Q_grad", "K_grad"):
        _, kernel = walking(found, word)
        assert "_whole(" not in kernel.text and "_cut(" not in kernel.text
        assert len(re.findall(r"^ +if [pm]_tested:", kernel.text, re.M)) == 1
    # zeros beyond the end add nothing, so that nothing is tested there
    _, kernel = walking(case("attention", 200, 136), "K_grad")
    assert "_tested" not in kernel.text


def test_a_product_begins_with_what_its_result_is_added_to() -> None:
    _, kernel = walking(case("causal"), "K_grad")
    assert kernel.text.count("nothing - a_log_grad_sum[None, :]") == 1
    assert "s_grad = a * a_grad\n" in kernel.text


def test_vectors_along_the_walk_come_by_descriptors() -> None:
    _, kernel = walking(case("causal"), "K_grad")
    boxes = {a.tensor: a.block for a in kernel.arguments if a.kind == "box"}
    assert boxes["A_log_kept"] == boxes["A_log_grad_sum"] == (1, 1, 128)
    assert "gl.load(" not in kernel.text


def test_vectors_that_no_descriptor_may_fetch_are_loaded() -> None:
    found = case("attention", 201, 136)
    _, kernel = walking(found, "K_grad")
    assert not any(a.kind == "box" and a.tensor == "A_log_kept" for a in kernel.arguments)
    for tensor, x in run(found, kernel, seed=3).items():
        assert relative(x, found.truth[tensor]) < 1e-3


@pytest.mark.parametrize(
    ("name", "rows", "columns", "width", "choice"),
    [
        ("attention", 200, 136, 128, 0),
        ("causal", 200, 328, 128, 1),
        ("sliding_window", 136, 136, 128, 0),
    ],
)
def test_shares_are_added_up(name: str, rows: int, columns: int, width: int, choice: int) -> None:
    found = case(name, rows, columns, width, choice=choice, atomics=True)
    (kernel,) = [x for _, x in found.kernels if x is not None]
    assert adds_to(kernel, "Q_grad_sum")
    assert len(kernel.writes) == 3
    for tensor, x in run(found, kernel, seed=columns).items():
        assert relative(x, found.truth[tensor]) < 1e-3


def test_a_length_that_no_descriptor_takes_is_lowered_anew() -> None:
    """Between kernels a row lies densely; 4 bytes each, 1001 of them are no multiple of 16."""
    cascade = einfall.cascade("""
def sums(Q, K, X):
    R[b, p] = sum[e](Q[b, p, e] * X[b, p, e])
    S[b, p, m] = Q[b, p, e] * K[b, m, e]
    T[b, p, m] = X[b, p, e] * K[b, m, e]
    Y[b, m, e] = sum[p](exp(S[b, p, m]) * (T[b, p, m] - R[b, p]) * Q[b, p, e])
    Z[b, m, e] = sum[p](exp(S[b, p, m]) * X[b, p, e])
    return Y, Z
""")
    f = einfall.compile(cascade, target="sm_90", parts={})
    keys = set()
    for length in (1000, 1001):
        shapes = [(1, length, 64), (1, 256, 64), (1, length, 64)]
        known = f.lower(*(torch.zeros(s, dtype=torch.float16) for s in shapes)).known
        keys.add(lowering_key(cascade, replace(known, emitter="gluon")))
    assert len(keys) == 2


BREAKS = {
    "an operand let go too soon": (
        r"( +k_grad_sum = warpgroup_mma\(.*\n)((?:.|\n)*?)( +release\(q_empty, step\)\n)",
        r"\1\3\2",
    ),
    "a vector fetched after its tile is full": (
        r"o_grad_full = barriers\(STAGES, 2",
        "o_grad_full = barriers(STAGES, 1",
    ),
    "too many products under way": (
        r"a_grad = warpgroup_mma_wait\(1",
        "a_grad = warpgroup_mma_wait(2",
    ),
    "a result of the next tile left running": (
        r"sum = warpgroup_mma_wait\(0",
        "sum = warpgroup_mma_wait(1",
    ),
    "a product ahead of this tile's operand": (r"q_full, step \+ 1\)", "q_full, step)"),
    "an operand of the next tile let go": (r"(release\(q_empty, step)\)", r"\1 + 1)"),
    "vectors of another tile": (r"a_log_kept_ring.index\(step", "a_log_kept_ring.index((step + 1)"),
    "a vector read before it is there": (
        r"filled\((a_log_grad_sum_ring), o_grad_full, step\)",
        r"\1.index(step % STAGES)",
    ),
}
"""Ways to break the order: a pattern, and what stands for it."""


@pytest.mark.parametrize("how", BREAKS)
def test_machine_catches_a_broken_order(how: str) -> None:
    found = case("causal", 400, 400)
    _, kernel = walking(found, "K_grad")
    text = re.sub(*BREAKS[how], kernel.text)
    assert text != kernel.text
    assert noticed(found, kernel, text, 5)


def test_nothing_spills_in_loops() -> None:
    found = case("causal", 2048, 2048, 128)
    _, kernel = walking(found, "K_grad")
    report = compile_ahead(kernel, dict(found.dtypes), "sm_90")
    check(report, local=40, tensor_core="wgmma")
    hot = [x for x in report.loops if x.innermost and x.tensor_core]
    spilled = [x.local_loads + x.local_stores for x in hot]
    assert spilled == [0, 0]  # of two groups of warps


def test_products_of_a_kernel_that_adds_do_not_wait_for_each_other() -> None:
    found = case("causal", 2048, 2048, 128, atomics=True)
    _, kernel = walking(found, "K_grad")
    report = compile_ahead(kernel, dict(found.dtypes), "sm_90")
    assert not report.warnings


def chosen(name: str, features: int, *, atomics: bool = False, in_turn: bool = False) -> list[str]:
    """Return the languages of a gradient's kernels that walk, where nobody asks for one."""
    sizes = {"b": 2, "h": 16, "p": 4096, "m": 4096, "e": features, "f": features}
    made = gradient(getattr(examples, name), wrt=("Q", "K", "V"), sizes=sizes)
    f = einfall.compile(made.backward, target="sm_90", parts={}, atomics=atomics)
    wide = {n: "float32" for n in made.backward.inputs if n.endswith("_kept")}
    found = f.lower(sizes=sizes, dtype="bfloat16", dtypes=wide)
    known = replace(found.known, emitter="auto", in_turn=in_turn)
    mapping, _ = map_cascade(made.backward, known)
    printed = [emit(mapping, k, known) for k in mapping.kernels if k.traversals]
    return [kernel.language for _, kernel in printed]


def test_what_was_measured_to_be_faster_is_chosen() -> None:
    for features in (64, 128):
        assert chosen("attention", features) == chosen("causal", features) == ["gluon", "gluon"]
    assert chosen("attention", 64, in_turn=True) == ["gluon"]
    assert chosen("attention", 128, in_turn=True) == ["gluon"]
    assert chosen("causal", 128, in_turn=True) == ["gluon"]
    assert chosen("relu_squared", 128, in_turn=True) != ["gluon"]
    assert chosen("causal", 128, atomics=True) == ["gluon"]
    assert chosen("causal", 64, atomics=True) == ["gluon"]
    assert chosen("softcap", 128) == ["gluon", "gluon"]
    # of 256 features four warps do not hold two sums, and eight do
    assert chosen("attention", 256) == chosen("causal", 256) == ["gluon", "gluon"]


def test_a_kernel_that_needs_nothing_of_the_one_before_runs_beside_its_last_programs() -> None:
    sizes = {"b": 2, "h": 16, "p": 2048, "m": 2048, "e": 128, "f": 128}
    made = gradient(examples.causal, wrt=("Q", "K", "V"), sizes=sizes)
    f = einfall.compile(made.backward, target="sm_90", parts={})
    wide = {n: "float32" for n in made.backward.inputs if n.endswith("_kept")}
    known = f.lower(sizes=sizes, dtype="bfloat16", dtypes=wide).known
    known = replace(known, emitter="auto", overlap=True)
    first, second, third = lower_cascade(made.backward, known).kernels
    assert (first.language, second.language, third.language) == ("triton", "gluon", "gluon")
    # the sums for each row are there before the second begins, and both others read them
    assert not second.follows and "    begin_next()\n" in second.text
    assert third.follows and "        end_last()\n" in third.text
    assert "end_last" not in second.text
    alone = lower_cascade(made.backward, replace(known, overlap=False)).kernels
    assert not any(k.follows or "griddepcontrol" in k.text for k in alone)


BREAKS_OF_SHARES = {
    "operands that are not laid down": (r"mbarrier.wait\(q_grad_sum_laid.*\n", "\n"),
    "operands of this tile": (
        r"(q_grad_sum_laid.index\()step( % 2\), )step",
        r"\1(step + 1)\2(step + 1)",
    ),
    "said too early": (
        r"( +q = q_ring(?:.|\n)*?)( +mbarrier.arrive\(q_grad_sum_laid.*\n)",
        r"\2\1",
    ),
    "given too early": (
        r"( +Q_grad_sum_box_rows.index\(step(?:.|\n)*?)( +mbarrier.arrive\(q_grad_sum_given.*\n)",
        r"\2\1",
    ),
    "taken while it is read": (
        r" +tma.store_wait\(0\)\n( +for i in .*\n +mbarrier.arrive\(q_grad_sum_taken)",
        r"\1",
    ),
    "added where another tile lies": (r"(_sum_box,\s+\(b, h, p_first)", r"\1 + P0"),
    "the last tile left out": (r"(_add\(ADDER(?:.|\n)*?range\(0, p_\w+)", r"\1 - P0"),
    "sums read while they run": (r"(q_grad_sum = warpgroup_mma_wait\()[01]", r"\g<1>2"),
    "one place for two tiles": (r"step % ADDERS \* CONSUMERS \+ CONSUMER", "CONSUMER"),
    "a warp takes another's tile": (r"step % ADDERS == ADDER", "step % ADDERS != ADDER"),
    "a warp takes each tile": (r"if step % ADDERS == ADDER", "if step >= ADDER"),
    "a place that was not left": (r"\(step // ADDERS & 1\) \^ 1", "step // ADDERS & 1"),
}
"""Ways to break what consumers share out."""


@pytest.mark.parametrize("how", BREAKS_OF_SHARES)
def test_machine_catches_broken_shares(how: str) -> None:
    found = case("attention", 264, 136, 128, atomics=True)
    (kernel,) = [x for _, x in found.kernels if x is not None]
    text = re.sub(*BREAKS_OF_SHARES[how], kernel.text)
    assert text != kernel.text
    assert noticed(found, kernel, text, 8)


@cache
def turns(rows: int, columns: int, width: int = 64, name: str = "attention") -> tuple[Case, Kernel]:
    """Return a gradient whose programs add in turn, and that kernel."""
    found = case(name, rows, columns, width, in_turn=True)
    mapped, kernel = walking(found, "K_grad")
    assert mapped.in_turn and mapped.crew is not None and mapped.crew.in_turn
    return found, kernel


@pytest.mark.parametrize("width", [64, 128])
def test_programs_that_run_at_once_add_in_turn(width: int) -> None:
    """Whoever is ahead, every sum is made in one order: that of the tiles of rows."""
    found, kernel = turns(200, 264, width)
    # of 128 features two warps add, each every other tile
    assert ("ADDERS = gl.constexpr(2)" in kernel.text) == (width == 128)
    alone = run(found, kernel, seed=0)
    together = run(found, kernel, seed=1, together=6)
    for tensor, x in alone.items():
        assert relative(x, found.truth[tensor]) < 1e-3
        assert np.array_equal(x, together[tensor])


@pytest.mark.parametrize(("rows", "columns"), [(200, 264), (264, 400)])
def test_programs_that_walk_from_elsewhere_add_in_turn_backwards(rows: int, columns: int) -> None:
    found, kernel = turns(rows, columns, 128, "causal")
    assert kernel.text.count("    p_at = p_at_end - P0 - p_back\n") == 3
    alone = run(found, kernel, seed=0)
    together = run(found, kernel, seed=1, together=6)
    for tensor, x in alone.items():
        assert relative(x, found.truth[tensor]) < 1e-3
        assert np.array_equal(x, together[tensor])
    waiting = re.sub(r"(await_turn\(counts .*, m_tile)", r"\1 + 1", kernel.text)
    assert waiting != kernel.text
    assert noticed(found, kernel, waiting, 1, together=6)


BREAKS_OF_TURNS = {
    "nobody waits": (r" +await_turn\(counts.*\n", ""),
    "the next but one goes on": (r"(await_turn\(counts .*, m_tile)", r"\1 - 1"),
    "one waits for itself": (r"(await_turn\(counts .*, m_tile)", r"\1 + 1"),
    "counted for another tile": (r"end_turn\(counts .*,", "end_turn(counts,"),
    "counted ahead of what is added": (r"(end_turn\(counts .*, )[02]\)", r"\g<1>99)"),
}
"""Ways to break turns."""


@pytest.mark.parametrize(
    ("how", "width"),
    [*((how, 64) for how in BREAKS_OF_TURNS), ("counted ahead of what is added", 128)],
)
def test_machine_catches_broken_turns(how: str, width: int) -> None:
    found, kernel = turns(392, 264, width)
    head, tail = kernel.text.split("step = 1", 1)
    text = f"{head}step = 1{re.sub(*BREAKS_OF_TURNS[how], tail)}"
    assert text != kernel.text
    assert noticed(found, kernel, text, 8, together=6)


def test_programs_add_in_turn_where_each_walks_all() -> None:
    sizes = {"b": 2, "h": 16, "p": 4096, "m": 4096, "e": 64, "f": 64}
    names = {}
    for name in ("attention", "causal"):
        made = gradient(getattr(examples, name), wrt=("Q", "K", "V"), sizes=sizes)
        f = einfall.compile(made.backward, target="sm_90", parts={})
        wide = {n: "float32" for n in made.backward.inputs if n.endswith("_kept")}
        known = f.lower(sizes=sizes, dtype="bfloat16", dtypes=wide).known
        found = lower_cascade(made.backward, replace(known, emitter="auto"))
        names[name] = [k.name.removeprefix(f"{name}_gradient_") for k in found.kernels]
        if name == "attention":
            assert "programs add to a tile in turn" in str(found.explain())
            counts = found.kernels[1].writes[-1]
            assert counts.zeros and counts.tiles == (("p", 128),)
        in_triton = lower_cascade(made.backward, replace(known, emitter="tl"))
        assert not any(k.in_turn for k in in_triton.mapping.kernels)
    assert names["attention"] == [
        "a_log_grad_sum_kernel", "k_grad_v_grad_kernel", "q_grad_kernel",
    ]  # fmt: skip
    assert names["causal"] == [
        "a_log_grad_sum_kernel", "q_grad_kernel", "k_grad_v_grad_kernel",
    ]  # fmt: skip
