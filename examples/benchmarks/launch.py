"""What a cached call costs the processor before the GPU begins: Einfall, SDPA, FlexAttention.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.launch

The tensors are so small that the GPU is always waiting, so the time of a loop of calls is the time
that the processor spends on each. A tight loop flatters everybody; the order is what counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import torch
from torch import Tensor

from einfall.examples.benchmarks import forward, peers
from einfall.examples.benchmarks.reference import inputs
from einfall.examples.benchmarks.report import OURS
from einfall.examples.benchmarks.rows import Row

SMALL = (
    Row("full", "attention", 1, 1, 128, 64),
    Row("causal", "causal", 1, 1, 128, 64),
    Row("window", "sliding_window", 1, 1, 128, 64, parameters={"W": 32}),
)


def per_call(
    call: Callable[[], object], wait: Callable[[], None], calls: int, rounds: int
) -> float:
    """Return microseconds a call: the median over rounds of loops that end with ``wait``."""
    if calls < 1 or rounds < 1:
        raise ValueError(f"at least one call and one round are needed; {calls}, {rounds} given")
    found = []
    for _ in range(rounds):
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        found.append((time.perf_counter() - start) / calls * 1e6)
    return median(found)


def make(name: str, row: Row, tensors: tuple[Tensor, ...]) -> Callable[[], object]:
    """Return a call; SDPA's chooses its kernel by itself, as it does for users."""
    if name == OURS:
        return forward.ours(row, tensors)
    if name == "sdpa":
        if row.example not in ("attention", "causal"):
            raise RuntimeError(f"has no form of {row.example}")
        attention = torch.nn.functional.scaled_dot_product_attention
        Q, K, V = tensors
        return partial(attention, Q, K, V, is_causal=row.example == "causal")
    return peers.make(name, row, tensors)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="cost of a cached call, in microseconds")
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("a GPU is needed")
    for row in SMALL:
        tensors = inputs(row)
        peers.begin()
        cells = []
        for name in (OURS, "sdpa", "flex"):
            try:
                call = make(name, row, tensors)
            except Exception as error:  # whatever stops one of them must not stop the others
                cells.append(f"{name} - ({forward.reason(error)})")
                continue
            cost = per_call(call, torch.cuda.synchronize, options.calls, options.rounds)
            cells.append(f"{name} {cost:.1f}")
        print(f"{row.name}: {', '.join(cells)} us a call", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
