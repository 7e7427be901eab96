"""What the command line does: example inputs, a run with its check, lowering by given sizes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.cascade import Cascade, Scalar
from ..ir.errors import EinfallError
from ..ir.expression import Access, RankVariable
from ..ir.sizes import tensor_shape
from .compile import compile
from .interpreter import interpret
from .lowered import Lowered

LONG, SHORT = 1024, 64
"""Sizes of ranks that were not given: those that index a tensor first, and last."""

TOLERANCE = {"float16": 2e-3, "bfloat16": 1e-2, "float32": 1e-5}
"""Relative error, in the L2 norm, that a kernel may have against float64."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user fixed: sizes by rank, parameters by name, the inputs' dtype, the target."""

    sizes: dict[str, Scalar]
    parameters: dict[str, Scalar]
    dtype: str
    target: str | None


def pairs(texts: Sequence[str]) -> dict[str, Scalar]:
    """Read ``NAME=NUMBER`` arguments.

    Raises
    ------
    EinfallError : a text that is no such pair.
    """
    found: dict[str, Scalar] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            found[name] = int(value) if value.lstrip("-").isdigit() else float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise EinfallError(f"NAME=NUMBER expected, for example m=4096; {text!r} given")
    return found


def default_sizes(cascade: Cascade, given: dict[str, Scalar]) -> dict[str, int]:
    """A size for every rank: as given, else small for batches, long for sequences, 64 for features."""
    places: dict[str, list[tuple[int, int]]] = {}
    for einsum in cascade.einsums:
        for x in einsum.expressions():
            if isinstance(x, Access) and x.tensor in cascade.inputs:
                for k, c in enumerate(x.coordinates):
                    if isinstance(c, RankVariable):
                        places.setdefault(c.rank, []).append((k, len(x.coordinates)))
    sizes: dict[str, int] = {}
    for rank in cascade.ranks:
        at = places.get(rank, [])
        if rank in given:
            sizes[rank] = int(given[rank])
        elif at and all(k == n - 1 and n > 1 for k, n in at):
            sizes[rank] = SHORT
        elif at and any(k >= n - 2 and n > 1 for k, n in at):
            sizes[rank] = LONG
        else:
            sizes[rank] = 2
    return sizes


def lowered(cascade: Cascade, settings: Settings) -> Lowered:
    """Lower a cascade with the sizes of its short ranks fixed, as the command line asks."""
    sizes = default_sizes(cascade, settings.sizes)
    return compile(cascade, target=settings.target).lower(
        sizes=sizes, dtype=settings.dtype, **settings.parameters
    )


def example_inputs(cascade: Cascade, sizes: dict[str, int], seed: int = 0) -> list[Any]:
    """Normal random inputs, in float64."""
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(tensor_shape(cascade, n, sizes)) for n in cascade.inputs]


def run(cascade: Cascade, settings: Settings, *, kernel: bool) -> int:
    """Run a cascade on what this machine has, check it against the interpreter, and explain it."""
    import torch

    gpu = torch.cuda.is_available()
    given = dict(settings.sizes)
    if not gpu:
        # the interpreters are slow; a few tiles show as much
        small = default_sizes(cascade, given)
        given = {r: given.get(r, min(n, 128)) for r, n in small.items()}
    sizes = default_sizes(cascade, given)
    arrays = example_inputs(cascade, sizes)
    dtype = getattr(torch, settings.dtype)
    tensors = [torch.from_numpy(x).to(dtype) for x in arrays]
    exact = interpret(cascade, *tensors, **settings.parameters)
    print(cascade)
    print()
    shown = ", ".join(f"{r} = {n}" for r, n in sizes.items())
    if gpu:
        f = compile(cascade, backend="triton")
        found = f(*(t.cuda() for t in tensors), **settings.parameters)
        print(f"on {torch.cuda.get_device_name()}, {settings.dtype}, {shown}:")
        status = compare(cascade, found, exact, settings.dtype)
        print()
        print(f.explain())
        return status
    print(f"No GPU here: the numpy interpreter computed {', '.join(cascade.outputs)} with {shown}.")
    for name, x in zip(cascade.outputs, exact if isinstance(exact, tuple) else (exact,), strict=True):
        print(f"  {name}: shape {np.shape(x)}, mean {np.mean(x):+.6f}")
    status = 0
    if kernel:
        status = run_in_triton_interpreter(cascade, settings, given)
    else:
        print("  (--kernel runs the generated kernels in Triton's interpreter and compares)")
    print()
    print(compile(cascade, target=settings.target).lower(
        sizes=sizes, dtype=settings.dtype, **settings.parameters).explain())
    return status


def run_in_triton_interpreter(cascade: Cascade, settings: Settings, given: dict[str, Scalar]) -> int:
    """Run the kernels on the CPU in a process of their own: Triton decides when it is imported."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{cascade.name}.einsum"
        file.write_text(str(cascade) + "\n")
        words = [sys.executable, "-m", "einfall.backends.command", str(file), settings.dtype]
        words += [f"{r}={n}" for r, n in given.items()] + ["--"]
        words += [f"{n}={v}" for n, v in settings.parameters.items()]
        environment = {**os.environ, "TRITON_INTERPRET": "1"}
        return subprocess.run(words, env=environment, check=False).returncode


def work(words: Sequence[str]) -> int:
    """The process of ``run_in_triton_interpreter``."""
    import torch

    from ..ir.notation import cascade as parse

    file, dtype, *rest = words
    middle = rest.index("--")
    c = parse(Path(file))
    parameters = pairs(rest[middle + 1 :])
    sizes = default_sizes(c, pairs(rest[:middle]))
    tensors = [torch.from_numpy(x).to(getattr(torch, dtype)) for x in example_inputs(c, sizes)]
    found = compile(c, backend="triton")(*tensors, **parameters)
    print("In Triton's interpreter the generated kernels give:")
    return compare(c, found, interpret(c, *tensors, **parameters), dtype)


def compare(cascade: Cascade, found: Any, exact: Any, dtype: str) -> int:
    """Print each output's error against the interpreter; 1 if one is too large."""
    worst = 0.0
    outputs = found if isinstance(found, tuple) else (found,)
    truths = exact if isinstance(exact, tuple) else (exact,)
    for name, x, truth in zip(cascade.outputs, outputs, truths, strict=True):
        got = x.double().cpu().numpy()
        finite = np.isfinite(truth)
        same = bool(np.array_equal(got[~finite], truth[~finite]))
        gap = float(np.linalg.norm(got[finite] - truth[finite]))
        error = gap / max(float(np.linalg.norm(truth[finite])), 1e-30)
        worst = max(worst, error if same else np.inf)
        print(f"  {name}: relative error {error:.2e} against float64")
    good = worst <= TOLERANCE.get(dtype, 1e-5)
    print("  agrees with the interpreter" if good else "  DISAGREES with the interpreter")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(work(sys.argv[1:]))
