"""Bands as dots: rows times all diagonals of a tile, of which each point takes its own.

::

    r_band_first = M - 1 + m_first - p_first - 63
    r = R[r_band_first + r_band, e]                     the rows of R along a tile's diagonals
    y_band = sum over e of q[p, e] * r[r_band, e]       a dot
    y = y_band[p, 63 + m - p]                           each point's own

A sum over columns lays them along the diagonals, and is a dot with the same rows.
"""

from __future__ import annotations

from ..ir.band import Band, band, band_width
from ..ir.expression import Expression, RankVariable, free_ranks
from .loop_nest import (
    Axis,
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
        """Return the axis of a tile's diagonals, and the first one's coordinate."""
        own, across = (self.axes[r] for r in (found.own, found.across))
        key = (found.access, found.signs)
        if key not in self.bands:
            self.bands[key] = self.names.take(f"{found.access.tensor.lower()}_band")
        name = self.bands[key]
        if name not in self.axes:
            axis = Axis(name, name, width := band_width(own.width, across.width), valid=width)
            # behind one of the two and before the other, so that it can stand for either
            layout = list(self.axes)
            at = max(layout.index(own.name), layout.index(across.name))
            names = [*layout[:at], name, *layout[at:]]
            self.axes = {n: axis if n == name else self.axes[n] for n in names}
        first = self.tile(found.rest, parts, address=True)
        for rank, sign in found.signs:
            first = Op("+" if sign > 0 else "-", (first, Scalar(self.axes[rank].first)))
        less = Number(self.steps_before(found))
        var = self.let(f"{name}_first", Op("-", (first, less)), (), "int32")
        return self.axes[name], var

    def steps_before(self, found: Band) -> int:
        """Return where the diagonal of a tile's first point lies among its diagonals."""
        return sum(self.axes[r].width - 1 for r, sign in found.signs if sign < 0)

    def load_band(self, found: Band, axis: Axis, first: Var, parts: Parts) -> Value:
        """Read what lies along the diagonals of a tile, 0 where the tensor ends before them."""
        place: Value = Op("+", (Ref(first), Index(axis.name)))
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

    def along_band(
        self, name: str, found: Band, axis: Axis, operands: tuple[Value, Value], band_axis: Axis
    ) -> Var:
        """Multiply rows with all diagonals, and give each point what is on its own."""
        axes = self.ordered(frozenset((found.own, band_axis.name)))
        whole = Var(self.names.take(f"{name}_band"), axes)
        left, right = operands if axes[0] == found.own else reversed(operands)
        self.say(Dot(whole, left, right, axis.name, None))
        less = self.steps_before(found)
        place: Value | None = Number(less) if less else None
        for rank, sign in sorted(found.signs, key=lambda pair: -pair[1]):
            row = Index(rank, row=True)
            place = row if place is None else Op("+" if sign > 0 else "-", (place, row))
        assert place is not None, "what goes backwards has steps before it"
        points = self.ordered(frozenset((found.own, found.across)))
        result = Var(name, points)
        self.say(Gather(result, Ref(whole), place, band_axis.name))
        return result

    def across_band(
        self,
        name: str,
        found: Band,
        operands: tuple[Value, Value],
        band_axis: Axis,
        start: Value | None,
    ) -> Var:
        """Lay a tile's columns along its diagonals, and multiply by what is read there."""
        value, rows = operands
        own, across = self.axes[found.own], self.axes[found.across]
        points = self.ordered(frozenset((own.name, across.name)))
        tile = Ref(self.let(self.names.take(f"{name}_points"), value, points, self.dtype(value)))
        signs = dict(found.signs)
        place: Value = Index(band_axis.name)
        if less := self.steps_before(found):
            place = Op("-", (place, Number(less)))
        row = Index(own.name, row=True)
        place = Op("-" if signs[found.own] > 0 else "+", (place, row))
        if signs[found.across] < 0:
            place = Op("neg", (place,))
        inside = Op("and", (Op("<=", (Number(0), place)), Op("<", (place, Number(across.width)))))
        safe = Op("min", (Op("max", (place, Number(0))), Number(across.width - 1)))
        laid = self.ordered(frozenset((own.name, band_axis.name)))
        dtype = self.dtype(value)
        gathered = Var(self.names.take(f"{name}_anywhere"), laid, dtype)
        self.say(Gather(gathered, tile, safe, across.name))
        chosen = Op("where", (inside, Ref(gathered), Number(0.0)))
        spread = Ref(self.let(self.names.take(f"{name}_band"), chosen, laid, dtype))
        result = self.ordered((value_axes(rows) - {band_axis.name}) | {own.name})
        var = Var(name, result)
        left, right = (spread, rows) if result[0] == own.name else (rows, spread)
        self.say(Dot(var, left, right, band_axis.name, start))
        return var
