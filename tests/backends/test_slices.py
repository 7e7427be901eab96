"""Masks as slices, there and back, against every point."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.slices import KINDS, Slice, slice_filter, slices

P, M = 40, 52


def kept(found: list[Slice], shape: tuple[int, int] = (P, M)) -> Any:
    """How many slices keep each point, by the definition."""
    p, m = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    count = np.zeros(shape, int)
    for q0, q1, k0, k1, kind in found:
        own = (q0 <= p) & (p < q1) & (k0 <= m) & (m < k1)
        if kind in ("causal", "both"):
            own = own & (m - k1 <= p - q1)
        if kind in ("inverse", "both"):
            own = own & (m - k0 >= p - q0)
        count += own
    return count


def points(filter: Any) -> Any:
    names = [n for n, _ in filter.tensors]
    c = einfall.cascade(
        f"def points({', '.join(('X', *names))}):\n    Y[p, m: {filter}] = X[p, m]\n    return Y\n"
    )
    return np.asarray(einfall.interpret(c, torch.ones(P, M), *(x for _, x in filter.tensors))) > 0


def drawn(seed: int, many: int) -> list[Slice]:
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(many):
        q0, q1 = sorted(draw.choice(P + 1, 2, replace=False).tolist())
        k0, k1 = sorted(draw.choice(M + 1, 2, replace=False).tolist())
        found.append(Slice(q0, q1, k0, k1, KINDS[draw.integers(4)]))
    return found


def split(found: list[Slice]) -> tuple[list[list[int]], list[list[int]], list[str]]:
    return [[*s[:2]] for s in found], [[*s[2:4]] for s in found], [s.kind for s in found]


@pytest.mark.parametrize("seed", range(12))
def test_slices_as_a_filter(seed: int) -> None:
    found = drawn(seed, 1 + seed % 5)
    filter = slice_filter(*split(found), rows=P)
    assert (points(filter) == (kept(found) > 0)).all()
    q, k, kinds = split(found)
    number = torch.tensor([KINDS.index(x) for x in kinds])
    again = slice_filter(torch.tensor(q), torch.tensor(k), number, rows=P)
    for (_, a), (_, b) in zip(filter.tensors, again.tensors, strict=True):
        assert torch.equal(a, b)


def test_documents_as_slices_run_as_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = [Slice(0, 16, 0, 20, "causal"), Slice(16, 40, 20, 52, "causal"),
             Slice(16, 40, 0, 4, "full")]  # fmt: skip
    filter = slice_filter(*split(found), rows=P)
    assert str(filter) == ("Begin[0, p] <= m < End[0, p] or Begin[1, p] <= m < End[1, p]")
    c = einfall.cascade(
        "def attention(Q, K, V, Begin, End):\n"
        f"    S[b, h, p, m: {filter}] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))\n"
        "    A[b, h, p, m] = softmax[m](S[b, h, p, m])\n"
        "    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]\n"
        "    return O\n"
    )
    draw = torch.Generator().manual_seed(0)
    main = [torch.randn(1, 1, n, 16, generator=draw) for n in (P, M, M)]
    f = einfall.compile(c, backend="triton", emitter="tl", tiles={"p": 16, "m": 16})
    out = f(*main, *(x for _, x in filter.tensors))
    mask = torch.from_numpy(kept(found) > 0)
    scores = (main[0] @ main[1].mT / 4).masked_fill(~mask, -float("inf"))
    torch.testing.assert_close(out, scores.softmax(-1) @ main[2], rtol=1e-5, atol=1e-5)


FILTERS = {
    "m <= p": [(0, P, 0, P, "causal")],
    "m <= p and p - m < 9": [(0, 9, 0, 9, "causal"), (9, P, 1, P, "both")],
    "m < 7 or m <= p": [(0, 7, 0, 7, "full"), (7, P, 0, P, "causal")],
    "m >= p and p >= 3": [(3, P, 3, M, "inverse")],
    "m // 16 == p // 16": [(0, 16, 0, 16, "full"), (16, 32, 16, 32, "full"),
                           (32, P, 32, 48, "full")],
    "m <= p and (p - m < 4 or m < 2)": None,
    "p - m < 5 and m - p <= 3 or m < p // 2": None,
    "m % 3 == 0 and m <= p": None,
    "2 * m < p": None,
    "m < 0": [],
}  # fmt: skip


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_as_slices(text: str) -> None:
    c = einfall.cascade(f"def f(X):\n    Y[p, m: {text}] = X[p, m]\n    return Y\n")
    found = slices(c, torch.ones(P, M))
    wanted = np.asarray(einfall.interpret(c, torch.ones(P, M))).astype(int)
    assert (kept(found) == wanted).all()  # each point once
    if FILTERS[text] is not None:
        assert [tuple(s) for s in found] == FILTERS[text]


def test_labels_become_slices_and_come_back() -> None:
    own = torch.tensor([[k // 13 for k in range(P)]])
    doc = torch.tensor([[k // 13 for k in range(M)]])
    c = einfall.cascade(
        "def f(X, own, doc):\n"
        "    Y[b, p, m: own[b, p] == doc[b, m] and m <= p] = X[b, p, m]\n    return Y\n"
    )
    given = (torch.ones(1, P, M), own, doc)
    found = slices(c, *given, at={"b": 0})
    assert [tuple(s) for s in found] == [
        (0, 13, 0, 13, "causal"), (13, 26, 13, 26, "causal"), (26, 39, 26, 39, "causal"),
        (39, 40, 39, 40, "full"),
    ]  # fmt: skip
    back = points(slice_filter(*split(found), rows=P))
    assert (back == (np.asarray(einfall.interpret(c, *given))[0] > 0)).all()
    with pytest.raises(einfall.ShapeError, match="follows b too"):
        slices(c, *given)


def test_a_million_rows_in_closed_form() -> None:
    n = 1 << 20
    found = slices(examples.sliding_window, sizes={"p": n, "m": n}, W=4096)
    assert len(found) == 2 and found[1].kind == "both"
    filter = slice_filter(*split(found), rows=n)
    assert all(x.shape == (1, n) for _, x in filter.tensors)


def test_lists_that_do_not_fit() -> None:
    with pytest.raises(einfall.ShapeError, match="2, 1 and 2 given"):
        slice_filter([[0, 1], [1, 2]], [[0, 1]], rows=4)
    with pytest.raises(einfall.ShapeError, match="2 separate runs"):
        slice_filter([[0, 4], [0, 4]], [[0, 1], [3, 4]], rows=4, most=1)
    with pytest.raises(einfall.ShapeError, match="wide given"):
        slice_filter([[0, 4]], [[0, 1]], ["wide"], rows=4)
    huge = einfall.cascade("def f(X):\n    Y[p, m: m % 3 == 0] = X[p, m]\n    return Y\n")
    with pytest.raises(einfall.ShapeError, match="too many to evaluate"):
        slices(huge, sizes={"p": 1 << 20, "m": 1 << 20})
