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
from dataclasses import dataclass, field

from .cascade import Cascade, Einsum
from .errors import Location, NotationError, RankError, SparsityError
from .expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    substitute,
    walk,
)
from .notation_def import Definition, read_definition
from .notation_expression import (
    Names,
    bracket,
    read,
    read_access,
    read_bracket,
    read_filters,
    split_filter,
)
from .notation_source import Source, parse_text
from .notation_sum import sum_implicitly
from .notation_words import check_name
from .show import show_expression
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
    """Over the points that exist; over nothing it is 0."""
    T[...] = sum[m](X[..., m])
    C[...] = sum[m](where(True, 1, X[..., m]))
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


@dataclass(frozen=True, slots=True, eq=False)
class Shorthand:
    """A shorthand as defined; ``known`` are the ones that its own lines may use.

    tensors : of each tensor argument, the ranks after the star that it is read at.
    defaults : of each scalar argument that has one.
    """

    definition: Definition
    tensors: Mapping[str, tuple[str, ...]]
    defaults: Mapping[str, Constant]
    ranks: tuple[str, ...]
    known: Mapping[str, Shorthand]

    @property
    def name(self) -> str:
        """The name it is called by."""
        return self.definition.name


@dataclass(slots=True)
class Expansion:
    """What shorthands have written so far: einsums, the names in use, and what they returned."""

    taken: set[str]
    einsums: list[Einsum] = field(default_factory=list)
    results: list[Expression] = field(default_factory=list)

    def fresh(self, name: str) -> str:
        """Return the name, numbered from 2 where it is in use."""
        number, found = 2, name
        while found in self.taken:
            found, number = f"{name}{number}", number + 1
        self.taken.add(found)
        return found


@dataclass(frozen=True, slots=True)
class Site:
    """Where a shorthand is called: ``base`` begins the names of the tensors that it writes.

    kept : the ranks on the left and those of reductions outside; None where anything goes.
    filtered : ranks that a filter outside removes points of.
    """

    base: str
    kept: frozenset[str] | None
    filtered: frozenset[str]
    expansion: Expansion


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


def expand(
    shorthand: Shorthand, node: ast.Call, names: Names, site: Site, whole: bool
) -> Expression:
    """Return what a call stands for, after writing the einsums that it needs to the expansion.

    ``whole``: the call is the whole right side of an einsum, which may then be the last one.
    Raises NotationError for wrong arguments, RankError for wrong ranks, and SparsityError where a
    filter outside takes points away from a rank that the shorthand reads as a whole.
    """
    at = names.at(node)
    index = bracket(node.func.slice) if isinstance(node.func, ast.Subscript) else ()
    ranks, filters = read_bracket(index, names)
    bound = _bind_ranks(shorthand, ranks, at)
    inner = names.inside(ranks, filters) if ranks else names
    arguments = _bind_arguments(shorthand, node, inner)
    _check_call(shorthand, arguments, bound, site, node, at)
    condition = read_filters(filters, inner)
    return _instantiate(shorthand, arguments, bound, condition, site, at, whole)


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
    result = _instantiate(shorthand, arguments, bound, None, site, None, False)
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


def _bind_ranks(
    shorthand: Shorthand, given: tuple[str, ...], at: Location
) -> dict[str, tuple[str, ...]]:
    name, formal = shorthand.name, shorthand.ranks
    if len(set(given)) < len(given):
        raise RankError(f"{name} takes each rank once; {', '.join(given)} given.", at)
    if len(formal) == 1 and given:
        return {formal[0]: given}
    if len(formal) != len(given):
        if not formal:
            raise NotationError(f"{name} works point by point and takes no rank: {name}(...).", at)
        raise NotationError(
            f"{name} takes its ranks in brackets, {name}[{', '.join(formal)}](...); "
            f"{', '.join(given) or 'none'} given.",
            at,
        )
    return {rank: (actual,) for rank, actual in zip(formal, given, strict=True)}


