"""The sparse table: time for each executed tile beside the dense kernel's, and beside its peers.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.sparse --out results
    python -m einfall.examples.benchmarks.sparse --rows 'window-*' --peers einfall flex

An executed tile is one that a kernel visits, however few of its points exist. ``tile`` is our time
for each of their points over that of our causal kernel at the same length; at 1.00 nothing is lost
but what tiles compute beside the points that exist. FlexAttention's mask of blocks is made before
it is timed; what that took is in columns of its own. Where blocks are chosen by what queries and
keys are, PyTorch chooses them for it, in that time too, while our time is that of choosing and of
attention together.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

import einfall
import einfall.examples
from einfall.backends.explain_visits import Facts, visits
from einfall.examples.benchmarks import peers
from einfall.examples.benchmarks.forward import reason
from einfall.examples.benchmarks.report import OURS, Result, Table, machine
from einfall.examples.benchmarks.rounds import add_options, in_turn, tabulate
from einfall.examples.benchmarks.rows import Row, select
from einfall.examples.benchmarks.sparse_rows import BLOCK, SPARSE_ROWS, SparseRow, inputs

DENSE = "einfall-dense"
"""Our causal kernel at a row's length, in the row's rounds."""

ABOUT = (
    "Milliseconds, medians of rounds of medians; tile: our time for each executed point over that "
    "of our causal kernel at the same length."
)


@dataclass(frozen=True, slots=True)
class SparseResult(Result):
    """A result, with what a mask costs.

    points : points of executed tiles; 0 where they were not counted. mask_ms, mask_bytes : to make
        and to hold what says which blocks exist.
    """

    points: int = 0
    mask_ms: float = 0.0
    mask_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SparseTable(Table):
    """The table of sparse rows."""

    name: str = "sparse"
    about: str = ABOUT

    def row_data(self, row: Row) -> dict[str, Any]:
        """Return a row as data; how its points are told is left out."""
        names = ("name", "example", "batch", "heads", "n", "d", "parameters", "peers", "less")
        return {name: getattr(row, name) for name in names}

    def error_ratio(self, row: Row) -> float | None:
        """Return our error over FlexAttention's; above 2 is a fault."""
        ours, flex = self.result(row, OURS), self.result(row, "flex")
        return ours.errors[0] / flex.errors[0] if ours and flex else None

    def result(self, row: Row, who: str) -> SparseResult | None:
        """Return what was measured, if anything."""
        found = self.of(row, who)
        assert found is None or isinstance(found, SparseResult)
        return found

    def tile(self, row: SparseRow) -> float | None:
        """Return our time for each executed point over the dense kernel's."""
        ours, other = self.result(row, OURS), self.result(row, DENSE if row.dense else OURS)
        if ours is None or other is None or not ours.points or not other.points:
            return None
        return (ours.ms / ours.points) / (other.ms / other.points)

    def lines(self) -> list[list[str]]:
        """Return the table's cells, the headings first."""
        heads = ["row", "density", OURS, "tile", "flex", "flex / ours", "cuDNN / ours"]
        lines = [[*heads, "our mask", "flex's mask", "error / best peer's"]]
        for row in self.rows:
            assert isinstance(row, SparseRow)
            ours, flex = self.result(row, OURS), self.result(row, "flex")
            dense, tile = self.result(row, "sdpa-cudnn"), self.tile(row)
            ratio = self.error_ratio(row)
            every = row.heads * row.n**2
            lines.append(
                [
                    row.name + (" *" if row.less else ""),
                    f"{ours.points / every:.2%}" if ours and ours.points else "-",
                    f"{ours.ms:.3f}" if ours else "-",
                    f"{tile:.2f}" if tile else "-",
                    f"{flex.ms:.3f}" if flex else "-",
                    f"{flex.ms / ours.ms:.2f}" if ours and flex else "-",
                    f"{dense.ms / ours.ms:.2f}" if ours and dense else "-",
                    f"{ours.mask_bytes / 2**20:.2f} MiB" if ours else "-",
                    f"{flex.mask_ms:.0f} ms, {flex.mask_bytes / 2**20:.2f} MiB" if flex else "-",
                    f"{ratio:.2f}" if ratio else "-",
                ]
            )
        return lines


def ours(row: SparseRow, tensors: Sequence[Tensor]) -> tuple[peers.Call, einfall.Compiled]:
    """Return Einfall's call for a row; what its own tensors decide is made once, as a mask is."""
    example = getattr(einfall.examples, row.example)
    compiled = einfall.compile(example, backend="triton", static=example.inputs[3:])
    parameters: dict[str, Any] = dict(row.parameters)

    def call() -> tuple[Tensor, ...]:
        found = compiled(*tensors, **parameters)
        return found if isinstance(found, tuple) else (found,)

    call()
    return call, compiled


