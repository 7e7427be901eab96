"""The derived merge: states of shares, joined by a cascade, give what one traversal gives."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from einfall import examples
from einfall.backends.interpreter import evaluate, interpret
from einfall.ir.errors import PassError
from einfall.ir.notation import cascade
from einfall.ir.streaming import Field, Streaming
from einfall.passes.flatten import flatten
from einfall.passes.merge_states import PART, merge_states, part_inputs
from einfall.passes.stream import stream
from tests.passes.test_stream import NAMES, assert_same, case_named, derived, prepared

ATTENTION = """
def attention(Q, K, V):
    S[p, m: m <= p] = Q[p, e] * K[m, e]
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = N[p, m]
    O[p, f] = N[p, m] * V[m, f] / D[p]
    L[p] = G[p] + log(D[p])
    return O, L
"""


def states(name: str, cuts: list[list[int]], seed: int) -> tuple[Any, Any, dict[str, Any]]:
    """A traversal, the truth, and the accumulators of each share, stacked along a new rank."""
    traversal, whole = prepared(name, seed)
    folded = [traversal.fold([[i] for i in share]) for share in cuts]
    parts = {
        f.tensor + PART: numpy.stack([state[f.tensor] for state in folded])
        for f in traversal.streaming.fields
    }
    return traversal, whole, parts


def shares(name: str, seed: int) -> list[list[int]]:
    """Cut the streamed rank in five shares, the first and the last of them empty."""
    traversal, _ = prepared(name, seed)
    size = traversal.sizes[traversal.streaming.rank]
    draw = numpy.random.default_rng(seed)
    commutative = traversal.streaming.commutative
    order = draw.permutation(size) if commutative else numpy.arange(size)
    inner = numpy.split(order, numpy.sort(draw.integers(0, size + 1, 2)))
    return [[], *(part.tolist() for part in inner), []]


def merged(traversal: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """Interpret the merge of a traversal, accumulators included."""
    merge = merge_states(
        traversal.streaming, rank="z", parameters=tuple(traversal.parameters.items())
    )
    given = {n: traversal.known[n] for n in merge.inputs if n not in parts}
    sizes = {r: n for r, n in traversal.sizes.items() if r in merge.ranks}
    named = {n for n, _ in merge.parameters}
    scalars = {n: x for n, x in traversal.parameters.items() if n in named}
    return evaluate(merge, {**given, **parts}, scalars, sizes)


@pytest.mark.parametrize("name", NAMES)
def test_the_merge_of_shares_is_the_cascade(name: str) -> None:
    traversal, whole, parts = states(name, shares(name, 7), 7)
    found = merged(traversal, parts)
    state = {f.tensor: found[f.tensor].filled() for f in traversal.streaming.fields}
    assert_same(name, traversal, whole, state)
    for output in case_named(name).flat().outputs:
        if output in found:
            got, expected = found[output].filled(), whole[output].filled()
            numpy.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["attention", "entropy", "third moment"])
def test_without_its_transport_the_merge_is_wrong(name: str) -> None:
    traversal, _, parts = states(name, shares(name, 7), 7)
    right = merged(traversal, parts)
    fields = [f for f in traversal.streaming.fields if f.transport is not None]
    assert fields
    for f in fields:
        still = numpy.sum(parts[f.tensor + PART], axis=0)
        if not numpy.allclose(still, right[f.tensor].filled()):
            return
    raise AssertionError("no transport matters for these shares")


def test_the_merge_as_text() -> None:
    found = stream(flatten(cascade(ATTENTION)), rank="m")
    assert isinstance(found, Streaming)
    merge = merge_states(found, rank="s", outputs=("O", "L"))
    assert merge.inputs == part_inputs(found) == ("G_part", "D_part", "O_sum_part")
    assert str(merge) == (
        "def merge(G_part, D_part, O_sum_part):\n"
        "    G[p] = max[s](G_part[s, p])\n"
        "    D[p] = sum[s: abs(G_part[s, p]) < inf](D_part[s, p] * exp(G_part[s, p] - G[p]))\n"
        "    O_sum[p, f] = sum[s: abs(G_part[s, p]) < inf](O_sum_part[s, p, f] * "
        "exp(G_part[s, p] - G[p]))\n"
        "    O[p, f] = O_sum[p, f] / D[p]\n"
        "    L[p] = G[p] + log(D[p])\n"
        "    return O, L"
    )
    assert cascade(str(merge)) == merge


def test_shares_may_all_be_empty_and_there_may_be_none() -> None:
    found = stream(flatten(cascade(ATTENTION)), rank="m")
    assert isinstance(found, Streaming)
    merge = merge_states(found, rank="s", outputs=("O", "L"))
    for count in (0, 3):
        parts = {
            "G_part": numpy.full((count, 2), -numpy.inf),
            "D_part": numpy.zeros((count, 2)),
            "O_sum_part": numpy.zeros((count, 2, 4)),
        }
        result = evaluate(merge, parts)
        numpy.testing.assert_array_equal(result["O"].filled(), numpy.zeros((2, 4)))
        numpy.testing.assert_array_equal(result["L"].filled(), [-numpy.inf] * 2)


@pytest.mark.parametrize("name", NAMES)
def test_the_merge_streams_itself(name: str) -> None:
    """The combining kernel comes from the same derivation: one traversal over the shares."""
    streaming = derived(name)[1]
    merge = merge_states(streaming, rank="z")
    again = stream(flatten(merge), rank="z", outputs=merge.outputs)
    assert isinstance(again, Streaming), again
    assert again.commutative and not any("z" in e.ranks for e in again.finalise)


def test_refusals_name_what_is_wrong() -> None:
    found = stream(flatten(cascade(ATTENTION)), rank="m")
    assert isinstance(found, Streaming)
    with pytest.raises(PassError, match="p is taken"):
        merge_states(found, rank="p")
    with pytest.raises(PassError, match="does not write S; it writes G, D"):
        merge_states(found, rank="s", outputs=("S",))
    last = found.fields[0]
    argmax = Field("I", ("p",), "argmax", ("m",), last.lift)
    with pytest.raises(PassError, match="I is reduced by argmax"):
        merge_states(Streaming("m", (argmax,), ()), rank="s")


def test_a_frame_over_fewer_points_is_no_frame() -> None:
    """Until the narrow maximum has seen a point, sums relative to it would not move with it."""
    text = """
