"""Memory for activations, used again and again.

Fresh memory from the system costs a page fault every 4 KiB, about as long as a kernel takes to
fill it. A training step asks for the same sizes each time, so blocks that are no longer in use
wait here for the next one who asks.
"""

import contextlib
import math
import threading
import weakref

import numpy as np

ALIGNMENT = 64  # bytes of a cache line: vectors that straddle two cost double

_lent: dict[int, "_Lent"] = {}


def _new_block(size: int) -> memoryview:
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return memoryview(raw.data)[start : start + size]


class _Lent(weakref.ref):
    """Watches an array; when it and all its views are gone, its block is free again."""

    __slots__ = ("block", "free")
    block: memoryview
    free: list[memoryview]


def _take_back(lent: _Lent) -> None:
    del _lent[id(lent)]
    lent.free.append(lent.block)


class Arena:
    """Blocks of memory, and which of them are free."""

    def __init__(self) -> None:
        self._free: dict[int, list[memoryview]] = {}
        self._blocks: dict[int, memoryview] = {}

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = max(math.prod(shape), 1) * dtype.itemsize
        free = self._free.setdefault(size, [])
        try:
            block = free.pop()
        except IndexError:
            block = _new_block(size)
            self._blocks[np.frombuffer(block, np.uint8).ctypes.data] = block
        whole = np.frombuffer(block, dtype)  # all views of it keep it alive, and it is watched
        lent = _Lent(whole, _take_back)
        lent.block, lent.free = block, free
        _lent[id(lent)] = lent
        return whole[: math.prod(shape)].reshape(shape)

    def borrow(self, array: np.ndarray) -> np.ndarray:
        """Return the same array, without keeping its block from being used again."""
        whole = array
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        block = self._blocks.get(whole.ctypes.data)
        if block is None:
            return array
        offset = array.ctypes.data - whole.ctypes.data
        return np.ndarray(array.shape, array.dtype, block, offset, array.strides)


_shared = Arena()
_local = threading.local()


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array that begins on a cache line."""
    return getattr(_local, "arena", _shared).empty(shape, dtype)


def room(out, shapes, dtype: np.dtype) -> list[np.ndarray]:
    """Return the arrays that were given to be written into, and new ones where there is none."""
    given = out or [None] * len(shapes)
    return [
        np.empty(shape, dtype) if array is None else array
        for array, shape in zip(given, shapes, strict=True)
    ]


@contextlib.contextmanager
def taken_from(arena: Arena):
    """Let `empty` take its memory from this arena, in this thread, until the end of a block."""
    before = getattr(_local, "arena", _shared)
    _local.arena = arena
    try:
        yield
    finally:
        _local.arena = before
