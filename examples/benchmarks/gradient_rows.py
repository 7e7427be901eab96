"""What the gradients' table compares: examples, each written twice more for torch.

A row has a dense formula in plain torch, which in float64 is the reference and in the tensors' own
dtype a peer, and, where FlexAttention has words for it, the functions that it is given. Rows whose
whole difference is a mask and a score have no formula of their own: the two functions, applied to
dense scores, are one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

import einfall
import einfall.examples
from einfall.examples.inputs import make

Tensors = tuple[Tensor, ...]
Parameters = Mapping[str, Any]
Formula = Callable[[Tensors, Parameters], Tensors]
Mask = Callable[[Any, Any, Any, Any], Any]
Score = Callable[[Any, Any, Any, Any, Any], Any]
Functions = Callable[[Tensors, Parameters], tuple[Mask | None, Score | None]]
After = Callable[[Tensor, Tensor, Tensors], Tensor]

SCALE = {"b": 2, "h": 4, "group": 2, "e": 64, "f": 64, "block": 32}


@dataclass(frozen=True, slots=True)
class Row:
    """A variant, and how others write it.

    name : of the example. formula : from tensors and parameters to outputs. functions : a mask and
    a score for FlexAttention, of (b, h, q, k) and (score, b, h, q, k). after : makes the output
    from FlexAttention's and its logarithms of sums.
    """

    name: str
    formula: Formula
    functions: Functions | None = None
    after: After | None = None

    @property
    def cascade(self) -> einfall.Cascade:
        """What is differentiated."""
        return getattr(einfall.examples, self.name)  # type: ignore[no-any-return]


def inputs(
    row: Row, n: int, dtype: torch.dtype, device: str, seed: int = 1
) -> tuple[Tensors, dict[str, Any]]:
    """Return a row's tensors for as many queries as keys, and its parameters."""
    arrays, parameters = make(row.name, seed=seed, scale=SCALE | {"p": n, "m": n})
    made = [torch.from_numpy(x) for x in arrays]
    return tuple((x.to(dtype) if x.is_floating_point() else x).to(device) for x in made), parameters


def scaled(Q: Tensor, K: Tensor) -> Tensor:
    """Return Q K^T / sqrt(e)."""
    return Q @ K.mT / math.sqrt(Q.shape[-1])


def only(S: Tensor, keep: Tensor) -> Tensor:
    """Return scores with minus infinity where nothing is kept."""
    return S.masked_fill(~keep, -math.inf)


def causal(S: Tensor) -> Tensor:
    """Return scores of as many queries as keys without what lies ahead."""
    return only(S, torch.ones(S.shape[-2:], dtype=torch.bool, device=S.device).tril())


