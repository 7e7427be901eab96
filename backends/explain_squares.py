"""What grows with a product of long ranks: a number for every pair of their coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import prod

from ..ir.axes import ranks_of
from ..ir.cascade import Cascade
from ..ir.mapping import Mapping as Mapped
from .explain_numbers import quantity
from .explain_visits import WIDTHS

LONG = 1024
"""Coordinates from which on a rank is a length, and no number of features or heads."""


def squares(cascade: Cascade, mapping: Mapped, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Return a sentence for each stored tensor with two long ranks that no input has together.

    Its bytes grow with the square of the length, however little is computed of it; scores that are
    returned do, and nothing that is not asked for should. Ranks of open size count as short.
    """
    together = [set(ranks_of(cascade, t)) for t in cascade.inputs]
    dtypes = dict(mapping.dtypes)
    written = {t for k in mapping.kernels for t in k.writes}
    found = []
    for einsum in mapping.cascade.einsums:
        long = [r for r in einsum.ranks if sizes.get(r, 0) >= LONG]
        pairs = [p for p in combinations(long, 2) if not any({*p} <= t for t in together)]
        if einsum.name not in written or not pairs:
            continue
        width = WIDTHS.get(dtypes.get(einsum.name, "float32"), 1)
        much = quantity(width * prod(sizes.get(r, 1) for r in einsum.ranks), "B")
        p, m = pairs[0]
        found.append(f"{einsum.name} holds a number for every pair of {p} and {m}: {much}")
    return tuple(found)
