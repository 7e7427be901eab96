"""The self-test of a saved file: a small example, and what the float64 interpreter makes of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import networkx
import numpy as np

from ..codegen.layout import WIDTH, lay_out
from ..ir.axes import ranks_of
from ..ir.cascade import Cascade, Scalar
from ..ir.errors import BackendError, EinfallError
from ..ir.expression import Access, Apply, Expression, Populate, RankVariable, Size
from ..ir.interval import interval
from ..ir.scalar import scalar
from ..ir.selection import list_rank, selections
from ..ir.sizes import tensor_shape
from .interpreter import interpret

if TYPE_CHECKING:
    from .lowered import Lowered

TOLERANCE = {"float16": 2e-3, "bfloat16": 1e-2}
"""Error in the L2 norm, relative to the interpreter's; float32, with full-precision dots, 1e-5."""

SAMPLES = 24
"""Expected values kept of each output."""

EXTENT = 4
"""Coordinates along a rank that only the values of another tensor reach."""

SMALL = 1 << 20
"""Elements of an argument in an example that is still small."""


def example(
    lowered: Lowered,
) -> tuple[dict[str, tuple[int, ...]], dict[str, Scalar], dict[str, int]]:
    """Return shapes, parameters and sizes of a small example: a tile and a bit of every rank."""
    cascade, known = lowered.cascade, lowered.known
    tiles = {p.rank: p.tile for k in lowered.mapping.kernels for p in k.partitions}
    static = {r: n for k in lowered.mapping.kernels for r, n in k.static}
    values: dict[str, Scalar] = {n: 1 if v is None else v for n, v in cascade.parameters}
    values |= known.parameters
    odd = (2, 3, 5, 7, 11)
    sizes = {}
    for k, rank in enumerate(cascade.ranks):
        sizes[rank] = static.get(rank, tiles.get(rank, 0) + odd[k % len(odd)])
        if rank not in static and rank not in tiles:
            sizes[rank] = 2 + k % 2
    for condition in lowered.mapping.requires:
        match condition:
            case Apply("==", (Apply("%", (Size(rank=rank), radix)), _)):
                # a rank in whole groups, two of them
                sizes[rank] = 2 * int(scalar(radix, {}, values) or 1)
    sizes = equalised(cascade, sizes, fixed=static)
    for einsum in selections(cascade.einsums):
        if isinstance(einsum.body, Populate):
            # a list is as long as its selection says
            slots = None
            if einsum.body.selector == "topk":
                slots = scalar(einsum.body.argument, sizes, values)
            sizes[list_rank(einsum)] = sizes[einsum.body.rank] if slots is None else int(slots)
    shapes = {t: shape(cascade, t, sizes, values, known.shapes, EXTENT) for t in cascade.inputs}
    return shapes, values, sizes


def equalised(
    cascade: Cascade, sizes: Mapping[str, int], *, fixed: Collection[str]
) -> dict[str, int]:
    """Return sizes in which ranks that stand at one place of an input are equally long.

    A fixed size goes before the others, and a large one before a small one.
    """
    same: networkx.Graph[str] = networkx.Graph()
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            if isinstance(x, Access) and x.tensor in cascade.inputs:
                for c, first in zip(x.coordinates, ranks_of(cascade, x.tensor), strict=False):
                    if isinstance(c, RankVariable) and first is not None and c.rank != first:
                        same.add_edge(first, c.rank)
    found = dict(sizes)
    for group in networkx.connected_components(same):
        size = max((r in fixed, sizes[r]) for r in group)[1]
        found |= dict.fromkeys(group, size)
    return {r: found[r] for r in sizes}


def shape(
    cascade: Cascade,
    tensor: str,
    sizes: Mapping[str, int],
    values: Mapping[str, Scalar],
    known: Mapping[str, tuple[int, ...]],
    otherwise: int,
) -> tuple[int, ...]:
    """Return the shape of an input: by its ranks, or as far as its coordinates reach."""
    ranks = ranks_of(cascade, tensor)
    if None not in ranks:
        return tensor_shape(cascade, tensor, sizes)
    box = {r: (0, n - 1) for r, n in sizes.items()}
    reads = [
        x
        for e in cascade.einsums
        for x in e.expressions()
        if isinstance(x, Access) and x.tensor == tensor
    ]
    extents = []
    for position, rank in enumerate(ranks):
        if rank is not None:
            extents.append(sizes[rank])
            continue
        tops = [reach(x.coordinates[position], box, values, sizes) for x in reads]
        top = max(tops)
        if isfinite(top):
            extents.append(int(top) + 1)
        elif tensor in known:
            extents.append(known[tensor][position])
        else:
            extents.append(otherwise)  # another tensor's values say where
    return tuple(extents)


def reach(
    coordinate: Expression,
    box: Mapping[str, tuple[int, int]],
    values: Mapping[str, Scalar],
    sizes: Mapping[str, int],
) -> float:
    """Return the largest value of a coordinate, at least 0."""
    return max(0.0, float(interval(coordinate, box, parameters=values, sizes=sizes)[1]))


