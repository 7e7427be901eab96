"""What lines of assembly in Gluon kernels make of tiles; ``gluon_machine.py`` does what waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LOWEST = np.float32(-np.inf)


def computed(text: str, given: Sequence[Any]) -> Any:
    """Return what a line makes of its operands, None if it does something else."""
    if text == "mov.b32 $0, $1;":
        return given[0]
    if text.startswith("mov.b32 $0, 0fFF800000"):
        return LOWEST
    if text.startswith("bmsk.clamp.b32 $0, 0, $1"):
        return ((np.int64(1) << np.asarray(given[0])) - 1).astype(np.uint32).view(np.int32)
    if "and.b32 t, $2, $3; setp.ne.s32 p, t, 0; selp.f32 $0, $1" in text:
        x, bits, one = given
        return np.where(bits & one, x, np.float32(0) if "0f00000000" in text else LOWEST)
    if text.startswith("rcp.approx.ftz.f32"):
        return (1 / given[0]).astype(np.float32)
    if text.startswith("lg2.approx.ftz.f32"):
        return np.log2(given[0]).astype(np.float32)
    if text.startswith("tanh.approx.f32"):
        # as inexact as it may be: its last bit is the eleventh
        return np.tanh(given[0]) * np.float32(1 + 2**-11)
    return None
