"""Symbols: numbers that are not known yet, with which a function of other libraries is run once.

What the function does with them, arithmetic, comparisons, ``& | ~``, ``torch.where`` and the like,
and reading tensors that it captures, becomes an expression of the notation. A captured tensor of
no ranks is read where it lies, ``cap[()]``, so that no value is copied to the host and a later
change of it counts.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from math import inf
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..ir.errors import BackendError
from ..ir.expression import Access, Apply, Constant, Expression, RankVariable
from .tracing_functions import BOOLEAN, CONVERTED, KINDS, MADE, functions, known_functions

OWN = (str(Path(__file__).parent), str(Path(torch.__file__).parent))
"""Where no line of a user's function is."""


MOST = 1000
"""Functions, lists and objects that are looked into for names of tensors."""


class Symbol:
    """A number or truth value that is not known yet; ``kind`` is ``bool``, ``int`` or ``float``."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expression: Expression, kind: str) -> None:
        self.expression, self.kind = expression, kind

    device = torch.device("cpu")
    shape = torch.Size(())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that torch would give such a number."""
        return {"bool": torch.bool, "int": torch.int64, "float": torch.float32}[self.kind]

    def dim(self) -> int:
        """Return 0: a symbol is one number."""
        return 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: apply(name, (self, *args), kwargs)

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Symbol:
        return apply(getattr(function, "__name__", str(function)), args, kwargs or {})


SHOWN = {"and": "& of numbers", "or": "| of numbers", "xor": "^ of numbers", "invert": "~"}
"""Operators as Python writes them, where they have no form."""


def _operator(name: str, mirrored: bool) -> Callable[..., Symbol]:
    def build(self: Symbol, *other: Any) -> Symbol:
        return apply(name, (*other, self) if mirrored else (self, *other), {})

    return build


