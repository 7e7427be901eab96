"""The gradients' table: the error of each derived gradient beside those of others, in one run.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.gradient_errors --out results
    python -m einfall.examples.benchmarks.gradient_errors --rows sink alibi --tokens 260 1024

Every gradient is compared with that of the dense formula in float64, in the L2 norm relative to it,
and so is FlexAttention's, where it has words for the variant, and that of the dense formula in the
tensors' own dtype. All start from the same tensors, and from the same gradients of the outputs.
Rows are measured side by side in processes, for most of the time goes to compilation.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import einfall
from einfall.examples.benchmarks import peers
from einfall.examples.benchmarks.gradient_rows import ROWS, Formula, Row, inputs
from einfall.examples.benchmarks.report import OURS, machine

FLEX, DENSE = "FlexAttention", "dense"
BOUND = 2.0
"""Our error over a peer's above which the command fails."""

Errors = dict[str, float]


@dataclass(frozen=True, slots=True)
class Found:
    """Errors of a row's gradients by who made them and by the tensor, and who refused."""

    row: str
    dtype: str
    tokens: int
    errors: dict[str, Errors] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)

    @property
    def peer(self) -> str:
        """FlexAttention where it has the row, else the dense formula."""
        return FLEX if FLEX in self.errors else DENSE

    def ratios(self, peer: str) -> Errors:
        """Return our errors over a peer's, for each tensor."""
        ours, theirs = self.errors.get(OURS, {}), self.errors.get(peer, {})
        return {name: x / theirs[name] for name, x in ours.items() if name in theirs}

    @property
    def held(self) -> bool:
        """Whether something of ours was measured, and nothing is above the bound."""
        return OURS in self.errors and all(x <= BOUND for x in self.ratios(self.peer).values())


def seeds(
    row: Row, tensors: Sequence[Tensor], parameters: Mapping[str, Any], seed: int = 1
) -> list[Tensor]:
    """Return random gradients of the outputs, as the tensors' dtype has them."""
    outputs = row.formula(tuple(tensors), parameters)
    draw = torch.Generator().manual_seed(5 * seed)
    made = (torch.randn(x.shape, generator=draw) for x in outputs)
    return [x.to(tensors[0].device, tensors[0].dtype) for x in made]


def gradients(
    call: Formula, tensors: Sequence[Tensor], parameters: Mapping[str, Any], given: Sequence[Tensor]
) -> list[Tensor]:
    """Return the gradients of all real tensors from those of the outputs."""
    read = [x.detach().requires_grad_(x.is_floating_point()) for x in tensors]
    outputs = call(tuple(read), parameters)
    wanted = [x for x in read if x.requires_grad]
    along = [d.to(x.dtype) for x, d in zip(outputs, given, strict=True)]
    return list(torch.autograd.grad(outputs, wanted, along))


def ours(row: Row) -> Formula:
    """Return the compiled cascade as a formula."""
    f = einfall.compile(row.cascade, backend="triton")

    def call(tensors: tuple[Tensor, ...], parameters: Mapping[str, Any]) -> tuple[Tensor, ...]:
        found = f(*tensors, **parameters)
        return found if isinstance(found, tuple) else (found,)

    return call


