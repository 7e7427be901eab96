"""Two kernels written by hand in the protocol of ``codegen/kernel.py``, with their cascades.

They let the back end be tested without the generator: ``ROWS`` reduces one rank to two tensors,
``STREAM`` holds a running state over a streamed rank between two dots.
"""

from __future__ import annotations

from einfall.codegen.kernel import Argument, Buffer, GridRank, Kernel
from einfall.ir.cascade import Cascade, Einsum
from einfall.ir.expression import Access, Apply, Expression, Parameter, RankVariable, Reduce


def access(tensor: str, ranks: str) -> Access:
    """Return ``tensor`` at plain rank variables, one letter each."""
    return Access(tensor, tuple(RankVariable(rank) for rank in ranks))


def exp_of_difference(left: Expression, right: Expression) -> Expression:
    return Apply("exp", (Apply("-", (left, right)),))


ROWS = Cascade(
    "rows",
    ("X",),
    (("scale", None),),
    (
        Einsum(
            access("Y", "pm"),
            Apply("*", (access("X", "pm"), Parameter("scale"))),
        ),
        Einsum(access("G", "p"), Reduce("max", ("m",), access("Y", "pm"))),
        Einsum(
            access("D", "p"),
            Reduce("sum", ("m",), exp_of_difference(access("Y", "pm"), access("G", "p"))),
        ),
    ),
    ("G", "D"),
)

STREAM = Cascade(
    "stream",
    ("Q", "K", "V"),
    (),
    (
        Einsum(
            access("S", "bpm"),
            Reduce("sum", ("e",), Apply("*", (access("Q", "bpe"), access("K", "bme")))),
        ),
        Einsum(access("G", "bp"), Reduce("max", ("m",), access("S", "bpm"))),
        Einsum(access("N", "bpm"), exp_of_difference(access("S", "bpm"), access("G", "bp"))),
        Einsum(access("D", "bp"), Reduce("sum", ("m",), access("N", "bpm"))),
        Einsum(
            access("A", "bpm"),
            Apply("/", (access("N", "bpm"), access("D", "bp"))),
        ),
        Einsum(
            access("O", "bpf"),
            Reduce("sum", ("m",), Apply("*", (access("A", "bpm"), access("V", "bmf")))),
        ),
    ),
    ("O",),
)

ROWS_TEXT = '''"""Row reductions of X, in one traversal of m."""

import triton
import triton.language as tl


@triton.jit
def rows(
    X,
    G,
    D,
    X_p,
    X_m,
    G_p,
    D_p,
    P,
    M,
    scale,
    P0: tl.constexpr,
    M0: tl.constexpr,
):
    p = tl.program_id(0) * P0 + tl.arange(0, P0)
    m = tl.arange(0, M0)
    g = tl.full([P0], float("-inf"), tl.float32)
    d = tl.zeros([P0], tl.float32)
    for m1 in range(0, M, M0):
        live = (p[:, None] < P) & (m1 + m[None, :] < M)
        x = tl.load(X + p[:, None] * X_p + (m1 + m[None, :]) * X_m, mask=live, other=0.0)
        y = tl.where(live, x.to(tl.float32) * scale, float("-inf"))
        g_next = tl.maximum(g, tl.max(y, 1))
        frame = tl.where(g_next == float("-inf"), 0.0, g_next)
        d = d * tl.exp(g - frame) + tl.sum(tl.exp(y - frame[:, None]), 1)
        g = g_next
    tl.store(G + p * G_p, g, mask=p < P)
    tl.store(D + p * D_p, d, mask=p < P)
'''

