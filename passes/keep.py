"""Keep: choose what the forward cascade keeps for the gradient, and part the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ir.cascade import Cascade, Einsum
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Reduce,
    children,
    free_ranks,
    rewrite,
)
from ..ir.verify import verify
from .align import fresh
from .dead import remove_dead
from .existence import Existence
from .facts import exact_tensors, weight
from .flatten import flatten
from .reassociate import extents, reassociate
from .short_ranks import lowest_digits
from .simplify import simplify


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient of a cascade.

    forward : the cascade, which returns besides its own outputs the tensors ``kept``.
    backward : its inputs are some of the forward's inputs, then ``kept``, then gradients of the
        outputs ``of``; its outputs are the gradients of the inputs ``wrt``, in their order.
    seeds : the names of the gradients of the outputs ``of``, in their order; read or not.
    """

    forward: Cascade
    backward: Cascade
    wrt: tuple[str, ...]
    of: tuple[str, ...]
    kept: tuple[str, ...]
    seeds: tuple[str, ...]


def keep(
    declared: Cascade,
    forward: Cascade,
    shaped: Cascade,
    joint: Cascade,
    wrt: tuple[str, ...],
    of: tuple[str, ...],
    seeds: Mapping[str, str],
    sizes: Mapping[str, int],
) -> Gradient:
    """Part a joint cascade of values and gradients in two.

    A forward tensor that the gradients read is kept if it has a value everywhere, is no larger
    than some input or output (by its ranks, or by ``sizes``), and took a walk over a long rank to
    compute; anything else is computed again from what is there. So nothing with two long ranks is
    ever kept. An output is kept for nothing.

    A kept number of a row in which no point exists may be infinite; as no point reads it, 0 is
    kept in its place.
    """
    own = {e.name for e in shaped.einsums}
    wanted = tuple(n for n in joint.outputs if n not in shaped.outputs)
    infinite = endless(shaped)
    sums = {e.name for e in shaped.einsums if isinstance(e.body, Reduce)}
    free = tuple(t for t in declared.outputs if t in of and t in sums - infinite)
    chosen = _Choice(declared, joint, own, seeds, infinite, sizes)
    kept: dict[str, str] = {}
    taken = {*joint.inputs, *joint.ranks, *(e.name for e in joint.einsums)}
    taken |= {n for n, _ in joint.parameters}

    def cut(cascade: Cascade, outputs: tuple[str, ...], whole: tuple[str, ...]) -> Cascade:
        """Return what the outputs need, beginning at inputs and at what is kept."""
        writers = {e.name: e for e in cascade.einsums}
        needed: set[str] = set()
        front = list(outputs)
        while front:
            name = front.pop()
            if name in needed or name in kept or name not in writers:
                continue
            if name not in whole and name not in wanted and chosen.keepable(name):
                kept[name] = name if name not in infinite else fresh(f"{name}_kept", taken)
                continue
            needed.add(name)
            front += writers[name].reads
        einsums = tuple(_renamed(e, kept) for e in cascade.einsums if e.name in needed)
        read = {r for e in einsums for r in e.reads}
        inputs = (
            *(n for n in declared.inputs if n in read),
            *(kept[e.name] for e in joint.einsums if e.name in kept and kept[e.name] in read),
            *(s for s in seeds.values() if s in read),
        )
        return replace(cascade, inputs=inputs, einsums=einsums, outputs=outputs)

    # Outputs are there for nothing, also to be summed again: first with them, then without.
    there = reassociate(simplify(flatten(cut(joint, (*wanted, *free), free))))
    backward = cut(there, wanted, ())
    backward = replace(backward, name=f"{declared.name}_gradient")
    backward = without_unread_parameters(backward)
    order = tuple(e.name for e in shaped.einsums if kept.get(e.name) in backward.inputs)
    return Gradient(
        with_kept(declared, forward, shaped, kept, order),
        verify(backward),
        wrt,
        of,
        tuple(kept[n] for n in order),
        tuple(seeds[t] for t in of),
    )


