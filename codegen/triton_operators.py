"""How the operators of the loop nest are spelled in Triton."""

from __future__ import annotations

from math import inf

INFIX: dict[str, tuple[str, int]] = {
    "or": ("|", 3),
    "and": ("&", 4),
    "==": ("==", 2),
    "!=": ("!=", 2),
    "<": ("<", 2),
    "<=": ("<=", 2),
    ">": (">", 2),
    ">=": (">=", 2),
    "+": ("+", 5),
    "-": ("-", 5),
    "*": ("*", 6),
    "/": ("/", 6),
    "//": ("//", 6),
    "%": ("%", 6),
}
"""Symbol and precedence; Python binds comparisons looser than ``&`` and ``|``."""

FUNCTIONS: dict[str, str] = {
    "exp": "tl.exp",
    "exp2": "tl.exp2",
    "log": "tl.log",
    "log2": "tl.log2",
    "sqrt": "tl.sqrt",
    "rsqrt": "tl.rsqrt",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "erf": "tl.erf",
    "sin": "tl.sin",
    "cos": "tl.cos",
    "abs": "tl.abs",
    "floor": "tl.floor",
    "ceil": "tl.ceil",
    "bit_length": "bit_length",
    "where": "tl.where",
    "cdiv": "tl.cdiv",
    "quotient": "quotient",
    "falling": "falling",
    "unfalling": "unfalling",
    "floor_divide": "floor_divide",
    "floor_modulo": "floor_modulo",
    "**": "power",
    "scramble": "scramble",
    "fraction": "fraction",
}

HELPERS: dict[str, str] = {
    "tanh": '''@triton.jit
def tanh(x):
    """The hyperbolic tangent, 1 - 2 / (1 + exp(2 x)); a squared rsqrt is the fastest reciprocal."""
    r = tl.rsqrt(1.0 + tl.exp2(x * 2.8853900817779268))
    return 1.0 - 2.0 * (r * r)''',
    "sigmoid": '''@triton.jit
def sigmoid(x):
    """The logistic function, 1 / (1 + exp(-x)); a squared rsqrt is the fastest reciprocal."""
    r = tl.rsqrt(1.0 + tl.exp2(x * -1.4426950408889634))
    return r * r''',
    "relu": '''@triton.jit
def relu(x):
    """What is positive of x."""
    return tl.maximum(x, 0.0)''',
    "quotient": '''@triton.jit
def quotient(x, y):
    """x / y, and 0 where y is 0: an empty divisor takes no part."""
    return tl.where(y == 0.0, 0.0, x / y)''',
    "floor_divide": '''@triton.jit
def floor_divide(a, b):
    """a // b rounded down; the machine rounds towards 0."""
    q = a // b
    return q - tl.where((a - q * b != 0) & ((a < 0) != (b < 0)), 1, 0)''',
    "floor_modulo": '''@triton.jit
def floor_modulo(a, b):
    """a % b with the sign of b; the machine gives that of a."""
    r = a - (a // b) * b
    return r + tl.where((r != 0) & ((r < 0) != (b < 0)), b, 0)''',
    "bit_length": '''@triton.jit
def bit_length(x):
    """The number of bits of x, 0 for 0."""
    n = x * 0
    for k in tl.static_range(31):
        n += tl.where(tl.abs(x) >= 2**k, 1, 0)
    return n''',
    "falling": '''@triton.jit
def falling(x, first: tl.constexpr, count: tl.constexpr):
    """Some of the 32 bits of a code that falls as x rises; 0 and -0 are the same."""
    bits = tl.where(x == 0.0, 0.0, x).to(tl.int32, bitcast=True)
    code = tl.where(bits < 0, bits, 0x7FFFFFFF - bits).to(tl.uint32, bitcast=True)
    return ((code >> (32 - first - count)) & (2**count - 1)).to(tl.int32)''',
    "unfalling": '''@triton.jit
def unfalling(code):
    """The number that has a code of 32 bits."""
    return tl.where(code < 0, code, 0x7FFFFFFF - code).to(tl.float32, bitcast=True)''',
    "power": '''@triton.jit
def power(x, y):
    """x to the power y, for positive x."""
    return tl.exp2(y * tl.log2(x))''',
    "ranked": '''@triton.jit
def ranked(group, value, place):
    """A number that is lower for what comes first: by group, the largest value, the place."""
    # bits of a float rise with it, or fall where it is negative; 0 and -0 are the same
    bits = tl.where(value == 0.0, 0.0, value).to(tl.int32, bitcast=True)
    rising = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    return (group.to(tl.int64) << 61) | ((0x7FFFFFFF - rising) << 29) | place''',
    "grouped": '''@triton.jit
def grouped(group, place):
    """A number that is lower for what comes first: by group, then by place."""
    return (group << 29) | place''',
    "place_of": '''@triton.jit
def place_of(key):
    """The place that was packed in a number."""
    return (key & 0x1FFFFFFF).to(tl.int32)''',
    "value_of": '''@triton.jit
def value_of(key):
    """The value that was packed in a number."""
    rising = (0x7FFFFFFF - ((key >> 29) & 0xFFFFFFFF)).to(tl.int32)
    bits = tl.where(rising < 0, rising ^ 0x7FFFFFFF, rising)
    return bits.to(tl.float32, bitcast=True)''',
    "scramble": '''@triton.jit
def scramble(state, x):
    """Take a whole number into a state of 32 bits, by the finaliser of MurmurHash3 (Appleby)."""
    z = tl.cast(state, tl.uint32) ^ (tl.cast(x, tl.uint32) * 0x9E3779B1)
    z = (z ^ (z >> 16)) * 0x85EBCA6B
    z = (z ^ (z >> 13)) * 0xC2B2AE35
    return z ^ (z >> 16)''',
    "fraction": '''@triton.jit
def fraction(state):
    """The upper 24 bits of a state as a number in [0, 1)."""
    return (state >> 8).to(tl.float32) * 5.9604644775390625e-08''',
    "multiply": '''@triton.jit
def multiply(x, y):
    """How two partial products join."""
    return x * y''',
}
"""Small functions that a kernel's file brings along where it needs them."""


def number(value: int | float | bool) -> str:
    """Return a literal's text."""
    if isinstance(value, bool) or isinstance(value, int):
        return repr(value)
    if value in (inf, -inf):
        return 'float("inf")' if value > 0 else 'float("-inf")'
    return repr(value)
