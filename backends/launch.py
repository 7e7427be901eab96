"""Launch plans: a sequence of kernels as one callable on torch tensors.

A call is answered by a *ready* function, made once for each combination of shapes, strides, dtypes,
devices and parameters: it allocates what the kernels write, fills pointers into argument lists that
are otherwise finished, and launches. What it costs beyond Triton's own launch is held by a test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..codegen.kernel import Argument, Buffer, Kernel
from ..ir.cascade import Cascade, Scalar
from ..ir.errors import BackendError, VerificationError
from ..ir.mapping import Mapping as Mapped
from ..ir.sizes import rank_sizes
from .arguments import check_count
from .dispatch import Launch, dispatcher, quickened
from .kept import Kept, behind, keep
from .memory import New, Piece, buffer_shape, contiguous_strides, new, piece
from .parts import processors_of
from .static import Made, Static, lasting
from .triton import interpreting, launch_options, load, triton
from .triton_arguments import check_parameters, check_tensors
from .triton_boxes import Maker, box_maker
from .walked_sizes import walked_sizes

Ready = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]

READY_LIMIT = 256
"""How many combinations a plan remembers; the oldest goes first (a growing cache makes many)."""

PLACE = 256
"""Bytes: where tensors between kernels begin in the memory that they share."""

GRID_LIMIT = 2**31 - 1
"""Programs along a grid's first dimension."""


