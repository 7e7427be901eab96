"""Sizes that no tile divides, that are 1 or 0, and tensors in any layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

import einfall
from einfall import examples

from .kernel_cases import TOLERANCE, WITH_KERNEL, arguments, assert_kernels_agree, outputs

BASE = {"b": 1, "h": 2, "group": 2, "p": 24, "m": 40, "e": 16, "f": 32, "block": 16}

SIZES: Mapping[str, dict[str, int]] = {
    "heads of 80 and 24": {"e": 80, "f": 24},
    "heads of 24 and 192": {"e": 24, "f": 192},
    "heads of 96 and 80": {"e": 96, "f": 80},
    "heads of 2 and 1": {"e": 2, "f": 1},
    "one row": {"p": 1, "m": 70},
    "one column": {"m": 1, "p": 70},
    "one point": {"p": 1, "m": 1, "e": 2, "f": 1, "h": 2, "group": 1, "block": 4},
    "no columns": {"m": 0},
    "no rows": {"p": 0},
    "no batch": {"b": 0},
}

TILES = {"p": 32, "m": 32}

RANGE = (
    *("alibi", "causal", "differential", "entropy", "gqa", "linear", "score_statistics"),
    *("sink_window", "softcap", "varlen_decode"),
)
"""Examples that differ in their ranks, loops and states."""


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_nothing_to_compute(name: str) -> None:
    """Over nothing every reduction gives its identity; nothing at all is an empty tensor."""
    for case in ("no columns", "no rows", "no batch"):
        tensors, parameters = arguments(name, scale=BASE | SIZES[case])
        cascade = getattr(examples, name)
        assert_kernels_agree(cascade, tensors, parameters, TOLERANCE["float32"], TILES)


@pytest.mark.parametrize("name", ["block_lists", "seer_attention", "topk_blocks"])
def test_sequences_shorter_than_a_block(name: str) -> None:
    """What spans little memory is not stored, if a list says what of it exists."""
    for length in (1, 20):
        tensors, parameters = arguments(name, scale=BASE | {"p": length, "m": length})
        cascade = getattr(examples, name)
        assert_kernels_agree(cascade, tensors, parameters, TOLERANCE["float32"], TILES)


@pytest.mark.parametrize("case", [x for x in SIZES if not x.startswith("no ")])
@pytest.mark.parametrize("name", RANGE)
def test_odd_sizes(name: str, case: str) -> None:
    tensors, parameters = arguments(name, scale=BASE | SIZES[case])
    cascade = getattr(examples, name)
    assert_kernels_agree(cascade, tensors, parameters, TOLERANCE["float32"], TILES)


@pytest.mark.parametrize("name", ["attention", "causal", "sink_window", "entropy"])
def test_tiles_that_differ(name: str) -> None:
    """Rows and columns in tiles of different widths; one of them wider than its rank."""
    tensors, parameters = arguments(name, scale=BASE | {"p": 70, "m": 52})
    cascade = getattr(examples, name)
    for tiles in ({"p": 64, "m": 16}, {"p": 16, "m": 64}, {"p": 128, "m": 32}):
        assert_kernels_agree(cascade, tensors, parameters, TOLERANCE["float32"], tiles)


def transposed(x: torch.Tensor) -> torch.Tensor:
    """Return equal values whose memory runs through the ranks in reverse order."""
    backward = list(reversed(range(x.dim())))
    return x.permute(backward).contiguous().permute(backward)


def sliced(x: torch.Tensor) -> torch.Tensor:
    """Return equal values out of a larger tensor, at an offset, every second one."""
    large = torch.full([2 * n + 3 for n in x.shape], 7, dtype=x.dtype, device=x.device)
    part = large[tuple(slice(3, 3 + 2 * n, 2) for n in x.shape)]
    part.copy_(x)
    return part


def flipped_heads(x: torch.Tensor) -> torch.Tensor:
    """Return equal values with the two ranks before the last one exchanged in memory."""
    if x.dim() < 3:
        return x
    order = [*range(x.dim() - 3), x.dim() - 2, x.dim() - 3, x.dim() - 1]
    return x.permute(order).contiguous().permute(order)


LAYOUTS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "transposed": transposed,
    "sliced": sliced,
    "heads inside": flipped_heads,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RANGE)
def test_layouts_change_no_bit(name: str, layout: str) -> None:
    """A view gives what its contiguous copy gives, to the last bit."""
    tensors, parameters = arguments(name, scale=BASE | {"b": 2, "h": 4})
    f = einfall.compile(getattr(examples, name), backend="triton", tiles=TILES)
    views = [LAYOUTS[layout](x) for x in tensors]
    assert all(torch.equal(a, b) for a, b in zip(views, tensors, strict=True))
    assert any(a.stride() != b.stride() for a, b in zip(views, tensors, strict=True))
    expected, found = outputs(f(*tensors, **parameters)), outputs(f(*views, **parameters))
    for got, wanted in zip(found, expected, strict=True):
        assert got.is_contiguous() and torch.equal(got, wanted)


def test_expanded_tensors_are_read_once() -> None:
    """A stride of 0 shares keys among heads."""
    tensors, parameters = arguments("causal", scale=BASE)
    Q, K, V = tensors
    K, V = K[:, :1].expand_as(K), V[:, :1].expand_as(V)
    assert K.stride(1) == V.stride(1) == 0
    f = einfall.compile(examples.causal, backend="triton", tiles=TILES)
    assert torch.equal(f(Q, K, V), f(Q, K.contiguous(), V.contiguous()))


def test_rows_that_see_nothing() -> None:
    """More rows than columns: the first ones are empty, and hold 0 and a maximum of -inf."""
    tensors, parameters = arguments("causal_lse", scale=BASE | {"p": 70, "m": 24})
    lowered = assert_kernels_agree(
        examples.causal_lse, tensors, parameters, TOLERANCE["float32"], TILES
    )
    O, L = lowered.plan()(*tensors, **parameters)  # noqa: E741
    assert O.shape[2] == 70
    # the last row sees every column, row 45 none, row 46 the first one
    empty = torch.arange(70, device=O.device) < 46
    assert torch.equal((O[0, 0] == 0).all(-1), empty)
    assert torch.equal(L[0, 0] == -torch.inf, empty)


def test_a_key_that_is_no_number_harms_those_alone_that_see_it() -> None:
    """What a filter removes takes no part, even where it is no number."""
    tensors, parameters = arguments("sliding_window", scale=BASE | {"p": 40, "m": 40})
    f = einfall.compile(examples.sliding_window, backend="triton", tiles=TILES)
    expected = f(*tensors, **parameters)
    Q, K, V = (x.clone() for x in tensors)
    # the last column is seen by the last row alone
    K[:, :, -1] = torch.nan
    found = f(Q, K, V, **parameters)
    assert found[:, :, -1].isnan().all()
    assert torch.equal(found[:, :, :-1], expected[:, :, :-1])
