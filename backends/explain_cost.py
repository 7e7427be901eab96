"""Explaining cost: work, the roofline's terms, the compulsory bound and the distance to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ..ir.cascade import Cascade
from ..ir.expression import Apply, Reduce, free_ranks, walk
from ..ir.mapping import MappedKernel, Mapping
from ..ir.streaming import Field
from .explain_visits import Facts, visits
from .explain_work import EXPONENTIALS, Counter, factors
from .roofline import Machine, Term, Work, terms


@dataclass(frozen=True, slots=True)
class KernelCost:
    """What one kernel does, and the least time that each unit of the machine needs for it.

    executed : over the tiles visited. useful : over the points that exist. loaded : bytes that its
    programs load, mostly from the caches. seconds : of the longest term. waiting : the sum of all
    terms, which is what it takes if no two units work at once.
    """

    name: str
    executed: Work
    useful: Work
    loaded: float
    terms: tuple[Term, ...]
    unknown: tuple[str, ...]
    seconds: float | None
    waiting: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Costs of all kernels together.

    open : what has to be known before there are numbers, "" if all is. formulas : then the products
    and exponentials by einsum, in the open sizes.
    compulsory : bytes of all inputs and outputs, once each. moved : bytes that the kernels move,
    what lies between them and further deliveries included.
    bound : seconds that the compulsory bytes and the useful products take at least, whatever the
    mapping; seconds : the sum of the kernels' longest terms; distance : seconds over bound.
    intensity : FLOPs of products for each byte moved; ridge : where the machine's two rates meet.
    """

    open: str
    formulas: tuple[tuple[str, str, str], ...]
    compulsory: float | None
    multiprocessors: int | None
    source: str
    kernels: tuple[KernelCost, ...] = ()
    executed: Work | None = None
    useful: Work | None = None
    moved: float | None = None
    intensity: float | None = None
    ridge: float | None = None
    seconds: float | None = None
    bound: float | None = None
    bound_by: str = ""
    distance: float | None = None


def cost(cascade: Cascade, mapping: Mapping, facts: Facts, machine: Machine | None) -> Cost:
    """Count the work of every kernel, and put times to it where the machine's figures are known."""
    start = Cost(
        open="",
        formulas=tuple(x for k in mapping.kernels for x in kernel_formulas(k, facts)),
        compulsory=crossing_bytes(cascade, facts),
        multiprocessors=None if machine is None else machine.multiprocessors,
        source="" if machine is None else machine.source,
    )
    counted: list[KernelCost] = []
    for kernel in mapping.kernels:
        found = kernel_cost(kernel, facts, machine)
        if isinstance(found, str):
            return replace(start, open=found)
        counted.append(found)
    executed = sum((k.executed for k in counted), Work())
    products = executed.matrix > 0 and executed.bytes > 0
    whole = replace(
        start,
        kernels=tuple(counted),
        executed=executed,
        useful=sum((k.useful for k in counted), Work()),
        moved=executed.bytes,
        intensity=executed.matrix / executed.bytes if products else None,
    )
    return whole if machine is None else timed(whole, executed, machine)


def timed(whole: Cost, executed: Work, machine: Machine) -> Cost:
    """Add what a machine's rates tell of work that is counted."""
    seconds = sum(k.seconds for k in whole.kernels if k.seconds is not None)
    peak = machine.matrix16
    if executed.matrix32 > executed.matrix16 and machine.lanes is not None:
        peak = 2 * machine.lanes
    whole = replace(
        whole, seconds=seconds, ridge=peak / machine.memory if executed.matrix else None
    )
    if whole.compulsory is None or whole.useful is None:
        return whole
    needed = Work(
        matrix16=whole.useful.matrix16,
        matrix8=whole.useful.matrix8,
        matrix32=whole.useful.matrix32,
        bytes=whole.compulsory,
    )
    found, _ = terms(needed, machine)
    if not found or not found[0].seconds:
        return whole
    bound = found[0].seconds
    return replace(whole, bound=bound, bound_by=found[0].unit, distance=seconds / bound)


def kernel_cost(kernel: MappedKernel, facts: Facts, machine: Machine | None) -> KernelCost | str:
    """Count one kernel, or say what has to be known for that."""
    missing = facts.missing(kernel)
    if missing:
        return f"sizes of {', '.join(missing)} are open"
    shapeless = [t for t in (*kernel.reads, *kernel.writes) if t not in facts.shapes]
    if shapeless:
        return f"shapes of {', '.join(shapeless)} are open"
    seen = []
    for traversal in kernel.traversals:
        found = visits(kernel, traversal, facts)
        if isinstance(found, str):
            return found
        seen.append(found)
    counter = Counter(kernel, facts, tuple(seen))
    counter.count()
    if machine is None:
        return KernelCost(
            kernel.name, counter.executed, counter.useful, counter.loaded, (), (), None, None
        )
    found_terms, unknown = terms(counter.executed, machine)
    times = [t.seconds for t in found_terms]
    return KernelCost(
        kernel.name,
        counter.executed,
        counter.useful,
        counter.loaded,
        found_terms,
        unknown,
        max(times, default=0.0),
        sum(times),
    )


def crossing_bytes(cascade: Cascade, facts: Facts) -> float | None:
    """Return the bytes of all inputs and outputs, once each; None if a shape is open."""
    tensors = tuple(dict.fromkeys((*cascade.inputs, *cascade.outputs)))
    if any(t not in facts.shapes for t in tensors):
        return None
    return sum(facts.bytes_of(t, prod(facts.shapes[t])) for t in tensors)


def kernel_formulas(kernel: MappedKernel, facts: Facts) -> list[tuple[str, str, str]]:
    """Return (kind, einsum, formula) for each sum of products, and each einsum with exponentials.

    The formulas are those of the whole iteration space: no domain is taken off.
    """
    found = []
    for item in kernel.einsums():
        if isinstance(item, Field):
            ranks = (*item.ranks, *item.ranks_reduced)
            name, lift, sums = item.tensor, item.lift, item.reducer == "sum"
        else:
            name, lift, sums = item.name, item.body, False
            ranks = item.ranks
            if isinstance(lift, Reduce):
                sums, ranks = lift.reducer == "sum", (*ranks, *lift.ranks)
                lift = lift.body
        sizes = " * ".join(str(facts.sizes.get(r, r)) for r in dict.fromkeys(ranks))
        if sums and sum(bool(free_ranks(x)) for x in factors(lift)) > 1:
            found.append(("FLOPs of products", name, f"2 * {sizes}"))
        for x in walk(lift):
            if isinstance(x, Apply) and x.operator in EXPONENTIALS:
                at = [str(facts.sizes.get(r, r)) for r in free_ranks(x)]
                found.append(("exponentials", name, " * ".join(at) or "1"))
    return found
