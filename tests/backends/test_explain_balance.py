"""How unequal programs are: their tiles by hand, and a launch played through."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import einfall
import einfall.backends.compile as compiling
from einfall import examples
from einfall.backends.explain_balance import last_end, work_of_programs
from einfall.backends.explain_visits import Facts

TEXT = """
def heads(Q, K, V, width):
    S[b, h, p, m: m <= p and p - m < width[h]] = Q[b, h, p, e] * K[b, h, m, e]
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""
N, TILE = 2048, 64


def test_work_in_the_order_of_programs() -> None:
    """Heads of several widths, the last tiles of each first."""
    width = np.array([N, 128, 1])
    f = einfall.compile(einfall.cascade(TEXT), tiles={"p": TILE, "m": TILE}, emitter="tl")
    given = [torch.zeros(2, 3, N, 16) for _ in range(3)]
    lowered = f.lower(*given, torch.from_numpy(width), target="sm_90")
    (kernel,) = lowered.mapping.kernels
    facts = Facts.of(lowered, lowered.known.sizes, {"width": width})
    wanted = []
    for _, h in np.ndindex(2, 3):
        for i in reversed(range(N // TILE)):
            first = max(0, i * TILE - int(width[h]) + 1) // TILE
            wanted.append(i + 1 - first)
    assert kernel.ranks("grid") == ("b", "h") and kernel.reverse == ("p",)
    assert work_of_programs(kernel, facts).tolist() == wanted
    assert work_of_programs(kernel, Facts.of(lowered, lowered.known.sizes, {})) is None


def test_a_launch_played_through() -> None:
    assert last_end([1, 1, 1, 1, 4], 2) == 6
    assert last_end([4, 1, 1, 1, 1], 2) == 4
    assert last_end([3, 3, 3], 4) == 3


def test_explained() -> None:
    sizes = {"b": 1, "h": 5, "p": 4096, "m": 4096, "e": 64, "f": 64}
    f = einfall.compile(examples.causal, tiles={"p": 64, "m": 64}, emitter="tl")
    found = f.lower(sizes=sizes, target="sm_90").explain()
    one = found.kernels[0].balance
    assert one is not None and (one.least, one.mean, one.most) == (1, 32.5, 64)
    work = [64 - i for _ in range(5) for i in range(64)]
    assert one.issued == last_end(work, 132) * 132 / sum(work)
    assert one.longest_first == last_end(sorted(work)[::-1], 132) * 132 / sum(work)
    assert one.longest_first < one.issued
    said = " ".join(str(found).split())
    assert (
        "a program visits 1 to 64 tiles, 32.5 on average; the last multiprocessor ends at" in said
    )
    plain = einfall.compile(examples.attention).lower(sizes=sizes, target="sm_90").explain()
    assert plain.kernels[0].balance is None


def test_programs_that_stay_take_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest tile of rows with the shortest: 2,048 tiles of 128 rows on 132 programs."""
    monkeypatch.setattr(compiling, "gluon_missing", lambda: "")
    sizes = {"b": 1, "h": 16, "p": 16384, "m": 16384, "e": 128, "f": 128}
    f = einfall.compile(examples.causal, emitter="gluon")
    (kernel,) = f.lower(sizes=sizes, target="sm_90").explain().kernels
    assert kernel.crew is not None and kernel.crew.paired and kernel.balance is not None
    pairs = 16 * 64
    assert kernel.balance.issued == pytest.approx(-(-pairs // 132) / (pairs / 132))
