"""Lower a mapped kernel to its loop nest.

Every tensor that a kernel makes is a tile variable; every rank with a tile is an axis; a resident
rank whose size is no power of two is several axes, one a part, and what holds it is one variable a
part. A loop over the streamed rank is written up to three times: tiles cut at the front, whole
tiles, tiles cut at the end; the whole tiles carry no test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from ..ir.cascade import Einsum
from ..ir.domain import Walk
from ..ir.expression import (
    Access,
    Apply,
    Constant,
    Expression,
    Parameter,
    Populate,
    RankVariable,
    Reduce,
    accesses,
    free_ranks,
    tensors,
    walk,
)
from ..ir.mapping import MappedKernel, Traversal
from ..ir.show import show_expression
from ..ir.streaming import NEXT, Field, Streaming
from .absent import (
    FILLS,
    FINITE,
    UNKNOWN,
    ZERO,
    abstract,
    fillings,
    is_identity,
    obviously_positive,
)
from .additions import add_share
from .begins import conjuncts, left_to_test
from .contract import identity_value
from .frames import depends
from .kernel import Buffer
from .lists import scaled
from .loop_nest import (
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
)
from .rest import joins, rest
from .sections import Sections
from .select import both
from .signature import sign
from .table_walk import list_dtypes, listed
from .tiles import Parts


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


Place = Callable[[], None]
"""What writes where a tile lies."""


class Lowering(Sections):
    """Lowering of einsums, loops and stores."""

    fills: dict[str, float]
    selected: set[str]
    held: set[str]

    def nest(self, buffers: Mapping[str, Buffer]) -> Nest:
        """Lower the whole kernel."""
        kernel = self.kernel
        self.fills, self.selected, self.frames = {}, set(), set()
        for einsum in kernel.before:
            self.compute(einsum)
        for traversal in kernel.traversals:
            self.traverse(traversal)
            for einsum in traversal.streaming.finalise:
                self.compute(einsum)
        for einsum in kernel.after:
            self.compute(einsum)
        added = {f.tensor for t in kernel.traversals for f in t.streaming.additions}
        for tensor in kernel.writes:
            if tensor not in added:
                self.store(buffers[tensor])
        written = tuple(buffers[t] for t in kernel.writes)
        dtypes = {**self.dtypes, **list_dtypes(kernel)}
        return sign(kernel, tuple(self.outer), self.axes, written, dtypes, self.names)

    def compute(self, einsum: Einsum) -> None:
        """Compute an einsum whose result is a tile, one variable for each of its parts."""
        if einsum.name in self.made_tensors():
            return  # the members of a list were counted with it
        self.say(Comment(str(einsum)))
        if isinstance(einsum.body, Populate):
            self.select(einsum, einsum.body)
            return
        for parts in self.assignments(einsum.ranks):
            name = self.names.tile(einsum.name, self.suffix(einsum.ranks, parts))
            match einsum.body:
                case Reduce(reducer=reducer, ranks=ranks, body=body):
                    condition = self.taking.get(einsum.name)
                    if condition is not None and self.loads_nothing(body, condition, reducer):
                        condition = None
                    test = None if condition is None else partial(self.tile, condition)
                    var = self.reduce(name, reducer, ranks, body, parts, test=test)
                case body:
                    var = self.let(name, self.tile(self.guarded(body, parts), parts))
            if self.cut and einsum.name in self.fills:
                there = self.presence[einsum.name]
                # where a loop meets none of its points, what is made at them is for others
                if self.tests.get(there) != Constant(False):
                    var = self.fill(var, there, self.fills[einsum.name], parts)
            self.keep(einsum.name, einsum.ranks, parts, var)

    def loads_nothing(self, body: Expression, condition: Expression, reducer: str) -> bool:
        """Whether a condition only says that loads stay inside, and their 0 is the identity."""
        made = self.made_tensors()
        tests = set(conjuncts(condition))
        bounded: set[Expression] = set()
        for access in accesses(body):
            if access.tensor in made:
                continue
            own = {t for k in range(len(access.coordinates)) for t in extent_tests(access, k)}
            zero: dict[str | Access, str] = {access: ZERO}
            lift = abstract(body, zero, obviously_positive)
            if own & tests and not is_identity(lift, reducer):
                return False
            bounded |= own
        return tests <= bounded

    def made_tensors(self) -> set[str]:
        """Return the tensors that have variables."""
        return {tensor for tensor, _ in self.made}

    def traverse(self, traversal: Traversal) -> None:
        """Write the loops of one traversal."""
        streaming = traversal.streaming
        self.rank = streaming.rank
        self.taking |= dict(traversal.taking)
        self.prepare(traversal)
        if traversal.continues:
            self.say(Comment(f"the same accumulators, along {self.rank}"))
        else:
            self.begin(streaming)
        tile = self.axes[self.rank].constant
        first = self.axes[self.rank].first
        if traversal.domain.table is not None:
            joined = joins(self, traversal) and not self.several
            for slot, end, place, cut in listed(self, traversal.domain.table, joined=joined):
                cut = cut or self.several
                body = tuple(self.step(traversal, cut, place))
                rests = None if cut and not self.asked else rest(self, traversal, cut, place)
                self.asked = ()
                self.say(Loop(self.rank, slot, Number(0), end, "", body, cut, rests))
        else:
            for begin, end, cut in self.sections(traversal, Scalar(tile)):
                body = tuple(self.step(traversal, cut))
                rests = rest(self, traversal, cut)
                self.say(Loop(self.rank, first, begin, end, tile, body, cut, rests))
        for item in traversal.walks:
            self.follow(traversal, item)
        self.rank, self.fills, self.row_free, self.frames = "", {}, (), set()

    def begin(self, streaming: Streaming) -> None:
        """Set the accumulators of a traversal to their identities."""
        self.say(Comment(f"accumulators of the traversal of {self.rank}, at their identities"))
        for field in streaming.fields:
            for parts in self.assignments(field.ranks):
                name = self.names.tile(field.tensor, self.suffix(field.ranks, parts))
                axes = self.axes_of(field.ranks, parts)
                var = self.let(name, identity_value(field.reducer), axes)
                self.keep(field.tensor, field.ranks, parts, var)

    def follow(self, traversal: Traversal, walk: Walk) -> None:
        """Write the loop along one list."""
        rank = self.rank
        self.tests = dict(walk.tests)
        self.clear_rows(traversal)
        axis = self.axes[rank]
        slot = self.names.take(f"{rank}_slot")
        width = Number(walk.width)
        for k, r in enumerate(walk.positions.ranges):
            tag = f"_{k}" if len(walk.positions.ranges) > 1 else ""
            begin = scaled(self.limit(r.begin), width)
            end = scaled(self.limit(r.end), width)
            if walk.within is not None:
                end = Op("where", (self.limit(walk.within), end, Number(0)))
            begin = self.bound(f"{slot}_begin{tag}", begin)
            end = self.bound(f"{slot}_end{tag}", end)
            place = partial(self.place, walk, slot, end)
            self.in_blocks = walk.width % axis.width == 0 and not any(self.tests.values())
            body = tuple(self.step(traversal, True, place))
            rests = None if self.several else rest(self, traversal, True, place)
            self.in_blocks, self.at, self.asked = False, {}, ()
            self.say(Loop(rank, slot, begin, end, axis.constant, body, True, rests))

    def prepare(self, traversal: Traversal) -> None:
        """Find the tests of cut tiles and what stands at points that do not exist."""
        fields = traversal.streaming.fields
        conditions = dict.fromkeys(self.taking[f.tensor] for f in traversal.streaming.sums)
        # a tile that one condition leaves whole another may cut
        self.several = len(conditions) > 1
        self.tests = left_to_test(traversal, tuple(conditions), kernel=self.kernel)
        self.row_free = ()
        self.clear_rows(traversal)
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

    def clear_rows(self, traversal: Traversal) -> None:
        """Find the parts of the one test that concern no row of a tile: those guard loads."""
        # a point that takes no part may still be summed on the way to one that does
        self.folded = {
            r
            for e in traversal.streaming.body
            if isinstance(e, Einsum) and isinstance(e.body, Reduce)
            for r in e.body.ranks
        }
        tests = list(self.tests.values())
        if len(tests) != 1:
            self.row_free = ()
            return
        rows = self.folded | set(self.kernel.ranks("tiled"))
        self.row_free = tuple(c for c in conjuncts(tests[0]) if not depends(c, rows))

    def choose_fills(self, traversal: Traversal) -> tuple[dict[str, float], set[str]]:
        """Choose what stands at absent points, and the fields that need a select of their own.

        Of each condition the fill goes in where it first cuts; what is upstream of that is finite.
        """
        fields = traversal.streaming.sums
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
            grown = FINITE if condition is None else UNKNOWN
            for labels in fillings(entry, [e.name for e in alike if e.name not in entry]):
                values: dict[str | Access, str] = dict.fromkeys(self.kernel.infinite, UNKNOWN)
                values |= dict.fromkeys(self.frames, FINITE)  # these are guarded
                for access in self.streamed_inputs(traversal):
                    # a cut load holds 0 where the rank has ended, not where only a filter cuts
                    endless = access.tensor in self.kernel.infinite
                    values[access] = ZERO if condition is None else UNKNOWN if endless else FINITE
                for e in body:  # in order; what exists elsewhere too is computed here as there
                    inner = e.body.body if isinstance(e.body, Reduce) else e.body
                    kept = abstract(inner, values, obviously_positive, grown)
                    values[e.name] = labels.get(e.name, kept)
                rest = {
                    f.tensor
                    for f in concerned
                    if not is_identity(
                        abstract(f.lift, values, obviously_positive, grown), f.reducer
                    )
                }
                if len(rest) < len(best[1]):
                    best = ({name: dict(FILLS)[label] for name, label in labels.items()}, rest)
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

    def step(
        self, traversal: Traversal, cut: bool, place: Place | None = None, *, rests: bool = False
    ) -> list[Statement]:
        """Write one tile's work: einsums in the new frame, accumulators carried along.

        ``place`` says where the tile lies, in a loop that does not walk the rank in order;
        ``rests``, that frames stay what they were, so that nothing is carried.
        """
        outside, taken = dict(self.made), set(self.names.taken)
        self.rests = rests
        self.enter(cut)
        self.old = {}
        if place is not None:
            place()
        moved: list[tuple[Var, Var]] = []
        for item in traversal.streaming.body:
            if isinstance(item, Einsum):
                self.compute(item)
            elif self.tests.get(self.taking[item.tensor]) == Constant(False):
                for parts in self.assignments(item.ranks):  # none of its points is met here
                    at = (item.tensor, self.key(item.ranks, parts))
                    self.old[at] = self.got(item.tensor, item.ranks, parts)
            elif not (rests and item.tensor in self.frames):
                reduced = Reduce(item.reducer, item.ranks_reduced, item.lift, item.filter)
                ranks = ", ".join(item.ranks)
                self.say(Comment(f"{item.tensor}[{ranks}] = {show_expression(reduced)}"))
                for parts in self.assignments(item.ranks):
                    moved += self.accumulate(item, parts, rests=rests)
        for field in traversal.streaming.additions:
            add_share(self, field)
        for old, new in moved:
            self.say(Let(old, Ref(new)))
        body = self.leave()
        self.made, self.old = outside, {}
        hoisted = {v.name for v in self.loads[0].values()}
        self.names.taken = taken | hoisted | set(self.names.tiles.values())
        return body

    def accumulate(
        self, field: Field, parts: Parts, *, rests: bool = False
    ) -> list[tuple[Var, Var]]:
        """Take one tile into an accumulator; what later fields read keeps its old value too."""
        ranks = field.ranks
        old = self.got(field.tensor, ranks, parts)
        held = field.tensor in self.held and not rests
        start: Value = Ref(old)
        if field.transport is not None and not rests:
            start = self.transported(field, parts)
        selected = self.cut and field.tensor in self.selected
        name = old.name
        if held:
            name = self.names.tile(field.tensor + NEXT, self.suffix(ranks, parts))
        lift = self.guarded(field.lift, parts)
        new = self.reduce(
            name,
            field.reducer,
            field.ranks_reduced,
            lift,
            parts,
            test=partial(self.live, self.taking[field.tensor]) if selected else None,
            start=start,
        )
        if not held:
            return []
        self.old[(field.tensor, self.key(ranks, parts))] = old
        self.keep(field.tensor, ranks, parts, new)
        return [(old, new)]

    def store(self, buffer: Buffer) -> None:
        """Write a tensor; points that do not exist hold 0."""
        condition = self.presence.get(buffer.tensor)
        scattered = buffer.tensor in self.kernel.scattered
        for parts in self.assignments(buffer.ranks):
            ranks = tuple(RankVariable(r) for r in buffer.ranks)
            value = self.tile(Access(buffer.tensor, ranks), parts)
            if condition is not None and not scattered:
                value = Op("where", (self.tile(condition, parts), value, Number(0)))
            views = {v.rank: v.coordinate for v in self.kernel.views}
            coordinates = tuple(
                self.tile(views[r], parts) if r in views else self.coordinate(r, parts)
                for r in buffer.ranks
            )
            walked = [
                inner
                for r in buffer.ranks
                for inner in (free_ranks(views[r]) if r in views else (r,))
            ]
            guard = self.bounds(tuple(dict.fromkeys(walked)), parts)
            if condition is not None and scattered:
                test = self.tile(condition, parts)
                guard = test if guard is None else both(guard, test)
            self.say(Store(buffer.tensor, coordinates, value, guard))

    def bounds(self, ranks: tuple[str, ...], parts: Parts) -> Value | None:
        """Return the condition under which a tile's coordinates lie inside their ranks."""
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


def extent_tests(access: Access, position: int) -> tuple[Expression, Expression]:
    """Return the conditions under which a coordinate lies in its tensor, as presence has them."""
    coordinate = access.coordinates[position]
    extent = Parameter(f"{access.tensor}_size_{position}")
    return Apply("<=", (Constant(0), coordinate)), Apply("<", (coordinate, extent))
