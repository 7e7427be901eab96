"""Attention as FlexAttention's users write it: a mask function and a score function.

::

    from einfall.examples import flex

    f = flex.attention(mask_mod, score_mod)  # instead of flex_attention(Q, K, V, score_mod, ...)
    O = f(Q, K, V)
    print(f.cascade)                         # the two functions, as the notation has them

The functions are traced once; nothing of their masks is stored, and tiles that they leave empty
are skipped because the filter says so. Tensors that they capture are inputs of the cascade, read at
each call, so a tensor that changes in place counts; one that is longer than the arguments is read
as far as they go.

Dong et al., FlexAttention, arXiv 2412.05496, has the two signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from einfall.backends.compile import Compiled, compile
from einfall.backends.trace_filter import block_filter, trace_filter, trace_score, tracer
from einfall.ir.cascade import Cascade
from einfall.ir.expression import Access, Apply, Expression, RankVariable
from einfall.ir.notation import cascade
from einfall.ir.show import show_expression

OWN = ("Q", "K", "V", "S", "T", "A", "O", "L", "e", "f", "G", "scale", "Keep", "Keep_full", "Tile",
       "Bits")  # fmt: skip
"""Names that no captured tensor gets."""


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention with functions of one's own: ``f(Q, K, V)``.

    cascade : what is computed. tensors : those that the functions capture, by name, in the order
    in which they follow Q, K and V. compiled : takes all of them, and has ``source``,
    ``explain()``, ``lower`` and so on. grouped : several query heads share a key head. along :
    where a captured tensor lies along a rank of the arguments, as (tensor, axis, rank).
    """

    cascade: Cascade
    tensors: tuple[tuple[str, torch.Tensor], ...]
    compiled: Compiled
    grouped: bool
    along: tuple[tuple[int, int, str], ...]

    def __call__(self, Q: torch.Tensor, K: torch.Tensor, V: torch.Tensor) -> Any:
        """Return O, or O and the logarithm of the sums, for Q[b, h, p, e], K[b, h, m, e] and V."""
        captured = [x if x.device == Q.device else x.to(Q.device) for _, x in self.tensors]
        ends = {"b": Q.shape[0], "h": Q.shape[1], "p": Q.shape[2], "m": K.shape[2]}
        for place, axis, rank in self.along:
            if captured[place].shape[axis] > ends[rank]:  # made for more than there is now
                captured[place] = captured[place].narrow(axis, 0, ends[rank])
        sizes = {"G": Q.shape[1] // K.shape[1]} if self.grouped else {}
        return self.compiled(Q, K, V, *captured, **sizes)


def attention(
    mask_mod: Callable[..., Any] | None = None,
    score_mod: Callable[..., Any] | None = None,
    *,
    block_mask: Any = None,
    table: Mapping[str, int] | None = None,
    scale: float | None = None,
    grouped: bool = False,
    lse: bool = False,
    **options: Any,
) -> Attention:
    """Return attention with a mask and a score as FlexAttention takes them.

    Parameters
    ----------
    mask_mod : ``(b, h, q, kv) -> bool``: which points exist; a query without keys gets 0.
    score_mod : ``(score, b, h, q, kv) -> score``, of scaled scores.
    block_mask : a ``BlockMask``, instead of a mask_mod: its blocks, and its own mask function.
    table : sizes ``{"b": ..., "h": ..., "p": ..., "m": ...}`` for which a mask function that cannot
        be traced is evaluated and stored in tiles; what can be traced never is.
    scale : of scores; one over the root of the number of features if None.
    grouped : heads of Q share those of K and V evenly, as with ``enable_gqa``.
    lse : also return the logarithm of each row's sum, [b, h, p].
    options : of ``einfall.compile``.

    Raises
    ------
    BackendError : a function does something that the notation has no words for.
    ValueError : both a mask function and a block mask are given.
    """
    if block_mask is not None and mask_mod is not None:
        raise ValueError("a block_mask has its own mask function; give it without mask_mod")
    names = tracer(taken=OWN)
    kept: list[Expression] = []
    tensors: dict[str, torch.Tensor] = {}
    if block_mask is not None:
        found = block_filter(block_mask, within=names)
        kept, tensors = [found.expression], dict(found.tensors)
    elif mask_mod is not None:
        found = trace_filter(mask_mod, table=table, within=names)
        kept, tensors = [found.expression], dict(found.tensors)
        if "Tile" in tensors:
            options["inside"] = (*options.get("inside", ()), "Tile")
    change = "S[b, h, p, m]"
    if score_mod is not None:
        score = trace_score(score_mod, within=names)
        change = show_expression(score.expression)
        kept += [] if score.filter is None else [score.filter]
    tensors |= dict(names.named())
    text = declaration(kept, change, tuple(tensors), scale, grouped, lse)
    declared = cascade(text)
    read = tuple((n, x) for n, x in tensors.items() if n in declared.inputs)
    places = {n: k for k, (n, _) in enumerate(read)}
    along = {
        (places[x.tensor], axis, c.rank): None
        for einsum in declared.einsums
        for x in einsum.expressions()
        if isinstance(x, Access) and x.tensor in places
        for axis, c in enumerate(x.coordinates)
        if isinstance(c, RankVariable) and c.rank in "bhpm"
    }
    return Attention(declared, read, compile(declared, **options), grouped, tuple(along))


def declaration(
    kept: list[Expression],
    change: str,
    tensors: tuple[str, ...],
    scale: float | None,
    grouped: bool,
    lse: bool,
) -> str:
    """Return the text of the cascade."""
    whole = kept[0] if len(kept) == 1 else Apply("and", tuple(kept))
    filter = f": {show_expression(whole)}" if kept else ""
    head = "h // G" if grouped else "h"
    scaled = "/ sqrt(size(e))" if scale is None else f"* {scale!r}"
    lines = [f"    S[b, h, p, m{filter}] = Q[b, h, p, e] * K[b, {head}, m, e] {scaled}"]
    bent = change != "S[b, h, p, m]"
    lines += [f"    T[b, h, p, m] = {change}"] if bent else []
    source = "T" if bent else "S"
    lines.append(f"    A[b, h, p, m] = softmax[m]({source}[b, h, p, m])")
    lines.append(f"    O[b, h, p, f] = A[b, h, p, m] * V[b, {head}, m, f]")
    lines += [f"    L[b, h, p] = logsumexp[m]({source}[b, h, p, m])"] if lse else []
    lines.append(f"    return O{', L' if lse else ''}")
    parameters = ", *, G" if grouped else ""
    return f"def flex({', '.join(('Q', 'K', 'V', *tensors))}{parameters}):\n" + "\n".join(lines)