def dense(functions: Functions) -> Formula:
    """Return the formula that a mask and a score are, applied to all scores."""

    def formula(tensors: Tensors, parameters: Parameters) -> Tensors:
        Q, K, V = tensors[:3]
        K, V = (x.repeat_interleave(Q.shape[1] // K.shape[1], 1) for x in (K, V))
        S = scaled(Q, K)
        b, h, q, k = _places(S)
        mask, score = functions(tensors, parameters)
        S = S if score is None else score(S, b, h, q, k)
        S = S if mask is None else only(S, mask(b, h, q, k))
        return (S.softmax(-1) @ V,)

    return formula


def _places(S: Tensor) -> Tensors:
    """Return the four coordinates of scores, each along its own rank."""
    shapes = ([-1 if k == axis else 1 for k in range(4)] for axis in range(4))
    sizes = zip(S.shape, shapes, strict=True)
    return tuple(torch.arange(n, device=S.device).reshape(shape) for n, shape in sizes)


def sees_behind(b: Any, h: Any, q: Any, k: Any) -> Any:
    """Keep the keys up to the query's own place."""
    return k <= q


def softcap(tensors: Tensors, parameters: Parameters) -> tuple[Mask, Score]:
    """Bend causal scores into an interval."""
    cap = parameters["cap"]
    return sees_behind, lambda score, b, h, q, k: cap * torch.tanh(score / cap)


def alibi(tensors: Tensors, parameters: Parameters) -> tuple[Mask, Score]:
    """Subtract a learned slope of each head times the distance."""
    slope = tensors[3]
    return sees_behind, lambda score, b, h, q, k: score - slope[h] * (q - k)


def relative_bias(tensors: Tensors, parameters: Parameters) -> tuple[None, Score]:
    """Add a learned number for each head and distance."""
    R, last = tensors[3], tensors[1].shape[2] - 1
    return None, lambda score, b, h, q, k: score + R[h, q - k + last]


def sliding_window(tensors: Tensors, parameters: Parameters) -> tuple[Mask, None]:
    """Keep the last W keys."""
    width = int(parameters["W"])
    return lambda b, h, q, k: (k <= q) & (q - k < width), None


def prefix_lm(tensors: Tensors, parameters: Parameters) -> tuple[Mask, None]:
    """Keep a prefix of each sequence, and what lies behind the query."""
    prefix = tensors[3]
    return lambda b, h, q, k: (k <= q) | (k < prefix[b]), None


def document(tensors: Tensors, parameters: Parameters) -> tuple[Mask, None]:
    """Keep the query's own document, causally."""
    doc = tensors[3]
    return lambda b, h, q, k: (k <= q) & (doc[b, q] == doc[b, k]), None


def longlora(tensors: Tensors, parameters: Parameters) -> tuple[Mask, None]:
    """Keep groups of G, shifted by half of one in half of the heads."""
    G, heads = int(parameters["G"]), tensors[0].shape[1]

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        shift = torch.where(2 * h < heads, 0, G // 2)
        return (k <= q) & ((q + shift) // G == (k + shift) // G)

    return mask, None


def radial(tensors: Tensors, parameters: Parameters) -> tuple[Mask, None]:
    """Keep a diagonal between frames, thinner the further they are apart."""
    s = int(parameters["s"])

    def mask(b: Any, h: Any, q: Any, k: Any) -> Any:
        apart, frames = (q % s - k % s).abs(), (q // s - k // s).abs()
        # 2 ** floor(log2 of the distance in frames), as a sum of the powers below it
        power = 1 + sum((frames // 2 >= 2**i).to(torch.int64) * 2**i for i in range(12))
        step = torch.clamp((power + s - 1) // s, min=1)
        return (apart < s // power) | ((apart == 0) & (frames % step == 0))

    return mask, None


def masked(name: str, functions: Functions) -> Row:
    """Return the row of a variant that a mask and a score are the whole of."""
    return Row(name, dense(functions), functions)


def sink(tensors: Tensors, parameters: Parameters) -> Tensors:
    """Append a learned score of each head that has no value."""
    Q, K, V, logit = tensors
    S = causal(scaled(Q, K))
    more = logit[None, :, None, None].expand(*S.shape[:3], 1)
    return (torch.cat((S, more), -1).softmax(-1)[..., :-1] @ V,)


def sink_after(O: Tensor, L: Tensor, tensors: Tensors) -> Tensor:  # noqa: E741
    """Return the output with one more score in the divisor."""
    return O * torch.sigmoid(L - tensors[3][:, None])[..., None].to(O.dtype)


def sigmoid(tensors: Tensors, parameters: Parameters) -> Tensors:
    """Weigh each key by itself."""
    Q, K, V = tensors
    return (torch.sigmoid(scaled(Q, K) - math.log(K.shape[2])) @ V,)


def entropy(tensors: Tensors, parameters: Parameters) -> Tensors:
    """Return O, the logarithms of the sums, and the weights' entropies."""
    Q, K, V = tensors
    S = causal(scaled(Q, K))
    A, L = S.softmax(-1), S.logsumexp(-1)
    return A @ V, L, L - (A * torch.where(S.isfinite(), S, 0.0)).sum(-1)


def differential(tensors: Tensors, parameters: Parameters) -> Tensors:
    """Weigh by a difference of two softmaxes."""
    Q1, K1, Q2, K2, V, weight = tensors
    A1, A2 = (causal(scaled(Q, K)).softmax(-1) for Q, K in ((Q1, K1), (Q2, K2)))
    return ((A1 - weight[:, None, None] * A2) @ V,)


def zero_tuning(tensors: Tensors, parameters: Parameters) -> Tensors:
    """Scale the first key's weight, and normalise once more."""
    Q, K, V, gamma = tensors
    A = causal(scaled(Q, K)).softmax(-1)
    X = torch.cat((A[..., :1] * gamma[:, None, None], A[..., 1:]), -1)
    return (X / X.sum(-1, keepdim=True) @ V,)


def relative_keys(tensors: Tensors, parameters: Parameters) -> Tensors:
    """Add the query's product with a learned vector for each distance."""
    Q, K, V, R = tensors
    b, h, q, k = _places(scaled(Q, K))
    bias = (Q @ R.mT).gather(-1, (k - q + K.shape[2] - 1).expand(*Q.shape[:3], K.shape[2]))
    return (causal((Q @ K.mT + bias) / math.sqrt(Q.shape[-1])).softmax(-1) @ V,)


def seer_target(tensors: Tensors, parameters: Parameters) -> Tensors:
    """Return O and the largest weight of each block, in shares of its row of blocks."""
    Q, K, V = tensors
    A, B = causal(scaled(Q, K)).softmax(-1), int(parameters["B"])
    T = pad(A, (0, -A.shape[3] % B, 0, -A.shape[2] % B))
    T = T.reshape(*T.shape[:2], T.shape[2] // B, B, -1, B).amax((3, 5))
    return A @ V, T / T.sum(-1, keepdim=True)


def landmark(tensors: Tensors, parameters: Parameters) -> Tensors:
    """Share each earlier block's gate among its tokens."""
    Q, K, V = tensors
    n, B = Q.shape[2], int(parameters["B"])
    K, V = (pad(x, (0, 0, 0, -n % B)) for x in (K, V))
    S = scaled(Q, K).reshape(*Q.shape[:3], -1, B)
    blocks, gates = S.shape[3], S[..., B - 1]
    p, m = torch.arange(n, device=Q.device)[:, None], torch.arange(blocks * B, device=Q.device)
    own = (m <= p) & (m // B == p // B) & (m % B < B - 1)
    before = torch.arange(blocks, device=Q.device) < p // B
    A = torch.cat((only(S.flatten(3), own), only(gates, before)), -1).softmax(-1)
    tokens, shares = A[..., : blocks * B], A[..., blocks * B :]
    inner = pad(S[..., : B - 1].softmax(-1), (0, 1)) * shares[..., None]
    return ((tokens + inner.flatten(3)) @ V,)


def sink_tokens(tensors: Tensors, parameters: Parameters) -> Tensors:
    """Put learned keys before a padded cache; return O and the logarithms."""
    Q, KS, VS, K, V, length = tensors
    S1, S2, n = scaled(Q, KS), scaled(Q, K), Q.shape[2]
    p, m = torch.arange(n, device=Q.device)[:, None], torch.arange(K.shape[2], device=Q.device)
    S = torch.cat((S1, only(S2, (m <= p + length[:, None, None] - n)[:, None])), -1)
    A = S.softmax(-1)
    first = KS.shape[1]
    return A[..., :first] @ VS + A[..., first:] @ V, S.logsumexp(-1)


def core_context(tensors: Tensors, parameters: Parameters) -> Tensors:
    """See near tokens, and far groups by one weighted token each."""
    Q, K, V = tensors
    g, s, n = int(parameters["g"]), int(parameters["s"]), Q.shape[2]
    groups = n // g
    keys, values = (
        x[:, :, : groups * g].reshape(*x.shape[:2], groups, g, x.shape[3]) for x in (K, V)
    )
    P = scaled(Q[:, :, g - 1 : groups * g : g, None], keys).softmax(-1)
    cores, values = ((P @ x).squeeze(3) for x in (keys, values))
    p, m = torch.arange(n, device=Q.device)[:, None], torch.arange(n, device=Q.device)
    far = (p + 1 - s) // g
    S1 = only(scaled(Q, cores), torch.arange(groups, device=Q.device) < far)
    S2 = only(scaled(Q, K), (m >= far.clamp(min=0) * g) & (m <= p))
    A = torch.cat((S1, S2), -1).softmax(-1)
    return (A[..., :groups] @ values + A[..., groups:] @ V,)


ROWS = (
    masked("causal", lambda tensors, parameters: (sees_behind, None)),
    Row("sink", sink, lambda tensors, parameters: (sees_behind, None), sink_after),
    masked("alibi", alibi),
    masked("relative_bias", relative_bias),
    Row("entropy", entropy),
    Row("differential", differential),
    Row("landmark", landmark),
    Row("sigmoid", sigmoid),
    masked("softcap", softcap),
    Row("relative_keys", relative_keys),
    Row("sink_tokens", sink_tokens),
    masked("document", document),
    masked("sliding_window", sliding_window),
    masked("gqa", lambda tensors, parameters: (sees_behind, None)),
    masked("prefix_lm", prefix_lm),
    masked("longlora", longlora),
    masked("radial", radial),
    Row("zero_tuning", zero_tuning),
    Row("seer_target", seer_target),
    Row("core_context", core_context),
)
