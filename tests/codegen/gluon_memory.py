"""What the machine computes on: registers, shared memory, and tensors behind descriptors."""

from __future__ import annotations

from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np


class Tile(np.ndarray):
    """Registers: an array that knows ``to``, and has no layout."""

    def to(self, dtype: Any) -> Tile:
        return self.astype(dtype).view(Tile)

    type = SimpleNamespace(layout=None)


def tile(x: Any) -> Any:
    return np.asarray(x).view(Tile) if np.ndim(x) else np.asarray(x).item()


class Shared:
    """A piece of shared memory."""

    def __init__(self, array: np.ndarray, dtype: Any) -> None:
        self.array, self.dtype = array, dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def index(self, k: int) -> Shared:
        assert 0 <= k < len(self.array)
        return Shared(self.array[k], self.dtype)

    def reshape(self, shape: list[int]) -> Shared:
        view = self.array.view()
        view.shape = tuple(shape)  # where this would need a copy, numpy refuses
        return Shared(view, self.dtype)

    def slice(self, start: int, length: int, dim: int = 0) -> Shared:
        assert 0 <= start <= start + length <= self.array.shape[dim]
        place = [slice(None)] * self.array.ndim
        place[dim] = slice(start, start + length)
        return Shared(self.array[tuple(place)], self.dtype)

    def permute(self, order: tuple[int, ...]) -> Shared:
        return Shared(self.array.transpose(order), self.dtype)

    def store(self, value: Tile) -> None:
        self.array[...] = value

    def load(self, layout: Any) -> Tile:
        return np.array(self.array).view(Tile)


class Box:
    """A descriptor: a box of it reads 0, and is not written, outside the tensor."""

    def __init__(self, array: np.ndarray, order: tuple[int, ...], block: tuple[int, ...]) -> None:
        self.array = array.transpose(order)
        self.dtype, self.layout = array.dtype, None
        nbytes = prod(block) * array.dtype.itemsize
        self.block_type = SimpleNamespace(shape=list(block), nbytes=nbytes)

    def places(self, at: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        there, here = [], []
        for first, width, size in zip(at, self.block_type.shape, self.array.shape, strict=True):
            begin, end = min(max(first, 0), size), max(min(first + width, size), 0)
            there.append(slice(begin, max(begin, end)))
            here.append(slice(begin - first, max(begin, end) - first) if end > begin else slice(0))
        return tuple(there), tuple(here)

    def read(self, at: tuple[int, ...]) -> np.ndarray:
        found = np.zeros(self.block_type.shape, self.dtype)
        there, here = self.places(at)
        found[here] = self.array[there]
        return found

    def add(self, at: tuple[int, ...], value: np.ndarray) -> None:
        there, here = self.places(at)
        self.array[there] += value[here]

    def write(self, at: tuple[int, ...], value: np.ndarray) -> None:
        there, here = self.places(at)
        self.array[there] = value[here]


class Pointer:
    """An address, or a tile of them, in a tensor."""

    def __init__(self, array: np.ndarray, offset: Any = 0) -> None:
        self.array, self.offset = array, offset
        self.dtype = SimpleNamespace(element_ty=array.dtype)

    def __add__(self, offset: Any) -> Pointer:
        return Pointer(self.array, self.offset + offset)

    def to(self, dtype: Any, bitcast: bool) -> Pointer:
        return self

    @property
    def value(self) -> int:
        return int(self.array.reshape(-1)[self.offset])


def nothing(dtype: Any) -> float:
    """Return what no kernel should read."""
    return np.nan if np.issubdtype(dtype, np.floating) else 2**30
