"""Shared memory: what is counted ahead of printing is no less than what a text allocates.

The compiler's own number is compared with the text's in ``test_gluon_compile.py``.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

import einfall
from einfall import examples
from einfall.backends.aot import shared_limit
from einfall.backends.lowered import emit, too_large
from einfall.codegen.gluon_room import room
from einfall.codegen.kernel import Argument, Kernel
from einfall.ir.cascade import Cascade
from einfall.ir.errors import BackendError
from einfall.ir.mapping import MappedKernel
from einfall.passes.crew_memory import Sizing, crew_bytes
from einfall.passes.differentiate import gradient
from einfall.passes.pipeline import map_cascade

GATED = """
def gated(Q, K, V, g):
    S[b, h, p, m: m <= p] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))
    A[b, h, p, m] = softmax[m](S[b, h, p, m])
    O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f] * sigmoid(g[b, h, m])
    R[b, h, p, f] = silu(O[b, h, p, f])
    return R
"""
MARGIN = 40 * 1024
"""What is counted may be more: a place beside another, an operand that is laid down once."""

Found = list[tuple[MappedKernel, MappedKernel, Kernel]]


def kernels(
    cascade: Cascade, sizes: dict[str, int], *, atomics: bool = False
) -> tuple[Found, dict[str, str]]:
    """Return kernels in Gluon as mapped, as cut and as printed, and dtypes."""
    wide = {n: "float32" for n in cascade.inputs if n.endswith("_kept")}
    f = einfall.compile(cascade, target="sm_90", parts={}, emitter="tl")
    known = replace(
        f.lower(sizes=sizes, dtype="float16", dtypes=wide).known, emitter="gluon", atomics=atomics
    )
    mapping, _ = map_cascade(cascade, known)
    found: Found = []
    for kernel in mapping.kernels:
        try:
            found.append((kernel, *emit(mapping, kernel, known)))
        except BackendError as error:
            assert "bytes of shared memory" not in str(error), "counted too little"
    return found, dict(mapping.dtypes)


def lengths(rows: int, columns: int, features: int, values: int) -> dict[str, int]:
    return {"b": 1, "h": 2, "p": rows, "m": columns, "e": features, "f": values}


def counted(kernel: MappedKernel, cut: MappedKernel, dtypes: dict[str, str]) -> int:
    tiles = {p.rank: p.tile for p in cut.partitions}
    rows, walked = kernel.ranks("tiled")[0], kernel.ranks("streamed")[0]
    assert cut.crew is not None
    way = Sizing(cut.crew, tiles[walked], cut.num_stages)
    return crew_bytes(kernel, way, {r: tiles[r] for r in (rows, walked)}, dtypes, "sm_90")


@pytest.mark.parametrize(
    ("name", "features", "atomics", "many"),
    [
        ("attention", 256, False, 1),  # rows leave from no operand that the setup lays down
        ("causal", 128, False, 2),
        ("causal", 96, True, 1),  # two parts of features, each with places of its own
        ("document", 128, False, 2),
        ("attention_calibration", 128, False, 1),  # operands under no name
    ],
)
def test_gradients_are_counted(name: str, features: int, atomics: bool, many: int) -> None:
    sizes = lengths(136, 136, features, 64 if features == 96 else features)
    made = gradient(getattr(examples, name), wrt=("Q", "K", "V"), sizes=sizes)
    found, dtypes = kernels(made.backward, sizes, atomics=atomics)
    assert len(found) >= many
    for kernel, cut, printed in found:
        assert 0 < printed.shared <= counted(kernel, cut, dtypes) <= printed.shared + MARGIN
        assert not too_large(printed, "sm_90")


def test_several_results_of_rows_are_counted() -> None:
    sizes = lengths(333, 333, 128, 128)
    made = gradient(einfall.cascade(GATED), wrt=("Q", "K", "V", "g"), sizes=sizes)
    [(kernel, cut, printed)], dtypes = kernels(made.forward, sizes)
    # 64 x 128 of two consumers: one result in the place of the operand, two in their own
    staged = 2 * 64 * 128 * (2 + 4)
    assert printed.shared > 2 * 64 * 128 * 2 + staged
    assert printed.shared <= counted(kernel, cut, dtypes) <= shared_limit("sm_90")


def test_room_of_calls() -> None:
    box = {"K_box": Argument("box", "K_box", "K", order=(0, 1), block=(1, 32, 64))}
    constants = {"STAGES": 3, "ROWS": 64, "CONSUMERS": 2}

    def bytes_of(call: str) -> int:
        return room([call], constants, box, {"K": "float32"})

    assert bytes_of("barriers(2 * CONSUMERS, 1)") == 4 * 8
    in_boxes = "gl.allocate_shared_memory(K_box.dtype, [STAGES] + K_box.block_type.shape, x)"
    assert bytes_of(in_boxes) == 3 * 32 * 64 * 4
    assert bytes_of("gl.allocate_shared_memory(gl.float16, [CONSUMERS, ROWS, 16], x)") == 4096
    with pytest.raises(AssertionError, match="no call that allocates: f"):
        bytes_of("f(1)")


def test_a_kernel_that_takes_too_much_is_no_kernel() -> None:
    found, _ = kernels(examples.causal, lengths(256, 256, 64, 64))
    large = replace(found[0][2], shared=262552)
    assert (
        too_large(large, "sm_90") == "it takes 262552 bytes of shared memory, and sm_90 has 232448"
    )
