"""``compile``: a cascade as a callable that lowers itself when its arguments are first seen."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import is_grad_enabled
from torch.compiler import is_compiling

from ..ir.cascade import Cascade, Scalar, check_cascade
from ..ir.errors import BackendError, EinfallError, PassError
from ..ir.sizes import bind_parameters
from ..passes.keep import Gradient
from ..passes.pipeline import Known
from .arguments import (
    DESCRIBING,
    aligned_inputs,
    as_torch,
    check_count,
    check_divisors,
    known_of,
    lowering_key,
    outline,
    own_target,
)
from .autograd import with_gradient
from .crowd import SMALL, crowded
from .explain_parts import parts_known
from .explain_squares import squares
from .interpreter import interpret
from .latest import Latest
from .launch import READY_LIMIT, Plan, Prepared, Ready
from .lowered import Lowered, lower_cascade
from .next_choice import Choice, with_others
from .operator import one_line, traced
from .options import check_dtypes, check_options, check_sizes
from .parts import kept_whole, processors_of, worth_parts
from .triton import gluon_missing, hashing, overlapping
from .triton_arguments import check_tensors
from .triton_tune import tune, wanted
from .walked_sizes import made_sizes

TRIED = 6
"""Partitions that tuning measures."""

log = logging.getLogger("einfall")

BACKENDS = ("auto", "triton", "interpreter")
EMITTERS = ("auto", "tl", "gluon")
OPTIONS = (
    *("backend", "target", "tiles", "num_warps", "num_stages", "descriptors", "parts", "inside"),
    *("emitter", "static", "atomics"),
)
"""What a compiled cascade is made with, in order."""


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
    static: tuple[str, ...] = (),
    atomics: bool = False,
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
    static : inputs that seldom change between calls, such as block masks and labels. Tables of
        tiles and whatever else follows from them alone are kept, and made again after a write to
        them that torch counts (``static.py``).
    atomics : whether programs may add to the same sums in memory, in whatever order they come. A
        gradient then needs no kernel that makes the same products again, and is no longer the same
        bits every time.

    With ``EINFALL_TUNE=quick`` the first call of a shape measures several partitions and keeps the
    fastest, also for later processes.

    Raises
    ------
    BackendError : an option has a value that nothing can be made with.
    ShapeError : ``inside`` or ``static`` names what is no input.
    TypeError : ``cascade`` is none; a text has to be read first.
    """
    check_cascade(cascade, "compile")
    if backend not in BACKENDS:
        raise BackendError(f"backend is one of {', '.join(BACKENDS)}; {backend!r} given")
    if emitter not in EMITTERS:
        raise BackendError(f"emitter is one of {', '.join(EMITTERS)}; {emitter!r} given")
    check_options(
        cascade,
        target=target,
        tiles=tiles,
        num_warps=num_warps,
        num_stages=num_stages,
        parts=parts,
        inside=inside,
        static=static,
    )
    fixed = (num_warps, num_stages, descriptors, parts, tuple(inside), emitter)
    named: dict[str, Any] = {"static": tuple(static), "atomics": atomics}
    return Compiled(cascade, backend, target, dict(tiles or {}), *fixed, **named)


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
        differentiable: bool = True,
        static: tuple[str, ...] = (),
        atomics: bool = False,
    ) -> None:
        self.declared, self.parts, self.inside = cascade, parts, inside
        self.differentiable = differentiable
        self.gradients: dict[Any, Gradient] = {}
        self._backward: Compiled | None = None
        self.num_warps, self.num_stages = num_warps, num_stages
        self.descriptors, self.emitter, self.static = descriptors, emitter, static
        self.atomics = atomics
        self.backend, self.target, self.tiles = backend, target, tiles
        self.declaration = one_line(cascade) if differentiable else ""
        chosen = (
            backend,
            target,
            tiles,
            num_warps,
            num_stages,
            descriptors,
            parts,
            inside,
            emitter,
            static,
            atomics,
        )
        self.options = json.dumps(dict(zip(OPTIONS, chosen, strict=True)))
        self._ready: dict[Any, Ready] = {}
        # a kind knows nothing of whether torch records
        self._kinds, self._still = (Latest(len(cascade.inputs)) for _ in range(2))
        self._lowered: dict[Any, Lowered] = {}
        self._latest: Lowered | None = None
        self._interpreted: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._told = False
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        given = {n: getattr(self, n) for n in OPTIONS}
        words = [f"{n}={x!r}" for n, x in given.items() if x not in (None, (), {}, False, "auto")]
        return f"<{', '.join([f'compiled {self.declared.name}', *words])}>"

    def __reduce__(self) -> Any:
        """Pickle what it was made from; kernels are made again, or found on disk."""
        options = {n: getattr(self, n) for n in OPTIONS}
        return partial(Compiled, self.declared, differentiable=self.differentiable, **options), ()

    def __call__(self, *tensors: Any, **parameters: Any) -> Any:
        """Compute the outputs, one or a tuple in the order of ``return``.

        Raises
        ------
        ShapeError : arguments do not fit the declaration.
        BackendError : a dtype, device, size or construct for which this back end has no code.
        """
        if is_compiling():
            return traced(self, tensors, parameters)
        records = is_grad_enabled()
        kinds = self._kinds if records else self._still
        found = kinds.answer(tensors, parameters)
        if found is not NotImplemented:
            return found
        try:
            learns = self.differentiable and records
            # the address decides whether descriptors may be used
            key: Any = tuple(
                [
                    *((t.shape, t.stride(), t.dtype, t.device, t.data_ptr() & 15) for t in tensors),
                    learns and tuple([t.requires_grad for t in tensors]),
                ]
            )
            if parameters:
                key = (key, *((name, x, x.__class__) for name, x in parameters.items()))
            ready = self._ready.get(key)
        except (AttributeError, RuntimeError, TypeError):
            return self._slow(tensors, parameters)
        if ready is None:
            return self._first(key, tensors, parameters)
        if isinstance(ready, Prepared):
            kinds.add(ready, tensors, parameters)
        return ready(*tensors)

    def _first(self, key: Any, tensors: tuple[Any, ...], parameters: dict[str, Any]) -> Any:
        """Answer a combination of shapes, strides and parameters that was not seen before."""
        if self.differentiable and is_grad_enabled() and any(t.requires_grad for t in tensors):
            ready: Ready = with_gradient(self, tensors, parameters)
        else:
            ready = self.prepared(tensors, parameters)
        while len(self._ready) >= READY_LIMIT:
            self._ready.pop(next(iter(self._ready)), None)
        self._ready[key] = ready
        return ready(*tensors)

    def prepared(self, tensors: tuple[Any, ...], parameters: dict[str, Any]) -> Ready:
        """Return how arguments like these are answered, without gradients."""
        if not self.on_triton(tensors):
            return lambda *given: self._slow(given, parameters)
        lowered = self.lower(*tensors, **parameters)
        plan = lowered.plan()
        if wanted() and not self.tiles:
            plan = self._tuned(plan, tensors, parameters)
        prepared = plan.prepare(*tensors, **parameters)
        if self.tiles or self.num_warps or self.num_stages:
            return prepared  # what is asked for is not replaced
        return with_others(prepared, self._others(plan, parameters))

    def _others(self, first: Plan, parameters: dict[str, Any]) -> Iterator[Choice]:
        """Yield what prepares each of the partition's other configurations."""
        met = {first}

        def prepare(k: int, error: BackendError, tensors: tuple[Any, ...]) -> Prepared | None:
            lowered = self.lower(*tensors, choice=k, **parameters)
            plan = lowered.plan()
            if plan in met:
                return None
            met.add(plan)
            said = f"configuration {k} of the partition is taken, because {error}".splitlines()[0]
            log.warning("%s: %s", self.declared.name, said)
            self._latest = lowered.noting(said)
            return plan.prepare(*tensors, **parameters)

        yield from (partial(prepare, k) for k in range(1, TRIED))

    def part(self, cascade: Cascade, *, forward: bool = True) -> Compiled:
        """Return another cascade, a forward that keeps more or a gradient, compiled alike.

        Tiles, and an emitter that is asked for, are meant for the ranks and kernels of the forward.
        """
        return Compiled(
            cascade,
            self.backend,
            self.target,
            self.tiles if forward else {},
            self.num_warps,
            self.num_stages,
            self.descriptors,
            parts=self.parts if forward else None,
            inside=tuple(n for n in self.inside if n in cascade.inputs),
            static=tuple(n for n in self.static if n in cascade.inputs),
            atomics=self.atomics,
            emitter=self.emitter if forward or self.emitter == "tl" else "auto",
            differentiable=False,
        )

    def keep(self, forward: Compiled, backward: Compiled) -> None:
        """Remember the kernels of a call that has a gradient."""
        self._latest, self._backward = forward._latest, backward

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

    def on_triton(self, tensors: tuple[Any, ...]) -> bool:
        """Whether these arguments run as kernels."""
        if self.backend != "auto":
            return self.backend == "triton"
        return any(getattr(getattr(t, "device", None), "type", "cpu") == "cuda" for t in tensors)

    def _slow(self, tensors: tuple[Any, ...], parameters: dict[str, Any]) -> Any:
        """Answer by the interpreter; torch tensors come back as torch tensors."""
        if self.backend == "triton":
            check_count(self.declared, tensors, parameters)
            bind_parameters(self.declared, parameters)
            check_tensors(self.declared, tensors)
            raise BackendError(
                "torch's transforms (vmap, func.grad, jvp) do not see inside a compiled cascade; "
                "give a batch a rank of its own in the cascade, and take gradients by backward() "
                "or torch.autograd.grad"
            )
        if self.backend == "auto" and not self._told:
            self._told = True
            log.warning(
                "%s runs in the numpy interpreter, in float64: its arguments are on no GPU",
                self.declared.name,
            )
        found = interpret(self.declared, *tensors, **parameters)
        # kernels for these arguments are made where someone asks for their text
        self._latest, self._interpreted = None, (tuple(map(outline, tensors)), parameters)
        if any(hasattr(t, "stride") and hasattr(t, "device") for t in tensors):
            return as_torch(found, tensors)
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
        cascade = self.declared
        check_options(cascade, target=target, tiles=tiles, parts=parts, choice=choice)
        check_sizes(cascade, sizes)
        if any(getattr(t, "is_cuda", False) for t in tensors):
            hashing()  # done by the time that kernels are there
        goal = target or self.target or own_target()
        cut = {**self.tiles, **(tiles or {})}
        if tensors:
            known = known_of(cascade, tensors, parameters, sizes, goal, cut)
        else:
            named = check_dtypes(cascade, dtype, dtypes)
            defaults = {n: v for n, v in cascade.parameters if v is not None}
            boxes = aligned_inputs(cascade, sizes or {}, named) if goal in DESCRIBING else ()
            values = {**defaults, **parameters}
            check_divisors(cascade, values)
            known = Known(dict(sizes or {}), {}, values, named, goal, cut, boxes)
        known = replace(
            known,
            num_warps=self.num_warps,
            num_stages=self.num_stages,
            descriptors=self.descriptors,
            inside=self.inside,
            static=self.static,
            emitter=self._emitter(goal),
            overlap=overlapping(goal),
            atomics=self.atomics,
            choice=choice,
        )
        wanted = self.parts if parts is None else parts
        if wanted is not None:
            known = replace(known, parts={r: n for r, n in wanted.items() if n != 1})
        lowered = self._lower(known)
        made = made_sizes(lowered.mapping, known.sizes, known.parameters)
        whole = {**known.sizes, **made}
        if wanted is None:
            at = whole, processors_of(), known.parameters
            found = worth_parts(lowered.mapping, *at)
            if found:
                kept = kept_whole(lowered.mapping, found, *at)
                try:
                    split = self._lower(replace(known, parts=found, whole=kept))
                except (BackendError, PassError) as error:
                    log.debug("%s is not reduced in parts: %s", self.declared.name, error)
                    split = lowered
                # with states kept between kernels tiles are others, of which there may be enough
                sides = parts_known(split, known.sizes)[0]
                if any(sides.get(c.part, 2) > 1 for c in split.mapping.cuts):
                    lowered = split
        free = not (cut or choice or self.num_warps or self.num_stages)
        if free and crowded(lowered.mapping, whole, processors_of(), goal):
            warps, stages = SMALL
            lowered = self._lower(replace(known, num_warps=warps, num_stages=stages))
        for said in squares(self.declared, lowered.mapping, whole):
            if said not in self._warned:  # several lowerings are looked at, and one is taken
                self._warned.add(said)
                log.warning("%s: %s, which grows with their product", self.declared.name, said)
        self._latest = lowered
        return lowered

    def _lower(self, known: Known) -> Lowered:
        """Lower, once for each class of arguments."""
        key = lowering_key(self.declared, known)
        if key not in self._lowered:
            self._lowered[key] = lower_cascade(self.declared, known)
        return replace(self._lowered[key], known=known)

    def _emitter(self, target: str) -> str:
        """Return the emitter; where Gluon kernels cannot run none is chosen by itself."""
        if self.emitter == "auto" and (target != "sm_90" or gluon_missing()):
            return "tl"
        return self.emitter

    def _last(self) -> Lowered:
        if self._latest is None and self._interpreted is not None:
            tensors, parameters = self._interpreted
            return self.lower(*tensors, **parameters)
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
