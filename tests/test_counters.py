"""The counters of kernels: what a raw page of Nsight Compute says, and how it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from einfall.examples.benchmarks import counters

UNITS = {"gpu__time_duration.sum": "ns", "dram__bytes.sum.per_second": "byte/s"}
PAGE = {
    "ID": "0",
    "Kernel Name": "forward:causal-d128-n4096:einfall/causal_kernel",
    "gpu__time_duration.sum": "379,808.00",
    "sm__cycles_elapsed.avg.per_second": "1,620,000,000.50",
    "smsp__inst_executed.sum": "99,300,000",
    f"sm__inst_executed_pipe_xu.{counters.ACTIVE}": "45.25",
    "dram__bytes.sum.per_second": "n/a",
}


def page(*kernels: dict[str, str]) -> list[str]:
    """Return lines as ``ncu`` prints them: names, units and then kernels."""
    rows = [list(PAGE), [UNITS.get(name, "") for name in PAGE]]
    rows += [list((PAGE | kernel).values()) for kernel in kernels]
    return [",".join(f'"{cell}"' for cell in row) for row in rows]


def test_a_page_gives_a_row_its_kernels_in_the_columns_units() -> None:
    peer = {"Kernel Name": "backward:full-d64-n4096:flex/a_kernel"}
    first, second = counters.read(["==PROF== Connected", "", *page({}, peer)])
    assert (first.row, first.kernel) == ("forward:causal-d128-n4096", "causal_kernel")
    assert first.numbers == pytest.approx(
        {"ms": 0.379808, "GHz": 1.62, "M instructions": 99.3, "special %": 45.25}
    )
    assert second.row == "backward:full-d64-n4096:flex"
    shown = counters.text([first])
    assert "| 0.38 | 1.62 | - | 45.2 |" in shown
    assert shown.count("\n") == 2


def test_all_rows_are_counted_in_one_process(tmp_path: Path) -> None:
    seen, given = tmp_path / "seen", tmp_path / "page.csv"
    given.write_text("\n".join(page({})))
    ncu = tmp_path / "ncu"
    copies = f'for a; do [ "$last" = --log-file ] && cp {given} "$a"; last=$a; done'
    ncu.write_text(f'#!/bin/sh\necho "$@" > {seen}\n{copies}\n')
    ncu.chmod(0o755)
    jobs = ["forward:causal-d128-n4096:einfall", "sparse:window-512-n32768:einfall"]
    (found,) = counters.count(jobs, str(ncu))
    assert found.kernel == "causal_kernel"
    assert seen.read_text().rstrip().endswith("--call " + " ".join(jobs))
    given.write_text("==ERROR== permission\n")
    with pytest.raises(RuntimeError, match="no counter .*permission"):
        counters.count(jobs, str(ncu))


def test_rows_that_do_not_exist_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["--sparse", "nothing"], "no row matches 'nothing'; there are causal-n32768"),
        ([], "tables are forward, backward, sparse, decode"),
    ):
        with pytest.raises(SystemExit):
            counters.main(arguments)
        assert said in capsys.readouterr().err
