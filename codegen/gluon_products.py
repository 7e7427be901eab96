"""Issue products and wait for them, for one consumer: its operands, its turn, its accumulators."""

from __future__ import annotations

from .gluon_values import GluonPrinter
from .loop_nest import Dot, Ref
from .operands import bare
from .schedule import Late


class Products(GluonPrinter):
    """One consumer's rows of every product, and when their operands may be fetched over."""

    def turn(self, name: str) -> None:
        """Take or pass the turn at the tensor cores, where consumers have turns."""
        if self.crew.turns:
            self.add(f"{name}(CONSUMER)")

    def products(self, step: str) -> None:
        """Issue a tile's early products, when it is this consumer's turn."""
        self.turn("take_turn")
        got: set[str] = set()
        for s in self.plan.early:
            if not isinstance(s, Dot):
                self.statement(s)
                continue
            left, right = bare(s.left), bare(s.right)
            assert left is not None and right is not None
            if right.name not in got:
                got.add(right.name)
                self.get(right.name, step)
            start = "nothing, use_acc=False" if s.start is None else s.var.name
            held = next(x for x in self.plan.held if x.var.name == left.name)
            name = left.name if held.load is not None else f"{left.name}_held"
            self.add(
                f"{s.var.name} = warpgroup_mma({name}, {right.name}.permute((1, 0)), {start}, "
                "is_async=True)"
            )

    def get(self, name: str, step: str) -> None:
        """Wait for a fetched tile."""
        load = next(x for x in self.plan.fetched if x.var.name == name)
        shape = f"[{', '.join(self.extent(a) for a in load.var.axes)}]"
        self.add(f"{name} = filled({name}_ring, {name}_full, {step}).reshape({shape})")

    @property
    def own(self) -> str:
        """The place of a consumer's rows among operands that stay."""
        return "own" if self.spare else "CONSUMER"

    def begun(self, reached: tuple[str, ...]) -> str:
        """Say that accumulators hold something where the walk has reached its second tile."""
        if not self.spare:
            return ""
        return f"use_acc={reached[0]} > {self.plan.sections[0].loop.tile}, "

    def late_products(self, step: str, begun: str) -> None:
        """Issue the late products of a tile."""
        got: set[str] = set()
        for k, x in enumerate(self.plan.late):
            if x.said is not None:
                self.statement(x.said)
            if k == 0 and not self.narrow:
                self.make_operands()
            if x.right.name not in got:
                got.add(x.right.name)
                self.get(x.right.name, step)
            name, left = x.accumulator.name, self.operand(k)
            self.add(
                f"{name} = warpgroup_mma({left}, {x.right.name}, {name}, {begun}is_async=True)"
            )

    def wait_late(self, step: str, *, split: bool) -> None:
        """Wait for the late products, and let their operands be fetched over."""
        late = self.plan.late
        if not late:
            return
        if split:
            ring = late[-1].right.name
            self.add("# a wait that is over ends the block, so that no work sinks below the next")
            self.add(f"filled({ring}_ring, {ring}_full, {step})")
        self.wait(0, [x.accumulator.name for x in late])
        for load in self.plan.fetched:
            if self.plan.read_late(load):
                self.add(f"release({load.var.name}_empty, {step})")

    def wait(self, pending: int, names: list[str]) -> None:
        """Wait until at most ``pending`` products run."""
        comma = "," if len(names) == 1 else ""
        listed = ", ".join(names)
        self.add(f"{listed} = warpgroup_mma_wait({pending}, deps=({listed}{comma}))")

    def carry(self) -> None:
        """Carry the late products' accumulators to the new frame; make the next ones' operands."""
        self.rescale()
        if self.narrow:
            self.make_operands()

    def rescale(self) -> None:
        """Carry the late products' accumulators to the new frame."""
        for x in self.plan.late:
            if x.factor is not None:
                text = self.broadcast(Ref(x.factor), x.accumulator.axes)
                self.add(f"{x.accumulator.name} = {x.accumulator.name} * {text}")

    @property
    def narrow(self) -> bool:
        """Whether operands are carried from tile to tile in their own dtype.

        That takes half the registers, and an instruction for each pair: the compiler carries pairs
        of halves the other way round.
        """
        return self.crew.consumers > 2

    def make_operands(self) -> None:
        """Make the left operands of late products of what the work computed."""
        for name, x in self.operands().items():
            layout = self.left_layout(x)
            value = f"{x.operand.name}.to(tl.{x.dtype})"
            self.add(f"{name} = tl.convert_layout({value}, {layout}, assert_trivial=True)")

    def operands(self) -> dict[str, Late]:
        """Return the left operands of late products by name, each with a product that reads it."""
        found: dict[str, Late] = {}
        for x in self.plan.late:
            found.setdefault(f"{x.operand.name}_left", x)
        return found

    def operand(self, k: int) -> str:
        """Return the left operand of a late product; parts of one accumulator share it."""
        x = self.plan.late[k]
        name = f"{x.operand.name}_left"
        first = next(y for y in self.plan.late if y.operand == x.operand)
        if self.left_layout(first) == self.left_layout(x):
            return name
        return f"tl.convert_layout({name}, {self.left_layout(x)}, assert_trivial=True)"

    def left_layout(self, x: Late) -> str:
        """Return the layout of a left operand in registers."""
        return f"LEFT_OF_{self.layout(x.accumulator.axes)}"