@dataclass(slots=True)
class Prepared:
    """How arguments of one kind are answered: ``run`` takes them at any address.

    ``quicken`` makes, once kernels are compiled, the function that answers most calls sooner, and
    the others with NotImplemented; None as long as there is none.
    """

    run: Ready
    quicken: Callable[[], Ready | None]

    def __call__(self, *tensors: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run on tensors of this kind."""
        return self.run(*tensors)


@dataclass(frozen=True, slots=True)
class Plan:
    """Kernels in the order in which they run, the cascade that they compute, and its outputs.

    ``plan(*inputs, **parameters)`` takes tensors in the order of the declaration, with any strides,
    and returns new contiguous tensors: one, or a tuple in the order of ``outputs``.
    """

    kernels: tuple[Kernel, ...]
    cascade: Cascade
    outputs: tuple[str, ...]
    given: tuple[tuple[str, int], ...] = ()
    mapping: Mapped | None = None
    static: tuple[str, ...] = ()
    ready: dict[Any, Ready] = field(default_factory=dict, compare=False, repr=False)
    tables: dict[Any, Kept] = field(default_factory=dict, compare=False, repr=False)

    def __call__(
        self, *tensors: torch.Tensor, **parameters: Scalar
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run the kernels.

        Raises
        ------
        ShapeError : tensors or parameters do not fit the declaration.
        BackendError : a dtype, a device or a size that Triton has no code for.
        """
        try:
            key: Any = tuple([(t.shape, t.stride(), t.dtype, t.device) for t in tensors])
            if parameters:
                # With types, since 1, 1.0 and True are equal and mean three kernels.
                key = (key, *((name, x, x.__class__) for name, x in parameters.items()))
            run = self.ready.get(key)
        except (AttributeError, RuntimeError, TypeError):
            # No strided tensor, which prepare refuses by name, or a number that has no hash.
            return self.prepare(*tensors, **parameters)(*tensors)
        if run is None:
            run = self.prepare(*tensors, **parameters)
            while len(self.ready) >= READY_LIMIT:
                self.ready.pop(next(iter(self.ready)), None)
            self.ready[key] = run
        return run(*tensors)

    def prepare(self, *tensors: torch.Tensor, **parameters: Scalar) -> Prepared:
        """Return the function that runs the kernels on tensors like these, with all checks done.

        It takes the tensors alone, of the same shapes, strides, dtypes and device, unchecked.
        """
        lasts = lasting(self.kernels, self.static, self.outputs) if self.static else frozenset()
        if not lasts:
            made = self.made(tensors, parameters, lasts)
            return Prepared(made.run, made.quicken)
        places = [k for k, name in enumerate(self.cascade.inputs) if name in self.static]
        kept = Static(places, lambda *given: self.made(given, parameters, lasts))
        return Prepared(kept.run, kept.quicken)

    def made(
        self,
        tensors: tuple[torch.Tensor, ...],
        parameters: Mapping[str, Scalar],
        lasts: frozenset[str],
    ) -> Made:
        """Return how tensors like these are answered; kernels that last run only when asked to."""
        check_count(self.cascade, tensors, parameters)
        device = check_tensors(self.cascade, tensors)
        values = check_parameters(self.cascade, parameters)
        inputs = dict(zip(self.cascade.inputs, tensors, strict=True))
        shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
        dtypes = {name: str(x.dtype).removeprefix("torch.") for name, x in inputs.items()}
        dtypes |= {b.tensor: b.dtype for kernel in self.kernels for b in kernel.writes}
        sizes = rank_sizes(self.cascade, shapes, values, dict(self.given))
        if self.mapping is not None:
            sizes, values = walked_sizes(
                self.mapping, self.kernels, shapes, values, sizes, processors_of(device)
            )
        strides = {name: tuple(tensor.stride()) for name, tensor in inputs.items()}

        slots = {name: slot for slot, name in enumerate(inputs)}
        made: list[New | torch.Tensor] = []
        running: list[tuple[Kernel, int]] = []
        filling: list[tuple[Kernel, int]] = []
        lasting_slots = dict(slots)
        between: dict[str, Piece] = {}
        held = 0
        kept: list[Kept] = []
        for kernel in self.kernels:
            programs = count_programs(kernel, sizes)
            if kernel.fixed:
                kept.append(self.fixed(kernel, programs, shapes, sizes, values, device))
                for buffer, tensor in zip(kernel.writes, kept[-1].tensors, strict=True):
                    shapes[buffer.tensor], strides[buffer.tensor] = tensor.shape, tensor.stride()
                    slots[buffer.tensor] = len(slots)
                    made.append(tensor)
                    lasting_slots[buffer.tensor] = len(lasting_slots)
                continue
            if kernel.name in lasts:
                filling += [(kernel, programs)] if programs else []
            for buffer in kernel.writes:
                if buffer.tensor in shapes:
                    continue  # written in part by an earlier kernel
                shape = buffer_shape(buffer, sizes)
                shapes[buffer.tensor], strides[buffer.tensor] = shape, contiguous_strides(shape)
                whole = programs > 0 and not buffer.zeros
                if kernel.name in lasts:
                    slots[buffer.tensor] = len(slots)
                    lasting_slots[buffer.tensor] = len(lasting_slots)
                    made.append(new(buffer, shape, device, written=whole).make())
                elif buffer.tensor in self.outputs or not whole:
                    slots[buffer.tensor] = len(slots)
                    made.append(new(buffer, shape, device, written=whole))
                else:
                    between[buffer.tensor] = place = piece(buffer, shape, held)
                    held += -(-place.size // PLACE) * PLACE
            if programs and kernel.name not in lasts:
                running.append((kernel, programs))
        if between:
            made.append(New((held,), torch.uint8, device))
        slots |= {tensor: len(slots) + k for k, tensor in enumerate(between)}

        def launched(work: list[tuple[Kernel, int]], slots: dict[str, int]) -> list[Launch]:
            return [
                Launch(
                    load(kernel),
                    resident(kernel, programs, device),
                    *fill(kernel, slots, shapes, strides, sizes, values),
                    launch_options(kernel),
                    boxes(kernel, slots, dtypes, shapes, strides),
                )
                for kernel, programs in work
            ]

        launches = launched(running, slots)
        wanted = [slots[name] for name in self.outputs]
        pieces = tuple(between.values())

        def around(run: Ready) -> Ready:
            if any(kernel.descriptors for kernel in self.kernels):
                run = with_workspace(run)
            return behind(run, tuple(kept), device) if kept and device.type == "cuda" else run

        def quicken() -> Ready | None:
            found = quickened(len(self.cascade.inputs), made, pieces, launches, wanted, device)
            return None if found is None else around(found)

        run = around(ready(made, dispatcher(launches, pieces, device), wanted))
        there = [x for x in made if isinstance(x, torch.Tensor)]
        refill = ready(there, dispatcher(launched(filling, lasting_slots), (), device), [0])
        return Made(guarded(run, device), quicken, guarded(around(refill), device))

    def fixed(
        self,
        kernel: Kernel,
        programs: int,
        given: Mapping[str, tuple[int, ...]],
        sizes: Mapping[str, int],
        parameters: Mapping[str, Scalar],
        device: torch.device,
    ) -> Kept:
        """Return what a kernel writes that no tensor changes, but for its shape; it runs once."""
        slots = {buffer.tensor: k for k, buffer in enumerate(kernel.writes)}
        shapes = {b.tensor: buffer_shape(b, sizes) for b in kernel.writes}
        strides = {t: contiguous_strides(shape) for t, shape in shapes.items()}
        arguments, pointers = fill(kernel, slots, {**given, **shapes}, strides, sizes, parameters)
        key = (kernel.text, tuple(arguments), tuple(shapes.values()), device)
        if key not in self.tables:
            made = [new(b, shapes[b.tensor], device).make() for b in kernel.writes]
            for position, slot in pointers:
                arguments[position] = made[slot]
            if programs:
                launch = partial(load(kernel)[(programs,)], **launch_options(kernel))
                guarded(launch, device)(*arguments)
            while len(self.tables) >= READY_LIMIT:
                self.tables.pop(next(iter(self.tables)), None)
            self.tables[key] = keep(made, device)
        return self.tables[key]


def plan(
    kernels: Sequence[Kernel],
    cascade: Cascade,
    *,
    outputs: Sequence[str] | None = None,
    given: Mapping[str, int] | None = None,
    mapping: Mapped | None = None,
    static: tuple[str, ...] = (),
) -> Plan:
    """Return the plan that runs ``kernels`` in order and returns ``outputs``.

    outputs : tensor names; the cascade's outputs if None.
    given : sizes of ranks that no argument's shape tells, or that the kernels fix.
    mapping : what the kernels were made from, which may have ranks of its own.
    static : inputs that seldom change: what follows from them alone is kept until they do.

    Raises
    ------
    VerificationError : a kernel reads what no kernel before it has written, writes an input, or
        declares a buffer differently than a kernel before it; an output is never written.
    """
    wanted = tuple(cascade.outputs if outputs is None else outputs)
    written: dict[str, Buffer] = {}
    for kernel in kernels:
        for name in kernel.reads:
            if name not in cascade.inputs and name not in written:
                raise VerificationError(
                    f"kernel {kernel.name} reads {name}, which is neither an input of"
                    f" {cascade.name} nor written by a kernel before it; please report this"
                )
        for buffer in kernel.writes:
            if buffer.tensor in cascade.inputs or written.get(buffer.tensor, buffer) != buffer:
                raise VerificationError(
                    f"kernel {kernel.name} writes {buffer.tensor}, which is an input of"
                    f" {cascade.name} or was declared differently by a kernel before it;"
                    " please report this"
                )
            written[buffer.tensor] = buffer
    for name in wanted:
        if name not in cascade.inputs and name not in written:
            raise VerificationError(
                f"no kernel of {cascade.name} writes its output {name}; please report this"
            )
    return Plan(tuple(kernels), cascade, wanted, tuple((given or {}).items()), mapping, static)


def ready(
    made: Sequence[New | torch.Tensor],
    dispatch: Callable[[list[torch.Tensor]], None],
    wanted: Sequence[int],
) -> Ready:
    """Return the function of a plan: it makes what is written, launches, and returns outputs."""
    single = wanted[0] if len(wanted) == 1 else None

    def run(*tensors: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        store = [*tensors, *[x.make() if isinstance(x, New) else x for x in made]]
        dispatch(store)
        if single is not None:
            return store[single]
        return tuple([store[slot] for slot in wanted])

    return run


def with_workspace(run: Ready) -> Ready:
    """Give Triton the memory that tensor descriptors live in, in whatever thread ``run`` is called.

    Triton keeps its allocator for each thread apart, and the backward of torch has its own threads.
    """
    set_allocator = triton().set_allocator

    def run_with(*tensors: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        set_allocator(workspace)
        return run(*tensors)

    return run_with


def workspace(size: int, alignment: int, stream: int | None) -> torch.Tensor:
    """Return memory on the current GPU; torch aligns it well and keeps it in stream order."""
    return torch.empty(size, dtype=torch.int8, device="cuda")


def guarded(run: Ready, device: torch.device) -> Ready:
    """Make ``run`` launch on ``device``, also where another GPU is the current one."""
    if device.type != "cuda" or torch.cuda.device_count() == 1:
        return run

    def run_there(*tensors: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        if torch.cuda.current_device() == device.index:
            return run(*tensors)
        with torch.cuda.device(device):
            return run(*tensors)

    return run_there


def fill(
    kernel: Kernel,
    slots: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    strides: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
    parameters: Mapping[str, Scalar],
) -> tuple[list[Any], list[tuple[int, int]]]:
    """Return a kernel's arguments, None for pointers, and (position, slot) for each pointer."""
    tiles = kernel.tile_sizes
    pointers: list[tuple[int, int]] = []

    def value(position: int, argument: Argument) -> Any:
        match argument.kind:
            case "pointer":
                pointers.append((position, slots[argument.tensor]))
                return None
            case "stride":
                return strides[argument.tensor][argument.position]
            case "extent":
                return shapes[argument.tensor][argument.position]
            case "size":
                return sizes[argument.rank]
            case "parameter":
                given = parameters[argument.parameter or argument.name]
                # Triton's interpreter makes a number of 32 bits of it, which it calls one of 1 bit
                return int(given) if interpreting() and isinstance(given, bool) else given
            case "tile":
                return tiles[argument.name]
            case "box":
                return None  # each call makes its own
        raise KeyError(argument.kind)

    try:
        return [value(i, argument) for i, argument in enumerate(kernel.arguments)], pointers
    except (KeyError, IndexError) as error:
        raise VerificationError(
            f"kernel {kernel.name} asks for an argument that its plan does not have: {error};"
            " please report this"
        ) from error


def count_programs(kernel: Kernel, sizes: Mapping[str, int]) -> int:
    """Return how many programs a kernel's grid has; 0 if a rank of the grid is empty."""
    tiles = kernel.tile_sizes
    extents = {g.rank: -(-sizes[g.rank] // (tiles[g.tile] if g.tile else 1)) for g in kernel.grid}
    programs = math.prod(extents.values())
    if programs > GRID_LIMIT:
        shown = " x ".join(f"{rank}: {extent}" for rank, extent in extents.items())
        raise BackendError(
            f"a launch has at most {GRID_LIMIT} programs, and kernel {kernel.name} would have"
            f" {programs} ({shown}); call it on parts of {max(extents, key=extents.__getitem__)}"
        )
    return programs


def boxes(
    kernel: Kernel,
    slots: Mapping[str, int],
    dtypes: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    strides: Mapping[str, tuple[int, ...]],
) -> list[tuple[int, int, Maker]]:
    """Return (position, slot, what makes it) of each descriptor among a kernel's arguments."""
    return [
        (k, slots[a.tensor], box_maker(a, dtypes[a.tensor], shapes, strides))
        for k, a in enumerate(kernel.arguments)
        if a.kind == "box"
    ]


def resident(kernel: Kernel, programs: int, device: torch.device) -> int:
    """Return how many programs to launch: of a persistent kernel, one for each multiprocessor."""
    if not kernel.persistent or device.type != "cuda":
        return programs
    return min(programs, processors_of(device))
