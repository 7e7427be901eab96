"""Lists that a caller gives, walked by kernels: against the interpreter and a dense formula."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall.codegen.loop_nest import Loop, statements

from .kernel_cases import assert_kernels_agree, nests, outputs, relative, run_nests

P, M, G = 70, 90, 2
"""Lengths that no block divides: the last block of each is ragged."""

DECLARED = """
def f({arguments}):
    {lines}S[b, h, p, m: {filter}] = Q[b, h, p, e] * K[b, h // 2, m, e] / sqrt(size(e))
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h // 2, m, f]
    return O
"""


def declared(filter: str, lists: str, *lines: str) -> einfall.Cascade:
    before = "".join(f"{line}\n    " for line in lines)
    return einfall.cascade(
        DECLARED.format(arguments=f"Q, K, V, {lists}", lines=before, filter=filter)
    )


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(numpy.random.default_rng(seed).standard_normal(shape)).float()


def qkv(rows: int = P) -> list[torch.Tensor]:
    return [numbers(1, 2, rows, 16), numbers(1, 1, M, 16, seed=1), numbers(1, 1, M, 32, seed=2)]


def lists(*shape: int, of: int, seed: int = 3) -> torch.Tensor:
    """Return lists of different numbers below ``of`` along the last rank."""
    draw = numpy.random.default_rng(seed)
    found = [draw.permutation(of)[: shape[-1]] for _ in range(int(numpy.prod(shape[:-1])))]
    return torch.from_numpy(numpy.array(found, numpy.int32).reshape(shape))


def agree(cascade: einfall.Cascade, tensors: list[torch.Tensor], **tiles: int) -> Any:
    """Compare the loop nest in float64 and the kernel with the interpreter; return the lowering."""
    lowered = assert_kernels_agree(cascade, tensors, {}, 2e-6, tiles)
    truth = outputs(einfall.interpret(cascade, *(x.cpu() for x in tensors)))
    for got, expected in zip(run_nests(cascade, lowered, tensors, {}), truth, strict=True):
        assert relative(got, expected) < 1e-13
    return lowered


COUNTED = "L[b, h, i, j: j < Count[b, h, i]] = Blocks[b, h, i, j]"
UNION = "(m // 16 in L[b, h, p // 32] or p - m < 5 or m < 4) and m <= p"


@pytest.mark.parametrize("filter", ["m // 16 in L[b, h, p // 32]", UNION])
@pytest.mark.parametrize("tiles", [{"p": 32, "m": 16}, {"p": 16, "m": 64}])
def test_blocks_with_counts(filter: str, tiles: dict[str, int]) -> None:
    """Tiles of one block, and tiles that span four; a list may be empty, or all of the rank."""
    count = torch.tensor([[[0, 6, 2], [3, 1, 4]]], dtype=torch.int32)
    cascade = declared(filter, "Blocks: unique, Count", COUNTED)
    tensors = [*qkv(), lists(1, 2, 3, 6, of=6), count]
    lowered = agree(cascade, tensors, **tiles)
    assert len(lowered.kernels) == 1
    if filter != UNION:
        out = einfall.compile(cascade, backend="triton")(*tensors)
        assert not out[0, 0, :32].any() and out[0, 1, :32].any()


def test_blocks_against_a_dense_formula() -> None:
    Q, K, V = qkv()
    blocks = lists(1, 2, 3, 4, of=6)
    kept = torch.zeros(1, 2, 3, 6, dtype=torch.bool).scatter(3, blocks.long(), True)
    kept = kept.repeat_interleave(32, 2)[:, :, :P].repeat_interleave(16, 3)[..., :M]
    S = (Q.double() @ K.double().mT / 4).masked_fill(~kept, -torch.inf)
    truth = S.softmax(-1) @ V.double()
    cascade = declared("m // 16 in Blocks[b, h, p // 32]", "Blocks: unique")
    found = einfall.compile(cascade, backend="triton")(Q, K, V, blocks)
    assert relative(found, truth.numpy()) < 2e-6


def test_blocks_of_all_lists_are_all_points() -> None:
    """A list of every block, whatever its order, is dense attention."""
    dense = einfall.interpret(declared("0 <= m and p >= 0 and X[b] >= 0", "X"), *qkv(), [1])
    cascade = declared("m // 16 in Blocks[b, h, p // 32]", "Blocks: unique")
    found = einfall.compile(cascade, backend="triton")(*qkv(), lists(1, 2, 3, 6, of=6))
    assert relative(found, dense) < 2e-6


def test_undeclared_lists_are_sets() -> None:
    """Coordinates that stand twice, or outside the rank, change nothing."""
    blocks = lists(1, 2, 3, 4, of=6)
    blocks[0, 0, 0, 1:] = blocks[0, 0, 0, 0]
    blocks[0, 1, 1, 3] = blocks[0, 1, 1, 1]
    blocks[0, 1, 0] = torch.tensor([-1, 7, -5, 6])
    cascade = declared("m // 16 in Blocks[b, h, p // 32]", "Blocks")
    lowered = agree(cascade, [*qkv(), blocks], p=32, m=16)
    assert len(lowered.kernels) == 2
    assert not einfall.compile(cascade, backend="triton")(*qkv(), blocks)[0, 1, :32].any()


@pytest.mark.parametrize(
    ("filter", "shape"),
    [("m in Tokens[b, h, p]", (1, 2, 12, 20)), ("m in Tokens[b, h] and m <= p + 60", (1, 2, 20))],
)
def test_tokens(filter: str, shape: tuple[int, ...]) -> None:
    """Lists of coordinates, one for each row or one for all: a tile gathers its entries."""
    cascade = declared(filter, "Tokens: unique")
    lowered = agree(cascade, [*qkv(rows=12), lists(*shape, of=M)], m=16)
    role = lowered.mapping.kernels[0].role("p")
    assert role == ("grid" if "p]" in filter else "tiled")


def test_rows_of_different_lengths() -> None:
    """Compressed rows: where each list begins, and all lists laid end to end."""
    cascade = declared(
        "m // 16 in L[b, h, p // 32] and m <= p + 20",
        "starts, indices: unique",
        "L[b, h, i, j: j < (size(m) + 15) // 16 and j < starts[b, h, i + 1] - starts[b, h, i]]"
        " = indices[b, h, starts[b, h, i] + j]",
    )
    starts = torch.tensor([[[0, 2, 2, 5], [0, 1, 4, 5]]], dtype=torch.int32)
    indices = torch.tensor([[[3, 1, 0, 2, 4], [5, 1, 0, 2, 0]]], dtype=torch.int32)
    agree(cascade, [*qkv(), starts, indices])


@pytest.mark.parametrize("count", [0, 3])
def test_a_list_beside_a_rule_without_bounds(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of tiles and a list in one walk: no point is in both."""
    monkeypatch.setattr("einfall.passes.domain_table.LONG", 16)
    filter = "(m // 16 in L[b, h, p // 32] or (p // 16 - m // 16) % 3 == 1) and m <= p + 20"
    cascade = declared(filter, "Blocks: unique, Count", COUNTED)
    counts = torch.full((1, 2, 3), count, dtype=torch.int32)
    lowered = agree(cascade, [*qkv(), lists(1, 2, 3, 6, of=6), counts], p=16, m=16)
    (kernel,) = lowered.mapping.kernels
    (traversal,) = kernel.traversals
    assert traversal.domain.table is not None and traversal.walks


def test_rows_beyond_the_lists_have_no_points() -> None:
    cascade = declared("m // 16 in Blocks[b, h, p // 32]", "Blocks: unique")
    tensors = [*qkv(), lists(1, 2, 2, 4, of=6)]
    agree(cascade, tensors, p=32)
    assert not einfall.compile(cascade, backend="triton")(*tensors)[0, :, 64:].any()


def test_a_tile_in_one_block_is_loaded_as_in_a_loop_in_order() -> None:
    cascade = declared("m // 64 in Blocks[b, h, p // 64]", "Blocks: unique")
    lowered = einfall.compile(cascade, target="sm_90").lower(
        sizes={"e": 128, "f": 128}, dtypes={"Blocks": "int32"}, dtype="float16"
    )
    assert "K_box.load([m_first, 0])" in lowered.source
    (nest,) = nests(lowered)
    (loop,) = (s for s in statements(nest.statements) if isinstance(s, Loop))
    assert loop.first == "m_slot"


@pytest.mark.parametrize(
    ("filter", "word"),
    [
        ("not m // 16 in Blocks[b, h, p // 32]", "under a not"),
        ("m // 16 in Blocks[b, h, p // 32] or m // 8 in Blocks[b, h, p // 64]", "two lists"),
    ],
)
def test_refusals_name_the_reason(filter: str, word: str) -> None:
    cascade = declared(filter, "Blocks: unique")
    with pytest.raises(einfall.BackendError, match=word):
        einfall.compile(cascade).lower(*qkv(), lists(1, 2, 3, 4, of=6))


@pytest.mark.parametrize("filter", ["m // 16 in L[p // 32]", "m // 16 in L[p // 32] or m < 5"])
def test_what_a_list_lets_exist_is_looked_up_where_it_is_kept(filter: str) -> None:
    """Rows walk the list; columns, and what is stored, read a table of its blocks."""
    cascade = einfall.cascade(
        "def f(Q, K, L: unique):\n"
        f"    S[p, m: {filter}] = Q[p, e] * K[m, e]\n"
        "    C[m] = sum[p](S[p, m])\n"
        "    R[p] = sum[m](S[p, m] * S[p, m])\n"
        "    return C, R"
    )
    tensors = [numbers(P, 16), numbers(M, 16, seed=1), lists(3, 4, of=6)]
    lowered = agree(cascade, tensors, p=32, m=16)
    agree(einfall.cascade(str(cascade).replace("C, R", "S")), tensors, p=32, m=16)
    tables = [b for k in lowered.kernels for b in k.writes if b.tensor == "L_has"]
    assert [(b.ranks[1:], b.dtype) for b in tables] == [(("n",), "bool")]
    walking = [k.writes for k in lowered.mapping.kernels if k.traversals and k.traversals[0].walks]
    assert walking == [("R",)]


def test_what_has_no_list_is_summed_beside_what_has_one() -> None:
    """In the loop along the list nothing is added twice to what sees every key."""
    cascade = einfall.cascade("""
def f(Q, K, V, L: unique):
    S[p, m] = Q[p, e] * K[m, e]
    T[p, m: m // 16 in L[p // 32]] = S[p, m]
    X[p, f] = sum[m](sigmoid(S[p, m]) * V[m, f])
    Y[p, f] = sum[m](sigmoid(T[p, m]) * V[m, f])
    return X, Y
""")
    tensors = [numbers(P, 16), numbers(M, 16, seed=1), numbers(M, 32, seed=2), lists(3, 4, of=6)]
    lowered = agree(cascade, tensors, p=32, m=16)
    assert len(lowered.kernels) == 1


def test_tiles_wider_than_a_list_serves_are_refused() -> None:
    cascade = declared("m // 16 in Blocks[b, h, p // 32]", "Blocks: unique")
    with pytest.raises(einfall.EinfallError, match="one list for every 32"):
        einfall.compile(cascade, tiles={"p": 64}).lower(*qkv(), lists(1, 2, 3, 4, of=6))


def test_explain_tells_the_lists() -> None:
    cascade = declared(UNION, "Blocks: unique, Count", COUNTED)
    count = torch.tensor([[[0, 6, 2], [3, 1, 4]]], dtype=torch.int32)
    lowered = einfall.compile(cascade).lower(*qkv(), lists(1, 2, 3, 6, of=6), count)
    text = str(lowered.explain())
    assert "then each block of 16 that Blocks[b, h, p_first // 32, j] names" in text


def test_a_declaration_reads_back() -> None:
    cascade = declared("m in Tokens[b, h, p]", "Tokens: unique")
    assert cascade.unique == ("Tokens",)
    assert einfall.cascade(str(cascade)) == cascade
