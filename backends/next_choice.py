"""Next choice: where Triton cannot compile a kernel, the partition's next configuration is tried.

Triton and the assembler behind it refuse, or die of, a few legal kernels. That shows at the first
launch. What is tried instead is other tiles of the same kernels, said in the log and in
``explain()``; where no configuration can be compiled, the first one's error stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..ir.errors import BackendError
from .launch import Prepared, Ready
from .triton import illegal

Choice = Callable[[BackendError, tuple[Any, ...]], Prepared | None]
"""Prepares another configuration for tensors, given why the first cannot be; None for one met."""


@dataclass(slots=True)
class Tried:
    """Kernels that answer, and what else there is as long as none has run."""

    prepared: Prepared
    others: Iterable[Choice]
    ran: bool = False

    def run(self, *tensors: Any) -> Any:
        """Run the kernels, the first time those that can be compiled."""
        if self.ran:
            return self.prepared.run(*tensors)
        try:
            found = self.prepared.run(*tensors)
        except BackendError as error:
            if not illegal(error):
                raise
            found = self.next(error, tensors)
        self.ran, self.others = True, ()
        return found

    def next(self, error: BackendError, tensors: tuple[Any, ...]) -> Any:
        """Run the first of the other configurations that can be compiled."""
        for choice in self.others:
            prepared = choice(error, tensors)
            if prepared is None:
                continue
            try:
                found = prepared.run(*tensors)
            except BackendError as again:
                if not illegal(again):
                    raise
                continue
            self.prepared = prepared
            return found
        raise error

    def quicken(self) -> Ready | None:
        """Return what answers most calls sooner, of the kernels that ran."""
        return self.prepared.quicken()


def with_others(prepared: Prepared, others: Iterable[Choice]) -> Prepared:
    """Return how arguments are answered, by other kernels where these cannot be compiled."""
    tried = Tried(prepared, others)
    return Prepared(tried.run, tried.quicken)