def _bind_arguments(shorthand: Shorthand, node: ast.Call, names: Names) -> dict[str, Expression]:
    formal = [x.arg for x in shorthand.definition.arguments]
    listing = f"{shorthand.name}({', '.join(formal)})"
    if len(node.args) > len(formal):
        raise NotationError(
            f"The arguments of a shorthand are {listing}; {len(node.args)} given.", names.at(node)
        )
    found = {name: read(value, names) for name, value in zip(formal, node.args, strict=False)}
    for keyword in node.keywords:
        if keyword.arg not in formal or keyword.arg in found:
            said = "twice" if keyword.arg in found else "unknown"
            raise NotationError(
                f"The arguments of a shorthand are {listing}; {keyword.arg or '**'} is {said}.",
                names.at(keyword),
            )
        found[keyword.arg] = read(keyword.value, names)
    for name in formal:
        if name not in found and name not in shorthand.defaults:
            raise NotationError(
                f"The arguments of a shorthand are {listing}; {name} is missing.", names.at(node)
            )
    return {name: found.get(name, shorthand.defaults.get(name, Constant(0))) for name in formal}


def _check_call(
    shorthand: Shorthand,
    arguments: Mapping[str, Expression],
    bound: Mapping[str, tuple[str, ...]],
    site: Site,
    node: ast.Call,
    at: Location,
) -> None:
    taken = {rank for ranks in bound.values() for rank in ranks}
    for name, formal in shorthand.tensors.items():
        for rank in (actual for x in formal for actual in bound[x]):
            if rank not in free_ranks(arguments[name]):
                raise RankError(
                    f"{shorthand.name} runs over {rank}, and "
                    f"{show_expression(arguments[name])} has no rank {rank}.",
                    at,
                )
    for rank in sorted(taken & site.filtered):
        raise SparsityError(
            f"{shorthand.name} runs over all {rank}, and the filter outside would cut its result "
            f"only afterwards. Filter what it reads: {shorthand.name}[{rank}: ...](...).",
            at,
        )
    if site.kept is None or not taken:
        return
    for argument in arguments.values():
        for rank in free_ranks(argument):
            if rank not in site.kept and rank not in taken:
                call = ast.unparse(node)
                head = f"{shorthand.name}[{', '.join(x for y in bound.values() for x in y)}]"
                raise RankError(
                    f"{rank} is to be summed, and it stands inside {head}, so the sum is written "
                    f"out: sum[{rank}]({call}) or "
                    f"{head}(sum[{rank}]({show_expression(argument)})).",
                    at,
                )


def _instantiate(
    shorthand: Shorthand,
    arguments: Mapping[str, Expression],
    bound: Mapping[str, tuple[str, ...]],
    condition: Expression | None,
    site: Site,
    at: Location | None,
    whole: bool,
) -> Expression:
    definition = shorthand.definition
    place = at or definition.at
    given = {
        name: _named(x, name, shorthand, bound, condition, site, place)
        if name in shorthand.tensors
        else x
        for name, x in arguments.items()
    }
    body = _Body(shorthand, given, bound, site, at)
    taken = {rank for ranks in bound.values() for rank in ranks}
    assert definition.returned is not None and definition.returned.value is not None
    returned = definition.returned.value
    for number, line in enumerate(definition.lines):
        output, value, filter = _read_line(line, body, taken)
        last = number == len(definition.lines) - 1
        if last and isinstance(returned, ast.Name) and returned.id == _target(line):
            ranks = tuple(r for c in output.coordinates for r in free_ranks(c))
            if filter is None and whole and _may_stand(value, site):
                return _result(value, site)
            return _write(output.tensor, ranks, value, filter, site, place)
        site.expansion.einsums.append(Einsum(output, value, filter, place))
    if isinstance(returned, ast.Name) and returned.id in body.locals:
        local = body.locals[returned.id]
        return Access(local.tensor, tuple(RankVariable(x, place) for x in local.ranks), place)
    value = read(returned, body)
    reduces = any(isinstance(x, Reduce) for x in walk(value))
    if reduces and not (whole and _may_stand(value, site)):
        name = site.expansion.fresh(f"{site.base}_{shorthand.name}")
        return _write(name, free_ranks(value), value, None, site, place)
    return _result(value, site)


