"""Tiles that a user names: refused before anything is compiled where no machine could hold them."""

from __future__ import annotations

import pytest

import einfall
from einfall import examples
from einfall.backends.lowered import Lowered
from einfall.ir.errors import BackendError

SIZES = {"b": 2, "h": 4, "p": 4096, "m": 4096, "e": 64, "f": 64}


def lowered(tiles: dict[str, int], target: str = "sm_90", emitter: str = "tl") -> Lowered:
    f = einfall.compile(examples.causal, target=target, parts={}, emitter=emitter, tiles=tiles)
    return f.lower(sizes=SIZES)


@pytest.mark.parametrize("emitter", ["tl", "auto", "gluon"])
@pytest.mark.parametrize(
    ("tiles", "what", "instead"),
    [
        ({"p": 65536}, "a tile of Q has 65536 x 64 elements, and Triton takes 1048576", {"p": 512}),
        ({"p": 4096}, "accumulates takes 270336 registers, .* has 65536", {"p": 512}),
        ({"m": 4096}, "a tile of K takes 524288 bytes of .*, and there are 232448", {"m": 1024}),
    ],
)
def test_too_wide(tiles: dict[str, int], what: str, instead: dict[str, int], emitter: str) -> None:
    words = (
        f"causal_kernel does not fit sm_90 with tiles={tiles}: .*{what}.*at most tiles={instead}"
    )
    with pytest.raises(BackendError, match=words):
        lowered(tiles, emitter=emitter)
    lowered(instead)


def test_of_another_machine() -> None:
    with pytest.raises(BackendError, match="takes 131072 bytes .* there are 65536; .*{'m': 512}"):
        lowered({"m": 1024}, "gfx942")


def test_of_wide_tiles_fewer_are_in_flight() -> None:
    (narrow,), (wide,) = lowered({}).kernels, lowered({"m": 512}).kernels
    assert narrow.num_stages > 1
    assert wide.tile_sizes["M0"] == 512
    assert wide.num_stages == 1, "two of K and two of V are 262144 bytes"
