"""Splitting a reduced rank keeps every example's value, also where parts are empty."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import einfall
from einfall import examples
from einfall.backends.interpreter import evaluate
from einfall.examples.inputs import make
from einfall.ir.cascade import Cascade
from einfall.ir.errors import PassError
from einfall.ir.mapping import Cut
from einfall.ir.notation import cascade as parse
from einfall.ir.scalar import scalar
from einfall.ir.show import show_expression
from einfall.ir.sizes import bind_parameters, rank_sizes
from einfall.ir.verify import verify
from einfall.passes.divide import divide
from einfall.passes.pipeline import Known, every_size, run
from einfall.passes.short_ranks import RESIDENT_LIMIT
from einfall.passes.split_rank import split, split_rank

ITERATIVE = ("fusemax_1pass", "fusemax_cascade3")

PARTS = (1, 3, 9)
"""Numbers of parts: the whole rank, an odd cut, and more parts than some ranks have coordinates."""


WHOLE = {"ada_spa": 3, "fusemax_cascade1": 0, "fusemax_cascade2": 0, "radial_mask": 0}
"""Coordinates held whole of examples whose tiny ranks would all be."""


def outputs(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


@pytest.mark.parametrize("name", sorted(set(examples.names()) - set(ITERATIVE)))
def test_parts_merge_to_the_whole(name: str) -> None:
    cascade: Cascade = getattr(examples, name)
    tensors, parameters = make(name, seed=5, scale="tiny", dtype="float64")
    arrays = [np.asarray(x) for x in tensors]
    values = bind_parameters(cascade, parameters)
    shapes = {n: x.shape for n, x in zip(cascade.inputs, arrays, strict=True)}
    sizes = rank_sizes(cascade, shapes, values)
    known = Known(sizes, shapes, values, dict.fromkeys(cascade.inputs, "float32"))
    *_, last = run(cascade, known)
    sizes = every_size(last.after, known)
    truth = outputs(einfall.interpret(cascade, *arrays, **parameters))
    memory = dict(zip(cascade.inputs, arrays, strict=True))
    # what lists put in place is made at once
    groups = divide(last.after, sizes=sizes, limit=WHOLE.get(name, RESIDENT_LIMIT))
    walking = [g for g in groups if g.streamed is not None and not g.views]
    assert walking, "nothing is compared"
    for group in walking:
        if group.segments:
            with pytest.raises(PassError, match="walked in segments"):
                split(last.after, group.streamed, slice=group.slice, targets=group.targets)
            continue
        pair = last.after, group.streamed
        found = [split(*pair, slice=group.slice, targets=group.targets)]
        # as if every program had one row, so that each may begin elsewhere
        ranks = frozenset(last.after.ranks)
        single = split(*pair, slice=group.slice, targets=group.targets, apart=ranks)
        found += [single] if single[1].extent is not None else []
        for after, cut in found:
            check(after, cut, memory, sizes, values, truth)


def check(
    after: Cascade,
    cut: Cut,
    memory: dict[str, Any],
    sizes: dict[str, int],
    values: dict[str, Any],
    truth: tuple[Any, ...],
) -> None:
    """Compare a cascade in parts with the whole, for several numbers of parts."""
    verify(after)
    assert parse(str(after)) == after
    for parts in PARTS:
        stretch = sizes[cut.positions or cut.rank]
        if cut.extent is not None:
            known = scalar(cut.extent, sizes, values)
            assert known is not None
            stretch = max(1, int(known))
        step = -(-stretch // parts)
        count = parts + (cut.extent is not None)
        given = {r: n for r, n in sizes.items() if r in after.ranks} | {cut.part: count}
        found = evaluate(after, memory, {**values, cut.step: step}, sizes=given)
        for tensor, expected in zip(after.outputs, truth, strict=True):
            got = found[tensor].filled()
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_parts_are_those_of_the_stretch_that_a_row_walks() -> None:
    cascade = parse(str(examples.sliding_window))
    known = Known({"p": 1, "m": 900}, {}, {"W": 100}, dict.fromkeys(cascade.inputs, "float16"))
    *_, last = run(cascade, known)
    for single, extent in (({"p"}, "min(size(m), W)"), (set(), None)):
        after, cut = split(last.after, "m", apart=frozenset(single))
        assert (None if cut.extent is None else show_expression(cut.extent)) == extent
        assert ("// m_step" in str(after)) is (extent is not None)
    whole = parse(str(examples.causal))
    *_, last = run(whole, replace(known, parameters={}))
    assert split(last.after, "m", apart=frozenset({"p"}))[1].extent is None


def test_a_row_without_points_stays_empty() -> None:
    cascade = parse("""
def rows(S, V):
    X[p, m: m < p] = S[p, m]
    G[p] = max[m](X[p, m])
    N[p, m] = exp(X[p, m] - G[p])
    D[p] = sum[m](N[p, m])
    O[p] = sum[m](N[p, m] * V[m]) / D[p]
    L[p] = G[p] + log(D[p])
    return O, L
""")
    before = parse(str(cascade))
    after = split_rank(parse(str(list(run(before, Known()))[-1].after)), rank="m")
    S, V = np.random.default_rng(0).normal(size=(4, 6)), np.arange(6.0)
    found, lse = einfall.interpret(after, S, V, sizes={"m_part": 4}, m_step=2)
    expected = einfall.interpret(before, S, V)
    np.testing.assert_allclose(found, expected[0], rtol=1e-12)
    np.testing.assert_allclose(lse, expected[1], rtol=1e-12)
    assert found[0] == 0 and lse[0] == -np.inf


def test_a_state_that_does_not_merge_is_refused() -> None:
    cascade = parse("""
def centred(S):
    G[p] = max[m](S[p, m])
    O[p] = sum[m](sigmoid(S[p, m] - G[p]))
    return O
""")
    with pytest.raises(PassError, match="m of centred cannot be reduced in parts"):
        split_rank(cascade)
