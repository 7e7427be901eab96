"""Options out of range: said by name where they are given, not ignored and not met far inside."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import einfall
from einfall import examples
from einfall.ir.errors import BackendError, ShapeError

WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"target": "h100"}, "target is an architecture as Triton calls it"),
    ({"target": "sm_70"}, "target is an architecture"),
    ({"tiles": {"p": 33}}, "a tile is a power of two; 33 given for rank p"),
    ({"tiles": {"p": "32"}}, "a tile is a power of two; '32' given"),
    ({"tiles": [("p", 32)]}, "tiles is a mapping"),
    ({"num_warps": 3}, "num_warps is a power of two, 1 to 32; 3 given"),
    ({"num_warps": "4"}, "num_warps is a power of two"),
    ({"num_stages": 0}, "num_stages is a number, 1 to 16"),
    ({"parts": {"m": -2}}, "-2 given for rank m"),
    ({"parts": {"m": 2.5}}, "2.5 given for rank m"),
    ({"static": "Q"}, r"static is a tuple of names, static=\('Q',\)"),
    ({"inside": 3}, "inside is a tuple of names"),
)


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_wrong_option(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        einfall.compile(examples.causal, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sizes": {"e": 64.0}}, "the size of a rank is a number, 0 or more; e = 64.0 given"),
        ({"sizes": {"e": -1}}, "e = -1 given"),
        ({"dtype": "half"}, "Q would be half, and kernels read float16"),
        ({"choice": -1}, "choice counts"),
        ({"tiles": {"p": 0}}, "power of two"),
        ({"target": "cuda"}, "architecture"),
    ],
)
def test_wrong_option_of_lower(options: dict[str, Any], words: str) -> None:
    with pytest.raises((BackendError, ShapeError), match=words):
        einfall.compile(examples.causal).lower(**options)


def test_what_has_no_effect_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "einfall"):
        einfall.compile(examples.gqa, tiles={"pp": 64})
    assert "tiles names 'pp', which is no rank of gqa (b, h, p, m, e, f); did you mean 'p'?" in (
        caplog.text
    )
