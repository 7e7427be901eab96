"""The others: SDPA's two backends and FlexAttention, each asked in the way that suits it best.

A peer is made for a row and gives a function without arguments that returns a tuple of outputs. One
that cannot compute the row raises; nothing is replaced by something slower. Mask blocks and
compilation happen before the function is returned, so that they are not timed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from einfall.examples.benchmarks.rows import FULL, Row

Call = Callable[[], tuple[Tensor, ...]]

NAMES = ("sdpa-flash", "sdpa-cudnn", "flex", "flex-tuned")


def begin() -> None:
    """Forget what was compiled before, and leave room: to be called once for each row.

    Past the limit of recompilations a frame runs in eager mode, about 40 times slower and with all
    scores in memory. ``fullgraph`` below turns that fall into an error.
    """
    torch._dynamo.reset()
    config = torch._dynamo.config
    setattr(
        config, "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit", 64
    )


def make(name: str, row: Row, tensors: tuple[Tensor, ...]) -> Call:
    """Return a peer's call for a row. Raises RuntimeError if it cannot compute it."""
    if name not in row.peers:
        raise RuntimeError(f"has no form of {row.example}")
    if row.example == "differential":
        return _twice(name, row, tensors)
    if name.startswith("sdpa"):
        return _sdpa(name, row, tensors)
    return _flex("max-autotune-no-cudagraphs" if name == "flex-tuned" else None, row, tensors)


def _twice(name: str, row: Row, tensors: tuple[Tensor, ...]) -> Call:
    """Return two calls and their difference: the weights themselves are not at hand."""
    Q1, K1, Q2, K2, V, weight = tensors
    plain = replace(row, example="causal")
    one, two = (make(name, plain, (Q, K, V)) for Q, K in ((Q1, K1), (Q2, K2)))
    factor = -weight[:, None, None].to(V.dtype)

    def call() -> tuple[Tensor, ...]:
        return (torch.addcmul(one()[0], two()[0], factor),)

    return call


def _sdpa(name: str, row: Row, tensors: tuple[Tensor, ...]) -> Call:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    flash = name == "sdpa-flash"
    backend = SDPBackend.FLASH_ATTENTION if flash else SDPBackend.CUDNN_ATTENTION
    Q, K, V = tensors

    def call() -> tuple[Tensor, ...]:
        with sdpa_kernel([backend]):
            out = scaled_dot_product_attention(
                Q, K, V, is_causal=row.example not in FULL, enable_gqa=row.group > 1
            )
        return (out,)

    call()
    return call


def mask_mod(row: Row) -> Callable[..., Any] | None:
    """Return the row's predicate on (batch, head, query, key), or None if every pair exists."""
    if row.example in FULL:
        return None
    if row.example == "sliding_window":
        width = int(row.parameters["W"])
        return lambda b, h, q, k: (k <= q) & (q - k < width)
    return lambda b, h, q, k: k <= q


def score_mod(row: Row, tensors: tuple[Tensor, ...]) -> Callable[..., Any] | None:
    """Return the row's change to a scaled score, or None if there is none."""
    if row.example == "softcap":
        cap = row.parameters["cap"]
        return lambda score, b, h, q, k: cap * torch.tanh(score / cap)
    if row.example == "alibi":
        slope = tensors[3]
        return lambda score, b, h, q, k: score - slope[h] * (q - k)
    return None


def _flex(mode: str | None, row: Row, tensors: tuple[Tensor, ...]) -> Call:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    predicate = mask_mod(row)
    blocks = None
    if predicate is not None:
        blocks = create_block_mask(predicate, None, None, row.n, row.n, device=tensors[0].device)
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True, mode=mode)
    options: dict[str, Any] = {"block_mask": blocks, "enable_gqa": row.group > 1}
    change = score_mod(row, tensors)
    if change is not None:
        options["score_mod"] = change
    if row.example == "entropy":
        options |= with_lse()
    Q, K, V = tensors[:3]

    def call() -> tuple[Tensor, ...]:
        found = compiled(Q, K, V, **options)
        if not isinstance(found, tuple):
            return (found,)
        out, aux = found
        return out, getattr(aux, "lse", aux)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    grown = torch.cuda.max_memory_allocated() - before
    refuse_eager([str(x.message) for x in heard], grown, row)
    return call


def with_lse() -> dict[str, Any]:
    """Return the option that asks FlexAttention for its LSE, by the name this torch has for it."""
    try:
        from torch.nn.attention.flex_attention import AuxRequest
    except ImportError:
        return {"return_lse": True}
    return {"return_aux": AuxRequest(lse=True)}


def refuse_eager(heard: list[str], grown: int, row: Row) -> None:
    """Raise RuntimeError if a compiled call runs in eager mode.

    ``heard`` are the warnings of the first call, ``grown`` the bytes that a later one needed: in
    eager mode that is, beside O and the LSE in at most four bytes, at least a two-byte score for
    each pair, however many are masked.
    """
    signs = ("without torch.compile", "recompile_limit", "cache_size_limit", "back to eager")
    for message in heard:
        if any(sign in message for sign in signs):
            raise RuntimeError(f"runs in eager mode: {message.splitlines()[0][:200]}")
    rows = row.batch * row.heads * row.n
    scores, outputs = 2 * rows * row.n, rows * (4 * row.d + 4)
    if grown >= scores + outputs:
        raise RuntimeError(
            f"runs in eager mode: a call took {grown} bytes, outputs {outputs}, all scores {scores}"
        )
