"""What a kernel reads though it could make it: what its tiles would make again and again."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch

import einfall
from einfall import examples
from einfall.ir.mapping import MappedKernel
from einfall.passes.tile_work import all_ranks

HEADS, LENGTH, FEATURES = 4, 8192, 64

WEIGHTS: list[tuple[int, ...]] = [(HEADS, FEATURES, FEATURES)] * 4

SELECTING: dict[str, tuple[list[tuple[int, ...]], dict[str, Any]]] = {
    "topk_blocks": ([(1, HEADS, LENGTH, FEATURES)] * 3, {"B": 128, "k": 16}),
    "seer_attention": ([*[(1, HEADS, LENGTH, FEATURES)] * 3, *WEIGHTS], {"B": 64}),
    "core_context": ([(1, HEADS, LENGTH, FEATURES)] * 3, {}),
    "flex_prefill": ([(1, HEADS, 64, FEATURES), (1, HEADS, LENGTH, FEATURES)], {}),
    "quest": ([(1, HEADS, FEATURES), *[(1, 1, 65536, FEATURES)] * 2], {}),
    "tidal_decode": ([(1, HEADS, FEATURES), *[(1, 1, 65536, FEATURES)] * 2] * 2, {}),
    "snapkv": ([(1, 1, HEADS, 64, FEATURES), (1, 1, LENGTH, FEATURES)], {}),
}
"""Shapes and parameters of examples that sum up rows before anything asks for them."""


def lowered(text: str | einfall.Cascade, *shapes: tuple[int, ...], **parameters: Any) -> Any:
    """Return the kernels of a cascade for bfloat16 tensors of the given shapes."""
    cascade = einfall.cascade(text) if isinstance(text, str) else text
    f = einfall.compile(cascade, backend="triton", target="sm_90", **parameters.pop("options", {}))
    return f.lower(*(torch.empty(s, dtype=torch.bfloat16) for s in shapes), **parameters)


def repeated(kernel: MappedKernel, sizes: dict[str, int]) -> float:
    """Return how many points a kernel computes for each one of its einsums'."""
    programs = {
        r: sizes[r] if role == "grid" else -(-sizes[r] // kernel.partition(r).tile)
        for r, role in kernel.roles
        if role in ("grid", "tiled") and r in sizes
    }
    own = made = 0
    for item in kernel.einsums():
        ranks = [r for r in all_ranks(item) if r in sizes]
        points = prod(sizes[r] for r in ranks)
        own += points
        made += points * prod(n for r, n in programs.items() if r not in ranks)
    return made / own


@pytest.mark.parametrize("name", SELECTING)
def test_no_kernel_makes_a_point_many_times(name: str) -> None:
    shapes, parameters = SELECTING[name]
    k = lowered(getattr(examples, name), *shapes, **parameters)
    for kernel in k.mapping.kernels:
        if kernel.search is None:
            assert repeated(kernel, dict(k.known.sizes)) < 2, kernel.name


def test_means_are_stored_and_their_products_are_tiles() -> None:
    shapes, parameters = SELECTING["topk_blocks"]
    k = lowered(examples.topk_blocks, *shapes, **parameters)
    (scoring,) = (x for x in k.mapping.kernels if x.writes == ("E",))
    assert scoring.reads == ("Qm", "Km")
    assert [scoring.partition(r).tile for r in ("i", "n")] == [64, 64]
    assert "tl.dot" in k.source


def test_features_of_a_weight_are_held_whole_so_that_lists_are_walked() -> None:
    shapes, parameters = SELECTING["seer_attention"]
    k = lowered(examples.seer_attention, *shapes, **parameters)
    (attending,) = (x for x in k.mapping.kernels if x.writes == ("O",))
    assert attending.reads == ("Q", "K", "V", "Sel", "Sel_count")


def test_scores_along_diagonals_are_read_from_a_product() -> None:
    shapes, parameters = SELECTING["flex_prefill"]
    k = lowered(examples.flex_prefill, *shapes, **parameters)
    (summing,) = (x for x in k.mapping.kernels if x.writes == ("Slash",))
    assert summing.reads == ("S_sum", "A_log")
    assert summing.partition("d").tile == 64


@pytest.mark.parametrize("name", ["quest", "tidal_decode"])
def test_beside_lists_in_order_a_rank_is_walked_in_parts(name: str) -> None:
    shapes, parameters = SELECTING[name]
    k = lowered(getattr(examples, name), *shapes, **parameters)
    assert [c.rank for c in k.mapping.cuts] == ["m"]


FEW_AND_MANY = """
def f(Q, P, K):
    A[r] = max[m](sum[e](Q[r, e] * K[m, e]))
    B[p] = max[m](sum[e](P[p, e] * K[m, e]))
    return A, B
"""


def test_only_kernels_of_few_rows_walk_in_parts() -> None:
    k = lowered(FEW_AND_MANY, (16, 64), (32768, 64), (32768, 64))
    (cut,) = k.mapping.cuts
    walking = {x.writes: x.ranks("grid") for x in k.mapping.kernels if x.ranks("streamed")}
    assert walking[cut.states] == (cut.part,)
    assert walking["B",] == ()


NORMS = """
def f(Q, K):
    N[m] = sum[x](K[m, x] * K[m, x])
    S[p, m] = Q[p, e] * K[m, e] / sqrt(N[m])
    O[p] = max[m](S[p, m])
    return O
"""


def test_what_reads_what_is_read_anyway_is_made_in_place() -> None:
    k = lowered(NORMS, (4096, 64), (4096, 64))
    assert all("N" not in x.writes for x in k.mapping.kernels)
