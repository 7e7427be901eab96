from __future__ import annotations

import inspect
import math
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import einfall
import einfall.examples
from einfall.backends.triton import hashing, interpreting, load, triton
from einfall.backends.triton_compile import signature
from einfall.codegen.kernel import Argument
from einfall.ir.errors import BackendError, VerificationError

from .hand_kernels import rows_kernel


def test_one_text_is_imported_once() -> None:
    function = load(rows_kernel())
    assert load(rows_kernel(64, 64)) is function
    other = rows_kernel()
    assert load(replace(other, text=other.text + "\n# other\n")) is not function


def test_the_function_comes_from_the_cached_file(einfall_cache: Path) -> None:
    kernel = replace(rows_kernel(), text=rows_kernel().text + "\n# from a file\n")
    file = inspect.getsourcefile(load(kernel).fn)
    assert file is not None
    assert Path(file).parent == einfall_cache / "kernels"
    assert Path(file).read_text() == kernel.text


def test_the_function_runs(device: str) -> None:
    X = torch.tensor([[0.0, 1.0, 3.0], [2.0, -1.0, 2.0]], device=device)
    G, D = torch.empty(2, device=device), torch.empty(2, device=device)
    load(rows_kernel())[(1,)](X, G, D, 3, 1, 1, 1, 2, 3, 1.0, 16, 32)
    assert G.tolist() == [3.0, 2.0]
    expected = [1 + math.exp(-2) + math.exp(-3), 2 + math.exp(-3)]
    torch.testing.assert_close(D.cpu(), torch.tensor(expected), rtol=1e-6, atol=0)


def test_text_that_does_not_import_is_our_fault() -> None:
    kernel = rows_kernel()
    with pytest.raises(VerificationError, match="NameError"):
        load(replace(kernel, text="import triton\n\nrows = nothing\n"))
    with pytest.raises(VerificationError, match="no module that defines it"):
        load(replace(kernel, name="columns"))


def test_text_and_argument_list_must_agree() -> None:
    kernel = rows_kernel()
    arguments = (*kernel.arguments[:-1], Argument("tile", "N0"))
    with pytest.raises(VerificationError, match=r"M0\).*N0\)"):
        load(replace(kernel, arguments=arguments))


def test_late_change_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if interpreting():
        monkeypatch.delenv("TRITON_INTERPRET")
    else:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(BackendError, match="TRITON_INTERPRET"):
        load(rows_kernel())


def test_lengths_are_no_reason_to_compile_again() -> None:
    """Sizes that are walked, tiled or slowest; what a size in between is may be worth knowing."""
    f = einfall.compile(einfall.examples.gqa, backend="triton")
    Q, K = (
        torch.empty(2, h, n, 64, dtype=torch.float16, device="meta") for h, n in ((8, 1), (2, 999))
    )
    parts, merge = f.lower(Q, K, K, G=4, parts={"m": 0}).kernels
    assert parts.lengths == ("M_PART", "H_ROW", "M")
    assert merge.lengths == ("B", "M_PART")
    if not interpreting():
        assert load(parts).do_not_specialize == [*parts.lengths]
    sign = signature(
        parts, {"Q": "float16", "K": "float16", "V": "float16", "G": "int32", "m_step": "int32"}
    )
    names = {parts.arguments[k].name for k in sign.multiples}
    assert not names & {*parts.lengths} and {"B", "K_m"} <= names


def test_what_triton_hashes_is_hashed_beside_and_there_when_a_kernel_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun, threads = threading.Event(), list[int]()

    def hashed() -> str:
        begun.wait()
        threads.append(threading.get_ident())
        return "key"

    monkeypatch.setenv("EINFALL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton().runtime.cache, "triton_key", hashed)
    hashing.cache_clear()
    try:
        assert hashing() is hashing() and threads == []
        begun.set()
        load(rows_kernel())
        assert len(threads) == 1 and threads != [threading.get_ident()]
    finally:
        hashing.cache_clear()
