"""Verification: everything that must hold of a cascade, whoever wrote it.

``verify`` runs when notation is read and may run after every pass. What it checks:

* names: no word of the notation, no rank that is a tensor or a parameter;
* an einsum: left coordinates, operators and operands, what each rank is bound by, filters;
* the cascade: who writes a tensor, with how many ranks it is read, in which order, what is unused.

Sizes are not known here; where they disagree, ``sizes.py`` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from keyword import iskeyword
from math import isnan

from .cascade import Cascade, Einsum
from .errors import NOWHERE, LocatedError, Location, NotationError, RankError, SparsityError
from .expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Parameter,
    Populate,
    RankVariable,
    Reduce,
    Size,
    accesses,
    children,
    free_ranks,
)
from .notation_words import check_arity, check_name, suggestion
from .operators import OPERATORS, REDUCERS, SELECTORS
from .show import show_expression
from .verify_order import check_order


def verify(cascade: Cascade, places: Mapping[str, Location] | None = None) -> Cascade:
    """Return the cascade if it is one; ``places`` says where its inputs and outputs are named.

    Raises RankError where ranks or tensors disagree, SparsityError where a filter is none or
    constrains what is not there, NotationError where an operator does not exist or lacks operands.
    """
    places = places or {}
    if not cascade.einsums:
        raise NotationError(
            f"A cascade has an einsum, 'T[ranks] = expression'; {cascade.name} has none.",
            places.get(cascade.name, NOWHERE),
        )
    _check_names(cascade, places)
    for einsum in cascade.einsums:
        _check_left(einsum)
        _check_right(einsum)
        _check_binding(einsum)
        _check_filters(einsum)
    counts: Counts = {
        e.name: (len(e.output.coordinates), e.output.at) for e in cascade.einsums[::-1]
    }
    for einsum in cascade.einsums:
        check_rank_counts(einsum, counts)
    check_order(cascade)
    _check_use(cascade, places)
    return cascade


def _check_names(cascade: Cascade, places: Mapping[str, Location]) -> None:
    written = {e.name: e.output.at for e in reversed(cascade.einsums)}
    declared = [*cascade.inputs, *(name for name, _ in cascade.parameters)]
    for name in (*declared, *written):
        at = written.get(name, places.get(name, NOWHERE))
        if not name.isidentifier() or iskeyword(name):
            raise NotationError(f"A name is one word; {name!r} is none.", at)
        check_name(name, at)
        if declared.count(name) > 1:
            raise RankError(f"{name} is declared twice.", places.get(name, at))
    for name in declared:
        if name in written:
            what = "an argument" if name in cascade.inputs else "a parameter"
            raise RankError(
                f"{name} is {what} and is written here; give the tensor another name.",
                written[name],
            )
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            for rank in _ranks_of(x):
                check_name(rank, x.at)
                if rank in declared or rank in written:
                    what = "parameter" if rank in dict(cascade.parameters) else "tensor"
                    raise RankError(f"A rank has a name of its own; {rank} is a {what} too.", x.at)
    ranks = {rank for e in cascade.einsums for x in e.expressions() for rank in _ranks_of(x)}
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            if isinstance(x, Parameter) and x.name not in declared:
                raise RankError(
                    f"{x.name} is no parameter of {cascade.name}"
                    f"{suggestion(x.name, declared) or '.'}",
                    x.at,
                )
            if isinstance(x, Size) and x.rank not in ranks:
                raise RankError(
                    f"size({x.rank}) asks for a rank, and no tensor has a rank {x.rank}"
                    f"{suggestion(x.rank, ranks) or '.'}",
                    x.at,
                )


def _ranks_of(x: Expression) -> tuple[str, ...]:
    match x:
        case RankVariable(rank=rank) | Populate(rank=rank) | Concatenate(rank=rank):
            return (rank,)
        case Reduce(ranks=ranks):
            return ranks
        case _:
            return ()


def _check_left(einsum: Einsum) -> None:
    seen: set[str] = set()
    for coordinate in einsum.output.coordinates:
        match coordinate:
            case RankVariable(rank=rank) | Apply("+", (RankVariable(rank=rank), Constant(value=1))):
                if rank in seen:
                    raise RankError(
                        f"Every rank of {einsum.name} is another one; {rank} stands there twice.",
                        coordinate.at,
                    )
                seen.add(rank)
            case Size() | Constant(value=int()):
                pass
            case _:
                raise RankError(
                    f"A coordinate on the left is a rank, or i + 1, 0 or size(i) of an iterative "
                    f"one; {show_expression(coordinate)} found.",
                    coordinate.at,
                )


def _check_right(einsum: Einsum) -> None:
    for x in einsum.expressions():
        match x:
            case Constant(value=value) if isnan(value):
                raise NotationError("A number is finite or inf; this one is NaN.", x.at)
            case Apply(operator=operator, operands=operands):
                if operator not in OPERATORS:
                    raise NotationError(
                        f"{operator!r} is no operator{suggestion(operator, OPERATORS) or '.'}", x.at
                    )
                check_arity(operator, len(operands), x.at)
                if operator == "in" and not isinstance(operands[1], Access):
                    raise RankError(
                        "Membership is asked of a list-valued tensor, m in T[p]; "
                        f"{show_expression(operands[1])} is none.",
                        operands[1].at,
                    )
            case Reduce(reducer=reducer, ranks=ranks):
                if reducer not in REDUCERS:
                    raise NotationError(
                        f"{reducer!r} is no reduction{suggestion(reducer, REDUCERS) or '.'}", x.at
                    )
                if not ranks or len(set(ranks)) < len(ranks):
                    raise RankError(
                        f"{reducer} takes one rank or more, each once; "
                        f"{', '.join(ranks) or 'none'} given.",
                        x.at,
                    )
            case Populate(selector=selector) if selector not in SELECTORS:
                raise NotationError(
                    f"{selector!r} is no selection{suggestion(selector, SELECTORS) or '.'}", x.at
                )
            case Populate() | Concatenate() if x is not einsum.body:
                word = x.selector if isinstance(x, Populate) else "concat"
                raise NotationError(
                    f"{word}[...] is the whole right side of an einsum; here it stands inside an "
                    "expression. Give it an einsum of its own.",
                    x.at,
                )


def _check_binding(einsum: Einsum) -> None:
    """Check that every rank is the output's or taken by one reduction, never by two."""
    kept = frozenset(einsum.ranks)
    if isinstance(einsum.body, Concatenate):
        _check_concatenation(einsum, einsum.body)
        return
    if isinstance(einsum.body, Populate):
        _check_selection(einsum, einsum.body)
    _visit(einsum.body, einsum, kept, RankError)


