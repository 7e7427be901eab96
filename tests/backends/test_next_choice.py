"""Where Triton cannot compile a kernel, other tiles are tried, and said so."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

import einfall
from einfall import examples
from einfall.backends import dispatch
from einfall.backends.triton import refusal, triton
from einfall.ir.errors import BackendError

from ..codegen.kernel_cases import DEVICE, relative


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the assembler die of the first launches, as many as the list says."""
    left = [0]
    through = dispatch.Launch.through_triton

    def dying(launch: Any, tensors: Any) -> Any:
        if left[0]:
            left[0] -= 1
            cause = triton().runtime.errors.PTXASError("ptxas died")
            raise refusal(cause, launch.function.__name__) from cause
        return through(launch, tensors)

    monkeypatch.setattr(dispatch.Launch, "through_triton", dying)
    return left


def given() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn((1, 2, 70, 16), generator=generator).to(DEVICE) for _ in range(3)]


def test_other_tiles_are_tried(failing: list[int], caplog: pytest.LogCaptureFixture) -> None:
    f, tensors = einfall.compile(examples.causal, backend="triton"), given()
    first = f.lower(*tensors).source
    failing[0] = 1
    with caplog.at_level(logging.WARNING, logger="einfall"):
        out = f(*tensors)
    assert relative(out, einfall.interpret(examples.causal, *(x.cpu() for x in tensors))) < 1e-5
    assert "is taken, because" in caplog.text and "ptxas died" in caplog.text
    assert "ptxas died" in str(f.explain())
    assert [k.tile_sizes for k in f.kernels] != [k.tile_sizes for k in f.lower(*tensors).kernels]
    assert f.source == first  # of the lowering above, which is the latest
    assert torch.equal(f(*tensors), out)


def test_the_first_error_stands_where_nothing_can_be_compiled(failing: list[int]) -> None:
    failing[0] = 100
    with pytest.raises(BackendError, match="ptxas died"):
        einfall.compile(examples.causal, backend="triton")(*given())


def test_what_is_asked_for_is_not_replaced(failing: list[int]) -> None:
    failing[0] = 1
    with pytest.raises(BackendError, match="ptxas died"):
        einfall.compile(examples.causal, backend="triton", tiles={"m": 32})(*given())
