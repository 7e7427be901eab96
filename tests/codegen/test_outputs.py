"""Outputs of many kinds from kernels: against the interpreter, in float64 and in float32."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.lowered import Lowered
from einfall.codegen.loop_nest import Store, statements
from einfall.ir.show import show_expression
from einfall.ir.traversals import analyse

from .kernel_cases import assert_kernels_agree, nests, outputs, relative, run_nests

HEAD = """
    S[b, h, p, m: m <= p + size(m) - size(p)] = Q[b, h, p, e] * K[b, h // 2, m, e] / sqrt(size(e))
    G[b, h, p] = max[m](S[b, h, p, m])
    N[b, h, p, m] = exp(S[b, h, p, m] - G[b, h, p])
    D[b, h, p] = N[b, h, p, m]
    A[b, h, p, m] = N[b, h, p, m] / D[b, h, p]
    O[b, h, p, f] = A[b, h, p, m] * V[b, h // 2, m, f]
"""
"""Two heads share a key head; the last query stands at the last key."""

TILES = {"p": 32, "m": 32}


def declared(lines: str, returned: str, arguments: str = "Q, K, V") -> einfall.Cascade:
    return einfall.cascade(f"def f({arguments}):\n{HEAD}    {lines}\n    return {returned}\n")


def qkv(rows: int = 40, keys: int = 50, whole: bool = False) -> list[torch.Tensor]:
    """Return queries, keys, values; whole numbers make many scores equal."""
    draw = numpy.random.default_rng(rows)
    shapes = ((1, 2, rows, 16), (1, 1, keys, 16), (1, 1, keys, 16))
    made = [draw.integers(-1, 2, s) if whole else draw.standard_normal(s) for s in shapes]
    return [torch.from_numpy(x).float() for x in made]


def agree(cascade: einfall.Cascade, tensors: list[torch.Tensor], parameters: Any = None) -> Lowered:
    """Compare the loop nest in float64 and the kernel with the interpreter; return the lowering."""
    given = parameters or {}
    lowered = assert_kernels_agree(cascade, tensors, given, 2e-6, TILES)
    truth = outputs(einfall.interpret(cascade, *(x.cpu() for x in tensors), **given))
    for got, expected in zip(run_nests(cascade, lowered, tensors, given), truth, strict=True):
        assert relative(got, expected) < 1e-13
    return lowered


def kernels(lowered: Lowered) -> list[tuple[tuple[str, ...], tuple[str, ...], int]]:
    """Return what each kernel writes, the ranks it walks, and how often."""
    return [(k.writes, k.ranks("streamed"), len(k.traversals)) for k in lowered.mapping.kernels]


PLACES = """J[b, h, p] = argmax[m](A[b, h, p, m])
    I[b, h, p] = argmin[m](S[b, h, p, m] * 3 + p - m)"""


@pytest.mark.parametrize(("rows", "keys"), [(40, 50), (50, 40)])
def test_places_of_extremes_come_with_the_rest(rows: int, keys: int) -> None:
    """One walk gives all; a row without keys has no place."""
    lowered = agree(declared(PLACES, "O, J, I, G"), qkv(rows, keys))
    assert [n for _, _, n in kernels(lowered)] == [1]
    found = einfall.compile(declared(PLACES, "O, J, I, G"), backend="triton")(*qkv(rows, keys))
    empty = max(rows - keys, 0)
    assert found[1].dtype == torch.int32
    assert (found[1][:, :, :empty] == -1).all() and (found[1][:, :, empty:] >= 0).all()


def test_of_equal_values_the_lowest_place_is_told() -> None:
    tensors = qkv(64, 64, whole=True)
    cascade = declared("J[b, h, p] = argmax[m](S[b, h, p, m])", "J, G")
    agree(cascade, tensors)
    J, G = einfall.compile(cascade, backend="triton", tiles=TILES)(*tensors)
    Q, K = (x.double().numpy() for x in tensors[:2])
    scores = Q @ K.swapaxes(-1, -2) / 4
    ties = 0
    for h in range(2):
        for p in range(64):
            row = scores[0, h, p, : p + 1]
            best = numpy.flatnonzero(row == row.max())
            ties += len(best) > 1
            assert J[0, h, p] == best[0]
    assert ties > 40 and numpy.isfinite(G.numpy()).all()


def test_places_of_ranks_that_float32_cannot_count_are_refused() -> None:
    cascade = einfall.cascade("J[p] = argmax[m](X[p, m] * Y[m])")
    f = einfall.compile(cascade, parts={"m": 1})
    with pytest.raises(einfall.BackendError, match="exact up to 16,777,216 coordinates, and m has"):
        f.lower(sizes={"m": 2**24 + 1})
    open_sizes = f.lower(sizes={})
    assert [str(x) for x in map(show_expression, open_sizes.mapping.requires)] == [
        "size(m) <= 16777216"
    ]
    X = torch.zeros(1, 2**24 + 1, dtype=torch.float16)
    with pytest.raises(einfall.ShapeError, match="16777216"):
        open_sizes.plan()(X, X[0])


def test_places_in_a_rank_that_a_program_holds() -> None:
    cascade = einfall.cascade("""
def f(X):
    J[b, p] = argmax[e](X[b, p, e])
    I[b, p] = argmin[e: e < 20](abs(X[b, p, e]))
    return J, I
""")
    X = torch.from_numpy(numpy.random.default_rng(0).integers(-3, 4, (2, 37, 24))).float()
    lowered = agree(cascade, [X])
    assert [walked for _, walked, _ in kernels(lowered)] == [()]


def test_values_at_the_largest_score() -> None:
    """All the weight on the best key: sums over the points that stand at an extremum."""
    lines = """C[b, h, p] = sum[m: S[b, h, p, m] == G[b, h, p]](1)
    U[b, h, p, f] = sum[m: S[b, h, p, m] == G[b, h, p]](V[b, h // 2, m, f])
    X[b, h, p, f] = U[b, h, p, f] / C[b, h, p]"""
    lowered = agree(declared(lines, "X, C"), qkv(40, 40, whole=True))
    assert [n for _, _, n in kernels(lowered)] == [1]


def test_columns_take_a_second_walk_along_the_rows() -> None:
    """A column that no row sees sums to 0; what the rows need comes with O."""
    cascade = declared("C[b, h, m] = sum[p](A[b, h, p, m])", "O, C")
    lowered = agree(cascade, qkv(50, 40))
    assert [(w, n) for _, w, n in kernels(lowered)] == [(("m",), 1), (("p",), 1)]
    assert analyse(cascade)["m"].levels == 3
    found = einfall.compile(cascade, backend="triton")(*qkv(50, 40))[1]
    assert torch.allclose(found.sum(-1), torch.tensor(40.0))


def test_columns_read_one_number_a_row() -> None:
    """The logarithm of a row's sum says all; it is made once, where the row is."""
    cascade = declared("C[b, h, m] = sum[p](A[b, h, p, m])", "O, C")
    f = einfall.compile(cascade, parts={"m": 1, "p": 1})
    k = f.lower(sizes={"e": 128, "f": 128}, dtype="bfloat16", target="sm_80")
    rows, columns = k.mapping.kernels
    assert rows.writes == ("A_log", "O")
    assert {*columns.reads} == {"Q", "K", "A_log"}
    text = k.kernels[1].text.split('"""')[2]
    assert "quotient" not in text and "log2" not in text
    # what is loaded serves many rows, for nothing else fills the registers
    assert k.kernels[1].tile_sizes == {"M0": 128, "P0": 128} and k.kernels[1].num_warps == 4


def test_diagonals_are_made_of_tiles() -> None:
    """Tiles along a diagonal are added up as they are; nothing is scattered."""
    lines = """X[b, h, d: d < size(m)] = sum[p, m: p + size(m) - size(p) - m == d](A[b, h, p, m])"""
    tensors = qkv(260, 270)
    cascade = declared(lines, "X")
    lowered = agree(cascade, tensors)
    walks = [(("m",), 1), (("p_high",), 1), (("p_low",), 1)]
    assert [(w, n) for _, w, n in kernels(lowered)] == walks
    rows, tiles, _ = lowered.kernels
    assert [b.ranks for b in rows.writes] == [("b", "h", "p")]
    assert [b.ranks[2:] for b in tiles.writes] == [("d_high", "p_low", "d_low")]
    # two sides of a product, and no test of a whole tile's points
    loops = tiles.text.split("for p_high_first")
    assert all("tl.dot(" in x for x in loops[1:]) and len(loops) == 4
    assert "mask" not in loops[2] and "live" not in loops[2]
    assert dict(lowered.mapping.dtypes)["X_tiles"] == "float32"
    A = einfall.interpret(declared("", "A"), *tensors)
    truth = [numpy.trace(A, offset=10 - d, axis1=2, axis2=3) for d in range(270)]
    found = einfall.compile(cascade, backend="triton")(*tensors)
    assert relative(found, numpy.stack(truth, -1)) < 2e-6


def test_a_gradient_along_diagonals_is_made_of_tiles() -> None:
    """Two products a tile; what is one number for each row is read, and stored as a float32."""
    cascade = einfall.differentiate(examples.relative_bias, wrt=["R"])
    sizes = {"e": 64, "f": 64}
    k = einfall.compile(cascade).lower(sizes=sizes, dtype="bfloat16", target="sm_80")
    dtypes = dict(k.mapping.dtypes)
    assert [x.writes for x in k.mapping.kernels] == [
        (t,) for t in ("A_log_grad_sum", "R_grad_sum_m_tiles", "R_grad")
    ]
    assert {dtypes[x.writes[0]] for x in k.mapping.kernels[:2]} == {"float32"}
    whole = k.kernels[1].text.split("for p_high_first")[2]
    assert whole.count("tl.dot(") == 2 and "R_at" not in whole and "mask" not in whole


BLOCKS = "i, j: i < (size(p) + B - 1) // B and j < (size(m) + B - 1) // B"


@pytest.mark.parametrize("reducer", ["sum", "max"])
def test_blocks_are_a_tile_each(reducer: str) -> None:
    """No tile looks at points of another block; the last blocks are ragged."""
    lines = f"X[b, h, {BLOCKS}] = {reducer}[p, m: p // B == i and m // B == j](A[b, h, p, m])"
    text = declared(lines, "O, X", "Q, K, V, *, B")
    lowered = agree(text, qkv(50, 40), {"B": 16})
    assert [(w, n) for _, w, n in kernels(lowered)] == [(("m",), 1), ((), 0)]
    assert lowered.mapping.kernels[1].ranks("grid") == ("b", "h", "i", "j")
    assert lowered.kernels[1].text.count("tl.dot(") == 1


def test_maxima_of_rows_in_blocks() -> None:
    lines = "R[b, h, p, j: j < (size(m) + 15) // 16] = max[m: m // 16 == j](S[b, h, p, m])"
    lowered = agree(declared(lines, "R"), qkv(40, 50))
    assert len(lowered.kernels) == 1
    assert lowered.mapping.kernels[0].ranks("tiled") == ("p",)


def test_chosen_rows_of_the_weights_read_what_the_rows_left() -> None:
    """With O, sums of rows are looked up; without, only the chosen rows are walked."""
    rows = torch.tensor([3, 39, 0, 17, 99], dtype=torch.int32)
    lines = "R[b, h, r, m] = A[b, h, rows[r], m]"
    lowered = agree(declared(lines, "O, R", "Q, K, V, rows"), [*qkv(), rows])
    assert [w for w, _, _ in kernels(lowered)] == [("G_max", "D", "O"), ("R",)]
    alone = agree(declared(lines, "R", "Q, K, V, rows"), [*qkv(), rows])
    assert [n for _, _, n in kernels(alone)] == [1, 0]
    assert not any("p" in dict(k.roles) for k in alone.mapping.kernels)


@pytest.mark.parametrize("kept", ["", "h", "b, h"])
def test_totals_over_everything(kept: str) -> None:
    """One long rank after the other; the first goes along with what the rows need."""
    ranks = [r for r in ("b", "h", "p", "m") if r not in kept]
    left = f"T[{kept}{', ' if kept else ''}z]"
    lines = f"{left} = sum[{', '.join(ranks)}](A[b, h, p, m] ** 2) * w[z]"
    tensors = [*(torch.cat([x, -x]) for x in qkv()), torch.ones(1)]
    lowered = agree(declared(lines, "T", "Q, K, V, w"), tensors)
    assert kernels(lowered)[0][1:] == (("m",), 1)
    stores = [s for nest in nests(lowered) for s in statements(nest.statements)]
    assert all(len(s.coordinates) < 4 for s in stores if isinstance(s, Store))


def test_scores_and_weights_are_stored_if_asked_for() -> None:
    lowered = agree(declared("", "O, A, S"), qkv())
    assert sum(n for _, _, n in kernels(lowered)) == 1


def test_a_stale_statistic_is_an_input() -> None:
    """Columns by logarithms of sums from an earlier step: one walk, along the rows."""
    cascade = einfall.cascade("""
def f(Q, K, L):
    S[b, h, p, m: m <= p] = Q[b, h, p, e] * K[b, h, m, e]
    C[b, h, m] = sum[p](exp(S[b, h, p, m] - L[b, h, p]))
    return C
""")
    Q, K, _ = qkv(40, 40)
    lowered = agree(cascade, [Q[:, :1] / 4, K, torch.full((1, 1, 40), 2.0)])
    assert [(w, n) for _, w, n in kernels(lowered)] == [(("p",), 1)]
