"""Streaming states: what is derived, that it computes the cascade, and what is refused."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from typing import Any

import numpy
import pytest

from einfall.backends.interpreter import evaluate
from einfall.ir.cascade import Cascade, Einsum
from einfall.ir.errors import PassError
from einfall.ir.expression import Access, RankVariable, free_ranks, tensors
from einfall.ir.notation import cascade
from einfall.ir.sizes import rank_sizes
from einfall.ir.streaming import Reason, Streaming
from einfall.passes.flatten import flatten
from einfall.passes.ranges import ranges
from einfall.passes.separate import separate
from einfall.passes.stream import stream
from einfall.passes.stream_groups import split_groups
from tests.passes.stream_cases import Case
from tests.passes.stream_cases import tensors as draw_tensors
from tests.passes.stream_fold import Traversal, show
from tests.passes.stream_statistic_cases import STATISTICS
from tests.passes.stream_weighted_cases import WEIGHTED
from tests.random_cascades import random_cascade

CASES = (*WEIGHTED, *STATISTICS)
NAMES = [case.name for case in CASES]
TOLERANCE = 1e-9


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@cache
def derived(name: str) -> tuple[Cascade, Streaming]:
    """The cascade that is walked (split where the traversal is), and its traversal."""
    case = case_named(name)
    flat = case.flat()
    found = stream(flat, rank=case.rank)
    assert isinstance(found, Streaming), found
    if found.rank != case.rank:
        flat = split_groups(flat, rank=case.rank)
    return flat, found


def prepared(name: str, seed: int, spread: float | None = None) -> tuple[Traversal, dict[str, Any]]:
    """A traversal on drawn inputs, and every tensor by the interpreter."""
    case = case_named(name)
    flat, found = derived(name)
    inputs = draw_tensors(case, case.flat(), seed, spread)
    whole = evaluate(case.flat(), inputs, case.parameters)
    parameters = {**dict(flat.parameters), **case.parameters}
    sizes = rank_sizes(flat, {n: x.shape for n, x in inputs.items()}, case.parameters)
    made = {x.name if isinstance(x, Einsum) else x.tensor for x in (*found.body, *found.finalise)}
    known = {n: x for n, x in evaluate(flat, inputs, case.parameters).items() if n not in made}
    return Traversal(found, known, parameters, sizes), whole


def tiles(draw: numpy.random.Generator, size: int, permuted: bool) -> list[list[int]]:
    """Cut a rank's coordinates at random, some tiles empty."""
    order = draw.permutation(size) if permuted else numpy.arange(size)
    cuts = numpy.sort(draw.integers(0, size + 1, draw.integers(1, 5)))
    return [part.tolist() for part in numpy.split(order, cuts)]


def bracketed(traversal: Traversal, states: list[Any], draw: numpy.random.Generator) -> Any:
    """Merge neighbours in a random order until one state is left."""
    while len(states) > 1:
        at = int(draw.integers(0, len(states) - 1))
        states[at : at + 2] = [traversal.merge(states[at], states[at + 1])]
    return states[0]


def assert_same(name: str, traversal: Traversal, whole: dict[str, Any], state: Any) -> None:
    computed: dict[str, Any] = traversal.finish(state)
    for output in case_named(name).flat().outputs:
        expected, found = whole[output].filled(), computed[output]
        found = found.filled() if hasattr(found, "filled") else found
        assert not numpy.isnan(found).any(), (name, output, found)
        finite = numpy.isfinite(expected)
        numpy.testing.assert_array_equal(found[~finite], expected[~finite])
        scale = max(numpy.max(numpy.abs(expected[finite]), initial=0), 1e-30)
        error = numpy.max(numpy.abs(found[finite] - expected[finite]), initial=0.0) / scale
        assert error < TOLERANCE, (name, output, error)


@pytest.mark.parametrize("name", NAMES)
def test_fields(name: str) -> None:
    found = derived(name)[1]
    assert tuple((f.tensor, f.reducer, f.family) for f in found.fields) == case_named(name).fields


@pytest.mark.parametrize("name", NAMES)
def test_fold_is_the_cascade(name: str) -> None:
    traversal, whole = prepared(name, seed=1)
    size = traversal.sizes[traversal.streaming.rank]
    draw = numpy.random.default_rng(2)
    for cut in (
        [list(range(size))],
        [[i] for i in range(size)],
        [[], *tiles(draw, size, permuted=False), []],
        tiles(draw, size, permuted=traversal.streaming.commutative),
    ):
        assert_same(name, traversal, whole, traversal.fold(cut))


