from __future__ import annotations

import itertools

import pytest

from einfall.ir.cascade import Cascade
from einfall.ir.expression import Constant
from einfall.ir.notation import cascade
from einfall.ir.verify import verify
from einfall.passes.contraction import Leaf, Network, best_order
from einfall.passes.defer import defer
from einfall.passes.reassociate import reassociate
from tests.passes.declared import DECLARED, GIVEN
from tests.passes.same_meaning import assert_same_meaning

PAIR = """
    A[p, m] = sum[e](X[p, e] * Y[m, e])
    O[p, f] = sum[m](A[p, m] * V[m, f])
"""


def lines(text: str, **sizes: int) -> list[str]:
    c = cascade(text)
    after = reassociate(c, sizes=sizes)
    assert reassociate(after, sizes=sizes) is after
    assert_same_meaning(c, verify(after))
    return [str(e) for e in after.einsums]


def test_a_tensor_of_two_open_ranks_gives_way_to_one_of_widths() -> None:
    assert lines(PAIR) == [
        "O_ef[e, f] = sum[m](Y[m, e] * V[m, f])",
        "O[p, f] = sum[e](X[p, e] * O_ef[e, f])",
    ]


def test_sizes_decide() -> None:
    c = cascade(PAIR)
    # 8 * 8 * (512 + 512) as written, 2 * 8 * 512 * 512 the other way
    assert reassociate(c, sizes={"p": 8, "m": 8, "e": 512, "f": 512}) is c
    assert reassociate(c, sizes={"p": 512, "m": 512, "e": 8, "f": 8}) is not c


def test_every_reader_counts() -> None:
    c = cascade(PAIR + "    N[p, m] = exp(A[p, m])\n    return O, N")
    assert [e.name for e in reassociate(c).einsums] == ["A", "O_ef", "O", "N"]
    sizes = {"p": 64, "m": 64, "e": 64, "f": 64}
    assert reassociate(c, sizes=sizes) is c  # A is computed anyway: 1 contraction beats 2


@pytest.mark.parametrize("filter", ["m <= p", "m == p or m < 2", "doc[m] == doc[p]"])
def test_a_filter_that_couples_the_open_ranks_forbids_it(filter: str) -> None:
    c = cascade(PAIR.replace("A[p, m]", f"A[p, m: {filter}]", 1))
    assert reassociate(c) is c
    c = cascade(PAIR.replace("sum[m](", f"sum[m: {filter}]("))
    assert reassociate(c) is c


def test_a_filter_of_one_rank_goes_with_it() -> None:
    assert lines(PAIR.replace("A[p, m]", "A[p, m: m < 4]", 1)) == [
        "O_ef[e, f] = sum[m: m < 4](Y[m, e] * V[m, f])",
        "O[p, f] = sum[e](X[p, e] * O_ef[e, f])",
    ]
    assert lines(PAIR.replace("A[p, m]", "A[p, m: p < 4]", 1))[-1] == (
        "O[p, f] = sum[e: p < 4](X[p, e] * O_ef[e, f])"
    )


def test_absent_factors_are_left_out_either_way() -> None:
    text = """
        W[m, f: f <= m] = V[m, f] * V[m, f]
        A[p, m] = sum[e](X[p, e] * Y[m, e])
        O[p, f] = sum[m](A[p, m] * W[m, f])
    """
    assert lines(text)[1] == "O_ef[e, f] = sum[m](Y[m, e] * W[m, f])"


def test_nothing_but_products_is_looked_through() -> None:
    for body in ("exp(A[p, m]) * V[m, f]", "(A[p, m] + 1) * V[m, f]", "V[m, f] / A[p, m]"):
        c = cascade(PAIR.replace("A[p, m] * V[m, f]", body))
        assert reassociate(c) is c


def test_infinities_forbid_it() -> None:
    text = PAIR.replace("    A[p", "    B[m] = max[f](V[m, f])\n    A[p", 1)
    c = cascade(text.replace("* V[m, f]", "* V[m, f] * B[m]"))
    assert reassociate(c) is c


def test_a_product_of_separable_factors_is_looked_through() -> None:
    text = """
        A[p, m] = sum[e](X[p, e] * Y[m, e])
        B[p, m] = A[p, m] * a[p] * b[m]
        O[p, f] = sum[m](B[p, m] * V[m, f])
    """
    c = cascade(text)
    after = reassociate(defer(c))
    assert all({"p", "m"} - set(e.ranks) for e in after.einsums), str(after)
    assert_same_meaning(c, verify(after))


