"""A process that has imported everything and forks for each compilation ahead of time.

Importing torch and Triton takes longer than compiling a kernel. Triton decides on import whether it
interprets, and its passes can end the process when they fail, so that a compilation needs a process
of its own; one that is forked from another has imported already. ::

    caller --> nursery : a line of JSON, [request, answer, log, seconds, environment]
    nursery --> caller : a line, the exit status of the fork; "late" if it took too long

The fork reads the pickled request, writes the answer, and its outputs go to the log.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .triton import hashing
from .triton_compile import Request, work

LATE = "late"

LOCK = threading.Lock()
"""Held while a nursery works: its threads' compilations run one after the other."""


@dataclass(slots=True)
class Nursery:
    """The process, and of which process it is; a fork of that one needs another."""

    owner: int
    process: subprocess.Popen[str]
    errors: IO[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a compilation.

    answer : what it gave, None if it gave nothing. status : of its process, negative for a signal.
    late : whether it was ended for taking too long. said : the end of what it printed.
    """

    answer: Any
    status: int
    late: bool
    said: str


def compile_apart(request: Request, seconds: float) -> Outcome:
    """Compile in a process of its own that ends after so many seconds at the latest."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    with tempfile.TemporaryDirectory(prefix="einfall-") as folder, LOCK:
        asked, answer, log = (str(Path(folder, name)) for name in ("request", "answer", "log"))
        Path(asked).write_bytes(pickle.dumps(request))
        told = ask(json.dumps([asked, answer, log, seconds, environment]))
        said = Path(log).read_text(errors="replace") if Path(log).exists() else told
        there = Path(answer)
        found = pickle.loads(there.read_bytes()) if there.exists() else None
    late = told == LATE
    status = int(told) if told.lstrip("-").isdecimal() else 1
    return Outcome(found, status, late, said.strip()[-2000:])


def ask(line: str) -> str:
    """Return the nursery's answer to a line, or what it said when it ended; starts it if needed."""
    global _nursery
    if _nursery is None or _nursery.owner != os.getpid() or _nursery.process.poll() is not None:
        _nursery = begin()
    to, back = _nursery.process.stdin, _nursery.process.stdout
    assert to is not None and back is not None
    try:
        to.write(line + "\n")
        to.flush()
        told = back.readline()
    except BrokenPipeError:
        told = ""
    except BaseException:
        # interrupted: nobody must take its answer for that to another question
        _nursery.process.kill()
        _nursery = None
        raise
    if told:
        return told.strip()
    _nursery.process.wait()
    _nursery.errors.seek(0)
    said, _nursery = _nursery.errors.read().decode(errors="replace"), None
    return said


_nursery: Nursery | None = None


def begin() -> Nursery:
    """Start a nursery, which ends when this process closes its input, or ends."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    # The package may be importable only because of how this process was started.
    root = str(Path(__file__).absolute().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    errors = tempfile.TemporaryFile()
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=environment,
        text=True,
    )
    return Nursery(os.getpid(), process, errors)


def serve() -> None:
    """Fork for each line of standard input, until it ends."""
    # every fork would do it again
    hashing().join()
    # Ctrl+C is the caller's, who closes the input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in iter(sys.stdin.readline, ""):
        request, answer, log, seconds, environment = json.loads(line)
        child = os.fork()
        if not child:
            with open(log, "wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            os.environ.clear()
            os.environ.update(environment)
            work(Path(request), Path(answer))
            os._exit(0)
        print(awaited(child, seconds), flush=True)


def awaited(child: int, seconds: float) -> str:
    """Return the exit status of a process, or ``late`` having ended it."""
    end, pause = time.monotonic() + seconds, 0.001
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return str(os.waitstatus_to_exitcode(status))
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return LATE
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