def flex(row: Row) -> Formula:
    """Return FlexAttention with a row's mask and score."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    functions = row.functions
    assert functions is not None
    peers.begin()
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)

    def call(tensors: tuple[Tensor, ...], parameters: Mapping[str, Any]) -> tuple[Tensor, ...]:
        Q, K, V = tensors[:3]
        mask, score = functions(tensors, parameters)
        options: dict[str, Any] = {"score_mod": score, "enable_gqa": Q.shape[1] > K.shape[1]}
        if mask is not None:
            sizes = (Q.shape[0], Q.shape[1], Q.shape[2], K.shape[2])
            options["block_mask"] = create_block_mask(mask, *sizes, device=str(Q.device))
        if row.after is None:
            return (compiled(Q, K, V, **options),)
        out, more = compiled(Q, K, V, **options, **peers.with_lse())
        return (row.after(out, getattr(more, "lse", more), tensors),)

    return call


def measure(row: Row, tokens: int, dtype: str, device: str = "cuda", draws: int = 1) -> Found:
    """Compute all gradients of a row by everybody, and compare them with float64.

    Of several draws errors and gradients are added up, squared: a gradient of few numbers, each a
    sum over all pairs, has an error that one draw says little about.
    """
    who: dict[str, Any] = {OURS: ours(row), DENSE: row.formula}
    if row.functions is not None and device == "cuda":
        who[FLEX] = flex(row)
    found = Found(row.name, dtype, tokens)
    apart: dict[tuple[str, str], float] = {}
    whole: dict[str, float] = {}
    for seed in range(1, draws + 1):
        tensors, parameters = inputs(row, tokens, getattr(torch, dtype), device, seed)
        given = seeds(row, tensors, parameters, seed)
        wide = [x.double() if x.is_floating_point() else x for x in tensors]
        expected = gradients(row.formula, wide, parameters, given)
        real = (x.is_floating_point() for x in tensors)
        names = [n for n, kept in zip(row.cascade.inputs, real, strict=True) if kept]
        for name, y in zip(names, expected, strict=True):
            whole[name] = whole.get(name, 0.0) + float(y.square().sum())
        for name, call in who.items():
            try:
                made = gradients(call, tensors, parameters, given)
            except Exception as error:  # whatever stops one of them must not stop the others
                why = str(error).splitlines()[0][:200]
                found.refusals[name] = f"{type(error).__name__}: {why}"
                continue
            for n, x, y in zip(names, made, expected, strict=True):
                square = float((x.double() - y).square().sum())
                apart[name, n] = apart.get((name, n), 0.0) + square
    for name in who:
        if name not in found.refusals:
            found.errors[name] = {n: (apart[name, n] / x) ** 0.5 for n, x in whole.items()}
    return found


def job(name: str, tokens: int, dtype: str, draws: int) -> Found:
    """Measure a row by name, in a process of its own."""
    torch.set_num_threads(1)
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    (row,) = (row for row in ROWS if row.name == name)
    return measure(row, tokens, dtype, draws=draws)


def text(results: Sequence[Found]) -> str:
    """Return a table in markdown: our errors, and over those of the peers in brackets."""
    lines = [
        "| | dtype | tokens | gradients: error (/ FlexAttention's, / dense) |",
        "|---|---|---|---|",
    ]
    for found in results:
        over = {who: found.ratios(who) for who in (FLEX, DENSE)}
        cells = []
        for name, error in found.errors.get(OURS, {}).items():
            shown = (f"{over[who][name]:.2f}" if name in over[who] else "-" for who in over)
            cells.append(f"{name} {error:.1e} ({', '.join(shown)})")
        mark = "" if found.held else " **"
        row = (found.row + mark, found.dtype, str(found.tokens), "; ".join(cells))
        lines.append(f"| {' | '.join(row)} |")
    refused = [
        f"- {found.row}, {found.dtype}, {who}: {why}"
        for found in results
        for who, why in found.refusals.items()
    ]
    return "\n".join([*lines, *([""] if refused else []), *refused])


def write(results: Sequence[Found], folder: Path) -> None:
    """Write ``gradients.json`` and ``gradients.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    about = machine()
    data = {"machine": about, "results": [asdict(x) for x in results]}
    (folder / "gradients.json").write_text(json.dumps(data, indent=1) + "\n")
    heading = "# Gradients\n\n" + "; ".join(f"{name} {value}" for name, value in about.items())
    says = (
        "Relative errors against float64 in the L2 norm. In brackets, ours over FlexAttention's"
        " (- where it has no words for the variant) and over the dense formula's in the same dtype."
    )
    (folder / "gradients.md").write_text(f"{heading}\n\n{says}\n\n{text(results)}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 if an error of ours is above twice the peer's."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description="gradients: errors beside those of peers")
    parser.add_argument("--rows", nargs="+", default=names, choices=names)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[260])
    parser.add_argument("--draws", type=int, default=4, help="random tensors to measure over")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--out", type=Path, help="folder for gradients.json and gradients.md")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("a GPU is needed")
    jobs = [(n, t, d) for t in options.tokens for d in options.dtypes for n in options.rows]
    start = time.perf_counter()
    results: list[Found] = []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(job, *x, options.draws) for x in jobs]):
            results.append(done.result())
            print(text(results[-1:]).split("\n", 2)[2], flush=True)
            if options.out:
                write(results, options.out)
    results.sort(key=lambda x: jobs.index((x.row, x.tokens, x.dtype)))
    if options.out:
        write(results, options.out)
    print(f"\n{text(results)}\n{time.perf_counter() - start:.0f} s")
    return int(not all(x.held for x in results))


if __name__ == "__main__":
    sys.exit(main())
