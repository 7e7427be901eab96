"""Simplify: the passes that make a cascade smaller, until nothing changes."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.cascade import Cascade, Scalar
from .dead import remove_dead
from .defer import defer
from .facts import NO_SCALARS, NO_SIZES
from .fold import fold_cascade
from .inline_scales import inline_scales
from .share import share


def simplify(
    cascade: Cascade,
    *,
    sizes: Mapping[str, int] = NO_SIZES,
    parameters: Mapping[str, Scalar] = NO_SCALARS,
    extrema: bool = False,
) -> Cascade:
    """Fold, share, remove what is dead and defer, until nothing changes.

    ::

        N[p, m] = exp(S[p, m] * 1)
        M[p, m] = exp(S[p, m])
        D[p]    = sum[m](M[p, m])
        A[p, m] = N[p, m] / D[p]
        O[p, f] = sum[m](A[p, m] * 2 * V[m, f])
        -->
        N[p, m]     = exp(S[p, m])
        D[p]        = sum[m](N[p, m])
        O_sum[p, f] = sum[m](N[p, m] * V[m, f])
        O[p, f]     = O_sum[p, f] / D[p] * 2

    ``sizes`` and ``parameters`` that are given become constants. With ``extrema``, tensors that
    only scale another one are written out where they are read (``inline_scales``), so that the
    scale leaves maxima; meant for the end, when exponents have their final form.

    Requires: a flat cascade. Keeps: every output's value up to rounding; where points exist.
    """
    while True:
        before = cascade
        cascade = fold_cascade(cascade, sizes=sizes, parameters=parameters)
        cascade = remove_dead(share(cascade))
        if extrema:
            cascade = inline_scales(cascade, parameters=parameters)
        cascade = defer(cascade, parameters=parameters)
        if cascade is before:
            return cascade
