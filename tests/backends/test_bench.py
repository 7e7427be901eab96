"""Bench: correct before timed, all in turn, ratios, files; and who is known to compute what."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import einfall
import einfall.examples
from einfall.backends.bench import (
    EXACT,
    OURS,
    Point,
    Timing,
    affordable,
    as_data,
    draw,
    in_turn,
    lines,
    measure,
    peer_of,
    write,
)
from einfall.backends.command import Settings, prepare, sweep
from einfall.examples.benchmarks import known, peers
from einfall.examples.benchmarks.rows import ROWS
from einfall.ir.errors import EinfallError

SIZES = {"b": 1, "h": 2, "p": 32, "m": 32, "e": 16, "f": 16}


def dense(Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
    """Return what the example ``causal`` does, by torch."""
    return torch.nn.functional.scaled_dot_product_attention(Q, K, V, is_causal=True)


def drawn(sizes: Mapping[str, int]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    settings = Settings(dict(sizes), {}, "float16", None)
    tensors, _, values = prepare(einfall.examples.causal, settings)
    return tuple(tensors), dict(values)


def test_only_what_is_correct_is_timed(device: str) -> None:
    turns: list[str] = []

    def refusing(tensors: Any, parameters: Any) -> Any:
        raise RuntimeError("has no form of it\nand more")

    def clock(call: Any) -> float:
        turns.append(str(call().dtype))
        return 2.0 + len(turns)

    point = measure(
        einfall.examples.causal,
        SIZES,
        lambda sizes: (tuple(t.to(device) for t in drawn(sizes)[0]), drawn(sizes)[1]),
        dtype="float16",
        peers={
            "right": lambda tensors, _: lambda: dense(*tensors),
            "wrong": lambda tensors, _: lambda: 1.01 * dense(*tensors),
            "refusing": refusing,
        },
        clock=clock,
        rounds=2,
    )
    by = {t.who: t for t in point.timings}
    assert len(turns) == 4 and len(by[OURS].milliseconds) == len(by["right"].milliseconds) == 2
    assert 0 < by[OURS].error < 2e-3 and by["right"].refusal == ""
    assert by["wrong"].refusal.startswith("differs from float64 by 1.0e-02")
    assert by["refusing"].refusal == "RuntimeError: has no form of it"
    assert point.best() is by["right"] and point.of("wrong") is None
    assert point.predicted and point.predicted > 0 and point.checked == {}
    assert any(line.startswith("roofline") for line in point.said)


def test_rounds_begin_with_another_one() -> None:
    seen: list[str] = []
    calls = {name: lambda name=name: seen.append(name) for name in "abc"}
    found = in_turn(calls, 3, lambda call: call() or float(len(seen)))
    assert seen == [*"abc", *"bca", *"cab"]
    assert found["a"] == (1.0, 6.0, 8.0)
    assert in_turn({}, 3, lambda call: 1.0) == {}


def points() -> list[Point]:
    timings = (Timing(OURS, 1e-4, (2.0, 4.0, 3.0)), Timing("dense", 2e-4, (6.0,)))
    said = ("roofline   50 % reached",)
    first = Point(SIZES, timings, {**SIZES, "m": 16}, 1.5e-3, 1e-3, said)
    other = Timing("other", refusal="ImportError: no module")
    return [first, Point({**SIZES, "m": 64}, (timings[0], other))]


def test_the_table_says_ratios_and_shares() -> None:
    text = "\n".join(lines(einfall.examples.causal, points(), "a device"))
    assert text.startswith("causal on a device\n")
    assert "2.00x the time of einfall" in text and "50 % reached" in text
    assert "compared with float64 at m = 16" in text
    assert "other    - (ImportError: no module)" in text


def test_data_is_written(tmp_path: Path) -> None:
    data = as_data(einfall.examples.causal, points(), "float16", {"device": "a device"})
    write(tmp_path / "x.json", data)
    read = json.loads((tmp_path / "x.json").read_text())
    assert read["points"][0]["timings"][1] == {
        "who": "dense", "error": 2e-4, "milliseconds": [6.0], "refusal": "",
    }  # fmt: skip
    assert read["points"][0]["predicted"] == 1.5e-3
    with pytest.raises(EinfallError, match="cannot be written"):
        write(tmp_path / "no" / "x.json", data)


def test_a_picture_needs_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EinfallError, match=r"pip install einfall\[viz\]"):
        draw(tmp_path / "x.png", {})


def test_exact_answers_are_asked_for_where_they_come_soon() -> None:
    assert affordable(einfall.examples.causal, SIZES) == SIZES
    large = {**SIZES, "h": 16, "p": 16384, "m": 16384, "e": 64, "f": 64}
    small = affordable(einfall.examples.causal, large)
    assert small == {**large, "p": small["p"], "m": small["m"]} and small["p"] == small["m"]
    assert EXACT / 8 < 16 * small["p"] * small["m"] * 64 <= EXACT


def test_sweeps_are_read() -> None:
    assert sweep("p+m=1024,4096") == (("p", "m"), (1024, 4096))
    for text in ("m", "m=", "=3", "m=1,x", "m=0"):
        with pytest.raises(EinfallError, match="RANK=N"):
            sweep(text)


def test_a_peer_is_a_function_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def twice(X, a):\n    return a * X\n")
    name, make = peer_of(f"{file}:twice")
    assert name == "twice" and make((3,), {"a": 2})() == 6
    for text, words in ((str(file), "FILE.py:FUNCTION"), (f"{file}:none", "no function none"),
                        (f"{tmp_path}/other.py:f", "no Python file")):  # fmt: skip
        with pytest.raises(EinfallError, match=words):
            peer_of(text)


def test_examples_are_known_under_any_name() -> None:
    mine = replace(einfall.examples.causal, name="mine")
    assert [*known.makers(mine)] == [*peers.NAMES]
    assert [*known.makers(einfall.examples.softcap)] == ["flex", "flex-tuned"]
    assert known.makers(einfall.examples.linear) == {}


def test_rows_of_tensors() -> None:
    gqa = next(row for row in ROWS if row.example == "gqa")
    Q, K = torch.empty(3, 8, 1, 64), torch.empty(3, 2, 900, 64)
    row = known.row_of(gqa, (Q, K, K), {"G": 4})
    assert (row.batch, row.heads, row.n, row.d, row.group) == (3, 8, 900, 64, 4)
    assert row.example == "attention"
    assert known.row_of(gqa, (K, K, K), {"G": 1}).example == "gqa"
    with pytest.raises(RuntimeError, match="as many queries"):
        known.row_of(gqa, (K[:, :, :5], K, K), {"G": 1})
