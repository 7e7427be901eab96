"""Lists that name no tiles to walk: whatever is asked of them is looked up in a table."""

from __future__ import annotations

import numpy
import pytest
import torch

import einfall
from einfall import examples
from einfall.ir.errors import BackendError

from .kernel_cases import DEVICE, assert_kernels_agree, relative

TEXT = """
def f(Q, K, V, {given}):
    S[b, h, p, m: {filter}] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""

CASES = {
    "p - m in L[b, h] and m <= p": (2, 6),  # diagonals
    "m - 3 in L[b, p] or m + p in L[b, p]": (20, 6),  # below 0 too
    "(m + h) % 5 in L[b, p // 4]": (5, 2),
    "(m + 1) // 4 in L[b, p // 16] and m // 2 * 2 <= p": (2, 3),
    "p // 8 in L[b, m // 8]": (4, 2),  # columns have lists of rows
}


def qkv(rows: int = 20, columns: int = 32) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(4)
    sizes = (rows, columns, columns)
    return [torch.randn(1, 2, n, 16, generator=draw).to(DEVICE) for n in sizes]


def lists(*shape: int) -> torch.Tensor:
    found = numpy.random.default_rng(5).integers(-4, 24, (1, *shape))
    return torch.from_numpy(found.astype(numpy.int32)).to(DEVICE)


@pytest.mark.parametrize("filter", CASES)
def test_an_item_that_is_no_block_is_looked_up(filter: str) -> None:
    cascade = einfall.cascade(TEXT.format(given="L", filter=filter))
    found = assert_kernels_agree(cascade, [*qkv(), lists(*CASES[filter])], {}, 2e-6)
    assert any("L_has" in k.writes for k in found.mapping.kernels)


def test_a_selection_from_a_short_rank_is_stretched_to_a_long_one() -> None:
    """Of 7 estimates 3 are kept, each of which stands for 50 / 7 columns (SEA's mask)."""
    text = TEXT.format(given="E", filter="m * size(t) // size(m) in Sel[b, h, p]")
    head, _, rest = text.partition("    S[")
    c = einfall.cascade(f"{head}    Sel[b, h, p, j] = topk[t, 3](E[b, h, p, t])\n    S[{rest}")
    Q, K, V = qkv(20, 50)
    E = torch.randn(1, 2, 20, 7, generator=torch.Generator().manual_seed(6)).to(DEVICE)
    assert_kernels_agree(c, [Q, K, V, E], {}, 2e-6)
    kept = torch.zeros_like(E, dtype=torch.bool).scatter(3, E.topk(3, dim=3).indices, True)
    kept = kept[..., torch.arange(50, device=DEVICE) * 7 // 50]
    S = (Q.double() @ K.double().mT / 4).masked_fill(~kept, -torch.inf)
    truth = (S.softmax(-1) @ V.double()).cpu().numpy()
    assert relative(einfall.compile(c, backend="triton")(Q, K, V, E), truth) < 2e-6


def test_heads_share_a_budget_of_tokens() -> None:
    """One selection over heads and tokens; each head walks what fell to it (Ada-KV)."""
    text = TEXT.format(given="E", filter="h * size(m) + m in Sel[b]")
    head, _, rest = text.partition("    S[")
    c = einfall.cascade(f"{head}    Sel[b, j] = topk[n, 30](E[b, n])\n    S[{rest}")
    Q, K, V = qkv()
    E = torch.randn(1, 64, generator=torch.Generator().manual_seed(7)).to(DEVICE)
    assert_kernels_agree(c, [Q, K, V, E], {}, 2e-6)
    kept = torch.zeros_like(E, dtype=torch.bool).scatter(1, E.topk(30).indices, True)
    S = (Q.double() @ K.double().mT / 4).masked_fill(~kept.reshape(1, 2, 1, 32), -torch.inf)
    truth = (S.softmax(-1).nan_to_num() @ V.double()).cpu().numpy()
    assert relative(einfall.compile(c, backend="triton")(Q, K, V, E), truth) < 2e-6


def test_what_is_read_from_memory_is_refused_with_its_place() -> None:
    cascade = einfall.cascade(TEXT.format(given="L, x", filter="x[b, m] in L[b, p]"))
    x = torch.zeros(1, 32, dtype=torch.int32, device=DEVICE)
    with pytest.raises(BackendError, match=r"x\[b, m\] is looked up in L, (?s:.*)\^\^\^\^\^"):
        einfall.compile(cascade, backend="triton")(*qkv(), lists(20, 2), x)


@pytest.mark.parametrize("slots", [40, 8])
def test_a_ring_of_slots_keeps_positions(slots: int) -> None:
    """Slot m has the last token whose position is m modulo the slots; fewer may be written."""
    filter = "0 <= At[b, m] and n[b] - 1 - At[b, m] < W"
    text = TEXT.format(given="n, *, W=16", filter=filter)
    head, _, rest = text.partition("    S[")
    where = "n[b] - 1 - (n[b] - 1 - m) % size(m)"
    c = einfall.cascade(f"{head}    At[b, m] = {where}\n    S[{rest}")
    Q, K, V = (torch.cat([x, x.flip(2)]) for x in qkv(1, slots))
    n = torch.tensor([13, 95], dtype=torch.int32, device=DEVICE)
    assert_kernels_agree(c, [Q, K, V, n], {"W": 16}, 2e-6)
    for b, count in enumerate(n.tolist()):
        held = [t % slots for t in range(max(0, count - min(slots, 16)), count)]
        one = (Q[b : b + 1], K[b : b + 1, :, held], V[b : b + 1, :, held])
        truth = einfall.interpret(examples.attention, *(x.cpu() for x in one))
        found = einfall.compile(c, backend="triton")(Q, K, V, n, W=16)
        assert relative(found[b : b + 1], truth) < 2e-6
