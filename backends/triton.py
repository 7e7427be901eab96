"""Triton, as far as Einfall stands on it: from a kernel's text to a function that can be launched.

The one place that decides between Triton's compiler and its interpreter: Triton reads
``TRITON_INTERPRET`` while it is imported, and every ``@triton.jit`` after that must agree.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib import import_module
from threading import Thread
from typing import Any

from ..codegen.kernel import Kernel
from ..ir.errors import BackendError, VerificationError
from .cache import store_source
from .triton_key import keep_key

GLUON_VERSIONS = ("3.6.",)
"""Versions of Triton whose Gluon is known."""


@cache
def triton() -> Any:
    """Import Triton, which carries no types and is absent on some platforms.

    Raises
    ------
    BackendError : it is not installed.
    """
    try:
        return import_module("triton")
    except ImportError as error:
        raise BackendError(
            "the Triton back end needs the package triton, which is not installed here;"
            " install it (Linux only), or use backend='interpreter'"
        ) from error


@cache
def hashing() -> Thread:
    """Begin to find out Triton's key in a thread, once; ``load`` waits until that is done.

    Triton hashes its own files before it compiles, or finds what it compiled before. It takes
    0.4 s, nearly all without Python's lock, in which a cascade can be lowered; later processes know
    what came of it (``triton_key.py``).
    """
    thread = Thread(target=keep_key, args=(triton(),), name="einfall-hash", daemon=True)
    thread.start()
    return thread


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU, instead of being compiled.

    Raises
    ------
    BackendError : ``TRITON_INTERPRET`` was changed after Triton had been imported.
    """
    library = import_module("triton.language.standard")
    interpreted = not isinstance(library.cdiv, triton().runtime.JITFunction)
    wanted = bool(triton().knobs.runtime.interpret)
    if interpreted != wanted:
        was, now = ("1", "unset") if interpreted else ("unset", "1")
        raise BackendError(
            f"TRITON_INTERPRET must stay what it was when triton was imported: it was {was} and"
            f" is now {now}; set it before the program starts"
        )
    return interpreted


def load(kernel: Kernel) -> Any:
    """Return the kernel as a Triton function: ``load(kernel)[grid](*arguments)`` launches it.

    The text is written to the cache folder and imported from there, because ``@triton.jit`` reads
    the source of what it decorates. One text is imported once in a process.

    Raises
    ------
    BackendError : the cache folder cannot be written, or Triton is not there.
    VerificationError : the text is no Python module that defines the kernel with its arguments.
    """
    interpreting()  # refuses a changed environment before @triton.jit meets it
    if kernel.language == "gluon" and (reason := gluon_missing()):
        raise BackendError(f'kernel {kernel.name} is in Gluon, and {reason}; take emitter="tl"')
    if hashing.cache_info().currsize:
        hashing().join()
    function = load_text(kernel)
    expected = [argument.name for argument in kernel.arguments]
    if function.arg_names != expected:
        raise VerificationError(
            f"kernel {kernel.name} takes ({', '.join(function.arg_names)}) by its text and"
            f" ({', '.join(expected)}) by its argument list; please report this"
        )
    return function


def launch_options(kernel: Kernel) -> dict[str, Any]:
    """Return what a launch passes to Triton besides the arguments."""
    # Fused multiply-adds are asked for by name: later versions of Triton leave them out by default,
    # and the scale of an exponential would then cost an instruction of its own.
    options: dict[str, Any] = {
        "num_warps": kernel.num_warps,
        "num_stages": kernel.num_stages,
        "enable_fp_fusion": True,
    }
    if kernel.registers:
        options["maxnreg"] = kernel.registers
    return {**options, "launch_pdl": True} if kernel.follows else options


@cache
def gluon_missing() -> str:
    """Return why Gluon kernels cannot run here, "" if they can: their language is still moving."""
    try:
        version = str(triton().__version__)
    except BackendError:
        return "Triton is not installed"
    if interpreting():
        return "Triton's interpreter does not know Gluon"
    if not version.startswith(GLUON_VERSIONS):
        return f"Triton {version} may spell Gluon in another way than {', '.join(GLUON_VERSIONS)}"
    return ""


@cache
def overlapping(target: str) -> bool:
    """Whether kernels for a target may be launched while the one before them still runs."""
    architecture = target.removeprefix("sm_")
    if not (architecture.isdecimal() and int(architecture) >= 90):
        return False
    try:
        library = triton()
    except BackendError:
        return False
    return hasattr(library.language.extra.cuda, "gdc_wait") and not interpreting()


def source_class(kernel: Kernel) -> Any:
    """Return what Triton's compiler takes a kernel's text in: its language has a class each."""
    if kernel.language == "gluon":
        return import_module("triton.experimental.gluon._runtime").GluonASTSource
    return triton().compiler.ASTSource


_loaded: dict[tuple[str, str, tuple[str, ...]], Any] = {}


def load_text(kernel: Kernel) -> Any:
    """Import ``kernel.text`` once, and return what it defines under ``kernel.name``."""
    key = (kernel.name, kernel.text, kernel.lengths)
    if key in _loaded:
        return _loaded[key]
    path = store_source(kernel)
    name = f"einfall_kernel_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        function = getattr(module, kernel.name)
    except Exception as error:
        del sys.modules[name]
        raise VerificationError(
            f"the generated text of kernel {kernel.name} is no module that defines it"
            f" ({type(error).__name__}: {error}); see {path}, and please report this"
        ) from error
    if kernel.lengths and kernel.language == "triton" and not interpreting():
        # Triton would compile again for a length that is, or is not, a multiple of 16
        function = triton().jit(function.fn, do_not_specialize=list(kernel.lengths))
    return _loaded.setdefault(key, function)


def illegal(error: BaseException) -> bool:
    """Whether an error says that this mapping cannot be compiled or launched on this machine."""
    runtime, compiler = triton().runtime.errors, triton().compiler.errors
    kinds = (runtime.OutOfResources, runtime.PTXASError, compiler.CompilationError)
    # MLIR's own failures come without a class.
    found = isinstance(error, kinds) or "PassManager::run failed" in str(error)
    return found or (isinstance(error, BackendError) and illegal(error.__cause__ or Exception()))


def refusal(error: Exception, kernel: str) -> BackendError:
    """Return what to say where Triton cannot compile or launch a kernel."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    said = str(root).strip().splitlines() or [type(root).__name__]
    return BackendError(
        f"Triton cannot compile or launch kernel {kernel} here ({said[0][:300]}); give compile "
        'other tiles, num_warps=8 or num_stages=1, or emitter="tl"'
    )
