"""Memory for activations, used again and again.

Fresh memory from the system costs a page fault every 4 KiB, about as long as a kernel takes to
fill it. A training step asks for the same sizes each time, so blocks that are no longer in use
wait here for the next one who asks. Where the sizes change, those of long ago are given back.
"""

import contextlib
import math
import os
import threading
import weakref
from collections import deque

import numpy as np

ALIGNMENT = 64  # bytes of a cache line: vectors that straddle two cost double
# A training step holds 1.14 to 1.83 times what it ever uses at once (networks tiny to large, 16 to
# 256 images): not all of its sizes are in use together.
MAX_CACHED_RATIO = 3
SPARE = 1 << 28  # bytes that are kept at any rate
PEAK_DECAY = 0.1  # of each new block: so much less counts what was in use at once before it

_lent: dict[int, "_Lease"] = {}
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child has no thread that would give it back
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def allocate_block(size: int) -> memoryview:
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return memoryview(raw.data)[start : start + size]


def _address(block: memoryview) -> int:
    return np.frombuffer(block, np.uint8).ctypes.data


class _Lease(weakref.ref):
    """Watches an array; when it and all its views are gone, its block is given back."""

    __slots__ = ("block", "returned")
    block: memoryview
    returned: deque[memoryview]


def _take_back(lent: _Lease) -> None:
    # The garbage collector may call this at any place, where the lock is held too.
    del _lent[id(lent)]
    lent.returned.append(lent.block)


class BufferPool:
    """Blocks of memory, and which of them are free.

    When a new block is needed, those that have been free the longest go, until no more is held
    than MAX_CACHED_RATIO times what was in use at once lately.

    Parameters
    ----------
    spare : float
        Bytes that may be held at any rate.
    """

    def __init__(self, spare: float = SPARE) -> None:
        self._spare = spare
        self._returned: deque[memoryview] = deque()
        self._free: dict[int, list[memoryview]] = {}  # by size; the last is the last given back
        self._blocks: dict[int, memoryview] = {}
        self._held = self._unused = 0  # bytes
        self._most_used = 0.0

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = max(math.prod(shape), 1) * dtype.itemsize
        with _lock:
            self._collect()
            block = self._take(size) if size in self._free else self._make(size)
            self._most_used = max(self._held - self._unused, self._most_used)
        whole = np.frombuffer(block, dtype)  # all views of it keep it alive, and it is watched
        lent = _Lease(whole, _take_back)
        lent.block, lent.returned = block, self._returned
        _lent[id(lent)] = lent
        return whole[: math.prod(shape)].reshape(shape)

    def _collect(self) -> None:
        while self._returned:
            block = self._returned.popleft()
            free = self._free.pop(block.nbytes, [])
            free.append(block)
            self._free[block.nbytes] = free
            self._unused += block.nbytes

    def _take(self, size: int) -> memoryview:
        free = self._free[size]
        block = free.pop()
        if not free:
            del self._free[size]
        self._unused -= size
        return block

    def _make(self, size: int) -> memoryview:
        self._most_used = max(self._held - self._unused + size, self._most_used - PEAK_DECAY * size)
        most = max(MAX_CACHED_RATIO * self._most_used, self._spare)
        while self._free and self._held + size > most:
            block = self._take(next(iter(self._free)))
            del self._blocks[_address(block)]
            self._held -= block.nbytes
        block = allocate_block(size)
        self._blocks[_address(block)] = block
        self._held += size
        return block

    def unowned_view(self, array: np.ndarray) -> np.ndarray:
        """Return the same array, without keeping its block from being used again."""
        whole = array
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        block = self._blocks.get(whole.ctypes.data)
        if block is None:
            return array
        offset = array.ctypes.data - whole.ctypes.data
        return np.ndarray(array.shape, array.dtype, block, offset, array.strides)


_shared = BufferPool()
_local = threading.local()


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array that begins on a cache line."""
    return getattr(_local, "arena", _shared).empty(shape, dtype)


def allocate_outputs(out, shapes, dtype: np.dtype) -> list[np.ndarray]:
    """Return the arrays that were given to be written into, and new ones where there is none."""
    given = out or [None] * len(shapes)
    return [
        np.empty(shape, dtype) if array is None else array
        for array, shape in zip(given, shapes, strict=True)
    ]


@contextlib.contextmanager
def allocate_from(arena: BufferPool):
    """Let `empty` take its memory from this arena, in this thread, until the end of a block."""
    before = getattr(_local, "arena", _shared)
    _local.arena = arena
    try:
        yield
    finally:
        _local.arena = before
