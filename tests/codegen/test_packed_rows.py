"""Packed rows: a tile holds coordinates of several ranks, and memory keeps its own."""

from __future__ import annotations

import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.aot import check, compile_ahead
from einfall.backends.lowered import Lowered
from einfall.ir.errors import ShapeError

from .kernel_cases import DEVICE, TOLERANCE, assert_kernels_agree, outputs, relative, run_nests

SHARED = einfall.cascade("""
def shared(Q, K, V, scale):
    S[b, h, p, m: m <= p + size(m) - size(p)] = Q[b, h, p, e] * K[b, m, e] * scale[h]
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, m, f]
    return O
""")


def draw(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(shape, generator=generator).to(DEVICE) for shape in shapes]


def tiled(lowered: Lowered) -> tuple[str, ...]:
    return lowered.mapping.kernels[0].ranks("tiled")


@pytest.mark.parametrize("ratio", [1, 4, 6, 8, 16])
@pytest.mark.parametrize("parts", [1, 3])
def test_heads_that_share_keys_are_rows_of_one_tile(ratio: int, parts: int) -> None:
    tensors = draw((2, 2 * ratio, 16), (2, 40, 2, 16), (2, 40, 2, 16))
    tensors.append(torch.tensor([40, 17], dtype=torch.int32, device=DEVICE))
    cascade, parameters, tiles = examples.varlen_decode, {"G": ratio}, {"m": 16}
    lowered = assert_kernels_agree(
        cascade, tensors, parameters, TOLERANCE["float32"], tiles, parts={"m": parts}
    )
    assert tiled(lowered) == (("h_row",) if ratio > 1 else ())
    truth = outputs(einfall.interpret(cascade, *(x.cpu() for x in tensors), G=ratio))
    assert relative(run_nests(cascade, lowered, tensors, parameters)[0], truth[0]) < 1e-12


@pytest.mark.parametrize(("rows", "expected"), [(1, "h_row"), (3, "row"), (64, "p")])
def test_short_queries_fill_the_tile_together(rows: int, expected: str) -> None:
    tensors = draw((1, 12, rows, 16), (1, 2, 70, 16), (1, 2, 70, 16))
    lowered = assert_kernels_agree(
        examples.gqa, tensors, {"G": 6}, TOLERANCE["float32"], {"m": 32}, parts={}
    )
    assert tiled(lowered) == (expected,)


@pytest.mark.parametrize(("rows", "expected"), [(1, "p"), (3, "p"), (64, "p")])
def test_a_rank_that_a_filter_reads_is_left_alone(rows: int, expected: str) -> None:
    cascade = einfall.cascade(str(SHARED).replace("m <= p + size(m) - size(p)", "m <= p + 20 + h"))
    tensors = draw((1, 4, rows, 16), (1, 70, 16), (1, 70, 16), (4,))
    lowered = assert_kernels_agree(cascade, tensors, {}, TOLERANCE["float32"], {"m": 32}, parts={})
    assert tiled(lowered) == (expected,)


@pytest.mark.parametrize(("rows", "expected"), [(1, "h"), (3, "row")])
def test_ranks_that_operands_lack_are_packed(rows: int, expected: str) -> None:
    tensors = draw((2, 5, rows, 16), (2, 70, 16), (2, 70, 16), (5,))
    lowered = assert_kernels_agree(
        SHARED, tensors, {}, TOLERANCE["float32"], {"m": 32}, parts={"m": 2}
    )
    assert tiled(lowered) == (expected,)


def test_groups_that_are_not_whole_are_not_packed() -> None:
    tensors = draw((1, 5, 16), (1, 40, 2, 16), (1, 40, 2, 16))
    tensors.append(torch.tensor([33], dtype=torch.int32, device=DEVICE))
    lowered = assert_kernels_agree(
        examples.varlen_decode, tensors, {"G": 3}, TOLERANCE["float32"], {"m": 16}
    )
    assert tiled(lowered) == ()


def test_kernels_of_open_sizes_refuse_groups_that_are_not_whole() -> None:
    dtypes = {"length": "int32"}
    lowered = einfall.compile(examples.varlen_decode).lower(
        sizes={"e": 16, "f": 16}, dtypes=dtypes, dtype="float32", G=4
    )
    assert tiled(lowered) == ("h_row",)
    length = torch.tensor([33], dtype=torch.int32, device=DEVICE)
    plan = lowered.plan()
    Q, K, V = draw((1, 8, 16), (1, 40, 2, 16), (1, 40, 2, 16))
    truth = einfall.interpret(examples.varlen_decode, Q.cpu(), K.cpu(), V.cpu(), length.cpu())
    assert relative(plan(Q, K, V, length, G=4), truth) < TOLERANCE["float32"]
    Q, K, V = draw((1, 6, 16), (1, 40, 2, 16), (1, 40, 2, 16))
    with pytest.raises(ShapeError, match="size\\(h\\) % G == 0"):
        plan(Q, K, V, length, G=4)
    Q, K, V = draw((1, 12, 16), (1, 40, 2, 16), (1, 40, 2, 16))
    with pytest.raises(ShapeError, match="K_size_2"):
        plan(Q, K, V, length, G=4)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_cache_that_is_keys_and_values_is_loaded_once_a_tile(parts: int) -> None:
    cache = draw((2, 50, 48))[0]
    Q, R = draw((2, 20, 32), (2, 20, 16))
    length = torch.tensor([50, 33], dtype=torch.int32, device=DEVICE)
    tensors = [Q, R, cache[..., :32], cache[..., 32:], length]
    cascade, tolerance, tiles = examples.mla_decode, TOLERANCE["float32"], {"m": 16}
    lowered = assert_kernels_agree(
        cascade, tensors, {"scale": 0.2}, tolerance, tiles, parts={"m": parts}
    )
    assert tiled(lowered) == ("h",)
    loops = lowered.kernels[0].text.split("for m_first in")[1:]
    assert loops and all(loop.count(" z = ") == 1 for loop in loops)


def test_a_wide_latent_cache_compiles_with_few_spills() -> None:
    lowered = einfall.compile(examples.mla_decode, parts={"m": 0}).lower(
        sizes={"e": 512, "r": 64, "h": 128}, dtypes={"length": "int32"}, target="sm_90"
    )
    report = compile_ahead(lowered.kernels[0], dict(lowered.mapping.dtypes), "sm_90")
    # a few registers of a tile spill; tiles that spill none took 1.3 to 1.8 times as long
    check(report, local=16)
    assert report.shared <= 227 * 1024


def test_packed_rows_compile_well() -> None:
    lowered = einfall.compile(examples.varlen_decode, parts={"m": 0}).lower(
        sizes={"e": 128, "f": 128}, dtypes={"length": "int32"}, target="sm_90", G=6
    )
    report = compile_ahead(lowered.kernels[0], dict(lowered.mapping.dtypes), "sm_90")
    check(report)
