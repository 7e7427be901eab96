"""Traversals: the counts of the literature, recurrences, footprints, and a count by brute force."""

from __future__ import annotations

from itertools import product

import pytest

from einfall.ir.cascade import Cascade
from einfall.ir.errors import RankError
from einfall.ir.expression import Access, Expression, RankVariable, Reduce, children, free_ranks
from einfall.ir.families import RankFamily, families
from einfall.ir.notation import cascade
from einfall.ir.traversals import Footprint, Traversals, analyse, count, live_footprint
from einfall.passes.flatten import flatten
from tests.random_cascades import FEATURES, random_cascade

# FuseMax (arXiv 2406.10491): cascades 1-3, and attention in 3, 2 and 1 traversals.
TWICE = """
def twice(A, B):
    Y = A[k] * B[k]
    Z = Y * A[k]
    return Z
"""
DEFERRED = """
def deferred(A, B):
    Y = A[k] * B[k]
    X = A[k]
    Z = Y * X
    return Z
"""
ITERATIVE = """
def iterative(A, B):
    Y[0] = 0.0
    Z[0] = 0.0
    Y[k + 1] = Y[k] + A[k] * B[k]
    Z[k + 1] = Z[k] * (Y[k + 1] / Y[k]) + Y[k + 1] * A[k]
    O = Z[size(k)]
    return O
"""
THREE = """
def three(Q, K, V):
    S[p, m] = Q[p, e] * K[m, e]
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = N[p, m]
    A[p, m] = N[p, m] / D[p]
    O[p, f] = A[p, m] * V[m, f]
    return O
"""
THREE_DEFERRED = """
def three_deferred(Q, K, V):
    S[p, m] = Q[p, e] * K[m, e]
    G[p] = max[m](S[p, m])
    N[p, m] = exp(S[p, m] - G[p])
    D[p] = N[p, m]
    U[p, f] = N[p, m] * V[m, f]
    O[p, f] = U[p, f] / D[p]
    return O
"""
SHORTHAND = """
def shorthand(Q, K, V):
    S[p, m: m <= p] = Q[p, e] * K[m, e] / sqrt(size(e))
    A[p, m] = softmax[m](S[p, m])
    O[p, f] = A[p, m] * V[m, f]
    return O
"""
NESTED = """
def nested(Q, K, V):
    S[p, m] = Q[p, e] * K[m, e]
    A[p, m] = exp(S[p, m]) / sum[n](exp(S[p, n] - max[l](S[p, l])))
    O[p, f] = A[p, m] * V[m, f]
    return O
"""
NORMALISED = """
def normalised(Q, K, V, weight):
    R[p] = sum[e](Q[p, e] * Q[p, e]) / size(e)
    X[p, e] = Q[p, e] * rsqrt(R[p] + 0.001) * weight[e]
    S[p, m] = X[p, e] * K[m, e]
    A[p, m] = softmax[m](S[p, m])
    O[p, f] = A[p, m] * V[m, f]
    return O
"""
TWO = """
def two(Q, K, V, *, M0=4):
    BK[m1, m0, e] = K[m1 * M0 + m0, e]
    BV[m1, m0, f] = V[m1 * M0 + m0, f]
    S[p, m1, m0] = Q[p, e] * BK[m1, m0, e]
    LM[p, m1] = max[m0](S[p, m1, m0])
    SLN[p, m1, m0] = exp(S[p, m1, m0] - LM[p, m1])
    SLD[p, m1] = SLN[p, m1, m0]
    GM[p] = max[m1](LM[p, m1])
    PRM[p, m1] = exp(LM[p, m1] - GM[p])
    SD[p] = SLD[p, m1] * PRM[p, m1]
    SN[p, m1, m0] = SLN[p, m1, m0] * PRM[p, m1]
    A[p, m1, m0] = SN[p, m1, m0] / SD[p]
    O[p, f] = A[p, m1, m0] * BV[m1, m0, f]
    return O
"""
ONE = """
def one(Q, K, V, *, M0=4):
    RM[0, p] = -inf
    RD[0, p] = 0.0
    RV[0, p, f] = 0.0
    BK[m1, m0, e] = K[m1 * M0 + m0, e]
    BV[m1, m0, f] = V[m1 * M0 + m0, f]
    S[p, m1, m0] = Q[p, e] * BK[m1, m0, e]
    LM[p, m1] = max[m0](S[p, m1, m0])
    RM[m1 + 1, p] = max(RM[m1, p], LM[p, m1])
    SLN[p, m1, m0] = exp(S[p, m1, m0] - RM[m1 + 1, p])
    SLD[p, m1] = SLN[p, m1, m0]
    SLV[p, m1, f] = SLN[p, m1, m0] * BV[m1, m0, f]
    PRM[p, m1] = exp(RM[m1, p] - RM[m1 + 1, p])
    SPD[p, m1] = RD[m1, p] * PRM[p, m1]
    RD[m1 + 1, p] = SLD[p, m1] + SPD[p, m1]
    SPV[p, m1, f] = RV[m1, p, f] * PRM[p, m1]
    RV[m1 + 1, p, f] = SLV[p, m1, f] + SPV[p, m1, f]
    O[p, f] = RV[size(m1), p, f] / RD[size(m1), p]
    return O
"""
SPLIT = """
def split(Q, K, V, *, M0=4):
    S[p, m1, m0] = Q[p, e] * K[m1 * M0 + m0, e]
    LM[p, m1] = max[m0](S[p, m1, m0])
    N[p, m1, m0] = exp(S[p, m1, m0] - LM[p, m1])
    LD[p, m1] = N[p, m1, m0]
    LO[p, m1, f] = N[p, m1, m0] * V[m1 * M0 + m0, f]
    G[p] = max[m1](LM[p, m1])
    R[p, m1] = exp(LM[p, m1] - G[p])
    D[p] = LD[p, m1] * R[p, m1]
    O[p, f] = sum[m1](LO[p, m1, f] * R[p, m1]) / D[p]
    return O
"""
COLUMN_SUMS = """
def column_sums(Q, K):
    S[p, m] = Q[p, e] * K[m, e]
    A[p, m] = softmax[m](S[p, m])
    C[m] = A[p, m]
    return C
"""
STATE = """
def state(Q, K, V, a):
    H[0, e, f] = 0.0
    H[i + 1, e, f] = a[i] * H[i, e, f] + K[i, e] * V[i, f]
    O[i, f] = Q[i, e] * H[i + 1, e, f]
    return O
"""
SCALED_STATE = """
def scaled_state(X, W):
    H[0, e] = 1.0
    N[i] = sum[e](H[i, e] * H[i, e])
    H[i + 1, e] = X[i, e] + H[i, e] / sqrt(N[i])
    O[e] = H[size(i), e] * W[e]
    return O
"""
MIXED_STATE = """
def mixed_state(X, W):
    H[0, e] = 1.0
    H[i + 1, e] = X[i, e] + sum[c](W[e, c] * H[i, c])
    O[e] = H[size(i), e] * X[0, e]
    return O
"""
BACK = """
def back(X, Y):
    H[0] = 0.0
    H[i + 1] = 0.5 * H[i] + X[i]
    G[size(i)] = 0.0
    G[i] = 0.5 * G[i + 1] + H[i + 1] * Y[i]
    O[i] = H[i + 1] + G[i]
    return O
"""
SELECTED = """
def selected(Q, K, V):
    C[p, m] = Q[p, 0] * K[m, 0]
    T[p, j] = topk[m, 4](C[p, m])
    S[p, j] = Q[p, e] * K[T[p, j], e]
    A[p, j] = softmax[j](S[p, j])
    O[p, f] = A[p, j] * V[T[p, j], f]
    return O
"""

