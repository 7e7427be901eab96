"""Every example as kernels: the loop nest in numpy and the text in Triton's interpreter."""

from __future__ import annotations

import pytest

import einfall
from einfall import examples

from .kernel_cases import (
    TOLERANCE,
    WITH_KERNEL,
    WITHOUT_KERNEL,
    arguments,
    assert_kernels_agree,
    outputs,
    relative,
    run_nests,
)

TILES = {"p": 32, "m": 32}

BRIEF = {"b": 1, "h": 2, "group": 2, "p": 40, "m": 48, "e": 16, "f": 32, "block": 16}
"""A tile and a half each way: what float16 rounds does not depend on the length."""


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_loop_nest_means_what_the_cascade_means(name: str) -> None:
    cascade = getattr(examples, name)
    tensors, parameters = arguments(name)
    truth = outputs(einfall.interpret(cascade, *(x.cpu() for x in tensors), **parameters))
    lowered = einfall.compile(cascade, tiles=TILES).lower(*tensors, **parameters)
    found = run_nests(cascade, lowered, tensors, parameters)
    for output, got, expected in zip(cascade.outputs, found, truth, strict=True):
        assert relative(got, expected) < 1e-12, output


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_kernel_agrees_with_interpreter(name: str) -> None:
    tensors, parameters = arguments(name)
    cascade = getattr(examples, name)
    assert_kernels_agree(cascade, tensors, parameters, TOLERANCE["float32"], TILES)


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_kernel_agrees_in_half_precision(name: str) -> None:
    tensors, parameters = arguments(name, "float16", BRIEF)
    cascade = getattr(examples, name)
    assert_kernels_agree(cascade, tensors, parameters, TOLERANCE["float16"], TILES)


def test_scores_that_cross_memory_are_not_rounded_on_the_way() -> None:
    tensors, parameters = arguments("fusemax_2pass", "float16", {**BRIEF, "e": 64})
    cascade = examples.fusemax_2pass
    lowered = einfall.compile(cascade, backend="triton").lower(*tensors, **parameters)
    assert dict(lowered.mapping.dtypes)["QK"] == "float32"
    # in float16 they made 1.1e-3
    assert_kernels_agree(cascade, tensors, parameters, 4e-4, TILES)


@pytest.mark.parametrize("name", sorted(WITHOUT_KERNEL))
def test_what_has_no_kernel_is_refused(name: str) -> None:
    tensors, parameters = arguments(name)
    with pytest.raises(einfall.BackendError, match=WITHOUT_KERNEL[name]):
        einfall.compile(getattr(examples, name), backend="triton")(*tensors, **parameters)
