"""Keys behind page tables, lists and offsets: what is loaded once a tile, tested, or promised."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall.examples import paged_decode, varlen

from .kernel_cases import DEVICE, outputs, relative

LISTED = """
def listed(Q, K, V, idx):
    S[h, p, j] = Q[h, p, e] * K[h, idx[h, j], e] / sqrt(size(e))
    A[h, p, j] = softmax[j](S[h, p, j])
    O[h, p, f] = A[h, p, j] * V[h, idx[h, j], f]
    return O
"""


def normal(*shape: int) -> torch.Tensor:
    draw = numpy.random.default_rng(sum(shape))
    return torch.from_numpy(draw.standard_normal(shape).astype("float32")).to(DEVICE)


def integers(x: object) -> torch.Tensor:
    return torch.as_tensor(numpy.asarray(x), dtype=torch.int32, device=DEVICE)


def cache(block: int) -> list[torch.Tensor]:
    """Two sequences of 64 slots, one of them with 37 keys, in pages in random order."""
    pages = 2 * 64 // block
    page = numpy.random.default_rng(3).permutation(pages).reshape(2, -1)
    K, V = normal(pages, block, 2, 16), normal(pages, block, 2, 32)
    return [normal(2, 2, 3, 16), K, V, integers(page), integers([37, 64])]


def assert_kernel_agrees(
    cascade: einfall.Cascade,
    tensors: list[torch.Tensor],
    tiles: dict[str, int],
    inside: tuple[str, ...] = (),
    **parameters: Any,
) -> str:
    truth = outputs(einfall.interpret(cascade, *(x.cpu() for x in tensors), **parameters))
    f = einfall.compile(cascade, backend="triton", tiles=tiles, inside=inside)
    for got, expected in zip(outputs(f(*tensors, **parameters)), truth, strict=True):
        assert relative(got, expected) < 2e-5
    return str(f.source)


@pytest.mark.parametrize(("block", "tile"), [(1, 16), (16, 16), (16, 32), (32, 16), (64, 64)])
@pytest.mark.parametrize("inside", [(), ("page",)])
def test_pages_and_tiles_of_any_width(block: int, tile: int, inside: tuple[str, ...]) -> None:
    source = assert_kernel_agrees(paged_decode, cache(block), {"m": tile}, inside, B=block)
    looked_up_once = f"m_first // {block}, tl.int64) * page_m" in source
    assert looked_up_once == (block % tile == 0)
    assert ("K_size_0" in source) == (not inside), "a promised page is not tested"


def test_a_page_outside_names_no_keys() -> None:
    Q, K, V, page, length = cache(16)
    page[0, 1], page[1, 0] = -1, 1000
    assert_kernel_agrees(paged_decode, [Q, K, V, page, length], {"m": 16}, B=16)
    assert_kernel_agrees(paged_decode, [Q, K, V, page, length], {"m": 32}, B=16)


def test_a_promise_about_something_else_is_refused() -> None:
    with pytest.raises(einfall.ShapeError, match=r"pages is no input of paged_decode \(Q, K, V, p"):
        einfall.compile(paged_decode, inside=("pages",))


@pytest.mark.parametrize("lengths", [[0, 1, 20, 0, 33], [54, 0, 0], [1] * 20])
def test_a_tile_of_tokens_walks_from_its_first_sequence_to_its_last(lengths: list[int]) -> None:
    ends = numpy.cumsum([0, *lengths])
    seq = integers(numpy.repeat(numpy.arange(len(lengths)), lengths))
    tokens = int(ends[-1])
    packed = [normal(tokens, 2, 16), normal(tokens, 2, 16), normal(tokens, 2, 32)]
    given = [*packed, seq, integers(ends), integers(ends)]
    source = assert_kernel_agrees(varlen, given, {"t": 16, "u": 16}, ("seq",), G=1)
    assert "cu_k_least = tl.min(" in source and "u_begin = " in source


def test_a_key_that_is_listed_twice_counts_twice() -> None:
    Q, K, V = normal(2, 20, 16), normal(2, 30, 16), normal(2, 30, 32)
    idx = integers(numpy.random.default_rng(0).integers(0, 30, (2, 40)))
    c = einfall.cascade(LISTED)
    assert_kernel_agrees(c, [Q, K, V, idx], {"p": 16, "j": 16})
    found = einfall.compile(c, backend="triton", tiles={"p": 16, "j": 16})(Q, K, V, idx)
    for h in range(2):
        count = torch.bincount(idx[h].long(), minlength=30).double()
        scores = Q[h].double() @ K[h].double().T / 4 + count.log()
        dense = scores.softmax(-1) @ V[h].double()
        assert relative(found[h], dense.cpu().numpy()) < 2e-5
