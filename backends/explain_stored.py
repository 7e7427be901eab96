"""Explaining memory: the tensors that one kernel writes and another reads, and why."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..ir.expression import Access, RankVariable, Reduce
from ..ir.mapping import MappedKernel, Mapping
from ..ir.streaming import Field
from .explain_visits import Facts


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor between kernels: its ranks and dtype, its bytes (None: open), who reads it, why."""

    tensor: str
    ranks: tuple[str, ...]
    dtype: str
    bytes: float | None
    writer: str
    readers: tuple[str, ...]
    why: str


def stored_between(mapping: Mapping, facts: Facts) -> tuple[Stored, ...]:
    """Return the tensors that cross between kernels, in the order in which they are written."""
    found = []
    for writer in mapping.kernels:
        for tensor in writer.writes:
            readers = [k for k in mapping.kernels if tensor in k.reads and k is not writer]
            if not readers:
                continue
            ranks = mapping.cascade.einsum(tensor).ranks
            known = all(r in facts.sizes for r in ranks)
            elements = prod(facts.sizes[r] for r in ranks) if known else None
            found.append(
                Stored(
                    tensor,
                    ranks,
                    facts.dtypes.get(tensor, "float32"),
                    None if elements is None else facts.bytes_of(tensor, elements),
                    writer.name,
                    tuple(k.name for k in readers),
                    reasons(tensor, mapping, writer, readers),
                )
            )
    return tuple(found)


def reasons(
    tensor: str, mapping: Mapping, writer: MappedKernel, readers: list[MappedKernel]
) -> str:
    """Return a sentence for each reason, with all readers that have it."""
    having: dict[str, list[str]] = {}
    for reader in readers:
        having.setdefault(why(tensor, mapping, writer, reader), []).append(reader.name)
    found = ["It is also returned."] if tensor in mapping.cascade.outputs else []
    found += [reason.format(listed(names)) for reason, names in having.items()]
    return " ".join(found)


def listed(names: list[str]) -> str:
    """Return names as words have them."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def why(tensor: str, mapping: Mapping, writer: MappedKernel, reader: MappedKernel) -> str:
    """Return what would be repeated if a reader, named later, made the tensor itself."""
    walked = [t.streaming.rank for t in writer.traversals]
    reduced = walked or [
        r for e in writer.before if isinstance(e.body, Reduce) for r in e.body.ranks
    ]
    ranks = mapping.cascade.einsum(tensor).ranks
    own = [r for r, role in reader.roles if role != "resident"]
    extra = [r for r in own if r not in ranks]
    along = ", ".join(dict.fromkeys(reduced))
    if not aligned(tensor, ranks, reader):
        return "In {} it is read at other coordinates than those it is made for."
    if reduced and extra:
        return f"Making it walks {along}; {{}} would repeat that for every {', '.join(extra)}."
    if reduced:
        return f"It is complete only when {along} is walked."
    return "{} would make it again for every tile."


def aligned(tensor: str, ranks: tuple[str, ...], reader: MappedKernel) -> bool:
    """Whether a kernel reads a tensor at the very ranks for which it is written."""
    from ..ir.expression import walk

    own = tuple(RankVariable(r) for r in ranks)
    return all(
        x.coordinates == own
        for item in reader.einsums()
        for x in walk(item.lift if isinstance(item, Field) else item.body)
        if isinstance(x, Access) and x.tensor == tensor
    )