STARTED = """
def started(A):
    H[0] = max[k](A[k])
    H[k + 1] = H[k] * A[k]
    O = H[size(k)]
    return O
"""
TILES_WAIT = """
def tiles_wait(X, *, B=4):
    G[p] = sum[j, r](X[p, j * B + r])
    H[0, p] = 1.0
    N[p, j, r] = X[p, j * B + r] * H[j, p]
    L[p, j] = max[r](N[p, j, r])
    H[j + 1, p] = L[p, j] / G[p]
    O[p] = H[size(j), p]
    return O
"""

COUNTS: dict[str, tuple[str, str, int, dict[str, set[int]]]] = {
    "cascade 1": (TWICE, "k", 2, {"A": {1, 2}, "B": {1}}),
    "cascade 2": (DEFERRED, "k", 1, {"A": {1}, "B": {1}}),
    "cascade 3": (ITERATIVE, "k", 1, {"A": {1}, "B": {1}, "Z": {1}}),
    "three": (THREE, "m", 3, {"K": {1, 2, 3}, "V": {3}, "S": {1, 2, 3}, "N": {2, 3}, "Q": set()}),
    "three, flat in p": (THREE, "p", 1, {"Q": {1}, "K": set()}),
    "three, deferred division": (THREE_DEFERRED, "m", 2, {"K": {1, 2}, "V": {2}}),
    "shorthand": (SHORTHAND, "m", 3, {"K": {1, 2, 3}, "V": {3}, "A_N": {2, 3}}),
    "two": (TWO, "m0", 2, {"K": {1, 2}, "V": {2}, "SLN": {1, 2}, "PRM": {2}}),
    "one": (ONE, "m1", 1, {"K": {1}, "V": {1}}),
    "split, then combined": (SPLIT, "m0", 1, {"K": {1}, "V": {1}}),
    "normalised, over keys": (NORMALISED, "m", 3, {"K": {1, 2, 3}, "V": {3}}),
    "normalised, over features": (NORMALISED, "e", 2, {"Q": {1, 2}, "K": {2}, "weight": {2}}),
    "column sums, over keys": (COLUMN_SUMS, "m", 3, {"K": {1, 2, 3}}),
    "column sums, over queries": (COLUMN_SUMS, "p", 1, {"Q": {1}, "A": {1}}),
    "state, along the iteration": (STATE, "i", 1, {"Q": {1}, "K": {1}, "V": {1}, "a": {1}}),
    "state, across it": (STATE, "e", 1, {"Q": {1}, "K": {1}, "H": {1}}),
    "scaled state, along": (SCALED_STATE, "i", 1, {"X": {1}}),
    # Two walks in each generation, and one more after the last.
    "scaled state, across": (SCALED_STATE, "e", 3, {"X": {2}, "H": {1, 2, 3}, "W": {3}}),
    # Each generation mixes e, so the last one is complete before anything walks it.
    "mixed state": (MIXED_STATE, "e", 2, {"X": {1, 2}, "W": {1}}),
    "back": (BACK, "i", 2, {"X": {1}, "Y": {2}, "H": {1, 2}, "G": {2}}),
    "an iteration that starts late": (STARTED, "k", 2, {"A": {1, 2}, "H": {2}}),
    "tiles that wait for a sum": (TILES_WAIT, "r", 2, {"X": {1, 2}, "H": {2}}),
    "selected, over keys": (SELECTED, "m", 1, {"K": {1}, "C": {1}, "V": set()}),
    "selected, over the list": (SELECTED, "j", 3, {"K": {1, 2, 3}, "V": {3}, "T": {1, 2, 3}}),
}


