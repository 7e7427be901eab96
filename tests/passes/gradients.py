"""Finite differences: the gradient of a cascade against the interpreter, along one direction."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy

from einfall.backends.interpreter import interpret
from einfall.ir.cascade import Cascade
from einfall.passes.differentiate import gradient
from einfall.passes.keep import Gradient

Array = numpy.ndarray[Any, Any]
STEP = 1e-5


@cache
def whole_gradient(cascade: Cascade) -> Gradient:
    """Return the gradient with respect to all that has one; several tests ask the same."""
    return gradient(cascade)


def results(cascade: Cascade, tensors: Mapping[str, Array], parameters: Any) -> dict[str, Array]:
    """Interpret a cascade; its outputs by name."""
    read = {k: v for k, v in parameters.items() if k in dict(cascade.parameters)}
    found = interpret(cascade, *(tensors[n] for n in cascade.inputs), **read)
    found = found if isinstance(found, tuple) else (found,)
    return dict(zip(cascade.outputs, found, strict=True))


def run(
    made: Gradient, tensors: Mapping[str, Array], parameters: Any, seeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Run forward, then backward, in float64; return the gradients by the name of the input."""
    kept = results(made.forward, tensors, parameters)
    found = results(made.backward, {**tensors, **kept, **seeds}, parameters)
    return dict(zip(made.wrt, found.values(), strict=True))


def assert_gradients(
    cascade: Cascade,
    tensors: Mapping[str, Array],
    parameters: Any = None,
    wrt: tuple[str, ...] | None = None,
    tolerance: float = 1e-6,
) -> dict[str, Array]:
    """Compare the derivative along a random direction of each input with a central difference."""
    parameters = parameters or {}
    made = whole_gradient(cascade)
    if wrt not in (None, made.wrt):
        made = gradient(cascade, wrt=wrt)
    draw = numpy.random.default_rng(11)
    values = results(cascade, tensors, parameters)
    seeds: dict[str, Array] = {}
    for t in made.of:
        shape = values[t].shape
        seeds[f"{t}_grad"] = numpy.asarray(draw.standard_normal(shape))
    found = run(made, tensors, parameters, seeds)

    def objective(inputs: Mapping[str, Array]) -> float:
        out = results(cascade, inputs, parameters)
        return sum(
            float((numpy.where(numpy.isfinite(out[t]), out[t], 0.0) * seeds[f"{t}_grad"]).sum())
            for t in made.of
        )

    for name, x in found.items():
        assert x.shape == tensors[name].shape, name
        assert numpy.isfinite(x).all(), name
        way = draw.standard_normal(x.shape)
        ahead = objective({**tensors, name: tensors[name] + STEP * way})
        behind = objective({**tensors, name: tensors[name] - STEP * way})
        expected, given = (ahead - behind) / (2 * STEP), float((x * way).sum())
        error = abs(expected - given) / max(abs(expected), 1e-2)
        assert error < tolerance, f"{name}: {given} for {expected}\n{made.backward}"
    return found
