"""Tiles: how expressions over ranks become values over axes, and how inputs are loaded.

The state of a lowering that both einsums and loops need: which axis stands for which part of which
rank, which variable holds which part of which tensor, and where statements go at the moment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from ..ir.errors import BackendError
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Size,
    accesses,
    free_ranks,
    tensors,
    walk,
)
from ..ir.mapping import MappedKernel
from ..ir.streaming import NEXT, Field
from .absent import obviously_positive
from .arithmetic import ARITHMETIC, NARROW, REAL, real_quotient, truth, value_dtype
from .bounds import join_bounds
from .loop_nest import (
    Axis,
    Cast,
    Index,
    Let,
    Load,
    Number,
    Op,
    Ref,
    Scalar,
    Statement,
    Value,
    Var,
    nonnegative,
    parts_of_value,
    value_axes,
)
from .names import Names

Parts = dict[str, int]
Key = tuple[str, tuple[int, ...]]
SHORT = ("bool", "int8", "int16", "uint8")
"""Dtypes in which arithmetic on coordinates would overflow."""


class Tiles:
    """Axes, variables and scopes of one kernel's lowering."""

    def __init__(self, kernel: MappedKernel, dtypes: Mapping[str, str]) -> None:
        self.kernel, self.dtypes = kernel, dtypes
        self.static = dict(kernel.static)
        self.presence = dict(kernel.presence)
        self.taking = dict(kernel.taking)
        self.roles = dict(kernel.roles)
        ranks = tuple(self.roles)
        places = (f"{r}_{end}" for r in ranks for end in ("first", "last", "row", "safe", "tile"))
        self.names = Names((*kernel.reads, *kernel.writes, *ranks, *parameters_of(kernel), *places))
        self.live_word = self.names.take("live")
        self.axes: dict[str, Axis] = {a.name: a for a in self.make_axes()}
        self.made: dict[Key, Var] = {}
        self.old: dict[Key, Var] = {}
        self.outer: list[Statement] = []
        self.scopes: list[list[Statement]] = [self.outer]
        self.loads: list[dict[tuple[str, tuple[Value, ...]], Var]] = [{}]
        self.loading: set[Access] = set()
        self.bands: dict[tuple[Access, tuple[tuple[str, int], ...]], str] = {}
        self.computed = {x.tensor if isinstance(x, Field) else x.name for x in kernel.einsums()}
        # a value that is not chosen is computed all the same, wherever its coordinates are
        self.chosen = {
            access
            for item in kernel.einsums()
            for x in walk(item.lift if isinstance(item, Field) else item.body)
            if isinstance(x, Apply) and x.operator == "where"
            for branch in x.operands[1:]
            for access in accesses(branch)
        }
        self.lives: dict[Value, Value] = {}
        self.shared: dict[Value, Var] = {}
        self.rank = ""
        self.at: dict[str, Value] = {}
        self.ends: dict[str, Value] = {}
        self.inside: tuple[Value, ...] = ()
        self.cut = False
        self.row_free: tuple[Expression, ...] = ()
        self.folded: set[str] = set()
        self.tests: dict[Expression | None, Expression | None] = {}

    # axes

    def make_axes(self) -> Iterator[Axis]:
        """Tiled ranks first, then the streamed one, then the parts of resident ones."""
        for role in ("tiled", "streamed"):
            for rank in self.kernel.ranks(role):
                tile = self.kernel.partition(rank).tile
                constant = f"{rank.upper()}0"
                if constant in self.dtypes:  # a parameter, or a tensor, has that name
                    constant = f"{rank.upper()}_TILE"
                yield Axis(rank, rank, tile, constant, f"{rank}_first", valid=tile)
        for rank in self.kernel.ranks("resident"):
            parts = self.kernel.partition(rank).parts
            for k, (offset, width, valid) in enumerate(parts):
                name = rank if len(parts) == 1 else f"{rank}_{k}"
                yield Axis(name, rank, width, offset=offset, valid=valid)

    def axis(self, rank: str, parts: Parts) -> Axis | None:
        """Return the axis that stands for a rank; None if a program has one coordinate of it."""
        if self.roles.get(rank) == "grid":
            return None
        if rank in self.axes:
            # a rank that is walked one coordinate at a time is a scalar in the loop
            return self.axes[rank] if self.axes[rank].width > 1 else None
        return self.axes[f"{rank}_{parts[rank]}"]

    def axes_of(self, ranks: tuple[str, ...], parts: Parts) -> tuple[str, ...]:
        """Return the axes of a tile over ranks, in layout order."""
        found = {a.name for r in ranks if (a := self.axis(r, parts)) is not None}
        return self.ordered(frozenset(found))

    def ordered(self, axes: frozenset[str]) -> tuple[str, ...]:
        """Axes in layout order."""
        return tuple(a for a in self.axes if a in axes)

    def assignments(self, ranks: tuple[str, ...]) -> Iterator[Parts]:
        """Every choice of one part for each resident rank among ``ranks``."""
        resident = [r for r in ranks if self.roles.get(r) == "resident"]
        counts = [range(len(self.kernel.partition(r).parts)) for r in resident]
        for picked in product(*counts):
            yield dict(zip(resident, picked, strict=True))

    def key(self, ranks: tuple[str, ...], parts: Parts) -> tuple[int, ...]:
        """Which part of a tensor over ``ranks`` is meant."""
        return tuple(parts[r] for r in ranks if self.roles.get(r) == "resident")

    def suffix(self, ranks: tuple[str, ...], parts: Parts) -> str:
        """Return what tells the variables of a tensor's parts from one another."""
        several = [
            r
            for r in ranks
            if self.roles.get(r) == "resident" and len(self.kernel.partition(r).parts) > 1
        ]
        return "".join(f"_{parts[r]}" for r in several)

    def coordinate(self, rank: str, parts: Parts, clamped: bool = False) -> Value:
        """Return a rank's coordinate, as a scalar or along its axis."""
        if rank in self.at:
            return self.at[rank]
        axis = self.axis(rank, parts)
        if axis is None:
            return Scalar(self.axes[rank].first if rank in self.axes else rank)
        return Index(axis.name, clamped and self.roles[rank] == "tiled")

    def size(self, rank: str) -> Value:
        """Return a rank's size: a number if it is known when compiling."""
        return Number(self.static[rank]) if rank in self.static else Scalar(f"size({rank})")

    # variables and scopes

    def say(self, statement: Statement) -> None:
        """Append a statement to the present scope."""
        self.scopes[-1].append(statement)

    def let(
        self, name: str, value: Value, axes: tuple[str, ...] | None = None, dtype: str | None = None
    ) -> Var:
        """Define a variable."""
        axes = self.ordered(value_axes(value)) if axes is None else axes
        var = Var(name, axes, dtype or self.dtype(value))
        self.say(Let(var, value))
        return var

    def keep(self, tensor: str, ranks: tuple[str, ...], parts: Parts, var: Var) -> None:
        """Remember which variable holds a part of a tensor."""
        self.made[(tensor, self.key(ranks, parts))] = var

    def got(self, tensor: str, ranks: tuple[str, ...], parts: Parts) -> Var:
        """Return the variable that holds a part of a tensor."""
        return self.made[(tensor, self.key(ranks, parts))]

    def enter(self, cut: bool) -> None:
        """Begin a loop's body."""
        self.cut = cut
        self.scopes.append([])
        self.loads.append({})
        self.lives, self.shared = {}, {}

    def leave(self) -> list[Statement]:
        """End a loop's body and return it."""
        self.loads.pop()
        self.cut = False
        self.lives, self.shared = {}, {}
        return self.scopes.pop()

    # values

    def tile(self, x: Expression, parts: Parts, *, address: bool = False) -> Value:
        """Return an expression as a value over axes; arithmetic widens narrow floats."""
        match x:
            case Constant(value=value):
                return Number(value)
            case Parameter(name=name):
                if name in self.ends:
                    return self.ends[name]
                rank, _, end = name.rpartition("_")
                if end in ("first", "last") and self.roles.get(rank) == "resident":
                    return Number(0 if end == "first" else self.static[rank] - 1)
                if end in ("first", "last") or "_size_" in name:
                    return Scalar(name)
                return Scalar(name, self.dtypes.get(name, "float32"), signed=True)
            case Size(rank=rank):
                return self.size(rank)
            case RankVariable(rank=rank):
                return self.coordinate(rank, parts, clamped=address)
            case Access():
                return self.read(x, parts)
            case Apply("stop_gradient", (inner,)):
                return self.tile(inner, parts, address=address)
            case Apply("/", (over, under)):
                return self.quotient(over, under, parts)
            case Apply("random", operands):
                state: Value = Number(0)
                for o in operands:
                    state = Op("scramble", (state, self.tile(o, parts, address=address)))
                return Op("fraction", (state,))
            case Apply("where", (_, one, other)) if one == other:
                return self.tile(one, parts, address=address)  # the test says where points exist
            case Apply("in", _):
                raise BackendError(f"membership has no tile form yet ({x.at})")
            case Apply("//" | "%" as operator, (inner, Constant(value=int(radix)))) if (
                split := self.split(operator, self.tile(inner, parts, address=address), radix)
            ):
                return split
            case Apply(operator, operands):
                values = tuple(self.widen(self.tile(o, parts, address=address)) for o in operands)
                if operator in ARITHMETIC:
                    values = tuple(
                        Cast(v, "int32") if self.dtype(v) in SHORT else v for v in values
                    )
                if operator in ("and", "or", "not"):
                    values = tuple(truth(v) for v in values)
                if operator in ("//", "%") and "float32" in map(self.dtype, values):
                    return real_quotient(operator, *map(self.real, values))
                if operator == "**" and not isinstance(values[1], Number):
                    whole = self.dtype(values[1]).startswith("int") and nonnegative(values[1])
                    if values[0] == Number(2) and whole:
                        return Op("<<", (Number(1), values[1]))
                    values = tuple(self.real(v) for v in values)
                if operator in REAL:
                    values = tuple(self.real(v) for v in values)
                return Op(operator, values)
            case _:
                raise BackendError(f"{type(x).__name__} has no tile form here ({x.at})")

    def split(self, operator: str, value: Value, radix: int) -> Value | None:
        """Return a coordinate's quotient or remainder by a multiple of its tile; else None.

        A tile of the loop begins at a multiple of its width, so all of it has one quotient; one
        that a list names may lie behind the rank instead.
        """
        if value != Index(self.rank) or self.at:
            return None
        if radix <= 0 or radix % self.axes[self.rank].width:
            return None
        begin = Op(operator, (Scalar(self.axes[self.rank].first), Number(radix)))
        return begin if operator == "//" else Op("+", (begin, Index(self.rank, row=True)))

    def wide(self, x: Expression, parts: Parts) -> Value:
        """Return an expression's value, ready for arithmetic."""
        return self.widen(self.tile(x, parts))

    def widen(self, value: Value) -> Value:
        """Widen a narrow float."""
        return Cast(value, "float32") if self.dtype(value) in NARROW else value

    def real(self, value: Value) -> Value:
        """Return an integer as a float, for a function of real numbers."""
        if isinstance(value, Number):
            return Number(float(value.value))
        whole = self.dtype(value).startswith(("int", "uint", "bool"))
        return Cast(value, "float32") if whole else value

    def quotient(self, over: Expression, under: Expression, parts: Parts) -> Value:
        """Return a quotient, 0 where the divisor is 0 unless that is impossible."""
        x, y = self.real(self.wide(over, parts)), self.real(self.wide(under, parts))
        if isinstance(y, Number) and y.value == 0:
            return Number(0.0)
        open_size = any(isinstance(v, Scalar) and v.name[:5] == "size(" for v in parts_of_value(y))
        positive = obviously_positive(under) and not open_size  # which may be 0
        if positive or (isinstance(y, Number) and y.value != 0):
            return Op("/", (x, y))
        if value_axes(y) < value_axes(x):
            # one reciprocal a row, not one quotient a point
            return Op("*", (x, Op("quotient", (Number(1.0), y))))
        return Op("quotient", (x, y))

    def read(self, access: Access, parts: Parts) -> Value:
        """Return a tensor made here by its variable; any other is loaded, once a scope."""
        name = access.tensor
        ranks = tuple(c.rank for c in access.coordinates if isinstance(c, RankVariable))
        key = (name, self.key(ranks, parts))
        if key in self.made:
            return Ref(self.made[key])
        if name.endswith(NEXT) and (name[: -len(NEXT)], key[1]) in self.made:
            return Ref(self.made[(name[: -len(NEXT)], key[1])])
        return Ref(self.load(access, parts))

    def load(self, access: Access, parts: Parts) -> Var:
        """Load a tile of a tensor from memory, ahead of the loop if the loop does not move it."""
        coordinates = tuple(self.tile(c, parts, address=True) for c in access.coordinates)
        axes = frozenset().union(*(value_axes(c) for c in coordinates))
        moves = self.rank != "" and (self.rank in axes or self.reads_moving(access))
        depth = len(self.scopes) - 1 if moves else 0
        key = (access.tensor, coordinates)
        for level in range(depth + 1):
            if key in self.loads[level]:
                return self.loads[level][key]
        described = self.describes(access.tensor, coordinates)
        self.loading.add(access)
        whole = described and not (self.cut and self.row_free)
        guard = None if whole else self.guard(access, axes, parts)
        self.loading.discard(access)
        ranks = tuple(
            r for c in access.coordinates for r in ([c.rank] if isinstance(c, RankVariable) else [])
        )
        name = self.names.tile(access.tensor, self.suffix(ranks, parts))
        if any(v.name == name for level in self.loads for v in level.values()):
            name = self.names.take(name)
        var = Var(name, self.ordered(axes), self.dtypes.get(access.tensor, "float32"))
        self.scopes[depth].append(Load(var, access.tensor, coordinates, guard, described=described))
        self.loads[depth][key] = var
        return var

    def describes(self, tensor: str, coordinates: tuple[Value, ...]) -> bool:
        """Whether a load in the loop is a box: the streamed rank, then a resident one, innermost.

        A box is cut by the end of a rank alone, so a tile cut by a filter on its columns too is
        loaded by addresses, but where zeros are written over what was fetched.
        """
        blanks = self.kernel.crew is not None and self.kernel.crew.wide
        cut = bool(self.cut and self.row_free and not blanks)
        if tensor not in self.kernel.described or cut or not self.rank:
            return False
        *outer, last = coordinates
        moving = [c for c in outer if value_axes(c)]
        fixed = not any(isinstance(v, Ref) for c in outer for v in parts_of_value(c))
        return (
            fixed
            and moving == [Index(self.rank)]
            and isinstance(last, Index)
            and not self.axes[last.axis].first
        )

    def reads_moving(self, access: Access) -> bool:
        """Whether a coordinate reads a tensor that the loop moves (a gather through a list)."""
        return any(
            isinstance(x, RankVariable) and x.rank in {self.rank, *self.at}
            for c in access.coordinates
            for x in walk(c)
        )

    def guard(self, access: Access, axes: frozenset[str], parts: Parts) -> Value | None:
        """Return the condition under which a load may touch memory; None: it always may."""
        tests = [x for x in self.inside if value_axes(x) <= axes]
        for name in self.ordered(axes):
            axis = self.axes[name]
            if axis.padded:
                tests.append(Op("<", (Index(name), Number(axis.offset + axis.valid))))
        if self.cut and self.rank in axes and not self.inside:
            tests.append(Op("<", (self.coordinate(self.rank, parts), self.size(self.rank))))
            tests += [self.tile(c, parts) for c in self.row_free if self.guards(c, axes, parts)]
        moves = self.rank in axes or (
            self.reads_moving(access)
            and not any(
                self.folded.intersection(free_ranks(c))
                for c in access.coordinates
                if not isinstance(c, RankVariable)
            )
        )
        if not self.rank or self.cut or not moves or access in self.chosen:
            tests += self.extent_tests(access, parts)
        if not tests:
            return None
        return tests[0] if len(tests) == 1 else Op("and", tuple(tests))

    def guards(self, condition: Expression, axes: frozenset[str], parts: Parts) -> bool:
        """Say whether a condition may guard a load along these axes.

        It varies along no other axis, and needs nothing that is itself being loaded or that is
        still to be computed.
        """
        made = {tensor for tensor, _ in self.made}
        if any(t in self.computed and t not in made for t in tensors(condition)):
            return False
        ranks = free_ranks(condition)
        held = [r for r in ranks if self.roles.get(r) == "resident"]
        return (
            all(r in parts for r in held)
            and set(self.axes_of(ranks, parts)) <= axes
            and not self.loading & set(accesses(condition))
        )

    def extent_tests(self, access: Access, parts: Parts) -> list[Value]:
        """Return tests of coordinates that could not be shown to stay inside."""
        known = [c for c in (*self.presence.values(), *self.taking.values()) if c is not None]
        names = {x.name for c in known for x in walk(c) if isinstance(x, Parameter)}
        tests: list[Value] = []
        for position, coordinate in enumerate(access.coordinates):
            extent = f"{access.tensor}_size_{position}"
            computed = not isinstance(coordinate, RankVariable)
            if extent in names or (computed and access in self.chosen):
                value = self.tile(coordinate, parts, address=True)
                tests.append(Op("<=", (Number(0), value)))
                tests.append(Op("<", (value, Scalar(extent))))
        return tests

    def live(self, condition: Expression | None, parts: Parts, *, ends: bool = True) -> Value:
        """Return the points of a tile that exist, named once a step; ``ends``, in the rank too."""
        test = self.tests.get(condition, condition)
        tests = [] if test is None else [self.tile(test, parts)]
        if ends and self.axes[self.rank].width > 1:
            tests.insert(0, Op("<", (self.coordinate(self.rank, parts), self.size(self.rank))))
        if not tests:
            return Number(True)
        if Number(False) in tests:
            return Number(False)
        joined = join_bounds(tests, self.coordinate(self.rank, parts), self.dtype)
        inside = joined[0] if len(joined) == 1 else Op("and", joined)
        if inside not in self.lives:
            number = f"_{len(self.lives) + 1}" if self.lives else ""
            name = self.live_word + number
            self.lives[inside] = Ref(self.let(name, inside))
        return self.lives[inside]

    def dtype(self, value: Value) -> str:
        """Return the dtype of a value."""
        return value_dtype(value)


def parameters_of(kernel: MappedKernel) -> tuple[str, ...]:
    """Return the parameters that a kernel reads."""
    found: dict[str, None] = {}
    for item in kernel.einsums():
        body = item.lift if isinstance(item, Field) else item.body
        parts = [body, *(x for x in (item.filter,) if x is not None)]
        for part in parts:
            found |= {x.name: None for x in walk(part) if isinstance(x, Parameter)}
    return tuple(found)