@pytest.mark.parametrize(("text", "rank", "levels", "wanted"), COUNTS.values(), ids=COUNTS.keys())
def test_counts(text: str, rank: str, levels: int, wanted: dict[str, set[int]]) -> None:
    found = count(cascade(text), rank)
    assert found.levels == levels
    assert {tensor: set(found.traversals_of[tensor]) for tensor in wanted} == wanted
    assert len(found.reasons) == levels


def test_every_einsum_has_its_traversal_and_every_traversal_its_reason() -> None:
    found = count(cascade(THREE), "m")
    assert found.einsum_level == {"S": 1, "G": 1, "N": 2, "D": 2, "A": 3, "O": 3}
    assert found.reasons == (
        "Traversal 1 of m: S walks it.",
        "Traversal 2 of m: N reads G, and G = max[m](S[p, m]) is known only at the end of "
        "traversal 1.",
        "Traversal 3 of m: A reads D, and D = sum[m](N[p, m]) is known only at the end of "
        "traversal 2.",
    )


def test_a_reason_names_the_reduction_behind_a_summary() -> None:
    found = count(cascade(TWO), "m0")
    assert found.reasons[1] == (
        "Traversal 2 of m1, m0: SN reads PRM, which waits for GM, and GM = max[m1](LM[p, m1]) is "
        "known only at the end of traversal 1."
    )
    assert found.einsum_level["PRM"] == found.einsum_level["SD"] == 1


