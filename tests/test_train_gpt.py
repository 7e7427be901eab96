"""Training on a declared attention: the losses are SDPA's, and would part without gradients."""

from __future__ import annotations

import pytest
from torch import Tensor

from einfall.examples.train_gpt import Setting, declared, sdpa, train, words

SETTING = Setting(layers=2, heads=2, width=32, context=24, batch=2, steps=8, rate=0.03)
TEXT = words()


def test_words_are_the_projects_own() -> None:
    assert len(TEXT) > 100_000
    assert b"A mask is sparsity" in TEXT and b"import numpy" not in TEXT[-20_000:]


def test_losses_follow_sdpa() -> None:
    expected = train(sdpa(), SETTING, TEXT, "cpu")
    assert expected[-1] < expected[0] - 0.5
    assert train(declared("cpu"), SETTING, TEXT, "cpu") == pytest.approx(expected, abs=1e-4)


def test_losses_part_without_the_gradients_of_keys() -> None:
    own = sdpa()

    def frozen(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        return own(Q, K.detach(), V)

    expected = train(sdpa(), SETTING, TEXT, "cpu")
    found = train(frozen, SETTING, TEXT, "cpu")
    assert max(abs(x - y) for x, y in zip(found, expected, strict=True)) > 1e-3
