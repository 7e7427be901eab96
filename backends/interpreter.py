"""The interpreter: what a cascade means, in numpy and float64.

Every pass and every kernel is right when it agrees with this file. It follows the docstring of
``ir/cascade.py`` (EDGE, arXiv 2404.11591, narrowed) and does nothing clever: einsum after einsum,
each as arrays over its iteration space, with a mask where points are absent. Only three things are
done for size and speed: a sum of a product is a chain of matrix products, a large iteration space
is computed in blocks, and a tensor is dropped after its last use.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, Literal

import numpy

from ..ir.cascade import Cascade, Einsum, Scalar, check_cascade
from ..ir.errors import ShapeError
from ..ir.expression import Concatenate, Expression, Populate, RankVariable, free_ranks
from ..ir.scalar import scalar
from ..ir.sizes import bind_parameters, rank_sizes, tensor_shape
from .arguments import check_count
from .interpreter_expression import evaluate_expression, keeps, space_elements
from .interpreter_order import Loop, execution_order
from .interpreter_selection import evaluate_selection
from .interpreter_space import Bindings, Present, Space, both, dense, shrink
from .interpreter_unique import check_lists, unique_lists
from .numpy_operators import Array

Numbers = Literal["float64", "declared"]

BLOCK = 2**23
"""How many elements a temporary array may have before an einsum is computed in blocks: 64 MB."""


def interpret(
    cascade: Cascade,
    *tensors: Any,
    sizes: Mapping[str, int] | None = None,
    dtype: Numbers = "float64",
    **parameters: Scalar,
) -> Any:
    """Run a cascade on tensors in the order of its ``def``; numpy and torch tensors alike.

    Returns a numpy array, or a tuple in the order of ``return``; absent points hold 0. ``sizes``
    gives ranks that no argument shows. ``dtype="declared"`` computes in float32 where every real
    argument is float16, bfloat16 or float32, and rounds real results to the arguments' common dtype
    (bfloat16 values come as float32, which numpy has).

    Raises ShapeError where arguments do not fit the declaration.
    """
    check_cascade(cascade, "interpret")
    check_count(cascade, tensors, parameters)
    arrays = {name: _array(name, x) for name, x in zip(cascade.inputs, tensors, strict=True)}
    declared = [_declared(x) for x in tensors]
    computed = _run(cascade, arrays, parameters, sizes, dtype, BLOCK, frozenset(cascade.outputs))
    results = tuple(_result(computed[name]) for name in cascade.outputs)
    if dtype == "declared":
        results = tuple(_rounded(x, declared) for x in results)
    return results[0] if len(results) == 1 else results


def evaluate(
    cascade: Cascade,
    tensors: Mapping[str, Array | Present],
    parameters: Mapping[str, Scalar] | None = None,
    sizes: Mapping[str, int] | None = None,
    dtype: Numbers = "float64",
    block: int = BLOCK,
) -> dict[str, Present]:
    """Run a cascade and return every tensor, inputs too, with the points that exist.

    An input may be ``Present``, if it has absent points itself. ``block`` is the number of elements
    from which on an iteration space is computed in blocks. Raises ShapeError as ``interpret`` does.
    """
    return _run(cascade, tensors, parameters or {}, sizes, dtype, block, None)


def _run(
    cascade: Cascade,
    tensors: Mapping[str, Array | Present],
    parameters: Mapping[str, Scalar],
    sizes: Mapping[str, int] | None,
    dtype: Numbers,
    block: int,
    keep: frozenset[str] | None,
) -> dict[str, Present]:
    """Run a cascade; keep the tensors of ``keep``, or all."""
    if dtype not in ("float64", "declared"):
        raise ShapeError(f'dtype is "float64" or "declared"; {dtype!r} given.')
    given = {
        n: x if isinstance(x, Present) else Present(numpy.asarray(x)) for n, x in tensors.items()
    }
    reals = [x.values.dtype for x in given.values() if x.values.dtype.kind == "f"]
    single = dtype == "declared" and bool(reals) and all(x.itemsize <= 4 for x in reals)
    real = numpy.dtype(numpy.float32 if single else numpy.float64)
    shapes = {name: x.values.shape for name, x in given.items()}
    bindings = Bindings(
        {name: Present(dense(x.values, real), x.present) for name, x in given.items()},
        bind_parameters(cascade, parameters),
        rank_sizes(cascade, shapes, parameters, sizes),
        real,
        unique_lists(cascade),
    )
    steps = execution_order(cascade)
    last = {name: position for position, step in enumerate(steps) for name in _names(step)}
    with numpy.errstate(all="ignore"):
        for position, step in enumerate(steps):
            _step(cascade, step, {}, bindings, block)
            for name in {name for name in _names(step) if last[name] == position}:
                if keep is not None and name not in keep:
                    del bindings.tensors[name]
                else:
                    found = bindings.tensors[name]
                    bindings.tensors[name] = Present(found.filled(), shrink(found.present))
    return bindings.tensors


def _names(step: Einsum | Loop) -> set[str]:
    if isinstance(step, Einsum):
        return {step.name, *step.reads}
    return {name for inner in step.steps for name in _names(inner)}


def _step(
    cascade: Cascade,
    step: Einsum | Loop,
    fixed: Mapping[str, int],
    bindings: Bindings,
    block: int,
) -> None:
    if isinstance(step, Loop):
        for einsum in _einsums(step):
            _allot(cascade, einsum, bindings)
        generations = range(bindings.sizes[step.rank])
        for generation in reversed(generations) if step.backward else generations:
            for inner in step.steps:
                _step(cascade, inner, {**fixed, step.rank: generation}, bindings, block)
        return
    check_lists(step, bindings.unique, bindings)
    whole = {rank: numpy.arange(bindings.sizes[rank]) for rank in step.ranks}
    space = Space({**whole, **{rank: numpy.array([i]) for rank, i in fixed.items()}})
    space = Space({rank: space.coordinates[rank] for rank in step.ranks})
    computed = _blocked(step, space, bindings, block)
    writers = sum(einsum.name == step.name for einsum in cascade.einsums)
    plain = all(isinstance(c, RankVariable) for c in step.output.coordinates)
    if plain and writers == 1 and not fixed:
        bindings.tensors[step.name] = computed
        return
    tensor = _allot(cascade, step, bindings)
    assert tensor.present is not None
    region = tuple(_written(c, space, bindings) for c in step.output.coordinates)
    constants = tuple(a for a, c in enumerate(step.output.coordinates) if not free_ranks(c))
    values = numpy.expand_dims(computed.values, constants)
    if values.dtype != tensor.values.dtype:
        kind = numpy.result_type(values, tensor.values)
        kind = bindings.real if kind.kind == "f" else kind
        tensor = Present(tensor.values.astype(kind), tensor.present)
        bindings.tensors[step.name] = tensor
    tensor.values[region] = values
    assert tensor.present is not None
    mask = True if computed.present is None else numpy.expand_dims(computed.present, constants)
    tensor.present[region] = mask


def _einsums(step: Einsum | Loop) -> Iterator[Einsum]:
    if isinstance(step, Einsum):
        yield step
    else:
        for inner in step.steps:
            yield from _einsums(inner)


def _allot(cascade: Cascade, einsum: Einsum, bindings: Bindings) -> Present:
    """Return a tensor that is written part by part: nothing of it exists at first."""
    if einsum.name not in bindings.tensors:
        shape = tensor_shape(cascade, einsum.name, bindings.sizes)
        nothing = numpy.zeros(shape, bool)
        bindings.tensors[einsum.name] = Present(numpy.zeros(shape, bool), nothing)
    return bindings.tensors[einsum.name]


def _written(coordinate: Expression, space: Space, bindings: Bindings) -> slice:
    """Return where an output coordinate writes: a rank's coordinates, shifted, or one place."""
    ranks = free_ranks(coordinate)
    if not ranks:
        place = scalar(coordinate, bindings.sizes, bindings.parameters)
        assert place is not None
        return slice(int(place), int(place) + 1)
    where = space.coordinates[ranks[0]]
    shift = 0 if isinstance(coordinate, RankVariable) else 1
    first = int(where[0]) + shift if len(where) else shift
    return slice(first, first + len(where))


