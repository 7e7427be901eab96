"""Why there is more than one kernel, and why a tensor lies between two: said of real cascades."""

from __future__ import annotations

from typing import Any

import pytest

import einfall
from einfall import examples
from einfall.passes.differentiate import gradient

CASES = {
    "heavy_hitters": (
        "C: a kernel of its own, for it reads A_log, known only at the end of the walk along m,"
        " which it keeps",
        "Making it walks m; heavy_hitters_c_kernel would repeat that for every m.",
    ),
    "flex_prefill": (
        "Slash_sum_tiles: a kernel of its own, for it reads A_log, known only at the end of the"
        " walk along m",
        "In flex_prefill_slash_sum_tiles_kernel it is read at other coordinates than those it is"
        " made for.",
        "Slash: a kernel of its own, for it reads Slash_sum_tiles",
    ),
    "seer_target": (
        "Target: a kernel of its own, for it reads A_log, known only at the end of the walk along"
        " m, and Total, known only at the end of the walk along j, which it keeps",
        "In seer_target_total_kernel and seer_target_target_kernel it is read at other coordinates"
        " than those it is made for.",
    ),
}


def explained(cascade: einfall.Cascade, **parameters: Any) -> str:
    """Return the whole explanation, its lines joined."""
    whole = dict.fromkeys(cascade.ranks, 1)
    f = einfall.compile(cascade, target="sm_90", parts=whole)
    k = f.lower(sizes={"e": 64, "f": 64}, dtype="bfloat16", **parameters)
    return " ".join(str(k.explain()).split())


@pytest.mark.parametrize("name", CASES)
def test_explain_says_why_a_kernel_is_there(name: str) -> None:
    given = {"B": 64} if name == "seer_target" else {}
    text = explained(getattr(examples, name), **given)
    for sentence in CASES[name]:
        assert sentence in text


def test_kernels_that_wait_for_nothing_lie_along_other_ranks() -> None:
    text = explained(gradient(examples.sigmoid).backward)
    assert (
        "K_grad and V_grad: a kernel of its own, for its programs lie along m and walk p, those of"
        " Q_grad along p and walk m"
    ) in text
