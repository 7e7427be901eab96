"""Cascades that put several published ideas together: kernels and gradients equal the interpreter.

Each once showed a fault of a pass that no single variant has.
"""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall.ir.cascade import Cascade

from .codegen.kernel_cases import DEVICE, outputs, relative

ATTENTION = """
    A[b, h, p, m] = softmax[m](T[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""

QKV: dict[str, tuple[int, ...]] = {"Q": (1, 2, 24, 16), "K": (1, 2, 24, 16), "V": (1, 2, 24, 16)}

CASES: dict[str, tuple[str, dict[str, tuple[int, ...]], tuple[str, ...]]] = {
    # scores are mixed along the keys before the softmax (Golovneva et al., arXiv 2504.00927)
    "scores_mixed_along_keys": (
        """def mixed(Q, K, V, w):
    S[b, h, p, m: m <= p] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))
    T[b, h, p, m: m <= p] = sum[j](w[h, j] * S[b, h, p, m - j])"""
        + ATTENTION,
        {**QKV, "w": (2, 3)},
        (),
    ),
    # keys and values are mixed with those before them (So et al., arXiv 2109.08668)
    "short_convolution": (
        """def convolved(Q, K, V0, w):
    X[b, h, m, e] = w[h, t] * K[b, h, m - t, e]
    V[b, h, m, f] = w[h, t] * V0[b, h, m - t, f]
    T[b, h, p, m: m <= p] = Q[b, h, p, e] * X[b, h, m, e] / sqrt(size(e))"""
        + ATTENTION,
        {"Q": QKV["Q"], "K": QKV["K"], "V0": QKV["V"], "w": (2, 3)},
        ("K", "w"),
    ),
    # each token has the heads that a router chooses (Jin et al., arXiv 2410.11842)
    "heads_chosen_for_each_token": (
        """def chosen(X, R, *, k=2):
    G[b, p, h] = softmax[h](R[b, p, h])
    Sel[b, p, j] = topk[h, k](G[b, p, h])
    O[b, p, f] = sum[h: h in Sel[b, p]](G[b, p, h] * X[b, h, p, f])
    return O
""",
        {"X": (2, 5, 20, 16), "R": (2, 20, 5)},
        (),
    ),
    # near keys as they are, far ones as means of blocks (Zhu and Soricut, arXiv 2107.11906)
    "near_keys_and_means": (
        """def hierarchical(Q, K, V, *, B=4):
    KM[b, h, n, e] = mean[r](K[b, h, n * B + r, e])
    VM[b, h, n, f] = mean[r](V[b, h, n * B + r, f])
    S1[b, h, p, m: m <= p and p // B - m // B <= 1] = (
        Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))
    )
    S2[b, h, p, n: n < p // B - 1] = (
        sum[e](Q[b, h, p, e] * KM[b, h, n, e]) / sqrt(size(e)) + log(B)
    )
    S[b, h, p, t] = concat[t](S1[b, h, p, m], S2[b, h, p, n])
    U[b, h, t, f] = concat[t](V[b, h, m, f], VM[b, h, n, f])
    A[b, h, p, t] = softmax[t](S[b, h, p, t])
    O[b, h, p, f] = A[b, h, p, t] * U[b, h, t, f]
    return O
""",
        QKV,
        ("K", "V"),
    ),
    # a decay for each token, its logarithm summed up in the text (Dao and Gu, arXiv 2405.21060)
    "decays_summed_up": (
        """def decaying(X, B, C, dt, a):
    l[b, h, p] = sum[t: t <= p](-a[h] * dt[b, h, t])
    A[b, h, p, m: m <= p] = (
        sum[e](C[b, p, e] * B[b, m, e]) * exp(l[b, h, p] - l[b, h, m]) * dt[b, h, m]
    )
    Y[b, h, p, f] = A[b, h, p, m] * X[b, h, m, f]
    return Y
""",
        {"X": QKV["V"], "B": (1, 24, 16), "C": (1, 24, 16), "dt": (1, 2, 24), "a": (2,)},
        ("dt", "a"),
    ),
    # differences of gates overflow above the diagonal (Buckman et al., arXiv 2507.04239)
    "powers_with_gates": (
        """def powers(Q, K, V, g):
    C[b, h, p] = sum[t: t <= p](log(sigmoid(g[b, h, t] - 2)))
    S[b, h, p, m: m <= p] = (
        (sum[e](Q[b, h, p, e] * K[b, h, m, e]) / sqrt(size(e))) ** 2 * exp(C[b, h, p] - C[b, h, m])
    )
    D[b, h, p] = sum[m](S[b, h, p, m]) + 1e-3
    O[b, h, p, f] = sum[m](S[b, h, p, m] * V[b, h, m, f]) / D[b, h, p]
    return O
