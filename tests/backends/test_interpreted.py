"""What a compiled cascade says of a call that the interpreter answered."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch

import einfall
from einfall import examples
from einfall.ir.errors import EinfallError


@pytest.mark.parametrize("kind", [torch.zeros, numpy.zeros])
def test_kernels_are_made_where_someone_asks_for_their_text(kind: Any) -> None:
    f = einfall.compile(examples.causal, backend="interpreter")
    with pytest.raises(EinfallError, match="has not been lowered: call it"):
        _ = f.source
    for size in (8, 12):
        given = kind((1, 2, size, 16), dtype=(torch if kind is torch.zeros else numpy).float16)
        assert not f(given, given, given).any()
        assert "def causal_kernel(" in f.source
        assert dict(f.explain().to_dict()["sizes"])["p"] == size
