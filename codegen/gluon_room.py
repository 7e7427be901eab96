"""Room: how much shared memory the text of a Gluon kernel allocates.

Read off the very calls that are printed, so that nothing is left out::

    gl.allocate_shared_memory(K_box.dtype, [STAGES] + K_box.block_type.shape, K_box.layout)
    barriers(STAGES, CONSUMERS)

What the compiler takes besides, to exchange numbers between warps, is not among them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from math import prod

from .kernel import Argument

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "int32": 4, "int64": 8}
"""Bytes of an element of a box, or of what a consumer lays down."""

BARRIER = 8
"""Bytes of one barrier."""


def room(
    calls: Iterable[str],
    constants: Mapping[str, int],
    boxes: Mapping[str, Argument],
    dtypes: Mapping[str, str],
) -> int:
    """Return the bytes that these calls allocate.

    ``constants`` are the numbers that the file names, ``boxes`` its descriptors by name.
    """
    return sum(bytes_of(ast.parse(x, mode="eval").body, constants, boxes, dtypes) for x in calls)


def bytes_of(
    call: ast.expr,
    constants: Mapping[str, int],
    boxes: Mapping[str, Argument],
    dtypes: Mapping[str, str],
) -> int:
    """Return the bytes that one call allocates."""
    match call:
        case ast.Call(func=ast.Name(id="barriers"), args=[count, _]):
            return BARRIER * number(count, constants)
        case ast.Call(args=[ast.Attribute(value=ast.Name(id=name), attr=dtype), shape, _]):
            if isinstance(shape, ast.List):
                return BYTES[dtype] * prod(number(n, constants) for n in shape.elts)
            if isinstance(shape, ast.BinOp) and isinstance(shape.left, ast.List):
                box, slots = boxes[name], prod(number(n, constants) for n in shape.left.elts)
                return BYTES[dtypes[box.tensor]] * slots * prod(box.block)
    raise AssertionError(f"no call that allocates: {ast.unparse(call)}")


def number(node: ast.expr, constants: Mapping[str, int]) -> int:
    """Return a number: one written out, one with a name, or a product."""
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return constants[name]
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return number(left, constants) * number(right, constants)
    raise AssertionError(f"no number: {ast.unparse(node)}")