@pytest.mark.parametrize("text", [NESTED, NORMALISED, TWO, SCALED_STATE, BACK])
def test_an_einsum_that_holds_its_reductions_counts_like_a_flat_one(text: str) -> None:
    before = cascade(text)
    after = flatten(before)
    assert (after is before) == (text in (TWO, SCALED_STATE, BACK))
    for rank in before.ranks:
        whole, flat = count(before, rank), count(after, rank)
        assert whole.levels == flat.levels
        assert {t: flat.traversals_of[t] for t in whole.traversals_of} == whole.traversals_of
        assert whole.einsum_level.items() <= flat.einsum_level.items()


def test_other_names_of_a_rank_are_walked_with_it() -> None:
    # The sums over n and l read what is walked along m, whole; named as one they are two walks.
    assert count(cascade(NESTED), "m").levels == 2
    named = count(cascade(NESTED), RankFamily("m", also=("n", "l")))
    assert named.levels == 3
    assert named.traversals_of["K"] == {1, 2, 3}


def test_analyse_answers_for_every_rank_and_once_for_a_family() -> None:
    found = analyse(cascade(TWO))
    assert {rank: t.levels for rank, t in found.items()} == {
        "m1": 2, "m0": 2, "e": 1, "f": 1, "p": 1,
    }  # fmt: skip
    assert found["m0"] is found["m1"]
    assert found["m0"].family == RankFamily("m0", ("m1",))


def test_what_crosses_traversals_is_held_whole() -> None:
    assert live_footprint(cascade(THREE), "m") == (
        Footprint("S", ("m",), ("p",), (1, 2)),
        Footprint("N", ("m",), ("p",), (2, 3)),
    )
    assert live_footprint(cascade(TWICE), "k") == (Footprint("A", ("k",), (), (1, 2)),)
    assert live_footprint(cascade(DEFERRED), "k") == ()
    assert live_footprint(cascade(ONE), "m0") == ()
    assert live_footprint(cascade(NORMALISED), "e")[0] == Footprint("Q", ("e",), ("p",), (1, 2))


def test_summaries_of_tiles_are_held_where_the_elements_are_not() -> None:
    held = {x.tensor: x for x in live_footprint(cascade(SPLIT), "m0")}
    assert set(held) == {"LM", "LD", "LO"}
    assert held["LO"] == Footprint("LO", ("m1",), ("p", "f"), (1,))
    assert {x.tensor for x in live_footprint(cascade(TWO), "m0")} == {"LM", "SLN", "SLD", "PRM"}


def test_a_rank_that_is_not_there() -> None:
    with pytest.raises(RankError, match="'z' is none of p, m, e, f"):
        count(cascade(THREE), "z")
    with pytest.raises(RankError, match="'m1' is none of"):
        live_footprint(cascade(THREE), RankFamily("m", ("m1",)))


@pytest.mark.parametrize(
    ("coordinate", "levels"),
    [
        ("m", 1),
        ("m + 1", 1),
        ("m - W", 1),
        ("size(m) - 1 - m", 2),
        ("2 * m", 2),
        ("m % 4", 2),
        ("m // 4", 2),
        ("I[m]", 2),
        ("p", 2),
    ],
)
def test_a_reading_out_of_step_waits(coordinate: str, levels: int) -> None:
    text = f"""
    def f(X, Y, I, *, W=2):
        S[p, m] = X[p, m] * Y[m]
        O[p] = sum[m](S[p, {coordinate}] * Y[m] + I[m] + W)
        return O
    """
    found = count(cascade(text), "m")
    assert found.levels == levels
    # S is made in the first traversal, for then it is whole in the second.
    assert found.traversals_of["X"] == {1}
    assert found.traversals_of["S"] == ({levels} if "m" in coordinate else set())


def test_a_list_is_written_at_once() -> None:
    found = count(cascade(SELECTED), "j")
    assert found.einsum_level == {**found.einsum_level, "C": 0, "T": 0, "S": 1}


def test_tiles_are_read_in_step_with_their_elements() -> None:
    c = cascade(
        """
        def f(X, *, B=4):
            C[p, j] = max[r](X[p, j * B + r])
            O[p] = sum[m](X[p, m] * C[p, m // B])
            return O
        """
    )
    assert families(c) == (RankFamily("r", ("j",), ("m",)),)
    assert count(c, "m").levels == 1
    assert count(c, RankFamily("m")).levels == 1


