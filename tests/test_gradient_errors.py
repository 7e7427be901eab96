"""The gradients' table, as far as it needs no GPU: what peers compute, errors, and their report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import einfall
from einfall.examples.benchmarks import gradient_errors
from einfall.examples.benchmarks.gradient_errors import DENSE, FLEX, Found
from einfall.examples.benchmarks.gradient_rows import ROWS, Formula, Row, inputs
from einfall.examples.benchmarks.report import OURS

BY_NAME = {row.name: row for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_formulas_are_the_meaning(row: Row) -> None:
    tensors, parameters = inputs(row, 67, torch.float64, "cpu")
    found = row.formula(tensors, parameters)
    expected = einfall.interpret(row.cascade, *(x.numpy() for x in tensors), **parameters)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for x, y in zip(found, expected, strict=True):
        assert float((x - torch.from_numpy(y)).abs().max()) < 1e-13


def test_a_sink_by_the_logarithm_of_the_sums() -> None:
    """What FlexAttention's output is multiplied by gives the formula with one more score."""
    row = BY_NAME["sink"]
    tensors, parameters = inputs(row, 33, torch.float64, "cpu")
    plain, L, _ = BY_NAME["entropy"].formula(tensors[:3], parameters)
    assert row.after is not None
    found = row.after(plain, L, tensors)
    assert float((found - row.formula(tensors, parameters)[0]).abs().max()) < 1e-14


def off(amount: float) -> Any:
    """Return a maker of a formula whose gradients are too large by an amount."""

    def ours(row: Row) -> Formula:
        def call(tensors: tuple[Tensor, ...], parameters: Mapping[str, Any]) -> tuple[Tensor, ...]:
            return tuple((1 + amount) * x for x in row.formula(tensors, parameters))

        return call

    return ours


@pytest.mark.parametrize(("amount", "held"), [(0.0, True), (0.002, True), (0.05, False)])
def test_errors_are_held_against_the_peer(
    amount: float, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_errors, "ours", off(amount))
    found = gradient_errors.measure(BY_NAME["alibi"], 40, "bfloat16", "cpu", draws=2)
    assert found.errors[OURS].keys() == {"Q", "K", "V", "slope"} and found.peer == DENSE
    assert 2e-3 < found.errors[DENSE]["Q"] < 2e-2
    if amount == 0.05:
        assert 0.04 < found.errors[OURS]["V"] < 0.06
    assert found.held is held
    assert ("**" in gradient_errors.text([found])) is not held


def test_refusals_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(row: Row) -> Formula:
        def call(tensors: tuple[Tensor, ...], parameters: Mapping[str, Any]) -> tuple[Tensor, ...]:
            raise RuntimeError("no\nkernel")

        return call

    monkeypatch.setattr(gradient_errors, "ours", refuses)
    found = gradient_errors.measure(BY_NAME["sigmoid"], 20, "float16", "cpu")
    assert not found.held and found.refusals == {OURS: "RuntimeError: no"}
    assert "- sigmoid, float16, einfall: RuntimeError: no" in gradient_errors.text([found])


def test_tables_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_errors, "machine", lambda: {"device": "none"})
    errors = {OURS: {"Q": 3e-3, "K": 2e-3}, DENSE: {"Q": 4e-3, "K": 4e-3}, FLEX: {"Q": 3e-3}}
    found = Found("causal", "float16", 260, errors)
    assert found.peer == FLEX and found.ratios(FLEX) == {"Q": 1.0} and found.held
    gradient_errors.write([found], tmp_path)
    row = "| causal | float16 | 260 | Q 3.0e-03 (1.00, 0.75); K 2.0e-03 (-, 0.50) |"
    assert row in (tmp_path / "gradients.md").read_text()
    data = json.loads((tmp_path / "gradients.json").read_text())
    assert data["results"][0]["errors"] == errors
