"""Sums along diagonals: tiles are added up first, and no value changes."""

from __future__ import annotations

import numpy
import pytest

import einfall
from einfall.passes.flatten import flatten
from einfall.passes.solve_equalities import solve_equalities
from einfall.passes.split_blocks import block_sizes
from einfall.passes.split_diagonals import split_diagonals

SCORES = "S[p, m] = sum[e](Q[p, e] * K[m, e])"


def declared(sums: str, scores: str = SCORES) -> einfall.Cascade:
    """Return a cascade that sums scores of Q[p, e] and K[m, e], W[d] at hand."""
    more = ", W" if "W[" in sums else ""
    return einfall.cascade(f"def f(Q, K{more}):\n    {scores}\n    {sums}\n    return C\n")


def prepared(cascade: einfall.Cascade) -> einfall.Cascade:
    return solve_equalities(flatten(cascade), short=frozenset({"e"}))


DIAGONALS = {
    "down": "C[d: d < size(m)] = sum[p, m: p - m == d](exp(S[p, m]))",
    "down, from a corner": "C[d: d < size(m)] = sum[p, m: p + size(m) - size(p) - m == d](S[p, m])",
    "up": "C[d: d < size(m) + 7] = sum[p, m: m - p == d - 5](S[p, m] * S[p, m])",
    "across": "C[d: d < size(p) + size(m) - 1] = sum[p, m: p + m == d](S[p, m])",
    "across, from the end": "C[d: d < 90] = sum[p, m: p + m + d == size(p) + 3](S[p, m])",
    "with its own factor": "C[d] = W[d] + sum[p, m: p - m == d](tanh(S[p, m] + W[d]))",
    "of fewer points": "C[d: d < 40] = sum[p, m: p - m == d and m % 3 < 2 and d < p](S[p, m])",
}


@pytest.mark.parametrize("name", DIAGONALS)
@pytest.mark.parametrize(("rows", "columns"), [(130, 67), (9, 140), (0, 5)])
def test_tiles_first_keeps_the_value(name: str, rows: int, columns: int) -> None:
    cascade = declared(DIAGONALS[name])
    changed = split_diagonals(prepared(cascade), short=frozenset({"e"}))
    assert [e.name.endswith("_tiles") for e in changed.einsums].count(True) == 1
    assert {64} == {n for r, n in block_sizes(changed).items() if r.endswith("_low")}
    draw = numpy.random.default_rng(1)
    arrays = [draw.standard_normal(x) / 2 for x in ((rows, 3), (columns, 3), 11)]
    arrays = arrays[: len(cascade.inputs)]
    truth = einfall.interpret(cascade, *arrays)
    found = einfall.interpret(changed, *arrays)
    assert truth.shape == found.shape and (rows == 0 or abs(truth).max() > 0.1)
    numpy.testing.assert_allclose(found, truth, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("walked", "number"), [("p", "N[d + m - 3]"), ("m", "N[m]")])
def test_rows_are_where_numbers_are(walked: str, number: str) -> None:
    """A number for each row is read for the rows of a tile, not at places along its diagonals."""
    of = "Q[p, e] * Q[p, e]" if walked == "p" else "K[m, e] * K[m, e]"
    cascade = declared(
        "C[d: d < 150] = sum[m: 0 <= d + m - 3 and d + m - 3 < size(p)]"
        f"(exp(S[d + m - 3, m] - {number}))",
        f"{SCORES}\n    N[{walked}] = {of}",
    )
    changed = split_diagonals(flatten(cascade), short=frozenset({"e"}))
    (tiles,) = (e for e in changed.einsums if e.name.endswith("_tiles"))
    assert f"sum[{walked}_high: " in str(tiles) and f"N[{walked}_high * 64 + " in str(tiles)
    draw = numpy.random.default_rng(2)
    arrays = [draw.standard_normal(x) / 2 for x in ((140, 3), (67, 3))]
    truth = einfall.interpret(cascade, *arrays)
    numpy.testing.assert_allclose(einfall.interpret(changed, *arrays), truth, rtol=1e-11)


@pytest.mark.parametrize(
    ("scores", "sums"),
    [
        ("S[p, m] = Q[p, 0] + K[m, 1]", DIAGONALS["down"]),  # nothing to multiply in tiles
        ("S[p, m] = sum[e](Q[p, e] + K[m, e])", DIAGONALS["down"]),
        (SCORES, "C[d, e: d < size(m)] = sum[p, m: p - m == d](S[p, m] * Q[p, e])"),
        (SCORES, "C[d: d < size(m)] = max[p, m: p - m == d](S[p, m])"),
        (SCORES, "C[d: d < size(m)] = sum[p, m: p - 2 * m == d](S[p, m])"),
        (SCORES, "C[m] = sum[p](S[p, m])"),
        (SCORES, "C[d] = sum[p, m: p - m == d](tanh(S[p, m] + W[d]))"),  # d has W's size
    ],
)
def test_what_stays(scores: str, sums: str) -> None:
    cascade = prepared(declared(sums, scores))
    assert split_diagonals(cascade, short=frozenset({"e"})) is cascade