INFIX = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"),
    *("and", "or", "xor", "lshift", "rshift"),
)
for _name in (*INFIX, "lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "invert"):
    setattr(Symbol, f"__{_name}__", _operator(_name, mirrored=False))
for _name in INFIX:
    setattr(Symbol, f"__r{_name}__", _operator(_name, mirrored=True))


def _needed(what: str) -> Callable[..., Any]:
    def refuse(self: Symbol, *args: Any) -> Any:
        raise refused(
            f"{what}, which depends on where a point is, and no point is known yet; write the"
            " choice with torch.where, & and |"
        )

    return refuse


for _name, _what in (
    ("bool", "branches on a coordinate"),
    ("int", "takes a coordinate for a number of Python"),
    ("float", "takes a coordinate for a number of Python"),
    ("index", "takes a coordinate for a number of Python"),
    ("iter", "walks along a coordinate"),
    ("len", "asks a coordinate for its length"),
    ("getitem", "reads a coordinate as a tensor"),
):
    setattr(Symbol, f"__{_name}__", _needed(_what))


class Partial:
    """A captured tensor read at some of its ranks so far: ``doc[b]``, to be read at ``[q]``."""

    def __init__(self, tracer: Tracer, tensor: torch.Tensor, at: tuple[Any, ...]) -> None:
        self.tracer, self.tensor, self.at = tracer, tensor, at

    def __getitem__(self, index: Any) -> Any:
        more = index if isinstance(index, tuple) else (index,)
        return self.tracer.read(self.tensor, (*self.at, *more))

    def __getattr__(self, name: str) -> Any:
        raise self.refused()

    def refused(self) -> BackendError:
        """Return the error for a tensor that is not read at all of its ranks."""
        return refused(
            f"reads a tensor of {self.tensor.dim()} ranks at {len(self.at)} coordinates; give one"
            " for each"
        )

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise next(x for x in args if isinstance(x, Partial)).refused()


for _name in (*INFIX, "lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "invert", "bool"):
    setattr(Partial, f"__{_name}__", lambda self, *other: self.dim)


class Tracer(TorchFunctionMode):
    """Runs functions on symbols; collects the tensors that they read, each under one name.

    taken : names that no tensor gets.
    """

    def __init__(self, taken: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.taken = set(taken)
        self.wishes: dict[int, str] = {}
        self.tensors: dict[int, tuple[str, torch.Tensor]] = {}
        self.made: dict[int, torch.Tensor] = {}

    def run(self, function: Callable[..., Any], *given: Symbol) -> Symbol:
        """Return what a function makes of symbols."""
        self.wishes |= {id(x): name for x, name in captured(function)}
        before = RUNNING.set(self)
        try:
            with self:
                return self.symbol(function(*given))
        finally:
            RUNNING.reset(before)

    def named(self) -> tuple[tuple[str, torch.Tensor], ...]:
        """Return the tensors that were read, by name, in the order of sight."""
        return tuple(self.tensors.values())

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", str(function)).strip("_")
        if name == "getitem" and isinstance(args[0], torch.Tensor):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            whole = len(index) == args[0].dim() and all(type(x) is int for x in index)
            if whole or any(isinstance(x, Symbol) or _read_at_one(x) for x in index):
                return self.read(args[0], index)
        flat = [*args, *(kwargs or {}).values()]
        for x in flat:
            if isinstance(x, Partial):
                raise x.refused()
        if any(isinstance(x, Symbol) for x in flat) or (
            name in known_functions() and any(self.lone(x) for x in flat)
        ):
            given = tuple(self.symbol(x) if isinstance(x, torch.Tensor) else x for x in args)
            named = {
                k: self.symbol(x) if isinstance(x, torch.Tensor) else x
                for k, x in (kwargs or {}).items()
            }
            return apply(name, given, named)
        found = function(*args, **(kwargs or {}))
        if name in MADE and isinstance(found, torch.Tensor):
            self.made[id(found)] = found
        return found

    def lone(self, x: Any) -> bool:
        """Whether something is a captured tensor of no ranks."""
        return isinstance(x, torch.Tensor) and x.dim() == 0 and id(x) not in self.made

    def symbol(self, x: Any) -> Symbol:
        """Return a symbol, a number or a tensor of one number as a symbol."""
        if not isinstance(x, torch.Tensor) or x.dim():
            return number(x)
        if id(x) in self.made:  # made here from numbers, on the host
            return number(x.item())
        found: Symbol = self.read(x, ())
        return found

    def read(self, tensor: torch.Tensor, at: tuple[Any, ...]) -> Any:
        """Return a captured tensor at coordinates; a tensor at fewer of them waits for the rest."""
        if len(at) < tensor.dim():
            return Partial(self, tensor, at)
        if len(at) > tensor.dim():
            raise refused(
                f"reads a tensor of {tensor.dim()} ranks at {len(at)} coordinates; give one for"
                " each"
            )
        at = tuple(
            x + n if type(x) is int and x < 0 else x for x, n in zip(at, tensor.shape, strict=True)
        )
        places = [self.symbol(x) for x in at]
        for place in places:
            if place.kind != "int":
                raise refused(
                    f"reads a tensor at a coordinate that is a {place.kind}; convert it, as in"
                    " x.long()"
                )
        name = self.name_of(tensor)
        return Symbol(Access(name, tuple(p.expression for p in places)), kind_of(tensor.dtype))

    def name_of(self, tensor: torch.Tensor) -> str:
        """Return the name of a tensor that is read, the variable's where it has one."""
        if id(tensor) not in self.tensors:
            wish = self.wishes.get(id(tensor), f"captured_{len(self.tensors) + 1}")
            used = {n for n, _ in self.tensors.values()} | self.taken
            name, count = wish, 2
            while name in used:
                name, count = f"{wish}_{count}", count + 1
            self.tensors[id(tensor)] = (name, tensor)
        return self.tensors[id(tensor)][0]


RUNNING: ContextVar[Tracer] = ContextVar("RUNNING")
"""The tracer whose function runs: Python's operators on symbols ask it for tensors."""


def _read_at_one(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.dim() == 0


def rank(name: str) -> Symbol:
    """Return the coordinate of a rank."""
    return Symbol(RankVariable(name), "int")


def kind_of(dtype: torch.dtype) -> str:
    """Return what kind of number a dtype holds."""
    if dtype == torch.bool:
        return "bool"
    return "float" if dtype.is_floating_point else "int"


def number(x: Any) -> Symbol:
    """Return a symbol as it is, and a number of Python as a symbol."""
    match x:
        case Symbol():
            return x
        case bool() | int() | float():
            return Symbol(Constant(x), type(x).__name__)
        case torch.Tensor() if x.dim() == 0:
            return RUNNING.get().symbol(x)
        case torch.Tensor():
            raise refused(
                f"combines a coordinate with a tensor of {x.dim()} ranks, which no expression can"
                " say; read tensors at coordinates, as in doc[b, q]"
            )
        case Partial():
            raise x.refused()
        case _:
            raise refused(
                f"combines a coordinate with {type(x).__name__}, which no expression can say; read"
                " tensors at coordinates, as in doc[b, q]"
            )


def apply(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Symbol:
    """Return what one of torch's functions, or of Python's operators, does to symbols."""
    name = name.strip("_")
    if name in CONVERTED:
        return converted(number(args[0]), name, (*args[1:], *kwargs.values()))
    if name in ("new_ones", "new_zeros", "ones_like", "zeros_like"):
        return made_like(args[0], float(name in ("new_ones", "ones_like")), kwargs)
    if name in ("new_tensor", "new_full", "full_like"):
        return number(args[-1])
    if name == "item":
        _needed("takes a coordinate for a number of Python")(args[0])
    build = functions().get(name)
    if build is not None:
        try:
            found = build(*map(number, args), **kwargs)
        except TypeError:
            found = None
        if found is not None:
            return Symbol(*found)
    raise refused(
        f"calls {SHOWN.get(name, name)}, which no expression can say; what can be said are"
        f" comparisons, arithmetic, & | ~, {', '.join(KINDS)}, and reading tensors at coordinates"
    )


def converted(x: Symbol, name: str, rest: tuple[Any, ...]) -> Symbol:
    """Return a symbol as another kind of number; what says nothing of a kind changes nothing."""
    goal = CONVERTED[name]
    for other in rest:
        if isinstance(other, torch.dtype):
            goal = kind_of(other)
        elif isinstance(other, Symbol):
            goal = other.kind
    if goal in ("", x.kind):
        return x
    if goal == "bool":
        return Symbol(Apply("!=", (x.expression, Constant(0))), "bool")
    if x.kind == "bool":
        return Symbol(Apply("where", (x.expression, Constant(1), Constant(0))), goal)
    if goal == "int":  # towards 0
        below = Apply("<", (x.expression, Constant(0)))
        ends = (Apply("ceil", (x.expression,)), Apply("floor", (x.expression,)))
        return Symbol(Apply("where", (below, *ends)), "int")
    return Symbol(x.expression, goal)


def made_like(x: Symbol, value: float, kwargs: dict[str, Any]) -> Symbol:
    """Return 0 or 1, as the number of a dtype that is given, else of the symbol's."""
    dtype = kwargs.get("dtype")
    kind = x.kind if dtype is None else kind_of(dtype)
    plain: bool | int | float = {"bool": bool(value), "int": int(value), "float": value}[kind]
    return number(plain)


def refused(what: str) -> BackendError:
    """Return the error that says what a function does that cannot be traced, and where."""
    return BackendError(f"a function that is traced {what}{place()}")


def place() -> str:
    """Show the line of the function that is being traced, underlined as Python does."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(OWN):
        frame = frame.f_back
    if frame is None:
        return ""
    (summary,) = traceback.StackSummary.extract([(frame, frame.f_lineno)])
    positions = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    shown = traceback.FrameSummary(
        summary.filename,
        summary.lineno,
        summary.name,
        end_lineno=positions[1],
        colno=positions[2],
        end_colno=positions[3],
    )
    return "\n" + "".join(traceback.format_list([shown])).rstrip()


def captured(function: Any, seen: set[int] | None = None) -> Iterator[tuple[torch.Tensor, str]]:
    """Yield (tensor, name) of what a function finds outside itself, and of what those find.

    Functions that it calls, lists of them and bound objects are looked into, each once.
    """
    seen = set() if seen is None else seen
    if id(function) in seen or len(seen) > MOST:
        return
    seen.add(id(function))
    match function:
        case torch.Tensor() | str() | int() | float() | None:
            return
        case list() | tuple():
            for x in function:
                yield from captured(x, seen)
            return
        case dict():
            yield from outside({n: x for n, x in function.items() if isinstance(n, str)}, seen)
            return
    inner = getattr(function, "func", None)  # functools.partial
    if inner is not None:
        yield from outside({**getattr(function, "keywords", {})}, seen)
        yield from captured((inner, *getattr(function, "args", ())), seen)
    owner = getattr(function, "__self__", None)
    if owner is not None:
        yield from outside(getattr(owner, "__dict__", {}), seen)
    code = getattr(function, "__code__", None)
    if code is None:
        if callable(function) and hasattr(function, "__dict__"):
            yield from outside(vars(function), seen)
        return
    cells = zip(code.co_freevars, getattr(function, "__closure__", None) or (), strict=True)
    local = {n: c.cell_contents for n, c in cells if _filled(c)}
    names = {n: function.__globals__[n] for n in code.co_names if n in function.__globals__}
    yield from outside({**names, **local}, seen)


def outside(found: dict[str, Any], seen: set[int]) -> Iterator[tuple[torch.Tensor, str]]:
    """Yield the tensors among some variables, and those of the functions among them."""
    for name, x in found.items():
        if isinstance(x, torch.Tensor):
            yield x, name
    for x in found.values():
        if not isinstance(x, type) and (callable(x) or isinstance(x, list | tuple | dict)):
            yield from captured(x, seen)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def without_infinity(x: Expression) -> tuple[Expression, Expression | None]:
    """Split a score that is -inf where a point is masked: the score, and where it is finite."""
    match x:
        case Apply("where", (condition, inner, Constant(value=value))) if value == -inf:
            found, more = without_infinity(inner)
            return found, condition if more is None else Apply("and", (condition, more))
        case Apply("where", (condition, Constant(value=value), inner)) if value == -inf:
            found, more = without_infinity(inner)
            kept = Apply("not", (condition,))
            return found, kept if more is None else Apply("and", (kept, more))
        case _:
            return x, None


def as_condition(x: Symbol) -> Expression:
    """Return a symbol as a truth value."""
    if x.kind == "bool" or (isinstance(x.expression, Apply) and x.expression.operator in BOOLEAN):
        return x.expression
    return Apply("!=", (x.expression, Constant(0)))
