"""Tables of tiles: what the generated kernel lists, and attention that walks the lists."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall.backends.explain_visits import Facts, visits
from einfall.backends.lowered import Lowered
from einfall.codegen.run_nest import run_nest
from einfall.codegen.tables import table_nests
from einfall.ir.cascade import Cascade

from .kernel_cases import DEVICE, relative, run_nests

P, M = 300, 290
TILES = {"p": 128, "m": 128}
"""Longer than what is tested where it is, in few tiles; ends that no tile meets."""

DOC = np.cumsum(np.random.default_rng(2).random((2, P)) < 0.02, axis=-1).astype(np.int32) - 1
KEEP = np.random.default_rng(3).random((20, 10)) < 0.3
KEEP[:8] = False
FLAG = np.repeat(np.random.default_rng(4).random((2, 5)) < 0.5, 64, axis=-1)[:, :P]

FILTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "frames": (
        "abs(p // s - m // s) <= 1 and abs(p % s - m % s) <= 30 or abs(p // s - m // s) == 3",
        {},
    ),
    "spaced": ("m <= p and (p // 128 - m // 128) % 2 == 0", {}),
    "documents": ("m <= p and doc[b, p] == doc[b, m]", {"doc": DOC}),
    "blocks": ("Keep[p // 16, m // 32]", {"Keep": KEEP}),
    "blocks_of_heads": ("Keep[p // 16, m // 32] and h != 0", {"Keep": KEEP}),
    "flags": ("flag[b, p] == flag[b, m] or not flag[b, m]", {"flag": FLAG}),
    "squares": ("(p // 128 + m // 256) % 3 != 1", {}),
    "shells": ("m < size(m) // 2 ** bit_length(abs(p // 64 - m // 64))", {}),
}


def declared(name: str) -> Cascade:
    text, tensors = FILTERS[name]
    given = ", ".join(["Q", "K", "V", *tensors])
    parameters = ", *, s=70" if name == "frames" else ""
    return einfall.cascade(f"""
