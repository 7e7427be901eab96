"""Compilations in forks: what is too late, what ends the nursery, what a fork sees."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from einfall.backends import triton_nursery
from einfall.backends.triton_compile import Request, signature
from einfall.backends.triton_nursery import compile_apart
from einfall.backends.triton_report import Report
from einfall.backends.triton_targets import target_of

from .hand_kernels import rows_kernel


def request(ahead: str = "") -> Request:
    """Return a request whose text begins with other statements."""
    kernel = rows_kernel()
    told = signature(kernel, {"X": "float32", "scale": "float32"})
    return Request(replace(kernel, text=ahead + kernel.text), told, target_of("sm_90"))


def test_what_takes_too_long_is_ended() -> None:
    found = compile_apart(request("import time\n\ntime.sleep(300)\n"), 0.3)
    assert found.late and found.answer is None and found.status != 0


def test_a_fork_sees_this_environment_and_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EINFALL_TEST_WORD", "heard")
    text = 'import os\n\nprint(os.environ["EINFALL_TEST_WORD"], flush=True)\nos._exit(7)\n'
    found = compile_apart(request(text), 60)
    assert (found.status, found.late, found.said) == (7, False, "heard")


def test_a_nursery_that_ended_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compile_apart(request(), 60)
    assert isinstance(found.answer, Report) and found.status == 0
    first = triton_nursery._nursery
    assert first is not None and first.owner == os.getpid()
    first.process.kill()
    first.process.wait()
    again = compile_apart(request(), 60)
    assert replace(again.answer, seconds=0.0) == replace(found.answer, seconds=0.0)
    second = triton_nursery._nursery
    assert second is not None and second is not first

    def interrupted() -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(second.process.stdout, "readline", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_apart(request(), 60)
    assert triton_nursery._nursery is None and second.process.wait() != 0
