"""What Triton's interpreter does at every operation and call to no effect, left out in tests.

It computes whether integers overflow, in int64 and at every sum, and asserts that only if asked to
debug; it looks through the whole language at every call of a function, to find it changed already;
and it makes its table of dtypes anew wherever it looks one up.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import triton.language as tl  # type: ignore[import-untyped]
from triton.runtime import interpreter  # type: ignore[import-untyped]

_patch_lang, _get_np_dtype = interpreter._patch_lang, interpreter._get_np_dtype

_dtypes: dict[str, np.dtype[Any]] = {}


def patch_once(function: Any) -> Any:
    """Change what a function sees of the language, if that has not been done."""
    seen = [x for x in function.__globals__.values() if inspect.ismodule(x)]
    languages = [x for x in seen if x is tl or x is tl.core]
    if languages and not any(tl.core.is_builtin(x.add) for x in languages):
        return interpreter._LangPatchScope()
    return _patch_lang(function)


def np_dtype(dtype: Any) -> np.dtype[Any]:
    """Return numpy's dtype for one of Triton's, or for a block of them."""
    element = dtype.element_ty if isinstance(dtype, tl.block_type) else dtype
    if isinstance(element, tl.pointer_type):
        return np.dtype(np.uint64)
    if element.name not in _dtypes:
        _dtypes[element.name] = _get_np_dtype(element)
    return _dtypes[element.name]


def take_shortcuts(wanted: bool = True) -> None:
    """Leave such work out in this process, or do it again."""
    options = interpreter.interpreter_builder.options
    assert not options.debug, "overflows would be reported"
    object.__setattr__(options, "sanitize_overflow", not wanted)
    interpreter._patch_lang = patch_once if wanted else _patch_lang
    interpreter._get_np_dtype = np_dtype if wanted else _get_np_dtype
