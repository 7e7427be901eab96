"""Programs of few rows that are more than run at a time take fewer stages."""

from __future__ import annotations

import pytest

import einfall
from einfall import examples
from einfall.backends.crowd import SMALL

SIZES = {"h": 32, "p": 1, "m": 4096, "e": 128, "f": 128}


def taken(batch: int, **options: int | dict[str, int] | None) -> list[tuple[int, int]]:
    """Return warps and stages of each kernel of so many sequences, 8 programs each."""
    f = einfall.compile(examples.gqa, target="sm_90", **options)  # type: ignore[arg-type]
    lowered = f.lower(sizes={"b": batch, **SIZES}, G=4)
    return [(k.num_warps, k.num_stages) for k in lowered.kernels]


@pytest.mark.parametrize(
    ("batch", "found"),
    # three programs on each of 132 multiprocessors are 396
    [(48, (2, 3)), (50, SMALL), (396, SMALL), (397, (2, 3))],
)
def test_more_programs_than_run_at_a_time_take_less_room(
    batch: int, found: tuple[int, int]
) -> None:
    assert taken(batch) == [found]


def test_what_is_asked_for_and_short_walks_are_left_alone() -> None:
    assert taken(64, num_stages=3) == [(2, 3)]
    assert taken(64, num_warps=2) == [(2, 3)]
    assert taken(64, tiles={"m": 64}) == [(2, 3)]
    assert len(taken(8)) == 2
    f = einfall.compile(examples.gqa, target="sm_90")
    short = f.lower(sizes={"b": 64, **SIZES, "m": 256}, G=4)
    assert [(k.num_warps, k.num_stages) for k in short.kernels] == [(2, 3)]


def test_lists_keep_the_stages_that_fetch_what_they_name() -> None:
    f = einfall.compile(examples.paged_decode, target="sm_90")
    sizes = {"b": 64, "c": 8, "g": 4, "m": 4096, "e": 128, "f": 128}
    lowered = f.lower(sizes=sizes, dtypes={"page": "int32", "length": "int32"})
    assert [k.num_stages for k in lowered.kernels] == [3]
