"""Gluon kernels compiled for an absent H100: what only the compiler can say of them."""

from __future__ import annotations

import re

import pytest

import einfall
from einfall import examples
from einfall.backends.aot import check, compile_ahead


def in_flight(assembly: str) -> list[int]:
    """Return how many exponentials begin in each stretch in which some products still run.

    Such a stretch lies between a wait that leaves products under way and the next that leaves none.
    """
    found, running, count = [], False, 0
    for line in assembly.splitlines():
        wait = re.search(r"WARPGROUP\.DEPBAR\S*\s+gsb0,\s*(0x\w+)", line)
        if wait is not None:
            if running and wait[1] == "0x0":
                found.append(count)
            running, count = wait[1] != "0x0", 0
        count += "MUFU.EX2" in line
    return found


@pytest.mark.parametrize(("name", "features"), [("causal_lse", 128), ("attention", 64)])
def test_products_run_under_the_exponentials(name: str, features: int) -> None:
    sizes = {"e": features, "f": features, "m": 2048}
    f = einfall.compile(getattr(examples, name), emitter="gluon", target="sm_90")
    (kernel,) = (lowered := f.lower(sizes=sizes, dtype="bfloat16")).kernels
    report = compile_ahead(kernel, dict(lowered.mapping.dtypes), "sm_90")
    check(report, local=20, tensor_core="wgmma")
    assert report.num_warps == 12 and report.spill_stores <= 128
    # what spills is read once for each tile of rows: nothing in the loops that products are in
    hot = [x for x in report.loops if x.innermost and x.tensor_core]
    assert len(hot) == 4 and not any(x.local_loads + x.local_stores for x in hot)
    # turns and slots take six barriers; where a warp takes a tile once more, alone, there is none
    assert {x.barriers for x in hot} == {6}
    # two groups of warps with two loops each, 64 x 128 exponentials for 128 threads; and some a row
    # where frames move
    assert in_flight(report.assembly) == [66, 64] * 2
    assert "UTMALDG" in report.assembly and "UTMASTG" in report.assembly
    registers = set(re.findall(r"USETMAXREG\S* +.*?(0x\w+)", report.assembly))
    assert {"0xf0", "0x18"} <= registers
