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


def left_out(assembly: str) -> list[tuple[int, int, int]]:
    """Return (loop, register, line) of what a loop's products read and a branch may leave out.

    Where two loops in a row read an operand whose place is computed ahead of both, ptxas was seen
    to compute it behind the test of whether the first loop runs at all.
    """
    lines = [re.sub(r"/\*[0-9a-fx]*\*/", "", x).strip() for x in assembly.splitlines()]
    labels = {x[:-1]: k for k, x in enumerate(lines) if re.fullmatch(r"\.L_x_\d+:", x)}
    jumps = [
        (k, labels[found[1]])
        for k, x in enumerate(lines)
        if (found := re.search(r"BRA `\((\.L_x_\d+)\)", x)) and found[1] in labels
    ]

    def written(line: str) -> set[int]:
        found = re.match(r"(?:@!?U?P\d )?([A-Z]\S*) (?:U?P\d, )?UR(\d+)\b", line)
        if not found or found[1].startswith(("UTMA", "SYNCS", "HGMMA")):
            return set()
        first = int(found[2])
        return {first, first + 1} if ".64" in found[1] or "WIDE" in found[1] else {first}

    wrong = []
    for end, start in jumps:
        products = [x for x in lines[start:end] if "HGMMA" in x]
        if not 0 < len(products) < 30:  # no loop, or one around loops
            continue
        read: set[int] = set()
        for x in products:
            found = re.search(r"HGMMA\S+ R\d+, (R\d+, )?gdesc\[UR(\d+)\]", x)
            assert found is not None
            first = int(found[2])
            read |= {first + 2, first + 3} | (set() if found[1] else {first, first + 1})
        for register in read - set().union(*map(written, lines[start:end])):
            at = max(k for k in range(start) if register in written(lines[k]))
            if any(branch < at < target <= start for branch, target in jumps):
                wrong.append((start, register, at))
    return wrong


@pytest.mark.parametrize(("name", "features"), [("causal_lse", 128), ("attention", 64)])
def test_products_run_under_the_exponentials(name: str, features: int) -> None:
    sizes = {"e": features, "f": features, "m": 2048}
    f = einfall.compile(getattr(examples, name), emitter="gluon", target="sm_90")
    (kernel,) = (lowered := f.lower(sizes=sizes, dtype="bfloat16")).kernels
    report = compile_ahead(kernel, dict(lowered.mapping.dtypes), "sm_90")
    check(report, local=20, tensor_core="wgmma")
    assert report.num_warps == 12 and report.spill_stores <= 128
    # beside what the text allocates, what warps exchange and the ends of lines of 128 bytes
    assert kernel.shared <= report.shared <= kernel.shared + 1024
    # what spills is read once for each tile of rows: nothing in the loops that products are in
    hot = [x for x in report.loops if x.innermost and x.tensor_core]
    assert len(hot) == 4 and not any(x.local_loads + x.local_stores for x in hot)
    # turns and slots take six barriers; where a warp takes a tile once more, alone, there is none
    assert {x.barriers for x in hot} == {6}
    # two groups of warps with two loops each, 64 x 128 exponentials for 128 threads; and some a row
    # where frames move
    assert in_flight(report.assembly) == [66, 64] * 2
    assert not left_out(report.assembly)
    assert "UTMALDG" in report.assembly and "UTMASTG" in report.assembly
    registers = set(re.findall(r"USETMAXREG\S* +.*?(0x\w+)", report.assembly))
    assert {"0xf0", "0x18"} <= registers


def test_short_walks_are_one_loop_that_a_processor_holds() -> None:
    sizes = {"e": 128, "f": 128, "m": 4096}
    f = einfall.compile(examples.sliding_window, emitter="gluon", target="sm_90", parts={"m": 1})
    (kernel,) = (lowered := f.lower(sizes=sizes, dtype="bfloat16")).kernels
    report = compile_ahead(kernel, dict(lowered.mapping.dtypes), "sm_90")
    # 7600 instructions were fetched again and again: what stands outside loops took twice as long
    assert len(re.findall(r"^ +/\*[0-9a-f]+\*/ ", report.assembly, re.MULTILINE)) < 5500
    hot = [x for x in report.loops if x.innermost and x.tensor_core]
    assert len(hot) == 2 and all(x.local_stores < 2 for x in hot)  # one register of 240
    assert in_flight(report.assembly) == [64] * 2 and not left_out(report.assembly)
