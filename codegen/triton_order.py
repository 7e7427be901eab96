"""Print what puts the elements of a tile in order, and what counts them by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loop_nest import Histogram, Order, value_axes

if TYPE_CHECKING:
    from .triton import Printer
from .positions import is_read


def print_order(printer: Printer, order: Order) -> None:
    """Print a sort: what decides is packed in one number, and unpacked behind it."""
    axes = printer.ordered(value_axes(order.group) | {order.axis})
    name = printer.names.take(f"{order.var.name}_order")
    place = printer.expand(order.axis, (order.axis,), axes)
    if order.value is None:
        packed = f"grouped({printer.broadcast(order.group, axes)}, {place})"
    else:
        texts = [printer.broadcast(x, axes) for x in (order.group, order.value)]
        packed = f"ranked({texts[0]}, {texts[1]}, {place})"
    printer.helpers.setdefault("ranked" if order.value else "grouped")
    (along,) = set(order.var.axes) - (set(axes) - {order.axis})
    first, at = printer.axes[along].width, axes.index(order.axis)
    if first < printer.axes[order.axis].width:
        printer.add(f"{name} = ~tl.topk(~{packed}, {first}, {at})")  # the least are wanted
    else:
        printer.add(f"{name} = tl.sort({packed}, {at})")
    if is_read(printer.nest, order.var):
        printer.helpers.setdefault("place_of")
        printer.add(f"{order.var.name} = place_of({name})")
    if order.values is not None:
        printer.helpers.setdefault("value_of")
        printer.add(f"{order.values.name} = value_of({name})")


def print_histogram(printer: Printer, statement: Histogram) -> None:
    """Print how often each number occurs; the number of bins is the width of the result."""
    axes = (statement.axis,)
    bins = printer.axes[statement.var.axes[0]].width
    value, guard = (printer.broadcast(x, axes) for x in (statement.value, statement.guard))
    printer.add(f"{statement.var.name} = tl.histogram({value}, {bins}, mask={guard})")
