"""The decode table: one new token a sequence against a long cache, as a share of copy bandwidth.

Run it on a GPU, from the root of the checkout::

    python -m einfall.examples.benchmarks.decode
    python -m einfall.examples.benchmarks.decode --batch 1 --keys 65536

A call reads every key and value once, so its bound is memory; bandwidth is that of the bytes of the
cache over the median time. Beside the bandwidth of a long copy stands the time of a copy that moves
as many bytes as the call reads: before every call the cache of the device is filled with zeros,
which are still to be written back, and short calls wait for that. Each row is compared with float64
first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import einfall
import einfall.examples

HEADS, SHARED, FEATURES = 32, 8, 128
"""Query heads, key heads, features of both: a common shape of grouped heads."""

PAGE = 64
"""Keys of a page."""

Call = Callable[[], Tensor]


def reference(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """Return the weighted sums in float64; Q[b, h, 1, e], K and V[b, c, m, e]."""
    grouped = Q.double().view(Q.shape[0], K.shape[1], -1, Q.shape[3])
    scores = grouped @ K.double().transpose(2, 3) / Q.shape[3] ** 0.5
    return (torch.softmax(scores, -1) @ V.double()).view(Q.shape)


def contiguous(Q: Tensor, K: Tensor, V: Tensor) -> Call:
    """Return Einfall's call on caches [b, c, m, e]."""
    f = einfall.compile(einfall.examples.gqa, backend="triton")

    def call() -> Tensor:
        found: Tensor = f(Q, K, V, G=Q.shape[1] // K.shape[1])
        return found

    return call


def paged(Q: Tensor, K: Tensor, V: Tensor) -> Call:
    """Return Einfall's call on the same caches in pages, in random order."""
    batch, shared, keys, features = K.shape
    count = batch * (keys // PAGE)
    page = torch.randperm(count, device=K.device).view(batch, -1)

    def scattered(x: Tensor) -> Tensor:
        pages = x.view(batch, shared, -1, PAGE, features).permute(0, 2, 3, 1, 4)
        found = torch.empty(count, PAGE, shared, features, dtype=x.dtype, device=x.device)
        found[page.flatten()] = pages.reshape(count, PAGE, shared, features)
        return found

    grouped = Q.view(batch, shared, -1, features)
    length = torch.full((batch,), keys, dtype=torch.int32, device=K.device)
    K, V, page = scattered(K), scattered(V), page.int()
    f = einfall.compile(einfall.examples.paged_decode, backend="triton", inside=("page",))

    def call() -> Tensor:
        found: Tensor = f(grouped, K, V, page, length, B=PAGE)
        return found.view(Q.shape)

    return call


def sdpa(name: str) -> Callable[[Tensor, Tensor, Tensor], Call]:
    """Return a maker of calls of one of SDPA's back ends."""

    def make(Q: Tensor, K: Tensor, V: Tensor) -> Call:
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.nn.functional import scaled_dot_product_attention

        backend = getattr(SDPBackend, name)

        def call() -> Tensor:
            with sdpa_kernel([backend]):
                return scaled_dot_product_attention(Q, K, V, enable_gqa=True)

        return call

    return make


MAKERS: dict[str, Callable[[Tensor, Tensor, Tensor], Call]] = {
    "einfall": contiguous,
    f"einfall, pages of {PAGE}": paged,
    "sdpa flash": sdpa("FLASH_ATTENTION"),
    "sdpa cudnn": sdpa("CUDNN_ATTENTION"),
}


def measure(batch: int, keys: int, copy: float, rep: int) -> None:
    """Check and time every implementation on one cache; print a line each."""
    from triton.testing import do_bench  # type: ignore[import-untyped]

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float16, device="cuda")

    Q, K, V = draw(batch, HEADS, 1, FEATURES), *(draw(batch, SHARED, keys, FEATURES) for _ in "KV")
    expected = reference(Q, K, V)
    moved = 2 * K.numel() * K.element_size()
    goal = torch.empty_like(K)
    least = do_bench(lambda: goal.copy_(K), warmup=10, rep=rep, return_mode="median")
    size = f"{batch} sequences of {keys} keys, {moved / 1e6:.0f} MB"
    print(f"{size}; a copy moves as many bytes in {1e3 * least:.1f} us", flush=True)
    for name, make in MAKERS.items():
        try:
            call = make(Q, K, V)
            error = float((call().double() - expected).norm() / expected.norm())
            time = do_bench(call, warmup=10, rep=rep, return_mode="median")
        except Exception as problem:  # whatever stops one of them must not stop the others
            print(f"    {name}: - ({str(problem).splitlines()[0][:60]})", flush=True)
            continue
        rate = moved / time / 1e9
        share = f"{rate:.2f} TB/s, {100 * rate / copy:.0f} % of a long copy's"
        share += f", {100 * least / time:.0f} % of that of as many bytes"
        print(f"    {name}: {1e3 * time:.1f} us, {share}; error {error:.1e}", flush=True)


def copy_bandwidth(rep: int) -> float:
    """Return what a copy of half a gigabyte moves, reading and writing, in TB/s."""
    from triton.testing import do_bench

    source = torch.empty(1 << 29, dtype=torch.int8, device="cuda")
    goal = torch.empty_like(source)
    time = do_bench(lambda: goal.copy_(source), warmup=10, rep=rep, return_mode="median")
    return float(2 * source.numel() / time / 1e9)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="decode, as a share of copy bandwidth")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--keys", type=int, nargs="*", default=[8192, 65536])
    parser.add_argument("--rep", type=int, default=25, help="milliseconds for each median")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("a GPU is needed")
    copy = copy_bandwidth(options.rep)
    print(f"{torch.cuda.get_device_name()}: a copy moves {copy:.2f} TB/s")
    for keys in options.keys:
        for batch in options.batch:
            if batch * keys <= 1 << 20:
                measure(batch, keys, copy, options.rep)
    return 0


if __name__ == "__main__":
    sys.exit(main())
