"""What the command line does: a run with its check, an explanation, a measurement, a saved file."""

from __future__ import annotations

import difflib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.cascade import Cascade, Scalar
from ..ir.errors import BackendError, EinfallError
from ..passes.short_ranks import short_ranks
from .bench import OURS, Clock, Maker, Point, as_data, lines, measure, write
from .bench import draw as picture
from .command_inputs import default_sizes, example_inputs, integer_ends, shapes_of
from .compile import compile
from .explain import Explanation, explain
from .explain_numbers import listing
from .explain_text import loop_lines
from .interpreter import interpret
from .lowered import Lowered

TOLERANCE = {"float16": 2e-3, "bfloat16": 1e-2, "float32": 1e-5}
"""Relative error, in the L2 norm, that a kernel may have against float64."""

QUICK = 128
"""The longest rank that the interpreters are given unasked: a few tiles show as much."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user fixed: sizes of ranks, parameters, dtype, target, machine, emitter."""

    sizes: Mapping[str, Scalar]
    parameters: Mapping[str, Scalar]
    dtype: str
    target: str | None
    machine: str | None = None
    emitter: str = "auto"


def pairs(texts: Sequence[str]) -> dict[str, Scalar]:
    """Read ``NAME=NUMBER`` arguments; raises EinfallError for a text that is no such pair."""
    found: dict[str, Scalar] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            found[name] = int(value) if value.lstrip("-").isdigit() else float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise EinfallError(f"NAME=NUMBER is expected, for example m=4096; {text!r} given")
    return found


def parameters_of(cascade: Cascade, settings: Settings) -> dict[str, Scalar]:
    """Return every parameter's value; raises EinfallError for one without, or an unknown name."""
    values = dict(cascade.parameters) | dict(settings.parameters)
    unknown = [n for n in values if n not in dict(cascade.parameters)]
    if unknown:
        known = ", ".join(n for n, _ in cascade.parameters) or "none"
        raise EinfallError(f"{cascade.name} has no parameter {unknown[0]}; its parameters: {known}")
    missing = [n for n, v in values.items() if v is None]
    if missing:
        raise EinfallError(
            f"{cascade.name} needs a value of {listing(missing)}: add "
            + " ".join(f"--set {n}=64" for n in missing)
        )
    return {n: v for n, v in values.items() if v is not None}


def prepare(
    cascade: Cascade, settings: Settings, *, longest: int | None = None
) -> tuple[list[Any], dict[str, int], dict[str, Scalar]]:
    """Return example tensors on the CPU, the sizes of all ranks, and the parameters."""
    import torch

    dtype: torch.dtype = getattr(torch, settings.dtype)
    values = parameters_of(cascade, settings)
    given = dict(settings.sizes)
    sizes = default_sizes(cascade, given)
    if longest is not None:
        sizes = {r: n if r in given else min(n, longest) for r, n in sizes.items()}
    shapes = shapes_of(cascade, sizes, values)
    arrays = example_inputs(cascade, shapes, sizes)
    kinds = {True: torch.int32, False: dtype}
    tensors = [torch.from_numpy(x).to(kinds[x.dtype.kind == "i"]) for x in arrays]
    return tensors, sizes, values


def lowered(cascade: Cascade, settings: Settings, *, general: bool = False) -> Lowered:
    """Lower a cascade for example tensors; ``general``: only sizes of short ranks are fixed."""
    tensors, sizes, values = prepare_shapes(cascade, settings)
    f = compile(cascade, target=settings.target, emitter=settings.emitter)
    if not general:
        return f.lower(*tensors, **dict[str, Any](values))
    short = short_ranks(cascade, sizes)
    kinds = {
        n: str(t.dtype).removeprefix("torch.") for n, t in zip(cascade.inputs, tensors, strict=True)
    }
    return f.lower(
        sizes={r: n for r, n in sizes.items() if r in short}, dtypes=kinds, **dict[str, Any](values)
    )


def prepare_shapes(
    cascade: Cascade, settings: Settings
) -> tuple[list[Any], dict[str, int], dict[str, Scalar]]:
    """Return what ``prepare`` does, with tensors that have no memory."""
    import torch

    small, _, values = prepare(cascade, settings, longest=2)
    sizes = default_sizes(cascade, settings.sizes)
    shapes = shapes_of(cascade, sizes, values)
    named = zip(cascade.inputs, small, strict=True)
    return [torch.empty(shapes[n], dtype=t.dtype, device="meta") for n, t in named], sizes, values


