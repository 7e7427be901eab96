"""The library of declared variants: ``einfall.examples.causal`` is a ``Cascade``.

Each variant is one ``.einsum`` file of this folder, read when it is first asked for. Those in
``refused/`` can be declared and interpreted, but no single walk over their keys exists; they show
what the compiler says then. ``examples/inputs.py`` makes arguments for all of them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from einfall.ir.cascade import Cascade
from einfall.ir.notation import cascade

__all__ = ["names", "refused"]

FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """Return the names of the declared variants, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.einsum")))


def refused() -> tuple[str, ...]:
    """Return the names of the variants that cannot be computed in one walk, sorted."""
    return tuple(sorted(path.stem for path in (FOLDER / "refused").glob("*.einsum")))


@cache
def _read(path: Path) -> Cascade:
    return cascade(path)


def __getattr__(name: str) -> Cascade:
    for path in (FOLDER / f"{name}.einsum", FOLDER / "refused" / f"{name}.einsum"):
        if path.is_file():
            return _read(path)
    raise AttributeError(
        f"no example is called {name!r}; there are {', '.join(names() + refused())}"
    )


def __dir__() -> list[str]:
    return [*__all__, *names(), *refused()]
