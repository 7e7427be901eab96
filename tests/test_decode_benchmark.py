"""The parts of the decode table that need no GPU: what its rows mean, and what it says of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from einfall import examples
from einfall.examples.benchmarks import decode
from einfall.examples.benchmarks.decode import DecodeTable
from einfall.examples.benchmarks.decode_rows import DECODE_ROWS, DecodeRow, inputs, reference
from einfall.examples.benchmarks.plot_decode import decode_panels, fill
from einfall.examples.benchmarks.report import COPY, OURS, Result

BY_NAME = {row.name: row for row in DECODE_ROWS}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def small(row: DecodeRow) -> DecodeRow:
    """Return the row at sizes for a processor; latents keep their features."""
    if row.example == "mla_decode":
        return replace(row, batch=2, heads=4, group=4, n=64)
    return replace(row, batch=2, heads=2 * row.group, n=64, d=16)


def test_rows_cover_what_is_asked() -> None:
    assert len(BY_NAME) == len(DECODE_ROWS)
    plain = [row for row in DECODE_ROWS if row.example == "gqa"]
    assert {row.group for row in plain} == {1, 4, 6, 8, 16}
    assert {min(r.batch for r in plain), max(r.batch for r in plain)} == {1, 128}
    assert {min(r.n for r in plain), max(r.n for r in plain)} == {1024, 262144}
    pages = {row.parameters["B"] for row in DECODE_ROWS if row.example == "paged_decode"}
    assert pages == {16, 64, 128}
    assert {row.heads for row in DECODE_ROWS if row.example == "mla_decode"} == {16, 128}
    for row in DECODE_ROWS:
        assert row.example in examples.names() and row.moved < 1 << 33
    assert BY_NAME["gqa4-d128-b8-n8192"].moved == 2 * 8 * 8 * 8192 * 128 * 2
    assert BY_NAME["latent128-b4-n8192"].moved == 4 * 8192 * 576 * 2


@pytest.mark.parametrize("name", ["gqa6-d128-b8-n8192", "pages16-b1-n65536", "latent128-b4-n8192"])
def test_kernels_and_two_products_agree_with_the_reference(name: str) -> None:
    row = small(BY_NAME[name])
    tensors = inputs(row, device=DEVICE, dtype=torch.float32)
    expected = reference(row, tensors)
    for who in (OURS, "torch"):
        (got,) = decode.make(who, row, tensors)()
        assert got.shape == expected.shape
        assert float((got.double() - expected).norm() / expected.norm()) < 1e-5
    bent = reference(row, (tensors[0] * 1.01, *tensors[1:]))
    assert float((bent - expected).norm() / expected.norm()) > 1e-3


def table() -> DecodeTable:
    rows = (BY_NAME["gqa4-d128-b8-n8192"], BY_NAME["pages16-b1-n65536"])
    results = (
        Result(rows[0].name, OURS, (0.1,), (3e-4,)),
        Result(rows[0].name, "sdpa-flash", (0.11, 0.12, 0.13), (3e-4,)),
        Result(rows[0].name, "sdpa-cudnn", (0.105,), (1.5e-4,)),
        Result(rows[0].name, COPY, (0.09,)),
        Result(rows[1].name, OURS, refusal="OutOfMemoryError: too large"),
    )
    return DecodeTable(rows, results, {"device": "a device"}, long=2.5)


def test_table_counts_bytes_and_leaves_copies_out_of_peers(tmp_path: Path) -> None:
    found = table()
    assert found.peers() == ("sdpa-flash", "sdpa-cudnn")
    heads, plain, paged = found.lines()
    cells = dict(zip(heads, plain, strict=True))
    assert (cells["MB"], cells[OURS], cells[COPY]) == ("268", "100.0", "90.0")
    rate = 268435456 / 0.1e-3 / 1e12
    assert cells["TB/s"] == f"{rate:.2f}" and cells["of a long copy's"] == f"{rate / 2.5:.0%}"
    assert cells["best peer / ours"] == "1.050 (sdpa-cudnn)"
    assert cells["error / best peer's"] == "2.00"
    assert paged[0].endswith(" *") and set(paged[2:]) == {"-"}
    assert "2.50 TB/s" in found.text() and "OutOfMemoryError" in found.text()
    found.write(tmp_path)
    data = json.loads((tmp_path / "decode.json").read_text())
    assert data["rows"][0]["moved"] == 268435456
    panels = decode_panels(data)
    assert list(panels) == ["32 heads on 8, 128 features, sequences x keys"]
    shares = panels["32 heads on 8, 128 features, sequences x keys"]
    assert shares[OURS] == {"8 x\n8k": pytest.approx(rate / 2.5)}
    assert shares["sdpa-flash"]["8 x\n8k"] == pytest.approx(rate / 2.5 / 1.2)


def test_points_of_one_place_lie_side_by_side() -> None:
    class Axes:
        drawn: list[tuple[list[float], list[float]]] = []  # noqa: RUF012

        def plot(self, x: list[float], y: list[float], **_: object) -> tuple[str]:
            self.drawn.append((x, y))
            return (f"line {len(self.drawn)}",)

        def set_xticks(self, at: range, names: list[str], **_: object) -> None:
            assert (list(at), names) == ([0, 1], ["1", "2"])

        def set_xlim(self, first: float, last: float) -> None:
            assert first < -0.1 and last > 1.1

    shares = {"flex": {"1": 0.5}, OURS: {"1": 0.6, "2": 0.7}, COPY: {"2": 0.9}}
    assert fill(Axes(), shares) == {"flex": "line 1", OURS: "line 2", COPY: "line 3"}
    assert Axes.drawn == [([-0.1], [50.0]), ([0.1, 1.1], [60.0, 70.0]), ([1.0], [90.0])]


def test_without_a_gpu_the_rows_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert decode.main(["--list", "--rows", "pages*"]) == 0
    assert capsys.readouterr().out.count("MB") == 7
