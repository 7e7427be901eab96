"""Parts of many rows are merged some rows at a time, those of few rows by a program for each."""

from __future__ import annotations

import pytest

import einfall
from einfall import examples

from .kernel_cases import arguments, assert_kernels_agree, outputs, relative, run_nests

SIZES = {"b": 2, "h": 2, "p": 13, "m": 70, "e": 16, "f": 32}
"""A last tile of rows that is cut, and parts that are no multiple of what is merged at a time."""


@pytest.mark.parametrize("name", ["causal_lse", "entropy", "differential"])
@pytest.mark.parametrize("parts", [3, 5])
def test_rows_that_are_merged_together(
    name: str, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("einfall.passes.pipeline.MERGED_ALONE", 0)
    cascade, (tensors, parameters) = getattr(examples, name), arguments(name, scale=SIZES)
    tiles = {"m": 16}
    given = {"parts": {"m": parts}}
    lowered = assert_kernels_agree(cascade, tensors, parameters, 3e-6, tiles, **given)
    assert lowered.mapping.kernels[-1].ranks("tiled") == ("p",)
    truth = outputs(einfall.interpret(cascade, *tensors, **parameters))
    got = run_nests(cascade, lowered, tensors, parameters)
    assert all(relative(x, y) < 1e-12 for x, y in zip(got, truth, strict=True))


def test_few_rows_have_programs_of_their_own() -> None:
    f = einfall.compile(examples.causal, target="sm_90", parts={"m": 4})
    sizes = {"b": 1, "h": 8, "m": 8192, "e": 64, "f": 64}
    few, many = (f.lower(sizes={**sizes, "p": p}).mapping.kernels[-1] for p in (256, 512))
    assert few.ranks("tiled") == ()
    assert [(c.rank, c.tile) for c in many.partitions[:2]] == [("p", 8), ("m_part", 4)]
