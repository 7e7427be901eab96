"""Explanations: counts against counts by hand, and how they read."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

import einfall
from einfall.backends.explain import Explanation, explain
from einfall.backends.explain_numbers import duration, listing, percent, quantity
from einfall.backends.lowered import Lowered
from einfall.backends.roofline import MACHINES, Work, machine_for, terms
from einfall.ir.errors import BackendError

DENSE = """
def dense(Q, K, V):
    S[h, p, m] = Q[h, p, e] * K[h, m, e] / sqrt(size(e))
    A[h, p, m] = softmax[m](S[h, p, m])
    O[h, p, f] = A[h, p, m] * V[h, m, f]
    return O
"""

CUT = DENSE.replace("S[h, p, m] =", "S[h, p, m: m <= p] =", 1).replace("dense", "cut")

TWICE = """
def twice(X, V):
    G[p] = max[m](X[p, m])
    N[p] = sum[m](sigmoid(X[p, m] - G[p]) * V[m])
    return N
"""

CHAIN = """
def chain(Q, K, V):
    X[h, e, f] = K[h, m, e] * V[h, m, f]
    O[h, p, f] = Q[h, p, e] * X[h, e, f]
    return O
"""

BOUNDED = DENSE.replace("S[h, p, m] =", "S[h, p, m: m < length[h]] =").replace(
    "Q, K, V", "Q, K, V, length"
)

SIZES = {"h": 3, "p": 256, "m": 512, "e": 64, "f": 32}
TILES = {"p": 128, "m": 64}


def lower(text: str, sizes: dict[str, int] = SIZES, dtype: str = "float16") -> Lowered:
    kinds = {"length": "int32"} if "length" in text else None
    f = einfall.compile(einfall.cascade(text), target="sm_90", parts={})
    return f.lower(sizes=sizes, dtype=dtype, dtypes=kinds, tiles=TILES)


@pytest.fixture(scope="module")
def dense() -> Explanation:
    return explain(lower(DENSE), machine="H100")


def test_walks_as_written_and_as_compiled(dense: Explanation) -> None:
    m = next(w for w in dense.walks if w.rank == "m")
    assert (m.written, m.walked) == (3, 1)
    assert len(m.reasons) == 3
    assert {t.tensor: (t.written, t.loops) for t in m.tensors} == {
        "K": ((1, 2, 3), 1),
        "V": ((3,), 1),
    }
    e = next(w for w in dense.walks if w.rank == "e")
    assert (e.written, e.loops, e.held) == (1, (), ("dense_kernel",))
    assert not any(w.rank in ("h", "p", "f") for w in dense.walks)


def test_the_state_with_its_proof(dense: Explanation) -> None:
    [loop] = dense.kernels[0].loops
    frame, *carried = loop.fields
    assert (frame.reducer, frame.frame, frame.transport) == ("max", (), None)
    assert len(carried) == 2
    for field in carried:
        assert (field.reducer, field.frame, field.family) == ("sum", (frame.tensor,), "F2")
        assert field.transport is not None and f"{frame.tensor}_next" in field.transport
        assert field.proof
    assert loop.reads == ("K", "V")


def test_work_of_a_dense_kernel_by_hand(dense: Explanation) -> None:
    work = dense.cost.executed
    assert work is not None
    pairs = 3 * 256 * 512
    assert work.matrix == work.matrix16 == 2 * pairs * (64 + 32)
    # One for each pair, and one for each row and step by which sums follow the maximum.
    assert work.exponentials == pairs + 3 * 256 * (512 // 64)
    assert work.special == 3 * 256  # reciprocals of the sums
    assert dense.cost.useful == work
    read = 3 * (256 * 64 + 512 * 64 + 512 * 32)
    assert dense.cost.compulsory == dense.cost.moved == 2 * (read + 3 * 256 * 32)
    # Every tile of rows loads all of K and V; Q once.
    assert dense.cost.kernels[0].loaded == 2 * 3 * (256 * 64 + 2 * 512 * (64 + 32))
    assert dense.kernels[0].programs == 3 * 2


def test_terms_are_work_over_rate(dense: Explanation) -> None:
    [kernel] = dense.cost.kernels
    machine = MACHINES["H100"]
    assert machine.special is not None
    seconds = {t.unit: t.seconds for t in kernel.terms}
    assert seconds["tensor cores"] == pytest.approx(kernel.executed.matrix / 989.4e12)
    assert seconds["memory"] == pytest.approx(kernel.executed.bytes / 3.35e12)
    special = kernel.executed.exponentials + kernel.executed.special
    assert seconds["special functions"] == pytest.approx(special / (16 * 132 * 1.755e9))
    assert kernel.terms[0].binding and not kernel.terms[1].binding
    assert kernel.seconds == max(seconds.values())
    assert kernel.waiting == pytest.approx(sum(seconds.values()))
    bound = max(seconds["tensor cores"], seconds["memory"])
    assert dense.cost.bound == pytest.approx(bound)
    assert dense.cost.distance == pytest.approx(kernel.seconds / bound)


def test_tiles_under_a_filter_by_hand() -> None:
    x = explain(lower(CUT, SIZES | {"m": 256}))
    [loop] = x.kernels[0].loops
    assert loop.tiles is not None and loop.test == "m <= p" and loop.exact
    # Rows 0-127 see tiles 0 and 1 in part; rows 128-255 see 0 and 1 in full, 2 and 3 in part.
    assert (loop.tiles.total, loop.tiles.skipped) == (3 * 8, 3 * 2)
    assert (loop.tiles.full, loop.tiles.partial) == (3 * 2, 3 * 4)
    assert loop.tiles.executed_density == 0.75
    live = 3 * 256 * 257 / 2
    assert loop.tiles.live_density == live / (3 * 256 * 256)
    assert x.cost.executed is not None and x.cost.useful is not None
    assert x.cost.executed.matrix == 2 * (3 * 6 * 128 * 64) * (64 + 32)
    assert x.cost.useful.matrix == pytest.approx(2 * live * (64 + 32))


def test_bounds_that_read_a_tensor_are_open_without_it() -> None:
    k = lower(BOUNDED)
    x = explain(k)
    assert x.kernels[0].loops[0].tiles is None
    assert "length" in x.cost.open and "length" in str(x)
    given = explain(k, tensors={"length": [64, 0, 130]})
    tiles = given.kernels[0].loops[0].tiles
    assert tiles is not None
    # Two tiles of rows for each h: 1 full tile; none; 2 full and 1 partial.
    assert (tiles.full, tiles.partial, tiles.total) == (2 * 3, 2, 3 * 2 * 8)


def test_open_sizes_give_formulas_and_no_numbers() -> None:
    x = explain(lower(DENSE, {"e": 64, "f": 32}))
    assert x.open == ("h", "p", "m")
    assert x.cost.executed is None and x.cost.seconds is None
    formulas = {kind: formula for kind, _, formula in x.cost.formulas}
    assert formulas["exponentials"] == "h * p * m"
    assert "2 * h * p * m * 64" in [f for _, _, f in x.cost.formulas]
    assert x.kernels[0].programs is None
    assert "open" in str(x)
    assert explain(lower(DENSE, {"e": 64, "f": 32}), sizes=SIZES).cost.seconds


def test_a_second_walk_has_its_reason() -> None:
    x = explain(lower(TWICE, {"p": 256, "m": 5000}))
    [m] = x.walks
    assert (m.written, m.walked) == (2, 2)
    assert {t.tensor: t.loops for t in m.tensors} == {"X": 2, "V": 1}
    [refusal] = x.refusals
    assert "sigmoid" in refusal
    # X is wanted twice, V and N once.
    assert x.cost.moved == 2 * (2 * 256 * 5000 + 5000 + 256)


def test_what_is_stored_between_kernels() -> None:
    x = explain(lower(CHAIN))
    assert len(x.kernels) == 2
    [stored] = x.stored
    assert (stored.tensor, stored.writer) == ("X", x.kernels[0].name)
    assert stored.readers == (x.kernels[1].name,)
    assert "walks m" in stored.why and "p" in stored.why
    width = {"float16": 2, "float32": 4}[stored.dtype]
    assert stored.bytes == 3 * 64 * 32 * width
    assert x.cost.moved is not None and x.cost.compulsory is not None
    assert x.cost.moved == x.cost.compulsory + 2 * stored.bytes


@pytest.mark.parametrize("text", [DENSE, CUT, TWICE, CHAIN])
def test_products_are_counted_where_the_kernels_have_dots(text: str) -> None:
    k = lower(text)
    x = explain(k)
    assert x.cost.executed is not None
    assert (x.cost.executed.matrix > 0) == ("tl.dot(" in k.source)


def test_products_in_float32_run_on_the_lanes() -> None:
    x = explain(lower(DENSE, dtype="float32"), machine="H100")
    work = x.cost.executed
    assert work is not None and work.matrix16 == 0
    assert work.matrix32 == 2 * 3 * 256 * 512 * (64 + 32)
    [kernel] = x.cost.kernels
    assert "tensor cores" not in {t.unit for t in kernel.terms}


@pytest.mark.parametrize("text", [DENSE, CUT, TWICE, CHAIN, BOUNDED])
def test_text_fits_a_terminal(text: str) -> None:
    for sizes in (SIZES, {"e": 64, "f": 32}):
        x = explain(lower(text, sizes))
        lines = str(x).splitlines()
        assert max(map(len, lines)) <= 100
        assert all(line == line.rstrip() for line in lines)
        for kernel in x.kernels:
            assert f"Kernel {kernel.name}" in lines
            for loop in kernel.loops:
                assert all(f"{f.family}: " in str(x) for f in loop.fields)


def test_data_is_json(dense: Explanation) -> None:
    data = dense.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["sizes"] == SIZES
    assert data["kernels"][0]["loops"][0]["tiles"]["skipped"] == 0
    assert data["cost"]["kernels"][0]["terms"][0]["share"] == 1.0


class Tags(HTMLParser):
    """Collects tags, and checks that each is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        assert not {"src", "href", "onclick"} & {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_stands_alone() -> None:
    x = explain(lower(CUT), machine="H100")
    page = Tags()
    page.feed(x._repr_html_())
    assert page.open == [] and not page.seen & {"script", "img", "link"}
    assert "m <= p" in page.text and "tensor cores" in page.text
    assert re.search(r"m &lt;= p", x._repr_html_())
    assert page.text.count("cut, compiled for") == 1
    indents = re.findall(r"^( *)A_G_max_next\[h, p\]", page.text, re.M)  # the rest of a long line
    assert indents and set(indents) == {" " * 6}


def test_machines_that_are_not_known() -> None:
    with pytest.raises(BackendError, match="H100"):
        explain(lower(DENSE), machine="H100x")
    assert machine_for("sm_100") is None
    k = einfall.compile(einfall.cascade(DENSE), parts={}).lower(sizes=SIZES, target="sm_100")
    x = explain(k)
    assert x.machine is None and x.cost.seconds is None and x.cost.executed is not None
    assert "sm_100" in str(x)


def test_a_rate_in_no_data_sheet_is_named() -> None:
    found, unknown = terms(Work(matrix16=1e12, exponentials=1e9), MACHINES["MI300X"])
    assert [t.unit for t in found] == ["tensor cores"]
    assert unknown == ("special functions",)


def test_numbers_for_people() -> None:
    assert quantity(1.1e12, "FLOP") == "1.10 TFLOP"
    assert quantity(999.6e6, "B") == "1.00 GB"
    assert quantity(12, "B") == "12 B"
    assert duration(1.11e-3) == "1.11 ms" and duration(2.5e-7) == "250 ns"
    assert percent(1.0) == "100 %" and percent(0.999) == "over 99 %" and percent(0) == "0 %"
    assert listing(["a", "b", "c"]) == "a, b and c" and listing([]) == "nothing"
