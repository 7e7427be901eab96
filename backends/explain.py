"""Explain: what was compiled and why, as data; text and HTML are two ways to read it.

Everything is read off the mapping, the cascades before and after the passes, and a table of
machines: traversals (theory 2.2), streaming states (theory 3), domains (theory 5.2), work and
roofline (theory 7.2), the compulsory bound (theory 8). What needs a size that is not known is
``None``, and a sentence says what is open.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..ir.show import show_expression
from ..passes.split_selections import twin_sizes
from .explain_balance import Balance, balance
from .explain_cost import Cost, cost
from .explain_loops import LoopExplanation, explain_loop
from .explain_parts import explain_parts, parts_known
from .explain_points import PointsStored, points_stored
from .explain_search import search_lines
from .explain_squares import squares
from .explain_stored import Stored, stored_between
from .explain_visits import Facts
from .explain_walks import RankWalks, rank_walks
from .roofline import Machine, machine_for
from .save import boxed_tensors

if TYPE_CHECKING:
    from ..ir.mapping import Crew, MappedKernel
    from .lowered import Lowered


@dataclass(frozen=True, slots=True)
class RankRole:
    """What one program has of a rank.

    role : grid, tiled, streamed or resident. tile : coordinates at a time (grid: 1). parts : of a
        resident rank, as (offset, width, valid). reverse : the last tiles are issued first.
    """

    rank: str
    role: str
    tile: int
    parts: tuple[tuple[int, int, int], ...]
    reverse: bool


@dataclass(frozen=True, slots=True)
class KernelExplanation:
    """One kernel: what it moves, what a program has of each rank, its loops and its work.

    before : einsums computed once a program, ahead of the loops. after : behind them.
    boxes : inputs of which tiles are fetched by tensor descriptors. programs : of a launch; None
    where a size is open. views : ranks of memory, and where they are in those that are walked.
    balance : how unequal programs are; None where they are alike, or that is not known.
    emitter : the language of the text, with the reason where another was looked at. crew : how
        warps of different work share a program.
        search : how members of a long rank are found. scattered : what is stored where lists say.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    ranks: tuple[RankRole, ...]
    warps: int
    stages: int
    before: tuple[str, ...]
    loops: tuple[LoopExplanation, ...]
    after: tuple[str, ...]
    boxes: tuple[str, ...]
    programs: int | None
    views: tuple[tuple[str, str], ...] = ()
    emitter: str = "tl"
    crew: Crew | None = None
    search: tuple[str, ...] = ()
    scattered: tuple[str, ...] = ()
    balance: Balance | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What ``explain`` found; ``str`` gives text, ``to_dict`` plain data.

    cascade : the notation as declared. compiled : the notation that the kernels compute.
    sizes : those known. open : ranks without a size. passes : those that changed something.
    walks : of each rank. refusals : why a rank is walked more than once by one kernel.
    parts : ranks that are reduced in parts side by side, how and why.
    points : what is stored to say which points exist; None where all do.
    stored : tensors that cross between kernels. cost : work, roofline and bounds.
    squares : what is stored for every pair of coordinates of two long ranks.
    """

    name: str
    target: str
    machine: str | None
    cascade: str
    compiled: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    sizes: tuple[tuple[str, int], ...]
    open: tuple[str, ...]
    parameters: tuple[tuple[str, int | float | bool], ...]
    passes: tuple[str, ...]
    walks: tuple[RankWalks, ...]
    refusals: tuple[str, ...]
    parts: tuple[str, ...]
    kernels: tuple[KernelExplanation, ...]
    points: tuple[PointsStored, ...] | None
    stored: tuple[Stored, ...]
    cost: Cost
    squares: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the same as dictionaries, lists, texts and numbers, ready for JSON."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for key in ("inputs", "outputs", "sizes", "parameters"):
            found[key] = dict(found[key])
        return found

    def __str__(self) -> str:
        from .explain_text import text

        return text(self)

    def _repr_html_(self) -> str:
        from .explain_html import html

        return html(self)


def explain(
    lowered: Lowered,
    *,
    sizes: Mapping[str, int] | None = None,
    tensors: Mapping[str, Any] | None = None,
    machine: str | Machine | None = None,
) -> Explanation:
    """Explain a lowered cascade.

    Parameters
    ----------
    sizes : of ranks, beside those known when it was lowered.
    tensors : inputs that loop bounds read, by name, as arrays; without them their tiles are open.
    machine : whose figures give times, e.g. ``"H200"``; else the GPU that is here, else the first
        that runs kernels of the target.

    Raises
    ------
    BackendError : no figures of that machine are known.
    """
    known, mapping = lowered.known, lowered.mapping
    at = {**known.sizes, **(sizes or {})}
    figures = machine if isinstance(machine, Machine) else machine_for(known.target, machine)
    at, values = parts_known(lowered, at)
    at = {**twin_sizes(mapping.cascade, at), **at}
    facts = Facts.of(lowered, at, tensors or {}).with_parameters(values)
    loops = {
        k.name: tuple(explain_loop(k, t, facts) for t in k.traversals) for k in mapping.kernels
    }
    dtypes = {**known.dtypes, **dict(mapping.dtypes)}
    outputs = tuple((t, dtypes.get(t, "")) for t in lowered.cascade.outputs)
    inputs = tuple((t, dtypes.get(t, "")) for t in lowered.cascade.inputs)
    return Explanation(
        name=lowered.cascade.name,
        target=known.target,
        machine=None if figures is None else figures.name,
        cascade=str(lowered.cascade),
        compiled=str(mapping.cascade),
        inputs=inputs,
        outputs=outputs,
        sizes=tuple((r, at[r]) for r in lowered.cascade.ranks if r in at),
        open=tuple(r for r in lowered.cascade.ranks if r not in at),
        parameters=tuple((n, v) for n, v in facts.parameters.items() if n not in values),
        passes=tuple(s.name for s in lowered.steps if s.after != s.before),
        walks=rank_walks(lowered.cascade, mapping),
        refusals=tuple(
            dict.fromkeys((*mapping.notes, *(n for k in mapping.kernels for n in k.notes)))
        ),
        parts=tuple(explain_parts(c, mapping, at, values) for c in mapping.cuts),
        kernels=tuple(
            explain_kernel(k, loops[k.name], facts, boxed_tensors(lowered), figures)
            for k in mapping.kernels
        ),
        points=points_stored(lowered.cascade, mapping, facts),
        stored=stored_between(mapping, facts),
        cost=cost(lowered.cascade, mapping, facts, figures),
        squares=squares(lowered.cascade, mapping, at),
    )


def explain_kernel(
    kernel: MappedKernel,
    loops: tuple[LoopExplanation, ...],
    facts: Facts,
    boxed: tuple[str, ...],
    figures: Machine | None,
) -> KernelExplanation:
    """Return what one kernel does."""
    from .explain_visits import programs

    ranks = []
    for rank, role in kernel.roles:
        cut = None if role == "grid" else kernel.partition(rank)
        tile, parts = (1, ()) if cut is None else (cut.tile, cut.parts)
        ranks.append(RankRole(rank, role, tile, parts, rank in kernel.reverse))
    counted = all(r in facts.sizes for role in ("grid", "tiled") for r in kernel.ranks(role))
    return KernelExplanation(
        kernel.name,
        kernel.reads,
        kernel.writes,
        tuple(ranks),
        kernel.num_warps if kernel.crew is None else kernel.crew.warps * kernel.crew.consumers + 1,
        kernel.num_stages,
        tuple(str(e) for e in kernel.before),
        loops,
        tuple(str(e) for e in kernel.after),
        tuple(t for t in boxed if t in kernel.reads),
        programs(kernel, facts.sizes) if counted else None,
        tuple((v.rank, show_expression(v.coordinate)) for v in kernel.views),
        kernel.emitter,
        kernel.crew,
        search_lines(kernel),
        kernel.scattered,
        balance=balance(kernel, facts, None if figures is None else figures.multiprocessors),
    )
