"""Autograd: a compiled cascade as a differentiable function of torch.

The first call with a combination of inputs that require a gradient derives the gradient cascade
(``passes/differentiate.py``) and compiles two cascades: the forward one, which returns what the
gradient reads again besides its own outputs, and the gradient. Both run on the back end of the
call, so that on the CPU gradients are computed in float64 by the interpreter. Nothing is added up
by atomic operations, unless that was asked for: the same inputs give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..ir.cascade import Cascade, Scalar
from ..ir.errors import BackendError
from ..ir.sizes import bind_parameters, rank_sizes
from ..passes.differentiate import gradient
from ..passes.keep import Gradient
from .interpreter import interpret
from .launch import Prepared

if TYPE_CHECKING:
    from .compile import Compiled

Run = Callable[..., Any]
"""A cascade on a back end: tensors in the order of its inputs in, a tuple of its outputs out."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a call's tensors stand, found out once: names cost more than small kernels.

    outputs : of the cascade, among those of the forward. fixed : outputs that have no gradient.
    kept : what the gradient reads again, among arguments, and behind them the outputs of the
    forward. reads : what the gradient takes, among what is kept, or ~k for what arrives for output
    k. shares : the gradient's output for each argument, None if it gives none; wrt : the arguments
    in the order of these outputs.
    """

    outputs: tuple[int, ...]
    fixed: tuple[int, ...]
    kept: tuple[int, ...]
    reads: tuple[int, ...]
    shares: tuple[int | None, ...]
    wrt: tuple[int, ...]


def places(cascade: Cascade, made: Gradient) -> Places:
    """Return where a cascade, its forward and its gradient find what they take and give."""
    inputs, outputs, found = cascade.inputs, cascade.outputs, made.forward.outputs
    kept = tuple(n for n in made.backward.inputs if n not in made.seeds)
    arriving = dict(zip(made.seeds, made.of, strict=True))
    # an output is what the caller holds, should an argument have the same name
    there = {n: k for k, n in enumerate(inputs)}
    there |= {n: len(inputs) + k for k, n in enumerate(found)}
    return Places(
        tuple(map(found.index, outputs)),
        tuple(k for k, n in enumerate(outputs) if n not in made.of),
        tuple(there[n] for n in kept),
        tuple(
            ~outputs.index(arriving[n]) if n in arriving else kept.index(n)
            for n in made.backward.inputs
        ),
        tuple(made.wrt.index(n) if n in made.wrt else None for n in inputs),
        tuple(map(inputs.index, made.wrt)),
    )


@dataclass(frozen=True, slots=True)
class Differentiable:
    """A cascade with its gradient, ready to be called with tensors.

    made : the forward and the gradient cascade. forward, backward : how they are run. places :
    where each finds what it takes and gives.
    """

    cascade: Cascade
    made: Gradient
    forward: Run
    backward: Run
    places: Places

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Return the outputs, one or a tuple; torch records how to come back."""
        found = _Call.apply(self, *tensors)  # type: ignore[no-untyped-call]
        return found[0] if len(self.cascade.outputs) == 1 else found


def with_gradient(
    compiled: Compiled, tensors: tuple[torch.Tensor, ...], parameters: Mapping[str, Scalar]
) -> Prepared:
    """Return how arguments like these are answered where torch records, some requiring a gradient.

    The forward and the gradient are built when they are first needed.

    Raises
    ------
    PassError
        for an input without a gradient, one that only decides filters or coordinates; for an
        iterative rank.
    """
    made: list[Differentiable] = []

    def run(*given: torch.Tensor) -> Any:
        if made:
            return made[0](*given)
        made.append(differentiable(compiled, tensors, parameters))
        found = made[0](*given)
        forward, backward = made[0].forward, made[0].backward
        if isinstance(forward, Part) and isinstance(backward, Part):
            compiled.keep(forward.compiled, backward.compiled)
        return found

    return Prepared(run, lambda: made[0] if made else None)


