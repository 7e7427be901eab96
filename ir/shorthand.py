"""Shorthands: names for a few einsums, expanded while the notation is read.

A shorthand is written in the notation itself. ``...`` stands for the ranks that come along, the
names after the star for the ranks it is given in brackets:

::

    def softmax(X, *, m):
        G[...] = max[m](X[..., m])
        N[..., m] = exp(X[..., m] - G[...])
        D[...] = sum[m](N[..., m])
        A[..., m] = N[..., m] / D[...]
        return A

    A[p, m] = softmax[m](S[p, m])
    -->
    A_G[p] = max[m](S[p, m])
    A_N[p, m] = exp(S[p, m] - A_G[p])
    A_D[p] = sum[m](A_N[p, m])
    A[p, m] = A_N[p, m] / A_D[p]

No level of the compiler sees a shorthand. An argument that is more than a tensor becomes a tensor
of its own; without ranks in brackets it is written in place. ``softmax[m: m <= p](...)`` filters
the argument first. One rank after the star takes several in brackets: ``softmax[m, c](...)``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from .cascade import Cascade, Einsum
from .errors import NotationError, RankError
from .expression import Access, Constant, Expression, Parameter, RankVariable, free_ranks
from .notation_def import Definition, read_definition
from .notation_expand import Expansion, Shorthand, Site, instantiate
from .notation_source import Source, parse_text
from .notation_words import check_name
from .verify import verify

_BUILT_IN = '''
def square(X):
    return X[...] * X[...]

def silu(X):
    return X[...] * sigmoid(X[...])

def gelu(X):
    """The exact form, by the error function (Hendrycks and Gimpel, arXiv 1606.08415)."""
    return 0.5 * X[...] * (1 + erf(X[...] / sqrt(2)))

def softplus(X):
    """log(1 + exp(x)), without overflow."""
    return max(X[...], 0) + log(1 + exp(-abs(X[...])))

def softmax(X, *, m):
    G[...] = max[m](X[..., m])
    N[..., m] = exp(X[..., m] - G[...])
    D[...] = sum[m](N[..., m])
    A[..., m] = N[..., m] / D[...]
    return A

def logsumexp(X, *, m):
    G[...] = max[m](X[..., m])
    D[...] = sum[m](exp(X[..., m] - G[...]))
    return G[...] + log(D[...])

def logsoftmax(X, *, m):
    L[...] = logsumexp[m](X[..., m])
    return X[..., m] - L[...]

def mean(X, *, m):
    """Over the points that exist, which C counts; over nothing it is 0."""
    T[...] = sum[m](X[..., m])
    C[...] = sum[m](where(X[..., m] == X[..., m], 1, 1))
    return T[...] / C[...]

def var(X, *, m):
    """The mean square distance from the mean, without Bessel's correction."""
    M[...] = mean[m](X[..., m])
    return mean[m](square(X[..., m] - M[...]))

def rmsnorm(X, eps=1e-6, *, e):
    """Zhang and Sennrich, arXiv 1910.07467, without the gain."""
    R[...] = mean[e](square(X[..., e]))
    return X[..., e] / sqrt(R[...] + eps)

def layernorm(X, eps=1e-5, *, e):
    """Ba, Kiros and Hinton, arXiv 1607.06450, without gain and bias."""
    M[...] = mean[e](X[..., e])
    R[...] = mean[e](square(X[..., e] - M[...]))
    return (X[..., e] - M[...]) / sqrt(R[...] + eps)

def l2norm(X, *, m):
    """X scaled to length 1; the zero vector stays zero."""
    R[...] = sum[m](square(X[..., m]))
    return X[..., m] / sqrt(R[...])
'''


def define(text: str) -> None:
    """Define shorthands, for every cascade read from now on.

    ``text`` holds one or more ``def`` in the notation; a name defined before gets a new meaning.
    Raises NotationError, RankError or SparsityError where a definition is wrong.
    """
    source, statements = parse_text(text, "<shorthand>")
    found = dict(_known)
    for statement in statements:
        if not isinstance(statement, ast.FunctionDef):
            raise NotationError("A shorthand is written as a def.", source.at(statement))
        found[statement.name] = read_shorthand(statement, source, found)
    _known.update(found)


def known() -> Mapping[str, Shorthand]:
    """Return the shorthands defined so far, by name."""
    return dict(_known)


def read_shorthand(
    node: ast.FunctionDef, source: Source, known: Mapping[str, Shorthand]
) -> Shorthand:
    """Return the shorthand that a ``def`` writes, after trying it on arguments of its own.

    Raises NotationError, RankError or SparsityError where the definition is wrong.
    """
    check_name(node.name, source.at(node))
    definition = read_definition(node, source)
    if definition.returned is None or definition.returned.value is None:
        raise NotationError(
            f"A shorthand returns a tensor or an expression; {node.name} returns nothing.",
            definition.at,
        )
    ranks = tuple(x.arg for x in definition.keywords)
    for keyword in definition.keywords:
        if keyword.arg in definition.defaults:
            raise NotationError(
                f"The names after the star are ranks and have no default; {keyword.arg} has one.",
                source.at(keyword),
            )
    tensors = _signature(definition, ranks)
    defaults = {
        name: Constant(value)
        for name, value in definition.defaults.items()
        if value is not None and name not in tensors
    }
    shorthand = Shorthand(definition, tensors, defaults, ranks, dict(known))
    _try(shorthand)
    return shorthand


def _signature(definition: Definition, ranks: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return the tensor arguments, those that are subscripted, with the ranks they are read at."""
    arguments = {x.arg for x in definition.arguments}
    returned = definition.returned
    found: dict[str, tuple[str, ...]] = {}
    for line in (*definition.lines, *((returned,) if returned else ())):
        for node in ast.walk(line):
            match node:
                case ast.Subscript(value=ast.Name(id=name), slice=index) if name in arguments:
                    inside = {x.id for x in ast.walk(index) if isinstance(x, ast.Name)}
                    at = tuple(rank for rank in ranks if rank in inside)
                    if found.setdefault(name, at) != at:
                        raise RankError(
                            f"{name} has the same ranks wherever it is read; here it has "
                            f"{_list(at)}, above {_list(found[name])}.",
                            definition.source.at(node),
                        )
    return found


def _list(ranks: Iterable[str]) -> str:
    return ", ".join(ranks) or "none of the ranks after the star"


def _try(shorthand: Shorthand) -> None:
    """Expand a shorthand on its own names, so that its faults show where they stand."""
    definition = shorthand.definition
    scalars = [x.arg for x in definition.arguments if x.arg not in shorthand.tensors]
    arguments: dict[str, Expression] = {x: Parameter(x) for x in scalars}
    for name, ranks in shorthand.tensors.items():
        arguments[name] = Access(name, tuple(RankVariable(x) for x in ("_", *ranks)))
    expansion = Expansion({x.arg for x in (*definition.arguments, *definition.keywords)})
    site = Site(definition.name, None, frozenset(), expansion)
    bound = {rank: (rank,) for rank in shorthand.ranks}
    result = instantiate(shorthand, arguments, bound, None, site, None, False)
    output = Access(
        expansion.fresh(definition.name), tuple(RankVariable(x) for x in free_ranks(result))
    )
    last = Einsum(output, result)
    places = {x.arg: definition.source.at(x) for x in definition.arguments}
    verify(
        Cascade(
            definition.name,
            tuple(shorthand.tensors),
            tuple((x, None) for x in scalars),
            (*expansion.einsums, last),
            (output.tensor,),
        ),
        places,
    )


_known: dict[str, Shorthand] = {}
define(_BUILT_IN)