def _blocked(einsum: Einsum, space: Space, bindings: Bindings, block: int) -> Present:
    """Compute an einsum over a space, block by block over its first ranks where that is large."""
    shape = space.shape
    parts = list(_blocks(einsum, space, bindings, block))
    if len(parts) == 1:
        found = _compute(einsum, space, bindings)
        return Present(
            numpy.ascontiguousarray(numpy.broadcast_to(found.values, shape)).reshape(shape),
            found.present,
        )
    values: Array | None = None
    masks: list[tuple[tuple[slice, ...], Array]] = []
    for region in parts:
        cut = {r: c[s] for (r, c), s in zip(space.coordinates.items(), region, strict=True)}
        found = _compute(einsum, Space(cut), bindings)
        if values is None:
            values = numpy.empty(shape, found.values.dtype)
        elif values.dtype != found.values.dtype:
            values = values.astype(numpy.result_type(values, found.values))
        values[region] = found.values
        one = numpy.ones((1,) * len(shape), bool)
        masks.append((region, one if found.present is None else found.present))
    assert values is not None
    if all(mask.size == 1 and mask.all() for _, mask in masks):
        return Present(values)
    # Presence keeps length 1 along ranks in which no block varies and none was cut.
    varies = [
        any(mask.shape[axis] != 1 or region[axis] != masks[0][0][axis] for region, mask in masks)
        for axis in range(len(shape))
    ]
    present = numpy.empty([n if v else 1 for n, v in zip(shape, varies, strict=True)], bool)
    for region, mask in masks:
        place = tuple(s if v else slice(0, 1) for s, v in zip(region, varies, strict=True))
        present[place] = mask
    return Present(values, shrink(present))


