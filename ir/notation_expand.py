"""Expanding shorthands: a call becomes the einsums of its definition, with the caller's names.

Called by the reader of a line, and by itself where one shorthand uses another. What a shorthand is,
and how one is defined, is said in ``shorthand.py``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .cascade import Einsum
from .errors import Location, NotationError, RankError, SparsityError
from .expression import (
    Access,
    Apply,
    Constant,
    Expression,
    RankVariable,
    Reduce,
    Size,
    free_ranks,
    substitute,
    walk,
)
from .notation_def import Definition
from .notation_expression import (
    Names,
    bracket,
    read,
    read_access,
    read_bracket,
    read_filters,
    split_filter,
)
from .notation_sum import sum_implicitly
from .notation_words import check_name
from .show import show_expression


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
    return instantiate(shorthand, arguments, bound, condition, site, at, whole)


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


def instantiate(
    shorthand: Shorthand,
    arguments: Mapping[str, Expression],
    bound: Mapping[str, tuple[str, ...]],
    condition: Expression | None,
    site: Site,
    at: Location | None,
    whole: bool,
) -> Expression:
    """Return what a shorthand stands for on given arguments, after writing its einsums.

    ``at`` is the call's place; without one, places are those of the definition.
    """
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