@pytest.mark.parametrize("name", NAMES)
def test_merge_in_any_bracketing(name: str) -> None:
    traversal, whole = prepared(name, seed=3)
    size = traversal.sizes[traversal.streaming.rank]
    for seed in range(2):
        draw = numpy.random.default_rng(seed)
        parts = tiles(draw, size, permuted=traversal.streaming.commutative)
        states = [traversal.fold([part]) for part in parts]
        states.insert(int(draw.integers(0, len(states) + 1)), traversal.identity())
        assert_same(name, traversal, whole, bracketed(traversal, states, draw))


@pytest.mark.parametrize(
    "name", ["attention", "shorthand", "a learned sink", "differences of two", "base two"]
)
def test_large_scores_stay_in_range(name: str) -> None:
    traversal, whole = prepared(name, seed=5, spread=40.0)
    size = traversal.sizes[traversal.streaming.rank]
    assert_same(name, traversal, whole, traversal.fold([[i] for i in reversed(range(size))]))


@pytest.mark.parametrize("name", ["attention", "entropy", "third moment"])
def test_the_certificate_can_fail(name: str) -> None:
    """Without its transport a field gives something else: the comparison sees it."""
    traversal, whole = prepared(name, seed=1)
    found = traversal.streaming
    moved = [f for f in found.fields if f.transport is not None]
    assert moved
    for f in moved:
        still = Access(f.tensor, tuple(RankVariable(r) for r in f.ranks))
        body = tuple(replace(x, transport=still) if x is f else x for x in found.body)
        broken = replace(traversal, streaming=replace(found, body=body))
        size = traversal.sizes[found.rank]
        with pytest.raises(AssertionError):
            assert_same(name, broken, whole, broken.fold([[i] for i in range(size)]))


@pytest.mark.parametrize("name", NAMES)
def test_form(name: str) -> None:
    """What a code generator relies on: order, ranks, frames before what reads them."""
    flat, found = derived(name)
    made = {e.name for e in flat.einsums}
    written = {x.name if isinstance(x, Einsum) else x.tensor for x in found.body}
    before = made - written - {e.name for e in found.finalise}
    seen: set[str] = set()
    fields = {f.tensor: f for f in found.fields}
    for item in found.body:
        if isinstance(item, Einsum):
            assert found.rank in item.ranks
            reads = set(item.reads)
            seen_name = item.name
        else:
            assert found.rank not in item.ranks
            assert item.ranks_reduced[0] == found.rank
            reads = set(tensors(item.lift)) | set(item.frame)
            assert set(free_ranks(item.lift)) <= {*item.ranks, *item.ranks_reduced}
            assert (item.transport is None) == (item.frame == ())
            assert set(item.frame) <= seen
            seen_name = item.tensor
        assert reads - set(flat.inputs) - before <= seen, (seen_name, reads)
        assert seen_name not in seen
        seen.add(seen_name)
    for e in found.finalise:
        assert found.rank not in e.ranks
        assert set(e.reads) - set(flat.inputs) - before <= seen, e.name
        assert not set(e.reads) & (written - set(fields)), e.name
        seen.add(e.name)
    assert set(flat.outputs) <= seen


def test_attention_as_text() -> None:
    assert show(derived("lower triangle")[1]) == (
        "S[p, m: m <= p] = sum[e](Q[p, e] * K[m, e] / sqrt(size(e)))\n"
        "G[p] = max[m](S[p, m])\n"
        "N[p, m] = exp(S[p, m] - G[p])\n"
        "D[p] = sum[m](N[p, m])    moved: D[p] * exp(G[p] - G_next[p])\n"
        "O_sum[p, f] = sum[m](N[p, m] * V[m, f])"
        "    moved: O_sum[p, f] * exp(G[p] - G_next[p])\n"
        "O[p, f] = O_sum[p, f] / D[p]"
    )


def test_entropy_as_text() -> None:
    assert show(derived("entropy")[1]).splitlines()[-4:] == [
        "A_D[p] = sum[m](A_N[p, m])    moved: A_D[p] * exp(A_G[p] - A_G_next[p])",
        "H_dot_sum[p] = sum[m](A_N[p, m] * (S[p, m] - A_G[p]))    moved: "
        "exp(A_G[p] - A_G_next[p]) * (H_dot_sum[p] + (A_G[p] - A_G_next[p]) * A_D[p])",
        "H_dot[p] = H_dot_sum[p] / A_D[p] - A_D[p] * log(A_D[p]) / A_D[p]",
        "H[p] = -H_dot[p]",
    ]


def test_filters_are_not_lost() -> None:
    found = derived("filters on the weights")[1]
    filters = {f.tensor: f.filter for f in found.fields}
    assert {n: f is not None for n, f in filters.items()} == {
        "G": False,
        "D": True,
        "O_sum": True,
        "C_sum": True,
        "C_sum_2": True,
    }
    weights = next(x for x in found.body if isinstance(x, Einsum) and x.name == "N")
    assert weights.filter is not None


