"""Rows of odd numbers of features: what comes number by number takes few columns at a time."""

from __future__ import annotations

import pytest

import einfall
from einfall import examples
from einfall.ir.mapping import MappedKernel

SIZES = {"b": 2, "h": 16, "p": 4096, "m": 4096}


def kernel_of(features: int, target: str = "sm_90") -> MappedKernel:
    """Return the kernel of full attention over as many features."""
    f = einfall.compile(examples.attention, target=target)
    sizes = {**SIZES, "e": features, "f": features}
    return f.lower(sizes=sizes, dtype="bfloat16").mapping.kernels[0]


@pytest.mark.parametrize("features", [68, 90, 100])
def test_rows_that_no_descriptor_fetches_take_32_columns(features: int) -> None:
    kernel = kernel_of(features)
    assert {p.rank: p.tile for p in kernel.partitions} | {"warps": kernel.num_warps} == {
        "p": 128, "m": 32, "e": features, "f": features, "warps": 8
    }  # fmt: skip


@pytest.mark.parametrize("features", [36, 96, 104])
def test_others_take_what_they_took(features: int) -> None:
    assert kernel_of(features).partition("m").tile > 32