def test_a_concatenation_is_walked_with_its_parts() -> None:
    text = """
    def f(Q, K, V, L, U):
        S[p, m] = Q[p, e] * K[m, e]
        T[p, c] = Q[p, e] * L[c, e]
        C[p, n] = concat[n](S[p, m], T[p, c])
        W[n, f] = concat[n](V[m, f], U[c, f])
        A[p, n] = softmax[n](C[p, n])
        O[p, f] = A[p, n] * W[n, f]
        return O
    """
    assert families(cascade(text)) == (RankFamily("n", (), ("m", "c")),)
    found = count(cascade(text), "m")
    assert found.levels == 3
    assert found.traversals_of["K"] == found.traversals_of["L"] == {1, 2, 3}
    assert found.traversals_of["V"] == found.traversals_of["U"] == {3}


@pytest.mark.parametrize("first", range(0, 60, 30))
def test_random_cascades_of_every_kind_count_like_their_flat_forms(first: int) -> None:
    for seed in range(first, first + 30):
        c, _, _ = random_cascade(seed)
        flat = analyse(flatten(c))
        for rank, found in analyse(c).items():
            assert found.levels == flat[rank].levels == len(found.reasons)
            wanted = flat[rank].traversals_of
            assert {t: wanted[t] for t in found.traversals_of} == found.traversals_of
            held = live_footprint(c, found.family)
            assert all(x.whole and set(x.whole) <= set(found.family.ranks) for x in held)


Time = tuple[int, int]


def earliest(c: Cascade, rank: str, size: int = 2) -> int:
    """Count traversals by brute force: every point is visited as early as what it reads allows.

    A moment is (traversal, coordinate); elements are visited upwards. Every rank has ``size``
    coordinates.
    """
    end = size
    moments: dict[str, dict[tuple[int, ...], Time]] = {}
    last = 0

    def visit(after: Time, at: int | None) -> Time:
        nonlocal last
        if at is None:
            return after
        level, position = after
        found = (level, at) if level and at >= position else (level + 1, at)
        last = max(last, found[0])
        return found

    def ready(x: Expression, point: dict[str, int]) -> Time:
        match x:
            case Access(tensor=tensor, coordinates=coordinates) if tensor in moments:
                plain = [d.rank for d in coordinates if isinstance(d, RankVariable)]
                known = moments[tensor]
                fiber = tuple(point[r] for r in plain)
                return max(t for at, t in known.items() if at[: len(fiber)] == fiber)
            case Reduce(ranks=ranks, body=body):
                walked = {*ranks, *free_ranks(body)}
                times = []
                for at in product(range(size), repeat=len(ranks)):
                    inner = {**point, **dict(zip(ranks, at, strict=True))}
                    parts = [ready(child, inner) for child in children(x)]
                    times.append(visit(max(parts), inner[rank] if rank in walked else None))
                latest = max(times)
                return (latest[0], end) if rank in ranks else latest
            case _:
                return max((ready(child, point) for child in children(x)), default=(0, end))

    for einsum in c.einsums:
        written: dict[tuple[int, ...], Time] = {}
        ranks = einsum.ranks
        for at in product(range(size), repeat=len(ranks)):
            point = dict(zip(ranks, at, strict=True))
            time = ready(einsum.body, point)
            if einsum.filter is not None:
                time = max(time, ready(einsum.filter, point))
            written[at] = visit(time, point.get(rank))
        moments[einsum.name] = written
    return last


def test_brute_force_counts_what_the_literature_counts() -> None:
    for text, levels in (
        (TWICE, 2),
        (DEFERRED, 1),
        (THREE, 3),
        (THREE_DEFERRED, 2),
        (SHORTHAND, 3),
    ):
        c = cascade(text)
        assert earliest(c, "k" if "k" in c.ranks else "m") == levels


@pytest.mark.parametrize("first", range(0, 150, 50))
def test_random_cascades_count_what_brute_force_counts(first: int) -> None:
    features = FEATURES - {"coordinate", "gather", "selection", "concatenation", "iteration"}
    several = 0
    for seed in range(first, first + 50):
        c, _, _ = random_cascade(seed, features)
        for rank, found in analyse(c).items():
            assert isinstance(found, Traversals)
            assert found.levels == earliest(c, rank), (rank, str(c))
            assert (
                max((max(k) for k in found.traversals_of.values() if k), default=0) <= found.levels
            )
            several += found.levels > 1
    assert several > 10