def _may_stand(value: Expression, site: Site) -> bool:
    """Say whether ``value`` may be the caller's right side: it reduces no rank of the left."""
    reduced = {rank for x in walk(value) if isinstance(x, Reduce) for rank in x.ranks}
    return site.kept is not None and not reduced & site.kept


def _result(value: Expression, site: Site) -> Expression:
    site.expansion.results.append(value)
    return value


def _write(
    name: str,
    ranks: tuple[str, ...],
    value: Expression,
    filter: Expression | None,
    site: Site,
    at: Location,
) -> Access:
    access = Access(name, tuple(RankVariable(x, at) for x in ranks), at)
    site.expansion.einsums.append(Einsum(access, value, filter, at))
    return access


def _named(
    argument: Expression,
    formal: str,
    shorthand: Shorthand,
    bound: Mapping[str, tuple[str, ...]],
    condition: Expression | None,
    site: Site,
    at: Location,
) -> Expression:
    """Return the argument as a plain access, written first where it is anything else."""
    if not shorthand.ranks:
        return argument
    ranks = free_ranks(argument)
    taken = {actual for x in shorthand.tensors[formal] for actual in bound[x]}
    if condition is not None and taken & set(free_ranks(condition)):
        ranks = tuple(dict.fromkeys((*ranks, *free_ranks(condition))))
    else:
        condition = None
        if _is_plain(argument) or not ranks:
            return argument
    name = site.expansion.fresh(f"{site.base}_{formal}")
    return _write(name, ranks, argument, condition, site, at)


def _is_plain(x: Expression) -> bool:
    if not isinstance(x, Access):
        return False
    ranks = [c.rank for c in x.coordinates if isinstance(c, RankVariable)]
    return len(set(ranks)) == len(x.coordinates)


def _target(line: ast.Assign) -> str:
    target = line.targets[0]
    name = target.value if isinstance(target, ast.Subscript) else target
    assert isinstance(name, ast.Name)
    return name.id


def _read_line(
    line: ast.Assign, body: _Body, taken: set[str]
) -> tuple[Access, Expression, Expression | None]:
    """Return one line with its names replaced, and enter its tensor among the locals."""
    target, local = line.targets[0], _target(line)
    definition, at = body.owner.definition, body.at(line.targets[0])
    check_name(local, at)
    if local in (*body.given, *body.bound, *body.locals):
        raise RankError(f"{local} is written once in a shorthand; here it is written again.", at)
    elements = bracket(target.slice) if isinstance(target, ast.Subscript) else ()
    dots = [i for i, x in enumerate(elements) if _is_dots(x)]
    if len(dots) != 1:
        raise RankError(
            f"{local} carries the ranks that come along: {definition.name} writes {local}[...] or "
            f"{local}[..., m].",
            at,
        )
    value = read(line.value, body, whole=True)
    batch = tuple(rank for rank in free_ranks(value) if rank not in taken)
    coordinates: list[Expression] = []
    filters: list[ast.expr] = []
    for element in elements:
        rank, filter = split_filter(element, body)
        filters += [] if filter is None else [filter]
        if _is_dots(rank):
            coordinates += [RankVariable(x, at) for x in batch]
        else:
            coordinates += [RankVariable(x, at) for x in body.ranks(rank)]
    ranks = tuple(r for c in coordinates for r in free_ranks(c))
    name = body.site.expansion.fresh(f"{body.site.base}_{local}")
    value = sum_implicitly(value, ranks, body.site.expansion.results)
    condition = read_filters(filters, body)
    body.locals[local] = _Local(name, ranks, dots[0])
    return Access(name, tuple(coordinates), at), value, condition