def run(cascade: Cascade, settings: Settings, *, kernel: bool) -> int:
    """Run a cascade on what this machine has, check it against the interpreter, and explain it."""
    import torch

    gpu = torch.cuda.is_available()
    tensors, sizes, values = prepare(cascade, settings, longest=None if gpu else QUICK)
    keywords: dict[str, Any] = dict(values)
    print(cascade)
    print()
    exact = interpret(cascade, *tensors, **keywords)
    if gpu:
        f = compile(cascade, backend="triton", emitter=settings.emitter)
        found = f(*(t.cuda() for t in tensors), **keywords)
        print(f"On {torch.cuda.get_device_name()}, in {settings.dtype}, with {shown(sizes)}:")
        status = compare(cascade, found, exact, settings.dtype)
    else:
        print(f"There is no GPU here: numpy computed it in float64, with {shown(sizes)}.")
        for name, x in zip(cascade.outputs, several(exact), strict=True):
            print(f"  {name}: {summary(x)}")
        status = 0
        if kernel:
            status = run_in_triton_interpreter(cascade, settings)
        else:
            print("  Add --kernel to run the generated kernels too, in Triton's interpreter.")
    print()
    print(explained(cascade, settings))
    return status


def explained(cascade: Cascade, settings: Settings) -> Explanation:
    """Explain a cascade at example sizes, with example values of the integers that bounds read."""
    k = lowered(cascade, settings)
    shapes = k.known.shapes
    whole = integer_ends(cascade, shapes, k.known.sizes)
    only = {t: shapes[t] if t in whole else (1,) for t in cascade.inputs}
    arrays = example_inputs(cascade, only, k.known.sizes)
    values = {t: x for t, x in zip(cascade.inputs, arrays, strict=True) if t in whole}
    return explain(k, machine=settings.machine, tensors=values)


def several(found: Any) -> tuple[Any, ...]:
    """Return one output or several as a tuple."""
    return found if isinstance(found, tuple) else (found,)


def shown(sizes: Mapping[str, int]) -> str:
    """Write sizes as one says them."""
    return ", ".join(f"{r} = {n}" for r, n in sizes.items())


def summary(x: Any) -> str:
    """Say what an array holds."""
    array = np.asarray(x, np.float64)
    if not array.size:
        return f"shape {array.shape}, empty"
    finite = array[np.isfinite(array)]
    rest = array.size - finite.size
    more = f", {rest:,} infinite" if rest else ""
    if not finite.size:
        return f"shape {array.shape}{more}"
    return (
        f"shape {array.shape}, from {finite.min():+.4f} to {finite.max():+.4f}, "
        f"mean {finite.mean():+.6f}{more}"
    )


def run_in_triton_interpreter(cascade: Cascade, settings: Settings) -> int:
    """Run the kernels on the CPU in a process of their own: Triton decides when it is imported."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{cascade.name}.einsum"
        file.write_text(f"{cascade}\n")
        words = [sys.executable, "-m", "einfall.backends.command", str(file), settings.dtype]
        words += [f"{r}={n}" for r, n in settings.sizes.items()] + ["--"]
        words += [f"{n}={v}" for n, v in settings.parameters.items()]
        root = str(Path(__file__).absolute().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path}
        done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True)
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


def work(words: Sequence[str]) -> int:
    """Be the process of ``run_in_triton_interpreter``."""
    from ..ir.notation import cascade as parse

    file, dtype, *rest = words
    middle = rest.index("--")
    c = parse(Path(file))
    settings = Settings(pairs(rest[:middle]), pairs(rest[middle + 1 :]), dtype, None)
    tensors, _, values = prepare(c, settings, longest=QUICK)
    keywords: dict[str, Any] = dict(values)
    try:
        found = compile(c, backend="triton")(*tensors, **keywords)
    except EinfallError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("In Triton's interpreter, on the same numbers, the generated kernels give:")
    return compare(c, found, interpret(c, *tensors, **keywords), dtype)


def compare(cascade: Cascade, found: Any, exact: Any, dtype: str) -> int:
    """Print each output's error against the interpreter; 1 if one is too large."""
    limit = TOLERANCE.get(dtype, 1e-5)
    good = True
    for name, x, truth in zip(cascade.outputs, several(found), several(exact), strict=True):
        got, truth = x.double().cpu().numpy(), np.asarray(truth, np.float64)
        finite = np.isfinite(truth)
        same = bool(np.array_equal(got[~finite], truth[~finite]))
        gap = float(np.linalg.norm(got[finite] - truth[finite]))
        error = gap / max(float(np.linalg.norm(truth[finite])), 1e-30)
        fine = same and error <= limit
        good = good and fine
        verdict = "agrees with" if fine else "DIFFERS FROM"
        print(
            f"  {name} {verdict} the interpreter: relative error {error:.1e}, {limit:.0e} allowed"
        )
    return 0 if good else 1


