"""Operators: a compiled cascade as one operator that torch's compiler and exporter see whole.

``torch.compile`` and ``torch.export`` cannot look into a launch, and need not: what they trace is

::

    torch.ops.einfall.cascade(tensors, declaration, parameters, options, wanted) -> Tensor[]
    torch.ops.einfall.cascade_with_gradient(...)     the same, where a gradient will be asked for

The declaration is the cascade's text, as JSON in one line, so a saved graph says what it computes
and runs in another process. ``wanted`` says for each tensor whether its gradient will be asked for.
If any is, what the gradient reads again comes behind the outputs, and the operator's own gradient
is the operator once more, of the cascade that ``passes/differentiate.py`` derives. Shapes and
dtypes of results follow from the declaration alone, sizes may stay symbols.

What torch does for an operator with a gradient takes longer than a launch, so that the other one
has none. An ordinary call takes no part in all this, and pays nothing for it.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..ir.axes import ranks_of
from ..ir.cascade import Cascade, Scalar
from ..ir.dtypes import tensor_dtypes
from ..ir.errors import BackendError
from ..ir.expression import RankVariable, accesses
from ..ir.notation import cascade as declared
from ..ir.sizes import bind_parameters, rank_sizes, tensor_shape
from ..passes.differentiate import gradient
from ..passes.keep import Gradient
from .autograd import fitted, interpreted, twice, widest

if TYPE_CHECKING:
    from .compile import Compiled

KNOWN = 256
"""Declarations that are remembered with what they are compiled to."""


def traced(
    compiled: Compiled, tensors: tuple[Tensor, ...], parameters: Mapping[str, Scalar]
) -> Tensor | tuple[Tensor, ...]:
    """Answer a call while torch traces it; no more than what its compiler follows."""
    given = ";".join([f"{name}={value}" for name, value in parameters.items()])
    learning = torch.is_grad_enabled()
    wanted = [learning and t.requires_grad for t in tensors]
    operators = torch.ops.einfall
    operator = operators.cascade_with_gradient if any(wanted) else operators.cascade
    found = operator(list(tensors), compiled.declaration, given, compiled.options, wanted)
    count = len(compiled.declared.outputs)
    return found[0] if count == 1 else tuple(found[:count])


class Kind(NamedTuple):
    """What results depend on of an argument, besides its sizes."""

    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True, slots=True)
class Answer:
    """How arguments of some kinds are answered.

    dtypes : of the results. kernels : whether it is kernels that run. named : whether a result may
    be an argument, and so another name for its memory.
    """

    part: Compiled
    values: Mapping[str, Scalar]
    dtypes: tuple[torch.dtype, ...]
    kernels: bool
    named: bool


def run(
    tensors: Sequence[Tensor],
    declaration: str,
    parameters: str,
    options: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Compute the outputs, and what the gradient reads again if one is wanted."""
    kinds = tuple([Kind(t.dtype, t.device) for t in tensors])
    known = _answer(declaration, parameters, options, tuple(wanted), kinds)
    if known.kernels:
        found = known.part(*tensors, **known.values)
        found = found if isinstance(found, tuple) else (found,)
    else:
        plain = [t.detach() for t in tensors]
        found = interpreted(known.part.declared, known.values)(*plain)
    pairs = zip(found, known.dtypes, strict=True)
    results = [(x if x.dtype == d else x.to(d)).contiguous() for x, d in pairs]
    return [_own(x, tensors) for x in results] if known.named else results