def executed(row: SparseRow, tensors: Sequence[Tensor], compiled: einfall.Compiled) -> int:
    """Return how many points the tiles have that our kernel visits."""
    if row.example == "block_lists":
        return int(tensors[4].sum()) * BLOCK * BLOCK
    parameters: dict[str, Any] = dict(row.parameters)
    lowered = compiled.lower(*tensors, **parameters)
    kernel = next(k for k in lowered.mapping.kernels if "O" in k.writes)
    values = {
        name: x.cpu().numpy()
        for name, x in zip(lowered.cascade.inputs[3:], tensors[3:], strict=True)
    }
    found = visits(kernel, kernel.traversals[0], Facts.of(lowered, lowered.known.sizes, values))
    return 0 if isinstance(found, str) else found.points


def mask_of_ours(row: SparseRow, tensors: Sequence[Tensor], compiled: einfall.Compiled) -> int:
    """Return the bytes of lists: those given, and those of tiles that kernels make."""
    parameters: dict[str, Any] = dict(row.parameters)
    lowered = compiled.lower(*tensors, **parameters)
    sizes = {**lowered.known.sizes}
    own = {e.name for e in lowered.mapping.cascade.einsums}
    made = [b for k in lowered.kernels for b in k.writes if b.tensor not in own]
    made_bytes = sum(4 * prod(b.extent(r, sizes.get(r, 0)) for r in b.ranks) for b in made)
    given = [x for x in tensors[3:] if row.example in ("block_lists", "radial_blocks")]
    return made_bytes + sum(x.numel() * x.element_size() for x in given)


def flex(row: SparseRow, tensors: Sequence[Tensor]) -> tuple[peers.Call, float, int]:
    """Return FlexAttention's call, the milliseconds its mask took to make, and its bytes."""
    from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

    Q, K, V, *extra = tensors
    given = tuple(extra)
    if row.example == "block_lists":
        blocks, count = given
        none = torch.zeros_like(count)
        mask = BlockMask.from_kv_blocks(none, torch.zeros_like(blocks), count, blocks, BLOCK)
        taken = 0.0
    elif row.example == "topk_blocks":

        def choose() -> tuple[Tensor, Any]:
            return selected_mask(row, Q, K)

        taken, (_, mask) = timed(choose)
    else:
        per_head = row.heads if row.example == "moa" else None

        def make() -> Any:
            return create_block_mask(
                lambda b, h, q, k: row.keep(row, given, h, q, k),
                None,
                per_head,
                row.n,
                row.n,
                device=str(Q.device),
                _compile=True,
            )

        taken, mask = timed(make)
    held = [x for x in vars(mask).values() if isinstance(x, Tensor)]
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)

    def call() -> tuple[Tensor, ...]:
        if row.example == "topk_blocks":
            chosen, made = selected_mask(row, Q, K)
            return compiled(Q, K, V, block_mask=made), chosen
        return (compiled(Q, K, V, block_mask=mask),)

    call()
    return call, taken, sum(x.numel() * x.element_size() for x in held)


def timed(make: Callable[[], Any]) -> tuple[float, Any]:
    """Return the milliseconds that a second call takes, and what it made."""
    make()
    torch.cuda.synchronize()
    start = time.perf_counter()
    made = make()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start), made