def _visit(x: Expression, einsum: Einsum, bound: frozenset[str], error: type[LocatedError]) -> None:
    match x:
        case RankVariable(rank=rank) if rank not in bound:
            if error is SparsityError:
                raise SparsityError(
                    f"A filter constrains ranks that are there; {einsum.name} has the ranks "
                    f"{', '.join(einsum.ranks) or '()'}, and not {rank}.",
                    x.at,
                )
            raise RankError(
                f"{rank} is neither on the left of {einsum.name} nor reduced on the right.", x.at
            )
        case Reduce(ranks=ranks):
            word = f"{x.reducer}[{', '.join(ranks)}]"
            _check_taken(x, ranks, word, einsum, bound)
            inner = bound | set(ranks)
            _visit(x.body, einsum, inner, error)
            if x.filter is not None:
                _visit(x.filter, einsum, inner, SparsityError)
        case Populate(rank=rank):
            _check_taken(x, (rank,), f"{x.selector}[{rank}]", einsum, bound)
            inner = bound | {rank}
            _visit(x.argument, einsum, bound, error)
            _visit(x.body, einsum, inner, error)
            for mark in (x.forced, x.forbidden):
                if mark is not None:
                    _visit(mark, einsum, inner, SparsityError)
        case _:
            for child in children(x):
                _visit(child, einsum, bound, error)


def _check_taken(
    x: Reduce | Populate, ranks: tuple[str, ...], word: str, einsum: Einsum, bound: frozenset[str]
) -> None:
    occurring = {rank for child in _within(x) for rank in free_ranks(child)}
    for rank in ranks:
        if rank in einsum.ranks:
            raise RankError(
                f"{einsum.name} keeps its rank {rank}, so {word} cannot take it away. Drop {rank} "
                "on the left, or give the reduction an einsum of its own.",
                x.at,
            )
        if rank in bound:
            raise RankError(
                f"{rank} is taken once; {word} stands inside another reduction over {rank}. "
                "Give it an einsum of its own.",
                x.at,
            )
        if rank not in occurring:
            raise RankError(
                f"{word} takes a rank of what it reduces; {rank} does not occur in "
                f"{show_expression(x.body)}.",
                x.at,
            )


def _within(x: Reduce | Populate) -> tuple[Expression, ...]:
    extra = (x.filter,) if isinstance(x, Reduce) else ()
    return (x.body, *(y for y in extra if y is not None))


def _check_selection(einsum: Einsum, body: Populate) -> None:
    if body.rank in einsum.ranks:
        return
    marks = [x for x in (body.forced, body.forbidden) if x is not None]
    inside = {rank for x in (body.body, *marks) for rank in free_ranks(x)}
    lists = [rank for rank in einsum.ranks if rank not in inside]
    if len(lists) != 1:
        raise RankError(
            f"{body.selector} writes a list, and {einsum.name} has one rank for it that is not in "
            f"{show_expression(body.body)}; {', '.join(lists) or 'none'} found.",
            einsum.output.at,
        )
    if lists[0] in free_ranks(body.argument):
        raise RankError(
            f"{lists[0]} is the rank of the list that {body.selector} writes, so its coordinate "
            f"is not known beside it; here stands a number or a parameter.",
            body.argument.at,
        )