def sample(shape: tuple[int, ...], phase: int, dtype: str) -> Any:
    """Return an input of the example: waves, the same on every machine, rounded to its dtype."""
    import torch

    x = torch.arange(prod(shape), dtype=torch.float64)
    x = torch.sin(x * 0.7381 + phase * phase) * 1.5
    kind: torch.dtype = getattr(torch, dtype)
    if kind == torch.bool:
        return (x > 0).reshape(shape).numpy()
    if not kind.is_floating_point:
        return (x * 2).abs().to(kind).reshape(shape).numpy()
    return x.to(kind).to(torch.float64).reshape(shape).numpy()


def rising(shape: tuple[int, ...], dtype: str) -> Any:
    """Return lists of the example: in each one every number up to its length, once."""
    return np.broadcast_to(np.arange(shape[-1], dtype=dtype), shape).copy()


def self_test(lowered: Lowered) -> Iterator[str]:
    """Yield the functions that compare a run with the interpreter's values."""
    cascade, dtypes = lowered.cascade, lowered.known.dtypes
    shapes, values, sizes = example(lowered)
    large = [t for t, s in shapes.items() if prod(s) > SMALL]
    if large:
        raise BackendError(
            f"{cascade.name} cannot be saved: {large[0]} of shape {shapes[large[0]]} is too large "
            "for a self-test; lower it with smaller parameters"
        )
    tensors = [
        rising(shapes[t], dtypes[t]) if t in cascade.unique else sample(shapes[t], k, dtypes[t])
        for k, t in enumerate(cascade.inputs)
    ]
    try:
        keywords: dict[str, Any] = dict(values)
        found = interpret(cascade, *tensors, sizes=hidden(cascade, sizes), **keywords)
    except EinfallError as error:
        raise BackendError(
            f"{cascade.name} cannot be saved: its self-test has no example ({error})"
        ) from error
    outputs = found if isinstance(found, tuple) else (found,)
    yield from WAVE
    if cascade.unique:
        yield from ("", "", *RISING)
    yield ""
    yield ""
    yield "def test():"
    yield '    """Compare with values of the float64 interpreter, on a small example."""'
    yield '    device = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"'
    yield '    if device == "cuda" and not torch.cuda.is_available():'
    yield '        raise SystemExit("a GPU is needed; TRITON_INTERPRET=1 runs this without")'
    yield "    inputs = ["
    for k, t in enumerate(cascade.inputs):
        if t in cascade.unique:
            yield f"        rising({list(shapes[t])}, torch.{dtypes[t]}, device),"
            continue
        yield f"        wave({list(shapes[t])}, {k}, torch.{dtypes[t]}, device),"
    yield "    ]"
    words = [f"{n}={v!r}" for n, v in values.items()]
    words += [f"size_{r}={sizes[r]}" for r in passed_sizes(lowered)]
    yield from lay_out(f"    found = {cascade.name}({', '.join(['*inputs', *words])})")
    if len(outputs) == 1:
        yield "    found = (found,)"
    worst = max((TOLERANCE.get(d, 1e-5) for d in dtypes.values()), default=1e-5)
    yield "    # of each output: how far apart, and the values there"
    yield "    expected = ("
    for x in outputs:
        flat = np.ravel(np.asarray(x, np.float64))
        step = max(1, len(flat) // SAMPLES)
        yield "        ("
        yield f"            {step},"
        yield from numbers([float(v) for v in flat[::step]], "            ")
        yield "        ),"
    yield "    )"
    yield "    for tensor, (step, values) in zip(found, expected, strict=True):"
    yield "        values = torch.tensor(values, dtype=torch.float64)"
    yield "        got = tensor.double().cpu().flatten()[::step]"
    yield "        there = values.isfinite()"
    yield "        assert torch.equal(got[~there], values[~there]), (got, values)"
    yield "        gap = (got - values)[there].norm() / values[there].norm().clamp(min=1e-30)"
    yield f"        assert gap < {worst!r}, (got, values)"
    yield f'    print("{cascade.name}: agrees with the interpreter")'


WAVE = '''\
def wave(shape, phase, dtype, device):
    """Return an input of the example: the same numbers on every machine."""
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    x = torch.sin(x * 0.7381 + phase * phase) * 1.5
    if dtype == torch.bool:
        return (x > 0).reshape(shape).to(device)
    if not dtype.is_floating_point:
        x = (x * 2).abs()
    return x.to(dtype).reshape(shape).to(device)
'''.splitlines()


RISING = '''\
def rising(shape, dtype, device):
    """Return lists of the example: in each one every number up to its length, once."""
    return torch.arange(shape[-1], dtype=dtype, device=device).expand(shape).contiguous()
'''.splitlines()


def hidden(cascade: Cascade, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes of ranks that no input has as a plain coordinate."""
    plain = {r for t in cascade.inputs for r in ranks_of(cascade, t)}
    return {r: n for r, n in sizes.items() if r not in plain}


def passed_sizes(lowered: Lowered) -> tuple[str, ...]:
    """Return the ranks whose size the launcher takes as an argument."""
    from .save import size_sources

    return size_sources(lowered)[1]


def numbers(values: list[float], indent: str) -> Iterator[str]:
    """Yield a list of numbers, as many a line as a formatter leaves together: one, or all."""
    texts = [repr(v) if isfinite(v) else f'float("{v}")' for v in values]
    line = f"{indent}[{', '.join(texts)}],"
    if len(line) <= WIDTH:
        yield line
        return
    yield f"{indent}["
    yield from (f"{indent}    {text}," for text in texts)
    yield f"{indent}],"
