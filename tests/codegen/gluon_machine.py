"""A machine that runs the text of Gluon kernels in numpy, with warps and memory as late as allowed.

Every group of warps is a thread, of which one runs at a time; at each operation that touches
something shared a seeded choice says who goes on. Adversarial is that

* a load by descriptor spoils its slot when it is issued, and lands whenever the choice says;
* a product reads shared memory when it is issued or, as likely, when a wait forces it to;
* a store by descriptor reads shared memory only when it is waited for, and lands long after that,
  but for a wait that memory has it;
* a result that was not waited for is NaN, as is shared memory that nobody has written.

So an early release, a wrong parity, a missing wait give a wrong number, and what cannot go on is a
deadlock, found at once. Layouts, fences and registers are the compiler's to check.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from einfall.codegen.kernel import Kernel

from .gluon_assembly import computed
from .gluon_memory import Box, Pointer, Shared, Tile, nothing, tile


class DeadlockError(AssertionError):
    """No group of warps can go on."""


class Agent:
    """One group of warps: a thread that runs when it is told to."""

    def __init__(self, machine: Machine, work: Callable[[], None]) -> None:
        self.machine, self.go = machine, threading.Semaphore(0)
        self.ready: Callable[[], bool] = lambda: True
        self.running = True
        self.error: BaseException | None = None
        self.products: list[Callable[[], None]] = []
        self.stores: list[Callable[[], Callable[[], None]]] = []
        self.landing: list[Callable[[], None]] = []
        self.thread = threading.Thread(target=self.run, args=(work,), daemon=True)
        self.thread.start()

    def run(self, work: Callable[[], None]) -> None:
        self.go.acquire()
        self.machine.local.agent = self
        try:
            if not self.machine.stopped:
                with np.errstate(all="ignore"):
                    work()
                assert not self.products, "products run on after the end"
                assert not self.stores, "stores run on after the end"
        except BaseException as error:
            self.error = error
        self.running = False
        self.machine.back.release()


class Stop(BaseException):
    """Ends a thread whose machine has failed."""


class Machine:
    """The programs that run at a time: warps, shared memory, copies under way."""

    def __init__(self, seed: int) -> None:
        self.choice, self.late = random.Random(seed), random.Random(seed)
        self.back, self.local = threading.Semaphore(0), threading.local()
        self.copies: list[Callable[[], None]] = []
        self.slow: list[Callable[[], None]] = []
        self.works: list[Callable[[], None]] = []
        self.stopped = False

    def run(self, works: Iterable[Callable[[], None]]) -> None:
        """Run groups of warps until all have ended."""
        agents = [Agent(self, work) for work in works]
        try:
            while any(a.running for a in agents):
                self.advance([a for a in agents if a.running])
                failed = [a.error for a in agents if a.error is not None]
                if failed:
                    raise failed[0]
            for left in (self.copies, self.slow):
                while left:
                    left.pop()()
        finally:
            self.stopped = True
            for a in agents:
                a.go.release()

    def advance(self, agents: list[Agent]) -> None:
        """Let one group of warps, or one copy, go on."""
        able: list[Any] = [a for a in agents if a.ready()]
        able += self.copies
        if not able or self.late.random() < 0.02:
            able += self.slow
        if not able:
            raise DeadlockError("no group of warps can go on")
        chosen = self.choice.choice(able)
        if isinstance(chosen, Agent):
            chosen.go.release()
            self.back.acquire()
        else:
            (self.copies if chosen in self.copies else self.slow).remove(chosen)
            chosen()

    def pause(self, ready: Callable[[], bool] = lambda: True) -> None:
        """Let others run, and go on once ``ready`` holds."""
        agent = self.local.agent
        agent.ready = ready
        self.back.release()
        agent.go.acquire()
        if self.stopped:
            raise Stop


class Barrier:
    """A barrier in shared memory: arrivals and bytes of one phase, then the next."""

    def __init__(self) -> None:
        self.arrivals = self.open = self.bytes = self.phase = 0

    def settle(self) -> None:
        assert self.open >= 0, "more arrivals than the barrier counts"
        if self.open == 0 and self.bytes == 0:
            self.phase, self.open = self.phase + 1, self.arrivals


class Barriers:
    def __init__(self, count: int) -> None:
        self.all = [Barrier() for _ in range(count)]

    def index(self, k: int) -> Barrier:
        return self.all[k]


class Product:
    """A product under way; ``value`` comes when it is done."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.value = np.full(shape, np.nan, np.float32)


