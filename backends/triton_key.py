"""What tells Triton's builds apart, kept between processes.

Triton hashes its own files, 400 MB, in every process before it finds what it compiled before. They
do not change from process to process, so what came of them is kept in the cache folder, under the
place, the size and the time of change of each, which is what Python knows its bytecode by::

    <folder>/triton/<hash of all that>.txt     a checksum, and Triton's key in the next line
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from functools import wraps
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

from ..ir.errors import BackendError
from .cache import cache_folder, write_whole

log = logging.getLogger(__name__)

VERSIONS = ("3.6.",)
"""Versions of Triton of which it is known which files they hash."""


def keep_key(library: Any) -> None:
    """Let Triton know its key, from the cache folder where that has it; else hash, and keep it."""
    home = library.runtime.cache
    make = getattr(home, "triton_key", None)
    if make is None:
        return
    if not str(library.__version__).startswith(VERSIONS):
        make()
        return
    try:
        path = cache_folder() / "triton" / f"{stamp(library)}.txt"
    except (OSError, RuntimeError) as error:  # a file that cannot be looked at; no home folder
        log.info("Triton's key is not kept: %s", error)
        make()
        return
    key = read(path)
    if key is not None:
        home.triton_key = wraps(make)(lambda: key)
        return
    key = make()
    try:
        write_whole(path, f"{checksum(key)}\n{key}")
    except BackendError as error:
        # kernels are written there too, and will say so
        log.info("%s", error)


def stamp(library: Any) -> str:
    """Return the hash of where Triton's files are, how large, and when they were changed."""
    folder = Path(library.__file__).parent
    found = [(str(x), s.st_size, s.st_mtime_ns) for x in files(folder) for s in (x.stat(),)]
    return hashlib.sha256(json.dumps([library.__version__, found]).encode()).hexdigest()[:20]


def files(folder: Path) -> Iterator[Path]:
    """Yield what Triton hashes: how it keeps what it compiled, compilers, back ends, languages."""
    yield folder / "runtime" / "cache.py"
    ends = tuple(all_suffixes())
    for part in ("_C", "backends", "compiler", "language"):
        for place, folders, names in os.walk(folder / part, followlinks=True):
            folders[:] = sorted(x for x in folders if x != "__pycache__")
            yield from (Path(place, x) for x in sorted(names) if x.endswith(ends))


def read(path: Path) -> str | None:
    """Return the key that a file holds, None if there is no such file or it is not whole."""
    try:
        told, _, key = path.read_text().partition("\n")
    except (OSError, ValueError):
        return None
    return key if told == checksum(key) else None


def checksum(key: str) -> str:
    """Return what tells a key from one that was cut short or edited."""
    return hashlib.sha256(key.encode()).hexdigest()
