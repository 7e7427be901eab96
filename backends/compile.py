"""``compile``: a cascade as a callable that lowers itself when its arguments are first seen."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..ir.cascade import Cascade, Scalar
from ..ir.errors import BackendError, EinfallError, ShapeError
from ..ir.expression import Access, Populate, RankVariable, Size, walk
from ..ir.sizes import bind_parameters, rank_sizes
from ..passes.divide import short_ranks
from ..passes.keep import Gradient
from ..passes.pipeline import Known
from .interpreter import interpret
from .launch import READY_LIMIT, Plan, Ready
from .lowered import Lowered, lower_cascade
from .parts import processors_of, worth_parts
from .triton import gluon_missing
from .triton_tune import tune, wanted
from .walked_sizes import made_sizes

TRIED = 6
"""Partitions that tuning measures."""

log = logging.getLogger("einfall")

DESCRIBING = ("sm_90", "sm_100", "sm_103", "sm_120")
"""Targets with tensor descriptors."""

BACKENDS = ("auto", "triton", "interpreter")
EMITTERS = ("auto", "tl", "gluon")


def compile(
    cascade: Cascade,
    *,
    backend: str = "auto",
    target: str | None = None,
    tiles: Mapping[str, int] | None = None,
    num_warps: int | None = None,
    num_stages: int | None = None,
    descriptors: bool | None = None,
    parts: Mapping[str, int] | None = None,
    inside: tuple[str, ...] = (),
    emitter: str = "auto",
) -> Compiled:
    """Return a callable that computes a cascade.

    Nothing is lowered until the first call, or ``.lower``: sizes and dtypes come with it.

    Parameters
    ----------
    backend : ``triton`` runs generated kernels (on a GPU, or on the CPU in Triton's interpreter if
        ``TRITON_INTERPRET=1``); ``interpreter`` runs numpy in float64; ``auto`` takes Triton for
        tensors on a GPU and the interpreter, saying so once, for all others.
    target : what kernels are generated for when no GPU is there: ``sm_80``, ``sm_90``, ``sm_100``,
        ``gfx942``; by default the GPU's own architecture, else ``sm_90``.
    tiles : tile sizes by rank, powers of two, instead of the partition's choice.
    num_warps, num_stages : likewise, for every kernel.
    descriptors : whether tensor descriptors fetch tiles where target and tensors allow it; None
        where they are expected to pay.
    parts : in how many parts, side by side, a rank is reduced that a kernel walks, by rank: 8, say,
        or 1 for never; 0 leaves the number to the launcher. By default the launcher decides that
        too, where there are too few rows to fill the machine.
    inside : inputs of coordinates, such as page tables, whose values are promised to lie inside
        whatever they index, at every point that takes part. Without the promise each one is tested,
        for a coordinate outside names no point; with it, one that breaks it reads foreign memory.
    emitter : ``tl`` writes kernels in Triton, for every target; ``gluon`` in Gluon, for sm_90, with
        warps that fetch and warps that compute; ``auto`` takes the faster one where both can be.

    With ``EINFALL_TUNE=quick`` the first call of a shape measures several partitions and keeps the
    fastest, also for later processes.

    Raises
    ------
    BackendError : an unknown back end or emitter.
    ShapeError : ``inside`` names what is no input.
    """
    for name in inside:
        if name not in cascade.inputs:
            raise ShapeError(
                f"inside names inputs that hold coordinates; {name} is no input of {cascade.name} "
                f"({', '.join(cascade.inputs)})"
            )
    if backend not in BACKENDS:
        raise BackendError(f"backend is one of {', '.join(BACKENDS)}; {backend!r} given")
    if emitter not in EMITTERS:
        raise BackendError(f"emitter is one of {', '.join(EMITTERS)}; {emitter!r} given")
    fixed = (num_warps, num_stages, descriptors, parts, inside, emitter)
    return Compiled(cascade, backend, target, dict(tiles or {}), *fixed)


class Compiled:
    """A cascade to be called, ``f(Q, K, V, W=1024)``: torch in, torch out; numpy in, numpy out."""

    def __init__(
        self,
        cascade: Cascade,
        backend: str,
        target: str | None,
        tiles: dict[str, int],
        num_warps: int | None,
        num_stages: int | None,
        descriptors: bool | None = None,
        parts: Mapping[str, int] | None = None,
        inside: tuple[str, ...] = (),
        emitter: str = "auto",
        dtypes: Mapping[str, str] | None = None,
        differentiable: bool = True,
    ) -> None:
        self.declared, self.parts, self.inside = cascade, parts, inside
        self.dtypes, self.differentiable = dict(dtypes or {}), differentiable
        self._gradients: dict[Any, Gradient] = {}
        self._backward: Compiled | None = None
        self.num_warps, self.num_stages = num_warps, num_stages
        self.descriptors, self.emitter = descriptors, emitter
        self.backend, self.target, self.tiles = backend, target, tiles
        self._ready: dict[Any, Ready] = {}
        self._lowered: dict[Any, Lowered] = {}
        self._latest: Lowered | None = None
        self._told = False

    def __call__(self, *tensors: Any, **parameters: Any) -> Any:
        """Compute the outputs, one or a tuple in the order of ``return``.

        Raises
        ------
        ShapeError : arguments do not fit the declaration.
        BackendError : a dtype, device, size or construct for which this back end has no code.
        """
        try:
            # the address decides whether descriptors may be used
            key: Any = tuple(
                [
                    (t.shape, t.stride(), t.dtype, t.device, t.data_ptr() & 15, t.requires_grad)
                    for t in tensors
                ]
            )
            if parameters:
                key = (key, *((name, x, x.__class__) for name, x in parameters.items()))
            ready = self._ready.get(key)
        except (AttributeError, RuntimeError, TypeError):
            return self._slow(tensors, parameters)
        if ready is None:
            return self._first(key, tensors, parameters)
        return ready(*tensors)

    def _first(self, key: Any, tensors: tuple[Any, ...], parameters: dict[str, Any]) -> Any:
        """Answer a combination of shapes, strides and parameters that was not seen before."""
        if self.differentiable and any(t.requires_grad for t in tensors):
            ready = self._with_gradient(tensors, parameters)
        else:
            ready = self._prepared(tensors, parameters)
        while len(self._ready) >= READY_LIMIT:
            self._ready.pop(next(iter(self._ready)), None)
        self._ready[key] = ready
        return ready(*tensors)

    def _prepared(self, tensors: tuple[Any, ...], parameters: dict[str, Any]) -> Ready:
        """Return how arguments like these are answered, without gradients."""
        if not self._on_triton(tensors):
            return lambda *given: self._slow(given, parameters)
        lowered = self.lower(*tensors, **parameters)
        plan = lowered.plan()
        if wanted() and not self.tiles:
            plan = self._tuned(plan, tensors, parameters)
        return plan.prepare(*tensors, **parameters)

    def _with_gradient(self, tensors: tuple[Any, ...], parameters: dict[str, Any]) -> Ready:
        """Return how arguments are answered of which some require a gradient."""
        from torch import is_grad_enabled

        from .autograd import Differentiable, differentiable, interpreted

        made: list[Differentiable] = []
        plain: list[Ready] = []
        parts: list[Compiled] = []

        def build(cascade: Cascade, dtypes: dict[str, str]) -> Any:
            given = {n: x for n, x in parameters.items() if n in dict(cascade.parameters)}
            if not self._on_triton(tensors):
                return interpreted(cascade, given)
            part = Compiled(
                cascade,
                "triton",
                self.target,
                {},
                self.num_warps,
                self.num_stages,
                self.descriptors,
                inside=tuple(n for n in self.inside if n in cascade.inputs),
                dtypes=dtypes,
                differentiable=False,
            )
            parts.append(part)
            return lambda *x: part(*x, **given)

        def run(*given: Any) -> Any:
            if not is_grad_enabled():
                if not plain:
                    plain.append(self._prepared(given, parameters))
                return plain[0](*given)
            if made:
                return made[0](*given)
            made.append(differentiable(self.declared, tensors, parameters, self._gradients, build))
            found = made[0](*given)
            if parts:
                self._latest, self._backward = parts[0]._latest, parts[1]
            return found

        return run

    def _tuned(self, first: Plan, tensors: tuple[Any, ...], parameters: dict[str, Any]) -> Plan:
        """Return the fastest of several partitions for these arguments, and lower to it."""
        lowerings = {first: self._latest}
        for choice in range(1, TRIED):
            lowered = self.lower(*tensors, choice=choice, **parameters)
            lowerings.setdefault(lowered.plan(), lowered)
        shown = [(tuple(t.shape), str(t.dtype)) for t in tensors]
        key = f"{self.declared} on {shown}"
        best = tune(list(lowerings), lambda plan: plan(*tensors, **parameters), key)
        self._latest = lowerings[best]
        return best

    def _on_triton(self, tensors: tuple[Any, ...]) -> bool:
        """Whether these arguments run as kernels."""
        if self.backend != "auto":
            return self.backend == "triton"
        return any(getattr(getattr(t, "device", None), "type", "cpu") == "cuda" for t in tensors)

    def _slow(self, tensors: tuple[Any, ...], parameters: dict[str, Any]) -> Any:
        """Answer by the interpreter; torch tensors come back as torch tensors."""
        if self.backend == "triton":
            raise BackendError(
                "the triton back end takes torch tensors; convert the arguments with "
                'torch.from_numpy, or use backend="interpreter"'
            )
        if self.backend == "auto" and not self._told:
            self._told = True
            log.warning(
                "%s runs in the numpy interpreter, in float64: its arguments are on no GPU",
                self.declared.name,
            )
        found = interpret(self.declared, *tensors, **parameters)
        if any(hasattr(t, "stride") and hasattr(t, "device") for t in tensors):
            return _as_torch(found, tensors)
        return found

    def lower(
        self,
        *tensors: Any,
        sizes: Mapping[str, int] | None = None,
        dtype: str = "float16",
        dtypes: Mapping[str, str] | None = None,
        target: str | None = None,
        tiles: Mapping[str, int] | None = None,
        choice: int = 0,
        parts: Mapping[str, int] | None = None,
        **parameters: Scalar,
    ) -> Lowered:
        """Generate kernels without running them.

        With tensors, sizes and dtypes are theirs. Without, ``sizes`` gives what is fixed (ranks
        that a program holds whole need it: ``{"e": 64, "f": 64}``), others stay open; ``dtype``
        holds for every input, ``dtypes`` for single ones. ``choice`` takes another of the
        partition's configurations than its best guess; ``parts`` is as for ``compile``.
        """
        goal = target or self.target or _own_target()
        cut = {**self.tiles, **(tiles or {})}
        cascade = self.declared
        if tensors:
            known = _known(cascade, tensors, parameters, sizes, goal, cut)
        else:
            named = {n: dtype for n in cascade.inputs} | dict(dtypes or {})
            defaults = {n: v for n, v in cascade.parameters if v is not None}
            boxes = aligned_inputs(cascade, sizes or {}, named) if goal in DESCRIBING else ()
            values = {**defaults, **parameters}
            known = Known(dict(sizes or {}), {}, values, named, goal, cut, boxes)
        known = replace(
            known,
            num_warps=self.num_warps,
            num_stages=self.num_stages,
            descriptors=self.descriptors,
            inside=self.inside,
            emitter=self._emitter(goal),
            choice=choice,
        )
        wanted = self.parts if parts is None else parts
        if wanted is not None:
            known = replace(known, parts={r: n for r, n in wanted.items() if n != 1})
        lowered = self._lower(known)
        if wanted is None:
            made = made_sizes(lowered.mapping, known.sizes, known.parameters)
            found = worth_parts(lowered.mapping, {**known.sizes, **made}, processors_of())
            if found:
                lowered = self._lower(replace(known, parts=found))
        self._latest = lowered
        return lowered

    def _lower(self, known: Known) -> Lowered:
        """Lower, once for each class of arguments."""
        key = _lowering_key(self.declared, known)
        if key not in self._lowered:
            self._lowered[key] = lower_cascade(self.declared, known)
        return replace(self._lowered[key], known=known)

    def _emitter(self, target: str) -> str:
        """Return the emitter; where Gluon kernels cannot run none is chosen by itself."""
        if self.emitter == "auto" and (target != "sm_90" or gluon_missing()):
            return "tl"
        return self.emitter

    def _last(self) -> Lowered:
        if self._latest is None:
            raise EinfallError(
                f"{self.declared.name} has not been lowered: call it, or f.lower(sizes=..., "
                'dtype="float16"), first'
            )
        return self._latest

    @property
    def cascade(self) -> Cascade:
        """The cascade as declared."""
        return self.declared

    @property
    def source(self) -> str:
        """The text of the latest kernels."""
        return self._last().source

    @property
    def kernels(self) -> Any:
        """The latest kernels, with their launch data."""
        return self._last().kernels

    @property
    def steps(self) -> Any:
        """What each pass did for the latest call."""
        return self._last().steps

    @property
    def gradient(self) -> Lowered:
        """The latest gradient kernels, with all that led to them."""
        if self._backward is None or self._backward._latest is None:
            raise EinfallError(
                f"{self.declared.name} has run no gradient as kernels: call it with tensors that"
                " require one, and backward() on what comes out"
            )
        return self._backward._latest

    @property
    def mapping(self) -> Any:
        """The latest mapping."""
        return self._last().mapping

    def explain(self) -> Any:
        """Explain the latest lowering."""
        return self._last().explain()

    def save(self, path: str | Path) -> Path:
        """Save the latest kernels as a file that stands alone."""
        return self._last().save(path)

    def benchmark(self, *tensors: Any, **parameters: Any) -> float:
        """Time a call on these tensors: the median, in milliseconds."""
        return self.lower(*tensors, **parameters).benchmark(*tensors, **parameters)


def _known(
    cascade: Cascade,
    tensors: tuple[Any, ...],
    parameters: Mapping[str, Scalar],
    sizes: Mapping[str, int] | None,
    target: str,
    tiles: Mapping[str, int],
) -> Known:
    """Return what the arguments of a call tell."""
    if len(tensors) != len(cascade.inputs):
        raise ShapeError(
            f"{cascade.name} takes {len(cascade.inputs)} tensors "
            f"({', '.join(cascade.inputs)}); {len(tensors)} given"
        )
    values = bind_parameters(cascade, parameters)
    shapes = {n: tuple(t.shape) for n, t in zip(cascade.inputs, tensors, strict=True)}
    found = rank_sizes(cascade, shapes, values, sizes or {})
    dtypes = {
        n: str(t.dtype).removeprefix("torch.") for n, t in zip(cascade.inputs, tensors, strict=True)
    }
    boxes = [n for n, t in zip(cascade.inputs, tensors, strict=True) if boxed(t)]
    return Known(
        found, shapes, values, dtypes, target, tiles, tuple(boxes) if target in DESCRIBING else ()
    )


def aligned_inputs(
    cascade: Cascade, sizes: Mapping[str, int], dtypes: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the inputs whose rows are multiples of 16 bytes, if they lie contiguously."""
    found = []
    for name in cascade.inputs:
        last = next(
            x.coordinates[-1:]
            for e in cascade.einsums
            for x in e.expressions()
            if isinstance(x, Access) and x.tensor == name
        )
        size = sizes.get(last[0].rank, 0) if last and isinstance(last[0], RankVariable) else 0
        width = {"float32": 4, "float64": 8, "int64": 8, "int32": 4}.get(dtypes[name], 2)
        if size and size * width % 16 == 0:
            found.append(name)
    return tuple(found)


