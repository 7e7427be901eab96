"""Lower a mapped kernel to its loop nest.

Every tensor that a kernel makes is a tile variable; every rank with a tile is an axis; a resident
rank whose size is no power of two is several axes, one a part, and what holds it is one variable a
part. A loop over the streamed rank is written up to three times: tiles cut at the front, whole
tiles, tiles cut at the end; the whole tiles carry no test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..ir.cascade import Einsum
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    RankVariable,
    Reduce,
    rewrite,
    tensors,
    walk,
)
from ..ir.mapping import MappedKernel, Traversal
from ..ir.operators import REDUCERS
from ..ir.show import show_expression
from ..ir.streaming import NEXT, Field
from .absent import FILLS, FINITE, ZERO, abstract, is_identity, obviously_positive
from .contract import Contractions
from .kernel import Buffer
from .loop_nest import (
    Cast,
    Comment,
    Index,
    Let,
    Loop,
    Nest,
    Number,
    Op,
    Ref,
    Scalar,
    Statement,
    Store,
    Value,
    Var,
    nonnegative,
    value_vars,
)
from .signature import sign
from .tiles import Parts

OLD = "_old"
"""Inside a transport, a field before the step; ``NEXT`` marks it after."""


def lower(
    kernel: MappedKernel,
    *,
    dtypes: Mapping[str, str],
    buffers: Mapping[str, Buffer],
    title: tuple[str, ...] = (),
) -> Nest:
    """Write a kernel as a loop nest.

    ``dtypes`` gives each tensor in memory (and each parameter) its dtype, ``buffers`` each tensor
    that the kernel writes; ``title`` is what the file's docstring says.

    Raises
    ------
    BackendError
        for a reduction or a coordinate that has no tile form.
    """
    return replace(Lowering(kernel, dtypes).nest(buffers), title=title)


class Lowering(Contractions):
    """Lowering of einsums, loops and stores."""

    fills: dict[str, float]
    selected: set[str]

    def nest(self, buffers: Mapping[str, Buffer]) -> Nest:
        """Lower the whole kernel."""
        kernel = self.kernel
        self.fills, self.selected = {}, set()
        for einsum in kernel.before:
            self.compute(einsum)
        for traversal in kernel.traversals:
            self.traverse(traversal)
            for einsum in traversal.streaming.finalise:
                self.compute(einsum)
        for einsum in kernel.after:
            self.compute(einsum)
        for tensor in kernel.writes:
            self.store(buffers[tensor])
        written = tuple(buffers[t] for t in kernel.writes)
        return sign(kernel, tuple(self.outer), self.axes, written, self.dtypes, self.names)

    def compute(self, einsum: Einsum) -> None:
        """Compute an einsum whose result is a tile, one variable for each of its parts."""
        self.say(Comment(str(einsum)))
        for parts in self.assignments(einsum.ranks):
            name = self.names.tile(einsum.name, self.suffix(einsum.ranks, parts))
            match einsum.body:
                case Reduce(reducer=reducer, ranks=ranks, body=body):
                    condition = self.taking.get(einsum.name)
                    if condition is not None and self.loads_nothing(body, condition, reducer):
                        condition = None
                    var = self.reduce(name, reducer, ranks, body, parts, condition=condition)
                case body:
                    var = self.let(name, self.tile(body, parts))
            if self.cut and einsum.name in self.fills:
                live = self.live(self.presence[einsum.name], parts)
                fill = Number(self.fills[einsum.name])
                var = self.let(name, Op("where", (live, self.widen(Ref(var)), fill)))
            self.keep(einsum.name, einsum.ranks, parts, var)

    def loads_nothing(self, body: Expression, condition: Expression, reducer: str) -> bool:
        """Whether a condition only says that loads stay inside, and their 0 is the identity."""
        outside = {x.tensor for x in walk(body) if isinstance(x, Access)} - self.made_tensors()
        extents = {f"{t}_size_" for t in outside}
        for part in conjuncts(condition):
            names = [x.name for x in walk(part) if isinstance(x, Parameter)]
            guarded = any(n.startswith(e) for n in names for e in extents)
            if not guarded and not nonnegative_test(part):
                return False
        values = {t: ZERO for t in outside if self.bounded(t, condition)}
        return is_identity(abstract(body, values, obviously_positive), reducer)

    def bounded(self, tensor: str, condition: Expression) -> bool:
        """Whether a condition tests an extent of a tensor."""
        start = f"{tensor}_size_"
        return any(isinstance(x, Parameter) and x.name.startswith(start) for x in walk(condition))

    def made_tensors(self) -> set[str]:
        """The tensors that have variables."""
        return {tensor for tensor, _ in self.made}

    def traverse(self, traversal: Traversal) -> None:
        """Write the loops of one traversal."""
        streaming = traversal.streaming
        self.rank = streaming.rank
        self.prepare(traversal)
        self.say(Comment(f"accumulators of the traversal of {self.rank}, at their identities"))
        for field in streaming.fields:
            for parts in self.assignments(field.ranks):
                name = self.names.tile(field.tensor, self.suffix(field.ranks, parts))
                axes = self.axes_of(field.ranks, parts)
                var = self.let(name, identity_value(field.reducer), axes)
                self.keep(field.tensor, field.ranks, parts, var)
        tile = self.axes[self.rank].constant
        first = self.axes[self.rank].first
        for begin, end, cut in self.sections(traversal, Scalar(tile)):
            body = self.step(traversal, cut)
            self.say(Loop(self.rank, first, begin, end, tile, tuple(body), cut))
        self.rank, self.fills, self.row_free = "", {}, ()

    def prepare(self, traversal: Traversal) -> None:
        """Find the tests of cut tiles and what stands at points that do not exist."""
        fields = traversal.streaming.fields
        conditions = dict.fromkeys(self.taking[f.tensor] for f in fields)
        self.tests = {}
        self.row_free = ()
        if len(conditions) == 1:
            test = traversal.domain.test
            self.tests = {c: test for c in conditions}
            tiled = set(self.kernel.ranks("tiled"))
            self.row_free = tuple(c for c in conjuncts(test) if not depends(c, tiled))
        frames = {name for f in fields for name in f.frame}
        # what another field's transport reads must keep its old value until the step ends
        read = {
            t
            for f in fields
            if f.transport is not None
            for t in tensors(f.transport)
            if t != f.tensor
        }
        self.held = frames | ({f.tensor for f in fields} & read)
        self.frames = frames
        self.reducer = {f.tensor: f.reducer for f in fields}
        self.fills, self.selected = self.choose_fills(traversal)

    def choose_fills(self, traversal: Traversal) -> tuple[dict[str, float], set[str]]:
        """Choose what stands at absent points, and the fields that need a select of their own.

        Of each condition the fill goes in where it first cuts; what is upstream of that is finite.
        """
        fields = traversal.streaming.fields
        body = [x for x in traversal.streaming.body if isinstance(x, Einsum)]
        body = [e for e in body if self.rank in e.ranks]
        fills: dict[str, float] = {}
        selected: set[str] = set()
        for condition in dict.fromkeys(self.taking[f.tensor] for f in fields):
            alike = [e for e in body if self.presence[e.name] == condition]
            names = {e.name for e in alike}
            entry = [e.name for e in alike if not names & set(e.reads)]
            concerned = [f for f in fields if self.taking[f.tensor] == condition]
            best: tuple[dict[str, float], set[str]] = ({}, {f.tensor for f in concerned})
            for label, number in (("", 0.0), *FILLS):
                values = dict.fromkeys(self.frames, FINITE)
                for access in self.streamed_inputs(traversal):
                    # a cut load holds 0 where the rank has ended, not where only a filter cuts
                    values[access.tensor] = ZERO if condition is None else FINITE
                for e in alike:
                    inner = e.body.body if isinstance(e.body, Reduce) else e.body
                    kept = abstract(inner, values, obviously_positive)
                    values[e.name] = label if label and e.name in entry else kept
                rest = {
                    f.tensor
                    for f in concerned
                    if not is_identity(abstract(f.lift, values, obviously_positive), f.reducer)
                }
                if len(rest) < len(best[1]):
                    best = (dict.fromkeys(entry, number) if label else {}, rest)
            fills |= best[0]
            selected |= best[1]
        return fills, selected

    def streamed_inputs(self, traversal: Traversal) -> Iterator[Access]:
        """Yield the accesses to memory that move with the loop."""
        made = {t for t, _ in self.made}
        for item in traversal.streaming.body:
            made.add(item.name if isinstance(item, Einsum) else item.tensor)
        for item in traversal.streaming.body:
            for x in walk(item.body if isinstance(item, Einsum) else item.lift):
                if isinstance(x, Access) and x.tensor not in made and depends(x, {self.rank}):
                    yield x

    def sections(self, traversal: Traversal, width: Value) -> Iterator[tuple[Value, Value, bool]]:
        """Yield (begin, end, cut) of each loop in order; loops begin at multiples of the tile."""
        ranges = traversal.domain.ranges
        visited: Value | None = None

        def down(x: Value) -> Value:
            return x if x == Number(0) else Op("*", (Op("//", (x, width)), width))

        def up(x: Value) -> Value:
            return Op("*", (Op("cdiv", (x, width)), width))

        for k, r in enumerate(ranges):
            tag = f"_{k}" if len(ranges) > 1 else ""
            begin = down(self.tile(r.begin, {}))
            if visited is not None:
                begin = Op("max", (begin, visited))
            begin = self.bound(f"{self.rank}_begin{tag}", begin)
            end = self.bound(f"{self.rank}_end{tag}", self.tile(r.end, {}))
            if r.full_begin == r.full_end:
                yield begin, end, True
            else:
                whole = begin
                if r.full_begin != r.begin or visited is not None or begin != Number(0):
                    start = Op("max", (begin, up(self.tile(r.full_begin, {}))))
                    whole = self.bound(f"{self.rank}_whole_begin{tag}", start)
                    yield begin, Op("min", (whole, end)), True
                stop = down(self.tile(r.full_end, {}))
                if whole != Number(0) or not nonnegative(stop):
                    stop = Op("max", (whole, stop))
                stop = self.bound(f"{self.rank}_whole_end{tag}", stop)
                yield whole, stop, False
                yield stop, end, True
            if k + 1 < len(ranges):
                visited = Op("max", (begin, up(end)))

    def bound(self, name: str, value: Value) -> Value:
        """Name a loop bound."""
        if isinstance(value, Number | Ref):
            return value
        return Ref(self.let(self.names.take(name), value, (), "int32"))

    def step(self, traversal: Traversal, cut: bool) -> list[Statement]:
        """Write one tile's work: einsums in the new frame, accumulators carried along."""
        outside, taken = dict(self.made), set(self.names.taken)
        self.enter(cut)
        self.old = {}
        moved: list[tuple[Var, Var]] = []
        for item in traversal.streaming.body:
            if isinstance(item, Einsum):
                self.compute(item)
            else:
                reduced = Reduce(item.reducer, item.ranks_reduced, item.lift, item.filter)
                ranks = ", ".join(item.ranks)
                self.say(Comment(f"{item.tensor}[{ranks}] = {show_expression(reduced)}"))
                for parts in self.assignments(item.ranks):
                    moved += self.accumulate(item, parts)
        for old, new in moved:
            self.say(Let(old, Ref(new)))
        body = self.leave()
        self.made, self.old = outside, {}
        hoisted = {v.name for v in self.loads[0].values()}
        self.names.taken = taken | hoisted | set(self.names.tiles.values())
        return body

    def accumulate(self, field: Field, parts: Parts) -> list[tuple[Var, Var]]:
        """Take one tile into an accumulator; what later fields read keeps its old value too."""
        ranks = field.ranks
        old = self.got(field.tensor, ranks, parts)
        held = field.tensor in self.held
        start: Value = Ref(old) if field.transport is None else self.transported(field, parts)
        where = None
        if self.cut and field.tensor in self.selected:
            where = self.live(self.taking[field.tensor], parts)
        elif not self.cut and field.filter is not None and not self.taking[field.tensor]:
            where = None
        name = old.name
        if held:
            name = self.names.tile(field.tensor + NEXT, self.suffix(ranks, parts))
        new = self.reduce(
            name, field.reducer, field.ranks_reduced, field.lift, parts, where=where, start=start
        )
        if not held:
            return []
        self.old[(field.tensor, self.key(ranks, parts))] = old
        safe = new
        if self.cut and field.tensor in self.frames and field.reducer in ("max", "min"):
            empty = Op("==", (Ref(new), identity_value(field.reducer)))
            label = self.names.tile(f"{field.tensor}_safe", self.suffix(ranks, parts))
            safe = self.let(label, Op("where", (empty, Number(0.0), Ref(new))))
        self.keep(field.tensor, ranks, parts, safe)
        return [(old, new)]

    def transported(self, field: Field, parts: Parts) -> Value:
        """The accumulator carried to the new frame; factors that several share are named once."""
        assert field.transport is not None
        mine = [t for t in tensors(field.transport) if not t.endswith(NEXT)]
        values = {t: ZERO for t in mine if t not in self.frames}
        values |= {t: {"max": "-inf", "min": "+inf"}.get(self.reducer[t], ZERO) for t in field.frame}
        fragile = abstract(field.transport, values, obviously_positive) != ZERO

        def rule(x: Expression) -> Expression | None:
            if not isinstance(x, Access) or x.tensor.endswith(NEXT):
                return None
            ranks = tuple(c.rank for c in x.coordinates if isinstance(c, RankVariable))
            key = (x.tensor, self.key(ranks, parts))
            if key not in self.old and key not in self.made:
                return None
            var = self.old.get(key) or self.made[key]
            if fragile and x.tensor in field.frame and self.reducer[x.tensor] in ("max", "min"):
                var = self.calm(x.tensor, ranks, parts, var)
            self.made[(x.tensor + OLD, key[1])] = var
            return Access(x.tensor + OLD, x.coordinates, x.at)

        return self.share(self.tile(rewrite(field.transport, rule), parts))

    def calm(self, frame: str, ranks: tuple[str, ...], parts: Parts, old: Var) -> Var:
        """An old frame that is still at its identity is replaced by the new one: nothing moves."""
        new = self.got(frame, ranks, parts)
        empty = Op("==", (Ref(old), identity_value(self.reducer[frame])))
        value = Op("where", (empty, Ref(new), Ref(old)))
        if value not in self.shared:
            self.shared[value] = self.let(self.names.take(f"{frame.lower()}_before"), value)
        return self.shared[value]

    def share(self, value: Value) -> Value:
        """Name the exponentials and quotients of frames, which several accumulators use."""
        match value:
            case Op("exp" | "exp2" | "/" | "quotient" as operator, operands) if self.pure(value):
                if value not in self.shared:
                    name = self.names.take("rescale")
                    self.shared[value] = self.let(name, Op(operator, operands))
                return Ref(self.shared[value])
            case Op(operator=operator, operands=operands):
                return Op(operator, tuple(self.share(x) for x in operands))
            case Cast(value=inner, dtype=dtype):
                return Cast(self.share(inner), dtype)
            case _:
                return value

    def pure(self, value: Value) -> bool:
        """Whether a value reads frames only."""
        plain = {
            v.name
            for (tensor, _), v in self.made.items()
            if tensor.removesuffix(OLD) in self.reducer
            and tensor.removesuffix(OLD) not in self.frames
        }
        return not value_vars(value) & plain

    def store(self, buffer: Buffer) -> None:
        """Write a tensor; points that do not exist hold 0."""
        condition = self.presence.get(buffer.tensor)
        for parts in self.assignments(buffer.ranks):
            ranks = tuple(RankVariable(r) for r in buffer.ranks)
            value = self.tile(Access(buffer.tensor, ranks), parts)
            if condition is not None:
                value = Op("where", (self.tile(condition, parts), value, Number(0)))
            coordinates = tuple(self.coordinate(r, parts) for r in buffer.ranks)
            guard = self.bounds(buffer.ranks, parts)
            self.say(Store(buffer.tensor, coordinates, value, guard))

    def bounds(self, ranks: tuple[str, ...], parts: Parts) -> Value | None:
        """The condition under which a tile's coordinates lie inside their ranks."""
        tests: list[Value] = []
        for rank in ranks:
            axis = self.axis(rank, parts)
            if axis is None:
                continue
            if self.roles[rank] == "tiled":
                tests.append(Op("<", (Index(axis.name), self.size(rank))))
            elif axis.padded:
                tests.append(Op("<", (Index(axis.name), Number(axis.offset + axis.valid))))
        if not tests:
            return None
        return tests[0] if len(tests) == 1 else Op("and", tuple(tests))


def identity_value(reducer: str) -> Number:
    """A reducer's identity as a value."""
    return Number(float(REDUCERS[reducer].identity))


def nonnegative_test(condition: Expression) -> bool:
    """Whether a condition is the lower bound of a coordinate, ``0 <= c``."""
    match condition:
        case Apply("<=", (Constant(value=0), _)):
            return True
        case _:
            return False


def conjuncts(condition: Expression | None) -> tuple[Expression, ...]:
    """The parts of a conjunction."""
    match condition:
        case None:
            return ()
        case Apply("and", operands):
            return tuple(x for o in operands for x in conjuncts(o))
        case _:
            return (condition,)


def depends(expression: Expression, ranks: set[str]) -> bool:
    """Whether an expression varies with some of the ranks, or with the place of their tiles."""
    marks = {f"{r}{end}" for r in ranks for end in ("_first", "_last")}
    for x in walk(expression):
        match x:
            case RankVariable(rank=rank) if rank in ranks:
                return True
            case Parameter(name=name) if name in marks:
                return True
            case _:
                continue
    return False
