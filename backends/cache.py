"""The cache folder: generated kernels as files, and records of what tuning measured.

::

    <folder>/kernels/<name>_<hash>.py     one generated kernel a file, to be opened and stepped in
    <folder>/tuning.json                  key -> record, written under a lock

The folder is ``EINFALL_CACHE_DIR``, else ``$XDG_CACHE_HOME/einfall``, else ``~/.cache/einfall``.
Everything in it may be deleted at any time. Files are written under a temporary name and then
renamed, so a reader sees a whole file or none, whatever other processes do.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..codegen.kernel import Kernel
from ..ir.errors import BackendError

log = logging.getLogger(__name__)

Record = dict[str, Any]
"""What JSON can hold."""


def cache_folder() -> Path:
    """Return the cache folder, which may not exist yet. The environment is read at each call."""
    if folder := os.environ.get("EINFALL_CACHE_DIR"):
        return Path(folder).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "einfall"


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions on which generated text and its timings depend, by name."""

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            # A source tree that was never installed, or a platform without this package.
            return "none"

    packages = [(name, version(name)) for name in ("einfall", "triton", "torch")]
    return (*packages, ("python", platform.python_version()))


def source_hash(text: str) -> str:
    """Return the hash that names a generated text: of the text and ``versions()``, 20 digits."""
    return hashlib.sha256(json.dumps([text, versions()]).encode()).hexdigest()[:20]


def store_source(kernel: Kernel) -> Path:
    """Write a kernel's text into the cache and return the file; the same text, the same file.

    A file that is there and holds something else (cut short, edited) is replaced.

    Raises
    ------
    BackendError : the folder cannot be written.
    """
    path = cache_folder() / "kernels" / f"{kernel.name}_{source_hash(kernel.text)}.py"
    try:
        if path.read_bytes() == kernel.text.encode():
            return path
    except OSError:
        # Not there yet, or not readable: whether it can be written is for the next line to say.
        pass
    write_whole(path, kernel.text)
    return path


def write_whole(path: Path, text: str) -> None:
    """Write ``text`` so that every reader sees the old file or the new one, never a part."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        # mkstemp makes files that nobody else may read; a shared folder wants the usual rights.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise BackendError(
            f"the cache folder must be writable to hold {path.name}, and {path.parent} is not"
            f" ({error.strerror}); set EINFALL_CACHE_DIR to a folder that is"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Records:
    """A JSON file of records by key, shared by processes: read freely, written under a lock."""

    path: Path

    def get(self, key: str) -> Record | None:
        """Return the record of ``key``, or None."""
        return self.all().get(key)

    def put(self, key: str, record: Record) -> None:
        """Write the record of ``key``; other processes' records are kept."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            records = self.all()
            records[key] = record
            write_whole(self.path, json.dumps(records, indent=1, sort_keys=True) + "\n")

    def all(self) -> dict[str, Record]:
        """Return every record. A file that is no JSON object is reported and read as empty."""
        try:
            records = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            log.warning("%s is not JSON (%s); its records are measured again", self.path, error)
            return {}
        if not isinstance(records, dict):
            log.warning("%s holds no JSON object; its records are measured again", self.path)
            return {}
        return records


def tuning_records() -> Records:
    """Return the store of tuning results in the cache folder."""
    return Records(cache_folder() / "tuning.json")
