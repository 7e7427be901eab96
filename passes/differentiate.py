"""Differentiate: reverse mode on einsums. The gradient of a cascade is a cascade."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..ir.cascade import Cascade, check_cascade
from ..ir.errors import PassError
from ..ir.expression import Apply, Populate, Reduce, tensors
from .dead import remove_dead
from .facts import NO_SIZES
from .flatten import flatten
from .keep import Gradient, keep
from .log_norm import log_norm, quotients
from .name_results import name_results
from .reassociate import reassociate
from .share import share
from .stabilise import stabilise
from .sweep import Sweep


def differentiate(
    cascade: Cascade, *, wrt: Iterable[str] | None = None, of: Iterable[str] | None = None
) -> Cascade:
    """Return the cascade of the gradients of a cascade's inputs.

    ::

        S[p, m] = sum[e](Q[p, e] * K[m, e])
        A[p, m] = sigmoid(S[p, m])
        O[p, f] = sum[m](A[p, m] * V[m, f])
        ==>
        S[p, m]      = sum[e](Q[p, e] * K[m, e])
        A[p, m]      = sigmoid(S[p, m])
        A_grad[p, m] = sum[f](O_grad[p, f] * V[m, f])
        S_grad[p, m] = A_grad[p, m] * A[p, m] * (1 - A[p, m])
        Q_grad[p, e] = sum[m](S_grad[p, m] * K[m, e])
        K_grad[m, e] = sum[p](S_grad[p, m] * Q[p, e])
        V_grad[m, f] = sum[p](O_grad[p, f] * A[p, m])
        return Q_grad, K_grad, V_grad

    Parameters
    ----------
    wrt : the inputs whose gradients are wanted; by default all that have one.
    of : the outputs through which gradients come; by default all that are real for certain not to
        be whole numbers or truth values.

    Its inputs are the cascade's own inputs, tensors of the forward cascade that are kept because
    computing them again would walk a long rank, and for each output T of ``of`` its gradient
    ``T_grad``. ``gradient`` returns it together with the forward cascade that gives what is kept.

    Gradients take part only where the forward point exists; a row without points gives 0. A
    maximum gives to the first of equal points. A selection has no gradient, nor has what only
    decides a filter, a coordinate or a comparison.

    Requires: no iterative rank. Keeps: nothing; the result is another cascade.
    Source: reverse mode, Griewank and Walther, Evaluating Derivatives, 2008; invariance under the
    frame and the sum that moves to the features: theory 2.6 and 3.2.

    Raises
    ------
    PassError
        for an iterative rank; for an input or output that is none, or that has no gradient.
    """
    check_cascade(cascade, "differentiate")
    return gradient(cascade, wrt=wrt, of=of).backward


def gradient(
    cascade: Cascade,
    *,
    wrt: Iterable[str] | None = None,
    of: Iterable[str] | None = None,
    sizes: Mapping[str, int] = NO_SIZES,
) -> Gradient:
    """Return the gradient of a cascade with the forward cascade that keeps what it reads.

    Takes what ``differentiate`` takes, and raises what that raises. ``sizes`` that are known tell
    what is worth keeping.
    """
    if cascade.iterative_ranks:
        raise PassError(
            f"{cascade.name} is iterative in {', '.join(cascade.iterative_ranks)}, and gradients"
            " along an iterative rank are not built; write it without, with a reduction over an"
            " ordinary rank"
        )
    results = tuple(dict.fromkeys(of if of is not None else outputs_with_gradient(cascade)))
    wrt, of = ((x,) if isinstance(x, str) else x for x in (wrt, of))
    wanted = None if wrt is None else tuple(dict.fromkeys(wrt))
    for names, known, what in (
        (results, cascade.outputs, "output"),
        (wanted or (), cascade.inputs, "input"),
    ):
        for name in names:
            if name not in known:
                raise PassError(
                    f"{name} is no {what} of {cascade.name} (its {what}s: {', '.join(known)})"
                )
    if not results:
        raise PassError(f"{cascade.name} returns nothing that has a gradient")
    forward = reassociate(stabilise(remove_dead(flatten(cascade))), sizes=sizes)
    named = share(name_results(forward))
    shaped = share(log_norm(named))
    sweep = Sweep(shaped, results, quotients(named))
    einsums, found = sweep.run(wanted or cascade.inputs)
    if wanted is not None:
        for name in wanted:
            if name not in found:
                raise PassError(
                    f"{name} has no gradient in {cascade.name}: it only decides filters,"
                    " coordinates, comparisons or selections"
                )
    if not found:
        raise PassError(f"no input of {cascade.name} has a gradient")
    joint = replace(
        shaped,
        inputs=(*shaped.inputs, *(sweep.seeds[t] for t in results)),
        einsums=(*shaped.einsums, *einsums),
        outputs=(*found.values(), *shaped.outputs),
    )
    return keep(cascade, forward, shaped, joint, tuple(found), results, sweep.seeds, sizes)


def outputs_with_gradient(cascade: Cascade) -> tuple[str, ...]:
    """Return the outputs that are neither selections, nor places or counts, nor truth values."""
    found = []
    for name in cascade.outputs:
        match cascade.einsum(name).body:
            case Populate() | Reduce(reducer="any" | "all" | "argmax" | "argmin"):
                continue
            case Apply(operator="and" | "or" | "not" | "in" | "==" | "!=" | "<" | "<="):
                continue
            case Apply(operator=">" | ">=" | "bit_length"):
                continue
            case _ if not counted(name, cascade):
                found.append(name)
    return tuple(found)


def counted(name: str, cascade: Cascade) -> bool:
    """Whether a tensor follows from selections and constants alone, as their lengths do."""
    if name in cascade.inputs:
        return False
    bodies = [e.body for e in cascade.einsums if e.name == name]
    return all(
        isinstance(body, Populate) or all(t != name and counted(t, cascade) for t in tensors(body))
        for body in bodies
    )