@dataclass(frozen=True, slots=True)
class Bench:
    """What a measurement is told: sizes to go through, the others, how long, where to write.

    sweep : ranks that change together, with the sizes that each of them has in turn.
    """

    peers: Mapping[str, Maker]
    clock: Clock
    sweep: tuple[tuple[str, ...], tuple[int, ...]] = ((), ())
    rounds: int = 3
    json: Path | None = None
    plot: Path | None = None


def sweep(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Read ``m=1024,4096`` or ``p+m=1024,4096``; raises EinfallError for another text."""
    ranks, equals, numbers = text.partition("=")
    sizes = numbers.split(",")
    if not equals or not ranks or not all(n.isdecimal() and int(n) for n in sizes):
        raise EinfallError(f"RANK=N,N,... is expected, for example p+m=1024,4096; {text!r} given")
    return tuple(ranks.split("+")), tuple(int(n) for n in sizes)


def bench(cascade: Cascade, settings: Settings, options: Bench) -> int:
    """Measure a call on the GPU beside others; 1 if ours could not be measured somewhere."""
    import torch

    ranks, sizes = options.sweep
    given: list[Mapping[str, Scalar]] = [settings.sizes]
    if sizes:
        given = [{**settings.sizes, **dict.fromkeys(ranks, n)} for n in sizes]
    points_of = [default_sizes(cascade, one) for one in given]
    parameters_of(cascade, settings)
    writable(options.json, options.plot)
    if not torch.cuda.is_available():
        raise BackendError(
            "bench needs a GPU, and none is here; `einfall explain` tells the least time that the "
            "work takes on known machines"
        )

    def draw(wanted: Mapping[str, int]) -> tuple[tuple[Any, ...], dict[str, Scalar]]:
        tensors, _, values = prepare(cascade, replace(settings, sizes=wanted))
        return tuple(t.cuda() for t in tensors), values

    points: list[Point] = []
    for one in points_of:
        # tuned peers compile for minutes
        print(f"measuring {shown(one)}", file=sys.stderr, flush=True)
        points.append(
            measure(
                cascade,
                one,
                draw,
                dtype=settings.dtype,
                peers=options.peers,
                clock=options.clock,
                rounds=options.rounds,
                emitter=settings.emitter,
                machine=settings.machine,
            )
        )
    about = f"{torch.cuda.get_device_name()}, {settings.dtype}"
    print("\n".join(lines(cascade, points, about)))
    versions = {"device": torch.cuda.get_device_name(), "torch": str(torch.__version__)}
    data = as_data(cascade, points, settings.dtype, versions)
    if options.json:
        write(options.json, data)
    if options.plot:
        picture(options.plot, data)
    return int(any(point.of(OURS) is None for point in points))


def writable(data: Path | None, picture: Path | None) -> None:
    """Raise EinfallError where what was measured could not be written at the end."""
    for path in (data, picture):
        if path is not None and not os.access(path.absolute().parent, os.W_OK):
            raise EinfallError(f"{path} cannot be written: its folder is not there, or read-only")
    if picture is not None and importlib.util.find_spec("matplotlib") is None:
        raise EinfallError(
            "a picture needs matplotlib, which is not installed: pip install einfall[viz]"
        )


def show_after(k: Lowered, name: str) -> str:
    """Return what a pass changed, as a diff; of ``stream`` the states that it derived.

    Raises
    ------
    EinfallError : no pass of that name ran.
    """
    if name == "stream":
        return (
            "\n".join(
                line
                for kernel in explain(k).kernels
                for loop in kernel.loops
                for line in (f"{kernel.name}:", *(f"  {x}" for x in loop_lines(loop)))
            )
            or "no rank is walked by a loop"
        )
    steps = [s for s in k.steps if s.name == name]
    if not steps:
        names = dict.fromkeys((*(s.name for s in k.steps), "stream"))
        raise EinfallError(f"passes are {', '.join(names)}; {name!r} is none of them")
    texts = []
    for step in steps:
        before, after = (str(x).splitlines() for x in (step.before, step.after))
        diff = difflib.unified_diff(
            before, after, f"before {name}", f"after {name}", n=99, lineterm=""
        )
        texts.append("\n".join(diff) or f"{name} changes nothing here")
    return "\n\n".join(texts)


if __name__ == "__main__":
    sys.exit(work(sys.argv[1:]))
