"""The selections' table: what kernels choose beside what float64 chooses from the same tensors.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.selection_errors --out results
    python -m einfall.examples.benchmarks.selection_errors --rows topk_blocks-4096

Every list of a cascade is compared as a set, and where numbers are whole, and computed without
rounding, as it stands: of equal numbers the first ones are to be chosen. A list that is made by
way of other lists is compared with what the interpreter makes of those that the kernels made.

Where lists differ, members that one has and the other has not should be near the bound: nearer than
rounding moves numbers. The distance is told in units of the tensors' precision (1 / 128 in
bfloat16): for the k greatest, from the last of them, over the row's greatest magnitude; for what is
above a bound, over the bound; for what holds a mass, what both hold, over the mass.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

import einfall
from einfall.examples.benchmarks.report import machine
from einfall.examples.benchmarks.selection_rows import ROWS, Row, inputs, length_of
from einfall.ir.cascade import Cascade, Einsum
from einfall.ir.expression import Access, Apply, Constant, Populate, RankVariable, Reduce
from einfall.ir.selection import count_ranks, selections
from einfall.ir.sizes import rank_sizes

Array = NDArray[Any]

BOUND = 4.0
"""Units of precision, at most, between the bound and a member that only one list has."""

INFINITY = Constant(float("inf"))


@dataclass(frozen=True, slots=True)
class Found:
    """How the lists of one selection differ from float64's.

    ``rows`` lists of ``members`` in all; ``differing`` of them are other sets, by ``strangers``
    members that only one side has, at most ``distance`` units of precision from the bound.
    """

    row: str
    selection: str
    rows: int
    members: int
    differing: int
    strangers: int
    distance: float
    whole: bool = False

    @property
    def held(self) -> bool:
        """Whether no difference is more than rounding explains."""
        return not self.differing if self.whole else self.distance <= BOUND


def judged(cascade: Cascade, einsum: Einsum) -> Cascade:
    """Return the part of a cascade that chooses, with the numbers and the bound of each row.

    Other lists become arguments. Members that are forced are given an infinite number, what cannot
    be chosen minus infinity.
    """
    body = einsum.body
    assert isinstance(body, Populate)
    lists = {e.name for e in selections(cascade.einsums)}
    number: Any = Apply("default", (body.body, Apply("neg", (INFINITY,))))
    bound = Reduce("max", (body.rank,), Apply("where", (Constant(True), body.argument, number)))
    if body.forced is not None:
        number = Apply("where", (body.forced, INFINITY, number))
    rows = tuple(RankVariable(r) for r in count_ranks(einsum))
    made = (
        length_of(einsum),
        Einsum(Access("Number_compared", (*rows, RankVariable(body.rank))), number),
        Einsum(Access("Bound_compared", rows), bound),
    )
    kept: list[Einsum] = []
    wanted = {einsum.name, *(t for e in made for t in e.reads)}
    for e in reversed(cascade.einsums):
        if e.name in wanted and (e.name not in lists or e.name == einsum.name):
            kept.insert(0, e)
            wanted |= set(e.reads)
    read = {t for e in (*kept, *made) for t in e.reads}
    given = [n for n in (*cascade.inputs, *sorted(lists - {einsum.name})) if n in read]
    outputs = (einsum.name, *(e.name for e in made))
    return replace(cascade, inputs=tuple(given), einsums=(*kept, *made), outputs=outputs)


def ended(lists: Array, lengths: Array) -> Array:
    """Return lists with -1 behind their members."""
    return numpy.where(numpy.arange(lists.shape[-1]) < lengths[..., None], lists, -1)


def sets(lists: Array, size: int) -> Array:
    """Return who is a member of each list, of numbers below a size."""
    found = numpy.zeros((*lists.shape[:-1], size + 1), bool)
    numpy.put_along_axis(found, numpy.where(lists < 0, size, lists).astype(numpy.int64), True, -1)
    return found[..., :size]


def distance(body: Populate, ours: Array, theirs: Array, number: Array, bound: Array) -> float:
    """Return how far from the bound of a row the members lie that one set alone has, at most."""
    finite = numpy.where(numpy.isfinite(number), number, 0.0)
    if body.selector == "topk":
        last = numpy.where(theirs, number, numpy.inf).min(-1)
        by, scale = numpy.abs(finite - last[..., None]), numpy.abs(finite).max(-1)
    elif body.selector == "threshold":
        by, scale = numpy.abs(finite - bound[..., None]), numpy.abs(bound)
    else:
        by = numpy.abs(((ours * finite).sum(-1) - (theirs * finite).sum(-1))[..., None])
        scale = numpy.abs(bound)
    apart = numpy.where(ours != theirs, by, 0.0).max(-1)
    return float((apart / numpy.where(apart > 0, scale, 1.0)).max())


def compare(
    row: Row, einsum: Einsum, tensors: dict[str, Array], parameters: dict[str, Any], unit: float
) -> Found:
    """Compare one selection's lists, ``tensors`` being the arguments and the lists as made."""
    whole, cascade = row.cascade, judged(row.cascade, einsum)
    every = rank_sizes(whole, {n: tensors[n].shape for n in whole.inputs}, parameters)
    sizes = {r: every[r] for r in cascade.ranks}
    given = {n: v for n, v in parameters.items() if n in cascade.parameters_read()}
    cascade = replace(cascade, parameters=tuple(p for p in cascade.parameters if p[0] in given))
    arguments = (tensors[n] for n in cascade.inputs)
    made: tuple[Array, ...] = einfall.interpret(cascade, *arguments, sizes=sizes, **given)
    theirs, number, bound = ended(made[0], made[1]), made[2], made[3]
    ours = tensors[einsum.name]
    size = number.shape[-1]
    mine, other = sets(ours, size), sets(theirs, size)
    differ = (mine != other).any(-1)
    if row.whole:
        slots = min(ours.shape[-1], theirs.shape[-1])
        differ |= (ours[..., :slots] != theirs[..., :slots]).any(-1)
    body = einsum.body
    assert isinstance(body, Populate)
    far = distance(body, mine, other, number, bound) / unit
    strangers = int((mine != other).sum())
    return Found(
        row.name, einsum.name, differ.size, int(other.sum()), int(differ.sum()), strangers, far,
        row.whole,
    )  # fmt: skip


