"""Options of ``compile`` and ``lower``, checked where they are given.

A value that is out of range would else be ignored, or fail far inside. Tiles, sizes and the like of
what the cascade does not have are no error, for one setting may serve several; the log says so.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..ir.cascade import Cascade
from ..ir.errors import BackendError, ShapeError
from ..ir.notation_words import suggestion
from .triton_arguments import FLOATS, INTEGERS
from .triton_targets import TARGETS

log = logging.getLogger("einfall")

ARCHITECTURE = re.compile(r"sm_([89]\d|1\d\d)a?|gfx[0-9a-f]{3,4}")
"""What Triton calls an architecture."""

MOST_WARPS, MOST_STAGES = 32, 16
"""A program has 1024 threads at most; no kernel was seen to gain by more than a few stages."""


def check_options(
    cascade: Cascade,
    *,
    target: Any = None,
    tiles: Any = None,
    num_warps: Any = None,
    num_stages: Any = None,
    parts: Any = None,
    inside: Any = (),
    static: Any = (),
    choice: Any = 0,
) -> None:
    """Check what ``compile`` and ``lower`` are told about kernels.

    Raises
    ------
    BackendError : a value is none that kernels can be made with.
    ShapeError : ``inside`` or ``static`` names what is no input of the cascade.
    """
    if target is not None and not (isinstance(target, str) and ARCHITECTURE.fullmatch(target)):
        raise BackendError(
            f"target is an architecture as Triton calls it ({', '.join(TARGETS)}); {target!r} given"
        )
    for rank, tile in _of_ranks("tiles", tiles, cascade, {"p": 64}).items():
        if not _whole(tile) or tile < 1 or tile & (tile - 1):
            raise BackendError(f"a tile is a power of two; {tile!r} given for rank {rank}")
    for rank, count in _of_ranks("parts", parts, cascade, {"m": 8}).items():
        if not _whole(count) or count < 0:
            raise BackendError(
                f"parts says in how many parts a rank is reduced, 1 for whole and 0 for the "
                f"launcher's choice; {count!r} given for rank {rank}"
            )
    if num_warps is not None and not (_power(num_warps) and num_warps <= MOST_WARPS):
        raise BackendError(f"num_warps is a power of two, 1 to {MOST_WARPS}; {num_warps!r} given")
    if num_stages is not None and not (_whole(num_stages) and 1 <= num_stages <= MOST_STAGES):
        raise BackendError(f"num_stages is a number, 1 to {MOST_STAGES}; {num_stages!r} given")
    if not _whole(choice) or choice < 0:
        raise BackendError(f"choice counts the partition's configurations from 0; {choice!r} given")
    promises = {"inside": "hold coordinates", "static": "seldom change"}
    for (word, what), names in zip(promises.items(), (inside, static), strict=True):
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise BackendError(
                f"{word} is a tuple of names, {word}=({cascade.inputs[0]!r},); {names!r} given"
            )
        for name in names:
            if name not in cascade.inputs:
                raise ShapeError(
                    f"{word} names inputs that {what}; {name} is no input of {cascade.name} "
                    f"({', '.join(cascade.inputs)})"
                )


def check_sizes(cascade: Cascade, sizes: Any) -> None:
    """Raise ShapeError for what is no size."""
    for rank, size in _of_ranks("sizes", sizes, cascade, {"e": 64}).items():
        if not _whole(size) or size < 0:
            raise ShapeError(f"the size of a rank is a number, 0 or more; {rank} = {size!r} given")


def check_dtypes(cascade: Cascade, dtype: Any, dtypes: Any) -> dict[str, str]:
    """Return the dtype of every input by name, from what ``lower`` is told.

    Raises
    ------
    BackendError : no kernel reads such a dtype.
    """
    named = dict.fromkeys(cascade.inputs, dtype)
    given = _mapping("dtypes", dtypes, {"Q": "float16"})
    _tell("dtypes", given, cascade.inputs, f"no input of {cascade.name}")
    for name, own in given.items():
        named[name] = own
    found = {name: str(named[name]).removeprefix("torch.") for name in cascade.inputs}
    for name, own in found.items():
        if own not in (*FLOATS, *INTEGERS):
            raise BackendError(
                f"{name} would be {own}, and kernels read {', '.join((*FLOATS, *INTEGERS))}"
            )
    return found


def _mapping(option: str, given: Any, like: Mapping[str, Any]) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise BackendError(f"{option} is a mapping, {option}={like}; {given!r} given")
    return given


def _of_ranks(
    option: str, given: Any, cascade: Cascade, like: Mapping[str, Any]
) -> Mapping[str, Any]:
    found = _mapping(option, given, like)
    _tell(option, found, cascade.ranks, f"no rank of {cascade.name}")
    return found


def _tell(option: str, given: Iterable[str], names: tuple[str, ...], what: str) -> None:
    """Say which names have no effect: settings may be shared by several cascades, or misspelled."""
    for name in given:
        if name not in names:
            log.warning(
                "%s names %r, which is %s (%s)%s",
                *(option, name, what, ", ".join(names), suggestion(str(name), names)),
            )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _power(value: Any) -> bool:
    return _whole(value) and value >= 1 and not value & (value - 1)