def test_outputs_are_chosen_by_name() -> None:
    flat = case_named("rows without points").flat()
    found = stream(flat, rank="m", outputs=("D",))
    assert isinstance(found, Streaming)
    assert [f.tensor for f in found.fields] == ["G", "D"]
    assert found.finalise == ()


def test_what_stands_before_is_left_out() -> None:
    flat = flatten(
        cascade("""
def f(Q, W, K):
    X[p, e] = W[e] * Q[p, e]
    S[p, m] = X[p, e] * K[m, e]
    G[p] = max[m](S[p, m])
    return G
""")
    )
    found = stream(flat, rank="m")
    assert isinstance(found, Streaming)
    assert [x.name for x in found.body if isinstance(x, Einsum)] == ["S"]
    assert found.finalise == ()


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_random_cascades(seed: int) -> None:
    """Every traversal of a random cascade, whole and element by element from the end."""
    drawn, inputs, parameters = random_cascade(seed)
    flat = flatten(drawn)
    whole = evaluate(flat, inputs, parameters)
    sizes = rank_sizes(flat, {n: x.shape for n, x in inputs.items()}, parameters)
    written = [e.name for e in flat.einsums]
    once = [e for e in flat.einsums if written.count(e.name) == 1]
    for rank in flat.ranks:
        for wanted in (e.name for e in once if rank not in e.ranks):
            try:
                found = stream(flat, rank=rank, outputs=(wanted,))
            except PassError:
                continue
            if isinstance(found, Reason) or found.rank != rank:
                continue
            made = {
                x.name if isinstance(x, Einsum) else x.tensor
                for x in (*found.body, *found.finalise)
            }
            known = {n: x for n, x in whole.items() if n not in made}
            traversal = Traversal(found, known, {**dict(flat.parameters), **parameters}, sizes)
            expected = whole[wanted].filled().astype(float)
            for cut in ([range(sizes[rank])], [[i] for i in reversed(range(sizes[rank]))]):
                computed = traversal.finish(traversal.fold(cut))[wanted]
                values: Any = computed.filled() if hasattr(computed, "filled") else computed
                scale = numpy.max(numpy.abs(expected[numpy.isfinite(expected)]), initial=1.0)
                numpy.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9 * scale)


def test_speed() -> None:
    """0.3 s for each cascade, the import of sympy not counted; the best of two, nothing cached."""
    import sympy  # type: ignore[import-untyped]  # noqa: F401

    for case in CASES:
        flat = case.flat()
        best = float("inf")
        for _ in range(2):
            separate.cache_clear()
            start = time.perf_counter()
            stream(flat, rank=case.rank)
            best = min(best, time.perf_counter() - start)
        assert best < 0.3, (case.name, best)


def test_groups_are_split() -> None:
    """The rewrite in the docstring of ``split_groups``, and that both mean the same."""
    before = """
def f(S, W):
    G[p, g] = max[m: m // 3 == g](S[p, m])
    N[p, m] = exp(S[p, m] - G[p, m // 3])
    T[p] = sum[m](N[p, m] * W[p, m // 3])
    return T, G
"""
    after = """def f(S, W):
    G[p, g] = max[m_in](S[p, g * 3 + m_in])
    N[p, g, m_in] = exp(S[p, g * 3 + m_in] - G[p, g])
    T[p] = sum[g, m_in](N[p, g, m_in] * W[p, g])
    return T, G"""
    flat = flatten(cascade(before))
    split = split_groups(flat, rank="m")
    assert str(split).strip() == after
    draw = numpy.random.default_rng(0)
    inputs = {"S": draw.standard_normal((2, 8)), "W": draw.standard_normal((2, 3))}
    one = evaluate(flat, inputs, sizes={"g": 3})
    two = evaluate(split, inputs)
    for name in ("T", "G"):
        numpy.testing.assert_allclose(two[name].filled(), one[name].filled(), rtol=1e-13)


def test_nothing_to_split() -> None:
    flat = case_named("attention").flat()
    assert split_groups(flat, rank="m") is flat


def test_frames_are_fields_only() -> None:
    """Closed forms of the frame are inlined: what moves are accumulators."""
    for name in ("a learned sink", "two softmaxes under one divisor", "logarithm of the sum"):
        found = derived(name)[1]
        names = {f.tensor for f in found.fields}
        for f in found.fields:
            assert set(f.frame) <= names


def test_bounds_see_the_maximum() -> None:
    flat = case_named("attention").flat()
    known = ranges(flat)
    weights = flat.einsum("N").body
    assert known.bounds(weights) == (0, float("inf"))
    exponent = weights.operands[0]  # type: ignore[union-attr]
    assert known.bounded_above(exponent) == 0