def boxed(tensor: Any) -> bool:
    """Whether a tensor descriptor may fetch boxes of a tensor.

    Its last rank must be contiguous, its address and its other strides multiples of 16 bytes.
    """
    if not hasattr(tensor, "data_ptr") or tensor.dim() < 2 or tensor.stride(-1) != 1:
        return False
    size = tensor.element_size()
    steps = (n * size for n in tensor.stride()[:-1])
    return tensor.data_ptr() % 16 == 0 and all(n > 0 and n % 16 == 0 for n in steps)


def _lowering_key(cascade: Cascade, known: Known) -> Any:
    """Return what a lowering depends on; lengths of long ranks count only in powers of two.

    Coordinates of inputs that are not plain ranks may or may not provably stay inside, so they make
    the exact sizes and parameters count.
    """
    short = short_ranks(cascade, known.sizes)
    widths = tuple(
        (r, n if r in short else min(4096, 1 << max(n - 1, 0).bit_length()))
        for r, n in sorted(known.sizes.items())
    )
    computed = set()
    for einsum in cascade.einsums:
        if isinstance(einsum.body, Populate):
            # what is chosen from is held whole, and so is the list
            computed |= {(r, known.sizes.get(r)) for r in (einsum.body.rank, *einsum.ranks)}
        for x in einsum.expressions():
            if not isinstance(x, Access):
                continue
            for k, c in enumerate(x.coordinates):
                if isinstance(c, RankVariable):
                    continue
                # whether such a coordinate stays inside may be proved from these sizes
                ranks = {y.rank for y in walk(c) if isinstance(y, RankVariable | Size)}
                computed |= {(r, known.sizes.get(r)) for r in ranks}
                if x.tensor in known.shapes:
                    computed.add((f"{x.tensor} {k}", known.shapes[x.tensor][k]))
                elif x.tensor not in cascade.inputs:
                    rank = cascade.einsum(x.tensor).output.coordinates[k : k + 1]
                    computed |= {
                        (y.rank, known.sizes.get(y.rank))
                        for z in rank
                        for y in walk(z)
                        if isinstance(y, RankVariable)
                    }
    exact = tuple(sorted(computed, key=str))
    values = tuple((n, v, type(v).__name__) for n, v in known.parameters.items())
    return (
        widths, exact, values, tuple(known.dtypes.items()), known.target,
        tuple(known.tiles.items()), known.described, known.descriptors,
        known.num_warps, known.num_stages, known.choice, tuple(known.parts.items()), known.inside,
        known.emitter,
    )  # fmt: skip


def _own_target() -> str:
    """Return the architecture of the GPU that is here; ``sm_90`` where there is none."""
    import torch

    if not torch.cuda.is_available():
        return "sm_90"
    if torch.version.hip:
        return str(torch.cuda.get_device_properties(0).gcnArchName).split(":")[0]
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


def _as_torch(found: Any, tensors: tuple[Any, ...]) -> Any:
    """Give the interpreter's arrays back as torch tensors, floats in the inputs' widest dtype."""
    import torch

    floats = [t.dtype for t in tensors if hasattr(t, "dtype") and t.dtype.is_floating_point]
    dtype = floats[0] if floats else torch.float64
    for other in floats[1:]:
        dtype = torch.promote_types(dtype, other)

    def one(x: Any) -> Any:
        tensor = torch.as_tensor(x)
        return tensor.to(dtype) if tensor.dtype.is_floating_point else tensor

    return tuple(one(x) for x in found) if isinstance(found, tuple) else one(found)
