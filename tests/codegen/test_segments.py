"""Concatenated ranks: one state, a loop for each part; interpreter, loop nest and kernel agree."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall.ir.cascade import Cascade
from einfall.ir.errors import BackendError

from .kernel_cases import DEVICE, assert_kernels_agree, outputs, relative, run_nests

TILES = {"p": 16, "m": 32, "j": 16, "i": 16}

POOLED = """
def pooled(Q, KC, VC, K, V, *, g=4, s=8):
    S1[h, p, j: j < (p + 1 - s) // g] = Q[h, p, e] * KC[h, j, e] / sqrt(size(e))
    S2[h, p, m: m >= max((p + 1 - s) // g, 0) * g and m <= p] = (
        Q[h, p, e] * K[h, m, e] / sqrt(size(e))
    )
    S[h, p, n] = concat[n](S1[h, p, j], S2[h, p, m])
    W[h, n, f] = concat[n](VC[h, j, f], V[h, m, f])
    L[h, p] = logsumexp[n](S[h, p, n])
    A[h, p, n] = softmax[n](S[h, p, n])
    O[h, p, f] = A[h, p, n] * W[h, n, f]
    return O, L
"""

WEIGHTED = """
def weighted(Q, KC, VC, count, K, V, length):
    S1[h, p, j: count[h, j] > 0] = Q[h, p, e] * KC[h, j, e] + log(count[h, j])
    S2[h, p, m: m < length[h]] = Q[h, p, e] * K[h, m, e]
    S[h, p, n] = concat[n](S1[h, p, j], S2[h, p, m])
    W[h, n, f] = concat[n](VC[h, j, f], V[h, m, f])
    A[h, p, n] = softmax[n](S[h, p, n])
    O[h, p, f] = A[h, p, n] * W[h, n, f]
    return O
"""

THREE = """
def three(Q, K1, K2, K3, V1, V2, V3, slope):
    S1[h, p, i] = Q[h, p, e] * K1[h, i, e]
    S2[h, p, j] = Q[h, p, e] * K2[h, j, e]
    S3[h, p, m] = Q[h, p, e] * K3[h, m, e]
    C[h, p, n] = concat[n](S1[h, p, i], S2[h, p, j], S3[h, p, m])
    S[h, p, n: n <= p + 20] = C[h, p, n] - slope[n] * (p + 20 - n)
    W[h, n, f] = concat[n](V1[h, i, f], V2[h, j, f], V3[h, m, f])
    G[h, p] = max[n](S[h, p, n])
    N[h, p, n] = exp(S[h, p, n] - G[h, p])
    D[h, p] = N[h, p, n]
    A[h, p, n] = N[h, p, n] / D[h, p]
    O[h, p, f] = A[h, p, n] * W[h, n, f]
    L[h, p] = G[h, p] + log(D[h, p])
    E[h, p] = sum[n](A[h, p, n] * (L[h, p] - S[h, p, n]))
    return O, L, E
"""

TWICE = """
def twice(Q, K1, K2, V1, V2):
    S1[h, p, j] = Q[h, p, e] * K1[h, j, e]
    S2[h, p, m: m <= p] = Q[h, p, e] * K2[h, m, e]
    S[h, p, n] = concat[n](S1[h, p, j], S2[h, p, m])
    W[h, n, f] = concat[n](V1[h, j, f], V2[h, m, f])
    G[h, p] = max[n](S[h, p, n])
    A[h, p, n] = sigmoid(S[h, p, n] - G[h, p])
    O[h, p, f] = A[h, p, n] * W[h, n, f]
    return O
"""

COUNTED = """
def counted(X, Y, s):
    S1[p, j: j < s[p]] = X[p, j]
    S2[p, m: m >= p] = Y[p, m]
    S[p, n] = concat[n](S1[p, j], S2[p, m])
    C[p] = sum[n](where(S[p, n] == S[p, n], 1.0, 1.0))
    M[p] = sum[n](S[p, n]) / C[p]
    R[p] = sum[n]((S[p, n] - M[p]) ** 2) / C[p]
    return C, M, R
"""


def drawn(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    draw = numpy.random.default_rng(len(shapes))
    return [torch.from_numpy(draw.standard_normal(s).astype("float32")).to(DEVICE) for s in shapes]


def heads(p: int, *lengths: int, e: int = 16, f: int = 32) -> list[torch.Tensor]:
    """Queries, then keys of each length, then values of each length."""
    keys, values = [(2, n, e) for n in lengths], [(2, n, f) for n in lengths]
    return drawn((2, p, e), *keys, *values)


def assert_levels_agree(text: str, tensors: list[torch.Tensor], **parameters: Any) -> str:
    """Compare loop nest and kernel with the interpreter; return the kernels' text."""
    c = einfall.cascade(text)
    lowered = assert_kernels_agree(c, tensors, parameters, 2e-5, tiles_of(c))
    truth = outputs(einfall.interpret(c, *(x.cpu() for x in tensors), **parameters))
    for got, expected in zip(run_nests(c, lowered, tensors, parameters), truth, strict=True):
        assert relative(got, expected) < 1e-12
    return lowered.source


def tiles_of(c: Cascade) -> dict[str, int]:
    return {r: n for r, n in TILES.items() if r in c.ranks}


@pytest.mark.parametrize(("p", "pooled"), [(72, 18), (9, 2), (40, 0), (1, 0)])
def test_pooled_keys_and_local_tokens(p: int, pooled: int) -> None:
    Q, KC, K, VC, V = heads(p, pooled, p)
    source = assert_levels_agree(POOLED, [Q, KC, VC, K, V])
    assert source.count("@triton.jit\ndef pooled_kernel") == 1
    assert source.count("o_sum = tl.zeros(") == 1, "the loops share one accumulator"


def test_weights_for_some_keys_and_lengths_for_others() -> None:
    Q, KC, K, VC, V = heads(33, 20, 50)
    count = torch.arange(40, device=DEVICE).reshape(2, 20) % 3
    for lengths in ([0, 50], [1, 17]):
        length = torch.tensor(lengths, dtype=torch.int32, device=DEVICE)
        assert_levels_agree(WEIGHTED, [Q, KC, VC, count.float(), K, V, length])
    nothing = torch.zeros_like(count)
    length = torch.tensor([0, 3], dtype=torch.int32, device=DEVICE)
    assert_levels_agree(WEIGHTED, [Q, KC, VC, nothing.float(), K, V, length])


def test_three_parts_with_places_along_the_whole() -> None:
    Q, K1, K2, K3, V1, V2, V3 = heads(24, 3, 18, 40)
    slope = drawn((61,))[0]
    assert_levels_agree(THREE, [Q, K1, K2, K3, V1, V2, V3, slope])


def test_two_traversals_are_two_times_two_loops() -> None:
    Q, K1, K2, V1, V2 = heads(20, 17, 35)
    source = assert_levels_agree(TWICE, [Q, K1, K2, V1, V2])
    assert source.count("the same accumulators, along m") == 2


def test_only_points_of_the_parts_are_counted() -> None:
    X, Y = drawn((20, 18), (20, 40))
    s = torch.arange(20, dtype=torch.int32, device=DEVICE) % 5
    assert_levels_agree(COUNTED, [X, Y, s])


def test_parts_along_other_ranks_are_refused_with_the_remedy() -> None:
    text = """
def unequal(X, Y, A, B):
    S[p, n] = concat[n](X[p, j], Y[p, m])
    W[n] = concat[n](A[k], B[m])
    O[p] = S[p, n] * W[n]
    return O
"""
    tensors = drawn((4, 3), (4, 5), (3,), (5,))
    with pytest.raises(einfall.BackendError, match=r"lays k, m end to end .* same order \(j, m\)"):
        einfall.compile(einfall.cascade(text), backend="triton")(*tensors)


TWO_PHASE = """
def two_phase(Q, K, V, X, Y, tau, *, W=12, sinks=4):
    S1[h, p, j: j <= p and (j < sinks or j > p - W)] = (
        Q[h, p, e] * K[h, j, e] / sqrt(size(e))
    )
    L[h, p] = logsumexp[j](S1[h, p, j])
    T[h, p, m] = X[h, p, d] * Y[h, m, d] / sqrt(size(e))
    S2[h, p, m: m >= sinks and m <= p - W and exp(T[h, p, m] - L[h, p]) > tau[h]] = (
        Q[h, p, e] * K[h, m, e] / sqrt(size(e))
    )
    S[h, p, n] = concat[n](S1[h, p, j], S2[h, p, m])
    U[h, n, f] = concat[n](V[h, j, f], V[h, m, f])
    A[h, p, n] = softmax[n](S[h, p, n])
    O[h, p, f] = A[h, p, n] * U[h, n, f]
    return O, L
"""


def two_phase_inputs() -> list[torch.Tensor]:
    Q, K, V, X, Y = drawn((2, 70, 16), (2, 70, 16), (2, 70, 32), (2, 70, 16), (2, 70, 16))
    return [Q, K, V, X, Y, torch.tensor([0.05, 0.2], device=DEVICE)]


def test_the_state_after_one_part_decides_on_the_next() -> None:
    """One kernel, one state: the sum so far is looked at between the loops, which then go on."""
    source = assert_levels_agree(TWO_PHASE, two_phase_inputs())
    assert source.count("@triton.jit\ndef two_phase_kernel") == 1
    assert source.count("at their identities") == 1 and source.count("the same accumulators") == 1
    assert source.index("L_D[h, p] = A_D[h, p]") < source.index("the same accumulators, along m")


def test_another_statistic_of_a_part_is_a_loop_of_its_own() -> None:
    """A mean is none of the state's accumulators, so the part is walked once more, ahead."""
    text = TWO_PHASE.replace("logsumexp[j](S1[h, p, j])", "max[j](abs(S1[h, p, j]))")
    source = assert_levels_agree(text, two_phase_inputs())
    assert source.count("at their identities") == 2 and source.count("the same accumulators") == 1


def test_a_kernel_that_nothing_decides_equals_the_whole() -> None:
    Q, K, V, X, Y, tau = two_phase_inputs()
    c = einfall.cascade(TWO_PHASE)
    everything, _ = einfall.compile(c, backend="triton", tiles=tiles_of(c))(
        Q, K, V, X, Y, torch.full_like(tau, -1.0)
    )
    causal = torch.tril(torch.ones(70, 70, dtype=torch.bool, device=DEVICE))
    dense = (Q @ K.mT / 4).masked_fill(~causal, -torch.inf).softmax(-1) @ V
    assert relative(everything, dense.double().cpu().numpy()) < 2e-5


@pytest.mark.parametrize("rank", ["n", "m"])
def test_a_concatenated_rank_is_not_cut_in_parts_side_by_side(rank: str) -> None:
    Q, KC, K, VC, V = heads(40, 10, 40)
    c = einfall.cascade(POOLED)
    f = einfall.compile(c, backend="triton", parts={rank: 2})
    with pytest.raises(einfall.EinfallError, match=rank):
        f(Q, KC, VC, K, V)


def test_a_parts_rank_that_is_also_kept_is_refused_by_name() -> None:
    c = einfall.cascade("""
def clash(X, Y):
    T[n] = concat[n](X[i], Y[j])
    O[j] = sum[n](T[n] * Y[j])
    return O
""")
    with pytest.raises(BackendError, match="a concatenation of i, j, and O keeps a rank j"):
        einfall.compile(c, backend="triton")(torch.ones(2000), torch.ones(3000))
