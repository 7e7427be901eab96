"""The parts of the measurements that need no GPU: sizes, the reference, tables, refusals."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from einfall import examples
from einfall.backends.interpreter import interpret
from einfall.examples.benchmarks import backward, forward, peers
from einfall.examples.benchmarks.launch import per_call
from einfall.examples.benchmarks.reference import errors, inputs, reference, sample_of
from einfall.examples.benchmarks.report import OURS, Result, Table
from einfall.examples.benchmarks.rounds import add_options, in_turn, tabulate
from einfall.examples.benchmarks.rows import BACKWARD_ROWS, ROWS, TOKENS, Row, select

BY_NAME = {row.name: row for row in ROWS}


def small(row: Row) -> Row:
    """Return the row at sizes for a processor, several heads and a group left."""
    parameters = {**row.parameters, **({"W": 9} if "W" in row.parameters else {})}
    parameters |= {"cap": 1.5} if "cap" in parameters else {}
    return replace(row, batch=2, heads=2 * row.group, n=40, d=8, parameters=parameters)


def test_rows_are_those_of_the_table() -> None:
    assert len(BY_NAME) == len(ROWS) == 28
    for row in ROWS:
        assert row.batch * row.n == max(TOKENS, row.n)
        assert row.name in ("gqa-d128-n4096",) or row.heads * row.d == 2048
        assert row.example == "sigmoid" or {"flex", "flex-tuned"} <= set(row.peers)
        assert set(row.peers) <= set(peers.NAMES)
        if row.plain:
            plain = BY_NAME[row.plain]
            assert (plain.batch, plain.heads, plain.n, plain.d) == (
                row.batch,
                row.heads,
                row.n,
                row.d,
            )
            assert row.flops == plain.flops * row.products // 2
        assert row.example in examples.names()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_pairs_are_counted_and_the_reference_is_the_examples_meaning(row: Row) -> None:
    row = small(row)
    tensors = inputs(row, device="cpu", dtype=torch.float64)
    sample = sample_of(row, width=9)
    cascade = getattr(examples, row.example)
    parameters: dict[str, Any] = dict(row.parameters)
    found = interpret(cascade, *tensors, **parameters)
    found = found if isinstance(found, tuple) else (found,)
    expected = reference(row, tensors, sample)
    assert len(expected) == len(found)
    assert max(errors(tuple(map(torch.from_numpy, found)), expected, sample)) < 1e-12
    assert max(errors(tuple(torch.from_numpy(x + 0.01) for x in found), expected, sample)) > 5e-3
    predicate = peers.mask_mod(row) or (lambda b, h, q, k: q == q)
    p, m = torch.arange(row.n)[:, None], torch.arange(row.n)[None, :]
    assert int(predicate(0, 0, p, m).expand(row.n, row.n).sum()) == row.pairs


@pytest.mark.parametrize("name", ["softcap-d128-n8192", "alibi-d128-n4096", "causal-d64-n1024"])
def test_flex_is_asked_for_the_same_function(name: str) -> None:
    """Its callables, applied by hand to dense scores, give the reference."""
    row = small(BY_NAME[name])
    tensors = inputs(row, device="cpu", dtype=torch.float64)
    Q, K, V = tensors[:3]
    b, h, p, m = torch.meshgrid(
        *map(torch.arange, (row.batch, row.heads, row.n, row.n)), indexing="ij"
    )
    S = Q @ K.mT * row.d**-0.5
    change, predicate = peers.score_mod(row, tensors), peers.mask_mod(row)
    S = change(S, b, h, p, m) if change else S
    assert predicate is not None
    out = S.masked_fill(~predicate(b, h, p, m), -torch.inf).softmax(-1) @ V
    sample = sample_of(row, width=9)
    assert errors((out,), reference(row, tensors, sample), sample)[0] < 1e-12


def test_work_of_known_rows() -> None:
    assert BY_NAME["full-d128-n4096"].flops == 4 * 4 * 16 * 4096**2 * 128
    assert BY_NAME["causal-d128-n1024"].pairs == 1024 * 1025 // 2
    assert BY_NAME["window-d128-n32768"].pairs == 1024 * 1025 // 2 + (32768 - 1024) * 1024


def test_a_difference_is_made_of_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    row = small(BY_NAME["differential-d64-n4096"])
    tensors = inputs(row, device="cpu", dtype=torch.float64)

    def sdpa(name: str, row: Row, given: tuple[torch.Tensor, ...]) -> peers.Call:
        assert row.example == "causal"
        Q, K, V = given
        f = torch.nn.functional.scaled_dot_product_attention
        return lambda: (f(Q, K, V, is_causal=True),)

    monkeypatch.setattr(peers, "_sdpa", sdpa)
    sample = sample_of(row, width=9)
    found = peers.make("sdpa-flash", row, tensors)()
    assert errors(found, reference(row, tensors, sample), sample)[0] < 1e-12


def test_rates_of_maps_are_compared_with_those_of_plain_scores() -> None:
    row, plain = BY_NAME["differential-d64-n4096"], BY_NAME["causal-d64-n4096"]
    results = (Result(plain.name, OURS, (0.5,), (1e-3,)), Result(row.name, OURS, (1.25,), (1e-3,)))
    found = Table((plain, row), results)
    heads, *lines = found.lines()
    assert [line[heads.index("of plain")] for line in lines] == ["-", "0.80"]
    assert "of plain" not in Table((plain,), results).lines()[0]


def test_select() -> None:
    assert [r.name for r in select(ROWS, ["gqa*", "full-d64-n1024"])] == [
        "full-d64-n1024",
        "gqa-d128-n4096",
    ]
    with pytest.raises(ValueError, match="full-d64-n1024"):
        select(ROWS, ["ful"])


def test_sample_covers_the_ends_of_all_kinds_of_heads() -> None:
    sample = sample_of(BY_NAME["gqa-d128-n4096"])
    assert sample.queries[0] == 0 and sample.queries[-1] == 4095 and len(sample.queries) == 192
    assert (0, 0) in sample.places and (3, 31) in sample.places


def table() -> Table:
    row, window = BY_NAME["causal-d64-n1024"], BY_NAME["window-d128-n32768"]
    return Table(
        (row, window),
        (
            Result(row.name, "sdpa-flash", (0.4, 0.5, 0.45), (2e-3,)),
            Result(row.name, "flex", (0.3, 0.3, 0.3), (1e-3,)),
            Result(row.name, OURS, (0.2, 0.21, 0.2), (1.5e-3,)),
            Result(window.name, "flex", refusal="OutOfMemoryError: too large"),
            Result(window.name, OURS, (0.8,), (1e-3,)),
        ),
        {"device": "a device"},
    )


def test_table_compares_with_the_best_peer(tmp_path: Path) -> None:
    found = table()
    row, window = found.rows
    best = found.best(row)
    assert best is not None and best.who == "flex" and best.ms == 0.3
    assert found.error_ratio(row) == pytest.approx(1.5)
    assert found.best(window) is None and found.error_ratio(window) is None
    lines = found.lines()
    assert lines[1][-2:] == ["1.50 (flex)", "1.50"]
    assert lines[1][1] == f"{row.flops / 0.2e-3 / 1e12:.0f}"
    assert lines[2][3] == lines[2][-1] == "-"
    notes = "\n".join(found.notes())
    assert "OutOfMemoryError" in notes and "rounds differ by 1.25x" in notes
    found.write(tmp_path)
    data = json.loads((tmp_path / "forward.json").read_text())
    assert data["results"][2]["milliseconds"] == [0.2, 0.21, 0.2]
    assert data["rows"][0]["flops"] == row.flops
    markdown = (tmp_path / "forward.md").read_text()
    assert markdown.count("| causal-d64-n1024 |") == 1 and "a device" in markdown
    assert all(line in found.text() for line in found.notes())


def test_a_fall_into_eager_mode_is_refused() -> None:
    row = BY_NAME["causal-d64-n1024"]
    peers.refuse_eager(["a harmless warning"], 2 * 2**20, row)
    with pytest.raises(RuntimeError, match="eager"):
        peers.refuse_eager(["flex_attention called without torch.compile() - slow"], 0, row)
    with pytest.raises(RuntimeError, match="all scores"):
        peers.refuse_eager([], 3 * row.batch * row.heads * row.n**2, row)
    small = replace(row, n=64, d=128)  # O alone is as large as its scores
    peers.refuse_eager([], row.batch * row.heads * 64 * (2 * 128 + 4), small)


def test_a_peer_without_the_variant_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no form of softcap"):
        peers.make("sdpa-cudnn", BY_NAME["softcap-d128-n8192"], ())
    assert forward.reason(RuntimeError("first\nsecond")) == "RuntimeError: first"


def test_cost_of_a_call_is_per_call() -> None:
    calls: list[int] = []
    cost = per_call(lambda: calls.append(1), lambda: None, calls=1000, rounds=3)
    assert len(calls) == 3000 and 0 < cost < 100
    with pytest.raises(ValueError, match="at least one"):
        per_call(lambda: None, lambda: None, calls=0, rounds=1)


def test_without_a_gpu_the_rows_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert forward.main(["--list", "--rows", "window*"]) == 0
    assert capsys.readouterr().out.startswith("window-d128-n32768")


def test_panels_group_rows_by_feature_size_and_filter() -> None:
    from einfall.examples.benchmarks.plot import panels

    rows = [{"name": f"full-d64-n{n}", "d": 64, "n": n, "flops": n * 10**9} for n in (1024, 4096)]
    rows.append({"name": "window-d128-n32768", "d": 128, "n": 32768, "flops": 10**12})
    results = [{"row": row["name"], "who": OURS, "milliseconds": [1.0, 2.0, 4.0]} for row in rows]
    results.append({"row": "full-d64-n1024", "who": "flex", "milliseconds": []})
    found = panels({"rows": rows, "results": results})
    assert found == {"full, 64 features": {OURS: {1024: 512.0, 4096: 2048.0}}}


def test_sparse_panels_have_ratios_to_flex_and_to_the_causal_kernel() -> None:
    from einfall.examples.benchmarks.plot_sparse import FLEX, TILE, sparse_panels

    rows = [{"name": "window-512-n32768", "n": 32768}, {"name": "window-512-n1048576", "n": 2**20}]
    ours = {"row": rows[0]["name"], "who": OURS, "milliseconds": [1.0, 2.0, 4.0], "points": 10}
    flex = ours | {"who": "flex", "milliseconds": [5.0], "points": 0}
    dense = ours | {"who": "einfall-dense", "milliseconds": [32.0], "points": 200}
    alone = ours | {"row": rows[1]["name"]}
    found = sparse_panels({"rows": rows, "results": [ours, flex, dense, alone]})
    assert found == {FLEX: {"window 512\n32k": 2.5}, TILE: {"window 512\n32k": 1.25}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[project]", "cannot be read"),
        ("[]", "no table that can be drawn"),
        ('{"rows": []}', "not forward, backward, decode, sparse"),
    ],
)
def test_what_is_no_table_is_not_drawn(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from einfall.examples.benchmarks.plot import main

    (tmp_path / "x.json").write_text(text)
    assert main([str(tmp_path / "x.json"), str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("row", BACKWARD_ROWS, ids=lambda row: row.name)
def test_reference_gradients_are_those_of_a_masked_product(row: Row) -> None:
    row = small(row)
    tensors = [x.requires_grad_() for x in inputs(row, device="cpu", dtype=torch.float64)]
    seed = torch.randn_like(tensors[0])
    p, m = torch.arange(row.n)[:, None], torch.arange(row.n)[None, :]
    predicate = peers.mask_mod(row) or (lambda b, h, q, k: k == k)
    mask = predicate(0, 0, p, m).expand(row.n, row.n)
    output = torch.nn.functional.scaled_dot_product_attention(
        tensors[0], tensors[1], tensors[2], attn_mask=mask, enable_gqa=row.group > 1
    )
    found = torch.autograd.grad(output, tensors, seed)
    expected = backward.reference(row, tensors, seed)
    assert max(backward.errors(found, expected, row)) < 1e-14
    bent = tuple(x + 0.01 for x in found)
    assert min(backward.errors(bent, expected, row)) > 1e-3


def test_calls_are_timed_in_turn_each_round_begun_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []

    def do_bench(call: Any, **options: Any) -> float:
        seen.append(call())
        return len(seen)

    monkeypatch.setattr("triton.testing.do_bench", do_bench)
    found = in_turn({"a": lambda: "a", "b": lambda: "b", "c": lambda: "c"}, rounds=3, rep=1)
    assert "".join(map(str, seen)) == "abcbcacab"
    assert found == {"a": (1, 6, 8), "b": (2, 4, 9), "c": (3, 5, 7)}


def test_rows_are_tabled_until_the_time_is_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = BY_NAME["full-d64-n1024"]

    def measure(row: Row, who: Any, rounds: int, rep: int) -> list[Result]:
        return [Result(row.name, name, (1.0,), (3.0 if name == OURS else 1.0,)) for name in who]

    parser = argparse.ArgumentParser()
    add_options(parser, (OURS, "flex"), "forward", 5)
    options = parser.parse_args(["--out", str(tmp_path)])
    assert tabulate(Table((), ()), [row], options, measure) == 1
    assert json.loads((tmp_path / "forward.json").read_text())["rows"][0]["name"] == row.name
    options = parser.parse_args(["--seconds", "-1"])
    assert tabulate(Table((), ()), [row], options, measure) == 0
    assert "left out" in capsys.readouterr().out


@pytest.mark.parametrize("mask", ["causal", "full"])
@pytest.mark.parametrize("kind", ["place", "entropy", "columns of all heads"])
def test_outputs_agree_with_their_reference(kind: str, mask: str) -> None:
    from einfall.examples.benchmarks import outputs

    torch.manual_seed(3)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = outputs.errors(kind, mask, outputs.draw(2, 33, 16, device))
    assert set(found) == {"O", *outputs.KINDS[kind].names}
    assert max(found.values()) < (2e-6 if device == "cpu" else 1e-2)
    rows = [{"mask": mask, "kind": kind, "ms": 2.0, "times": 1.5, "errors": found}]
    assert "| 2.000 | 1.50 | O " in outputs.text(rows)
