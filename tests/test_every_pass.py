"""Every pass keeps the value of every example: the interpreter before and after, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import einfall
from einfall import examples
from einfall.backends.interpreter import evaluate
from einfall.examples.inputs import make
from einfall.ir.notation import cascade as parse
from einfall.ir.sizes import bind_parameters, rank_sizes
from einfall.passes.pipeline import Known, run


def outputs(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


@pytest.mark.parametrize("name", examples.names())
def test_passes_keep_the_value(name: str) -> None:
    cascade = getattr(examples, name)
    tensors, parameters = make(name, seed=3, scale="tiny", dtype="float64")
    arrays = [np.asarray(x) for x in tensors]
    values = bind_parameters(cascade, parameters)
    shapes = {n: x.shape for n, x in zip(cascade.inputs, arrays, strict=True)}
    sizes = rank_sizes(cascade, shapes, values)
    truth = outputs(einfall.interpret(cascade, *arrays, **parameters))
    dtypes = dict.fromkeys(cascade.inputs, "float32")
    known = Known(sizes, shapes, values, dtypes)
    memory = dict(zip(cascade.inputs, arrays, strict=True))
    for step in run(cascade, known):
        if step.after is step.before:  # it was looked at behind the pass before
            continue
        kept = {rank: n for rank, n in sizes.items() if rank in step.after.ranks}
        found = evaluate(step.after, memory, values, sizes=kept)
        for tensor, expected in zip(step.after.outputs, truth, strict=True):
            got = found[tensor].filled()
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9, err_msg=step.name)
        assert parse(str(step.after)) == step.after, f"{step.name} does not print what it made"