def test_a_product_that_is_made_anyway_is_used() -> None:
    text = """
        N[p, m: m <= p] = exp(X[p, m])
        O[p, f] = sum[m](N[p, m] * V[m, f])
        U[p, m] = sum[f](W[p, f] * V[m, f])
        R[p] = sum[m](N[p, m] * U[p, m])
        S[p, m] = N[p, m] * (U[p, m] - R[p])
        return O, S
    """
    assert lines(text)[3] == "R[p] = sum[f](O[p, f] * W[p, f])"
    later = text.replace("        O[p, f] = sum[m](N[p, m] * V[m, f])\n", "").replace(
        "        return", "        O[p, f] = sum[m](N[p, m] * V[m, f])\n        return"
    )
    c = cascade(later)
    assert reassociate(c) is c  # O is not there yet


def test_a_chain_of_four_is_ordered_as_a_whole() -> None:
    text = """
        S[p, m] = sum[e](A[p, e] * B[e, m])
        T[p, n] = sum[m](S[p, m] * C[m, n])
        O[p, f] = sum[n](T[p, n] * D[n, f])
    """
    # (A ((B C) D)) costs 30; from the left 1000 + 1000 + 100
    sizes = {"p": 10, "e": 1, "m": 100, "n": 1, "f": 1}
    assert lines(text, **sizes)[-1].startswith("O[p, f] = sum[e](A[p, e] * ")


def test_a_width_that_both_sides_have_is_told_apart() -> None:
    text = """
        A[p, m] = sum[e](X[p, e] * Y[m, e])
        O[p, e] = sum[m](A[p, m] * V[m, e])
    """
    assert lines(text, p=512, m=512, e=4) == [
        "O_e_2e[e_2, e] = sum[m](Y[m, e_2] * V[m, e])",
        "O[p, e] = sum[e_2](X[p, e_2] * O_e_2e[e_2, e])",
    ]


def test_the_search_finds_the_best_of_all_orders() -> None:
    sizes = {"a": 7, "b": 2, "c": 11, "d": 3, "g": 5}
    ranks = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "g")]
    leaves = tuple(Leaf(Constant(k), frozenset(r)) for k, r in enumerate(ranks))
    found, _ = best_order(Network(leaves, (), frozenset("ag")), sizes, lambda node: False)

    def cheapest(first: int, last: int) -> float:
        """Order a matrix chain by the textbook recursion."""
        n = [7, 2, 11, 3, 5]
        if first == last:
            return 0.0
        return min(
            cheapest(first, k) + cheapest(k + 1, last) + n[first] * n[k + 1] * n[last + 1]
            for k in range(first, last)
        )

    assert found == cheapest(0, 3)


def test_a_condition_holds_its_ranks_until_it_is_applied() -> None:
    sizes = dict.fromkeys("pmef", 10)
    leaves = tuple(Leaf(Constant(k), frozenset(r)) for k, r in enumerate(("pe", "me", "mf")))
    coupled = ((Constant(True), frozenset("pm")),)
    free, _ = best_order(Network(leaves, (), frozenset("pf")), {**sizes, "p": 1000}, none)
    held, _ = best_order(Network(leaves, coupled, frozenset("pf")), {**sizes, "p": 1000}, none)
    assert free == 10 * 10 * 10 + 1000 * 10 * 10
    assert held == 2 * 1000 * 10 * 10


def none(node: object) -> bool:
    return False


def made(c: Cascade) -> set[frozenset[str]]:
    return {frozenset(e.ranks) for e in c.einsums}


def test_linear_attention_holds_no_pair_of_sequence_ranks() -> None:
    c = cascade(DECLARED["linear"])
    after = reassociate(defer(c))
    assert all(not {"p", "m"} <= ranks for ranks in made(after)), str(after)
    assert_same_meaning(c, verify(after))


@pytest.mark.parametrize(
    ("name", "sizes"),
    [*itertools.product(DECLARED, ({}, dict.fromkeys("bhpm", 512), dict.fromkeys("ef", 512)))],
)
def test_declared_cascades_keep_their_meaning(name: str, sizes: dict[str, int]) -> None:
    c = cascade(DECLARED[name])
    after = reassociate(c, sizes=sizes)
    assert reassociate(after, sizes=sizes) is after
    assert_same_meaning(c, verify(after), given=GIVEN.get(name))


def test_what_a_tensor_that_stays_is_made_of_stays_too() -> None:
    """Y is read twice, so X is needed; to write both out in D again was never cheaper."""
    gated = cascade("""
def gated(G, V, g, A):
    X[p, m] = sum[f](G[p, f] * V[m, f])
    Y[p, m] = X[p, m] * g[m]
    D[p] = sum[m](Y[p, m] * A[p, m])
    Z[p, m] = A[p, m] * (Y[p, m] - D[p])
    return Z
""")
    assert reassociate(gated) is gated
