from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest

from einfall.ir.cascade import Cascade
from einfall.ir.notation import cascade
from einfall.ir.verify import verify
from einfall.passes.base_two import base_two
from einfall.passes.cancel_norms import cancel_norms
from einfall.passes.defer import defer
from einfall.passes.flatten import flatten
from einfall.passes.fold import fold_cascade
from einfall.passes.inline_scales import inline_scales
from einfall.passes.reassociate import reassociate
from einfall.passes.share import share
from einfall.passes.simplify import simplify
from tests.passes.declared import DECLARED, GIVEN
from tests.passes.same_meaning import assert_same_meaning, results
from tests.random_cascades import random_cascade


def chain(c: Cascade) -> Cascade:
    return simplify(base_two(reassociate(simplify(c))), extrema=True)


PASSES: tuple[Callable[[Cascade], Cascade], ...] = (
    fold_cascade,
    share,
    cancel_norms,
    defer,
    inline_scales,
    base_two,
    reassociate,
    simplify,
)


def test_the_kernel_of_a_stabilised_sum_has_one_fused_multiplication_a_point() -> None:
    after = chain(cascade(DECLARED["three_traversals"]))
    scale = "(1.4426950408889634 / sqrt(size(e)))"
    assert [str(e) for e in after.einsums] == [
        "T[p, m: m <= p + 1] = sum[e](Q[p, e] * K[m, e])",
        "G_max[p] = max[m](T[p, m])",
        f"G[p] = G_max[p] * {scale}",
        f"N[p, m] = exp2(T[p, m] * {scale} - G[p])",
        "D[p] = sum[m](N[p, m])",
        "O_sum[p, f] = sum[m](N[p, m] * V[m, f])",
        "O[p, f] = O_sum[p, f] / D[p]",
        "L[p] = G[p] * 0.6931471805599453 + log(D[p])",
    ]


def test_known_sizes_leave_one_constant() -> None:
    after = simplify(chain(cascade(DECLARED["three_traversals"])), sizes={"e": 64})
    assert str(after.einsum("N")) == "N[p, m] = exp2(T[p, m] * 0.18033688011112042 - G[p])"


def test_what_shares_after_folding_dies_before_it_is_deferred() -> None:
    after = simplify(
        cascade("""
        S[p, m] = X[p, m] * 1 + 0
        N[p, m] = exp(X[p, m])
        M[p, m] = exp(X[p, m] + 0)
        D[p] = sum[m](M[p, m])
        C[p] = sum[m](N[p, m] * 2 * 3)
        E[p] = max[m](S[p, m])
        O[p] = C[p] / D[p]
        return O
    """)
    )
    assert [str(e) for e in after.einsums] == [
        "N[p, m] = exp(X[p, m])",
        "D[p] = sum[m](N[p, m])",
        "C[p] = D[p] * 6",
        "O[p] = C[p] / D[p]",
    ]


@pytest.mark.parametrize("name", DECLARED)
def test_declared_cascades_keep_their_meaning(name: str) -> None:
    c = cascade(DECLARED[name])
    for run in (simplify, chain):
        after = run(c)
        assert run(after) is after or run is chain
        assert_same_meaning(c, verify(after), given=GIVEN.get(name))
    assert simplify(chain(c), extrema=True) == chain(c)


@pytest.mark.parametrize("first", range(0, 160, 40))
def test_random_cascades_keep_their_meaning(first: int) -> None:
    for seed in range(first, first + 40):
        drawn, arrays, parameters = random_cascade(seed)
        c = flatten(drawn)
        expected = results(c, arrays, parameters)
        for run in (*PASSES, chain):
            after = run(c)
            if after is c:
                continue
            verify(after)
            if run is not chain:
                assert run(after) is after, f"seed {seed}: {run.__name__} has more to do"
            found = results(after, arrays, parameters)
            for name, x, y in zip(c.outputs, found, expected, strict=True):
                where = f"seed {seed}, {run.__name__}, {name}"
                size = float(numpy.max(numpy.abs(y[numpy.isfinite(y)].astype(float)), initial=0))
                numpy.testing.assert_allclose(
                    x, y, rtol=1e-10, atol=1e-12 * (size + 1), err_msg=where
                )
