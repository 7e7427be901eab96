"""Traversals: how often a cascade walks a rank, whatever the mapping.

A *traversal* of a rank visits every element of its fibers once. What depends on the end of one (a
sum over all of ``m``) and needs the elements again forces another, in every order of execution.
FuseMax calls this a "pass" (Nayak et al., MICRO 2024, section III: 3-pass, 2-pass and 1-pass
cascades); here that word is the compiler's.

Counting works on a *family* of ranks, for a rank may be split: with ``m = m1 * M0 + m0`` the
elements are walked along ``m0``, and ``m1`` counts tiles. Every tensor is either *streaming* in
traversal k, there tile by tile, or *done* after it:

::

    an input along the family          streaming 1;  any other input  done 0
    ks = the largest k of what is read streaming,  kd = the largest k of what is read done
    an einsum over elements            runs in k = max(1, ks, kd + 1)
    over tiles only, kd < max(1, ks)   runs in k = max(1, ks), beside the elements
    any other                          runs after k = max(ks, kd)

and what runs in traversal k streams if its output keeps the family, else it is done after k.
Iterative tensors depend on themselves. Where the family holds the generations, the dependence is
carried along the traversal and forces nothing; where it does not, the count is that of one
generation, whose predecessor is an input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import networkx

from .cascade import Cascade
from .errors import RankError, VerificationError
from .expression import free_ranks
from .families import RankFamily, families, follows
from .show import show_expression
from .traversal_steps import Read, Step, shift, steps


@dataclass(frozen=True, slots=True)
class Traversals:
    """How a cascade walks one family of ranks.

    levels : how many walks follow one another, in every mapping.
    traversals_of : by tensor, in which of them its elements are wanted: directly, or through
        tensors that stream and may be made again from it, as late as that.
    einsum_level : by einsum, the first traversal in which it can run or, without the family's
        ranks, after which (0: before the first).
    reasons : one sentence a traversal: which dependence forces it.
    """

    family: RankFamily
    levels: int
    traversals_of: Mapping[str, frozenset[int]]
    einsum_level: Mapping[str, int]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Footprint:
    """A tensor that is wanted after the traversal in which it is there.

    Unless it is made again, or stored and loaded, a whole fiber of the ranks ``whole`` is held for
    each live coordinate of the ranks ``each`` (FuseMax: the algorithmic minimum live footprint).
    """

    tensor: str
    whole: tuple[str, ...]
    each: tuple[str, ...]
    traversals: tuple[int, ...]


def analyse(cascade: Cascade) -> dict[str, Traversals]:
    """Count the traversals of every rank; the ranks of one family share one answer."""
    found: dict[str, Traversals] = {}
    split = {rank: family for family in families(cascade) for rank in family.ranks}
    for rank in cascade.ranks:
        if rank not in found:
            answer = count(cascade, split.get(rank, RankFamily(rank)))
            found |= dict.fromkeys(answer.family.ranks, answer)
    return {rank: found[rank] for rank in cascade.ranks}


def count(cascade: Cascade, family: str | RankFamily) -> Traversals:
    """Count the traversals of a rank, with the ranks that it is split in.

    A name stands for the family in which ``families`` finds it, or for itself alone. The cascade
    need not be flat. Raises RankError for a rank that the cascade has not.
    """
    return _Count(cascade, _family(cascade, family)).answer()


def live_footprint(cascade: Cascade, family: str | RankFamily) -> tuple[Footprint, ...]:
    """Return the tensors that cross from one traversal to a later one, inputs first.

    Only direct readings count: where ``S`` is read in traversals 1 and 2, it is ``S`` that crosses,
    and holding it makes the inputs that it came from wanted once. What can be made later is.
    """
    return _Count(cascade, _family(cascade, family)).footprints()


def _family(cascade: Cascade, family: str | RankFamily) -> RankFamily:
    if isinstance(family, str):
        family = next((f for f in families(cascade) if family in f.ranks), RankFamily(family))
    for rank in family.ranks:
        if rank not in cascade.ranks:
            raise RankError(
                f"traversals are counted for a rank of {cascade.name}; {rank!r} is none of "
                f"{', '.join(cascade.ranks)}."
            )
    return family


@dataclass(frozen=True, slots=True)
class _State:
    """When a tensor is there.

    level : the traversal; ``streams``: tile by tile during it, else after it.
    beside : whether it is computed during the traversal, not after its end.
    direction : 1 or -1 where an iteration makes the traversal run up or down, else 0.
    """

    level: int
    streams: bool = False
    beside: bool = True
    direction: int = 0


_Operands = list[tuple[Read, _State]]


class _Count:
    """The states of every step of a cascade, for one family."""

    def __init__(self, cascade: Cascade, family: RankFamily) -> None:
        self.cascade, self.family = cascade, family
        self.ranks = frozenset(family.ranks)
        self.elements = self.ranks - set(family.outer)
        self.steps = {step.key: step for step in steps(cascade)}
        self.loops = _sorted_groups(self._graph(self.steps))
        self.loop = {key: members for members in self.loops for key in members}
        self.generations = {key: self._generations(key) for key in self.steps}
        self.cycle: dict[str, list[str]] = {}
        self.states: dict[str, _State] = {}
        self.complete: dict[str, int] = {}
        for members in self.loops:
            self._settle(members)

    def _generations(self, key: str) -> dict[int, tuple[str, int]]:
        """Return at which places a step of a loop writes generations: the rank and the shift."""
        stepped = {r for k in self.loop[key] for r in self.steps[k].iterates}
        found = ((place, shift(c)) for place, c in enumerate(self.steps[key].places))
        return {place: at for place, at in found if at is not None and at[0] in stepped}

    def _settle(self, members: list[str]) -> None:
        """Give every step of a loop its state, each after what it reads."""
        for cycle in _sorted_groups(self._graph(members, within_generation=True)):
            self.cycle |= dict.fromkeys(cycle, cycle)
            # Within a cycle the levels meet at the largest, after one round for each step.
            for _ in cycle:
                for key in cycle:
                    self.states[key] = self._state(self.steps[key])
        ends = any(self._touches(key) and not self.states[key].streams for key in members)
        ends |= any(
            self._carried(self.steps[key], read) and not self._aligned(read)
            for key in members
            for read in self.steps[key].reads
        )
        ranks = {rank for key in members for rank, _ in self.generations[key].values()}
        if ends and ranks - self.ranks:
            # Each generation needs the end of the rank before the next one starts.
            last = max(self.states[key].level for key in members)
            self.complete |= dict.fromkeys(members, last)

    def _state(self, step: Step) -> _State:
        streaming, waited = self.operands(step)
        run = max((state.level for _, state in streaming), default=0)
        done = max((state.level for _, state in waited), default=0)
        keeps = bool(step.ranks & self.ranks)
        walking = any(self.steps[key].touched & self.elements for key in self.cycle[step.key])
        if walking and self._touches(step.key):
            level = max(1, run, done + 1)
        elif self._touches(step.key) and done < max(1, run):
            level = max(1, run)
        else:
            return _State(max(run, done), beside=False)
        along = (s.direction for _, s in streaming if s.level == level and s.direction)
        direction = self._direction(step) or next(along, 0)
        return _State(level, keeps, direction=direction if keeps else 0)

    def operands(self, step: Step) -> tuple[_Operands, _Operands]:
        """Return what a step reads tile by tile, and what it waits for."""
        streaming: _Operands = []
        waited: _Operands = []
        for read in step.reads:
            if read.key in self.cycle[step.key]:
                # What an iteration knows of itself is there when it is read.
                level = self.states.get(read.key, _State(0)).level
                streaming.append((read, _State(level, True)))
            else:
                state = self._available(step, read)
                (streaming if state.streams else waited).append((read, state))
        # Of two opposite directions one is followed; what comes in the other is waited for.
        directed = [s for _, s in streaming if s.direction]
        latest = max(directed, key=lambda s: s.level, default=_State(0)).direction
        direction = self._direction(step) or latest
        against = [x for x in streaming if x[1].direction == -direction != 0]
        return [x for x in streaming if x not in against], [*waited, *against]

    def _direction(self, step: Step) -> int:
        """Return how an iteration over the family runs: 1 up, -1 down, 0 where there is none."""
        found = (self.steps[key].iterates.items() for key in self.cycle[step.key])
        return next((way for ways in found for rank, way in ways if rank in self.ranks), 0)

    def _available(self, step: Step, read: Read) -> _State:
        """Return how what is read, from outside the step's cycle, is there."""
        along = bool(self.ranks & read.ranks)
        if read.key not in self.steps or self._carried(step, read):
            return _State(1, True) if along else _State(0)
        if read.key in self.complete and read.key not in self.loop[step.key]:
            return _State(self.complete[read.key])
        state = self.states[read.key]
        in_step = state.streams and along and self._aligned(read)
        return state if in_step else replace(state, streams=False)

    def _aligned(self, read: Read) -> bool:
        """Whether a reading keeps step with the writing, at every place along the family."""
        return all(
            follows(coordinate, place, self.family)
            for place, coordinate in zip(
                self.steps[read.key].places, read.coordinates, strict=False
            )
            if self.ranks & set(free_ranks(place))
        )

    def _carried(self, step: Step, read: Read) -> bool:
        """Whether another generation is read, of a rank outside the family."""
        return read.key in self.loop[step.key] and any(
            rank not in self.ranks and read.is_earlier(place, rank, written)
            for place, (rank, written) in self.generations[read.key].items()
        )

    def _touches(self, key: str) -> bool:
        """Whether a step walks the family."""
        return bool(self.steps[key].touched & self.ranks)

    def answer(self) -> Traversals:
        """Return the count with its reasons."""
        walks = [s for s in self.steps.values() if s.touched & self.elements]
        levels = max((self.states[s.key].level for s in walks), default=0)
        wanted: dict[str, set[int]] = {t: set() for t in self.cascade.inputs}
        wanted |= {e.name: set() for e in self.cascade.einsums}
        for step in self._ends():
            for tensor in self._sources(step):
                wanted[tensor].add(self.states[step.key].level)
        return Traversals(
            self.family,
            levels,
            {tensor: frozenset(found) for tensor, found in wanted.items()},
            {e.name: self.states[e.name].level for e in self.cascade.einsums},
            tuple(self._reason(level, walks) for level in range(1, levels + 1)),
        )

    def _ends(self) -> list[Step]:
        """Return the steps whose results have to be there, and are not made again on the way.

        They are reductions, iterations, outputs, and what is read when its traversal is over.
        """
        kept = set(self.cascade.outputs)
        for step in self.steps.values():
            streaming, waited = self.operands(step)
            kept |= {read.key for read, _ in waited}
            if not self.states[step.key].beside:
                kept |= {read.key for read, _ in streaming}
        return [
            step
            for key, step in self.steps.items()
            if self._touches(key) and self.states[key].beside
            if key in kept or step.iterates or not self.states[key].streams
        ]

    def _sources(self, step: Step) -> set[str]:
        """Return the tensors whose elements a step wants, through those that stream."""
        found: set[str] = set()
        seen: set[str] = set()
        front = [step]
        while front:
            reader = front.pop()
            found |= {r.tensor for r in reader.reads if r.tensor and r.ranks & self.ranks}
            for read, _ in self.operands(reader)[0]:
                source = self.steps.get(read.key)
                # What an iteration carries along is not read again.
                if source is not None and not source.iterates and source.key not in seen:
                    seen.add(source.key)
                    front.append(source)
        return found

    def _reason(self, level: int, walks: list[Step]) -> str:
        """Return what forces a traversal: the first step in it that waits for the one before."""
        head = f"Traversal {level} of {self.family}"
        # An iteration over tiles may wait, and the elements with it.
        for step in (*walks, *(s for s in self.steps.values() if self._touches(s.key))):
            if self.states[step.key].level != level:
                continue
            if level == 1:
                return f"{head}: {step.einsum.name} walks it."
            for read, state in self.operands(step)[1]:
                if state.level == level - 1:
                    what = read.tensor or show_expression(self.steps[read.key].expression)
                    end = self._end(read.key, level - 1)
                    path = "" if end.key == read.key else f", which waits for {end.einsum.name}"
                    name = f"{end.key} = " if end.key == end.einsum.name else ""
                    return (
                        f"{head}: {step.einsum.name} reads {what}{path}, and "
                        f"{name}{show_expression(end.expression)} is known only at the end of "
                        f"traversal {level - 1}."
                    )
        raise VerificationError(f"{head} has no step that waits for the one before.")

    def _end(self, key: str, level: int) -> Step:
        """Return the step at the end of a traversal for which another one waits."""
        step = self.steps[key]
        while not self.states[step.key].beside:
            waited = [r.key for r, state in self.operands(step)[1] if state.level == level]
            if not waited:
                break
            step = self.steps[waited[0]]
        return step

    def footprints(self) -> tuple[Footprint, ...]:
        """Return what is held from one traversal to a later one."""
        ends = {step.key for step in self._ends()}
        readers: dict[str, list[Step]] = {}
        for step in self.steps.values():
            for read in step.reads:
                readers.setdefault(read.key, []).append(step)
        first: dict[str, tuple[int, bool]] = {}

        def moment(key: str) -> tuple[int, bool]:
            """Return when a step runs, in a traversal or after it; one that can wait does."""
            if key not in first:
                state = self.states[key]
                first[key] = (state.level, not state.beside)
                if self._touches(key) and state.beside and key not in ends:
                    later = [moment(step.key) for step in readers.get(key, ())]
                    first[key] = min(later, default=first[key])
            return first[key]

        moments: dict[str, set[tuple[int, bool]]] = {}
        ranks: dict[str, tuple[str, ...]] = {}
        for step in self.steps.values():
            for read in step.reads:
                if read.tensor and read.ranks & self.ranks:
                    moments.setdefault(read.tensor, set()).add(moment(step.key))
                    found = dict.fromkeys(r for c in read.coordinates for r in free_ranks(c))
                    ranks.setdefault(read.tensor, tuple(found))
        for einsum in self.cascade.einsums:
            # What was written along other ranks is there before, like an input.
            if einsum.name in moments and self.ranks & set(einsum.ranks):
                moments[einsum.name].add(moment(einsum.name))
                ranks[einsum.name] = einsum.ranks
        order = dict.fromkeys((*self.cascade.inputs, *(e.name for e in self.cascade.einsums)))
        return tuple(
            Footprint(
                tensor,
                tuple(r for r in ranks[tensor] if r in self.ranks),
                tuple(r for r in ranks[tensor] if r not in self.ranks),
                tuple(sorted({level for level, _ in moments[tensor]})),
            )
            for tensor in order
            if len(moments.get(tensor, ())) > 1
        )

    def _graph(
        self, keys: Collection[str], *, within_generation: bool = False
    ) -> networkx.DiGraph[str]:
        graph: networkx.DiGraph[str] = networkx.DiGraph()
        graph.add_nodes_from(keys)
        for key in keys:
            for read in self.steps[key].reads:
                carried = within_generation and self._carried(self.steps[key], read)
                if read.key in graph and not carried:
                    graph.add_edge(read.key, key)
        return graph


def _sorted_groups(graph: networkx.DiGraph[str]) -> list[list[str]]:
    """Return the cycles of a graph, each step in one, in an order in which they can be computed."""
    place = {key: k for k, key in enumerate(graph)}
    groups = networkx.condensation(graph)
    members = {g: sorted(keys, key=place.__getitem__) for g, keys in groups.nodes(data="members")}
    order = networkx.lexicographical_topological_sort(groups, key=lambda g: place[members[g][0]])
    return [members[group] for group in order]
