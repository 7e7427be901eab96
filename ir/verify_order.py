"""Verification of order: who writes a tensor, and that it is written before it is read.

Along an iterative rank, ``H[i + 1]`` may read what depends on ``H[i]``, and a recurrence from the
end, ``G[size(i)] = ...; G[i] = ... G[i + 1]``, may read the generation behind it. The *lag* of a
read says how many generations lie between; einsums that read each other with lag 0 never begin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .cascade import Cascade, Einsum
from .errors import NOWHERE, RankError
from .expression import Access, Apply, Constant, Expression, RankVariable, Size, accesses
from .notation_words import suggestion
from .show import show_expression


def check_order(cascade: Cascade) -> None:
    """Raise RankError unless every tensor has one writer and is written before it is read."""
    _check_known(cascade, _check_writers(cascade))
    _check_cycles(cascade)
    _check_before(cascade)


def _check_writers(cascade: Cascade) -> dict[str, Einsum]:
    """Return the einsum that writes each tensor; of an iterative one, its step."""
    steps: dict[str, Einsum] = {}
    firsts: dict[str, list[Einsum]] = {}
    for einsum in cascade.einsums:
        if _fixed(einsum):
            for other in firsts.setdefault(einsum.name, []):
                if other.output == einsum.output:
                    raise _twice(einsum, other)
            firsts[einsum.name].append(einsum)
        elif einsum.name in steps:
            raise _twice(einsum, steps[einsum.name])
        else:
            steps[einsum.name] = einsum
    for name, einsums in firsts.items():
        if name not in steps:
            raise RankError(
                f"{show_expression(einsums[0].output)} is one generation of {name}, and nothing "
                f"writes the others: write a step, {name}[i + 1] = ....",
                einsums[0].output.at,
            )
        for first in einsums:
            _check_first(first, steps[name])
    for name, step in steps.items():
        for position, coordinate in enumerate(step.output.coordinates):
            if isinstance(coordinate, Apply) and not any(
                isinstance(first.output.coordinates[position], Constant)
                for first in firsts.get(name, ())
            ):
                raise RankError(
                    f"An iterative tensor has a first generation; {name} has none: write "
                    f"{name}[0, ...] = ....",
                    coordinate.at,
                )
    return steps


def _fixed(einsum: Einsum) -> bool:
    return any(isinstance(x, Constant | Size) for x in einsum.output.coordinates)


def _twice(einsum: Einsum, other: Einsum) -> RankError:
    error = RankError(
        f"A tensor is written once; {einsum.name} is written twice. Give one of the two another "
        "name.",
        einsum.output.at,
    )
    if other.output.at != NOWHERE:
        error.add_note(f"{einsum.name} is written first here: {other.output.at}")
    return error


def _check_first(first: Einsum, step: Einsum) -> None:
    pairs = zip(first.output.coordinates, step.output.coordinates, strict=True)
    for fixed, moving in pairs:
        match fixed, moving:
            case Constant(value=0), Apply():
                continue
            case Constant(value=value), Apply():
                message = f"The first generation of {first.name} is 0; {value} found."
            case Size(rank=rank), RankVariable(rank=other) if rank == other:
                continue
            case Size() | Constant(), _:
                message = (
                    f"A fixed generation goes with a step: 0 with i + 1, size(i) with i; "
                    f"{show_expression(fixed)} goes with {show_expression(moving)} in "
                    f"{show_expression(step.output)}."
                )
            case _:
                continue
        raise RankError(message, fixed.at)


def _check_known(cascade: Cascade, written: Iterable[str]) -> None:
    known = (*cascade.inputs, *written)
    for einsum in cascade.einsums:
        for access in _accesses(einsum):
            if access.tensor not in known:
                raise RankError(
                    f"{access.tensor} is neither an argument of {cascade.name} nor written in it"
                    f"{suggestion(access.tensor, known) or '.'}",
                    access.at,
                )


def _accesses(einsum: Einsum) -> Iterator[Access]:
    yield from accesses(einsum.body)
    if einsum.filter is not None:
        yield from accesses(einsum.filter)


def _check_cycles(cascade: Cascade) -> None:
    import networkx

    iterative = _iterative(cascade)
    now: networkx.DiGraph[int] = networkx.DiGraph()
    always: networkx.DiGraph[int] = networkx.DiGraph()
    reads: list[tuple[int, int, int, Access]] = []
    for reader, einsum in enumerate(cascade.einsums):
        for access in _accesses(einsum):
            for writer, other in enumerate(cascade.einsums):
                if other.name == access.tensor:
                    lag = _lag(access, other) if access.tensor in iterative else 0
                    reads.append((writer, reader, lag, access))
                    always.add_edge(writer, reader)
                    if lag == 0:
                        now.add_edge(writer, reader)
    for writer, reader, lag, access in reads:
        if lag == 0 and networkx.has_path(now, reader, writer):
            name = cascade.einsums[reader].name
            through = "" if access.tensor == name else f", and {access.tensor} needs {name}"
            raise RankError(
                f"A tensor is computed from what is there before; {name} reads {access.tensor}"
                f"{through}. A recurrence is written {name}[i + 1] = ... {name}[i].",
                access.at,
            )
    for group in networkx.strongly_connected_components(always):
        inside = [x for x in reads if x[0] in group and x[1] in group]
        backward = [x for x in inside if x[2] < 0]
        if backward and any(x[2] > 0 for x in inside):
            _, reader, _, access = backward[0]
            raise RankError(
                f"An iteration runs one way; {cascade.einsums[reader].name} reads "
                f"{show_expression(access)}, a later generation, where others read earlier ones.",
                access.at,
            )


def _iterative(cascade: Cascade) -> frozenset[str]:
    return frozenset(e.name for e in cascade.einsums if e.generation or _fixed(e))


def _lag(access: Access, writer: Einsum) -> int:
    """Return how many generations before its reader the tensor was written."""
    if _fixed(writer):
        return 0
    # A list read whole has one coordinate fewer.
    for read, written in zip(access.coordinates, writer.output.coordinates, strict=False):
        rank, offset = _affine(written)
        other, shift = _affine(read)
        if isinstance(read, Constant) and isinstance(written, Apply):
            return 1
        if rank is not None and rank == other and offset != shift:
            return offset - shift
    return 0


def _affine(coordinate: Expression) -> tuple[str | None, int]:
    match coordinate:
        case RankVariable(rank=rank):
            return rank, 0
        case Apply("+", (RankVariable(rank=rank), Constant(value=int() as shift))):
            return rank, shift
        case Apply("-", (RankVariable(rank=rank), Constant(value=int() as shift))):
            return rank, -shift
        case _:
            return None, 0


def _check_before(cascade: Cascade) -> None:
    """Check the order of the lines; an iterative tensor may be read above its first line."""
    written = {*cascade.inputs, *_iterative(cascade)}
    for einsum in cascade.einsums:
        for access in _accesses(einsum):
            if access.tensor not in written:
                raise RankError(
                    f"A tensor is written before it is read; {access.tensor} is written below. "
                    f"Move {einsum.name} behind it.",
                    access.at,
                )
        written.add(einsum.name)
