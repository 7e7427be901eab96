"""What is chosen from what, and at which length: rows of the selections' table, and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy
import torch
from torch import Tensor

import einfall
from einfall import examples
from einfall.examples.inputs import make
from einfall.ir.cascade import Cascade, Einsum
from einfall.ir.expression import Access, RankVariable
from einfall.ir.selection import count_body, count_ranks, selections


@dataclass(frozen=True, slots=True)
class Row:
    """An example that chooses, with sizes of its tensors and values of its parameters.

    ``whole``: tensors are drawn from -1, 0 and 1, where kernels compute what is compared without
    rounding, and many numbers are equal. ``scales`` are factors of tensors. ``more`` is an einsum
    that chooses where the example asks a filter.
    """

    example: str
    sizes: Mapping[str, int]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    whole: bool = False
    more: str = ""

    @property
    def name(self) -> str:
        """What the row is called: the example, its keys, and whether numbers are whole."""
        return f"{self.example}-{self.sizes['m']}" + ("-whole" if self.whole else "")

    @property
    def cascade(self) -> Cascade:
        """The example, with every list that it chooses, and its length, among its outputs."""
        cascade: Cascade = getattr(examples, self.example)
        if self.more:
            head, _, end = str(cascade).rpartition("    return ")
            cascade = einfall.cascade(f"{head}    {self.more}\n    return {end}")
        lists = selections(cascade.einsums)
        outputs = (*cascade.outputs, *(e.name for e in lists), *(length_of(e).name for e in lists))
        einsums = (*cascade.einsums, *map(length_of, lists))
        return replace(cascade, einsums=einsums, outputs=tuple(dict.fromkeys(outputs)))


def length_of(selection: Einsum) -> Einsum:
    """Return the einsum that counts a selection's members: behind them lists are filled with 0."""
    ranks = tuple(RankVariable(r) for r in count_ranks(selection))
    return Einsum(Access(f"{selection.name}_length", ranks), count_body(selection))


SELF = {"b": 1, "h": 4, "p": 8, "e": 64, "f": 64}
GATE = dict.fromkeys(("Wq", "Wmax", "Wmin", "Wmean"), 64**-0.5)
FAR = "Far[h, i, c] = threshold[k, log(tau[h])](R[h, i, k])"

DRAWN = (
    Row("topk_blocks", SELF | {"m": 4096}, {"B": 64, "k": 16}),
    Row("topk_blocks", SELF | {"m": 32768}, {"B": 128, "k": 32}),
    Row("seer_attention", SELF | {"m": 4096}, {"B": 64, "tau": 0.02}, GATE),
    Row("seer_attention", SELF | {"m": 32768}, {"B": 64, "tau": 0.003}, GATE),
    Row("quest", SELF | {"m": 32768}, {"G": 2, "B": 16, "k": 64}),
    Row("tidal_decode", SELF | {"m": 32768, "block": 16384}, {"G": 2, "k": 256}),
    Row("double_sparsity", SELF | {"m": 32768, "block": 16384}, {"k": 256}),
    Row(
        "snapkv",
        SELF | {"m": 32768, "block": 16384},
        {"G": 2, "R": 3, "near": 32, "sinks": 4, "k": 1024},
    ),
    Row(
        "ada_snapkv",
        SELF | {"m": 8192, "block": 4096},
        {"G": 2, "R": 3, "near": 32, "sinks": 4, "least": 128, "k": 512},
    ),
    Row("routing", SELF | {"m": 8192, "block": 4096}, {"w": 256}),
    Row(
        "flex_prefill_blocks",
        SELF | {"h": 8, "group": 2, "m": 2112, "block": 352},
        {"B": 64, "gamma": 0.9, "tau": 0.1, "least": 4},
    ),
    Row(
        "sale",
        SELF | {"m": 3003, "block": 1500},
        {"B": 64, "C": 32, "sinks": 32, "W": 128},
        more=FAR,
    ),
)
WHOLE = ("topk_blocks", "quest", "tidal_decode", "double_sparsity", "routing")
ROWS = (*DRAWN, *(replace(r, whole=True) for r in DRAWN if r.example in WHOLE))


def inputs(
    row: Row, dtype: str = "bfloat16", seed: int = 1
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """Return a row's tensors, real ones in ``dtype``, and its parameters."""
    arrays, parameters = make(row.example, seed, scale=row.sizes)
    names = getattr(examples, row.example).inputs
    found = []
    for name, x in zip(names, arrays, strict=True):
        if x.dtype.kind != "f":
            found.append(torch.from_numpy(x))
            continue
        x = numpy.clip(numpy.rint(x), -1, 1) if row.whole else x * row.scales.get(name, 1.0)
        found.append(torch.from_numpy(x).to(getattr(torch, dtype)))
    return tuple(found), parameters | dict(row.parameters)
