"""Interpreter before, interpreter after: what every pass over cascades has to keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy

from einfall.backends.interpreter import interpret
from einfall.ir.cascade import Cascade, Scalar
from einfall.ir.expression import Access, RankVariable

Arrays = dict[str, numpy.ndarray[Any, Any]]

SIZES = {"b": 2, "h": 4, "c": 2, "p": 5, "q": 5, "m": 7, "n": 7, "e": 3, "f": 4, "d": 3, "r": 2}


def arguments(
    cascade: Cascade,
    sizes: Mapping[str, int],
    *,
    given: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Arrays:
    """Draw normal inputs whose shapes follow from plain readings, but for those ``given``."""
    random = numpy.random.default_rng(seed)
    arrays: Arrays = {}
    for tensor in cascade.inputs:
        if given is not None and tensor in given:
            arrays[tensor] = numpy.asarray(given[tensor])
            continue
        readings = [
            x.coordinates
            for e in cascade.einsums
            for x in e.expressions()
            if isinstance(x, Access) and x.tensor == tensor
        ]
        shape = []
        for place in range(len(readings[0])):
            plain = [c[place] for c in readings if isinstance(c[place], RankVariable)]
            rank = plain[0]
            assert isinstance(rank, RankVariable)
            shape.append(sizes[rank.rank])
        arrays[tensor] = random.normal(size=shape)
    return arrays


def results(cascade: Cascade, arrays: Arrays, parameters: Mapping[str, Scalar]) -> list[Any]:
    """Interpret in float64; a list, one array an output."""
    found = interpret(cascade, *(arrays[t] for t in cascade.inputs), **dict[str, Any](parameters))
    return list(found) if isinstance(found, tuple) else [found]


def assert_same_meaning(
    before: Cascade,
    after: Cascade,
    *,
    sizes: Mapping[str, int] = SIZES,
    given: Mapping[str, Any] | None = None,
    tolerance: float = 1e-12,
    **parameters: Scalar,
) -> None:
    """Compare every output, relative to its largest finite value; infinities must stand alike."""
    assert (before.inputs, before.outputs) == (after.inputs, after.outputs)
    arrays = arguments(before, sizes, given=given)
    ours, theirs = results(after, arrays, parameters), results(before, arrays, parameters)
    for name, x, y in zip(before.outputs, ours, theirs, strict=True):
        assert x.shape == y.shape, name
        x, y = x.astype(float), y.astype(float)
        finite = numpy.isfinite(y)
        assert not numpy.isnan(y).any(), name
        numpy.testing.assert_array_equal(x[~finite], y[~finite], err_msg=name)
        scale = float(numpy.max(numpy.abs(y[finite]), initial=1e-300))
        error = float(numpy.max(numpy.abs(x[finite] - y[finite]), initial=0.0)) / scale
        assert error <= tolerance, f"{name}: {error:.3g}\n{before}\n-->\n{after}"
