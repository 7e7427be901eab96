"""Bench: a cascade beside other implementations, each correct before it is timed.

All run in one process, in turn and several rounds, so that the clock of the device, which drifts,
meets all alike. What the roofline of the machine allows is set beside what was measured.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..ir.cascade import Cascade, Scalar
from ..ir.errors import EinfallError
from ..ir.expression import Reduce
from .command_inputs import default_sizes
from .compile import compile
from .explain import Explanation, explain
from .explain_numbers import digits, duration, percent, quantity
from .interpreter import interpret

OURS = "einfall"

EXACT = 1 << 27
"""Points of the largest einsum that the float64 interpreter is given; beyond, sizes are halved."""

ERROR = {"float16": 2e-3, "bfloat16": 1e-2, "float32": 1e-5}
"""Relative error, in the L2 norm, of an implementation that is correct."""

Call = Callable[[], Any]
Maker = Callable[[tuple[Any, ...], Mapping[str, Scalar]], Call]
"""Makes an implementation's call from tensors and parameters; raises if it cannot compute that."""

Clock = Callable[[Call], float]
"""Returns the median milliseconds of a call."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One implementation at one point.

    error : the largest relative error of an output against float64. milliseconds : a median of each
    round. refusal : why nothing was measured.
    """

    who: str
    error: float = 0.0
    milliseconds: tuple[float, ...] = ()
    refusal: str = ""

    @property
    def ms(self) -> float:
        """The median over the rounds."""
        return median(self.milliseconds)


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one choice of sizes.

    checked : sizes at which correctness was tested, if the exact answer at ``sizes`` takes too
    long. predicted, bound : seconds that the roofline gives the kernels, and what moves and
    multiplies at least; None where they are not known. said : our time beside them, in words.
    """

    sizes: dict[str, int]
    timings: tuple[Timing, ...]
    checked: dict[str, int] = field(default_factory=dict)
    predicted: float | None = None
    bound: float | None = None
    said: tuple[str, ...] = ()

    def of(self, who: str) -> Timing | None:
        """Return what was measured of an implementation."""
        return next((t for t in self.timings if t.who == who and t.milliseconds), None)

    def best(self) -> Timing | None:
        """Return the fastest of the others."""
        others = [t for t in self.timings if t.who != OURS and t.milliseconds]
        return min(others, key=lambda t: t.ms, default=None)


def measure(
    cascade: Cascade,
    sizes: Mapping[str, int],
    draw: Callable[[Mapping[str, int]], tuple[tuple[Any, ...], dict[str, Scalar]]],
    *,
    dtype: str,
    peers: Mapping[str, Maker],
    clock: Clock,
    rounds: int = 3,
    emitter: str = "auto",
    machine: str | None = None,
) -> Point:
    """Check all implementations, then time them in turn.

    draw : makes tensors on the device, and parameters, for sizes. peers : by name. Whoever cannot
    compute the cascade, or differs from float64, has a refusal instead of a time.
    """
    f = compile(cascade, backend="triton", emitter=emitter)

    def ours(tensors: tuple[Any, ...], parameters: Mapping[str, Scalar]) -> Call:
        return lambda: f(*tensors, **dict[str, Any](parameters))

    makers: dict[str, Maker] = {OURS: ours, **peers}
    small = affordable(cascade, sizes)
    tensors, parameters = draw(small)
    exact = several(interpret(cascade, *tensors, **dict[str, Any](parameters)))
    found: dict[str, Timing] = {}
    for who, make in makers.items():
        try:
            error = worst(several(make(tensors, parameters)()), exact)
        except Exception as problem:  # whatever stops one of them must not stop the others
            found[who] = Timing(who, refusal=reason(problem))
            continue
        limit = ERROR[dtype]
        wrong = f"differs from float64 by {error:.1e}, {limit:.0e} allowed"
        found[who] = Timing(who, error, refusal="" if error <= limit else wrong)
    if small != dict(sizes):
        tensors, parameters = draw(sizes)
    calls: dict[str, Call] = {}
    for who in [t.who for t in found.values() if not t.refusal]:
        try:
            calls[who] = makers[who](tensors, parameters)
            calls[who]()
        except Exception as problem:
            calls.pop(who, None)
            found[who] = Timing(who, refusal=reason(problem))
    for who, times in in_turn(calls, rounds, clock).items():
        found[who] = replace(found[who], milliseconds=times)
    point = Point(dict(sizes), tuple(found.values()), {} if small == dict(sizes) else small)
    if OURS not in calls:
        return point
    k = f.lower(*tensors, **dict[str, Any](parameters))
    x = explain(k, sizes=sizes, machine=machine)
    said = tuple(measured(x, found[OURS].ms / 1e3))
    return replace(point, predicted=x.cost.seconds, bound=x.cost.bound, said=said)


def in_turn(calls: Mapping[str, Call], rounds: int, clock: Clock) -> dict[str, tuple[float, ...]]:
    """Return the median milliseconds of every call, one for each round.

    Each round begins with another one, so that nobody always meets the warmest device.
    """
    times: dict[str, list[float]] = {who: [] for who in calls}
    order = list(calls)
    for turn in range(rounds if order else 0):
        for who in order[turn % len(order) :] + order[: turn % len(order)]:
            times[who].append(clock(calls[who]))
    return {who: tuple(values) for who, values in times.items()}


def measured(x: Explanation, seconds: float) -> list[str]:
    """Return a measurement beside the roofline's prediction, as lines."""
    lines = [f"measured   {duration(seconds)}"]
    c = x.cost
    if c.useful is not None and c.useful.matrix:
        lines[0] += f"   {quantity(c.useful.matrix / seconds, 'FLOP/s')} on points that exist"
    if c.moved:
        lines.append(f"memory     {quantity(c.moved / seconds, 'B/s')}")
    if c.seconds:
        waiting = sum(k.waiting or 0.0 for k in c.kernels)
        binding = c.kernels[0].terms[0].unit if len(c.kernels) == 1 else "of each kernel"
        lines.append(
            f"predicted  {duration(c.seconds)} if all units of the {x.machine} overlap, "
            f"{duration(waiting)} if none do"
        )
        lines.append(f"roofline   {percent(c.seconds / seconds)} reached (bound: {binding})")
    if c.bound:
        lines.append(f"compulsory bound {duration(c.bound)}: {digits(seconds / c.bound)}x away")
    return lines


