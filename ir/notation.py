"""The notation: text, a file or a Python function in, a cascade out.

::

    def attention(Q, K, V, *, W=1024):
        S[p, m: p - W < m <= p] = Q[p, e] * K[m, e] / sqrt(size(e))
        A[p, m] = softmax[m](S[p, m])
        O[p, f] = A[p, m] * V[m, f]
        return O

* Arguments before the star are tensors, or scalar parameters if they are never subscripted; those
  after it are parameters. A free name that is no rank is a parameter too.
* Without a ``def``, tensors read and never written are the inputs, in order of first reading.
* Without a ``return``, the output is the one tensor that nothing reads.
* An input may be declared ``Blocks: unique``: a list read from it, ``m in Blocks[p]``, holds no
  coordinate twice. Without that it is a set all the same, which costs a kernel that finds out.
* Every ``def`` above the last one is a shorthand, local to the text.

The text is a part of Python's grammar and is never executed. How a line is read is said in
``notation_expression.py``, which sums are implicit in ``notation_sum.py``, and shorthands in
``shorthand.py``. ``str(cascade)`` gives text that reads back as the same cascade.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from .cascade import Cascade, Einsum, Scalar
from .errors import LocatedError, Location, NotationError, RankError, SparsityError
from .expression import Access, Expression, Parameter, RankVariable, Size, free_ranks
from .notation_def import Definition, read_definition, read_lines
from .notation_expand import Expansion, Shorthand, Site, expand
from .notation_expression import bracket, read, read_access, read_filters, split_filter
from .notation_source import Source, parse_file, parse_function, parse_text
from .notation_sum import sum_implicitly
from .notation_words import RESERVED, check_name, suggestion
from .operators import REDUCERS, SELECTORS
from .shorthand import known, read_shorthand
from .verify import Counts, check_rank_counts, verify


def cascade(source: str | os.PathLike[str] | Callable[..., object]) -> Cascade:
    """Read a cascade from notation.

    ``source`` is the text itself; a path (a ``Path``, or a string of one line that ends in
    ``.einsum``); or a Python function whose body is the notation, also as a decorator. A function
    is read, never executed.

    Raises NotationError where the text is no notation, RankError where ranks or tensors disagree,
    and SparsityError where a filter contradicts the mathematics; each points at the characters.
    """
    try:
        return _cascade(source)
    except (RecursionError, MemoryError):  # Python's parser gives up with either
        raise NotationError(
            "An expression is nested too deep to be read; give parts of it einsums of their own."
        ) from None


def _cascade(source: str | os.PathLike[str] | Callable[..., object]) -> Cascade:
    if isinstance(source, os.PathLike):
        return _read(*parse_file(source))
    if isinstance(source, str):
        is_path = source.endswith(".einsum") and "\n" not in source
        return _read(*(parse_file(source) if is_path else parse_text(source)))
    if callable(source):
        places, statements = parse_function(source)
        return _read(places, statements, decorated=True)
    raise NotationError(
        f"A cascade is read from text, a path or a function; {type(source).__name__} given."
    )


def _read(source: Source, statements: list[ast.stmt], decorated: bool = False) -> Cascade:
    text = _split(source, statements, decorated)
    shorthands = dict(known())
    for node in text.shorthands:
        shorthands[node.name] = read_shorthand(node, source, shorthands)
    context = _context(text, shorthands)
    einsums = context.expansion.einsums
    for line in text.lines:
        # Shorthands in the line write their own einsums first.
        einsums.append(_read_line(line, context))
    parameters: dict[str, Scalar | None] = dict(context.parameters)
    for einsum in einsums:
        for x in einsum.expressions():
            if isinstance(x, Parameter):
                parameters.setdefault(x.name, None)
    found = Cascade(
        text.name,
        _inputs_read(einsums) if context.inputs is None else context.inputs,
        tuple(parameters.items()),
        tuple(einsums),
        _outputs(text, einsums),
        () if text.definition is None else text.definition.unique,
    )
    return verify(found, text.places())


@dataclass(frozen=True, slots=True)
class _Text:
    """The parts of a text: shorthands, then a ``def`` or bare lines."""

    source: Source
    name: str
    shorthands: tuple[ast.FunctionDef, ...]
    definition: Definition | None
    lines: tuple[ast.Assign, ...]
    returned: ast.Return | None

    def returns(self) -> tuple[ast.expr, ...]:
        """Return what stands behind ``return``."""
        if self.returned is None or self.returned.value is None:
            return ()
        return bracket(self.returned.value)

    def places(self) -> dict[str, Location]:
        """Return where arguments are declared and outputs named, for errors about them."""
        found = {
            f"return {x.id}": self.source.at(x) for x in self.returns() if isinstance(x, ast.Name)
        }
        if self.definition is not None:
            found[self.name] = self.definition.at
            for x in (*self.definition.arguments, *self.definition.keywords):
                found[x.arg] = self.source.at(x)
        return found


def _split(source: Source, statements: list[ast.stmt], decorated: bool) -> _Text:
    match statements:
        case [ast.Expr(value=ast.Constant(value=str())), *rest] if rest:
            statements = rest
    definitions: list[ast.FunctionDef] = []
    for statement in statements:
        if not isinstance(statement, ast.FunctionDef):
            break
        definitions.append(statement)
        if statement.decorator_list and not decorated:
            raise NotationError(
                "A def in a text has no decorator.", source.at(statement.decorator_list[0])
            )
    bare = statements[len(definitions) :]
    if bare:
        lines, returned = read_lines(bare, source)
        return _Text(source, "cascade", tuple(definitions), None, lines, returned)
    if not definitions:
        raise NotationError("A cascade has an einsum, 'T[ranks] = expression'; the text has none.")
    *shorthands, last = definitions
    whole = read_definition(last, source)
    return _Text(source, last.name, tuple(shorthands), whole, whole.lines, whole.returned)


@dataclass(frozen=True, slots=True)
class _Context:
    """What the names of a text are, found before any line is read.

    inputs : the tensor arguments, None without a ``def``: then any tensor may be one.
    written : the tensors that lines write, with their number of ranks.
    read : the tensors that stand before brackets on the right.
    ranks : the ranks of any line.
    """

    source: Source
    name: str
    inputs: tuple[str, ...] | None
    parameters: Mapping[str, Scalar | None]
    written: Mapping[str, int]
    read: frozenset[str]
    ranks: frozenset[str]
    shorthands: Mapping[str, Shorthand]
    expansion: Expansion
    counts: Counts = field(default_factory=dict)

    def tensors(self) -> Iterator[str]:
        """Yield the names that are tensors."""
        yield from self.inputs or ()
        yield from self.written
        yield from sorted(self.read)


def _context(text: _Text, shorthands: Mapping[str, Shorthand]) -> _Context:
    written: dict[str, int] = {}
    for line in text.lines:
        name, elements = _target(line)
        written.setdefault(name, len(elements))
    subscripted: set[str] = set()
    bare: set[str] = set()
    for line in text.lines:
        _sort_names(line, subscripted, bare)
    inputs: list[str] | None = None
    parameters: dict[str, Scalar | None] = {}
    if text.definition is not None:
        inputs = []
        defaults = text.definition.defaults
        for argument in text.definition.arguments:
            name = argument.arg
            if name in subscripted or name not in bare:
                if name in defaults:
                    raise NotationError(
                        f"A tensor has no default; {name} is one. Only scalars have.",
                        text.source.at(argument),
                    )
                inputs.append(name)
            else:
                parameters[name] = defaults.get(name)
        for argument in text.definition.keywords:
            parameters[argument.arg] = defaults.get(argument.arg)
    others = {*parameters, *written, *(inputs or ()), *(subscripted - set(parameters))}
    ranks = frozenset(rank for line in text.lines for rank in _every_rank(line)) - others
    taken = {*others, *bare, *ranks}
    return _Context(
        text.source,
        text.name,
        None if inputs is None else tuple(inputs),
        parameters,
        written,
        frozenset(subscripted),
        ranks,
        shorthands,
        Expansion(taken),
    )


def _target(line: ast.Assign) -> tuple[str, tuple[ast.expr, ...]]:
    match line.targets[0]:
        case ast.Subscript(value=ast.Name(id=name), slice=index):
            return name, bracket(index)
        case ast.Name(id=name):
            return name, ()
    raise AssertionError("read_lines lets only names and subscripts through")


def _sort_names(node: ast.AST, subscripted: set[str], bare: set[str]) -> None:
    """Enter each name on the right by how it is used; names of functions are left out."""
    match node:
        case ast.Assign(targets=[target], value=value):
            inside = target.slice if isinstance(target, ast.Subscript) else None
            below: Iterable[ast.AST] = (value,) if inside is None else (inside, value)
        case ast.Call(func=ast.Name(), args=args, keywords=keywords):
            below = (*args, *keywords)
        case ast.Call(func=ast.Subscript(value=ast.Name(), slice=index), args=args):
            below = (index, *args, *node.keywords)
        case ast.Subscript(value=ast.Name(id=name), slice=index):
            subscripted.add(name)
            below = (index,)
        case ast.Name(id=name):
            bare.add(name)
            below = ()
        case _:
            below = ast.iter_child_nodes(node)
    for child in below:
        _sort_names(child, subscripted, bare)


def _every_rank(line: ast.Assign) -> Iterator[str]:
    yield from _left_ranks(line)
    yield from _free_subscripts(line.value, frozenset())
    for node in ast.walk(line):
        match node:
            case ast.Call(func=ast.Subscript(value=ast.Name(id=name), slice=index)):
                yield from _bracket_ranks(name, index)


def _left_ranks(line: ast.Assign) -> Iterator[str]:
    for element in _target(line)[1]:
        match element.lower if isinstance(element, ast.Slice) else element:
            case ast.Name(id=rank) | ast.BinOp(left=ast.Name(id=rank), right=ast.Constant()):
                yield rank


def _bracket_ranks(name: str, index: ast.expr) -> Iterator[str]:
    for element in bracket(index)[: 1 if name in SELECTORS else None]:
        rank = element.lower if isinstance(element, ast.Slice) else element
        if isinstance(rank, ast.Name):
            yield rank.id


def _free_subscripts(node: ast.AST, bound: frozenset[str]) -> Iterator[str]:
    """Yield the names that stand alone as a coordinate and that no reduction around takes."""
    match node:
        case ast.Call(func=ast.Subscript(value=ast.Name(id=name), slice=index)):
            if name in REDUCERS or name in SELECTORS:
                bound = bound | set(_bracket_ranks(name, index))
            children: Iterable[ast.AST] = (
                *(x.upper for x in bracket(index) if isinstance(x, ast.Slice) and x.upper),
                *node.args,
                *node.keywords,
            )
        case ast.Subscript(slice=index):
            for element in bracket(index):
                if isinstance(element, ast.Name) and element.id not in bound:
                    yield element.id
            children = (index,)
        case _:
            children = ast.iter_child_nodes(node)
    for child in children:
        yield from _free_subscripts(child, bound)


def _read_line(line: ast.Assign, context: _Context) -> Einsum:
    target, (tensor, elements) = line.targets[0], _target(line)
    check_name(tensor, context.source.at(target))
    left = frozenset(_left_ranks(line)) & context.ranks
    filters = [x.upper for x in elements if isinstance(x, ast.Slice) and x.upper is not None]
    names = _Names(
        context,
        tensor,
        left,
        left | (frozenset(_free_subscripts(line, frozenset())) & context.ranks),
        left,
        left & _inside(filters),
        RankError,
    )
    coordinates: list[Expression] = []
    for element in elements:
        coordinate, _ = split_filter(element, names)
        if isinstance(coordinate, ast.Name):
            coordinates += [RankVariable(x, names.at(coordinate)) for x in names.ranks(coordinate)]
        else:
            coordinates.append(read(coordinate, names))
    output = Access(tensor, tuple(coordinates), names.at(target))
    value = read(line.value, names, whole=True)
    condition = read_filters(filters, names)
    # Before any rank is summed away: a rank too many should not look like a sum.
    check_rank_counts(Einsum(output, value, condition), context.counts)
    kept = tuple(rank for x in coordinates for rank in free_ranks(x))
    value = sum_implicitly(value, kept, context.expansion.results)
    return Einsum(output, value, condition, context.source.at(line))


def _inside(nodes: Iterable[ast.expr]) -> frozenset[str]:
    return frozenset(x.id for y in nodes for x in ast.walk(y) if isinstance(x, ast.Name))


@dataclass(frozen=True, slots=True)
class _Names:
    """What names mean in one line of a cascade.

    left : the ranks on the left. here : the ranks of the line that vary. bound : those on the left
    and those of reductions outside. filtered : the bound ones that a filter outside constrains.
    absent : the class of the error about a rank that is not here.
    """

    context: _Context
    tensor: str
    left: frozenset[str]
    here: frozenset[str]
    bound: frozenset[str]
    filtered: frozenset[str]
    absent: type[LocatedError]

    def at(self, node: ast.expr | ast.stmt | ast.keyword) -> Location:
        return self.context.source.at(node)

    def bare(self, node: ast.Name) -> Expression:
        name, at, context = node.id, self.at(node), self.context
        if name in self.here or name in self.bound:
            return RankVariable(name, at)
        if name in context.parameters:
            return Parameter(name, at)
        if context.written.get(name) == 0:
            return Access(name, (), at)
        if name in context.tensors():
            raise RankError(f"{name} is a tensor and is read with its ranks, {name}[...].", at)
        if name not in context.ranks:
            return Parameter(name, at)
        if self.absent is SparsityError:
            raise SparsityError(
                f"A filter constrains ranks that are there; {self.tensor} has the ranks "
                f"{', '.join(sorted(self.left)) or '()'}, and not {name}.",
                at,
            )
        raise RankError(
            f"{name} is a rank, and here no tensor has it: {self.tensor} has no coordinate {name} "
            "to read.",
            at,
        )

    def access(self, node: ast.Subscript, tensor: str) -> Expression:
        context = self.context
        if tensor in context.parameters:
            raise RankError(
                f"{tensor} is a parameter and has no ranks; a tensor stands before the star of "
                "the def.",
                self.at(node),
            )
        if context.inputs is not None and tensor not in (*context.inputs, *context.written):
            names = (*context.inputs, *context.written)
            raise RankError(
                f"{tensor} is neither an argument of {context.name} nor written in it"
                f"{suggestion(tensor, names) or '.'}",
                self.at(node),
            )
        return read_access(node, tensor, self)

    def ranks(self, node: ast.expr) -> tuple[str, ...]:
        match node:
            case ast.Name(id=name) if name in RESERVED:
                check_name(name, self.at(node))
            case ast.Name(id=name) if name in self.context.parameters:
                raise RankError(
                    f"A rank has a name of its own; {name} is a parameter too.", self.at(node)
                )
            case ast.Name(id=name) if name in self.context.tensors():
                raise RankError(
                    f"A rank has a name of its own; {name} is a tensor too.", self.at(node)
                )
            case ast.Name(id=name):
                return (name,)
        raise NotationError(f"A rank is named here; {ast.unparse(node)} is no name.", self.at(node))

    def size(self, node: ast.Name) -> Expression:
        return Size(self.ranks(node)[0], self.at(node))

    def inside(self, ranks: tuple[str, ...], filters: tuple[ast.expr, ...]) -> _Names:
        filtered = self.filtered | (frozenset(ranks) & _inside(filters))
        return replace(self, bound=self.bound | set(ranks), filtered=filtered)

    def filtering(self) -> _Names:
        return replace(self, absent=SparsityError)

    def shorthand(self, node: ast.Call, name: str, whole: bool) -> Expression | None:
        found = self.context.shorthands.get(name)
        if found is None:
            return None
        site = Site(self.tensor, self.bound, self.filtered, self.context.expansion)
        return expand(found, node, self, site, whole)

    def shorthands(self) -> Iterable[str]:
        return self.context.shorthands


def _inputs_read(einsums: Iterable[Einsum]) -> tuple[str, ...]:
    written = {einsum.name for einsum in einsums}
    read = (name for einsum in einsums for name in einsum.reads if name not in written)
    return tuple(dict.fromkeys(read))


def _outputs(text: _Text, einsums: Iterable[Einsum]) -> tuple[str, ...]:
    if text.returned is not None:
        names = text.returns()
        for node in names:
            if not isinstance(node, ast.Name):
                raise NotationError(
                    f"return names tensors, without their ranks; {ast.unparse(node)} found.",
                    text.source.at(node),
                )
        if not names:
            raise NotationError("return names a tensor: return O.", text.source.at(text.returned))
        return tuple(node.id for node in names if isinstance(node, ast.Name))
    read = {name for einsum in einsums for name in einsum.reads if name != einsum.name}
    last = tuple(dict.fromkeys(e.name for e in einsums if e.name not in read))
    if len(last) != 1 and text.lines:
        found = f"nothing reads {', '.join(last)}" if last else "every tensor is read"
        raise RankError(
            f"Without a return, the output is the one tensor that nothing reads; {found}. "
            f"Write return {', '.join(last) or 'with the outputs'}.",
            text.source.at(text.lines[-1]),
        )
    return last
