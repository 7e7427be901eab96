"""What is stored to say which points exist: nothing where a filter has bounds, at any length."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

import einfall
from einfall import examples

LONG = 1 << 20
PLAIN: dict[str, dict[str, int]] = {
    "causal": {},
    "sliding_window": {"W": 4096},
    "sink_window": {"W": 4096},
    "prefix_lm": {},
    "padding": {},
    "streaming_llm": {},
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_million_rows_without_a_mask(name: str) -> None:
    """Bounds alone: no table of tiles, at most a number for each sequence, and at once."""
    c = getattr(examples, name)
    values: dict[str, Any] = {n: PLAIN[name].get(n, 4) for n, v in c.parameters if v is None}
    start = time.perf_counter()
    ends = {"e": 64, "f": 64} if {"e", "f"} <= set(c.ranks) else {}
    lowered = einfall.compile(c).lower(
        sizes={r: {"b": 1, "h": 2, **ends}.get(r, LONG) for r in c.ranks}, target="sm_90", **values
    )
    found = lowered.explain()
    assert time.perf_counter() - start < 10
    assert found.points is not None
    assert all(x.origin == "input" and (x.bytes or 0) <= 64 for x in found.points)
    assert all(not loop.table for kernel in found.kernels for loop in kernel.loops)
    (walk,) = lowered.mapping.kernels[-1].traversals
    assert walk.domain.table is None


def test_tables_and_inputs_are_counted() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 512, 16, generator=draw) for _ in range(3))
    doc = torch.zeros(1, 512, dtype=torch.int64)
    f = einfall.compile(examples.document, tiles={"p": 64, "m": 32})
    found = f.lower(q, k, v, doc, target="sm_80").explain()
    assert found.points is not None
    inputs, table = found.points
    assert (inputs.tensor, inputs.dtype, inputs.bytes) == ("doc", "int64", 8 * 512)
    assert (table.origin, table.bytes) == ("call", 4 * 8 * (16 + 2))
    assert "m_tiles, int32, 576 B: listed at each call" in str(found)
    again = f.lower(sizes={"e": 16, "f": 16}, target="sm_80").explain()
    assert again.points is not None and again.points[0].bytes is None
    assert "an open number of bytes" in str(again)


def test_what_is_too_long_to_count_is_said_at_once() -> None:
    start = time.perf_counter()
    sizes = {"b": 1, "h": 2, "p": LONG, "m": LONG, "e": 64, "f": 64}
    found = einfall.compile(examples.strided).lower(sizes=sizes, W=64, target="sm_90").explain()
    assert time.perf_counter() - start < 10
    assert "too many to look at each" in found.kernels[0].loops[0].open


def test_without_a_filter_nothing_is_said() -> None:
    found = einfall.compile(examples.attention).lower(sizes={"e": 64, "f": 64}).explain()
    assert found.points is None and "Which points exist" not in str(found)
    causal = einfall.compile(examples.causal).lower(sizes={"e": 64, "f": 64}).explain()
    assert causal.points == () and "0 bytes" in str(causal)
    assert found.to_dict()["points"] is None and causal.to_dict()["points"] == []
