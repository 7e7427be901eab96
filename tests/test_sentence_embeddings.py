"""A real model, its attention declared: padding is a length, and the embeddings stay the same."""

from __future__ import annotations

import pytest
import torch

from einfall.examples.sentence_embeddings import NAME, compare, register, sentences_of

TEXT = """
# Not a sentence of the prose at all

Attention is a weighted mean over keys. A kernel
computes it tile by tile! Is every tile visited?

- Cats sleep most of the day.
- No.

```python
print("this is code and not prose.")
```
"""


def test_sentences_are_those_of_the_prose() -> None:
    assert sentences_of(TEXT) == [
        "Attention is a weighted mean over keys.",
        "A kernel computes it tile by tile!",
        "Is every tile visited?",
        "Cats sleep most of the day.",
    ]


def test_embeddings_are_the_models_own() -> None:
    sentences = [*sentences_of(TEXT), "Dogs doze through the afternoon, as cats do.", "Tiles."]
    report = compare(sentences)
    assert report.cosine > 0.99999 and report.nearest == report.nearest_own and report.same
    assert report.nearest[3] == 4 and report.nearest[4] == 3


def test_what_the_declaration_has_not_is_refused() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    register(lambda Q, K, V, length: V)
    forward, lengths = ALL_ATTENTION_FUNCTIONS[NAME], ALL_MASK_ATTENTION_FUNCTIONS[NAME]
    x = torch.zeros(2, 1, 3, 4)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    some = lengths(batch_size=2, kv_length=3, attention_mask=mask)
    assert some.tolist() == [2, 3] and some.dtype == torch.int32
    assert lengths(batch_size=2, kv_length=3, device="cpu").tolist() == [3, 3]
    with pytest.raises(ValueError, match="pad right"):
        lengths(batch_size=2, kv_length=3, attention_mask=mask.flip(1))
    assert forward(None, x, x, x, some, scaling=0.5)[0].shape == (2, 3, 1, 4)
    for wrong in ({"scaling": 1.0}, {"scaling": 0.5, "dropout": 0.1}):
        with pytest.raises(ValueError, match="the declaration"):
            forward(None, x, x, x, some, **wrong)
