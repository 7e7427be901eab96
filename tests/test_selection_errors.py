"""The selections' table, as far as it needs no GPU: what is compared, distances, and the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy
import pytest
import torch

from einfall.examples.benchmarks import selection_errors
from einfall.examples.benchmarks.selection_errors import Found, compare, distance, measure
from einfall.examples.benchmarks.selection_rows import ROWS, Row, inputs
from einfall.ir.expression import Populate
from einfall.ir.selection import selections

BY_NAME = {row.name: row for row in ROWS}
SMALL = {
    "topk_blocks-4096-whole": ({"h": 2, "m": 100}, {"B": 16, "k": 3}),
    "quest-32768-whole": ({"h": 2, "m": 100}, {"k": 3}),
    "ada_snapkv-8192": ({"h": 2, "m": 32, "block": 16}, {"k": 8, "near": 2, "least": 4}),
}


def small(name: str) -> Row:
    """Return a row with few keys."""
    sizes, parameters = SMALL[name]
    row = BY_NAME[name]
    return replace(row, sizes={**row.sizes, **sizes}, parameters={**row.parameters, **parameters})


@pytest.mark.parametrize("name", SMALL)
def test_lists_of_kernels_are_float64s(name: str) -> None:
    row = small(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = measure(row, "float16", device)
    assert [x.selection for x in found] == [e.name for e in selections(row.cascade.einsums)]
    assert all(x.held and x.members and not x.strangers for x in found)


def test_another_member_and_another_order_are_noticed() -> None:
    row = small("topk_blocks-4096-whole")
    made, parameters = inputs(row, "float32")
    (einsum,) = selections(row.cascade.einsums)
    arrays = {n: x.numpy() for n, x in zip(row.cascade.inputs, made, strict=True)}
    b, h, blocks = 1, 2, 7
    arrays["Sel"] = numpy.full((b, h, blocks, 3), -1)
    arrays["Sel"][..., 0] = 0
    found = compare(row, einsum, arrays, parameters, 2.0**-10)
    # the first block has no other to choose from, the others have at least their own
    assert (found.rows, found.differing) == (14, 12) and not found.held


@pytest.mark.parametrize(
    "selector,far",
    [("topk", 0.25 / 4), ("threshold", 0.5 / 2), ("cover", 2 / (8 / 3))],
)
def test_distances_are_from_what_ends_a_list(selector: str, far: float) -> None:
    number: Any = numpy.array([[numpy.inf, 4.0, 2.25, 2.0, 1.5, -numpy.inf]])
    theirs = numpy.array([[True, True, True, False, False, False]])
    ours = numpy.array([[True, True, False, True, False, False]])
    if selector == "cover":
        theirs, ours = ours | theirs, theirs
    if selector == "threshold":
        ours = theirs | (number == 1.5)
    body = Populate(selector, "m", None, None)  # type: ignore[arg-type]
    bound = numpy.array([2.0]) if selector != "cover" else numpy.array([8.0 / 3])
    assert distance(body, ours, theirs, number, bound) == pytest.approx(far)


def test_what_is_farther_than_rounding_is_marked() -> None:
    near = Found("a", "Sel", 10, 40, 2, 4, 0.7)
    far = replace(near, distance=9.0)
    assert near.held and not far.held and not replace(near, whole=True).held
    shown = selection_errors.text([near, far])
    assert "| a | Sel | 10 | 40 | 2 (20.0 %) | 4 | 0.70 |" in shown and "| a ** | Sel |" in shown
