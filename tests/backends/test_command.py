"""The command line: what each command prints, and how errors read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import einfall
from einfall.__main__ import main
from einfall.backends.command import pairs, summary
from einfall.backends.command_inputs import default_sizes, example_inputs, shapes_of
from einfall.ir.errors import EinfallError

CUT = """\
def cut(Q, K, V):
    S[b, h, p, m: m <= p] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""

BAND = """\
def band(Q, K, V, length, *, W, G=2):
    S[b, h, p, m: m < length[b] and p - W < m] = Q[b, h, p, e] * K[b, h // G, m, e]
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h // G, m, f]
    return O
"""

STEPS = """\
def steps(X):
    H[0, e] = 0
    H[i + 1, e] = H[i, e] * 0.5 + X[i, e]
    return H
"""

NO_GPU = not torch.cuda.is_available()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cut.einsum"
    path.write_text(CUT)
    return path


def test_run_says_what_it_ran_on(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(file), "--size", "p=40"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("def cut(Q, K, V):\n")
    assert ("There is no GPU here" in text) == NO_GPU
    assert ("agrees with the interpreter" in text) != NO_GPU
    assert "p = 40" in text
    assert "written: 3 traversals" in text and "Kernel cut_" in text


def test_run_kernel_checks_the_kernels(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"{r}={n}" for r, n in {"b": 1, "h": 1, "p": 40, "m": 50, "e": 16, "f": 16}.items()]
    sizes = [word for pair in words for word in ("--size", pair)]
    assert main(["run", str(file), "--kernel", *sizes]) == 0
    text = capsys.readouterr().out
    assert "O agrees with the interpreter: relative error" in text
    assert ("In Triton's interpreter" in text) == NO_GPU


def test_show_prints_the_cascade(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(file)]) == 0
    assert capsys.readouterr().out == f"{einfall.cascade(file)}\n"


def test_show_after_prints_a_diff(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(file), "--after", "base_two"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["--- before base_two", "+++ after base_two"]
    assert any(line.startswith("-") and " exp(" in line for line in lines)
    assert any(line.startswith("+") and " exp2(" in line for line in lines)
    assert main(["show", str(file), "--after", "stream"]) == 0
    assert "is the max of" in capsys.readouterr().out
    assert main(["show", str(file), "--after", "swim"]) == 1
    assert "flatten" in capsys.readouterr().err


def test_show_kernels_prints_their_text(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(file), "--kernels"]) == 0
    text = capsys.readouterr().out
    assert "@triton.jit" in text and "def cut_kernel(" in text
    compile(text, "kernels", "exec")


def test_explain_takes_sizes_and_a_machine(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--size", "m=4096", "--size", "p=4096", "--machine", "H200", "--dtype", "bfloat16"]
    assert main(["explain", str(file), *words]) == 0
    text = capsys.readouterr().out
    assert "m = 4096" in text and "Roofline of H200" in text and "Q (bfloat16)" in text
    assert max(map(len, text.splitlines())) <= 100


def test_explain_without_a_kernel_says_what_it_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "steps.einsum"
    path.write_text(STEPS)
    assert main(["explain", str(path)]) == 1
    found = capsys.readouterr()
    assert found.out.startswith("steps, as written\n")
    assert found.err.startswith("BackendError: ") and "iterative" in found.err


def test_save_writes_a_file(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "kernel.py"
    assert main(["save", str(file), str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    assert "def cut(Q, K, V):" in output.read_text()


def test_bench_needs_a_gpu(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", str(file)]) == 1
    assert "BackendError: bench needs a GPU" in capsys.readouterr().err


@pytest.mark.gpu
def test_bench_measures(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(file)]) == 0
    text = capsys.readouterr().out
    assert "einfall" in text and "roofline" in text


def test_an_error_points_at_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.einsum"
    path.write_text(CUT.replace("K[b, h, m, e]", "K[b, h, m, ]]"))
    assert main(["run", str(path)]) == 1
    found = capsys.readouterr()
    assert found.out == "" and "Traceback" not in found.err
    lines = found.err.splitlines()
    assert lines[0].endswith("line 2")
    caret = next(k for k, line in enumerate(lines) if "^" in line)
    assert lines[caret - 1][lines[caret].index("^")] == "]"
    assert lines[-1].startswith("NotationError: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "m"], "NAME=NUMBER"),
        (["--size", "x=3"], "names none"),
        (["--set", "W=3"], "no parameter W"),
        (["--machine", "abacus"], "abacus"),
    ],
)
def test_wrong_words(
    words: list[str], message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(file), *words]) == 1
    found = capsys.readouterr()
    assert message in found.err and "Traceback" not in found.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep", "x=3,4"], "names none"),
        (["--sweep", "m=three"], "RANK=N,N,..."),
        (["--set", "W=3"], "no parameter W"),
        (["--json", "/no/such/folder/times.json"], "cannot be written"),
        (["--plot", "/no/such/folder/times.png"], "cannot be written"),
    ],
)
def test_bench_says_what_is_wrong_before_it_measures(
    words: list[str], message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(file), *words]) == 1
    found = capsys.readouterr()
    assert message in found.err and "Traceback" not in found.err and "needs a GPU" not in found.err