""",
        {"Q": (1, 1, 80, 16), "K": (1, 1, 80, 16), "V": (1, 1, 80, 16), "g": (1, 1, 80)},
        ("g",),
    ),
}


def made(name: str) -> tuple[Cascade, dict[str, torch.Tensor], tuple[str, ...]]:
    text, shapes, wrt = CASES[name]
    rng = numpy.random.default_rng(3)
    tensors = {n: torch.from_numpy(rng.standard_normal(s)).float() for n, s in shapes.items()}
    for n in {"dt", "a"} & set(tensors):
        tensors[n] = 0.3 * tensors[n].abs()
    return einfall.cascade(text), {n: t.to(DEVICE) for n, t in tensors.items()}, wrt


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_the_interpreter(name: str) -> None:
    cascade, tensors, _ = made(name)
    truth = einfall.interpret(cascade, *(t.cpu() for t in tensors.values()))
    assert relative(einfall.compile(cascade, backend="triton")(*tensors.values()), truth) < 2e-6


@pytest.mark.parametrize("name", [n for n, (_, _, wrt) in CASES.items() if wrt])
def test_gradients_equal_differences(name: str) -> None:
    cascade, tensors, wrt = made(name)
    rng = numpy.random.default_rng(4)
    inputs = {n: t.detach().requires_grad_(n in wrt) for n, t in tensors.items()}
    out = einfall.compile(cascade, backend="triton")(*inputs.values())
    seed = torch.from_numpy(rng.standard_normal(tuple(out.shape))).float().to(DEVICE)
    found = torch.autograd.grad(out, [inputs[n] for n in wrt], seed)
    values = {n: t.double().cpu().numpy() for n, t in tensors.items()}

    def weighed(changed: dict[str, Any]) -> float:
        (result,) = outputs(einfall.interpret(cascade, *{**values, **changed}.values()))
        return float((result * seed.double().cpu().numpy()).sum())

    for n, gradient in zip(wrt, found, strict=True):
        way = rng.standard_normal(values[n].shape)
        ends = [weighed({n: values[n] + step * way}) for step in (1e-5, -1e-5)]
        along = float((gradient.double().cpu().numpy() * way).sum())
        assert abs((ends[0] - ends[1]) / 2e-5 - along) < 1e-5 * float(gradient.norm())


@pytest.mark.parametrize(
    ("line", "name"),
    [
        # its tiles follow from coordinates and from how long a table of biases is
        ("S[p, m: p % 3 == m % 3] = Q[p, e] * K[m, e] + T[p // 8 - m // 8 + 20]", "bias"),
        # its bounds follow from what the kernel itself makes of parents
        (
            "G[p] = T[T[p]]\n    S[p, m: m == p or m == T[p] or m == default(G[p], -1)] ="
            " Q[p, e] * K[m, e]",
            "parents",
        ),
    ],
)
def test_tables_and_bounds_read_what_is_there(line: str, name: str) -> None:
    cascade = einfall.cascade(f"""
def listed(Q, K, V, T):
    {line}
    A[p, m] = softmax[m](S[p, m])
    O[p, f] = A[p, m] * V[m, f]
    return O
""")
    rng = numpy.random.default_rng(5)
    q, k, v = (torch.from_numpy(rng.standard_normal((270, 16))).float() for _ in range(3))
    t = torch.from_numpy(rng.standard_normal(30)).float()
    if name == "parents":
        t = torch.from_numpy((numpy.arange(270) * rng.random(270)).astype(numpy.int32) - 1)
    truth = einfall.interpret(cascade, q, k, v, t)
    found = einfall.compile(cascade, backend="triton")(*(x.to(DEVICE) for x in (q, k, v, t)))
    assert relative(found, truth) < 2e-6


def test_numbers_of_points_that_a_kernel_makes_are_read_in_gluon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The case of selective attention (Leviathan et al., arXiv 2410.02703)."""
    monkeypatch.setattr("einfall.backends.compile.gluon_missing", str)  # there is a GPU
    selective = einfall.cascade("""
def selective(Q, K, V, R):
    F[b, p, m] = sum[t: t < p](R[b, t, m])
    S[b, h, p, m: m <= p] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e)) - F[b, p, m]
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
""")
    sizes = {"b": 4, "h": 16, "p": 4096, "m": 4096, "t": 4096, "e": 64, "f": 64}
    found = einfall.compile(selective, target="sm_90").lower(sizes=sizes, dtype="bfloat16")
    assert [k.emitter for k in found.mapping.kernels][-1] == "gluon"
