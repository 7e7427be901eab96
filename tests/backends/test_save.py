"""Saved files: alone in a process without Einfall, they run, test themselves, and are formatted."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall.backends.lowered import Lowered
from einfall.backends.save import save
from einfall.ir.errors import BackendError

CUT = """
def cut(Q, K, V, *, scale=0.5):
    S[b, p, m: m <= p] = Q[b, p, e] * K[b, m, e] * scale
    G[b, p] = max[m](S[b, p, m])
    N[b, p, m] = exp(S[b, p, m] - G[b, p])
    D[b, p] = N[b, p, m]
    A[b, p, m] = N[b, p, m] / D[b, p]
    O[b, p, f] = A[b, p, m] * V[b, m, f]
    L[b, p] = G[b, p] + log(D[b, p])
    return O, L
"""

BAND = """
def band(Q, K, V, *, W):
    S[p, m: p - W < m] = Q[p, e] * K[m, e]
    A[p, m] = softmax[m](S[p, m])
    O[p, f] = A[p, m] * V[m, f]
    return O
"""

CHAIN = """
def chain(Q, K, V):
    X[h, e, f] = K[h, m, e] * V[h, m, f]
    O[h, p, f] = Q[h, p, e] * X[h, e, f]
    return O
"""

SHARED = """
def shared(Q, K, V, doc, *, G=2):
    S[h, p, m: doc[p] == doc[m]] = Q[h, p, e] * K[h // G, m, e]
    A[h, p, m] = softmax[m](S[h, p, m])
    O[h, p, f] = A[h, p, m] * V[h // G, m, f]
    return O
"""

CLASH = """
def sigmoid(X, V):
    O[p, f] = sum[m](sigmoid(X[p, m]) * V[m, f])
    return O
"""

SMALL = {"e": 16, "f": 16}
TILES = {"p": 32, "m": 32}


def lower(text: str, dtype: str = "float32", sizes: dict[str, int] | None = None) -> Lowered:
    c = einfall.cascade(text)
    kinds = {"doc": "int32"} if "doc" in c.inputs else None
    given: dict[str, Any] = {"W": 20} if dict(c.parameters).get("W", 0) is None else {}
    f = einfall.compile(c, target="sm_90")
    return f.lower(sizes=sizes or SMALL, dtype=dtype, dtypes=kinds, tiles=TILES, **given)


def ruff(*words: str) -> str:
    command = [sys.executable, "-m", "ruff", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def run_alone(path: Path) -> subprocess.CompletedProcess[str]:
    """Run a file in a process that cannot import Einfall."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
    hide = "import sys, runpy; sys.modules['einfall'] = None; "
    command = [sys.executable, "-c", hide + f"runpy.run_path({str(path)!r}, run_name='__main__')"]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=path.parent, timeout=120
    )


def load(path: Path) -> Any:
    """Import a saved file into this process."""
    spec = importlib.util.spec_from_file_location(f"saved_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Triton looks for a kernel's helpers in its module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "dtype"), [(CUT, "float16"), (CHAIN, "float32"), (SHARED, "float16")]
)
def test_a_saved_file_runs_alone_and_tests_itself(text: str, dtype: str, tmp_path: Path) -> None:
    k = lower(text, dtype)
    path = save(k, tmp_path / "kernel.py")
    done = run_alone(path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{k.cascade.name}: agrees with the interpreter\n"


@pytest.mark.parametrize("text", [CUT, BAND, CHAIN, SHARED, CLASH])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_saved_file_is_formatted(text: str, dtype: str, tmp_path: Path) -> None:
    path = save(lower(text, dtype), tmp_path / "kernel.py")
    common = ("--isolated", "--line-length", "100", str(path))
    assert ruff("format", "--diff", *common) == ""
    assert ruff("check", "--select", "E,F,I", "--ignore", "E741", *common) == ""
    roots = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    assert roots == {"os", "torch", "triton"}


def test_the_kernels_are_as_they_are(tmp_path: Path) -> None:
    k = lower(CUT)
    saved = save(k, tmp_path / "kernel.py").read_text()
    assert len(k.kernels) == 1
    assert k.kernels[0].text.split("@triton.jit", 1)[1].rstrip() in saved


def test_the_launcher_takes_other_lengths_and_strides(tmp_path: Path, device: str) -> None:
    module = load(save(lower(CUT), tmp_path / "other.py"))
    draw = torch.Generator().manual_seed(3)
    Q, K = (torch.randn(2, n, 16, generator=draw) for n in (50, 70))
    V = torch.randn(2, 16, 70, generator=draw).transpose(1, 2)
    c = einfall.cascade(CUT)
    options: tuple[dict[str, Any], ...] = ({}, {"scale": 0.125})
    for keywords in options:
        found = module.cut(*(t.to(device) for t in (Q, K, V)), **keywords)
        for got, exact in zip(found, einfall.interpret(c, Q, K, V, **keywords), strict=True):
            error = np.linalg.norm(got.cpu().numpy() - exact) / np.linalg.norm(exact)
            assert error < 1e-5


@pytest.mark.parametrize(("width", "boxes"), [(16, 2), (20, 0)])
def test_boxes_are_fetched_only_where_a_copy_has_them(
    width: int, boxes: int, tmp_path: Path
) -> None:
    """Rows of 20 half-precision numbers begin at multiples of 8 bytes."""
    path = save(lower(CUT, "float16", {"e": width, "f": width}), tmp_path / "boxes.py")
    assert path.read_text().count("tl.make_tensor_descriptor(") == boxes
    load(path).test()


def test_a_condition_that_known_sizes_took_away_comes_back(tmp_path: Path, device: str) -> None:
    """At 24 rows a band of 30 leaves nothing out; the saved file is right at 90 too."""
    c = einfall.cascade(BAND)
    tensors = [torch.randn(24, 16) for _ in range(3)]
    k = einfall.compile(c).lower(*tensors, W=30)
    module = load(save(k, tmp_path / "band.py"))
    Q, K, V = (torch.randn(90, 16) for _ in range(3))
    got = module.band(Q.to(device), K.to(device), V.to(device), W=30).cpu().numpy()
    exact = einfall.interpret(c, Q, K, V, W=30)
    assert np.linalg.norm(got - exact) / np.linalg.norm(exact) < 1e-5


def test_a_function_with_the_launchers_name(tmp_path: Path) -> None:
    module = load(save(lower(CLASH), tmp_path / "clash.py"))
    module.test()


def test_the_self_test_finds_a_wrong_kernel(tmp_path: Path) -> None:
    path = save(lower(CUT), tmp_path / "wrong.py")
    text = path.read_text()
    assert text.count("tl.exp2(") > 1
    path.write_text(text.replace("n = tl.exp2(", "n = 1.001 * tl.exp2(", 1))
    with pytest.raises(AssertionError):
        load(path).test()


def test_the_launcher_refuses_what_it_was_not_made_for(tmp_path: Path, device: str) -> None:
    module = load(save(lower(SHARED), tmp_path / "refusing.py"))
    Q, K, V = (torch.zeros(h, 40, 16, device=device) for h in (4, 2, 2))
    doc = torch.zeros(40, dtype=torch.int32, device=device)
    assert module.shared(Q, K, V, doc).shape == (4, 40, 16)
    with pytest.raises(ValueError, match="K must be torch.float32"):
        module.shared(Q, K.half(), V, doc)
    with pytest.raises(ValueError, match="V must be .* of shape"):
        module.shared(Q, K, V[:, 1:], doc)
    with pytest.raises(ValueError, match="Q must be .* 16"):
        module.shared(Q[..., :8], K, V, doc)
    with pytest.raises(ValueError, match="equally long"):
        module.shared(Q[:, :30], K, V, doc[:30])


def test_nothing_is_written_over_no_rows(tmp_path: Path, device: str) -> None:
    module = load(save(lower(CHAIN), tmp_path / "empty.py"))
    Q, K, V = (torch.ones(h, n, 16, device=device) for h, n in ((2, 0), (2, 9), (2, 9)))
    assert module.chain(Q, K, V).shape == (2, 0, 16)


def test_names_and_places_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="torch"):
        save(lower(CHAIN.replace("Q", "torch")), tmp_path / "x.py")
    with pytest.raises(BackendError, match="cannot be written"):
        save(lower(CHAIN), tmp_path / "missing" / "x.py")


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (
            "def longest(X):\n    T[p, j] = topk[m, 9](X[p, m], ascending=True)\n    return T",
            [(2, 3000)],
        ),
        (
            "def put(X, W, idx: unique):\n"
            "    O[b, p, f] = sum[u: idx[b, u] == p](X[b, u, f])\n"
            "    Z[p] = 2 * W[p]\n"
            "    return O, Z",
            [(2, 20, 16), (50,), (2, 20)],
        ),
    ],
)
def test_what_passes_between_kernels_is_allocated(
    text: str, shapes: list[tuple[int, ...]], tmp_path: Path
) -> None:
    """Bins of a search, zeros under what lists put in place, lists without repeats to try."""
    tensors = [torch.zeros(s) for s in shapes]
    tensors[2:] = [x.int() for x in tensors[2:]]
    lowered = einfall.compile(einfall.cascade(text)).lower(*tensors)
    assert run_alone(save(lowered, tmp_path / "saved.py")).returncode == 0