def test_an_example_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "causl"]) == 1
    assert "examples called much alike: causal" in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path / "none.einsum")]) == 1
    assert "none.einsum" in capsys.readouterr().err


def test_a_parameter_without_a_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "band.einsum"
    path.write_text(BAND)
    assert main(["explain", str(path)]) == 1
    assert "--set W=" in capsys.readouterr().err
    assert main(["explain", str(path), "--set", "W=256"]) == 0
    assert "partial" in capsys.readouterr().out


def test_it_runs_as_a_module(file: Path) -> None:
    command = [sys.executable, "-m", "einfall", "show", str(file)]
    root = Path(einfall.__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0 and done.stdout.startswith("def cut(")


def test_sizes_that_are_not_given() -> None:
    c = einfall.cascade(CUT)
    expected = {"b": 2, "h": 2, "p": 1024, "m": 1024, "e": 64, "f": 64}
    assert default_sizes(c, {}) == expected
    other = einfall.cascade(CUT.replace("[b, h, p, e]", "[b, p, h, e]"))
    assert default_sizes(other, {"m": 4096}) == expected | {"m": 4096}
    with pytest.raises(EinfallError, match="x"):
        default_sizes(c, {"x": 3})


def test_inputs_of_integers_stay_in_range() -> None:
    c = einfall.cascade(BAND)
    sizes = default_sizes(c, {"h": 6, "m": 50, "p": 50})
    shapes = shapes_of(c, sizes, {"W": 10, "G": 3})
    assert shapes["K"] == (2, 2, 50, 64) and shapes["length"] == (2,)
    arrays = dict(zip(c.inputs, example_inputs(c, shapes, sizes), strict=True))
    assert arrays["length"].dtype.kind == "i"
    assert 0 <= arrays["length"].min() and arrays["length"].max() <= 50
    assert arrays["Q"].dtype.kind == "f"
    gather = einfall.cascade("def g(K, idx):\n    O[j, e] = K[idx[j], e]\n    return O")
    shapes = shapes_of(gather, default_sizes(gather, {}), {})
    drawn = example_inputs(gather, shapes, default_sizes(gather, {}))[1]
    assert drawn.dtype.kind == "i" and drawn.max() < shapes["K"][0]


def test_pairs() -> None:
    assert pairs(["m=4096", "scale=0.5", "k=-2"]) == {"m": 4096, "scale": 0.5, "k": -2}
    assert isinstance(pairs(["m=4"])["m"], int)
    for text in ("m", "=3", "m=x"):
        with pytest.raises(EinfallError, match="NAME=NUMBER"):
            pairs([text])


def test_summary_of_infinities() -> None:
    assert "1 infinite" in summary(np.array([1.0, -np.inf]))
    assert "empty" in summary(np.zeros((0, 3)))


def test_the_emitter_can_be_chosen(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(file), "--kernels", "--emitter", "tl"]) == 0
    assert "import triton.language as tl" in capsys.readouterr().out
    assert main(["show", str(file), "--kernels", "--emitter", "gluon", "--target", "sm_80"]) == 1
    assert "sm_80 has no such kernels" in capsys.readouterr().err