def arguments(
    kernel: Kernel,
    memory: Mapping[str, np.ndarray],
    sizes: Mapping[str, int],
    parameters: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what a launch would give a kernel, by the names of its arguments."""
    given: dict[str, Any] = {}
    for a in kernel.arguments:
        array = memory.get(a.tensor, np.zeros(0))
        match a.kind:
            case "box":
                given[a.name] = Box(array, a.order, a.block)
            case "pointer":
                given[a.name] = Pointer(array)
            case "stride":
                given[a.name] = array.strides[a.position] // array.itemsize
            case "extent":
                given[a.name] = array.shape[a.position]
            case "size":
                given[a.name] = sizes[a.rank]
            case "tile":
                given[a.name] = kernel.tile_sizes[a.name]
            case _:
                given[a.name] = parameters[a.parameter or a.name]
    return given


def run_text(
    kernel: Kernel,
    given: Mapping[str, Any],
    programs: int,
    seed: int,
    text: str | None = None,
    together: int = 1,
) -> None:
    """Run every program of a kernel; ``given`` are its arguments, ``text`` stands for its text.

    ``together`` : how many programs run at a time.
    """
    source = re.sub(r"^from triton[^(]*?(\([^)]*\))?$", "", text or kernel.text, flags=re.M)
    source = re.sub(r"^import triton.*$", "", source, flags=re.M)
    code = compile(source, kernel.name, "exec")
    machine = Machine(seed)
    for pid in range(programs):
        if pid % together == 0:
            machine = Machine(seed + pid)
        names = language(machine, pid, programs)
        added = names["add_box"]
        exec(code, names)
        names["add_box"] = added
        with np.errstate(all="ignore"):
            if kernel.language == "triton":  # such as one that lists tiles: one group of warps
                machine.run(
                    [partial(names[kernel.name], *(given[a.name] for a in kernel.arguments))]
                )
            else:
                names[kernel.name](*(given[a.name] for a in kernel.arguments))
                if (pid + 1) % together == 0 or pid + 1 == programs:
                    machine.run(machine.works)


def language(machine: Machine, pid: int, programs: int) -> dict[str, Any]:
    """Return Gluon, as far as kernels call it, on a machine."""
    named: dict[int, list[int]] = {}
    noted: dict[str, int] = {}

    def dtype_full(shape: list[int], value: Any, dtype: Any, layout: Any = None) -> Tile:
        return np.full(shape, value, dtype).view(Tile)

    def load(pointer: Pointer, mask: Any = None, other: Any = 0) -> Any:
        flat = pointer.array.reshape(-1)
        place = np.asarray(pointer.offset)
        mask = np.broadcast_to(True if mask is None else mask, place.shape)
        assert np.all((place >= 0) & (place < flat.size) | ~mask), "a load outside its tensor"
        got = flat[np.where(mask, place, 0)]
        return tile(np.where(mask, got, np.asarray(other, flat.dtype)))

    def store(pointer: Pointer, value: Any, mask: Any = None) -> None:
        place = np.asarray(pointer.offset)
        mask = np.broadcast_to(True if mask is None else mask, place.shape)
        pointer.array.reshape(-1)[place[mask]] = np.broadcast_to(value, place.shape)[mask]

    def atomic_add(pointer: Pointer, value: int, sem: str) -> int:
        flat = pointer.array.reshape(-1)
        before = int(flat[pointer.offset])
        flat[pointer.offset] += value
        return before

    def allocate(dtype: Any, shape: list[int], layout: Any) -> Any:
        if dtype is np.int64:
            return Barriers(shape[0])
        return Shared(np.full(shape, nothing(dtype), dtype), dtype)

    def specialize(parts: list[Any], warps: list[int], registers: list[int]) -> None:
        assert len(parts) == len(warps) + 1 == len(registers) + 1
        machine.works += [partial(function, *given) for function, given in parts]

    def assembly(text: str, *others: Any, **options: Any) -> Any:
        for kind, x in zip(others[0].split(",")[1:], others[1], strict=True) if others else ():
            real = np.asarray(x).dtype.kind == "f"
            assert (kind == "f") == real, "a register is read as another kind of number"
        made = computed(text, others[1] if len(others) > 1 else ())
        if made is not None:
            return tile(made)
        if note := re.search(r"note\d", text):
            before = noted.get(note[0], 0)
            x = np.asarray(others[1][0])
            large = "setp.geu" in text and not bool((x < 4096).all())
            moved = "setp.neu" in text and not bool((x == 1).all())
            noted[note[0]] = int("@p" in text and (large or moved or bool(before)))
            return before
        if text.startswith("griddepcontrol"):
            return 0  # programs of two kernels never run at once here
        if "ld.acquire" in text:
            count, before = others[1]
            return machine.pause(lambda: count.value >= before)
        if "red.release" in text:
            store_wait(0)
            waits = re.search(r"wait_group (\d+)", text)
            assert waits is not None
            land_all_but(int(waits[1]))
            others[1][0].array.reshape(-1)[others[1][0].offset] += 1
            return machine.pause()
        found = re.match(r"bar\.(sync|arrive) (\d+), (\d+)", text)
        assert found is not None
        kind, number, threads = found.groups()
        state = named.setdefault(int(number), [0, 0])  # arrived, times passed
        state[0] += 128
        passed = state[1]
        assert state[0] <= int(threads), "more threads at a named barrier than it counts"
        if state[0] == int(threads):
            state[:] = [0, passed + 1]
        if kind == "sync":
            machine.pause(lambda: state[1] > passed)

    def arrive(bar: Barrier, count: int = 1) -> None:
        bar.open -= count
        bar.settle()
        machine.pause()

    def expect(bar: Barrier, nbytes: int) -> None:
        bar.bytes += nbytes
        bar.open -= 1
        bar.settle()

    def wait(bar: Barrier, parity: int, pred: bool = True) -> None:
        if pred:
            machine.pause(lambda: bar.phase & 1 != parity)

    def initialise(bar: Barrier, count: int) -> None:
        bar.arrivals = bar.open = count

    def copy_in(box: Box, at: tuple[int, ...], bar: Barrier, into: Shared) -> None:
        into.array[...] = nothing(into.dtype)

        def land() -> None:
            into.array[...] = box.read(at)
            bar.bytes -= box.block_type.nbytes
            bar.settle()

        machine.copies.append(land)
        machine.pause()

    def copy_out(box: Box, at: tuple[int, ...], source: Shared) -> None:
        machine.local.agent.stores.append(lambda: partial(box.write, at, source.array.copy()))

    def copy_added(box: Box, at: tuple[int, ...], source: Shared) -> None:
        machine.local.agent.stores.append(lambda: partial(box.add, at, source.array.copy()))

    def store_wait(pending: int) -> None:
        agent = machine.local.agent
        while len(agent.stores) > pending:
            land = agent.stores.pop(0)()
            agent.landing.append(land)
            machine.slow.append(land)

    def land_all_but(pending: int) -> None:
        landing = machine.local.agent.landing
        while len(landing) > pending:
            land = landing.pop(0)
            if land in machine.slow:
                machine.slow.remove(land)
                land()

    def multiply(a: Any, b: Shared, acc: Any, use_acc: bool = True, is_async: bool = False) -> Any:
        left: np.ndarray = a.array if isinstance(a, Shared) else np.array(a)
        found = Product(left.shape[:1] + b.array.shape[1:])

        def work() -> None:
            start = acc.value if isinstance(acc, Product) else np.asarray(acc)
            value = left.astype(np.float32) @ b.array.astype(np.float32)
            found.value = value + start if use_acc else value

        agent = machine.local.agent
        agent.products.append(work)
        if machine.choice.random() < 0.5:  # it may run at once as well, with all before it
            finish(0)
        machine.pause()
        return found

    def finish(pending: int) -> None:
        products = machine.local.agent.products
        while len(products) > pending:
            products.pop(0)()

    def multiply_wait(pending: int, deps: tuple[Any, ...]) -> Any:
        finish(pending)
        machine.pause()
        found = tuple(tile(d.value) if isinstance(d, Product) else d for d in deps)
        return found[0] if len(found) == 1 else found

    def either(condition: Any, x: Any, y: Any) -> Any:
        found = np.where(condition, x, y)
        real = [v.dtype for v in (x, y) if isinstance(v, np.ndarray)]
        return tile(found.astype(real[0]) if real else found)

    def pointwise(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *xs: tile(function(*xs))

    def folded(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda x, axis: tile(function(x, axis=axis))

    gl = SimpleNamespace(
        constexpr=lambda x: x,
        float16=np.float16,
        float32=np.float32,
        int1=np.bool_,
        int8=np.int8,
        int32=np.int32,
        int64=np.int64,
        program_id=lambda axis: pid,
        num_programs=lambda axis: programs,
        static_range=range,
        cdiv=lambda a, b: -(-a // b),
        cast=lambda x, dtype: np.asarray(x, dtype).view(Tile),
        arange=lambda a, b, layout=None: np.arange(a, b).view(Tile),
        zeros=lambda shape, dtype, layout=None: dtype_full(shape, 0, dtype),
        full=dtype_full,
        where=either,
        broadcast=lambda x, y: tuple(map(tile, np.broadcast_arrays(x, y))),
        minimum=pointwise(np.minimum),
        maximum=pointwise(np.maximum),
        exp=pointwise(np.exp),
        exp2=pointwise(np.exp2),
        log=pointwise(np.log),
        log2=pointwise(np.log2),
        sqrt=pointwise(np.sqrt),
        rsqrt=pointwise(lambda x: (1 / np.sqrt(x)).astype(np.float32)),
        abs=pointwise(np.abs),
        fma=pointwise(lambda x, y, z: x * y + z),
        floor=pointwise(np.floor),
        max=folded(np.max),
        min=folded(np.min),
        sum=folded(lambda x, axis: np.sum(x, axis=axis, dtype=x.dtype)),
        load=load,
        store=store,
        atomic_add=atomic_add,
        convert_layout=lambda x, layout, assert_trivial=False: x,
        to_tensor=lambda x: x,
        SliceLayout=lambda *a: None,
        BlockedLayout=lambda *a: None,
        SwizzledSharedLayout=lambda *a: None,
        DistributedLinearLayout=lambda *a: None,
        DotOperandLayout=lambda *a: None,
        NVMMADistributedLayout=lambda *a: None,
        NVMMASharedLayout=SimpleNamespace(get_default_for=lambda *a: None),
        range=range,
        cumsum=lambda x, axis: tile(np.cumsum(x, axis, dtype=x.dtype)),
        allocate_shared_memory=allocate,
        warp_specialize=specialize,
        inline_asm_elementwise=assembly,
    )
    barrier = SimpleNamespace(
        MBarrierLayout=lambda: None, init=initialise, arrive=arrive, expect=expect, wait=wait
    )
    engine = SimpleNamespace(
        async_copy_global_to_shared=copy_in,
        async_copy_shared_to_global=copy_out,
        store_wait=store_wait,
    )
    return {
        "builtin": lambda f: f,
        "add_box": copy_added,
        "gluon": SimpleNamespace(jit=lambda f: f, constexpr_function=lambda f: f),
        "gl": gl,
        "tl": gl,
        "triton": SimpleNamespace(jit=lambda f: f),
        "mbarrier": barrier,
        "tma": engine,
        "fence_async_shared": lambda: None,
        "warpgroup_mma": multiply,
        "warpgroup_mma_wait": multiply_wait,
    }
