"""Memory for activations, used again and again.

Fresh memory from the system costs a page fault every 4 KiB, about as long as a kernel takes to
fill it. A training step asks for the same sizes each time, so blocks that are no longer in use
wait here for the next one who asks.
"""

import math
import weakref

import numpy as np

ALIGNMENT = 64  # bytes of a cache line: vectors that straddle two cost double

_free: dict[int, list[memoryview]] = {}
_lent: dict[int, "_Lent"] = {}


class _Lent(weakref.ref):
    """Watches an array; when it and all its views are gone, its block is free again."""

    __slots__ = ("block",)
    block: memoryview


def _take_back(lent: _Lent) -> None:
    del _lent[id(lent)]
    _free.setdefault(lent.block.nbytes, []).append(lent.block)


def _new_block(size: int) -> memoryview:
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return memoryview(raw.data)[start : start + size]


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array that begins on a cache line."""
    size = max(math.prod(shape), 1) * dtype.itemsize
    blocks = _free.setdefault(size, [])
    try:
        block = blocks.pop()
    except IndexError:
        block = _new_block(size)
    array = np.frombuffer(block, dtype)
    lent = _Lent(array, _take_back)
    lent.block = block
    _lent[id(lent)] = lent
    return array[: math.prod(shape)].reshape(shape)