def shaped(
    tensors: Sequence[Tensor],
    declaration: str,
    parameters: str,
    options: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """Return results of the right shapes and dtypes without values."""
    kinds = tuple([Kind(t.dtype, t.device) for t in tensors])
    known = _answer(declaration, parameters, options, tuple(wanted), kinds)
    shapes = _shapes(known.part.declared, tensors, known.values)
    named = zip(known.part.declared.outputs, known.dtypes, strict=True)
    return [tensors[0].new_empty(shapes[n], dtype=dtype) for n, dtype in named]


def _set_up(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    """Keep what the gradient reads."""
    tensors, declaration, parameters, options, wanted = inputs
    ctx.declaration, ctx.parameters, ctx.options = declaration, parameters, options
    ctx.wanted = tuple(wanted)
    ctx.shapes = [(t.shape, t.dtype) for t in tensors]
    if not any(wanted):
        return
    made = _gradient(declaration, ctx.wanted)
    cascade = _cascade(declaration)
    there = dict(zip(cascade.inputs, tensors, strict=True))
    there |= dict(zip(made.forward.outputs, output, strict=True))
    ctx.names = tuple(n for n in made.backward.inputs if n not in made.seeds)
    ctx.save_for_backward(*(there[n] for n in ctx.names))
    ctx.mark_non_differentiable(*(there[n] for n in made.forward.outputs if n not in made.of))


def _backward(ctx: Any, received: list[Tensor | None]) -> tuple[Any, ...]:
    """Run the cascade of the gradients."""
    if not any(ctx.wanted):
        raise BackendError(twice(_cascade(ctx.declaration).name))
    made = _gradient(ctx.declaration, ctx.wanted)
    saved = dict(zip(ctx.names, ctx.saved_tensors, strict=True))
    outputs = dict(zip(made.forward.outputs, received, strict=True))
    saved |= {seed: outputs[t] for seed, t in zip(made.seeds, made.of, strict=True)}
    part = _function(ctx.declaration, ctx.options).part(made.backward, forward=False)
    read = dict(made.backward.parameters)
    values = ";".join(x for x in ctx.parameters.split(";") if x.partition("=")[0] in read)
    given = [saved[n].contiguous() for n in made.backward.inputs]
    operators = torch.ops.einfall
    # where torch records, the one that says that it has no second derivative
    operator = operators.cascade_with_gradient if torch.is_grad_enabled() else operators.cascade
    gradients = operator(given, one_line(made.backward), values, part.options, [False] * len(given))
    found = dict(zip(made.wrt, gradients, strict=True))
    cascade = _cascade(ctx.declaration)
    shares = [
        fitted(found[n], *at) if n in found else None
        for n, at in zip(cascade.inputs, ctx.shapes, strict=True)
    ]
    return shares, None, None, None, None


SCHEMA = (
    "(Tensor[] tensors, str declaration, str parameters, str options, bool[] wanted) -> Tensor[]"
)

for _name in ("einfall::cascade", "einfall::cascade_with_gradient"):
    torch.library.define(_name, SCHEMA)
    torch.library.impl(_name, "default", run)
    torch.library.register_fake(_name, shaped)
torch.library.register_autograd(_name, _backward, setup_context=_set_up)


def one_line(cascade: Cascade) -> str:
    """Return a cascade's text in one line, as JSON: torch's compilers write it into programs."""
    return json.dumps(str(cascade))


@lru_cache(maxsize=KNOWN)
def _cascade(declaration: str) -> Cascade:
    return declared(json.loads(declaration))


@lru_cache(maxsize=KNOWN)
def _function(declaration: str, options: str) -> Compiled:
    """Return what a declaration is compiled to."""
    from .compile import Compiled

    given = json.loads(options)
    promised = {name: tuple(given[name]) for name in ("inside", "static")}
    return Compiled(_cascade(declaration), **{**given, **promised}, differentiable=False)


@lru_cache(maxsize=KNOWN)
def _answer(
    declaration: str,
    parameters: str,
    options: str,
    wanted: tuple[bool, ...],
    kinds: tuple[Kind, ...],
) -> Answer:
    """Return how arguments of some kinds are answered."""
    whole = _function(declaration, options)
    part = _part(declaration, options, wanted) if any(wanted) else whole
    named = set(part.declared.outputs) & set(part.declared.inputs)
    return Answer(
        part,
        _values(part.declared, parameters),
        tuple(_dtypes(part, kinds, whole.declared.outputs).values()),
        part.on_triton(kinds),
        bool(named),
    )


@lru_cache(maxsize=KNOWN)
def _gradient(declaration: str, wanted: tuple[bool, ...]) -> Gradient:
    """Return the gradient for the inputs that are wanted; what it keeps depends on no length."""
    cascade = _cascade(declaration)
    return gradient(cascade, wrt=[n for n, w in zip(cascade.inputs, wanted, strict=True) if w])


@lru_cache(maxsize=KNOWN)
def _part(declaration: str, options: str, wanted: tuple[bool, ...]) -> Compiled:
    """Return the forward that keeps what the gradient reads."""
    return _function(declaration, options).part(_gradient(declaration, wanted).forward)


def _values(cascade: Cascade, parameters: str) -> dict[str, Scalar]:
    """Read the parameters that a cascade has."""
    known = dict(cascade.parameters)
    pairs = (x.partition("=") for x in parameters.split(";") if x)
    return {
        name: float(value) if "inf" in value else ast.literal_eval(value)
        for name, _, value in pairs
        if name in known
    }


def _shapes(
    cascade: Cascade, tensors: Sequence[Tensor], parameters: Mapping[str, Scalar]
) -> dict[str, tuple[Any, ...]]:
    """Return the shapes of the outputs; a size that an argument has may stay a symbol."""
    shapes = {n: tuple(t.shape) for n, t in zip(cascade.inputs, tensors, strict=True)}
    sizes: dict[str, Any] = {}
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            for access in accesses(x):
                for c, size in zip(access.coordinates, shapes.get(access.tensor, ()), strict=False):
                    if isinstance(c, RankVariable):
                        sizes.setdefault(c.rank, size)
    ranks = {n: ranks_of(cascade, n) for n in cascade.outputs}
    if any(r not in sizes for own in ranks.values() for r in own):
        fixed = {n: tuple(int(x) for x in shape) for n, shape in shapes.items()}
        sizes = dict(rank_sizes(cascade, fixed, bind_parameters(cascade, parameters)))
    if cascade.iterative_ranks:
        return {n: tensor_shape(cascade, n, sizes) for n in cascade.outputs}
    return {n: tuple(sizes[r] for r in own if r is not None) for n, own in ranks.items()}


def _dtypes(
    part: Compiled, tensors: Sequence[Kind], outputs: tuple[str, ...]
) -> dict[str, torch.dtype]:
    """Return the dtypes of all results, of which ``outputs`` are handed on.

    On no GPU what the gradient reads keeps the interpreter's float64.
    """
    cascade = part.declared
    named = zip(cascade.inputs, tensors, strict=True)
    found = tensor_dtypes(cascade, {n: str(t.dtype).removeprefix("torch.") for n, t in named})
    dtypes = {n: getattr(torch, found[n]) for n in cascade.outputs}
    if part.on_triton(tuple(tensors)):
        return dtypes
    wide = {n: widest(tensors) if n in outputs else torch.float64 for n in dtypes}
    return {
        n: wide[n] if d.is_floating_point else torch.int64 if d == torch.int32 else d
        for n, d in dtypes.items()
    }


def _own(x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Return a result in memory of its own."""
    return x.clone() if any(x.data_ptr() == t.data_ptr() for t in tensors) else x