def _blocks(
    einsum: Einsum, space: Space, bindings: Bindings, block: int
) -> Iterable[tuple[slice, ...]]:
    """Cut the first ranks so that no temporary has more than ``block`` elements, if that helps."""
    asked = {**bindings.sizes, **{r: len(c) for r, c in space.coordinates.items()}}
    whole: set[str] = set()
    match einsum.body:
        case Populate():
            whole = set(einsum.ranks) - set(free_ranks(einsum.body))
        case Concatenate(rank=rank):
            whole = {rank}
    expressions = [einsum.body] + ([] if einsum.filter is None else [einsum.filter])
    if isinstance(einsum.body, Populate):
        populate = einsum.body
        expressions = [populate.body, populate.argument]
        expressions += [x for x in (populate.forced, populate.forbidden) if x is not None]
    steps = dict(asked)
    for rank in space.ranks:
        largest = max(space_elements(x, steps) for x in expressions)
        if largest <= block:
            break
        if rank not in whole:
            steps[rank] = max(1, steps[rank] * block // largest)
    cuts = [
        [slice(start, min(start + steps[rank], n)) for start in range(0, n, max(steps[rank], 1))]
        or [slice(0, 0)]
        for rank, n in zip(space.ranks, space.shape, strict=True)
    ]
    return product(*cuts)


def _compute(einsum: Einsum, space: Space, bindings: Bindings) -> Present:
    """Compute an einsum over a space: body, then filter."""
    if isinstance(einsum.body, Populate):
        found = evaluate_selection(einsum.body, space, bindings)
    else:
        found = evaluate_expression(einsum.body, space, bindings)
    kept = keeps(einsum.filter, space, bindings)
    return Present(found.values, shrink(both(found.present, kept)))


def _declared(x: Any) -> str:
    """Return the name of a tensor's dtype, e.g. ``bfloat16``."""
    dtype = x.dtype if hasattr(x, "dtype") else numpy.asarray(x).dtype
    return str(dtype).removeprefix("torch.")


def _array(name: str, x: Any) -> Array:
    """Return a numpy array of a numpy or torch tensor; bfloat16, which numpy lacks, as float32."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.Tensor):
        return numpy.asarray(x)
    try:
        x = x.detach().cpu()
        if x.is_floating_point() and x.dtype not in (torch.float16, torch.float32, torch.float64):
            x = x.float()
        return numpy.asarray(x.resolve_neg().numpy())
    except (RuntimeError, TypeError) as error:  # without data, sparse, nested, of a transform
        raise ShapeError(
            f"the interpreter takes tensors that numpy can hold, and {name} is none: {error}"
        ) from None


def _result(x: Present) -> Array:
    return numpy.array(x.filled(), order="C")


def _rounded(x: Array, declared: list[str]) -> Array:
    """Round a real result to the common dtype of the real arguments."""
    reals = {name for name in declared if "float" in name}
    if x.dtype.kind != "f" or not reals:
        return x
    if reals == {"bfloat16"}:
        # Round to nearest, ties to even, on the upper half of the bits.
        bits = x.astype(numpy.float32).view(numpy.uint32)
        odd = (bits >> 16) & 1
        rounded = ((bits + 0x7FFF + odd) & 0xFFFF0000).view(numpy.float32)
        return numpy.where(numpy.isnan(x), x.astype(numpy.float32), rounded)
    common = numpy.result_type(*("float32" if name == "bfloat16" else name for name in reals))
    return x.astype(common)
