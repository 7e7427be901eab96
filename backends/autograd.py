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

if TYPE_CHECKING:
    from .compile import Compiled
    from .launch import Ready

Run = Callable[..., Any]
"""A cascade on a back end: tensors in the order of its inputs in, a tuple of its outputs out."""


@dataclass(frozen=True, slots=True)
class Differentiable:
    """A cascade with its gradient, ready to be called with tensors.

    made : the forward and the gradient cascade. forward, backward : how they are run.
    """

    cascade: Cascade
    made: Gradient
    forward: Run
    backward: Run

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Return the outputs, one or a tuple; torch records how to come back."""
        found = _Call.apply(self, *tensors)  # type: ignore[no-untyped-call]
        return found[0] if len(self.cascade.outputs) == 1 else found


def with_gradient(
    compiled: Compiled, tensors: tuple[torch.Tensor, ...], parameters: Mapping[str, Scalar]
) -> Ready:
    """Return how arguments like these are answered, of which some require a gradient.

    Where torch records nothing the plain kernels answer; else the forward and the gradient are
    built when they are first needed.

    Raises
    ------
    PassError
        for an input without a gradient, one that only decides filters or coordinates; for an
        iterative rank.
    """
    made: list[Differentiable] = []
    plain: list[Ready] = []

    def run(*given: torch.Tensor) -> Any:
        if not torch.is_grad_enabled():
            if not plain:
                plain.append(compiled.prepared(given, dict(parameters)))
            return plain[0](*given)
        if made:
            return made[0](*given)
        made.append(differentiable(compiled, tensors, parameters))
        found = made[0](*given)
        forward, backward = made[0].forward, made[0].backward
        if isinstance(forward, Part) and isinstance(backward, Part):
            compiled.keep(forward.compiled, backward.compiled)
        return found

    return run


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

    forward = build(made.forward, forward=True)
    return Differentiable(cascade, made, forward, build(made.backward, forward=False))


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
        made, cascade = ready.made, ready.cascade
        found = dict(zip(made.forward.outputs, ready.forward(*tensors), strict=True))
        reads = made.backward.inputs
        memory = {**dict(zip(cascade.inputs, tensors, strict=True)), **found}
        dtype = widest(tensors)
        # Without a GPU the interpreter's float64 is rounded for the caller, not for the gradient.
        outputs = [_rounded(found[n], dtype) for n in cascade.outputs]
        returned = dict(zip(cascade.outputs, outputs, strict=True))
        ctx.ready, ctx.names = ready, tuple(n for n in reads if n not in made.seeds)
        ctx.save_for_backward(*(returned.get(n, memory[n]) for n in ctx.names))
        ctx.dtypes = {n: memory[n].dtype for n in made.wrt}
        ctx.shapes = {n: memory[n].shape for n in made.wrt}
        ctx.mark_non_differentiable(*(returned[n] for n in cascade.outputs if n not in made.of))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *received: torch.Tensor) -> Any:
        """Run the gradient cascade."""
        ready: Differentiable = ctx.ready
        saved = dict(zip(ctx.names, ctx.saved_tensors, strict=True))
        arriving = dict(zip(ready.cascade.outputs, received, strict=True))
        names = dict(zip(ready.made.seeds, ready.made.of, strict=True))
        given = [
            saved[n] if n in saved else _dense(arriving[names[n]])
            for n in ready.made.backward.inputs
        ]
        gradients = _Once.apply(ready, *given)  # type: ignore[no-untyped-call]
        found = dict(zip(ready.made.wrt, gradients, strict=True))
        return (
            None,
            *(
                fitted(found[n], ctx.shapes[n], ctx.dtypes[n]) if n in found else None
                for n in ready.cascade.inputs
            ),
        )


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
    rows = gradient.stride()[-1:] == (1,) and 0 not in gradient.stride()
    return gradient if rows else gradient.contiguous()


def widest(tensors: Sequence[torch.Tensor]) -> torch.dtype:
    """Return the widest dtype of real tensors."""
    dtype = torch.float16
    floats = [t.dtype for t in tensors if t.dtype.is_floating_point]
    for k, other in enumerate(floats):
        dtype = other if k == 0 else torch.promote_types(dtype, other)
    return dtype


def _rounded(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a result of the interpreter in the dtype of the arguments."""
    return x.to(dtype) if x.dtype == torch.float64 else x


def fitted(x: torch.Tensor, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Return a gradient in its input's shape and dtype, 0 at points that nothing reads."""
    if x.shape != shape:
        whole = x.new_zeros(shape)
        whole[tuple(slice(0, n) for n in x.shape)] = x
        x = whole
    return x.to(dtype)
