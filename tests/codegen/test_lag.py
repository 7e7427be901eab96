"""Frames that lag: moved where they are far behind, and the same results."""

from __future__ import annotations

from typing import Any

import numpy as np

from einfall.codegen.lag import lagging
from einfall.codegen.loop_nest import Fold, Let, Number, Op, Ref, Statement, Var

S = Ref(Var("s", ("p0", "m0")))
G, NEXT, TILE, D, SUM = (Var(n, ("p0",)) for n in ("g", "g_next", "g_tile", "d", "sum"))
FACTOR, N = Var("rescale", ("p0",)), Var("n", ("p0", "m0"))


def scaled(var: Var) -> Op:
    return Op("*", (Number(0.5), Ref(var)))


WORK: tuple[Statement, ...] = (
    Fold(TILE, S, "m0", "max"),
    Let(NEXT, Op("max", (Ref(G), Ref(TILE)))),
    Let(N, Op("exp2", (Op("-", (Op("*", (Number(0.5), S)), scaled(NEXT))),))),
    Let(FACTOR, Op("exp2", (Op("-", (scaled(G), scaled(NEXT))),))),
    Fold(SUM, Ref(N), "m0", "sum"),
    Let(D, Op("+", (Op("*", (Ref(D), Ref(FACTOR))), Ref(SUM)))),
    Let(G, Ref(NEXT)),
)


def walked(work: tuple[Statement, ...], tiles: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """Return the logarithm of the sum over all tiles, and how often a frame moved."""
    state: dict[str, Any] = {"g": np.full((4, 1), -np.inf), "d": np.zeros((4, 1))}
    moves = 0
    functions: dict[str, Any] = {
        "max": np.maximum, "-": np.subtract, "*": np.multiply, "+": np.add, "exp2": np.exp2,
        "<": np.less, "where": np.where,
    }  # fmt: skip

    def value(x: object) -> Any:
        match x:
            case Number(value=n):
                return n
            case Ref(var=var):
                return state[var.name]
            case Op(operator=operator, operands=operands):
                return functions[operator](*map(value, operands))
        raise AssertionError(x)

    for tile in tiles:
        state["s"] = tile
        for s in work:
            assert isinstance(s, Let | Fold)
            got = np.asarray(value(s.value))
            if isinstance(s, Fold):
                got = getattr(got, s.reducer)(1, keepdims=True)
            state[s.var.name] = got
        moves += int((state["rescale"] != 1).sum())
    return np.log2(state["d"]) + 0.5 * state["g"], moves


def test_results_are_the_same_and_frames_move_seldom() -> None:
    random = np.random.default_rng(3)
    tiles = [random.normal(size=(4, 16)) * 3 for _ in range(20)]
    tiles[11] = tiles[11] + 100
    found = lagging(WORK, FACTOR)
    (before, often), (after, seldom) = walked(WORK, tiles), walked(found, tiles)
    assert np.allclose(before, after, rtol=1e-13)
    # in the first tile, and where scores rise by far
    assert seldom == 2 * 4 < often


def test_other_factors_stay() -> None:
    work = tuple(s for s in WORK if getattr(s, "var", None) != NEXT)
    assert lagging(work, FACTOR) == work
    assert lagging(WORK, D) == WORK
