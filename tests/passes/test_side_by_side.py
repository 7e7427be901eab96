"""How many programs of few rows run on a multiprocessor follows from the bytes on their way."""

from __future__ import annotations

import pytest
import torch

import einfall
from einfall import examples
from einfall.ir.mapping import MappedKernel
from einfall.passes.walked_span import looked_up


def meta(*shape: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def rows(features: int, dtype: torch.dtype = torch.float16) -> MappedKernel:
    f = einfall.compile(examples.gqa, target="sm_90")
    Q, K = (meta(1, h, n, features, dtype=dtype) for h, n in ((8, 1), (2, 8192)))
    found: MappedKernel = f.lower(Q, K, K, G=4).mapping.kernels[0]
    return found


@pytest.mark.parametrize(("features", "programs"), [(256, 1), (128, 1), (64, 2)])
def test_bytes_on_their_way(features: int, programs: int) -> None:
    kernel = rows(features)
    assert kernel.residents == programs
    assert kernel.num_warps == (4 if features == 256 else 2)


def test_what_a_table_points_at_is_waited_for_longer() -> None:
    f = einfall.compile(examples.paged_decode, target="sm_90", inside=("page",))
    pages = meta(128, 64, 2, 128)
    table, length = meta(1, 128, dtype=torch.int32), meta(1, dtype=torch.int32)
    kernel = f.lower(meta(1, 2, 4, 128), pages, pages, table, length, B=64).mapping.kernels[0]
    assert looked_up(kernel) and not looked_up(rows(128))
    assert (kernel.residents, kernel.num_warps) == (2, 4)


def test_what_merges_has_the_warps_of_what_walks() -> None:
    f = einfall.compile(examples.gqa, target="sm_90")
    for features, warps in ((128, 2), (256, 4)):
        Q, K = (meta(1, h, n, features) for h, n in ((8, 1), (2, 8192)))
        kernels = f.lower(Q, K, K, G=4).kernels
        assert [k.num_warps for k in kernels] == [warps, warps]
