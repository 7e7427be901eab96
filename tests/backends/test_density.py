"""Densities of loops, nominal and executed, against points and lists counted by hand."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.density import LoopDensity
from einfall.examples.inputs import make

P, M = 300, 520
DRAW = np.random.default_rng(5)
FILTERS: dict[str, dict[str, Any]] = {
    "Keep[p // 16, m // 256]": {"Keep": DRAW.random((19, 3)) < 0.4},
    "Keep[p // 64, m // 32] and m <= p": {"Keep": DRAW.random((5, 17)) < 0.4},
    "(p + 5) // 48 == (m + 11) // 48": {},
    "m >= 7 and m <= p + 3 and p - m < 37": {},
    "start[p // 16] <= m and m < start[p // 16] + 40": {
        "start": (DRAW.integers(0, 400, 19)).astype(np.int32)
    },
    "abs(p - m) % 96 == 5": {},
    "m % 32 == p // 100": {},
}


def points(filter: str) -> Any:
    c = einfall.cascade(
        f"def f({', '.join(('X', *FILTERS[filter]))}):\n"
        f"    Y[p, m: {filter}] = X[p, m]\n    return Y\n"
    )
    return np.asarray(einfall.interpret(c, np.ones((P, M)), *FILTERS[filter].values())) > 0


def densities(filter: str, tiles: dict[str, int]) -> tuple[Any, LoopDensity]:
    tensors = FILTERS[filter]
    c = einfall.cascade(
        f"def f({', '.join(('Q', 'K', 'V', *tensors))}):\n"
        f"    S[b, p, m: {filter}] = Q[b, p, e] * K[b, m, e]\n"
        "    A[b, p, m] = softmax[m](S[b, p, m])\n"
        "    O[b, p, f] = A[b, p, m] * V[b, m, f]\n    return O\n"
    )
    given = [torch.zeros(2, n, 16) for n in (P, M, M)]
    given += [torch.from_numpy(x) for x in tensors.values()]
    lowered = einfall.compile(c, tiles=tiles).lower(*given, target="sm_80")
    (found,) = lowered.density(*given)
    return lowered, found


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("tiles", [{"p": 64, "m": 64}, {"p": 16, "m": 128}])
def test_blocks_of_any_size_under_tiles_of_another(filter: str, tiles: dict[str, int]) -> None:
    """Blocks of 16 x 256 and 64 x 32, starts that no tile meets: what is visited has points."""
    lowered, found = densities(filter, tiles)
    kept = points(filter)
    live = full = 0
    for i in range(0, P, tiles["p"]):
        for j in range(0, M, tiles["m"]):
            own = kept[i : i + tiles["p"], j : j + tiles["m"]]
            live += bool(own.any())
            full += bool(own.all() and own.shape[1] == tiles["m"])
    tight = lowered.mapping.kernels[-1].traversals[0].domain.table is not None
    assert found.nominal == kept.mean()
    assert found.exact and found.tiles == found.skipped + found.full + found.partial
    assert found.full + found.partial == 2 * live if tight else found.partial >= 2 * live - 2 * full
    assert found.full <= 2 * full
    assert found.executed == (found.full + found.partial) / found.tiles
    assert found.inflation == found.executed / kept.mean()


def test_scattered_points_are_warned_of() -> None:
    lowered, found = densities("m % 32 == p // 100", {"p": 64, "m": 64})
    assert found.executed == 1.0 and found.inflation == pytest.approx(30.6, rel=0.01)
    said = " ".join(str(lowered.explain()).split())
    assert (
        "scattered points: 30.6 are computed for each that exists" in said
        and "smaller tiles" in said
    )


def test_lists_are_counted_entry_by_entry() -> None:
    tensors, parameters = make("block_lists", seed=0, scale="small")
    given = [torch.from_numpy(x) for x in tensors]
    names = dict(zip(examples.block_lists.inputs, tensors, strict=True))
    lowered = einfall.compile(examples.block_lists).lower(*given, **parameters, target="sm_90")
    (kernel,) = lowered.mapping.kernels
    rows, tile = kernel.partition("p").tile, kernel.partition("m").tile
    width, (batch, heads, _, longest) = parameters["M0"], names["Blocks"].shape
    wanted = 0
    for b, h in np.ndindex(batch, heads):
        for first in range(0, 72, rows):
            i = first // parameters["P0"]
            own = [names["Blocks"][b, h, i, j] for j in range(names["Count"][b, h, i])]
            wanted += -(-sum(0 <= x * width < 100 for x in own) * width // tile)
    (found,) = lowered.density(*given)
    assert (found.listed, found.exact) == (wanted, True)
    assert found.nominal == listed_points(names, parameters, limited=False)
    (found,) = lowered.density()
    assert found.nominal is None
    assert not found.exact and found.listed == batch * heads * 3 * -(-longest * width // tile)
    assert "at most" in str(lowered.explain())
    found = lowered.explain().to_dict()["kernels"][0]["loops"][0]["tiles"]
    assert found["listed"] == batch * heads * 3 * -(-longest * width // tile)
    assert found["exact"] is False


def listed_points(names: dict[str, Any], parameters: dict[str, Any], *, limited: bool) -> float:
    """The share of points whose block is in the list of their row, by numpy."""
    p, m = np.arange(names["Q"].shape[2])[:, None], np.arange(names["K"].shape[2])[None, :]
    blocks, count = names["Blocks"], names["Count"]
    shares = []
    for b, h in np.ndindex(*count.shape[:2]):
        row = p // parameters["P0"]
        listed = np.zeros((len(p), m.shape[1]), bool)
        for j in range(blocks.shape[3]):
            i = np.minimum(row, count.shape[2] - 1)
            there = (j < count[b, h][i]) & (row < count.shape[2])
            listed |= there & (blocks[b, h][i, j] == m // parameters["M0"])
        shares.append((listed & (m <= p) if limited else listed).mean())
    return float(np.mean(shares))


@pytest.mark.parametrize("most", (1 << 27, 100))
def test_points_of_lists_below_a_limit_are_counted(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("einfall.backends.explain_lists.POINTS", most)
    tensors, parameters = make("block_lists", seed=1, scale="small")
    below = einfall.cascade(
        "def below(Q, K, V, Blocks: unique, Count, *, P0=16, M0=256):\n"
        "    List[b, h, i, j: j < Count[b, h, i]] = Blocks[b, h, i, j]\n"
        "    S[b, h, p, m: m // M0 in List[b, h, p // P0] and m <= p] = (\n"
        "        Q[b, h, p, e] * K[b, h, m, e]\n    )\n"
        "    A[b, h, p, m] = softmax[m](S[b, h, p, m])\n"
        "    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]\n    return O\n"
    )
    given = [torch.from_numpy(x) for x in tensors]
    names = dict(zip(below.inputs, tensors, strict=True))
    (found,) = einfall.compile(below).lower(*given, **parameters, target="sm_90").density(*given)
    wanted = None if most == 100 else listed_points(names, parameters, limited=True)
    assert found.exact and found.nominal == (None if wanted is None else pytest.approx(wanted))


def test_lists_that_kernels_make_are_as_long_as_they_can_be() -> None:
    tensors, parameters = make("topk_blocks", seed=0, scale="small")
    given = [torch.from_numpy(x) for x in tensors]
    lowered = einfall.compile(examples.topk_blocks).lower(*given, **parameters, target="sm_90")
    found = lowered.density(*given)[-1]
    assert not found.exact and found.executed == parameters["k"] / lowered.known.sizes["n"]


def test_what_is_open_is_said() -> None:
    (found,) = einfall.compile(examples.causal).lower(sizes={"e": 64, "f": 64}).density()
    assert "open" in found.open and found.inflation is None
    sizes = {"b": 1, "h": 1, "p": 256, "m": 256}
    lowered = einfall.compile(examples.causal, tiles={"p": 64, "m": 64}).lower(
        sizes={"e": 64, "f": 64}
    )
    (found,) = lowered.density(sizes=sizes)
    assert (found.executed, found.full, found.partial) == (10 / 16, 6, 4)


# a video of f frames of s tokens: which of 128 x 128 blocks the rule of Radial Attention keeps
S, B, BLOCKS = 3840, 128, 30
OFFSETS = np.arange(-(BLOCKS - 1), BLOCKS)


@cache
def kept_blocks(frames: int) -> Any:
    """By distance of frames and offset of blocks; distances of one kind are decided once."""
    distances = np.arange(frames)
    length = [2 ** S.bit_length() / 2 ** int(d).bit_length() for d in distances]
    thinned = [n < 128 and d % int(128 / n) > 0 for d, n in zip(distances, length, strict=True)]
    kinds = [(n, d <= 1, t) for d, n, t in zip(distances, length, thinned, strict=True)]
    first = [kinds.index(k) for k in dict.fromkeys(kinds)]
    half = np.arange(BLOCKS)
    keep = einfall.interpret(
        examples.radial_mask, distances[first], half, np.arange(B), s=S, B=B, decay=0.95
    )
    found = dict(zip(dict.fromkeys(kinds), np.asarray(keep) > 0, strict=True))
    return np.stack([found[k][abs(OFFSETS)] for k in kinds])


def weighted(blocks: Any, frames: int) -> float:
    """The share of pairs of blocks, of all distances and offsets."""
    distances = np.arange(frames)
    pairs = np.where(distances == 0, frames, 2 * (frames - distances))[:, None]
    total = (blocks * pairs * (BLOCKS - abs(OFFSETS))).sum()
    return float(total / (frames * BLOCKS) ** 2)


@pytest.mark.parametrize(("frames", "percent"), [(30, 27.46), (64, 17.46), (128, 11.00)])
def test_what_the_coverage_rule_keeps(frames: int, percent: float) -> None:
    assert round(100 * weighted(kept_blocks(frames), frames), 2) == percent


def test_the_coverage_rule_as_kernels_run_it() -> None:
    """115,200 tokens: every tile that runs is kept, and is full."""
    n = 30 * S
    lowered = einfall.compile(examples.radial_blocks, tiles={"p": 128, "m": 128}).lower(
        sizes={"b": 1, "h": 1, "p": n, "m": n, "e": 128, "f": 128},
        dtypes={"Keep": "bool"},
        s=S,
        B=B,
        target="sm_90",
    )
    (found,) = lowered.density(reads={"Keep": kept_blocks(30)})
    assert round(100 * found.executed, 2) == 27.46
    assert found.partial == 0 and found.nominal == pytest.approx(found.executed)


@pytest.mark.parametrize(("frames", "live", "tiles"), [(30, 38.99, 42.62), (128, 15.08, 19.57)])
def test_the_mask_of_the_paper(frames: int, live: float, tiles: float) -> None:
    """Points by closed form, tiles by the three-valued truth of one tile of each kind."""
    from einfall.passes.tile_classes import FULL, tile_classes

    (einsum,) = [e for e in examples.radial.einsums if e.filter is not None]
    blocks = np.zeros((frames, len(OFFSETS)))
    points = np.zeros((frames, len(OFFSETS)))
    for d in range(frames):
        shell = 2 ** (max(d, 1).bit_length() - 1)
        width = S // shell - (S % shell == 0)  # the greatest distance inside frames
        if shell > S:
            width = -1
        if d % max(1, -(-shell // S)) == 0:
            width = max(width, 0)
        apart = abs(OFFSETS[:, None] * B + np.arange(-B + 1, B))  # of points of two blocks
        many = B - abs(np.arange(-B + 1, B))
        points[d] = ((apart <= width) * many).sum(1) / B**2
        blocks[d] = points[d] > 0
    assert round(100 * weighted(points, frames), 2) == live
    assert round(100 * weighted(blocks, frames), 2) == tiles
    bound = 4 * S**2 * frames * np.log2(frames)
    assert weighted(points, frames) * (frames * S) ** 2 <= bound
    if frames == 30:
        found = tile_classes(
            einsum.filter,
            tiles={"p": 480, "m": 480},
            sizes={"p": 4 * 480, "m": 4 * 480},
            parameters={"s": 480},
        )
        assert (found.diagonal() == FULL).all()
