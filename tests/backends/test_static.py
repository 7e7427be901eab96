"""Static inputs: their tables are kept until they change, and never outlive them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import einfall
from einfall.backends.dispatch import Launch
from einfall.backends.static import lasting

P = 300
LABELS = torch.from_numpy(np.sort(np.random.default_rng(1).integers(0, 5, (1, P)), -1)).int()
TEXT = """
def documents(Q, K, V, doc):
    S[b, h, p, m: m <= p and doc[b, p] == doc[b, m]] = Q[b, h, p, e] * K[b, h, m, e]
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
    return O
"""


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The kernels that run, in order."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found: list[str] = []
    through = Launch.through_triton

    def run(self: Launch, tensors: Any) -> Any:
        found.append(getattr(self.function, "__name__", "") or self.function.fn.__name__)
        return through(self, tensors)

    monkeypatch.setattr(Launch, "through_triton", run)
    yield found


def arguments() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [*(torch.randn(1, 1, P, 16, generator=draw) for _ in range(3)), LABELS.clone()]


def compiled(**options: Any) -> einfall.Compiled:
    return einfall.compile(
        einfall.cascade(TEXT),
        backend="triton",
        emitter="tl",
        tiles={"p": 128, "m": 128},
        **options,
    )


def agrees(f: einfall.Compiled, given: list[torch.Tensor]) -> None:
    wanted = torch.as_tensor(np.asarray(einfall.interpret(f.declared, *given))).float()
    torch.testing.assert_close(f(*given), wanted, rtol=1e-5, atol=1e-5)


def tables(launched: list[str]) -> int:
    """How many tables were made since the last time that this was asked."""
    found = sum("tiles" in name for name in launched)
    launched.clear()
    return found


def test_a_table_is_kept_until_its_tensor_changes(launched: list[str]) -> None:
    f, given = compiled(static=("doc",)), arguments()
    agrees(f, given)
    assert tables(launched) == 1
    agrees(f, given)
    agrees(f, [*given[:3], given[3].view(1, P)])  # the same memory under another name
    assert tables(launched) == 0
    given[3].copy_(torch.arange(P) // 150)
    agrees(f, given)
    assert tables(launched) == 1
    given[3][:, 40:90] = 7
    agrees(f, given)
    agrees(f, given)
    assert tables(launched) == 1


def test_several_tensors_have_a_table_each(launched: list[str]) -> None:
    f, given = compiled(static=("doc",)), arguments()
    other = [*given[:3], torch.arange(P)[None].int() // 100]
    for _ in range(3):
        agrees(f, given)
        agrees(f, other)
    assert tables(launched) == 2
    del other[3]
    agrees(f, [*given[:3], torch.arange(P)[None].int() // 60])  # perhaps where the other one was
    assert tables(launched) == 1


def test_memory_that_is_used_again_is_another_tensor(launched: list[str]) -> None:
    f, given = compiled(static=("doc",)), arguments()
    kept = {}
    for width in (50, 80, 110, 140):
        labels = torch.arange(P)[None].int() // width
        kept[labels.data_ptr()] = width
        agrees(f, [*given[:3], labels])
        del labels
    assert tables(launched) == 4


def test_without_the_promise_each_call_lists_its_tiles(launched: list[str]) -> None:
    f, given = compiled(), arguments()
    agrees(f, given)
    agrees(f, given)
    assert tables(launched) == 2
    assert "at each call" in str(f.explain())
    kept = compiled(static=("doc",))
    kept(*given)
    said = " ".join(str(kept.explain()).split())
    assert "again only when a tensor that it follows changes" in said


def test_what_follows_from_static_inputs_alone_is_kept(launched: list[str]) -> None:
    """Any kernel of that kind: here the one that sums features of keys for every query."""
    text = """
def f(Q, W, X):
    Y[m, e] = W[m, k] * X[k, e]
    Z[m] = max[e](Y[m, e])
    S[p, m] = sum[e](Q[p, e] * Y[m, e]) + Z[m]
    A[p, m] = softmax[m](S[p, m])
    O[p] = sum[m](A[p, m] * Z[m])
    return O
"""
    draw = torch.Generator().manual_seed(0)
    given = [torch.randn(*s, generator=draw) for s in ((64, 16), (64, 16), (16, 16))]
    f = einfall.compile(einfall.cascade(text), backend="triton", static=("W", "X"))
    agrees(f, given)
    every = len(launched)
    launched.clear()
    agrees(f, given)
    assert 0 < len(launched) < every or every == 1
    assert every > 1
    launched.clear()
    given[2].mul_(2)
    agrees(f, given)
    assert len(launched) == every


def test_in_inference_mode_and_with_gradients(launched: list[str]) -> None:
    f, given = compiled(static=("doc",)), arguments()
    with torch.inference_mode():
        agrees(f, arguments())
        agrees(f, given)
    for x in given[:3]:
        x.requires_grad_()
    launched.clear()
    for _ in range(2):
        f(*given).sum().backward()
    assert tables(launched) == 3  # one of the forward, two of the backward


def test_names_are_inputs() -> None:
    with pytest.raises(einfall.ShapeError, match="static names inputs that seldom change"):
        compiled(static=("docs",))
    assert lasting((), ("doc",), ("O",)) == frozenset()
