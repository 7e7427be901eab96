"""The truth for a measurement: some query rows in float64, on the device, by plain formulas.

All keys of a row are needed and few rows are, so the scores of a sample fit at any length. The
formulas are written for torch and know nothing of cascades, peers or kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from einfall.examples.benchmarks.rows import Row


@dataclass(frozen=True, slots=True)
class Sample:
    """Which part of the outputs is checked: for each (batch, head), these query rows."""

    places: tuple[tuple[int, int], ...]
    queries: tuple[int, ...]


def sample_of(row: Row, width: int = 64) -> Sample:
    """Return the first, middle and last query rows of the first and the last head."""
    starts = (0, (row.n - width) // 2, row.n - width)
    queries = sorted({q for start in starts for q in range(max(start, 0), start + width)})
    places = {(0, 0), (row.batch - 1, row.heads - 1), (0, row.heads // 2)}
    return Sample(tuple(sorted(places)), tuple(queries))


def inputs(row: Row, seed: int = 0, device: str = "cuda", dtype: Any = None) -> tuple[Tensor, ...]:
    """Return the row's arguments, standard normal, in the order of its example's ``def``."""
    generator = torch.Generator(device).manual_seed(seed)
    keys = row.heads // row.group

    def normal(heads: int) -> Tensor:
        shape = (row.batch, heads, row.n, row.d)
        x = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        return x.to(dtype or torch.bfloat16)

    tensors = (normal(row.heads), normal(keys), normal(keys))
    place = torch.arange(1, row.heads + 1, device=device) / row.heads
    match row.example:
        case "alibi":
            return (*tensors, (2.0 ** (-8.0 * place)).float())
        case "differential":
            return (*tensors, normal(row.heads), normal(keys), 0.8 * place.float())
        case _:
            return tensors


def scores(row: Row, S: Tensor, p: Tensor, m: Tensor, slope: Tensor | float) -> Tensor:
    """Return a head's scores as the variant has them, -inf where no point exists.

    ``S`` are the scaled products, of shape (queries, keys); ``p`` and ``m`` their positions.
    """
    match row.example:
        case "attention" | "sigmoid":
            return S
        case "sliding_window":
            keep = (m <= p) & (p - m < row.parameters["W"])
        case _:
            keep = m <= p
    if row.example == "softcap":
        S = row.parameters["cap"] * torch.tanh(S / row.parameters["cap"])
    if row.example == "alibi":
        S = S - slope * (p - m)
    return S.masked_fill(~keep, -torch.inf)


def reference(row: Row, tensors: tuple[Tensor, ...], sample: Sample) -> tuple[Tensor, ...]:
    """Return the outputs' sample in float64: O (places, queries, d), and L and H for entropy."""
    if row.example == "differential":
        return difference(row, tensors, sample)
    Q, K, V, *more = tensors
    queries = torch.tensor(sample.queries, device=Q.device)
    p, m = queries[:, None].double(), torch.arange(row.n, device=Q.device).double()
    found: list[list[Tensor]] = [[], [], []]
    for b, h in sample.places:
        q, k, v = Q[b, h, queries].double(), K[b, h // row.group].double(), V[b, h // row.group]
        slope = more[0][h].double() if more else 0.0
        S = scores(row, q @ k.T * row.d**-0.5, p, m, slope)
        L = S.logsumexp(-1)
        A = (S - L[:, None]).exp()
        if row.example == "sigmoid":
            A = (S - math.log(row.n)).sigmoid()
        surprise = (L[:, None] - S).masked_fill(A == 0, 0)
        for outputs, x in zip(found, (A @ v.double(), L, (A * surprise).sum(-1)), strict=True):
            outputs.append(x)
    stacked = tuple(torch.stack(x) for x in found)
    return stacked if row.example == "entropy" else stacked[:1]


def difference(row: Row, tensors: tuple[Tensor, ...], sample: Sample) -> tuple[Tensor, ...]:
    """Return the sample of a weighting less ``weight`` times another one, of the same values."""
    Q1, K1, Q2, K2, V, weight = tensors
    plain = replace(row, example="causal")
    (one,), (two,) = (reference(plain, (Q, K, V), sample) for Q, K in ((Q1, K1), (Q2, K2)))
    each = weight[[h for _, h in sample.places]].double()
    return (one - each[:, None, None] * two,)


def taken(output: Tensor, sample: Sample) -> Tensor:
    """Return the sample of an output of shape (b, h, p, ...)."""
    return torch.stack([output[b, h, list(sample.queries)] for b, h in sample.places])


def errors(found: tuple[Tensor, ...], expected: tuple[Tensor, ...], sample: Sample) -> list[float]:
    """Return each output's error: of O relative in the L2 norm, of the others the largest absolute.

    ``found`` may have fewer outputs than ``expected``: a peer that computes less.
    """
    differences = [taken(x, sample).double() - y for x, y in zip(found, expected, strict=False)]
    relative = float(differences[0].norm() / expected[0].norm())
    return [relative, *(float(x.abs().max()) for x in differences[1:])]
