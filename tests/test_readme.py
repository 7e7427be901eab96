"""The README stays true: its cascade compiles, its kernel is the generated one, its paths exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy
import pytest

import einfall
import einfall.examples
from einfall.examples.inputs import make

from .dense_oracles import attention

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SHELL = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)


def test_first_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    Q, K, V = make("attention", scale={"p": 6, "m": 6})[0]
    names: dict[str, object] = {"Q": Q, "K": K, "V": V}
    program = PYTHON[0].replace("print(f.source)", "").replace("print(f.explain())", "")
    exec(compile(program, "README.md", "exec"), names)
    found = names["O"]
    assert isinstance(found, numpy.ndarray)
    numpy.testing.assert_allclose(
        found, einfall.interpret(einfall.examples.causal, Q, K, V), rtol=1e-12
    )
    assert not numpy.allclose(found, attention(Q, K, V))


def test_kernel_shown_is_the_kernel_generated() -> None:
    lowered = einfall.compile(einfall.examples.causal, emitter="tl").lower(
        sizes={"e": 64, "f": 64}, dtype="float16", target="sm_90"
    )
    assert PYTHON[1] in lowered.source


def test_paths_and_commands_exist() -> None:
    for path in re.findall(r"`((?:examples|ir|tests)/[\w./]*)`", TEXT):
        assert (ROOT / path).exists(), path
    for table_row in re.findall(r"^\| `(\w+)/` \|.*\| (.*) \|$", TEXT, re.MULTILINE):
        folder, files = table_row
        for file in re.findall(r"`([\w.]+)`", files):
            assert (ROOT / folder / file).exists(), f"{folder}/{file}"
    for command in SHELL:
        for path in re.findall(r"\b(?:examples/[\w./]+|constraints\.txt)", command):
            assert (ROOT / path).exists(), path
        for module in re.findall(r"-m (einfall[\w.]*)", command):
            inside = ROOT / module.replace(".", "/")
            assert inside.with_suffix(".py").exists() or (inside / "__main__.py").exists(), module


def test_gradient_shown_is_the_gradient_derived() -> None:
    program = PYTHON[2].replace("print(", "shown = str(")
    names: dict[str, object] = {"einfall": einfall}
    exec(compile(program, "README.md", "exec"), names)
    assert f"```\n{names['shown']}\n```" in TEXT


@pytest.mark.parametrize("row", re.findall(r"^\| [\w ,]+ \| `(.*)` \|", TEXT, re.MULTILINE))
def test_forms_shown_are_notation(row: str) -> None:
    """Each form of the table of sparsity stands in some cascade that parses."""
    lines = {
        "m:": f"S[b, h, p, {row}] = Q[b, h, p, e] * K[b, h, m, e]",
        "K[": f"S[b, h, p, m] = Q[b, h, p, e] * {row.replace('c,', 'h,')}",
        "O[": row,
        "Se": f"{row}\n    S[b, h, i] = sum[j](1.0 * Sel[b, h, i, j]) + sum[e](Q[b, h, i, e])",
        "S[": row + "\n    O[b, h, p] = sum[n](S[b, h, p, n]) + sum[e](Q[b, h, p, e])",
    }
    body = lines[row[:2]]
    reads = dict.fromkeys(re.findall(r"\b([A-Za-z]\w*)\[", body))
    written = re.findall(r"^ *(\w+)\[.*?\] = ", body, re.MULTILINE)
    words = {"topk", "concat", "sum", *written}
    inputs = ", ".join(t for t in reads if t not in words)
    text = f"def f({inputs}):\n    {body}\n    return {written[-1]}\n"
    assert str(einfall.cascade(text))


def test_masks_of_others_run_as_shown() -> None:
    import torch

    (program,) = [x for x in PYTHON if "flex.attention" in x]
    draw = torch.Generator().manual_seed(0)
    Q, K, V = (torch.randn(1, 2, 9, 4, generator=draw, dtype=torch.float64) for _ in range(3))
    names: dict[str, object] = {
        **{"Q": Q, "K": K, "V": V},
        "mask_mod": lambda b, h, q, kv: q >= kv,
        "score_mod": lambda score, b, h, q, kv: torch.tanh(score),
    }
    exec(compile(program, "README.md", "exec"), names)
    scores = torch.tanh(Q @ K.mT / 2).masked_fill(~torch.ones(9, 9).tril().bool(), -torch.inf)
    torch.testing.assert_close(names["O"], scores.softmax(-1) @ V, rtol=1e-9, atol=1e-9)


def test_names_of_the_exchange_are_there() -> None:
    section = TEXT.split("## Masks from elsewhere")[1].split("\n## ")[0]
    for name in re.findall(r"`(\w+)\(", section):
        assert hasattr(einfall, name) or name in ("mask_mod", "score_mod"), name
