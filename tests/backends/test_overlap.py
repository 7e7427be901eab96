"""Kernels of one plan that overlap: the next is launched early, and waits before it reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import einfall
import einfall.examples
from einfall.backends.aot import compile_ahead
from einfall.backends.lowered import Lowered, lower_cascade
from einfall.backends.save import save
from einfall.backends.triton import interpreting, launch_options, overlapping

WAIT, LEAD = "tl.extra.cuda.gdc_wait()", "tl.extra.cuda.gdc_launch_dependents()"


def lowered(overlap: bool) -> Lowered:
    """Return few rows against a long rank, which is reduced in parts and merged."""
    f = einfall.compile(einfall.examples.gqa, backend="triton", target="sm_90")
    Q = torch.empty(1, 8, 1, 32, dtype=torch.float16, device="meta")
    K = torch.empty(1, 2, 4096, 32, dtype=torch.float16, device="meta")
    known = f.lower(Q, K, K, G=4).known
    return lower_cascade(einfall.examples.gqa, replace(known, overlap=overlap))


def test_a_kernel_waits_before_it_reads() -> None:
    parts, merge = lowered(True).kernels
    assert (parts.follows, merge.follows) == (False, True)
    assert LEAD in parts.text and WAIT not in parts.text
    assert WAIT in merge.text and LEAD not in merge.text
    assert merge.text.index(WAIT) < merge.text.index("tl.program_id")
    assert launch_options(merge)["launch_pdl"] and "launch_pdl" not in launch_options(parts)


def test_one_after_another_where_it_cannot_be_otherwise() -> None:
    for kernel in lowered(False).kernels:
        assert not kernel.follows and "gdc" not in kernel.text
    assert not any(overlapping(t) for t in ("sm_80", "sm_89", "gfx942"))
    assert overlapping("sm_90") == overlapping("sm_100") == (not interpreting())


def test_a_saved_file_runs_everywhere(tmp_path: Path) -> None:
    assert "gdc" not in save(lowered(True), tmp_path / "alone.py").read_text()


def test_the_wait_is_an_instruction() -> None:
    cascade = lowered(True)
    merge = cascade.kernels[-1]
    report = compile_ahead(merge, dict(cascade.mapping.dtypes), "sm_90")
    assert "ACQBULK" in report.assembly
