"""The parts of the sparse table that need no GPU: what its rows mean, and how it counts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import einfall
from einfall import examples
from einfall.examples.benchmarks import sparse
from einfall.examples.benchmarks.report import OURS
from einfall.examples.benchmarks.sparse import SparseResult, SparseTable
from einfall.examples.benchmarks.sparse_rows import SPARSE_ROWS, SparseRow, inputs

BY_NAME = {row.name: row for row in SPARSE_ROWS}


def small(row: SparseRow) -> SparseRow:
    """Return the row at sizes for a processor; blocks keep their width."""
    parameters = {**row.parameters, **({"W": 9} if "W" in row.parameters else {})}
    parameters |= {"k": 2} if "k" in parameters else {}
    n = 1024 if "B" in parameters or "P0" in parameters else 70
    return replace(row, heads=2, n=n, d=8, parameters=parameters)


@pytest.mark.parametrize("name", [n for n in BY_NAME if not n.startswith("window-4096")])
def test_predicate_is_the_examples_meaning(name: str) -> None:
    row = small(BY_NAME[name])
    tensors = inputs(row, device="cpu", dtype=torch.float32)
    parameters: dict[str, Any] = dict(row.parameters)
    found = einfall.interpret(getattr(examples, row.example), *tensors, **parameters)
    outputs = [torch.as_tensor(x) for x in (found if isinstance(found, tuple) else (found,))]
    assert sparse.error(row, outputs, tensors) < 1e-6
    outputs[0] = outputs[0] + 0.01
    assert sparse.error(row, outputs, tensors) > 5e-3


def test_rows_name_their_measure_and_their_example() -> None:
    for row in SPARSE_ROWS:
        assert row.example in examples.names()
        assert row.dense == "" or row.dense in BY_NAME
        assert row.heads * row.n <= 2**20


def test_executed_points_and_masks_are_counted() -> None:
    lowering = {"backend": "triton", "target": "sm_90"}
    row = replace(BY_NAME["window-512-n32768"], heads=2, n=4096, d=64)
    tensors = [x.half() for x in inputs(row, device="cpu", dtype=torch.float32)]
    compiled = einfall.compile(examples.sliding_window, **lowering)  # type: ignore[arg-type]
    points = sparse.executed(row, tensors, compiled)
    assert 2 * 4096 * 512 < points < 2 * 4096 * 800
    assert sparse.mask_of_ours(row, tensors, compiled) == 0
    lists = replace(BY_NAME["blocks-25%-n32768"], heads=2, n=1024, d=64)
    tensors = [*map(torch.Tensor.half, tensors[:3]), *inputs(lists, device="cpu")[3:]]
    assert sparse.executed(lists, tensors, compiled) == int(tensors[4].sum()) * 128 * 128


def test_table_compares_tiles_with_the_dense_kernel(tmp_path: Path) -> None:
    dense, window = BY_NAME["causal-n32768"], BY_NAME["window-1024-n32768"]
    table = SparseTable(
        (dense, window),
        (
            SparseResult(dense.name, OURS, (6.0,), (1e-3,), points=600),
            SparseResult(window.name, OURS, (0.5, 0.6, 0.5), (1e-3,), points=40),
            SparseResult(window.name, sparse.DENSE, (6.0,), points=600),
            SparseResult(window.name, "flex", (0.9,), (1e-3,), mask_ms=7.0, mask_bytes=2**20),
            SparseResult(window.name, "sdpa-cudnn", (8.0,), (float("nan"),)),
        ),
    )
    assert table.tile(window) == pytest.approx(1.25) and table.tile(dense) == 1
    assert table.error_ratio(window) == 1 and table.error_ratio(dense) is None
    cells = dict(zip(table.lines()[0], table.lines()[2], strict=True))
    assert cells["tile"] == "1.25" and cells["flex / ours"] == "1.80"
    assert cells["cuDNN / ours"] == "16.00" and cells["flex's mask"] == "7 ms, 1.00 MiB"
    table.write(tmp_path)
    data = json.loads((tmp_path / "sparse.json").read_text())
    assert data["rows"][1]["parameters"] == {"W": 1024} and data["results"][1]["points"] == 40


def test_without_a_gpu_the_rows_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert sparse.main(["--list", "--rows", "window-1024*"]) == 0
    assert capsys.readouterr().out.count("sliding_window") == 3


def test_blocks_chosen_for_a_peer_are_those_of_the_example() -> None:
    row = replace(small(BY_NAME["top-blocks-32x128-n65536"]), parameters={"B": 128, "k": 3})
    Q, K, V = inputs(row, device="cpu", dtype=torch.float32)
    parameters: dict[str, Any] = dict(row.parameters)
    found = einfall.interpret(examples.topk_blocks, Q, K, V, **parameters)[1]
    chosen, mask = sparse.selected_mask(row, Q, K)
    for h in range(row.heads):
        for i in range(row.n // 128):
            expected = set(found[0, h, i].tolist()[: i + 1])
            assert {int(x) for x in chosen[0, h, i] if x >= 0} == expected
            assert set(mask.to_dense()[0, h, i].nonzero()[:, 0].tolist()) == expected