STREAM_TEXT = '''"""O[b, p, f] over a streamed rank m, two dots a tile."""

import triton
import triton.language as tl


@triton.jit
def stream(
    Q,
    K,
    V,
    O,
    Q_b,
    Q_p,
    Q_e,
    K_b,
    K_m,
    K_e,
    V_b,
    V_m,
    V_f,
    O_b,
    O_p,
    O_f,
    P,
    M,
    E,
    F,
    P0: tl.constexpr,
    M0: tl.constexpr,
    E0: tl.constexpr,
    F0: tl.constexpr,
):
    p1 = tl.program_id(0) % tl.cdiv(P, P0)
    b = tl.program_id(0) // tl.cdiv(P, P0)
    p = p1 * P0 + tl.arange(0, P0)
    m = tl.arange(0, M0)
    e = tl.arange(0, E0)
    f = tl.arange(0, F0)
    p_live = p[:, None] < P
    q = tl.load(
        Q + b * Q_b + p[:, None] * Q_p + e[None, :] * Q_e,
        mask=p_live & (e[None, :] < E),
        other=0.0,
    )
    g = tl.full([P0], -1e30, tl.float32)
    d = tl.zeros([P0], tl.float32)
    o = tl.zeros([P0, F0], tl.float32)
    for m1 in range(0, M, M0):
        m_live = m1 + m < M
        k = tl.load(
            K + b * K_b + (m1 + m[None, :]) * K_m + e[:, None] * K_e,
            mask=m_live[None, :] & (e[:, None] < E),
            other=0.0,
        )
        s = tl.where(m_live[None, :], tl.dot(q, k), float("-inf"))
        g_next = tl.maximum(g, tl.max(s, 1))
        n = tl.exp(s - g_next[:, None])
        step = tl.exp(g - g_next)
        d = d * step + tl.sum(n, 1)
        v = tl.load(
            V + b * V_b + (m1 + m[:, None]) * V_m + f[None, :] * V_f,
            mask=m_live[:, None] & (f[None, :] < F),
            other=0.0,
        )
        o = o * step[:, None] + tl.dot(n.to(v.dtype), v)
        g = g_next
    o = o / tl.where(d == 0.0, 1.0, d)[:, None]
    tl.store(
        O + b * O_b + p[:, None] * O_p + f[None, :] * O_f,
        o.to(O.dtype.element_ty),
        mask=p_live & (f[None, :] < F),
    )
'''


def pointers(*tensors: str) -> tuple[Argument, ...]:
    return tuple(Argument("pointer", tensor, tensor=tensor) for tensor in tensors)


def strides(tensor: str, ranks: str) -> tuple[Argument, ...]:
    return tuple(
        Argument("stride", f"{tensor}_{rank}", tensor=tensor, position=position)
        for position, rank in enumerate(ranks)
    )


def sizes(ranks: str) -> tuple[Argument, ...]:
    return tuple(Argument("size", rank.upper(), rank=rank) for rank in ranks)


def tiles(*names: str) -> tuple[Argument, ...]:
    return tuple(Argument("tile", name) for name in names)


def rows_kernel(p: int = 16, m: int = 32) -> Kernel:
    """Return G[p], D[p] of X[p, m] with tiles of p x m."""
    return Kernel(
        name="rows",
        text=ROWS_TEXT,
        arguments=(
            *pointers("X", "G", "D"),
            *strides("X", "pm"),
            *strides("G", "p"),
            *strides("D", "p"),
            *sizes("pm"),
            Argument("parameter", "scale"),
            *tiles("P0", "M0"),
        ),
        grid=(GridRank("p", "P0"),),
        tiles=(("P0", p), ("M0", m)),
        reads=("X",),
        writes=(Buffer("G", ("p",), "float32"), Buffer("D", ("p",), "float32")),
    )


def stream_kernel(
    p: int = 128,
    m: int = 128,
    e: int = 128,
    f: int = 128,
    dtype: str = "float16",
    num_warps: int = 8,
    num_stages: int = 2,
) -> Kernel:
    """Return O[b, p, f] of Q, K, V with tiles of p x m; ``e`` and ``f`` cover their ranks."""
    return Kernel(
        name="stream",
        text=STREAM_TEXT,
        arguments=(
            *pointers("Q", "K", "V", "O"),
            *strides("Q", "bpe"),
            *strides("K", "bme"),
            *strides("V", "bmf"),
            *strides("O", "bpf"),
            *sizes("pmef"),
            *tiles("P0", "M0", "E0", "F0"),
        ),
        grid=(GridRank("b"), GridRank("p", "P0")),
        tiles=(("P0", p), ("M0", m), ("E0", e), ("F0", f)),
        reads=("Q", "K", "V"),
        writes=(Buffer("O", ("b", "p", "f"), dtype),),
        num_warps=num_warps,
        num_stages=num_stages,
    )