def _is_dots(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


@dataclass(frozen=True, slots=True)
class _Local:
    """A tensor that a shorthand writes: its real name and ranks, and where ``...`` stands."""

    tensor: str
    ranks: tuple[str, ...]
    dots: int


@dataclass(frozen=True, slots=True)
class _Body:
    """What names mean in the lines of a shorthand that is being expanded."""

    owner: Shorthand
    given: Mapping[str, Expression]
    bound: Mapping[str, tuple[str, ...]]
    site: Site
    place: Location | None
    locals: dict[str, _Local] = field(default_factory=dict)

    def at(self, node: ast.expr | ast.stmt | ast.keyword) -> Location:
        return self.place or self.owner.definition.source.at(node)

    def bare(self, node: ast.Name) -> Expression:
        name = node.id
        if name in self.bound:
            if len(self.bound[name]) > 1:
                raise RankError(
                    f"{self.owner.name} reads {name} as a number, so it takes one rank; "
                    f"{', '.join(self.bound[name])} given.",
                    self.at(node),
                )
            return RankVariable(self.bound[name][0], self.at(node))
        if name in self.given and name not in self.owner.tensors:
            return self.given[name]
        if name in self.given or name in self.locals:
            raise RankError(f"{name} is a tensor and is read as {name}[...].", self.at(node))
        raise self._unknown(name, self.at(node))

    def access(self, node: ast.Subscript, tensor: str) -> Expression:
        if tensor in self.locals:
            return self._local(node, self.locals[tensor])
        if tensor not in self.owner.tensors:
            raise self._unknown(tensor, self.at(node))
        argument = self.given[tensor]
        moves: dict[str, Expression] = {}
        for element in bracket(node.slice):
            if _is_dots(element):
                continue
            if isinstance(element, ast.Name) and element.id in self.bound:
                continue
            moved = read(element, self)
            ranks = free_ranks(moved)
            if len(ranks) != 1:
                raise RankError(
                    f"A coordinate of {tensor} moves one of its ranks, m - 1 say; "
                    f"{ast.unparse(element)} found.",
                    self.at(element),
                )
            moves[ranks[0]] = moved
        return substitute(argument, moves) if moves else argument

    def _local(self, node: ast.Subscript, local: _Local) -> Expression:
        taken = {actual for actuals in self.bound.values() for actual in actuals}
        batch = tuple(RankVariable(x, self.at(node)) for x in local.ranks if x not in taken)
        if local.dots not in (i for i, x in enumerate(bracket(node.slice)) if _is_dots(x)):
            raise RankError(
                f"The ranks of a tensor have one order; {ast.unparse(node)} has '...' elsewhere "
                "than where it is written.",
                self.at(node),
            )

        def coordinate(element: ast.expr) -> tuple[Expression, ...]:
            if isinstance(element, ast.Name) and element.id in self.bound:
                return tuple(RankVariable(x, self.at(element)) for x in self.bound[element.id])
            return (read(element, self),)

        return read_access(node, local.tensor, self, batch, coordinate)

    def ranks(self, node: ast.expr) -> tuple[str, ...]:
        if isinstance(node, ast.Name) and node.id in self.bound:
            return self.bound[node.id]
        raise RankError(
            f"The ranks of {self.owner.name} stand after its star; {ast.unparse(node)} does not.",
            self.at(node),
        )

    def size(self, node: ast.Name) -> Expression:
        sizes: list[Expression] = [Size(x, self.at(node)) for x in self.ranks(node)]
        product = sizes[0]
        for size in sizes[1:]:
            product = Apply("*", (product, size), self.at(node))
        return product

    def inside(self, ranks: tuple[str, ...], filters: tuple[ast.expr, ...]) -> _Body:
        return self

    def filtering(self) -> _Body:
        return self

    def shorthand(self, node: ast.Call, name: str, whole: bool) -> Expression | None:
        found = self.owner.known.get(name)
        return None if found is None else expand(found, node, self, self.site, whole)

    def shorthands(self) -> Iterable[str]:
        return self.owner.known

    def _unknown(self, name: str, at: Location) -> RankError:
        return RankError(
            f"A shorthand reads its arguments and what it writes; {name} is neither. Make it an "
            f"argument of {self.owner.name}.",
            at,
        )


_known: dict[str, Shorthand] = {}
define(_BUILT_IN)
