"""Ranks reduced in parts: the merged result is the whole one's, in numpy, interpreted, compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.aot import check, compile_ahead
from einfall.backends.explain_parts import parts_known
from einfall.backends.lowered import Lowered
from einfall.backends.parts import tiles_of_part

from .kernel_cases import (
    DEVICE,
    TOLERANCE,
    arguments,
    assert_kernels_agree,
    outputs,
    relative,
    run_nests,
)

FAMILIES = (
    "causal_lse", "entropy", "score_statistics", "differential", "landmark", "sigmoid",
    "absmax_scaled", "sink", "linear",
)  # fmt: skip
"""One example for each kind of streaming state."""

FEW = {"b": 1, "h": 1, "group": 1, "p": 6, "m": 40, "e": 16, "f": 16, "block": 16}
"""Of 40 coordinates in tiles of 16 the last of four parts has none."""


def walked(name: str) -> str:
    return {"landmark": "j"}.get(name, "m")


@pytest.mark.parametrize("name", FAMILIES)
def test_loop_nests_of_parts_merge_to_the_whole(name: str) -> None:
    cascade = getattr(examples, name)
    tensors, parameters = arguments(name, scale=FEW)
    truth = outputs(einfall.interpret(cascade, *(x.cpu() for x in tensors), **parameters))
    tiles = {"p": 32, "m": 16}
    f = einfall.compile(cascade, tiles=tiles, parts={walked(name): 3})
    lowered = f.lower(*tensors, **parameters)
    assert lowered.mapping.cuts
    found = run_nests(cascade, lowered, tensors, parameters)
    for output, got, expected in zip(cascade.outputs, found, truth, strict=True):
        assert relative(got, expected) < 1e-12, output


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kind_of_state_merges_on_kernels(name: str) -> None:
    tensors, parameters = arguments(name, scale=FEW)
    cut = {walked(name): 4}
    tiles = {"p": 32, "m": 16}
    assert_kernels_agree(
        getattr(examples, name), tensors, parameters, TOLERANCE["float32"], tiles, parts=cut
    )


@pytest.mark.parametrize("lengths", [(0, 1), (37, 64), (16, 0), (63, 17)])
def test_lengths_that_leave_parts_empty(lengths: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(3)
    Q = torch.randn(2, 4, 16, generator=draw)
    K, V = (torch.randn(2, 64, 2, 16, generator=draw) for _ in "KV")
    length = torch.tensor(lengths, dtype=torch.int32)
    tensors = [x.to(DEVICE) for x in (Q, K, V, length)]
    assert_kernels_agree(
        examples.varlen_decode, tensors, {"G": 2}, TOLERANCE["float32"], {"m": 16}, parts={"m": 4}
    )


def test_the_launcher_cuts_long_ranks_under_few_rows() -> None:
    f = einfall.compile(examples.varlen_decode)
    dtypes = {"length": "int32"}
    sizes = {"e": 64, "f": 64, "h": 8, "m": 16384}
    assert f.lower(sizes={**sizes, "b": 1}, dtypes=dtypes).mapping.cuts
    assert not f.lower(sizes={**sizes, "b": 512}, dtypes=dtypes).mapping.cuts
    assert not f.lower(sizes={**sizes, "b": 1, "m": 256}, dtypes=dtypes).mapping.cuts
    assert not f.lower(sizes={**sizes, "b": 1}, dtypes=dtypes, parts={"m": 1}).mapping.cuts
    assert not f.lower(sizes={"e": 64, "f": 64}, dtypes=dtypes).mapping.cuts
    text = str(f.lower(sizes={**sizes, "b": 1}, dtypes=dtypes).explain())
    assert "m is reduced in parts side by side" in text and "by the derived merge" in text


@pytest.mark.parametrize("slots", [1, 7, 264])
def test_parts_fill_the_machine_and_cover_the_rank(slots: int) -> None:
    for tiles in (1, 2, 3, 17, 100, 1024, 4096):
        for programs in (1, 2, 8, 31, 264, 1000):
            length = tiles_of_part(tiles, programs, slots)
            parts = -(-tiles // length)
            assert 1 <= length <= tiles and parts * length >= tiles
            if programs >= slots:
                assert parts == 1 or programs % slots, (tiles, programs)
            if slots == 264 and tiles >= 1024 and programs <= 31:
                waves = programs * parts / slots
                assert waves / -(-waves // 1) > 0.75, (tiles, programs, parts)


def test_saved_kernels_choose_their_parts(tmp_path: Path) -> None:
    f = einfall.compile(examples.varlen_decode)
    sizes = {"e": 16, "f": 16, "h": 4, "m": 4096, "b": 1}
    path = f.lower(sizes=sizes, dtypes={"length": "int32"}, dtype="float32").save(tmp_path / "x.py")
    text = path.read_text()
    assert "tiles_of_part(tiles, programs, slots, 1)" in text
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert "agrees with the interpreter" in run.stdout, run.stderr


def test_parts_compile_well() -> None:
    lowered = einfall.compile(examples.lse, parts={"m": 0}).lower(
        sizes={"e": 128, "f": 128, "p": 16}
    )
    parts, merge = lowered.kernels
    dtypes = dict(lowered.mapping.dtypes)
    check(compile_ahead(parts, dtypes, "sm_90"))
    check(compile_ahead(merge, dtypes, "sm_90"), tensor_core=False)


def test_parts_are_for_few_rows_over_many_columns() -> None:
    """States of many rows would move more than the walk does, so they stay in one kernel."""
    f = einfall.compile(examples.attention)
    sizes = {"b": 2, "h": 2, "e": 64, "f": 64}
    few = f.lower(sizes=sizes | {"p": 1, "m": 8192}, target="sm_90")
    many = f.lower(sizes=sizes | {"p": 1024, "m": 1024}, target="sm_90")
    assert [len(x.kernels) for x in (few, many)] == [2, 1]


@pytest.mark.parametrize("keys", [7, 40, 300])
def test_parts_of_a_stretch_cover_it_wherever_it_begins(keys: int) -> None:
    """One row a program, which walks the last 33 keys: parts are counted from where they begin."""
    draw = torch.Generator().manual_seed(keys)
    Q = torch.randn(2, 2, 1, 16, generator=draw).to(DEVICE)
    K, V = (torch.randn(2, 2, keys, 16, generator=draw).to(DEVICE) for _ in "KV")
    f = einfall.compile(examples.sliding_window, backend="triton", tiles={"m": 16}, parts={"m": 2})
    found = f(Q, K, V, W=33)
    assert f.mapping.cuts[0].extent is not None
    exact = einfall.interpret(examples.sliding_window, *(x.cpu() for x in (Q, K, V)), W=33)
    assert relative(found.double().cpu().numpy(), exact) < TOLERANCE["float32"]
    run = f.lower(Q, K, V, W=33)
    sizes, values = parts_known(run, run.known.sizes)
    walked = min(33, keys)
    assert sizes["m_part"] == 3 and (sizes["m_part"] - 1) * values["m_step"] >= walked


def test_few_coordinates_are_not_worth_parts_however_long_their_rank() -> None:
    f = einfall.compile(examples.sliding_window, backend="triton", target="sm_90")
    Q, K = (torch.empty(1, 4, n, 64, dtype=torch.float16, device="meta") for n in (1, 1 << 16))
    kinds = {W: len(f.lower(Q, K, K, W=W).kernels) for W in (100, 4096)}
    assert kinds == {100: 1, 4096: 2}
    saved = f.lower(Q, K, K, W=4096)
    sizes, values = parts_known(saved, saved.known.sizes)
    assert 2 <= sizes["m_part"] <= 65 and 4096 <= (sizes["m_part"] - 1) * values["m_step"] < 8192


def test_parts_are_so_long_that_their_states_move_no_more_than_they_walk() -> None:
    """128 rows of 512 numbers, against 576 numbers a key: 8 tiles of 64 keys, and not all of them.

    Where tiles of rows alone fill the machine one kernel is left.
    """
    f = einfall.compile(examples.mla_decode, backend="triton", target="sm_90")

    def lower(batch: int, keys: int) -> Lowered:
        shapes = ((batch, 128, 512), (batch, 128, 64), (batch, keys, 512), (batch, keys, 64))
        tensors = [torch.empty(s, dtype=torch.float16, device="meta") for s in shapes]
        length = torch.empty(batch, dtype=torch.int32, device="meta")
        return f.lower(*tensors, length)

    few = lower(1, 2048)
    sizes, values = parts_known(few, few.known.sizes)
    assert few.mapping.cuts[0].least == 8
    assert (sizes["m_part"], values["m_step"]) == (4, 512)
    assert len(lower(128, 2048).kernels) == 1


@pytest.mark.parametrize("count", [(3, 0), (1, 5)])
def test_parts_of_a_list_are_its_positions(count: tuple[int, int]) -> None:
    """Each part walks its own positions; those behind the count of a list stand for nothing."""
    draw = torch.Generator().manual_seed(7)
    Q = torch.randn(1, 2, 1, 16, generator=draw)
    K, V = (torch.randn(1, 2, 160, 16, generator=draw) for _ in "KV")
    Blocks = torch.stack([torch.randperm(10, generator=draw)[:6] for _ in "hh"])[None, :, None]
    Count = torch.tensor(count, dtype=torch.int32)[None, :, None]
    tensors = [x.to(DEVICE) for x in (Q, K, V, Blocks.int(), Count)]
    f = einfall.compile(examples.block_lists, backend="triton", tiles={"m": 16}, parts={"m": 3})
    found = f(*tensors, P0=16, M0=16)
    (cut,) = f.mapping.cuts
    assert (cut.positions, cut.width, cut.unit) == ("j", 16, 1)
    text = f.kernels[0].text
    assert "m_slot_begin = tl.maximum(0, m_part * m_step) * 16" in text
    given = (x.cpu() for x in tensors)
    exact = einfall.interpret(examples.block_lists, *given, P0=16, M0=16)
    for got, want in zip(found, exact, strict=True):
        finite = np.isfinite(want)
        x = got.double().cpu().numpy()
        assert np.array_equal(np.isfinite(x), finite)
        assert relative(x[finite], want[finite]) < TOLERANCE["float32"]
    assert "positions of its list" in str(f.explain())


def test_lists_at_few_rows_are_reduced_in_parts_by_themselves(tmp_path: Path) -> None:
    f = einfall.compile(examples.quest, backend="triton", target="sm_90")
    Q = torch.empty(1, 8, 64, dtype=torch.float16, device="meta")
    K = torch.empty(1, 2, 1 << 14, 64, dtype=torch.float16, device="meta")
    low = f.lower(Q, K, K, G=4, B=16, k=64)
    (cut,) = low.mapping.cuts
    sizes, values = parts_known(low, low.known.sizes)
    assert cut.positions and cut.width == 16 and sizes["m_part"] > 1
    assert sizes["m_part"] * values["m_step"] >= 64 > (sizes["m_part"] - 1) * values["m_step"]


def test_a_cut_whose_states_another_one_makes_is_left_out() -> None:
    """Two kernels that walk the same keys share the sums of their parts."""
    f = einfall.compile(examples.attention_calibration, target="sm_90")
    sizes = {"b": 2, "h": 8, "p": 777, "m": 777, "e": 64, "f": 64}
    lowered = f.lower(sizes=sizes, dtype="float16", beta=0.4, theta=0.15)
    walked = {r for k in lowered.mapping.kernels for r, role in k.roles if role == "grid"}
    assert lowered.mapping.cuts and all(c.part in walked for c in lowered.mapping.cuts)
