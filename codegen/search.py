"""Search: members of a rank too long for one program, found by a sequence of kernels.

Every number has a code of 32 bits that falls as the number rises; forced members stand in a group
of their own before the others; so a bound on codes is what ends a list in order of value. The bound
is found some bits at a time, as by a radix sort: a kernel counts, tile by tile, how often each
continuation of the bits found so far occurs (or sums its values), and another one finds the
continuation in which the list ends. Then the members of each tile are counted, their places follow
from a running sum over tiles, and the last kernel writes them, the lowest coordinate first. Of
numbers equal to the bound the first ones are taken. The host reads nothing back, and no two
programs write one place, so equal calls give equal lists.

::

    Sel_bins_0[p, m_tile, digit]   how often each value of the first bits occurs in a tile
    Sel_prefix_0[p]                the bits found so far
    Sel_need_0[p]                  what is still to be taken of the numbers that have them
    Sel_above[p, m_tile]           members beyond the bound in a tile
    Sel_ties[p, m_tile]            numbers equal to the bound
    Sel_taken[p, m_tile]           how many of these are members
    Sel_first[p, m_tile]           the place in the list of the tile's first member
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.expression import Populate
from ..ir.mapping import MappedKernel, Role, Search
from .find import Finder
from .kernel import Buffer
from .loop_nest import (
    Cast,
    Comment,
    Fold,
    Histogram,
    Index,
    Let,
    Nest,
    Number,
    Op,
    Ref,
    Store,
    Value,
)
from .search_rows import search_rows
from .select import both
from .signature import sign

TILES = 64
"""Tiles whose bins a program sums at a time."""

MANY = 128
"""Tiles whose members a program places at a time."""


def search_nests(
    kernel: MappedKernel, *, dtypes: Mapping[str, str], buffers: Mapping[str, Buffer]
) -> tuple[Nest, ...]:
    """Return the loop nests of a search, in the order in which they run; the last one lists."""
    assert kernel.search is not None
    if kernel.searches_rows:
        return (search_rows(kernel, dtypes=dtypes, buffers=buffers),)
    found = Searching(kernel, kernel.search, dtypes, buffers)
    nests: list[Nest] = []
    for k in range(len(kernel.search.digits)):
        nests += [found.count(k), found.settle(k)]
    return (*nests, found.tally(), found.place(), found.write())


class Searching:
    """The kernels of one search."""

    def __init__(
        self,
        kernel: MappedKernel,
        search: Search,
        dtypes: Mapping[str, str],
        buffers: Mapping[str, Buffer],
    ) -> None:
        self.kernel, self.search = kernel, search
        body = next(e.body for e in kernel.before if e.name == search.selection)
        assert isinstance(body, Populate)
        self.forced, self.selector = body.forced is not None, body.selector
        self.rows = kernel.ranks("grid")
        (self.rank,) = kernel.ranks("tiled")
        self.tile = kernel.partition(self.rank).tile
        self.width = {k: 2**n for k, n in enumerate(search.digits)}
        if self.forced and search.digits:
            self.width[0] *= 2
        self.kind = "float32" if search.mass else "int32"
        self.none = Number(0.0) if search.mass else Number(0)
        scratch = {b.tensor: b for b in self.scratch()}
        self.buffers = {**buffers, **scratch}
        self.dtypes = {**dtypes, **{name: b.dtype for name, b in scratch.items()}}

    def named(self, what: str, k: int | None = None) -> str:
        """Return the name of a tensor between the kernels."""
        return f"{self.search.stem}_{what}" + ("" if k is None else f"_{k}")

    def scratch(self) -> list[Buffer]:
        """Return what passes between the kernels."""
        tiles, along = ((self.rank, self.tile),), (*self.rows, self.rank)
        digit = self.named("digit")
        found = []
        for k, width in self.width.items():
            fixed = ((digit, width),)
            bins = Buffer(self.named("bins", k), (*along, digit), self.kind, "", tiles, fixed)
            need = Buffer(self.named("need", k), self.rows, self.kind)
            found += [bins, Buffer(self.named("prefix", k), self.rows, "int32"), need]
        names = ("above", "ties", "taken", "first")
        return [*found, *(Buffer(self.named(x), along, "int32", "", tiles) for x in names)]

    def lowering(self, what: str, tiled: bool, *writes: str) -> Finder:
        """Return a lowering of one of the kernels; ``tiled``: a program has a tile of the rank."""
        roles: list[tuple[str, Role]] = [(r, "grid") for r in self.rows]
        roles += [(self.rank, "tiled")] if tiled else []
        name = self.kernel.name
        if what:
            name = f"{name.removesuffix('_kernel')}_{what}_kernel"
        warps = self.kernel.num_warps if tiled else 8
        reads = tuple(self.buffers) + self.kernel.reads
        own = replace(
            self.kernel, name=name, roles=tuple(roles), reads=reads, writes=writes, num_warps=warps
        )
        return Finder(own, self.dtypes, self.rank, self.tile)

    def finish(self, made: Finder, text: str) -> Nest:
        """Give lowered statements their signature, and the file its first words."""
        buffers = tuple(self.buffers[t] for t in made.kernel.writes)
        nest = sign(made.kernel, tuple(made.outer), made.axes, buffers, self.dtypes, made.names)
        title = (text, "", f"    {made.einsum}", "", "Generated by Einfall.")
        return replace(nest, title=title)

    def count(self, k: int) -> Nest:
        """Count, or sum, what a tile holds of each continuation of the bits found so far."""
        found = self.lowering(f"bins_{k}", True, self.named("bins", k))
        digit = found.digits(self.width[k])
        found.look()
        live, start = found.open, sum(self.search.digits[:k])
        if k:
            prefix = found.fetch(self.named("prefix", k - 1), found.row)
            live = both(Op("==", (found.lead(start), prefix)), live)
        number = found.digit(k)
        bins = found.fresh("bins", (digit.name,), self.kind)
        if self.search.mass:
            here = both(Op("==", (number, Index(digit.name))), live)
            found.say(Fold(bins, Op("where", (here, found.value, self.none)), self.rank, "sum"))
        else:
            found.say(Histogram(bins, number, live, self.rank))
        place = (*found.here, Index(digit.name))
        found.say(Store(self.named("bins", k), place, Ref(bins)))
        verb = "Sums values" if self.search.mass else "Counts values"
        bits = f"{self.search.digits[k]} bits of their codes from bit {start} on"
        return self.finish(found, f"{verb} by {bits}, a tile at a time, on the way to")

    def settle(self, k: int) -> Nest:
        """Find the continuation in which each list ends, and what is to be taken of it."""
        prefix_name, need_name = self.named("prefix", k), self.named("need", k)
        found = self.lowering(f"prefix_{k}", False, prefix_name, need_name)
        digit = found.digits(self.width[k])
        total = found.let(found.names.take("bins"), self.none, (digit.name,), self.kind)
        many = found.tiles(TILES)

        def add() -> None:
            at = Index(many.name)
            place = (*found.row, at, Index(digit.name))
            tile = found.fetch(self.named("bins", k), place, Op("<", (at, found.chunks)))
            part = found.total("tile_bins", tile, many.name, self.kind)
            found.say(Let(total, Op("+", (Ref(total), part))))

        found.loop(many, Number(0), found.chunks, add)
        found.say(Comment("the first digit at which the running sum is what is needed"))
        running = found.upto("running", Ref(total), digit.name, self.kind)
        need = found.fetch(self.named("need", k - 1), found.row) if k else found.wanted()
        if not k:
            need = Ref(found.let(found.names.take("need"), need, (), self.kind))
        more = self.selector in ("exceed", "within")
        met: Value = Op(">" if more else ">=", (running, need))
        if self.search.mass and self.forced and k == 0:
            # forced members are in, whatever their sum
            met = Op("and", (met, Op(">=", (Index(digit.name), Number(self.width[0] // 2)))))
        ends = Op("where", (met, Index(digit.name), Number(self.width[k])))
        at = found.fresh("ends_at")
        found.say(Fold(at, ends, digit.name, "min"))
        less = Op("where", (Op("<", (Index(digit.name), Ref(at))), Ref(total), self.none))
        before = found.total("before", less, digit.name, self.kind)
        prefix: Value = Ref(at)
        if 0 < k < len(self.search.digits) - 1:
            last = found.fetch(self.named("prefix", k - 1), found.row)
            prefix = Op("+", (Op("*", (last, Number(2 ** self.search.digits[k]))), prefix))
        found.say(Store(prefix_name, found.row, prefix))
        found.say(Store(need_name, found.row, Op("-", (need, before))))
        return self.finish(found, "Finds the bits at which each list ends, on the way to")

    def tally(self) -> Nest:
        """Count the members of each tile beyond the bound, and what is equal to the bound."""
        names = (self.named("above"), self.named("ties"))
        found = self.lowering("tally", True, *names)
        found.look()
        above, ties = found.members()
        for name, flags in zip(names, (above, ties), strict=True):
            count: Value = Number(0)
            if flags is not None:
                count = found.total("count", Cast(flags, "int32"), self.rank)
            found.say(Store(name, found.here, count))
        return self.finish(found, "Counts the members in each tile, on the way to")

    def place(self) -> Nest:
        """Find where in its list each tile's members stand, and how long the lists are."""
        taken_name, first_name = self.named("taken"), self.named("first")
        counted = next(t for t in self.kernel.writes if t != self.search.selection)
        found = self.lowering(
            "place", False, taken_name, first_name, counted, self.search.selection
        )
        limit = found.ties_taken()
        ties_before = found.let(found.names.take("ties_before"), Number(0), (), "int32")
        before = found.let(found.names.take("before"), Number(0), (), "int32")
        many = found.tiles(MANY)

        def one() -> None:
            at = Index(many.name)
            guard, place = Op("<", (at, found.chunks)), (*found.row, at)
            above = found.fetch(self.named("above"), place, guard)
            ties = found.fetch(self.named("ties"), place, guard)
            ahead = Op("-", (found.upto("ties_upto", ties, many.name), ties))
            left = Op("-", (limit, Op("+", (Ref(ties_before), ahead))))
            some = Op("max", (Number(0), Op("min", (ties, left))))
            taken = Ref(found.let(found.names.take("taken"), some))
            members = Ref(found.let(found.names.take("members"), Op("+", (above, taken))))
            ahead = Op("-", (found.upto("places", members, many.name), members))
            found.say(Store(taken_name, place, taken, guard))
            found.say(Store(first_name, place, Op("+", (Ref(before), ahead)), guard))
            for var, value in ((ties_before, ties), (before, members)):
                part = found.total(f"{var.name}_here", value, many.name)
                found.say(Let(var, Op("+", (Ref(var), part))))

        found.loop(many, Number(0), found.chunks, one)
        found.say(Comment(f"{found.counted}, the length of each list"))
        found.say(Store(counted, found.row, Op("min", (Ref(before), found.length))))

        def clear() -> None:
            at = Index(many.name)
            guard = Op("<", (at, found.length))
            found.say(Store(self.search.selection, found.listed(at), Number(0), guard))

        found.say(Comment("places behind as many as the rank has coordinates hold 0"))
        found.loop(many, found.size(self.rank), found.length, clear)
        return self.finish(found, "Finds the places of each tile's members, on the way to")

    def write(self) -> Nest:
        """Write the members of each tile to their places."""
        found = self.lowering("", True, self.search.selection)
        counted = next(t for t in self.kernel.writes if t != self.search.selection)
        found.look()
        above, ties = found.members()
        chosen, along = above, (self.rank,)
        if ties is not None:
            found.say(Comment("of the numbers equal to the bound the first ones"))
            taken = found.fetch(self.named("taken"), found.here)
            ahead = found.upto("ties_upto", Cast(ties, "int32"), self.rank)
            chosen = Op("or", (above, Op("and", (ties, Op("<=", (ahead, taken))))))
        chosen = Ref(found.let(found.names.take("chosen"), chosen, along, "bool"))
        first = found.fetch(self.named("first"), found.here)
        upto = found.upto("places", Cast(chosen, "int32"), self.rank)
        place = Op("-", (Op("+", (first, upto)), Number(1)))
        at = Ref(found.let(found.names.take("at"), place, along, "int32"))
        found.say(Comment(str(found.einsum)))
        guard = Op("and", (chosen, Op("<", (at, found.length))))
        name, own = self.search.selection, Index(self.rank)
        found.say(Store(name, found.listed(at), own, guard))
        found.say(Comment("behind its end a list holds 0"))
        count = found.fetch(counted, found.row)
        ends = [Op("<", (own, x)) for x in (found.length, found.size(self.rank))]
        behind = Op("and", (Op(">=", (own, count)), *ends))
        found.say(Store(name, found.listed(own), Number(0), behind))
        return self.finish(found, "Lists the members in each tile:")
