"""Einfall: a compiler for attention.

Declare a variant as a cascade of extended einsums, read the kernels that come out, run them::

    import einfall

    c = einfall.cascade('''
    def attention(Q, K, V):
        S[b, h, p, m] = Q[b, h, p, e] * K[b, h, m, e] / sqrt(size(e))
        A[b, h, p, m] = softmax[m](S[b, h, p, m])
        O[b, h, p, f] = A[b, h, p, m] * V[b, h, m, f]
        return O
    ''')
    f = einfall.compile(c)
    O = f(Q, K, V)                  # torch or numpy
    print(f.source)                 # the kernels, after a call on a GPU or f.lower(...)
    einfall.interpret(c, Q, K, V)   # the meaning, in numpy and float64
"""

from __future__ import annotations

from . import examples
from .backends.analyse import analyse
from .backends.block_mask import block_mask
from .backends.compile import Compiled, compile
from .backends.interpreter import interpret
from .backends.slices import slice_filter, slices
from .backends.tile_table import tile_table
from .backends.trace_filter import block_filter, trace_filter, trace_score
from .ir.cascade import Cascade, Einsum
from .ir.errors import (
    BackendError,
    EinfallError,
    NotationError,
    PassError,
    RankError,
    ShapeError,
    SparsityError,
    VerificationError,
)
from .ir.notation import cascade
from .passes.differentiate import differentiate

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Cascade",
    "Compiled",
    "EinfallError",
    "Einsum",
    "NotationError",
    "PassError",
    "RankError",
    "ShapeError",
    "SparsityError",
    "VerificationError",
    "analyse",
    "block_filter",
    "block_mask",
    "cascade",
    "compile",
    "differentiate",
    "examples",
    "interpret",
    "slice_filter",
    "slices",
    "tile_table",
    "trace_filter",
    "trace_score",
]