@dataclass(frozen=True, slots=True)
class Part:
    """One of the two cascades as kernels."""

    compiled: Compiled
    parameters: Mapping[str, Scalar]

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Run the kernels."""
        found = self.compiled(*tensors, **self.parameters)
        return found if isinstance(found, tuple) else (found,)


def differentiable(
    compiled: Compiled, tensors: tuple[torch.Tensor, ...], parameters: Mapping[str, Scalar]
) -> Differentiable:
    """Return a compiled cascade as a differentiable function of tensors like these.

    Gradients are remembered by the inputs that require one and by how long ranks are, in powers of
    two since lengths only weigh costs.
    """
    cascade = compiled.declared
    named = dict(zip(cascade.inputs, tensors, strict=True))
    values = bind_parameters(cascade, parameters)
    sizes = rank_sizes(cascade, {n: tuple(t.shape) for n, t in named.items()}, values)
    about = {r: 1 << max(n - 1, 0).bit_length() for r, n in sizes.items()}
    wanted = tuple(n for n, t in named.items() if t.requires_grad)
    key = (wanted, tuple(about.items()))
    if key not in compiled.gradients:
        compiled.gradients[key] = gradient(cascade, wrt=wanted, sizes=about)
    made = compiled.gradients[key]

    def build(part: Cascade, *, forward: bool) -> Run:
        given = {n: x for n, x in parameters.items() if n in dict(part.parameters)}
        if compiled.on_triton(tensors):
            return Part(compiled.part(part, forward=forward), given)
        return interpreted(part, given)

    forward, backward = build(made.forward, forward=True), build(made.backward, forward=False)
    return Differentiable(cascade, made, forward, backward, places(cascade, made))


def interpreted(cascade: Cascade, parameters: Mapping[str, Scalar]) -> Run:
    """Return how a cascade is run in numpy; its results keep their float64."""
    given: dict[str, Any] = {n: v for n, v in parameters.items() if n in dict(cascade.parameters)}

    def run(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = interpret(cascade, *tensors, **given)
        found = found if isinstance(found, tuple) else (found,)
        return tuple(torch.as_tensor(x) for x in found)

    return run


class _Call(torch.autograd.Function):
    """One call: forward keeps what backward reads."""

    @staticmethod
    def forward(ctx: Any, ready: Differentiable, *tensors: torch.Tensor) -> Any:
        """Run the forward cascade; return its own outputs."""
        at = ready.places
        found = list(ready.forward(*tensors))
        for k in at.outputs:
            # Without a GPU the interpreter's float64 is rounded for the caller.
            if found[k].dtype == torch.float64:
                found[k] = found[k].to(widest(tensors))
        outputs = [found[k] for k in at.outputs]
        memory = (*tensors, *found)
        ctx.ready = ready
        ctx.save_for_backward(*[memory[k] for k in at.kept])
        ctx.like = [(tensors[k].shape, tensors[k].dtype) for k in at.wrt]
        if at.fixed:
            ctx.mark_non_differentiable(*[outputs[k] for k in at.fixed])
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *received: torch.Tensor) -> Any:
        """Run the gradient cascade."""
        ready: Differentiable = ctx.ready
        at, saved, like = ready.places, ctx.saved_tensors, ctx.like
        given = [saved[k] if k >= 0 else _dense(received[~k]) for k in at.reads]
        if torch.is_grad_enabled():
            gradients = _Once.apply(ready, *given)  # type: ignore[no-untyped-call]
        else:
            gradients = ready.backward(*given)
        shares = [None if k is None else fitted(gradients[k], *like[k]) for k in at.shares]
        return None, *shares


class _Once(torch.autograd.Function):
    """The gradient, which itself has none."""

    @staticmethod
    def forward(ctx: Any, ready: Differentiable, *tensors: torch.Tensor) -> Any:
        """Run the gradient cascade."""
        ctx.name = ready.cascade.name
        return ready.backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Refuse: the gradient of a gradient is not built."""
        raise BackendError(twice(ctx.name))


def twice(name: str) -> str:
    """Say that a gradient has no gradient."""
    return (
        f"{name} was differentiated twice; a second derivative is not built. Leave"
        " create_graph=True away, or differentiate einfall.differentiate(...) by hand"
    )


def _dense(gradient: torch.Tensor) -> torch.Tensor:
    """Return a gradient whose rows lie one behind the other; ``sum().backward()`` expands one."""
    steps = gradient.stride()
    return gradient if steps[-1:] == (1,) and 0 not in steps else gradient.contiguous()


def widest(tensors: Sequence[Any]) -> torch.dtype:
    """Return the widest dtype of real tensors, or of what else has a dtype."""
    dtype = torch.float16
    floats = [t.dtype for t in tensors if t.dtype.is_floating_point]
    for k, other in enumerate(floats):
        dtype = other if k == 0 else torch.promote_types(dtype, other)
    return dtype


def fitted(x: torch.Tensor, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Return a gradient in its input's shape and dtype, 0 at points that nothing reads."""
    if x.shape != shape:
        whole = x.new_zeros(shape)
        whole[tuple(slice(0, n) for n in x.shape)] = x
        x = whole
    return x if x.dtype == dtype else x.to(dtype)
