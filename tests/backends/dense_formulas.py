"""Dense formulas in torch of masks, concatenated keys and outputs, for torch's own autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def scores(Q: Tensor, K: Tensor) -> Tensor:
    return Q @ K.mT / math.sqrt(Q.shape[-1])


def masked(S: Tensor, keep: Tensor) -> Tensor:
    """Return the weights of the scores that are kept; a row without any has none."""
    S = S.masked_fill(~keep, -math.inf)
    some = torch.isfinite(S).any(-1, keepdim=True)
    return torch.where(some, torch.softmax(torch.where(some, S, 0.0), -1), 0.0)


def places(S: Tensor) -> tuple[Tensor, Tensor]:
    return torch.arange(S.shape[-2])[:, None], torch.arange(S.shape[-1])[None]


def radial(Q: Tensor, K: Tensor, V: Tensor, s: int) -> Tensor:
    S = scores(Q, K)
    p, m = places(S)
    d, apart = abs(p // s - m // s), abs(p % s - m % s)
    shell = 2 ** torch.floor(torch.log2(d.clamp(min=1).double())).long()
    near = apart < s // shell
    thinned = (apart == 0) & (d % (-(-shell // s)).clamp(min=1) == 0)
    return masked(S, near | thinned) @ V


def longlora(Q: Tensor, K: Tensor, V: Tensor, G: int) -> Tensor:
    S = scores(Q, K)
    p, m = places(S)
    shift = torch.where(2 * torch.arange(S.shape[1]) < S.shape[1], 0, G // 2)[:, None, None]
    return masked(S, (m <= p) & ((p + shift) // G == (m + shift) // G)) @ V


def longlora_roll(Q: Tensor, K: Tensor, V: Tensor, G: int) -> Tensor:
    half = -(-Q.shape[1] // 2)
    S = scores(Q, K)
    p, m = places(S)
    keep = (m <= p) & (p // G == m // G)
    whole = masked(S, keep) @ V
    Q, K, V = (torch.roll(x, -(G // 2), 2) for x in (Q, K, V))
    shifted = torch.roll(masked(scores(Q, K), keep) @ V, G // 2, 2)
    return torch.cat([whole[:, :half], shifted[:, half:]], 1)


def sink_tokens(
    Q: Tensor, KS: Tensor, VS: Tensor, K: Tensor, V: Tensor, length: Tensor
) -> tuple[Tensor, Tensor]:
    b, h, p, _ = Q.shape
    keys = torch.cat([KS.expand(b, *KS.shape), K], 2)
    values = torch.cat([VS.expand(b, *VS.shape), V], 2)
    S, sinks = scores(Q, keys), KS.shape[1]
    row, n = places(S)
    seen = (n < sinks) | (n - sinks <= row + length[:, None, None, None] - p)
    S = S.masked_fill(~seen, -math.inf)
    return torch.softmax(S, -1) @ values, torch.logsumexp(S, -1)


def core_context(Q: Tensor, K: Tensor, V: Tensor, g: int, s: int) -> Tensor:
    n = Q.shape[2]
    groups = n // g
    grouped = [
        x[:, :, : groups * g].reshape(*x.shape[:2], groups, g, x.shape[3]) for x in (Q, K, V)
    ]
    T = torch.einsum("bhje,bhjie->bhji", grouped[0][:, :, :, -1], grouped[1])
    P = torch.softmax(T / math.sqrt(Q.shape[-1]), -1)
    cores = [torch.einsum("bhji,bhjie->bhje", P, x) for x in grouped[1:]]
    far = torch.div(torch.arange(n)[:, None] + 1 - s, g, rounding_mode="floor")
    j, m = torch.arange(groups)[None], torch.arange(n)[None]
    keep = torch.cat([j < far, (m >= far.clamp(min=0) * g) & (m <= torch.arange(n)[:, None])], 1)
    S = scores(Q, torch.cat([cores[0], K], 2))
    return masked(S, keep.expand(S.shape)) @ torch.cat([cores[1], V], 2)


def seer_target(Q: Tensor, K: Tensor, V: Tensor, B: int) -> tuple[Tensor, Tensor]:
    S = scores(Q, K)
    p, m = places(S)
    A = masked(S, m <= p + S.shape[-1] - S.shape[-2])
    rows = [A[:, :, i : i + B] for i in range(0, A.shape[2], B)]
    tiles = [[x[..., j : j + B].amax((2, 3)) for j in range(0, A.shape[3], B)] for x in rows]
    T = torch.stack([torch.stack(x, -1) for x in tiles], 2)
    total = T.sum(-1, keepdim=True)
    return A @ V, torch.where(total > 0, T / torch.where(total > 0, total, 1.0), 0.0)


def absmax_scaled(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    S = scores(Q, K)
    p, m = places(S)
    S = torch.where(m <= p + S.shape[-1] - S.shape[-2], S, 0.0)
    largest = abs(S).amax(-1, keepdim=True)
    return torch.where(largest > 0, S / torch.where(largest > 0, largest, 1.0), 0.0) @ V


def zero_tuning(Q: Tensor, K: Tensor, V: Tensor, gamma: Tensor) -> Tensor:
    S = scores(Q, K)
    p, m = places(S)
    S = S + torch.where(m == 0, torch.log(gamma)[:, None, None], 0.0)
    return masked(S, (m <= p + S.shape[-1] - S.shape[-2]).expand(S.shape)) @ V


def heavy_hitters(Q: Tensor, K: Tensor, V: Tensor, G: int) -> tuple[Tensor, Tensor]:
    S = scores(Q, K.repeat_interleave(G, 1))
    p, m = places(S)
    A = masked(S, m <= p + S.shape[-1] - S.shape[-2])
    return A @ V.repeat_interleave(G, 1), A.sum(-2)


FORMULAS: dict[str, Callable[..., Any]] = {
    "radial": radial,
    "longlora": longlora,
    "longlora_roll": longlora_roll,
    "sink_tokens": sink_tokens,
    "core_context": core_context,
    "seer_target": seer_target,
    "absmax_scaled": absmax_scaled,
    "zero_tuning": zero_tuning,
    "heavy_hitters": heavy_hitters,
}
