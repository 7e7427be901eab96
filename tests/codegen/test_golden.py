"""Generated kernels, kept as Python files: a change of the text shows as a difference."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import einfall
from einfall import examples

CASES = (
    ("attention", 64, "sm_90"),
    ("causal", 80, "sm_80"),
    ("sliding_window", 128, "sm_90"),
    ("entropy", 64, "sm_90"),
    ("linear", 64, "sm_90"),
)
"""Plain; an offset filter and an odd head size, by addresses; a window; several outputs; two
kernels.
"""


@pytest.mark.parametrize(("name", "features", "target"), CASES)
def test_kernels_are_as_kept(
    name: str, features: int, target: str, golden: Callable[[str, str], None]
) -> None:
    lowered = einfall.compile(getattr(examples, name), emitter="tl").lower(
        sizes={"e": features, "f": features}, dtype="float16", target=target
    )
    for kernel in lowered.kernels:
        golden(f"{kernel.name}_{target}", kernel.text)
