"""Breaking long lines, held against the formatter itself."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from einfall.codegen.layout import WIDTH, comment, folded, lay_out


def formatted(text: str, width: int = WIDTH) -> str:
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", str(width)]
    run = subprocess.run([*command, "-"], input=text, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def broken(lines: list[str]) -> str:
    return "\n".join(x for line in lines for x in lay_out(line)) + "\n"


def random_value(choose: random.Random, depth: int) -> str:
    """Return an expression of the kinds that kernels have."""
    name = choose.choice(["m", "safe_row", "k_tile", "g_max_next", "variance_sum_count_before"])
    if depth == 0:
        return choose.choice([name, f"{name}[:, None]", f"{name}[None, :]", "0.25", "16"])

    def inner() -> str:
        return random_value(choose, depth - 1)

    match choose.randint(0, 9):
        case 0:
            return f"tl.where({inner()}, {inner()}, 0.0)"
        case 1:
            return f"tl.dot({inner()}, tl.trans({inner()}), {name})"
        case 2:
            return f"tl.exp2({inner()})"
        case 3:
            return f"({inner()} + {inner()})[:, None]"
        case 4:
            return f"({inner()} - {name}).to(tl.float16)"
        case 5:
            return f"({inner()} < {name}) & ({inner()} <= {name})"
        case 6:
            return f"({inner()} - {inner()}) * ({inner()} + 1)"
        case 7:
            return f"tl.load({name} + {inner()}, mask={inner()}, other=0.0)"
        case 8:
            return " + ".join(f"tl.cast({name}, tl.int64) * {inner()}" for _ in range(3))
        case _:
            return f"{choose.choice(['-', ''])}quotient({inner()}, {name}) * {name}"


def test_random_lines_stay_as_they_are() -> None:
    """A formatter changes none of a thousand random long lines once they are laid out."""
    choose = random.Random(7)
    values = [random_value(choose, choose.randint(1, 4)) for _ in range(3000)]
    lines = [f"    {choose.choice(['s', 'variance_sum_next_tile'])} = {x}" for x in values]
    # the formatter's widest line takes redundant brackets away; what it broke all the same is left
    whole = formatted("\n".join(["def kernel():", *lines]), width=320).splitlines()[1:]
    starts = ("    s = ", "    variance_sum_next_tile = ")
    long = [x for x in whole if x.startswith(starts) and x[-1] not in "([" and len(x) > WIDTH]
    assert len(long) > 1000
    text = broken(["def kernel():", *long])
    assert max(map(len, text.splitlines())) <= WIDTH
    assert formatted(text) == text


LONG = "a_name_of_27_characters_abc"

CASES = {
    "short lines stay": (["    s = tl.dot(q, k)"], ["    s = tl.dot(q, k)"]),
    "arguments in one line": (
        [f"    s = tl.dot({LONG}, {LONG}, {LONG}, {LONG[:4]})"],
        ["    s = tl.dot(", f"        {LONG}, {LONG}, {LONG}, {LONG[:4]}", "    )"],
    ),
    "one argument a line": (
        [f"    tl.store({LONG}, {LONG}, {LONG}, {LONG}, {LONG})"],
        ["    tl.store(", *(f"        {LONG}," for _ in range(5)), "    )"],
    ),
    "an operand a line": (
        [f"    s = {LONG} + {LONG} + {LONG} + {LONG} * {LONG}"],
        [
            "    s = (",
            f"        {LONG}",
            f"        + {LONG}",
            f"        + {LONG}",
            f"        + {LONG} * {LONG}",
            "    )",
        ],
    ),
    "a call at the end opens": (
        [f"    s = {LONG} * tl.exp2({LONG} - {LONG} - {LONG})"],
        [f"    s = {LONG} * tl.exp2(", f"        {LONG} - {LONG} - {LONG}", "    )"],
    ),
    "a header of a loop": (
        [f"    for m in tl.range({LONG}, {LONG}, {LONG}, M0):"],
        ["    for m in tl.range(", f"        {LONG}, {LONG}, {LONG}, M0", "    ):"],
    ),
    "comments stay": (["    # " + "word " * 30], ["    # " + "word " * 30]),
}


@pytest.mark.parametrize("name", CASES)
def test_shapes(name: str) -> None:
    given, expected = CASES[name]
    assert [x for line in given for x in lay_out(line)] == expected


def test_comments_are_folded_at_spaces() -> None:
    text = "S[p, m] = sum[e](Q[p, e] * K[m, e])"
    assert list(comment(text, 100)) == [text]
    assert list(comment(text, 24)) == ["S[p, m] = sum[e](Q[p, e]", "    * K[m, e])"]
    assert list(
        folded(
            "    " + text,
        )
    ) == ["    " + text]
    wide = "    " + " ".join([text] * 3)
    assert all(x.startswith("    ") and len(x) <= WIDTH for x in folded(wide))
    assert " ".join(x.strip() for x in folded(wide)) == wide.strip()