def narrow(S):
    G[p] = max[m: m >= 5](S[p, m])
    D[p] = sum[m](exp(S[p, m] - G[p]))
    return D
"""
    found = stream(flatten(cascade(text)), rank="m")
    assert not isinstance(found, Streaming)
    assert found.tensor == "D" and "frame G is taken over fewer points" in found.text


def test_outputs_and_logarithms_merge_as_states_of_one_element_do() -> None:
    """A set of keys with output O and logarithm L is the state (L, 1, O): one key of score L."""
    draw = numpy.random.default_rng(4)
    Q, K, V = (draw.standard_normal(s) for s in ((1, 2, 9, 4), (1, 2, 9, 4), (1, 2, 9, 3)))
    halves = [HALF.replace("HALF", test) for test in ("p - m < 4", "p - m >= 4")]
    parts = [interpret(cascade(text), Q, K, V) for text in halves]
    O, L = (numpy.stack([part[k] for part in parts]) for k in (0, 1))  # noqa: E741
    assert (L[1] == -numpy.inf).any()
    merged_O, merged_L = interpret(examples.merge_partial, O, L)
    whole_O, whole_L = interpret(cascade(HALF.replace("HALF", "p >= 0")), Q, K, V)
    numpy.testing.assert_allclose(merged_O, whole_O, rtol=1e-12)
    numpy.testing.assert_allclose(merged_L, whole_L, rtol=1e-12)

    found = stream(flatten(cascade(HALF.replace("HALF", "p >= 0"))), rank="m")
    assert isinstance(found, Streaming)
    merge = merge_states(found, rank="s", outputs=("O", "L"))
    assert merge.inputs == ("G_part", "D_part", "O_sum_part")
    derived_state = {"G_part": L, "D_part": numpy.isfinite(L) * 1.0, "O_sum_part": O}
    result = evaluate(merge, derived_state)
    numpy.testing.assert_allclose(result["O"].filled(), merged_O, rtol=1e-12)
    numpy.testing.assert_allclose(result["L"].filled(), merged_L, rtol=1e-12)


HALF = """
def half(Q, K, V):
    S[b, h, p, m: m <= p and (HALF)] = Q[b, h, p, e] * K[b, h, m, e]
    G[b, h, p] = max[m](S[b, h, p, m])
    N[b, h, p, m] = exp(S[b, h, p, m] - G[b, h, p])
    D[b, h, p] = N[b, h, p, m]
    O[b, h, p, f] = N[b, h, p, m] * V[b, h, m, f] / D[b, h, p]
    L[b, h, p] = G[b, h, p] + log(D[b, h, p])
    return O, L
"""
