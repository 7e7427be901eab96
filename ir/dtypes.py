"""Dtypes of what a cascade writes, from the dtypes of what it reads."""

from __future__ import annotations

from collections.abc import Mapping

from .axes import ranks_of
from .cascade import Cascade, Einsum
from .exact import read_exactly
from .expression import (
    Access,
    Apply,
    Concatenate,
    Constant,
    Expression,
    Parameter,
    Populate,
    RankVariable,
    Reduce,
    Size,
    tensors,
)

WIDTH = {"bfloat16": 1, "float16": 1, "float32": 2, "float64": 3}
BOOLEAN = ("and", "or", "not", "in", "==", "!=", "<", "<=", ">", ">=")


def tensor_dtypes(cascade: Cascade, inputs: Mapping[str, str]) -> dict[str, str]:
    """Return the dtype in memory of every tensor, by numpy-style name.

    A tensor that is linear in an input (a weighted sum of values, a product of queries and keys) is
    stored in the widest dtype of the inputs that it is linear in; anything else that is a float,
    such as a maximum, a logarithm or a weight, is a float32. So is what only kernels pass on, an
    operand of a product that is summed apart (``exact.py``), and also what has fewer ranks than
    those inputs, for it costs little; a rank that a filter keeps below a number does not count, as
    in partial sums over a tile. Of outputs, those that a selection reads are float32. Booleans and
    integers stay so. ``inputs`` may give outputs a dtype too.
    """
    linear: dict[str, frozenset[str]] = {}
    kinds: dict[str, str] = {}
    for name in cascade.inputs:
        kinds[name] = kind(inputs[name])
        linear[name] = frozenset((name,)) if kinds[name] == "float" else frozenset()

    def sources(x: Expression) -> frozenset[str]:
        match x:
            case Access(tensor=tensor):
                return linear.get(tensor, frozenset())
            case Apply("*", (a, b)):
                return sources(a) | sources(b)
            case Apply("/", (a, _)) | Apply("neg" | "stop_gradient", (a,)):
                return sources(a)
            case Apply("+" | "-", parts) | Concatenate(parts=parts):
                found = [sources(part) for part in parts]
                return frozenset().union(*found) if all(found) else frozenset()
            case Apply("where", (_, a, b)) | Apply("default", (a, b)):
                return sources(a) | sources(b)
            case Reduce(reducer="sum", body=body):
                return sources(body)
            case _:
                return frozenset()

    def sort(x: Expression) -> str:
        match x:
            case Constant(value=value):
                return "bool" if isinstance(value, bool) else kind_of_number(value)
            case Parameter():
                return "float"
            case Size() | RankVariable():
                return "int"
            case Access(tensor=tensor):
                return kinds.get(tensor, "float")
            case Apply(operator=operator) if operator in BOOLEAN:
                return "bool"
            case Apply("where", (_, a, b)):
                return joined((sort(a), sort(b)))
            case Apply("+" | "-" | "*" | "//" | "%" | "neg" | "abs" | "min" | "max", operands):
                return joined(tuple(sort(o) for o in operands))
            case Apply("bit_length", _):
                return "int"
            case Populate():
                return "int"
            case Reduce(reducer=reducer, body=body):
                if reducer in ("any", "all"):
                    return "bool"
                if reducer in ("argmax", "argmin"):
                    return "int"
                # a maximum over nothing is -inf, which no integer is
                return "float" if reducer in ("max", "min") else joined((sort(body),))
            case _:
                return "float"

    # what is compared in order to choose is not rounded before
    compared = {t for e in cascade.einsums if isinstance(e.body, Populate) for t in tensors(e.body)}
    for einsum in cascade.einsums:
        linear[einsum.name] = sources(einsum.body)
        kinds[einsum.name] = sort(einsum.body)
    counts = {n: len(ranks_of(cascade, n)) for n in cascade.inputs}
    counts |= {e.name: len(e.output.coordinates) - bounded(e) for e in cascade.einsums}
    exact = compared | read_exactly(cascade) - set(cascade.outputs) - set(cascade.inputs)
    found: dict[str, str] = {}
    for name, sort_of in kinds.items():
        roots = sorted(linear[name])
        small = name not in cascade.outputs and any(counts[name] < counts[s] for s in roots)
        narrow = [] if small or name in exact else [inputs[s] for s in roots]
        found[name] = inputs.get(name) or stored(sort_of, narrow)
    return found


def bounded(einsum: Einsum) -> int:
    """Return how many ranks a filter keeps below a number."""
    match einsum.filter:
        case Apply("and", tests):
            pass
        case None:
            return 0
        case test:
            tests = (test,)
    found: set[str] = set()
    for test in tests:
        match test:
            case Apply("<", (RankVariable(rank=rank), Constant())):
                found.add(rank)
    return len(found & set(einsum.ranks))


def kind(dtype: str) -> str:
    """Whether a dtype is a float, an int or a bool."""
    return "float" if dtype in WIDTH else "bool" if dtype == "bool" else "int"


def kind_of_number(value: int | float) -> str:
    """Return the kind of a literal."""
    return "float" if isinstance(value, float) else "int"


def joined(kinds: tuple[str, ...]) -> str:
    """Return the kind of arithmetic on several kinds."""
    return "float" if "float" in kinds else "int"


def stored(kind: str, linear_in: list[str]) -> str:
    """Return the dtype in which a tensor is stored."""
    if kind == "bool":
        return "bool"
    if kind == "int":
        return "int32"
    narrow = set(linear_in)
    if not narrow or {"float16", "bfloat16"} <= narrow:
        return "float32"
    return max(narrow, key=WIDTH.__getitem__)