class _Choice:
    """Which tensors of a joint cascade are worth keeping."""

    def __init__(
        self,
        declared: Cascade,
        joint: Cascade,
        own: set[str],
        seeds: Mapping[str, str],
        infinite: frozenset[str],
        given: Mapping[str, int],
    ) -> None:
        forward = [e for e in joint.einsums if not _is_gradient(e, joint, own, seeds)]
        self.declared = declared
        self.values = {e.name: e for e in forward}
        self.given = given
        self.long = {*sequences(declared), *extents(declared, {})}
        self.known = Existence.of_cascade(replace(joint, einsums=tuple(forward)))
        self.infinite, self.exact = infinite, exact_tensors(joint)
        self.roots = [set(free_ranks(x)) for x in _stored(declared)]
        self.own = own

    def walks(self, name: str) -> bool:
        """Whether a tensor takes a walk over a long rank, from inputs."""
        e = self.values[name]
        long = isinstance(e.body, Reduce) and bool(self.long & set(e.body.ranks))
        return long or any(self.walks(r) for r in e.reads if r in self.values)

    def keepable(self, name: str) -> bool:
        """Whether a tensor is kept."""
        if name not in self.values or name not in self.own or self.known.found[name]:
            return False
        if name in self.infinite and name in self.exact:
            return False
        own = self.values[name].ranks
        small = any(set(own) <= ranks for ranks in self.roots)
        if not small and set(own) <= set(self.given):
            least = [weight(r, self.given) for r in self.roots if r <= set(self.given)]
            small = weight(own, self.given) <= max(least, default=0)
        return small and (name in self.declared.outputs or self.walks(name))


def with_kept(
    declared: Cascade,
    forward: Cascade,
    shaped: Cascade,
    kept: Mapping[str, str],
    order: tuple[str, ...],
) -> Cascade:
    """Return the forward cascade with what is kept among its outputs."""
    there = {e.name for e in forward.einsums}
    missing: set[str] = set()
    front = list(order)
    while front:
        name = front.pop()
        if name not in there and name not in missing and name not in declared.inputs:
            missing.add(name)
            front += [r for e in shaped.einsums if e.name == name for r in e.reads]
    einsums = [*forward.einsums, *(e for e in shaped.einsums if e.name in missing)]
    for name in order:
        if kept[name] != name:
            writer = shaped.einsum(name)
            number = Apply("<", (Apply("abs", (writer.output,)), Constant(float("inf"))))
            body = Apply("where", (number, writer.output, Constant(0.0)))
            einsums.append(Einsum(replace(writer.output, tensor=kept[name]), body))
    more = tuple(kept[n] for n in order if kept[n] not in declared.outputs)
    outputs = (*declared.outputs, *more)
    return verify(remove_dead(replace(forward, einsums=tuple(einsums), outputs=outputs)))


def sequences(cascade: Cascade) -> tuple[str, ...]:
    """Return the ranks in computed coordinates before the last place, but for lowest digits."""
    return tuple(
        dict.fromkeys(
            r
            for x in _stored(cascade)
            for c in x.coordinates[:-1]
            for r in free_ranks(c)
            if r not in lowest_digits(c)
        )
    )


def endless(cascade: Cascade) -> frozenset[str]:
    """Return the tensors that are infinite in rows without points, as a maximum over nothing is.

    An exponential is none: where its frame is infinite, none of its points exists.
    """
    found: set[str] = set()

    def may(x: Expression) -> bool:
        match x:
            case Reduce(reducer="max" | "min") | Apply("log" | "log2", _):
                return True
            case Apply("exp" | "exp2" | "tanh" | "sigmoid", _):
                return False
            case Access(tensor=tensor):
                return tensor in found
            case _:
                return any(may(y) for y in children(x))

    for einsum in cascade.einsums:
        if may(einsum.body):
            found.add(einsum.name)
    return frozenset(found)


def _is_gradient(einsum: Einsum, joint: Cascade, own: set[str], seeds: Mapping[str, str]) -> bool:
    """Whether an einsum depends on a gradient that arrives from outside."""
    if einsum.name in own:
        return False
    seen: set[str] = set()
    front = list(einsum.reads)
    while front:
        name = front.pop()
        if name in seeds.values():
            return True
        if name not in seen:
            seen.add(name)
            front += [r for e in joint.einsums if e.name == name for r in e.reads]
    return False


def _stored(cascade: Cascade) -> list[Access]:
    """Return a reading of every tensor that is in memory anyway."""
    found = [
        x
        for e in cascade.einsums
        for x in e.expressions()
        if isinstance(x, Access) and x.tensor in cascade.inputs
    ]
    return [*found, *(cascade.einsum(t).output for t in cascade.outputs)]


def _renamed(einsum: Einsum, names: Mapping[str, str]) -> Einsum:
    """Read kept tensors under the names that they are kept by."""

    def rule(x: Expression) -> Expression | None:
        if isinstance(x, Access) and names.get(x.tensor, x.tensor) != x.tensor:
            return replace(x, tensor=names[x.tensor])
        return None

    filter = None if einsum.filter is None else rewrite(einsum.filter, rule)
    return replace(einsum, body=rewrite(einsum.body, rule), filter=filter)


def without_unread_parameters(cascade: Cascade) -> Cascade:
    """Drop parameters that nothing reads any more."""
    read = set(cascade.parameters_read())
    kept = tuple(p for p in cascade.parameters if p[0] in read)
    return replace(cascade, parameters=kept)
