"""Memory for activations, used again and again.

Fresh memory from the system costs a page fault every 4 KiB, about as long as a kernel takes to
fill it. A training step asks for the same sizes each time, so blocks that are no longer in use
wait here for the next one who asks. Where the sizes change, those of long ago are given back.
"""

import contextlib
import itertools
import math
import threading
import weakref

import numpy as np

ALIGNMENT = 64  # bytes of a cache line: vectors that straddle two cost double
# A training step holds 1.14 to 1.83 times what it ever uses at once (networks tiny to large, 16 to
# 256 images): not all of its sizes are in use together.
MOST_HELD = 3
SPARE = 1 << 26  # bytes
FADE = 0.9  # what was in use once counts so much less with each new block

_lent: dict[int, "_Lent"] = {}


def _new_block(size: int) -> memoryview:
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return memoryview(raw.data)[start : start + size]


def _address(block: memoryview) -> int:
    return np.frombuffer(block, np.uint8).ctypes.data


class _Lent(weakref.ref):
    """Watches an array; when it and all its views are gone, its block is free again."""

    __slots__ = ("block", "free")
    block: memoryview
    free: list[memoryview]


def _take_back(lent: _Lent) -> None:
    del _lent[id(lent)]
    lent.free.append(lent.block)


class Arena:
    """Blocks of memory, and which of them are free.

    When a new block is needed, free ones that were not asked for the longest go, until no more
    is held than MOST_HELD times what was in use at once lately. As little as SPARE may always stay.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[memoryview]] = {}
        self._asked: dict[int, int] = {}
        self._blocks: dict[int, memoryview] = {}
        self._clock = itertools.count()
        self._most_used = 0.0  # bytes

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        size = max(math.prod(shape), 1) * dtype.itemsize
        self._asked[size] = next(self._clock)
        free = self._free.setdefault(size, [])
        try:
            block = free.pop()
        except IndexError:
            self._make_room(size)
            block = _new_block(size)
            self._blocks[_address(block)] = block
        whole = np.frombuffer(block, dtype)  # all views of it keep it alive, and it is watched
        lent = _Lent(whole, _take_back)
        lent.block, lent.free = block, free
        _lent[id(lent)] = lent
        return whole[: math.prod(shape)].reshape(shape)

    def _make_room(self, size: int) -> None:
        # Other threads may take and give back meanwhile: each call on a list or dict is whole.
        unused = sum(each * len(free) for each, free in list(self._free.items()))
        held = sum(block.nbytes for block in list(self._blocks.values())) + size
        self._most_used = max(held - unused, FADE * self._most_used)
        excess = held - max(MOST_HELD * self._most_used, SPARE)
        if excess <= 0:
            return
        for each in sorted(self._free, key=self._asked.__getitem__):
            while excess > 0 and self._free[each]:
                with contextlib.suppress(IndexError):  # another thread has taken it
                    block = self._free[each].pop()
                    del self._blocks[_address(block)]
                    excess -= each

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
