"""Training on a declared attention: a small byte-level GPT, once compiled by Einfall, once by SDPA.

Run it from a checkout, on a GPU (on a CPU the interpreter computes, slowly)::

    python examples/train_gpt.py --out docs/training

The model reads the project's own words: README, the pages under ``docs`` and the docstrings of
every module. Both runs start from the same weights and see the same batches, so their losses part
only by rounding. How far rounding alone parts them is measured too: a third run uses another of
SDPA's backends. The backward is not written anywhere: it is derived from
``examples/causal.einsum``, as a cascade like any other.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import einfall
import einfall.examples

ROOT = Path(__file__).resolve().parent.parent
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Setting:
    """Sizes of the model and of the run; a batch holds ``batch`` windows of ``context`` bytes."""

    layers: int = 6
    heads: int = 6
    width: int = 384
    context: int = 512
    batch: int = 32
    steps: int = 200
    rate: float = 1e-3
    seed: int = 0


def words(root: Path = ROOT) -> bytes:
    """Return the project's own prose: its pages and the docstrings of its modules, in order."""
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    found = [page.read_text() for page in pages if page.exists()]
    for folder in ("ir", "passes", "codegen", "backends", "examples"):
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    found.append(ast.get_docstring(node) or "")
    return "\n\n".join(x for x in found if x).encode()


class Block(nn.Module):
    """One layer: attention over what came before, then a perceptron; both on normalised input."""

    def __init__(self, setting: Setting, attention: Attention) -> None:
        super().__init__()
        width = setting.width
        self.heads, self.attention = setting.heads, attention
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Take and give (batch, position, width)."""
        batch, length, width = x.shape
        qkv = self.project(self.before(x)).view(batch, length, 3, self.heads, -1)
        Q, K, V = qkv.permute(2, 0, 3, 1, 4)
        mixed = self.attention(Q, K, V).transpose(1, 2).reshape(batch, length, width)
        x = x + self.join(mixed)
        out: Tensor = x + self.perceptron(self.after(x))
        return out


class Model(nn.Module):
    """A GPT over bytes."""

    def __init__(self, setting: Setting, attention: Attention) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, setting.width)
        self.places = nn.Parameter(torch.randn(setting.context, setting.width) * 0.02)
        self.blocks = nn.Sequential(*(Block(setting, attention) for _ in range(setting.layers)))
        self.norm, self.head = nn.LayerNorm(setting.width), nn.Linear(setting.width, 256)

    def forward(self, text: Tensor) -> Tensor:
        """Return logits of the next byte, (batch, position, 256)."""
        x = self.bytes(text) + self.places[: text.shape[1]]
        return self.head(self.norm(self.blocks(x)))  # type: ignore[no-any-return]


def train(attention: Attention, setting: Setting, text: bytes, device: str) -> list[float]:
    """Return the loss of every step, in nats a byte."""
    torch.manual_seed(setting.seed)
    model = Model(setting, attention).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=setting.rate, betas=(0.9, 0.95))
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
    draw = torch.Generator().manual_seed(setting.seed + 1)
    losses = []
    for step in range(setting.steps):
        starts = torch.randint(len(data) - setting.context - 1, (setting.batch,), generator=draw)
        rows = torch.stack([data[s : s + setting.context + 1] for s in starts]).to(device)
        for group in optimiser.param_groups:
            group["lr"] = setting.rate * min(1.0, (step + 1) / 20)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(rows[:, :-1])
        loss = functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.detach())
    return [float(x) for x in losses]


def declared(device: str) -> Attention:
    """Return the attention that Einfall compiles from its declaration, forward and backward."""
    backend = "triton" if device == "cuda" else "interpreter"
    return einfall.compile(einfall.examples.causal, backend=backend)


def sdpa(backend: Any = None) -> Attention:
    """Return torch's own attention, by one of its backends or by its own choice."""
    from torch.nn.attention import sdpa_kernel

    def attention(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
        if backend is None:
            return functional.scaled_dot_product_attention(Q, K, V, is_causal=True)
        with sdpa_kernel([backend]):
            return functional.scaled_dot_product_attention(Q, K, V, is_causal=True)

    return attention


def compare(setting: Setting, device: str, text: bytes) -> dict[str, Any]:
    """Train three times and return the losses, the seconds, and how far the curves are apart.

    ``apart`` is the mean distance of Einfall's losses from SDPA's over all steps, ``noise`` that of
    the third run, which computes the same by another of SDPA's backends.
    """
    from torch.nn.attention import SDPBackend

    runs = {
        "sdpa": sdpa(),
        "einfall": declared(device),
        "sdpa, math": sdpa(SDPBackend.MATH),
    }
    losses, seconds = {}, {}
    for name, attention in runs.items():
        start = time.perf_counter()
        losses[name] = train(attention, setting, text, device)
        seconds[name] = time.perf_counter() - start
    own = torch.tensor(losses["sdpa"])
    apart = (torch.tensor(losses["einfall"]) - own).abs().mean().item()
    noise = (torch.tensor(losses["sdpa, math"]) - own).abs().mean().item()
    return {
        "setting": asdict(setting),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": str(torch.__version__),
        "bytes": len(text),
        "losses": losses,
        "seconds": seconds,
        "apart": apart,
        "noise": noise,
    }


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw the curves, and below them how far they are from SDPA's."""
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(7, 6), sharex=True, height_ratios=(3, 1)
    )
    styles = {"sdpa": ("#30638e", 3.5), "sdpa, math": ("#edae49", 1.0), "einfall": ("#d1495b", 1.5)}
    own = report["losses"]["sdpa"]
    for name, losses in report["losses"].items():
        colour, width = styles[name]
        above.plot(losses, color=colour, linewidth=width, label=name)
        if name != "sdpa":
            parting = [x - y for x, y in zip(losses, own, strict=True)]
            below.plot(parting, color=colour, linewidth=1, label=name)
    above.set_ylabel("nats a byte")
    above.legend(frameon=False)
    below.set_ylabel("minus sdpa's")
    below.set_xlabel("step")
    for ax in (above, below):
        ax.grid(axis="y", color="#dddddd")
    above.set_title(f"A byte-level GPT on this project's words, {report['device']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, say how far apart the curves are, and write them. Returns 1 if beyond the noise."""
    parser = argparse.ArgumentParser(description="a small GPT on a declared attention")
    parser.add_argument("--steps", type=int, default=Setting().steps)
    parser.add_argument(
        "--out", type=Path, help="folder for gpt.json and, with matplotlib, gpt.png"
    )
    parser.add_argument("--draw", type=Path, help="only draw this gpt.json again")
    options = parser.parse_args(arguments)
    if options.draw:
        draw(json.loads(options.draw.read_text()), options.draw.with_suffix(".png"))
        return 0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    setting = replace(Setting(), steps=options.steps)
    if device == "cpu":
        setting = replace(setting, layers=2, heads=2, width=32, context=32, batch=2)
    report = compare(setting, device, words())
    for name, losses in report["losses"].items():
        print(f"{name:<12} first {losses[0]:.4f}  last {losses[-1]:.4f}"
              f"  {report['seconds'][name]:.1f} s")  # fmt: skip
    print(f"mean distance from sdpa: einfall {report['apart']:.5f}, math {report['noise']:.5f}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "gpt.json").write_text(json.dumps(report) + "\n")
        try:
            draw(report, options.out / "gpt.png")
        except ImportError:
            print("no picture: pip install einfall[viz]")
    return int(report["apart"] > max(2 * report["noise"], 1e-6))


if __name__ == "__main__":
    sys.exit(main())
