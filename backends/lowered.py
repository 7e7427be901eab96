"""A lowered cascade: kernels for one class of arguments, with everything that led to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..codegen.gluon import print_gluon
from ..codegen.kernel import Buffer, Kernel
from ..codegen.loop_nest import Nest
from ..codegen.lower import lower
from ..codegen.search import search_nests
from ..codegen.tables import table_nests
from ..codegen.triton import print_triton
from ..ir.cascade import Cascade
from ..ir.errors import BackendError
from ..ir.expression import Populate
from ..ir.mapping import Cut, MappedKernel, Mapping
from ..ir.show import show_expression
from ..passes.bound_tables import bound_tables, mark_tables
from ..passes.named_tiles import hold_tiles
from ..passes.partition import narrow
from ..passes.pipeline import Known, Step, map_cascade
from ..passes.specialise import specialise
from ..passes.state_traffic import cost_of_part, least_tiles
from ..passes.whole_tiles import whole_tiles
from .launch import Plan, plan
from .triton_targets import shared_limit

TENSOR_CORES = ("sm_90",)
"""Targets of which it was measured that tensor cores gain where they take float32 in pieces."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """What ``compile(c).lower(...)`` gives: attributes to read, and kernels to run.

    cascade : as declared. steps : each pass with the cascade before and after it.
    mapping : kernels, ranks' roles, partitions and streaming states.
    kernels : text and launch data, in order.
    """

    cascade: Cascade
    known: Known
    steps: tuple[Step, ...]
    mapping: Mapping
    kernels: tuple[Kernel, ...]

    @property
    def source(self) -> str:
        """The text of all kernels; of several, one after the other."""
        return "\n\n".join(kernel.text.rstrip("\n") for kernel in self.kernels) + "\n"

    def plan(self) -> Plan:
        """Return the launch plan of these kernels."""
        static = self.known.static
        return plan(self.kernels, self.cascade, mapping=self.mapping, static=static)

    def noting(self, said: str) -> Lowered:
        """Return the same kernels with a note that ``explain`` shows."""
        return replace(self, mapping=replace(self.mapping, notes=(*self.mapping.notes, said)))

    def explain(self) -> Any:
        """Say how often each input is walked and why, what is kept, skipped and spent."""
        from .explain import explain

        return explain(self)

    def density(self, *tensors: Any, **known: Any) -> Any:
        """Return the shares of points that exist, and of tiles that run, for each loop.

        With the tensors of a call lists and labels are counted too; see ``density.py``.
        """
        from .density import density

        return density(self, *tensors, **known)

    def save(self, path: str | Path) -> Path:
        """Write a file that imports only torch and triton, runs the cascade and tests itself."""
        from .save import save

        return save(self, Path(path))

    def benchmark(self, *tensors: Any, **parameters: Any) -> float:
        """Return the median time of a call on these tensors, in milliseconds."""
        from .benchmark import benchmark

        return benchmark(self.plan(), *tensors, **parameters)


def lower_cascade(cascade: Cascade, known: Known) -> Lowered:
    """Run all passes, lower every kernel to its loop nest, and print it.

    Programs add to sums in turn where that is possible; no kernel in Triton does.
    """
    if known.emitter != "tl" and known.target == "sm_90" and not known.atomics:
        try:
            found = lower_as(cascade, replace(known, in_turn=True))
        except BackendError:
            return lower_as(cascade, known)
        if all(k.emitter == "gluon" for k in found.mapping.kernels if k.in_turn):
            return replace(found, known=known)
    return lower_as(cascade, known)


def lower_as(cascade: Cascade, known: Known) -> Lowered:
    """Lower a cascade, and let programs add to sums as ``known`` says."""
    mapping, steps = map_cascade(cascade, known)
    dtypes = dict(mapping.dtypes)
    for kernel in mapping.kernels:
        hold_tiles(kernel, tiles=known.tiles, dtypes=dtypes, target=known.target)
    kernels: list[Kernel] = []
    mapped: list[MappedKernel] = []
    made: dict[str, Kernel] = {}
    for k, kernel in enumerate(mapping.kernels):
        places = (known.overlap and k + 1 < len(mapping.kernels), known.overlap and k > 0)
        if kernel.search is not None:
            nests = search_nests(kernel, dtypes=dtypes, buffers=buffers_of(mapping, kernel))
            for i, nest in enumerate(nests):
                leads = places[0] or (known.overlap and i + 1 < len(nests))
                follows = places[1] or (known.overlap and i > 0)
                kernels.append(print_triton(replace(nest, leads=leads, follows=follows)))
            mapped.append(kernel)
            continue
        before = (mapped[-1], kernels[-1]) if mapped and kernels else None
        cut, printed = emit(mapping, kernel, known, *places, before)
        for table in table_nests(cut, dtypes=dtypes):
            if table.name not in made:
                made[table.name] = print_triton(table)
                kernels.append(replace(made[table.name], fixed=not made[table.name].reads))
        mapped.append(cut)
        kernels.append(printed)
    cuts = tuple(as_cut(c, mapped, known) for c in mapping.cuts)
    mapping = replace(mapping, kernels=tuple(mapped), cuts=cuts)
    return Lowered(cascade, known, steps, mapping, tuple(kernels))


def as_cut(cut: Cut, kernels: list[MappedKernel], known: Known) -> Cut:
    """Count parts in tiles that kernels have, and programs beside each other, as they are printed.

    A part that ended inside a tile would have the rest of it reduced twice.
    """
    walking = [k for k in kernels if dict(k.roles).get(cut.part) == "grid"]
    if all(k.crew is None for k in walking):
        return cut
    return replace(
        cut,
        tile=max(k.partition(cut.rank).tile for k in walking),
        residents=min(k.residents for k in walking),
        least=max(least_tiles(k, cut.rank, known.sizes) for k in walking),
        stored=max(cost_of_part(k, cut.rank, known.sizes) for k in walking),
    )


def emit(
    mapping: Mapping,
    kernel: MappedKernel,
    known: Known,
    leads: bool = False,
    follows: bool = False,
    before: tuple[MappedKernel, Kernel] | None = None,
) -> tuple[MappedKernel, Kernel]:
    """Print a kernel, in Gluon if that is asked for; its mapping says in what, and why.

    ``leads`` and ``follows`` say that the kernel behind it, and it itself, may be launched while
    the one ``before`` still runs; a Gluon kernel is, where it needs nothing of another one.
    """
    dtypes = dict(mapping.dtypes)
    buffers = buffers_of(mapping, kernel)
    kernel = bound_tables(kernel, known.sizes)

    def nest(mapped: MappedKernel) -> Nest:
        mapped = whole_tiles(mapped, known.parameters)
        heading = title(mapping, mapped)
        return lower(mapped, dtypes=dtypes, buffers=buffers, title=heading)

    def in_triton() -> Kernel:
        precision = precision_of(mapping.cascade, kernel, known.target)
        return print_triton(
            replace(nest(kernel), leads=leads, follows=follows, precision=precision)
        )

    if known.emitter == "tl":
        return kernel, in_triton()
    automatic = known.emitter == "auto"
    cut = long_number(known) or specialise(
        kernel,
        dtypes=dtypes,
        sizes=known.sizes,
        described=(*known.described, *boxed_between(mapping, kernel, known)),
        target=known.target,
        tiles=known.tiles,
        num_stages=known.num_stages,
        choice=known.choice,
        automatic=automatic,
    )
    if isinstance(cut, MappedKernel):
        cut = bound_tables(with_own_tables(cut, mapping), known.sizes)
        cut = mark_tables(whole_tiles(cut, known.parameters))
    # a kernel whose results are kept between calls is left out of most of them
    beside = follows and before is not None and not known.static and apart(*before, kernel)
    found: str | Kernel = cut if isinstance(cut, str) else ""
    if isinstance(cut, MappedKernel):
        drawn = cut.crew is not None and cut.crew.drawn  # by a number that is set to 0 before
        found = print_gluon(replace(nest(cut), leads=leads, beside=beside and not drawn))
        found = too_large(found, known.target) or found
    if isinstance(cut, MappedKernel) and isinstance(found, Kernel):
        return replace(cut, emitter="gluon"), found
    if known.emitter == "gluon":
        raise BackendError(
            f'{kernel.name} has no Gluon kernel: {found}; take emitter="auto", which writes such'
            " a kernel in Triton"
        )
    return replace(kernel, emitter=f"tl, because {found}"), in_triton()


def precision_of(cascade: Cascade, kernel: MappedKernel, target: str) -> str:
    """Return how products of float32 are made.

    NVIDIA's tensor cores multiply float32 in pieces, three products for one. Measured on an H100,
    attention forward, errors against float64 are 5e-7 to 9e-7 of the norm, and 2 x 16 heads of 1024
    x 1024 and 64 features take 203 us in place of 701. What is selected depends on the last bits,
    and keeps them. Of more than 64 features the pieces take more shared memory than there is.
    """
    selects = any(isinstance(e.body, Populate) for e in cascade.einsums)
    pieces = target in TENSOR_CORES and narrow(kernel) and not selects
    return "tf32x3" if pieces else "ieee"


def too_large(found: Kernel | str, target: str) -> str:
    """Return why a printed kernel cannot be launched: what it allocates, and what there is."""
    room = shared_limit(target)
    if isinstance(found, str) or found.shared <= room:
        return ""
    return f"it takes {found.shared} bytes of shared memory, and {target} has {room}"


def long_number(known: Known) -> str:
    """Return why no Gluon kernel takes the parameters: its limits of columns have 32 bits."""
    values = ((n, x) for n, x in known.parameters.items() if isinstance(x, int))
    return next((f"{n} = {x} takes 64 bits" for n, x in values if not -(2**31) <= x < 2**31), "")


def apart(mapped: MappedKernel, printed: Kernel, kernel: MappedKernel) -> bool:
    """Whether a kernel may run beside a Gluon kernel before it, which began when all was there.

    It fills multiprocessors that the last programs of that one leave idle.
    """
    if printed.language != "gluon" or printed.follows:
        return False
    if any(t.domain.table is not None for t in kernel.traversals):
        return False  # what makes its table stands between
    return not (
        set(kernel.reads) & set(mapped.writes)
        or set(kernel.writes) & set((*mapped.reads, *mapped.writes))
    )


def with_own_tables(kernel: MappedKernel, mapping: Mapping) -> MappedKernel:
    """Return a kernel with tables of tiles as wide as its own, where it shared them with others."""
    shared = [
        t.domain.table for k in mapping.kernels if k.name != kernel.name for t in k.traversals
    ]
    names = {table.name for table in shared if table is not None}
    traversals = []
    for t in kernel.traversals:
        table = t.domain.table
        if table is not None and table.name in names:
            table = replace(table, name=f"{table.name}_wide")
        traversals.append(replace(t, domain=replace(t.domain, table=table)))
    return replace(kernel, traversals=tuple(traversals))


def boxed_between(mapping: Mapping, kernel: MappedKernel, known: Known) -> tuple[str, ...]:
    """Return what a kernel reads of kernels before it and descriptors may fetch.

    Such a tensor lies densely in memory, so that its rows have to be multiples of 16 bytes.
    """
    ranks = {e.name: e.ranks for e in mapping.cascade.einsums}
    dtypes = dict(mapping.dtypes)
    found = []
    for tensor in kernel.reads:
        if tensor in mapping.cascade.inputs or len(ranks.get(tensor, ())) < 2:
            continue
        length = known.sizes.get(ranks[tensor][-1], 1)
        if length * {"float32": 4, "float16": 2, "bfloat16": 2}.get(dtypes[tensor], 1) % 16 == 0:
            found.append(tensor)
    return tuple(found)


def buffers_of(mapping: Mapping, kernel: MappedKernel) -> dict[str, Buffer]:
    """Return what a kernel writes, by name."""
    dtypes = dict(mapping.dtypes)
    ranks = {e.name: e.ranks for e in mapping.cascade.einsums}
    return {t: Buffer(t, ranks[t], dtypes[t], zeros=t in kernel.scattered) for t in kernel.writes}


def title(mapping: Mapping, kernel: MappedKernel) -> tuple[str, ...]:
    """Return the docstring of a kernel's file: what it computes, and how its ranks are cut."""
    words = {"grid": "one coordinate", "tiled": "a tile", "streamed": "walked", "resident": "whole"}
    roles = ", ".join(f"{rank} {words[role]}" for rank, role in kernel.roles)
    lines = [f"Computes {', '.join(kernel.writes)} of this cascade:", ""]
    lines += ["    " + line for line in str(mapping.cascade).splitlines()]
    lines += ["", f"Of each rank one program has: {roles}."]
    for view in kernel.views:
        lines.append(f"Memory has {view.rank}, at {show_expression(view.coordinate)}.")
    lines.append("Generated by Einfall.")
    return tuple(lines)