def select_blocks(row: SparseRow, Q: Tensor, K: Tensor) -> Tensor:
    """Choose blocks in PyTorch as ``topk_blocks`` does: blocks[b, h, i, j], -1 behind the last."""
    B, k = int(row.parameters["B"]), int(row.parameters["k"])
    blocks_of = (1, row.heads, row.n // B, B, row.d)
    means = [x.reshape(blocks_of).mean(3, dtype=torch.float32) for x in (Q, K)]
    scores: Tensor = means[0] @ means[1].mT
    places = torch.arange(scores.shape[-1], device=Q.device)
    behind = places[None, :] > places[:, None]
    forced = (places[None, :] < 1) | (places[None, :] == places[:, None])
    worth = scores.masked_fill(forced, torch.inf).masked_fill(behind, -torch.inf)
    values, chosen = worth.topk(min(k, len(places)), dim=-1)
    return chosen.masked_fill(values == -torch.inf, -1).int()


def not_before(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Whether a query is not before a key; one function, for another one is compiled again."""
    return q >= k


def selected_mask(row: SparseRow, Q: Tensor, K: Tensor) -> tuple[Tensor, Any]:
    """Choose blocks, and say which to FlexAttention: its own block is partial, all others full."""
    from torch.nn.attention.flex_attention import BlockMask

    chosen = select_blocks(row, Q, K)
    own = torch.arange(chosen.shape[2], device=Q.device, dtype=torch.int32)[:, None]
    own = own.expand(*chosen.shape[:3], 1).contiguous()
    full = (chosen >= 0) & (chosen != own)
    first = (~full).int().argsort(dim=-1, stable=True)
    listed = torch.zeros((*chosen.shape[:3], chosen.shape[2]), dtype=torch.int32, device=Q.device)
    listed[..., : chosen.shape[-1]] = chosen.gather(-1, first).clamp(min=0)
    single = torch.zeros_like(listed)
    single[..., :1] = own
    mask = BlockMask.from_kv_blocks(
        torch.ones_like(own[..., 0]),
        single,
        full.sum(-1, dtype=torch.int32),
        listed,
        int(row.parameters["B"]),
        mask_mod=not_before,
        compute_q_blocks=False,  # a backward alone would read them
    )
    return chosen, mask


def cudnn(row: SparseRow, tensors: Sequence[Tensor]) -> peers.Call:
    """Return cuDNN's call over all causal pairs."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    Q, K, V = tensors[:3]

    def call() -> tuple[Tensor, ...]:
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
            return (scaled_dot_product_attention(Q, K, V, is_causal=True),)

    call()
    return call


def error(row: SparseRow, found: Sequence[Tensor], tensors: Sequence[Tensor]) -> float:
    """Return the error of O at some queries of some heads against float64, relative in L2.

    Where all of them are empty it is larger than anything unless O is 0.
    """
    Q, K, V, *extra = tensors
    given = tuple(extra) if row.example != "topk_blocks" else tuple(found[1:2])
    n, device = row.n, Q.device
    width = min(32, n)
    places = [torch.arange(a, a + width) for a in (0, n // 3, n - width)]
    queries = torch.cat(places).to(device)
    keys = torch.arange(n, device=device)
    wrong, size = 0.0, 0.0
    for h in sorted({0, row.heads // 2, row.heads - 1}):
        live = row.keep(row, given, h, queries[:, None], keys[None, :])
        S = (Q[0, h, queries].double() @ K[0, h].double().T) * row.d**-0.5
        A = S.masked_fill(~live, -torch.inf).softmax(-1).nan_to_num()
        expected = A @ V[0, h].double()
        wrong += float((found[0][0, h, queries].double() - expected).square().sum())
        size += float(expected.square().sum())
    return math.sqrt(wrong / max(size, 1e-30))


def make(who: str, row: SparseRow, tensors: Sequence[Tensor]) -> tuple[peers.Call, SparseResult]:
    """Return somebody's call for a row, and the result without its times."""
    start = time.perf_counter()
    points, mask_ms, mask_bytes = 0, 0.0, 0
    if who == OURS:
        call, compiled = ours(row, tensors)
        points = executed(row, tensors, compiled)
        mask_bytes = mask_of_ours(row, tensors, compiled)
    elif who == "flex":
        call, mask_ms, mask_bytes = flex(row, tensors)
    else:
        call = cudnn(row, tensors)
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    found = SparseResult(
        row.name, who, first_call=first, points=points, mask_ms=mask_ms, mask_bytes=mask_bytes
    )
    return call, found


def measure(row: Any, who: Sequence[str], rounds: int, rep: int) -> list[Result]:
    """Check and time all implementations of a row."""
    peers.begin()
    tensors = inputs(row)
    calls: dict[str, peers.Call] = {}
    found: dict[str, Result] = {}
    for name in who:
        try:
            calls[name], made = make(name, row, tensors)
            result = calls[name]()
            exact = name != "sdpa-cudnn" or row.example == "causal"
            wrong = (error(row, result, tensors),) if exact else (float("nan"),)
            if exact and not wrong[0] < 1e-2:
                raise RuntimeError(f"computes something else: its error is {wrong[0]:.1e}")
            found[name] = replace(made, errors=wrong)
        except Exception as problem:  # whatever stops one of them must not stop the others
            calls.pop(name, None)
            found[name] = SparseResult(row.name, name, refusal=reason(problem))
            torch.cuda.empty_cache()
    if row.dense and OURS in calls:
        (dense,) = select(SPARSE_ROWS, [row.dense])
        calls[DENSE], made = make(OURS, dense, inputs(dense))
        found[DENSE] = replace(made, row=row.name, who=DENSE)
    for name, values in in_turn(calls, rounds, rep).items():
        found[name] = replace(found[name], milliseconds=values)
    return list(found.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write. Returns 1 if an error of ours is above twice FlexAttention's."""
    everybody = (OURS, "sdpa-cudnn", "flex")
    parser = argparse.ArgumentParser(description="sparse: time for each executed tile")
    add_options(parser, everybody, "sparse", 25)
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    options = parser.parse_args(arguments)
    rows = select(SPARSE_ROWS, options.rows)
    if options.list:
        for row in rows:
            print(f"{row.name:<26} {row.example:<16} {row.heads} heads, {', '.join(row.peers)}")
        return 0
    if not torch.cuda.is_available():
        parser.error("a GPU is needed; --list works without one")
    return tabulate(SparseTable((), (), machine()), rows, options, measure)


if __name__ == "__main__":
    sys.exit(main())
