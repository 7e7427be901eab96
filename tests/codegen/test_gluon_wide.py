"""Gluon kernels whose sums take eight warps: one latent cache under many heads.

They run on the machine of ``gluon_machine.py``; truth is the interpreter in float64.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch

import einfall
from einfall import examples
from einfall.backends.aot import compile_ahead
from einfall.backends.lowered import Lowered

from .kernel_cases import outputs, relative
from .test_gluon import run
from .test_gluon_compile import left_out

PARAMETERS: dict[str, Any] = {"scale": 0.05}


@cache
def tensors(rotary: int = 64) -> tuple[torch.Tensor, ...]:
    """Two caches of 190 keys, of which 130 and 64 exist; memory behind them holds no numbers."""
    draw = torch.Generator().manual_seed(5)
    q, latents = (torch.randn(2, n, 512 + rotary, generator=draw).half() for n in (128, 190))
    length = torch.tensor([130, 64], dtype=torch.int32)
    for b, n in enumerate(length.tolist()):
        latents[b, n:] = float("nan")
    return q[..., :512], q[..., 512:], latents[..., :512], latents[..., 512:], length


def lowered(rotary: int = 64) -> Lowered:
    f = einfall.compile(examples.mla_decode, target="sm_90", parts={"m": 1}, emitter="gluon")
    return f.lower(*tensors(rotary), **PARAMETERS)


@cache
def truth(rotary: int = 64) -> Any:
    clean = [torch.nan_to_num(x, 0.0) if x.is_floating_point() else x for x in tensors(rotary)]
    return outputs(einfall.interpret(examples.mla_decode, *clean, **PARAMETERS))


@pytest.mark.parametrize("rotary", [64, 32])
def test_eight_warps_compute_what_the_cascade_means(rotary: int) -> None:
    found = lowered(rotary)
    (kernel,) = found.kernels
    assert kernel.num_warps == 8
    # whatever is fetched is blanked, as wide as it is
    pieces = re.findall(r"^    blank\((\w), .*, (\d+)\)$", kernel.text, re.M)
    assert pieces == [("z", "64"), ("k", str(rotary))]
    (got,) = run(found, list(tensors(rotary)), PARAMETERS, seed=rotary)
    assert relative(got, truth(rotary)[0]) < 1e-3


WAIT = r"    o_sum = warpgroup_mma_wait\(0, deps=\(o_sum,\)\)\n"
RELEASE = r"    release\(z_empty, step\)\n"


@pytest.mark.parametrize(
    ("lines", "others"),
    [
        # what does not exist takes part; an operand is not there; a slot is let go too soon
        (r"    blank\(z, .*\n", ""),
        (r"    a_n_laid\.store\(.*\n", ""),
        (f"({WAIT})({RELEASE})", r"\2\1"),
    ],
)
def test_what_is_broken_is_noticed(lines: str, others: str) -> None:
    (kernel,) = (found := lowered()).kernels
    text = re.sub(lines, others, kernel.text)
    assert text != kernel.text
    errors = []
    for seed in range(3):
        (got,) = run(found, list(tensors()), PARAMETERS, seed=seed, text=text)
        errors.append(relative(got, truth()[0]))
    assert not all(x < 1e-2 for x in errors)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose the emitter as where kernels are compiled."""
    monkeypatch.setattr("einfall.backends.compile.gluon_missing", str)


@pytest.mark.usefixtures("chosen")
def test_the_kernel_as_it_is_compiled() -> None:
    f = einfall.compile(examples.mla_decode, target="sm_90")
    found = f.lower(sizes={"b": 32, "h": 128, "e": 512, "r": 64, "m": 8192}, dtype="bfloat16")
    walk, merge = found.kernels
    assert (walk.language, merge.language) == ("gluon", "triton")
    dtypes = {**dict(found.mapping.dtypes), "scale": "float32", "m_step": "int32"}
    report = compile_ahead(walk, dtypes, "sm_90")
    assert report.num_warps == 12 and report.shared <= 227 * 1024
    hot = [x for x in report.loops if x.innermost and x.tensor_core]
    # 32 + 4 products of 64 x 32 and 4 of 64 x 256 for each half; no score is computed twice
    assert [x.tensor_core for x in hot] == [40, 40] and {x.exponentials for x in hot} == {18}
    assert all(x.local_stores == 0 and x.local_loads <= 2 for x in hot)
    assert left_out(report.assembly) == []


@pytest.mark.usefixtures("chosen")
def test_who_gets_eight_warps() -> None:
    f = einfall.compile(examples.mla_decode, target="sm_90")
    sizes = {"b": 4, "e": 512, "r": 64, "m": 8192}

    def languages(**more: int) -> set[str]:
        return {k.language for k in f.lower(sizes={**sizes, **more}).kernels}

    assert "gluon" in languages(h=128)
    assert languages(h=64) == languages(h=16) == {"triton"}
    plain = einfall.compile(examples.attention, target="sm_90")
    (kernel,) = plain.lower(sizes={"e": 256, "f": 256, "p": 4096, "m": 4096}).kernels
    assert kernel.num_warps == 4 and "blank" not in kernel.text
