"""What is measured: the rows of the forward table, and the work that each of them is.

Sizes follow the custom of attention papers: 16384 tokens a launch, 2048 features a token, so
B = 16384 / N, and H = 32 heads of 64 features, 16 of 128 or 8 of 256.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

TOKENS = 16384
HEADS = {64: 32, 128: 16, 256: 8}
FULL = ("attention", "sigmoid")
"""Examples in which every pair of query and key exists."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: an example at sizes.

    example : name of the cascade in ``einfall.examples``.
    heads, group : query heads, and how many of them share a key head.
    n, d : queries and keys; features of queries, keys and values.
    peers : who can compute it. less : what they leave out, if they do.
    plain : the row that leaves scores as they are, and else has the same shape.
    products : how many products each tile makes.
    """

    name: str
    example: str
    batch: int
    heads: int
    n: int
    d: int
    group: int = 1
    parameters: Mapping[str, float] = field(default_factory=dict)
    peers: tuple[str, ...] = ("flex", "flex-tuned")
    less: str = ""
    plain: str = ""
    products: int = 2

    @property
    def pairs(self) -> int:
        """The number of pairs of query and key that exist, in one head."""
        if self.example in FULL:
            return self.n**2
        width = min(int(self.parameters.get("W", self.n)), self.n)
        return width * (width + 1) // 2 + (self.n - width) * width

    @property
    def flops(self) -> int:
        """Operations of the products over existing pairs; a multiplication and an addition."""
        return 2 * self.products * self.batch * self.heads * self.pairs * self.d


SDPA = ("sdpa-flash", "sdpa-cudnn")
FLEX = ("flex", "flex-tuned")


CAUSAL = {"plain": "causal"}


def _row(name: str, example: str, n: int, d: int, **more: object) -> Row:
    shape = f"d{d}-n{n}"
    sizes = {"batch": max(1, TOKENS // n), "heads": HEADS[d], **more}
    sizes["plain"] = f"{sizes['plain']}-{shape}" if "plain" in sizes else ""
    return Row(f"{name}-{shape}", example, n=n, d=d, **sizes)  # type: ignore[arg-type]


ROWS: tuple[Row, ...] = (
    *(
        _row(name, example, n, d, peers=SDPA + FLEX)
        for d in (64, 128, 256)
        for name, example in (("full", "attention"), ("causal", "causal"))
        for n in (1024, 4096, 16384)
    ),
    _row("window", "sliding_window", 32768, 128, parameters={"W": 1024}),
    _row("gqa", "gqa", 4096, 128, heads=32, group=4, parameters={"G": 4}, peers=SDPA + FLEX),
    _row("causal", "causal", 8192, 128, peers=SDPA + FLEX),
    *(_row("softcap", "softcap", n, 128, parameters={"cap": 50.0}, **CAUSAL) for n in (4096, 8192)),
    _row("alibi", "alibi", 4096, 128, **CAUSAL),
    _row("sigmoid", "sigmoid", 4096, 128, peers=(), plain="full"),
    _row("entropy", "entropy", 4096, 128, less="peers give O and LSE, and no entropy", **CAUSAL),
    *(
        _row("differential", "differential", 4096, d, products=4, peers=SDPA + FLEX, **CAUSAL)
        for d in (64, 128)
    ),
)

BACKWARD_ROWS: tuple[Row, ...] = (
    *(
        _row(name, example, 4096, d, peers=SDPA + FLEX[:1])
        for d in (64, 128)
        for name, example in (("full", "attention"), ("causal", "causal"))
    ),
    _row("gqa", "gqa", 4096, 128, heads=32, group=4, parameters={"G": 4}, peers=SDPA + FLEX[:1]),
    _row("window", "sliding_window", 16384, 128, parameters={"W": 1024}, peers=FLEX[:1]),
    *(
        _row(name, example, 16384, d, peers=SDPA + FLEX[:1])
        for d in (64, 128)
        for name, example in (("full", "attention"), ("causal", "causal"))
    ),
)
"""Rows of the backward table, each kind once before the long ones: a row takes up to a minute."""


AnyRow = TypeVar("AnyRow", bound=Row)


def select(rows: Sequence[AnyRow], patterns: Sequence[str]) -> tuple[AnyRow, ...]:
    """Return the rows whose name matches one of the shell patterns, in the order of the table.

    Raises ValueError for a pattern that matches nothing.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatch(row.name, pattern) for row in rows):
            names = ", ".join(row.name for row in rows)
            raise ValueError(f"no row matches {pattern!r}; there are {names}")
    return tuple(r for r in rows if any(fnmatch.fnmatch(r.name, p) for p in patterns))
