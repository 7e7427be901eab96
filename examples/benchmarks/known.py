"""Who else computes a cascade: the peers of an example, asked at any sizes that they know.

A cascade is known if it is one of the examples of the forward table, under whatever name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

import einfall.examples
from einfall import Cascade
from einfall.examples.benchmarks import peers
from einfall.examples.benchmarks.rows import ROWS, Row

Maker = Callable[[tuple[Tensor, ...], Mapping[str, float]], peers.Call]


def makers(cascade: Cascade) -> dict[str, Maker]:
    """Return makers of the peers' calls by name, none if nobody else is known to compute it."""
    rows = {row.example: row for row in ROWS}
    for name, row in rows.items():
        example = getattr(einfall.examples, name)
        if replace(cascade, name=example.name) == example:
            return {who: maker(who, row) for who in peers.NAMES if who in row.peers}
    return {}


def maker(who: str, like: Row) -> Maker:
    """Return what makes a peer's call from tensors and parameters."""

    def make(tensors: tuple[Tensor, ...], parameters: Mapping[str, float]) -> peers.Call:
        peers.begin()
        return peers.make(who, row_of(like, tensors, parameters), tensors)

    return make


def row_of(like: Row, tensors: tuple[Tensor, ...], parameters: Mapping[str, float]) -> Row:
    """Return the row of these tensors; raises RuntimeError for sizes that peers take otherwise.

    One query against all keys has no key behind it, so that it needs no filter.
    """
    Q, K = tensors[:2]
    batch, heads, queries, features = Q.shape
    keys = K.shape[2]
    row = replace(
        like, batch=batch, heads=heads, n=keys, d=features, group=heads // K.shape[1],
        parameters=dict(parameters),
    )  # fmt: skip
    if queries == keys or like.example == "attention":
        return row
    if queries == 1 and like.example in ("causal", "gqa"):
        return replace(row, example="attention")
    raise RuntimeError(f"is asked for {like.example} with as many queries as keys, or one query")


def clock(milliseconds: int) -> Callable[[Callable[[], object]], float]:
    """Return a function that times a call for so long, the cache of the device emptied before."""
    from triton.testing import do_bench  # type: ignore[import-untyped]

    def time(call: Callable[[], object]) -> float:
        found = float(do_bench(call, warmup=25, rep=milliseconds, return_mode="median"))
        torch.cuda.synchronize()
        return found

    return time
