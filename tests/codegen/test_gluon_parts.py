"""Gluon kernels that reduce a rank in parts: parts end where tiles do, and none is tested there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.launch import count_programs
from einfall.backends.lowered import Lowered
from einfall.backends.walked_sizes import walked_sizes
from einfall.ir.sizes import rank_sizes

from .gluon_machine import arguments, run_text
from .kernel_cases import relative

SIZES = {"b": 1, "h": 1, "p": 128, "m": 710, "e": 64, "f": 64}
"""Tiles of 128: six, of which the last is cut; in Triton's tiles of 64 they are twelve."""


def in_parts(name: str, monkeypatch: pytest.MonkeyPatch, parts: int) -> Lowered:
    monkeypatch.setattr("einfall.backends.compile.gluon_missing", str)  # there is a GPU
    monkeypatch.setattr("einfall.passes.specialise.unmeasured", lambda kernel, sizes: "")
    f = einfall.compile(getattr(examples, name), target="sm_90", parts={"m": parts})
    return f.lower(sizes=SIZES)


def states(found: Lowered, tensors: list[torch.Tensor], seed: int) -> tuple[Any, ...]:
    """Run the kernel of the parts on the machine: their frames, sums and weighted sums."""
    cascade, (kernel, _) = found.cascade, found.kernels
    memory = {n: x.numpy() for n, x in zip(cascade.inputs, tensors, strict=True)}
    shapes = {n: tuple(x.shape) for n, x in memory.items()}
    sizes = rank_sizes(cascade, shapes, {})
    sizes, values = walked_sizes(found.mapping, found.kernels, shapes, {}, sizes, processors=132)
    for b in kernel.writes:
        memory[b.tensor] = np.full([sizes[r] for r in b.ranks], np.nan, np.dtype(b.dtype))
    given = arguments(kernel, memory, sizes, values)
    run_text(kernel, given, min(2, count_programs(kernel, sizes)), seed, None)
    return tuple(memory[b.tensor] for b in kernel.writes)


def merged(scale: float, frame: Any, total: Any, weighted: Any) -> Any:
    """Merge the parts' states by hand: carry sums to the greatest frame, add, divide."""
    carry = np.exp2(scale * (frame - frame.max(axis=0)))
    return (weighted * carry[..., None]).sum(axis=0) / (total * carry).sum(axis=0)[..., None]


@pytest.mark.parametrize("name", ["attention", "causal"])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_add_up_to_the_whole(name: str, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(parts)
    shapes = ((1, 1, SIZES[n], 64) for n in ("p", "m", "m"))
    tensors = [torch.randn(s, generator=generator).half() for s in shapes]
    found = in_parts(name, monkeypatch, parts)
    assert [k.emitter for k in found.mapping.kernels][0] == "gluon"
    got = merged(64**-0.5 * np.log2(np.e), *states(found, tensors, seed=parts))
    truth = einfall.interpret(getattr(examples, name), *tensors)
    assert relative(got, truth) < 1e-3


def test_a_part_is_counted_in_the_tiles_that_its_kernel_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = in_parts("attention", monkeypatch, 4)
    (cut,) = found.mapping.cuts
    assert (cut.tile, cut.residents) == (128, 1)
    tl = einfall.compile(examples.attention, target="sm_90", emitter="tl", parts={"m": 4})
    (cut,) = tl.lower(sizes=SIZES).mapping.cuts
    assert cut.tile == 64


def test_the_end_of_a_part_is_no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    text = in_parts("attention", monkeypatch, 4).kernels[0].text
    assert "def attention_m_part_cut(s_sum_part, g_max_part, d_part, m_first, m_row, M):" in text
