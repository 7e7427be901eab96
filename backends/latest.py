"""Latest kinds: the arguments that came last, told by what torch's compiler tells them by.

A model calls with the same few kinds of arguments again and again. Making a key of shapes, strides
and dtypes takes longer than a launch; asking whether tensors are like those of the last calls takes
a tenth of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .launch import Prepared, Ready
from .memory import likeness

KINDS = 4
"""How many kinds are asked for; what is older is found by its key."""

Entry = tuple[Callable[..., bool], list[type], dict[str, Any], Ready, Prepared]


class Latest:
    """The kinds of arguments that were answered last, of a function of ``count`` tensors."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.entries: tuple[Entry, ...] = ()

    def answer(self, tensors: tuple[Any, ...], parameters: dict[str, Any]) -> Any:
        """Answer arguments of one of the latest kinds, others with NotImplemented."""
        if len(tensors) == self.count:
            for alike, types, values, quick, _ in self.entries:
                # types too, since 1, 1.0 and True are equal and mean three kernels
                if alike(*tensors) and (
                    not (parameters or values)
                    or ([*map(type, parameters.values())] == types and parameters == values)
                ):
                    return quick(*tensors)
        return NotImplemented

    def add(
        self, prepared: Prepared, tensors: tuple[torch.Tensor, ...], parameters: dict[str, Any]
    ) -> None:
        """Put a kind first, if all that it launches is compiled.

        What is prepared alike may be of several kinds, such as in inference mode and outside.
        """
        same = [x for x in self.entries if x[4] is prepared and x[0](*tensors)]
        others = tuple(x for x in self.entries if x not in same)
        if same:
            entry = same[0]
        else:
            alike = likeness(tensors)
            quick = None if alike is None else prepared.quicken()
            if quick is None or alike is None:
                return
            types = [*map(type, parameters.values())]
            entry = (alike, types, dict(parameters), quick, prepared)
        self.entries = (entry, *others[: KINDS - 1])