def affordable(cascade: Cascade, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return sizes at which the float64 interpreter answers soon: the longest ranks are halved."""
    found = dict(sizes)

    def points() -> int:
        spans = [
            {*e.ranks, *(r for x in e.expressions() if isinstance(x, Reduce) for r in x.ranks)}
            for e in cascade.einsums
        ]
        return max(prod(found.get(r, 1) for r in span) for span in spans)

    while points() > EXACT and max(found.values()) > 128:
        longest = max(found.values())
        found = {r: -(-n // 2) if n == longest else n for r, n in found.items()}
        found = default_sizes(cascade, found)
    return found


def worst(found: Sequence[Any], exact: Sequence[Any]) -> float:
    """Return the largest relative error of an output in the L2 norm; infinite if infinities differ.

    An implementation may give fewer outputs than there are; those that it gives come in order.
    """
    errors = [float("inf")]
    for x, truth in zip(found, exact, strict=False):
        got, want = x.double().cpu().numpy(), np.asarray(truth, np.float64)
        if got.shape != want.shape:
            raise EinfallError(f"an output has the shape {got.shape}, and {want.shape} is right")
        finite = np.isfinite(want)
        if not np.array_equal(got[~finite], want[~finite]):
            return float("inf")
        gap = float(np.linalg.norm(got[finite] - want[finite]))
        errors.append(gap / max(float(np.linalg.norm(want[finite])), 1e-30))
    return max(errors[1:] or errors)


def several(found: Any) -> tuple[Any, ...]:
    """Return one output or several as a tuple."""
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def reason(problem: Exception) -> str:
    """Return one line on why an implementation gave nothing."""
    lines = str(problem).strip().splitlines() or [""]
    return f"{type(problem).__name__}: {lines[0]}"[:200]


def peer_of(text: str) -> tuple[str, Maker]:
    """Read ``FILE.py:FUNCTION``, a function of the cascade's tensors and parameters.

    Raises
    ------
    EinfallError : the file cannot be imported, or has no such function.
    """
    path, _, name = text.rpartition(":")
    if not path or not name:
        raise EinfallError(
            f"FILE.py:FUNCTION is expected, for example mine.py:dense; {text!r} given"
        )
    spec = importlib.util.spec_from_file_location("einfall_peer", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise EinfallError(f"{path} is no Python file that is there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise EinfallError(f"{path} has no function {name}")

    def make(tensors: tuple[Any, ...], parameters: Mapping[str, Scalar]) -> Call:
        return lambda: function(*tensors, **parameters)

    return name, make


def lines(cascade: Cascade, points: Sequence[Point], about: str) -> list[str]:
    """Return what was measured as lines for a terminal; ratios are others' time over ours."""
    out = [f"{cascade.name} on {about}"]
    for point in points:
        shown = ", ".join(f"{r} = {n}" for r, n in point.sizes.items())
        out += ["", shown]
        if point.checked:
            cut = ", ".join(f"{r} = {n}" for r, n in point.checked.items() if n != point.sizes[r])
            out.append(f"  compared with float64 at {cut}, where that takes no minutes")
        ours = point.of(OURS)
        width = max(len(t.who) for t in point.timings)
        for t in point.timings:
            if not t.milliseconds:
                out.append(f"  {t.who:<{width}}  - ({t.refusal})")
                continue
            row = f"  {t.who:<{width}}  {duration(t.ms / 1e3):>9}  error {t.error:.1e}"
            if ours and t.who != OURS:
                row += f"  {digits(t.ms / ours.ms)}x the time of {OURS}"
            out.append(row)
        out += [f"  {line}" for line in point.said]
    return out


def as_data(
    cascade: Cascade, points: Sequence[Point], dtype: str, machine: Mapping[str, str]
) -> dict[str, Any]:
    """Return what was measured as data: times in milliseconds, the roofline's in seconds."""
    return {
        "cascade": str(cascade),
        "dtype": dtype,
        "machine": dict(machine),
        "points": [asdict(point) for point in points],
    }


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Write data as JSON; raises EinfallError where that cannot be."""
    try:
        path.write_text(json.dumps(data, indent=1) + "\n")
    except OSError as error:
        raise EinfallError(f"{path} cannot be written ({error.strerror})") from error


def draw(path: Path, data: Mapping[str, Any]) -> None:
    """Draw times as a picture: lines over what changes between points, or bars if there is one.

    Raises
    ------
    EinfallError : matplotlib is not installed.
    """
    try:
        import matplotlib  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise EinfallError(
            "a picture needs matplotlib, which is not installed: pip install einfall[viz]"
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    points = data["points"]
    figure, ax = pyplot.subplots(figsize=(6, 3.6))
    names = list(dict.fromkeys(t["who"] for p in points for t in p["timings"] if t["milliseconds"]))
    places = [label(p["sizes"], points) for p in points]
    for who in names:
        times = {
            k: median(t["milliseconds"])
            for k, p in enumerate(points)
            for t in p["timings"]
            if t["who"] == who and t["milliseconds"]
        }
        if len(points) > 1:
            ax.plot([*times], [*times.values()], marker="o", label=who)
        else:
            ax.bar(who, times[0])
    least = {k: 1e3 * p["predicted"] for k, p in enumerate(points) if p["predicted"]}
    if len(points) > 1:
        ax.plot([*least], [*least.values()], "k--", label="roofline")
        ax.set_xticks(range(len(places)), places)
        ax.set_yscale("log")
        ax.legend(frameon=False)
    elif least:
        ax.axhline(least[0], color="black", linestyle="--")
        ax.set_title(f"{places[0]} (dashed: roofline)", fontsize=9)
    ax.set_ylabel("milliseconds")
    figure.suptitle(f"{data['machine'].get('device', '')}, {data['dtype']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def label(sizes: Mapping[str, int], points: Sequence[Mapping[str, Any]]) -> str:
    """Return the sizes in which points differ; all of them if there is one point."""
    differ = [r for r, n in sizes.items() if any(p["sizes"][r] != n for p in points)]
    return "\n".join(f"{r} = {sizes[r]}" for r in differ or sizes)
