"""Contraction: the sum of a product of tensors, without the space of all their ranks at once.

Two tensors at a time, the cheapest pair first, each pair as one (batched) matrix product. Points
that do not exist must already hold 0, and values must be finite, since 0 * inf is not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod

import numpy

from .numpy_operators import Array

Operand = tuple[Array, tuple[int, ...]]
"""An array without axes of length 1, and the label of each axis."""


def contract(factors: Sequence[Array], shape: tuple[int, ...], reduced: tuple[int, ...]) -> Array:
    """Return the sum over the axes ``reduced`` of the product of the factors.

    The factors broadcast to ``shape``: all have ``len(shape)`` axes, and one dtype. The result
    keeps every axis; reduced ones, and those along which no factor varies, have length 1.
    """
    operands = [_squeeze(x) for x in factors]
    seen = {label for _, labels in operands for label in labels}
    # A sum over a rank along which nothing varies counts that rank's points.
    times = prod(shape[axis] for axis in reduced if axis not in seen)
    while len(operands) > 1:
        left, right = min(
            combinations(operands, 2), key=lambda pair: _growth(pair[0], pair[1], shape)
        )
        operands = [x for x in operands if x is not left and x is not right]
        needed = {label for _, labels in operands for label in labels}
        needed |= {axis for axis in range(len(shape)) if axis not in reduced}
        operands.append(_pair(left, right, needed))
    array, labels = _sum_out(operands[0], {x for x in range(len(shape)) if x not in reduced})
    ordered = array.transpose(numpy.argsort(labels)) if labels else array
    kept = [shape[axis] if axis in labels else 1 for axis in range(len(shape))]
    return numpy.asarray(ordered.reshape(kept) * array.dtype.type(times))


def _squeeze(x: Array) -> Operand:
    labels = tuple(axis for axis, n in enumerate(x.shape) if n != 1)
    return x.reshape([x.shape[axis] for axis in labels]), labels


def _growth(left: Operand, right: Operand, shape: tuple[int, ...]) -> int:
    union = {*left[1], *right[1]}
    return prod(shape[label] for label in union) - left[0].size - right[0].size


def _sum_out(operand: Operand, needed: set[int]) -> Operand:
    array, labels = operand
    gone = tuple(i for i, label in enumerate(labels) if label not in needed)
    kept = tuple(label for label in labels if label in needed)
    return (array.sum(axis=gone, dtype=array.dtype), kept) if gone else operand


def _pair(left: Operand, right: Operand, needed: set[int]) -> Operand:
    """Multiply two operands and sum the labels that nothing needs any more."""
    a, x = _sum_out(left, needed | set(right[1]))
    b, y = _sum_out(right, needed | set(left[1]))
    batch = [label for label in x if label in y and label in needed]
    inner = [label for label in x if label in y and label not in needed]
    rows = [label for label in x if label not in y]
    columns = [label for label in y if label not in x]
    extent = {**dict(zip(x, a.shape, strict=True)), **dict(zip(y, b.shape, strict=True))}

    def lay_out(array: Array, labels: tuple[int, ...], *groups: list[int]) -> Array:
        order = [labels.index(label) for group in groups for label in group]
        lengths = [prod(extent[label] for label in group) for group in groups[-2:]]
        return array.transpose(order).reshape([extent[label] for label in batch] + lengths)

    if inner:
        product = lay_out(a, x, batch, rows, inner) @ lay_out(b, y, batch, inner, columns)
    else:
        product = lay_out(a, x, batch, rows, inner) * lay_out(b, y, batch, inner, columns)
    labels = (*batch, *rows, *columns)
    return product.reshape([extent[label] for label in labels]), labels
