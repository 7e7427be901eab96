"""Folds of Triton's interpreter a slice at a time; sorts of a few hundred keys took it seconds.

By functions other than sums and maxima it folds and scans one element after the other, with a dozen
Python calls for each. What combines two elements is element-wise, so that it combines two slices of
tensors as well, and the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from triton.runtime.interpreter import ReduceOps, ScanOps  # type: ignore[import-untyped]


def reduce_slices(self: Any, given: Sequence[Any]) -> list[Any]:
    """Reduce tensors along ``self.axis``, or over all elements where that is None."""
    tensors, axis = self.unravel(given, self.axis)
    found = part(self, tensors, 0, axis)
    for k in range(1, tensors[0].handle.data.shape[axis]):
        found = combined(self, found, part(self, tensors, k, axis), tensors)
    shape = [1 if k == axis or self.axis is None else n for k, n in enumerate(given[0].shape)]
    if not self.keep_dims:
        shape = [] if self.axis is None else [*shape[:axis], *shape[axis + 1 :]]
    return [
        self.to_tensor(x.handle.data.reshape(shape)[()], tensor.dtype)
        for x, tensor in zip(found, tensors, strict=True)
    ]


def scan_slices(self: Any, given: Sequence[Any]) -> list[Any]:
    """Scan tensors along ``self.axis``, from its first coordinate on."""
    shape, axis = given[0].handle.data.shape, self.axis
    steps = [part(self, given, 0, axis)]
    for k in range(1, shape[axis]):
        steps.append(combined(self, steps[-1], part(self, given, k, axis), given))
    rest = (*shape[:axis], *shape[axis + 1 :])
    return [
        self.to_tensor(np.stack([x.handle.data.reshape(rest) for x in places], axis), tensor.dtype)
        for places, tensor in zip(zip(*steps, strict=True), given, strict=True)
    ]


def part(self: Any, tensors: Sequence[Any], k: int, axis: int) -> tuple[Any, ...]:
    """Return the tensors at coordinate ``k`` of an axis."""
    return tuple(self.to_tensor(np.take(x.handle.data, k, axis), x.dtype) for x in tensors)


def combined(
    self: Any, left: tuple[Any, ...], right: tuple[Any, ...], tensors: Sequence[Any]
) -> tuple[Any, ...]:
    """Combine two slices; what comes out has the dtypes of the tensors."""
    found = self.combine_fn.fn(*left, *right)
    several = found if isinstance(found, tuple) else (found,)
    return tuple(
        # the array of a scalar has the shape (1,)
        self.to_tensor(x.handle.data.reshape([int(n) for n in x.shape])[()], like.dtype)
        for x, like in zip(several, tensors, strict=True)
    )


ELEMENTS = (ReduceOps.generic_reduce, ScanOps.generic_scan)
"""How Triton folds and scans."""

SLICES = (reduce_slices, scan_slices)


def fold_by(ways: tuple[Callable[..., Any], Callable[..., Any]]) -> None:
    """Make Triton's interpreter reduce and scan in one of these ways in this process."""
    ReduceOps.generic_reduce, ScanOps.generic_scan = ways
