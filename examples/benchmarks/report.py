"""What was measured, as data, as a table for the terminal and as markdown."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from einfall.examples.benchmarks.rows import Row

OURS = "einfall"

ADDED = "einfall-atomics"
"""The same, where programs may add to sums in memory in any order."""

OWN = (OURS, ADDED)

COPY = "copy"
"""Not a peer: what moves as many bytes and computes nothing."""

COLOURS = {
    OURS: "#d1495b",
    ADDED: "#f08a8f",
    "sdpa-cudnn": "#30638e",
    "flex-tuned": "#edae49",
    "flex": "#c8b88a",
    "sdpa-flash": "#8d99ae",
    "torch": "#66a182",
    COPY: "#444444",
}
"""Of everybody in pictures."""


@dataclass(frozen=True, slots=True)
class Result:
    """One implementation on one row.

    milliseconds : a median of each round; ``ms`` is their median.
    errors : against float64, O first.
    refusal : why nothing was measured, "" if something was.
    first_call : seconds to the first result, compilation and tuning included.
    least : milliseconds below which the roofline of the machine lets no kernel of ours get; 0 where
        it is not known.
    """

    row: str
    who: str
    milliseconds: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    refusal: str = ""
    first_call: float = 0.0
    least: float = 0.0

    @property
    def ms(self) -> float:
        """The median over the rounds."""
        return median(self.milliseconds)

    @property
    def spread(self) -> float:
        """Largest over smallest round: how far to trust the last digits."""
        return max(self.milliseconds) / min(self.milliseconds)


@dataclass(frozen=True, slots=True)
class Table:
    """All results, and the machine that they come from.

    name : of the files and the heading. about : what the cells are, in a sentence.
    work : operations counted for a row, as a multiple of those of its two products.
    """

    rows: tuple[Row, ...]
    results: tuple[Result, ...]
    machine: dict[str, str] = field(default_factory=dict)
    name: str = "forward"
    about: str = "TFLOP/s of the products over existing pairs; medians of rounds of medians."
    work: float = 1.0

    def of(self, row: Row, who: str) -> Result | None:
        """Return a result if something was measured."""
        found = (r for r in self.results if (r.row, r.who) == (row.name, who) and not r.refusal)
        return next(found, None)

    def peers(self) -> tuple[str, ...]:
        """Return everybody else, in order of sight."""
        return tuple(dict.fromkeys(r.who for r in self.results if r.who not in (*OWN, COPY)))

    def best(self, row: Row) -> Result | None:
        """Return the fastest peer's result."""
        measured = [r for who in self.peers() if (r := self.of(row, who))]
        return min(measured, key=lambda r: r.ms, default=None)

    def error_ratio(self, row: Row) -> float | None:
        """Return our error over the smallest error of a peer; above 2 is a fault."""
        ours = self.of(row, OURS)
        theirs = [r.errors[0] for who in self.peers() if (r := self.of(row, who))]
        return ours.errors[0] / min(theirs) if ours and theirs else None

    def of_plain(self, row: Row) -> str:
        """Return our rate over that of the row that leaves scores as they are, as text."""
        plain = [r for r in self.results if (r.row, r.who) == (row.plain, OURS) and not r.refusal]
        ours = self.of(row, OURS)
        if not plain or not ours:
            return "-"
        return f"{row.products / 2 * plain[0].ms / ours.ms:.2f}"

    def lines(self) -> list[list[str]]:
        """Return the table's cells, the headings first: TFLOP/s, and our time against the best."""
        columns = (*(who for who in OWN if any(r.who == who for r in self.results)), *self.peers())
        mapped = any(row.plain for row in self.rows)
        heads = ["row", *columns, "ms", "roofline / ours", *(["of plain"] if mapped else [])]
        heads += ["best peer / ours", "error / best peer's"]
        lines = [heads]
        for row in self.rows:
            ours, best, ratio = self.of(row, OURS), self.best(row), self.error_ratio(row)
            rates = [
                f"{self.work * row.flops / r.ms / 1e9:.0f}" if (r := self.of(row, who)) else "-"
                for who in columns
            ]
            mark = " *" if row.less else ""
            lines.append(
                [
                    row.name + mark,
                    *rates,
                    f"{ours.ms:.3f}" if ours else "-",
                    f"{ours.least / ours.ms:.2f}" if ours and ours.least else "-",
                    *([self.of_plain(row)] if mapped else []),
                    f"{best.ms / ours.ms:.2f} ({best.who})" if ours and best else "-",
                    f"{ratio:.2f}" if ratio is not None else "-",
                ]
            )
        return lines

    def notes(self) -> list[str]:
        """Return what the cells cannot say: refusals, peers that compute less, unsteady rounds."""
        notes = [f"* {row.name}: {row.less}." for row in self.rows if row.less]
        notes += [f"{r.row}, {r.who}: {r.refusal}" for r in self.results if r.refusal]
        unsteady = [r for r in self.results if r.milliseconds and r.spread > 1.05]
        notes += [f"{r.row}, {r.who}: rounds differ by {r.spread:.2f}x" for r in unsteady]
        return notes

    def text(self) -> str:
        """Return the table for a terminal."""
        lines = self.lines()
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        rows = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*(row.rstrip() for row in rows), *self.notes()])

    def markdown(self) -> str:
        """Return the table with the machine above and the notes below."""
        head, *body = self.lines()
        machine = "; ".join(f"{name} {value}" for name, value in self.machine.items())
        rule = ["---"] * len(head)
        table = ["| " + " | ".join(line) + " |" for line in (head, rule, *body)]
        notes = [f"- {note}" for note in self.notes()]
        heading = f"# {self.name.capitalize()}"
        return "\n".join([heading, "", machine, "", self.about, "", *table, "", *notes, ""])

    def row_data(self, row: Row) -> dict[str, Any]:
        """Return a row as data, with its work."""
        return asdict(row) | {"flops": self.work * row.flops}

    def write(self, folder: Path) -> None:
        """Write ``forward.json`` and ``forward.md``, or what ``name`` says instead."""
        folder.mkdir(parents=True, exist_ok=True)
        data: dict[str, Any] = {
            "table": self.name,
            "machine": self.machine,
            "rows": [self.row_data(row) for row in self.rows],
            "results": [asdict(result) for result in self.results],
        }
        (folder / f"{self.name}.json").write_text(json.dumps(data, indent=1) + "\n")
        (folder / f"{self.name}.md").write_text(self.markdown())


def machine() -> dict[str, str]:
    """Return what a measurement depends on: the device and the versions."""
    import platform

    import torch
    import triton  # type: ignore[import-untyped]

    return {
        "device": torch.cuda.get_device_name(),
        "torch": str(torch.__version__),
        "triton": str(triton.__version__),
        "cuDNN": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        "python": platform.python_version(),
    }
