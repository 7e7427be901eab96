from __future__ import annotations

import pytest

from einfall.ir.notation import cascade
from einfall.ir.verify import verify
from einfall.passes.inline_scales import inline_scales
from tests.passes.declared import DECLARED, GIVEN
from tests.passes.same_meaning import assert_same_meaning

SCALED = """
    T[p, m] = sum[e](Q[p, e] * K[m, e])
    S[p, m: m <= p] = T[p, m] * 0.5
    G[p] = max[m](S[p, m])
    N[p, m] = exp2(S[p, m] - G[p])
"""


def lines(text: str) -> list[str]:
    c = cascade(text)
    after = inline_scales(c)
    assert inline_scales(after) is after
    assert_same_meaning(c, verify(after))
    return [str(e) for e in after.einsums]


def test_the_filter_goes_to_what_was_scaled() -> None:
    assert lines(SCALED + "    return N") == [
        "T[p, m: m <= p] = sum[e](Q[p, e] * K[m, e])",
        "G[p] = max[m](T[p, m] * 0.5)",
        "N[p, m] = exp2(T[p, m] * 0.5 - G[p])",
    ]


def test_the_filter_goes_to_the_readers_where_others_read_the_source() -> None:
    assert lines(SCALED + "    return T, N") == [
        "T[p, m] = sum[e](Q[p, e] * K[m, e])",
        "G[p] = max[m: m <= p](T[p, m] * 0.5)",
        "N[p, m: m <= p] = exp2(T[p, m] * 0.5 - G[p])",
    ]


@pytest.mark.parametrize(
    "text",
    [
        SCALED + "    return N, S",  # an output
        SCALED.replace("* 0.5", "* scale") + "    return N",  # of unknown sign
        SCALED.replace("* 0.5", "* -0.5") + "    return N",
        SCALED.replace("exp2(S[p, m] - G[p])", "exp2(S[p, m]) - G[p]") + "    return N",
        SCALED.replace("S[p, m] -", "default(S[p, m], 0) -") + "    return N",
        "S[p] = X[p] * 0.5\nN[p, m] = exp2(Y[p, m] - S[p])",  # fewer ranks: made once
        "S[p, m] = X[p, m] * 0.5\nN[p, m] = sum[j](w[j] * S[p, m - j])",  # read elsewhere
    ],
)
def test_what_stays(text: str) -> None:
    c = cascade(text)
    assert inline_scales(c) is c


def test_a_known_sign_of_a_parameter_is_enough() -> None:
    c = cascade(SCALED.replace("* 0.5", "* scale") + "    return N")
    after = inline_scales(c, parameters={"scale": 0.25})
    assert str(after.einsums[-1]) == "N[p, m] = exp2(T[p, m] * scale - G[p])"
    assert_same_meaning(c, after, scale=0.25)


@pytest.mark.parametrize("name", DECLARED)
def test_declared_cascades_keep_their_meaning(name: str) -> None:
    c = cascade(DECLARED[name])
    after = inline_scales(c)
    assert inline_scales(after) is after
    assert_same_meaning(c, verify(after), given=GIVEN.get(name))