def measure(row: Row, dtype: str = "bfloat16", device: str = "cuda") -> list[Found]:
    """Choose on the device, and compare every list with float64's."""
    made, parameters = inputs(row, dtype)
    cascade = row.cascade
    call = einfall.compile(cascade, backend="triton")
    outputs = call(*(x.to(device) for x in made), **parameters)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    tensors = {n: x.cpu() for n, x in zip(cascade.outputs, outputs, strict=True)}
    tensors |= dict(zip(cascade.inputs, made, strict=True))
    arrays = {n: (x.double() if x.is_floating_point() else x).numpy() for n, x in tensors.items()}
    unit = torch.finfo(getattr(torch, dtype)).eps
    chosen = selections(cascade.einsums)
    for e in chosen:
        arrays[e.name] = ended(arrays[e.name], arrays[length_of(e).name])
    return [compare(row, e, arrays, parameters, unit) for e in chosen]


def job(name: str, dtype: str) -> list[Found]:
    """Measure a row by name, in a process of its own."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    (row,) = (row for row in ROWS if row.name == name)
    return measure(row, dtype)


def text(results: Sequence[Found]) -> str:
    """Return a table in markdown."""
    lines = [
        "| | list | lists | members | other lists | other members | distance from the bound |",
        "|---|---|---|---|---|---|---|",
    ]
    for x in results:
        far = f"{x.distance:.2f}" if x.strangers else "-"
        cells = (
            x.row + ("" if x.held else " **"), x.selection, str(x.rows), str(x.members),
            f"{x.differing} ({100 * x.differing / x.rows:.1f} %)", str(x.strangers), far,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 if a difference is more than rounding explains."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description="selections beside those of float64")
    parser.add_argument("--rows", nargs="+", default=names, choices=names)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--out", type=Path, help="folder for selections.md")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("a GPU is needed")
    start = time.perf_counter()
    results: list[Found] = []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(job, name, options.dtype): name for name in options.rows}
        for done in as_completed(jobs):
            try:
                results += done.result()
            except Exception as error:  # whatever stops one of them must not stop the others
                print(f"{jobs[done]}: {type(error).__name__}: {str(error)[:300]}", flush=True)
                continue
            print(text([x for x in results if x.row == jobs[done]]).split("\n", 2)[2], flush=True)
    results.sort(key=lambda x: names.index(x.row))
    table = text(results)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        about = "; ".join(f"{name} {value}" for name, value in machine().items())
        (options.out / "selections.md").write_text(f"# Selections\n\n{about}\n\n{table}\n")
    print(f"\n{table}\n{time.perf_counter() - start:.0f} s")
    return int(not all(x.held for x in results))


if __name__ == "__main__":
    sys.exit(main())