def {name}({given}{parameters}):
    S[b, h, p, m: {text}] = Q[b, h, p, e] * K[b, h, m, e]
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
""")


def tensors(name: str, heads: int = 1) -> list[torch.Tensor]:
    draw = np.random.default_rng(7)
    keys = P if name in ("documents", "flags") else M
    arrays = [draw.standard_normal((2, heads, n, 16)) for n in (P, keys, keys)]
    made = [torch.from_numpy(x.astype(np.float32)) for x in arrays]
    made += [torch.from_numpy(x) for x in FILTERS[name][1].values()]
    return [x.to(DEVICE) for x in made]


def points(name: str, b: int, h: int, keys: int) -> Any:
    """Which pairs exist, by numpy."""
    p, m = np.arange(P)[:, None], np.arange(keys)[None, :]
    match name:
        case "frames":
            d = abs(p // 70 - m // 70)
            return (d <= 1) & (abs(p % 70 - m % 70) <= 30) | (d == 3)
        case "spaced":
            return (m <= p) & ((p // 128 - m // 128) % 2 == 0)
        case "documents":
            return (m <= p) & (DOC[b][p] == DOC[b][m])
        case "blocks":
            return KEEP[p // 16, m // 32]
        case "blocks_of_heads":
            return KEEP[p // 16, m // 32] & (h != 0)
        case "flags":
            return (FLAG[b][p] == FLAG[b][m]) | ~FLAG[b][m]
        case "squares":
            return (p // 128 + m // 256) % 3 != 1
        case _:
            return m < M // 2 ** np.frexp(abs(p // 64 - m // 64).astype(float))[1]


def lowered(name: str, given: list[torch.Tensor]) -> Lowered:
    return einfall.compile(declared(name), backend="triton", tiles=TILES).lower(*given)


@pytest.mark.parametrize("name", FILTERS)
def test_lists_hold_the_tiles_that_have_points(name: str) -> None:
    given = tensors(name, heads=2)
    k = lowered(name, given)
    (kernel,) = k.mapping.kernels
    (nest,) = table_nests(kernel, dtypes=dict(k.mapping.dtypes))
    keys = given[1].shape[2]
    sizes = {"b": 2, "h": 2, "p": P, "m": keys}
    memory = {n: x.cpu().numpy() for n, x in zip(k.cascade.inputs, given, strict=True)}
    found = run_nest(nest, memory, sizes, {"s": 70})
    table = kernel.traversals[0].domain.table
    assert table is not None and k.kernels[0].fixed == (not FILTERS[name][1])
    outer = [r for r in ("b", "h") if r in table.ranks]
    for b in range(2):
        for h in range(2):
            at = tuple({"b": b, "h": h}[r] for r in outer)
            live = points(name, b, h, keys)
            for i in range(-(-P // 128)):
                parts = [live[i * 128 : i * 128 + 128, j : j + 128] for j in range(0, keys, 128)]
                whole = [j for j, x in enumerate(parts) if x.all() and x.shape[1] == 128]
                some = [j for j, x in enumerate(parts) if x.any() and j not in whole]
                many = int(found[table.full][(*at, i)]), int(found[table.partial][(*at, i)])
                row = found[table.name][(*at, i)]
                assert many == (len(whole), len(some))
                assert list(row[: many[0]]) == whole
                assert list(row[::-1][: many[1]]) == some


def test_marks_say_which_parts_of_its_test_a_tile_needs() -> None:
    given = tensors("documents")
    k = lowered("documents", given)
    (kernel,) = k.mapping.kernels
    (t,) = kernel.traversals
    table = t.domain.table
    assert table is not None and [p.test is not None for p in table.parts] == [True, True]
    marked = replace(t, domain=replace(t.domain, table=replace(table, marked=True)))
    (nest,) = table_nests(replace(kernel, traversals=(marked,)), dtypes=dict(k.mapping.dtypes))
    memory = {n: x.cpu().numpy() for n, x in zip(k.cascade.inputs, given, strict=True)}
    found = run_nest(nest, memory, {"b": 2, "h": 1, "p": P, "m": P}, {})
    for b, i in np.ndindex(2, -(-P // 128)):
        full, partial = (int(found[x][b, i]) for x in (table.full, table.partial))
        row = found[table.name][b, i].astype(int)
        assert all(x % 4 == 0 for x in row[:full])
        for x in row[::-1][:partial]:
            rows = np.arange(P)[i * 128 : i * 128 + 128, None]
            columns = np.arange(x // 4 * 128, x // 4 * 128 + 128)[None]
            below = bool((columns <= rows).all() and columns.max() < P)
            columns = columns[:, columns[0] < P]
            same = bool((DOC[b][rows] == DOC[b][columns]).all())
            assert x % 4 == (not below) + 2 * (not same)


@pytest.mark.parametrize("name", FILTERS)
def test_loop_nests_mean_what_the_cascade_means(name: str) -> None:
    given = tensors(name)
    truth = einfall.interpret(declared(name), *(x.cpu() for x in given))
    (found,) = run_nests(declared(name), lowered(name, given), given, {})
    assert relative(found, truth) < 1e-12


@pytest.mark.parametrize("name", FILTERS)
def test_kernels_agree_with_the_interpreter(name: str) -> None:
    given = tensors(name)
    truth = einfall.interpret(declared(name), *(x.cpu() for x in given))
    f = einfall.compile(declared(name), backend="triton", tiles=TILES)
    assert relative(f(*given), truth) < 2e-5
    if name == "blocks":
        assert not torch.any(f(*given)[:, :, :128])  # no block is kept in these rows
        given[3] = torch.zeros_like(given[3])
        assert not torch.any(f(*given))


def test_a_table_is_made_once_unless_it_follows_a_tensor() -> None:
    for name, often in (("spaced", 1), ("documents", 2)):
        given = tensors(name)
        plan = lowered(name, given).plan()
        made = [k.fixed for k in plan.kernels]
        assert made == [often == 1, False]
        for _ in range(2):
            plan(*given)
        assert len(plan.tables) == (often == 1)
        plan(*(x.clone() for x in given))
        plan(*(torch.cat([x, x], 1) if x.dim() == 4 else x for x in given))
        assert len(plan.tables) == (often == 1)  # heads do not change what is visited


def test_labels_that_change_in_place_change_the_table() -> None:
    given = tensors("documents")
    f = einfall.compile(declared("documents"), backend="triton", tiles=TILES)
    f(*given)
    given[3].copy_(torch.arange(P, device=DEVICE) // 150)
    truth = einfall.interpret(declared("documents"), *(x.cpu() for x in given))
    assert relative(f(*given), truth) < 2e-5


def test_a_row_of_tiles_without_points_is_not_walked_and_explained() -> None:
    given = tensors("spaced")
    k = lowered("spaced", given)
    (kernel,) = k.mapping.kernels
    counted = visits(kernel, kernel.traversals[0], Facts.of(k, k.known.sizes, {}))
    assert not isinstance(counted, str)
    live = points("spaced", 0, 0, M)
    tiles = [live[i : i + 128, j : j + 128] for i in range(0, P, 128) for j in range(0, M, 128)]
    assert counted.visited == 2 * sum(bool(x.any()) for x in tiles)
    assert counted.live == 2 * live.sum()
    said = " ".join(str(k.explain()).split())
    assert "a table lists the others, once for equal sizes and parameters" in said
    assert "at each call" in str(lowered("documents", tensors("documents")).explain())


def test_a_table_at_a_length_whose_points_no_memory_holds() -> None:
    """A million tokens: the launch needs a number a tile, whatever the filter."""
    k = einfall.compile(declared("spaced")).lower(sizes={"e": 64, "f": 64})
    (table, *_), tiles = k.kernels, dict(k.kernels[0].tiles)
    n = 1 << 20
    elements = [
        np.prod([b.extent(r, n) for r in b.ranks if r in "pm"], dtype=float) for b in table.writes
    ]
    assert sum(elements) <= (n // tiles["P0"]) * (n // tiles["M0"] + 2)


@pytest.mark.parametrize("name", ("documents", "frames", "blocks_of_heads"))
def test_a_run_stands_for_what_a_list_has_no_room_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("einfall.passes.bound_tables.MOST", 2)
    given = tensors(name)
    f = einfall.compile(declared(name), backend="triton", tiles=TILES)
    k = f.lower(*given)
    assert dict(k.kernels[0].writes[0].most) == {"m": 2}
    truth = einfall.interpret(declared(name), *(x.cpu() for x in given))
    (found,) = run_nests(declared(name), k, given, {})
    assert relative(found, truth) < 1e-12
    assert relative(f(*given), truth) < 2e-5
