"""Bands as dots: rows times all diagonals of a tile, of which each point takes its own.

::

    r_band_first = M - 1 + m_first - p_first - 63
    r = R[r_band_first + r_band, e]                     rows of R along half of a tile's diagonals
    y_low = sum over e of q[p, e] * r[r_band, e]        a dot; y_high with the other half
    y_band = where(0 <= m, y_low, y_high)               at the column m of a row's diagonal
    y = y_band[p, (63 + m - p) % 64]                    each point's own

Of two diagonals that lie half of the band apart a row meets one inside the tile, so that halves are
chosen from before anything moves. A sum over columns lays them along the diagonals, and is two dots
with the same rows.
"""

from __future__ import annotations

from ..ir.band import Band, band, half_band
from ..ir.expression import Expression, RankVariable, free_ranks
from .arithmetic import NARROW
from .loop_nest import (
    Axis,
    Cast,
    Dot,
    Gather,
    Index,
    Load,
    Number,
    Op,
    Ref,
    Scalar,
    Value,
    Var,
    value_axes,
)
from .tiles import Parts, Tiles


class Bands(Tiles):
    """Where the diagonals of tiles are, and what is read along them."""

    def band_of(
        self, terms: tuple[Expression, ...], axis: Axis, parts: Parts, least: int
    ) -> Band | None:
        """Return the band that a product is along an axis, if tiles are as wide as dots take."""
        tiled = {a.rank for a in self.axes.values() if a.first and a.rank not in self.at}
        found = band(terms, axis.rank, frozenset(tiled))
        if found is None or any(t == found.access.tensor for t, _ in self.made):
            return None
        sides = [self.axis(found.own, parts), self.axis(found.across, parts), axis]
        rows = [
            self.axis(c.rank, parts)
            for c in found.access.coordinates
            if isinstance(c, RankVariable) and self.roles.get(c.rank) == "resident"
        ]
        if len(rows) != 1 or any(a is None or a.width < least for a in (*sides, *rows)):
            return None
        return None if value_axes(self.axes_probe(found.rest, parts)) else found

    def axes_probe(self, x: Expression, parts: Parts) -> Value:
        """Return a stand-in value with the axes of an expression, without loading anything."""
        ranks = tuple(r for r in free_ranks(x) if r in self.roles)
        return Op("and", tuple(Index(a) for a in self.axes_of(ranks, parts)))

    def diagonals(self, found: Band, parts: Parts) -> tuple[Axis, Var]:
        """Return an axis of half of a tile's diagonals, and the first one's coordinate."""
        own, across = (self.axes[r] for r in (found.own, found.across))
        key = (found.access, found.signs)
        if key not in self.bands:
            self.bands[key] = self.names.take(f"{found.access.tensor.lower()}_band")
        name = self.bands[key]
        if name not in self.axes:
            axis = Axis(name, name, width := half_band(own.width, across.width), valid=width)
            # behind one of the two and before the other, so that it can stand for either
            layout = list(self.axes)
            at = max(layout.index(own.name), layout.index(across.name))
            names = [*layout[:at], name, *layout[at:]]
            self.axes = {n: axis if n == name else self.axes[n] for n in names}
        first = self.tile(found.rest, parts, address=True)
        for rank, sign in found.signs:
            first = Op("+" if sign > 0 else "-", (first, Scalar(self.axes[rank].first)))
        before = sum(self.axes[r].width - 1 for r, sign in found.signs if sign < 0)
        value = Op("-", (first, Number(before))) if before else first
        return self.axes[name], self.let(f"{name}_first", value, (), "int32")

    def load_band(self, found: Band, axis: Axis, first: Value, parts: Parts) -> Value:
        """Read what lies along half of the diagonals, 0 where the tensor ends before them."""
        place: Value = Op("+", (first, Index(axis.name)))
        access = found.access
        coordinates = tuple(
            place if k == found.position else self.tile(c, parts, address=True)
            for k, c in enumerate(access.coordinates)
        )
        key = (access.tensor, coordinates)
        if key in self.loads[-1]:
            return Ref(self.loads[-1][key])
        axes = self.ordered(frozenset().union(*(value_axes(c) for c in coordinates)))
        extent = Scalar(f"{access.tensor}_size_{found.position}")
        tests: list[Value] = [Op("<=", (Number(0), place)), Op("<", (place, extent))]
        for name in axes:
            if self.axes[name].padded:
                end = Number(self.axes[name].offset + self.axes[name].valid)
                tests.append(Op("<", (Index(name), end)))
        name = self.names.tile(access.tensor)
        if any(v.name == name for level in self.loads for v in level.values()):
            name = self.names.take(name)
        var = Var(name, axes, self.dtypes.get(access.tensor, "float32"))
        self.say(Load(var, access.tensor, coordinates, Op("and", tuple(tests))))
        self.loads[-1][key] = var
        return Ref(var)

    def halves(
        self, found: Band, axis: Axis, first: Var, parts: Parts
    ) -> tuple[tuple[Value, Value], Value]:
        """Return what lies along the two halves of the diagonals, and where the first one counts.

        For one row, of two diagonals that lie half of the band apart only one is in the tile.
        """
        second = Op("+", (Ref(first), Number(axis.width)))
        rows = (
            self.load_band(found, axis, Ref(first), parts),
            self.load_band(found, axis, second, parts),
        )
        column = self.column(found, axis, first, parts)
        if dict(found.signs)[found.across] > 0:
            return rows, Op("<=", (Number(0), column))
        return rows, Op("<", (column, Number(self.axes[found.across].width)))

    def column(self, found: Band, axis: Axis, first: Var, parts: Parts) -> Value:
        """Return where in the tile each row meets a diagonal of the first half."""
        signs, across = dict(found.signs), self.axes[found.across]
        place: Value = Op("+", (Ref(first), Index(axis.name)))
        place = Op("-", (place, self.tile(found.rest, parts, address=True)))
        place = Op("-" if signs[found.own] > 0 else "+", (place, Index(found.own)))
        if signs[found.across] > 0:
            return Op("-", (place, Scalar(across.first)))
        return Op("-", (Op("neg", (place,)), Scalar(across.first)))

    def along_band(
        self, name: str, found: Band, parts: Parts, along: Axis, side: Value, band: tuple[Axis, Var]
    ) -> Var:
        """Multiply rows with all diagonals, and give each point what is on its own."""
        axis, first = band
        axes = self.ordered(frozenset((found.own, axis.name)))
        halves, counts = self.halves(found, axis, first, parts)
        made: list[Value] = []
        for word, rows in zip(("low", "high"), halves, strict=True):
            pair = self.matched(side, rows)
            left, right = pair if axes[0] == found.own else reversed(pair)
            var = Var(self.names.take(f"{name}_{word}"), axes)
            self.say(Dot(var, left, right, along.name, None))
            made.append(Ref(var))
        both = self.let(self.names.take(f"{name}_band"), Op("where", (counts, *made)), axes)
        place = self.tile(found.rest, parts, address=True)
        for rank, sign in sorted(found.signs, key=lambda pair: -pair[1]):
            place = Op("+" if sign > 0 else "-", (place, Index(rank)))
        step = self.let(self.names.take(f"{name}_diagonal"), Op("-", (place, Ref(first))))
        width = Number(axis.width)
        place = Op("where", (Op("<", (Ref(step), width)), Ref(step), Op("-", (Ref(step), width))))
        result = Var(name, self.ordered(frozenset((found.own, found.across))))
        self.say(Gather(result, Ref(both), place, axis.name))
        return result

    def across_band(
        self,
        name: str,
        found: Band,
        parts: Parts,
        value: Value,
        band: tuple[Axis, Var],
        start: Value | None,
    ) -> Var:
        """Lay a tile's columns along its diagonals, and multiply by what is read there."""
        axis, first = band
        across = self.axes[found.across]
        halves, counts = self.halves(found, axis, first, parts)
        value, _ = self.matched(value, halves[0])
        dtype = self.dtype(value)
        points = self.ordered(frozenset((found.own, found.across)))
        tile = Ref(self.let(self.names.take(f"{name}_points"), value, points, dtype))
        column = self.column(found, axis, first, parts)
        step = Number(axis.width)
        other = Op("+" if dict(found.signs)[found.across] > 0 else "-", (column, step))
        place: Value = Op("where", (counts, column, other))
        laid = self.ordered(frozenset((found.own, axis.name)))
        inside: Value | None = None
        if across.width < axis.width:
            inside = Op(
                "and", (Op("<=", (Number(0), place)), Op("<", (place, Number(across.width))))
            )
            place = Op("min", (Op("max", (place, Number(0))), Number(across.width - 1)))
        gathered = Var(self.names.take(f"{name}_band"), laid, dtype)
        self.say(Gather(gathered, tile, place, across.name))
        here: Value = Ref(gathered)
        if inside is not None:
            here = Op("where", (inside, here, Number(0.0)))
        var = Var(name, self.ordered((value_axes(halves[0]) - {axis.name}) | {found.own}))
        nothing = Number(0.0)
        for rows, pair in zip(halves, ((here, nothing), (nothing, here)), strict=True):
            spread = self.cast(Op("where", (counts, *pair)), dtype)
            _, rows = self.matched(value, rows)
            left, right = (spread, rows) if var.axes[0] == found.own else (rows, spread)
            self.say(Dot(var, left, right, axis.name, start))
            start = Ref(var)
        return var

    def matched(self, left: Value, right: Value) -> tuple[Value, Value]:
        """Give both operands of a dot one dtype.

        What was computed here, in float32, takes the dtype of the operand that comes from memory;
        where both were computed, the widest float dtype that the kernel reads.
        """
        goal = self.common_dtype(left, right)
        return self.cast(left, goal), self.cast(right, goal)

    def common_dtype(self, left: Value, right: Value) -> str:
        """Return the dtype that both operands of a dot take."""
        dtypes = [self.dtype(left), self.dtype(right)]
        loaded = [d for d in dtypes if d in NARROW]
        if not loaded:
            floats = [d for t in self.kernel.reads if (d := self.dtypes.get(t, "")) != ""]
            narrow = {d for d in floats if d in NARROW}
            wide = {d for d in floats if d in ("float32", "float64")}
            return narrow.pop() if len(narrow) == 1 and not wide else "float32"
        return loaded[0] if len(set(loaded)) == 1 else "float32"

    def cast(self, value: Value, dtype: str) -> Value:
        """Return a value in a dtype; a count by way of the float that it stands for."""
        if self.dtype(value) in ("bool", "int32", "int64"):
            value = self.real(value)
        return value if self.dtype(value) == dtype else Cast(value, dtype)