def _check_concatenation(einsum: Einsum, body: Concatenate) -> None:
    kept = set(einsum.ranks)
    if len(body.parts) < 2:
        raise NotationError("concat takes two tensors or more.", body.at)
    if body.rank not in kept:
        raise RankError(
            f"concat makes the rank {body.rank}, and {einsum.name} has no rank {body.rank} on the "
            "left.",
            body.at,
        )
    owners: set[str] = set()
    for part in body.parts:
        ranks = free_ranks(part)
        own = [rank for rank in ranks if rank not in kept or rank in owners]
        missing = [r for r in einsum.ranks if r != body.rank and r not in ranks]
        fits = len(own) == 1 and own[0] not in owners and body.rank not in ranks and not missing
        plain = isinstance(part, Access) and RankVariable("".join(own)) in part.coordinates
        if not (fits and plain):
            others = ", ".join(r for r in einsum.ranks if r != body.rank) or "()"
            found = ", ".join(ranks) or "()"
            raise RankError(
                f"Each part of a concatenation is a tensor with the ranks {others} and one of its "
                f"own that becomes {body.rank}; {show_expression(part)} has {found}.",
                part.at,
            )
        owners.add(own[0])
        _visit(part, einsum, frozenset(kept - {body.rank} | {own[0]}), RankError)


def _check_filters(einsum: Einsum) -> None:
    if einsum.filter is not None:
        if not einsum.output.coordinates:
            raise SparsityError(
                f"A filter stands on a rank; {einsum.name} has none.", einsum.filter.at
            )
        _visit(einsum.filter, einsum, frozenset(einsum.ranks), SparsityError)
    for condition in _conditions(einsum):
        number = _number_in(condition)
        if number is not None:
            raise SparsityError(
                f"A filter is a condition, true or false; {show_expression(number)} is a number. "
                "Compare it with one.",
                number.at,
            )


def _conditions(einsum: Einsum) -> Iterator[Expression]:
    if einsum.filter is not None:
        yield einsum.filter
    for x in einsum.expressions():
        if isinstance(x, Reduce) and x.filter is not None:
            yield x.filter
        if isinstance(x, Populate):
            yield from (mark for mark in (x.forced, x.forbidden) if mark is not None)


def _number_in(condition: Expression) -> Expression | None:
    """Return the part of a condition that is a number for sure, None if there is none."""
    match condition:
        case Apply(operator="and" | "or" | "not" | "default", operands=parts):
            pass
        case Apply(operator="where", operands=(_, *rest)):
            parts = tuple(rest)
        case Apply(operator=operator):
            return None if OPERATORS[operator].boolean else condition
        case Reduce(reducer="any" | "all") | Access() | Parameter() | Constant(value=bool()):
            return None
        case _:
            return condition
    return next((x for part in parts if (x := _number_in(part)) is not None), None)


Counts = dict[str, tuple[int, Location]]
"""Of each tensor, its number of ranks and where that is said."""


def check_rank_counts(einsum: Einsum, counts: Counts) -> None:
    """Enter the numbers of ranks that an einsum says; raise RankError where they disagree."""
    for access, count in _counted(einsum):
        expected, at = counts.setdefault(access.tensor, (count, access.at))
        if count == expected:
            continue
        given, whole = len(access.coordinates), count > len(access.coordinates)
        rule = f"{access.tensor} has {expected} ranks"
        if whole:
            rule += f", so one of its lists is named by {expected - 1}"
        error = RankError(f"{rule}; {given} given.", access.at)
        if at != NOWHERE:
            error.add_note(f"{access.tensor} has {expected} ranks here: {at}")
        raise error


def _counted(einsum: Einsum) -> Iterator[tuple[Access, int]]:
    """Yield every access with the number of ranks that it says its tensor has.

    A list read whole, ``m in T[p]``, leaves out the last rank.
    """
    yield einsum.output, len(einsum.output.coordinates)
    fibers = [
        x.operands[1] for x in einsum.expressions() if isinstance(x, Apply) and x.operator == "in"
    ]
    roots = (einsum.body,) if einsum.filter is None else (einsum.body, einsum.filter)
    for root in (*einsum.output.coordinates, *roots):
        for access in accesses(root):
            whole = any(access is x for x in fibers)
            yield access, len(access.coordinates) + (1 if whole else 0)


def _check_use(cascade: Cascade, places: Mapping[str, Location]) -> None:
    read = {name for einsum in cascade.einsums for name in einsum.reads}
    written = {einsum.name for einsum in cascade.einsums}
    for name in cascade.inputs:
        if name not in read:
            raise RankError(
                f"Every argument is read; nothing reads {name}.", places.get(name, NOWHERE)
            )
    if not cascade.outputs:
        raise RankError(f"{cascade.name} returns a tensor; it returns none.")
    for name in cascade.outputs:
        if name not in written:
            raise RankError(
                f"return names tensors that an einsum writes; {name} is none"
                f"{suggestion(name, written) or '.'}",
                places.get(f"return {name}", NOWHERE),
            )
        if cascade.outputs.count(name) > 1:
            raise RankError(
                f"A tensor is returned once; {name} is returned twice.",
                places.get(f"return {name}", NOWHERE),
            )
