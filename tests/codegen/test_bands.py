"""Products with what is read along diagonals of a tile: as dots with all of them."""

from __future__ import annotations

import pytest
import torch

import einfall
from einfall import examples
from einfall.ir.cascade import Cascade

from .kernel_cases import TOLERANCE, assert_kernels_agree, outputs, relative, run_nests

SCORES = {
    "columns after rows": (
        "X[p, m: m <= p] = Q[p, e] * K[m, e] + Q[p, e] * R[m - p + size(p) - 1, e]"
    ),
    "rows after columns": "X[p, m] = Q[p, e] * K[m, e] + K[m, e] * R[p - m + size(m) - 1, e]",
    "across": "X[p, m: p + m < 70] = Q[p, e] * K[m, e] + Q[p, e] * R[p + m, e]",
    "across, backwards": (
        "X[p, m] = Q[p, e] * K[m, e] + Q[p, e] * R[size(p) + size(m) - 2 - p - m, e] / 2"
    ),
    "two": (
        "X[p, m] = Q[p, e] * R[m - p + size(p) - 1, e] "
        "+ K[m, e] * R[p - m + size(m) - 1, e] + sum[e](Q[p, e] * K[m, e])"
    ),
}
CUBE = "[:, :, None]"
"""Where a number is loaded for each row, column and feature."""

SHAPES = ((70, 50, 32, 32, 32), (37, 50, 20, 16, 32))
"""Rows, columns, features, and tiles of rows and columns."""


def cascade(scores: str) -> Cascade:
    """Return a cascade with such scores."""
    return einfall.cascade(f"""
    def f(Q, K, V, R):
        {scores}
        A[p, m] = softmax[m](X[p, m] / 4)
        O[p, f] = A[p, m] * V[m, f]
        return O
    """)


def tensors(rows: int, columns: int, features: int, dtype: str) -> list[torch.Tensor]:
    """Return random arguments."""
    draw = torch.Generator().manual_seed(3)
    shapes = ((rows, features), (columns, features), (columns, 16), (rows + columns - 1, features))
    return [torch.randn(s, generator=draw).to(getattr(torch, dtype)) for s in shapes]


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("shape", SHAPES, ids=["even", "uneven"])
def test_points_take_their_own_diagonal(scores: str, shape: tuple[int, ...]) -> None:
    rows, columns, features, p, m = shape
    given, tiles = tensors(rows, columns, features, "float32"), {"p": p, "m": m}
    lowered = assert_kernels_agree(cascade(scores), given, {}, TOLERANCE["float32"], tiles)
    (kernel,) = lowered.kernels
    assert "tl.gather(" in kernel.text and CUBE not in kernel.text
    truth = einfall.interpret(cascade(scores), *given)
    (found,) = run_nests(cascade(scores), lowered, given, {})
    assert relative(found, truth) < 1e-12


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_gradients_lay_columns_along_diagonals(dtype: str) -> None:
    backward = einfall.differentiate(examples.relative_keys)
    draw = torch.Generator().manual_seed(5)
    n, e = 260, 16
    shapes = {"R": (1, 2 * n - 1, e)} | dict.fromkeys(("Q", "K", "V", "O_grad"), (1, 1, n, e))
    given = {k: torch.randn(s, generator=draw).to(getattr(torch, dtype)) for k, s in shapes.items()}
    wide = {k: x.double() for k, x in given.items()}
    S = wide["Q"] @ wide["K"].mT
    place = (torch.arange(n) - torch.arange(n)[:, None] + n - 1).expand(1, 1, n, n)
    S = (S + (wide["Q"] @ wide["R"].mT).gather(-1, place)) / e**0.5
    S = S.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
    given["A_log_kept"] = S.logsumexp(-1).float()
    given["O"] = (S.softmax(-1) @ wide["V"]).to(getattr(torch, dtype))
    arguments = [given[name] for name in backward.inputs]
    truth = outputs(einfall.interpret(backward, *arguments))
    tiles = {"p": 64, "m": 64}
    f = einfall.compile(backward, backend="triton", tiles=tiles)
    for got, expected in zip(outputs(f(*arguments)), truth, strict=True):
        assert relative(got, expected) < TOLERANCE[dtype]
    texts = [k.text for k in f.lower(*arguments).kernels]
    assert sum("tl.gather(" in text for text in texts) == 3
    assert not any(CUBE in text for text in texts)


WALKS = {
    "a list": ("m // 16 in Blocks[p // 32] and m <= p", {"p": 32, "m": 16}),
    "a window": ("m <= p and p - m < 20", {"p": 32, "m": 16}),
    "wide tiles of columns": ("m <= p", {"p": 16, "m": 64}),
}


@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
def test_keys_and_values_of_distances_where_walks_skip_tiles(
    walk: tuple[str, dict[str, int]],
) -> None:
    """Shaw et al., arXiv 1803.02155, equations 3 and 4; of distances that occur."""
    exists, tiles = walk
    inputs = "Q, K, V, R, U" + (", Blocks" if "Blocks" in exists else "")
    found = einfall.cascade(f"""
    def f({inputs}):
        S[p, m: {exists}] = Q[p, e] * K[m, e] + Q[p, e] * R[p - m, e]
        A[p, m] = softmax[m](S[p, m])
        O[p, f] = sum[m](A[p, m] * V[m, f]) + sum[m](A[p, m] * U[p - m, f])
        return O
    """)
    draw = torch.Generator().manual_seed(7)
    given = [torch.randn(100, n, generator=draw) for n in (16, 16, 24, 16, 24)]
    lists = torch.stack([torch.randperm(7, generator=draw)[:4] for _ in range(4)]).int()
    given += [lists] if "Blocks" in exists else []
    lowered = assert_kernels_agree(found, given, {}, TOLERANCE["float32"], tiles)
    assert lowered.kernels[-1].text.count("tl.gather(") >= 2


def test_other_steps_are_no_diagonals() -> None:
    scores = "X[p, m] = Q[p, e] * K[m, e] + Q[p, e] * R[(p + 2 * m) % (size(p) + size(m) - 1), e]"
    given = tensors(21, 18, 16, "float32")
    tiles = {"p": 16, "m": 16}
    lowered = assert_kernels_agree(cascade(scores), given, {}, TOLERANCE["float32"], tiles)
    assert "tl.gather(" not in lowered.kernels[0].text


def test_gluon_says_why_it_has_no_such_kernels() -> None:
    given = tensors(256, 256, 64, "float16")
    with pytest.raises(einfall.BackendError, match="along diagonals of R"):
        einfall.compile(cascade(SCORES["across"]), emitter="gluon").lower(*given, target="sm_90")
