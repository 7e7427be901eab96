"""The outputs table: what it takes to return more than the weighted sums, in times of them alone.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.outputs
    python -m einfall.examples.benchmarks.outputs --kinds columns place --n 8192

Every kind is compared with float64 at a length that float64 has room for, then all kinds are timed
in turn at the length asked for. The cascades differ in what they return, and in nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import einfall
from einfall.examples.benchmarks.rounds import in_turn

ALONE = "O"
"""The kind that the others are compared with."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is returned beside O: its lines of the cascade, and the names that they define."""

    lines: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    ALONE: Kind(),
    "logarithm": Kind(("L[b, h, p] = logsumexp[m](S[b, h, p, m])",), ("L",)),
    "place": Kind(("J[b, h, p] = argmax[m](S[b, h, p, m])",), ("J",)),
    "entropy": Kind(
        (
            "L[b, h, p] = logsumexp[m](S[b, h, p, m])",
            "H[b, h, p] = sum[m](A[b, h, p, m] * (L[b, h, p] - S[b, h, p, m]))",
        ),
        ("L", "H"),
    ),
    "columns": Kind(("C[b, h, m] = sum[p](A[b, h, p, m])",), ("C",)),
    "columns of all heads": Kind(("T[b, m] = sum[h, p](A[b, h, p, m])",), ("T",)),
    "diagonals": Kind(
        ("X[b, h, d: d < size(m)] = sum[p, m: p - m == d](A[b, h, p, m])",),
        ("X",),
    ),
}
MASKS = {"causal": ": m <= p", "full": ""}
CHECKED = 1024
"""Rows and keys at which results are compared with float64."""


def declared(kind: str, mask: str) -> einfall.Cascade:
    """Return the cascade of a kind: Q[b, h, p, e], K[b, h, m, e], V[b, h, m, f]."""
    more = KINDS[kind]
    lines = (
        f"S[b, h, p, m{MASKS[mask]}] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))",
        "A[b, h, p, m] = softmax[m](S[b, h, p, m])",
        "O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]",
        *more.lines,
        f"return {', '.join(('O', *more.names))}",
    )
    return einfall.cascade("def outputs(Q, K, V):\n" + "".join(f"    {x}\n" for x in lines))


def reference(Q: Tensor, K: Tensor, V: Tensor, mask: str) -> dict[str, Tensor]:
    """Return every output by name, in float64."""
    S = Q.double() @ K.double().mT / math.sqrt(Q.shape[-1])
    if mask == "causal":
        S = S.masked_fill(torch.ones_like(S, dtype=torch.bool).triu(1), -math.inf)
    A, L = torch.softmax(S, -1), torch.logsumexp(S, -1)
    H = (A * torch.where(A > 0, L[..., None] - S, 0.0)).sum(-1)
    C = A.sum(-2)
    p = torch.arange(A.shape[-1], device=A.device)
    apart = p[:, None] - p
    X = torch.where(apart >= 0, A.gather(-1, apart.clamp(min=0).expand_as(A)), 0.0).sum(-2)
    found = {"O": A @ V.double(), "L": L, "J": S.argmax(-1), "H": H, "C": C}
    return found | {"T": C.sum(1), "X": X}


def draw(heads: int, n: int, features: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return random queries, keys and values of one sequence."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    Q, K, V = (torch.randn(1, heads, n, features, device=device).to(dtype) for _ in "QKV")
    return Q, K, V


def errors(kind: str, mask: str, tensors: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    """Return the relative error of each output; of places, the share that names another key."""
    found = einfall.compile(declared(kind, mask), backend="triton")(*tensors)
    names = ("O", *KINDS[kind].names)
    outputs = dict(zip(names, found if isinstance(found, tuple) else (found,), strict=True))
    expected = reference(*tensors, mask)
    apart = {}
    for name, x in outputs.items():
        y = expected[name]
        if x.dtype.is_floating_point:
            apart[name] = float((x.double() - y).norm() / y.norm())
        else:
            apart[name] = float((x != y).double().mean())
    return apart


def measure(
    kinds: Sequence[str], mask: str, sizes: tuple[int, int, int], rounds: int, rep: int
) -> list[dict[str, Any]]:
    """Check, then time all kinds in turn; ``sizes`` are heads, length and features."""
    heads, n, features = sizes
    apart = {k: errors(k, mask, draw(heads, min(n, CHECKED), features, "cuda")) for k in kinds}
    tensors = draw(heads, n, features, "cuda")
    calls = {}
    for kind in kinds:
        f = einfall.compile(declared(kind, mask), backend="triton")
        f(*tensors)
        calls[kind] = lambda f=f: f(*tensors)
    times = {k: median(x) for k, x in in_turn(calls, rounds, rep).items()}
    alone = times.get(ALONE, math.nan)
    return [
        {"mask": mask, "kind": k, "ms": t, "times": t / alone, "errors": apart[k]}
        for k, t in times.items()
    ]


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table in markdown."""
    lines = ["| mask | beside O | ms | times O alone | errors |", "|---|---|---|---|---|"]
    for row in rows:
        shown = ", ".join(f"{n} {x:.1e}" for n, x in row["errors"].items())
        kind = "nothing" if row["kind"] == ALONE else row["kind"]
        cells = (row["mask"], kind, f"{row['ms']:.3f}", f"{row['times']:.2f}", shown)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="outputs beside O, in times of O alone")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--masks", nargs="+", default=list(MASKS), choices=list(MASKS))
    parser.add_argument("--n", type=int, default=16384)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rep", type=int, default=40, help="milliseconds of each timing")
    parser.add_argument("--out", type=Path, help="folder for outputs.json and outputs.md")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("a GPU is needed")
    kinds = list(dict.fromkeys((ALONE, *options.kinds)))
    sizes = (options.heads, options.n, options.features)
    rows: list[dict[str, Any]] = []
    for mask in options.masks:
        found = measure(kinds, mask, sizes, options.rounds, options.rep)
        print(text(found), flush=True)
        rows += found
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        about = f"{torch.cuda.get_device_name()}, {sizes[0]} heads, {sizes[1]} rows and keys"
        title = f"# Outputs beside O\n\n{about}, {sizes[2]} features, bfloat16.\n\n"
        (options.out / "outputs.md").write_text(f"{title}{text(rows)}\n")
        (options.out / "outputs.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
