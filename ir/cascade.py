"""The cascade: a flat tuple of named einsums, the first level of the compiler.

::

    cascade = Cascade(name, inputs, parameters, einsums, outputs, unique)
    einsum  = Einsum(output, body, filter)
                S[b, h, p, m: m <= p] = sum[e](Q[b, h, p, e] * K[b, h, m, e])

Meaning, as the interpreter executes it (EDGE, arXiv 2404.11591, narrowed):

* An einsum's *iteration space* is the product of its ranks, cut down by its filter.
* A point of an expression exists where every tensor that it reads exists; a coordinate outside a
  tensor's shape reads no point. ``default(x, y)`` exists wherever y does.
* A reduction takes in existing points only, and its result exists everywhere; over nothing it is
  the reducer's identity.
* A quotient by 0 is 0.
* An output with absent points is returned with 0 there.
* An einsum whose output coordinate is ``i + 1`` is *iterative* in rank ``i``: generation i + 1 from
  generation i, for i = 0, 1, ..., size(i) - 1. The tensor has size(i) + 1 generations;
  ``H[0, ...] = x`` gives the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import NOWHERE, Location
from .expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    Populate,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    tensors,
    walk,
)

if TYPE_CHECKING:
    import networkx

Scalar = int | float | bool


def check_cascade(given: object, taker: str) -> None:
    """Raise TypeError where a function that takes a cascade is given something else."""
    if not isinstance(given, Cascade):
        raise TypeError(
            f"{taker} takes a cascade, and a {type(given).__name__} is given; "
            "einfall.cascade(text) reads one"
        )


@dataclass(frozen=True, slots=True)
class Einsum:
    """One extended einsum: ``output = body``, at the points that ``filter`` keeps.

    Every reduction is written out in ``body``: the ranks that vary in it are exactly the output's.
    """

    output: Access
    body: Expression
    filter: Expression | None = None
    at: Location = field(default=NOWHERE, compare=False, repr=False)
    # what follows from the rest and is asked for again and again; found once, then kept
    _ranks: tuple[str, ...] | None = field(default=None, init=False, compare=False, repr=False)
    _reads: tuple[str, ...] | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The tensor written."""
        return self.output.tensor

    @property
    def ranks(self) -> tuple[str, ...]:
        """The output's ranks, in the order written; ``i`` for an iterative ``i + 1``."""
        if self._ranks is None:
            found = tuple(r for c in self.output.coordinates for r in free_ranks(c))
            object.__setattr__(self, "_ranks", found)
            return found
        return self._ranks

    @property
    def generation(self) -> str | None:
        """The iterative rank if the output is at ``i + 1``, else None."""
        for coordinate in self.output.coordinates:
            match coordinate:
                case Apply("+", (RankVariable(rank=rank), Constant(value=1))):
                    return rank
        return None

    @property
    def reads(self) -> tuple[str, ...]:
        """The tensors read by body and filter, each once, in order of sight."""
        if self._reads is None:
            more = () if self.filter is None else tensors(self.filter)
            found = tuple(dict.fromkeys((*tensors(self.body), *more)))
            object.__setattr__(self, "_reads", found)
            return found
        return self._reads

    def expressions(self) -> Iterator[Expression]:
        """Yield every expression inside: output coordinates, body, filter, and their parts."""
        for coordinate in self.output.coordinates:
            yield from walk(coordinate)
        yield from walk(self.body)
        if self.filter is not None:
            yield from walk(self.filter)

    def __str__(self) -> str:
        from .show import show_einsum

        return show_einsum(self)


@dataclass(frozen=True, slots=True)
class Cascade:
    """A cascade of einsums: ``str(c)`` is notation that parses back to ``c``.

    ``inputs`` are tensors in the order of the ``def``; ``parameters`` are scalars with their
    default (None where a value must be given); ``outputs`` are tensors in the order of ``return``.
    ``unique`` are inputs declared so: a list that is read from one holds no coordinate twice.
    """

    name: str
    inputs: tuple[str, ...]
    parameters: tuple[tuple[str, Scalar | None], ...]
    einsums: tuple[Einsum, ...]
    outputs: tuple[str, ...]
    unique: tuple[str, ...] = ()
    _ranks: tuple[str, ...] | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def ranks(self) -> tuple[str, ...]:
        """Every rank of the cascade, in order of sight, reading each einsum left to right."""
        if self._ranks is None:
            found = _ranks(self.einsums)
            object.__setattr__(self, "_ranks", found)
            return found
        return self._ranks

    @property
    def iterative_ranks(self) -> tuple[str, ...]:
        """The ranks along which some tensor is defined generation by generation."""
        found = (einsum.generation for einsum in self.einsums)
        return tuple(dict.fromkeys(rank for rank in found if rank is not None))

    def einsum(self, tensor: str) -> Einsum:
        """Return the einsum that writes ``tensor``; of an iterative tensor, the iterative one."""
        writers = [e for e in self.einsums if e.name == tensor]
        if not writers:
            raise KeyError(tensor)
        return next((e for e in writers if e.generation), writers[-1])

    def parameters_read(self) -> tuple[str, ...]:
        """Return the parameters that occur in some expression, in order of sight."""
        return tuple(
            dict.fromkeys(
                x.name for e in self.einsums for x in e.expressions() if isinstance(x, Parameter)
            )
        )

    def __str__(self) -> str:
        from .show import show_cascade

        return show_cascade(self)


def dependencies(cascade: Cascade) -> networkx.DiGraph[str]:
    """Return the graph of tensors: an edge from each tensor read to the tensor written."""
    import networkx

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(cascade.inputs)
    for einsum in cascade.einsums:
        graph.add_node(einsum.name)
        graph.add_edges_from((read, einsum.name) for read in einsum.reads)
    return graph


def _ranks(einsums: tuple[Einsum, ...]) -> tuple[str, ...]:
    """Return every rank in order of sight."""
    seen: dict[str, None] = {}
    for einsum in einsums:
        for x in einsum.expressions():
            match x:
                case RankVariable(rank=rank) | Size(rank=rank) | Populate(rank=rank):
                    seen.setdefault(rank)
                case Reduce(ranks=ranks):
                    for rank in ranks:
                        seen.setdefault(rank)
    return tuple(seen)
