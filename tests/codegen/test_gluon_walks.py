"""Gluon kernels whose walk skips tiles: several ranges, tables of tiles, lists of blocks.

They run on the machine of ``gluon_machine.py``; truth is the interpreter in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.lowered import Lowered

from .kernel_cases import outputs, relative
from .test_gluon import run

ROWS, FEATURES = 300, 64


def qkv(heads: int = 2, rows: int = ROWS, columns: int = ROWS) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(rows + columns)
    shapes = [(1, heads, n, FEATURES) for n in (rows, columns, columns)]
    return [torch.randn(s, generator=draw).half() for s in shapes]


def documents(*lengths: int) -> torch.Tensor:
    numbers = [n for n, length in enumerate(lengths) for _ in range(length)]
    return torch.tensor([numbers], dtype=torch.int32)


def blocks(density: float, rows: int, columns: int) -> list[torch.Tensor]:
    """Lists of blocks in any order; the first is empty, what stands behind an end is no block."""
    draw = np.random.default_rng(3)
    kept = draw.random((1, 2, rows, columns)) < density
    kept[:, 0, 0] = False
    count = kept.sum(-1)
    order = np.argsort(~kept + draw.random(kept.shape) / 2, axis=-1)
    order[np.arange(columns) >= count[..., None]] = 2**20
    return [torch.from_numpy(x.astype(np.int32)) for x in (order, count)]


@cache
def case(name: str) -> tuple[str, list[torch.Tensor], Mapping[str, Any]]:
    """Return an example, its arguments and its parameters."""
    match name:
        case "a window inside a tile":
            return "sliding_window", qkv(), {"W": 5}
        case "a window of several tiles":
            return "sliding_window", qkv(rows=520, columns=520), {"W": 300}
        case "a window behind rows without keys":
            return "sliding_window", qkv(rows=400, columns=130), {"W": 40}
        case "two ranges":
            return "sink_window", qkv(rows=700, columns=700), {"W": 150, "sinks": 3}
        case "two ranges, the first of whole tiles":
            return "sink_window", qkv(rows=900, columns=900), {"W": 140, "sinks": 260}
        case "documents of many tiles":
            return "document", [*qkv(columns=700, rows=700), documents(390, 10, 200, 100)], {}
        case "documents":
            return "document", [*qkv(columns=600, rows=600), documents(*[60] * 10)], {}
        case "a range for each row":
            ends = torch.tensor([390, 400, 600, 700])
            begin = torch.tensor([[0, *ends[:-1]]]).repeat_interleave(
                ends.diff(prepend=ends[:1] * 0), 1
            )
            return "document_starts", [*qkv(columns=700, rows=700), begin.int()], {}
        case "a parameter called as a word of the text":
            return "dilated", qkv(rows=400, columns=400), {"W": 40, "step": 3}
        case "a table of blocks":
            keep = torch.from_numpy(np.random.default_rng(0).random((3, 3)) < 0.4)
            return "radial_blocks", [*qkv(rows=768, columns=768), keep], {"s": 256, "B": 128}
        case "lists":
            given = [*qkv(rows=512, columns=640), *blocks(0.5, 4, 5)]
            return "block_lists", given, {"P0": 128, "M0": 128}
        case "lists of wide blocks, the last one cut":
            given = [*qkv(rows=256, columns=700), *blocks(0.6, 2, 3)]
            return "block_lists", given, {"P0": 128, "M0": 256}
        case "lists of narrow blocks":
            given = [*qkv(rows=300, columns=300), *blocks(0.6, 2, 10)]
            return "block_lists", given, {"P0": 256, "M0": 32}
        case "lists of few rows each":
            return (
                "block_lists",
                [*qkv(rows=200, columns=330), *blocks(0.6, 4, 6)],
                {"P0": 64, "M0": 64},
            )
    raise AssertionError(name)


CASES = (
    "a window inside a tile", "a window of several tiles", "a window behind rows without keys",
    "two ranges", "two ranges, the first of whole tiles", "documents of many tiles", "documents",
    "a range for each row", "a parameter called as a word of the text", "a table of blocks",
    "lists", "lists of wide blocks, the last one cut", "lists of narrow blocks",
    "lists of few rows each",
)  # fmt: skip


def lowered(name: str, **options: Any) -> Lowered:
    example, tensors, parameters = case(name)
    f = einfall.compile(getattr(examples, example), emitter="gluon", target="sm_90", parts={"m": 1})
    return f.lower(*tensors, **options, **parameters)


@pytest.mark.parametrize("name", CASES)
def test_walk_visits_every_point_once(name: str) -> None:
    example, tensors, parameters = case(name)
    truth = outputs(einfall.interpret(getattr(examples, example), *tensors, **parameters))
    got = run(lowered(name), tensors, parameters, seed=len(name), programs=2)
    for x, expected in zip(got, truth, strict=True):
        assert relative(x, expected) < 1e-3


def test_no_tile_is_tested_that_a_table_says_is_whole() -> None:
    sizes = {"b": 1, "h": 2, "p": 4096, "m": 4096, "e": FEATURES, "f": FEATURES}
    f = einfall.compile(examples.document, emitter="gluon", target="sm_90")
    text = f.lower(sizes=sizes, dtype="float16", dtypes={"doc": "int32"}).kernels[-1].text
    walk = text.partition("its late products wait")[2]
    for part in (*walk.partition("for m_slot in")[::2],):
        whole, tested = part.partition("if m_test + m_test_1 != 0:")[::2]
        assert "document_test" not in whole and "document_test_2(" in tested
        assert text.count("document_moving(") == 3


def test_a_run_behind_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("einfall.passes.bound_tables.MOST", 3)
    _, tensors, _ = case("documents of many tiles")
    truth = einfall.interpret(examples.document, *tensors)
    found = lowered("documents of many tiles")
    assert dict(found.kernels[0].writes[0].most) == {"m": 3}
    (got,) = run(found, tensors, {}, programs=2)
    assert relative(got, truth) < 1e-3
