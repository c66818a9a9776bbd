"""A pool of memory for activations, so that a training step need not ask the system for any.

Memory that is fresh from the system costs a page fault for every 4 KiB when it is first written,
and a page fault takes about as long as a kernel needs to fill the page. A training step needs
arrays of the same sizes as the step before. The pool therefore keeps the memory of arrays that
are no longer in use, and `empty` hands it out again. NumPy instead returns the memory of large
arrays to the system. If the sizes change, the pool frees the blocks that have been unused for the
longest time.
"""

import contextlib
import math
import os
import threading
import weakref
from collections import deque

import numpy as np

# Bytes of a cache line. Access to a vector that lies in two cache lines costs twice as much.
ALIGNMENT = 64
# The pool may hold this many times the memory that is in use at once. A training step needs 1.14
# to 1.83 times (networks tiny to large, 16 to 256 images): it does not use all sizes at once.
MAX_CACHED_RATIO = 3
MIN_CACHED_BYTES = 1 << 28  # A pool may always hold this many bytes.
# The peak of memory in use at once decays by this share of each new block.
PEAK_DECAY = 0.1

_lock = threading.RLock()
# A forked child has only the thread that forked. A lock that another thread held would stay locked.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def allocate_block(size: int) -> memoryview:
    """Return new uninitialized bytes that begin on a cache line."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return memoryview(raw.data)[start : start + size]


def _address(block: memoryview) -> int:
    return np.frombuffer(block, np.uint8).ctypes.data


class _Lease(weakref.ref):
    """A weak reference to an array; it returns the block when the array and its views are gone."""

    __slots__ = ("block", "returned_blocks")
    block: memoryview
    returned_blocks: deque[memoryview]


_leases: dict[int, _Lease] = {}  # keeps the weak references alive


def _end_lease(lease: _Lease) -> None:
    # The garbage collector may call this at any time, also while this thread changes the pool.
    # Appending to a deque is safe then; the pool takes the blocks from there.
    del _leases[id(lease)]
    lease.returned_blocks.append(lease.block)


class BufferPool:
    """Blocks of memory that are handed out as arrays, and reused when the arrays are gone.

    When a new block is needed, the free blocks that have been unused for the longest time are
    dropped, until the pool holds at most MAX_CACHED_RATIO times the recent peak of memory in use.

    Parameters
    ----------
    min_cached : float
        Bytes that the pool may always hold.

    Examples
    --------
    >>> pool = BufferPool()
    >>> x = pool.empty((2, 3), np.dtype(np.float32))
    >>> address = x.ctypes.data
    >>> del x
    >>> pool.empty((6,), np.dtype(np.float32)).ctypes.data == address
    True
    """

    def __init__(self, min_cached: float = MIN_CACHED_BYTES) -> None:
        self._min_cached = min_cached
        self._returned_blocks: deque[memoryview] = deque()
        # Free blocks by size. The sizes, and the blocks of a size, are in order of their return.
        self._free_blocks: dict[int, list[memoryview]] = {}
        self._blocks: dict[int, memoryview] = {}  # all blocks, by address
        self._total_bytes = self._free_bytes = 0
        self._peak_bytes = 0.0  # the recent peak of the bytes that were in use at once

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return an uninitialized array that begins on a cache line."""
        count = math.prod(shape)
        size = max(count, 1) * dtype.itemsize
        with _lock:
            self._collect_returned()
            block = self._pop_free(size) if size in self._free_blocks else self._add_block(size)
            self._peak_bytes = max(self._total_bytes - self._free_bytes, self._peak_bytes)
        base = np.frombuffer(block, dtype)  # every view keeps the base alive, and so its lease
        lease = _Lease(base, _end_lease)
        lease.block, lease.returned_blocks = block, self._returned_blocks
        _leases[id(lease)] = lease
        return base[:count].reshape(shape)

    def _collect_returned(self) -> None:
        while self._returned_blocks:
            block = self._returned_blocks.popleft()
            blocks = self._free_blocks.pop(block.nbytes, [])
            blocks.append(block)
            self._free_blocks[block.nbytes] = blocks
            self._free_bytes += block.nbytes

    def _pop_free(self, size: int) -> memoryview:
        blocks = self._free_blocks[size]
        block = blocks.pop()
        if not blocks:
            del self._free_blocks[size]
        self._free_bytes -= size
        return block

    def _add_block(self, size: int) -> memoryview:
        in_use = self._total_bytes - self._free_bytes + size
        self._peak_bytes = max(in_use, self._peak_bytes - PEAK_DECAY * size)
        limit = max(MAX_CACHED_RATIO * self._peak_bytes, self._min_cached)
        while self._free_blocks and self._total_bytes + size > limit:
            block = self._pop_free(next(iter(self._free_blocks)))
            del self._blocks[_address(block)]
            self._total_bytes -= block.nbytes
        block = allocate_block(size)
        self._blocks[_address(block)] = block
        self._total_bytes += size
        return block

    def unowned_view(self, array: np.ndarray) -> np.ndarray:
        """Return a view of the array that does not prevent the reuse of its block.

        An array whose memory is not this pool's is returned as it is.
        """
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        block = self._blocks.get(base.ctypes.data)
        if block is None:
            return array
        offset = array.ctypes.data - base.ctypes.data
        return np.ndarray(array.shape, array.dtype, block, offset, array.strides)


class _ThreadState(threading.local):
    pool: BufferPool | None = None  # the pool of this thread; None: the shared pool


shared_pool = BufferPool()
_state = _ThreadState()


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an uninitialized array that begins on a cache line, from this thread's pool."""
    return (_state.pool or shared_pool).empty(shape, dtype)


def allocate_outputs(out, shapes, dtype: np.dtype) -> list[np.ndarray]:
    """Return an array for each of several outputs of a kernel.

    Parameters
    ----------
    out : sequence of (array or None), or None
        The caller's arrays; those that are None are allocated.
    shapes : sequence of tuple of int
    dtype : numpy dtype
        Of the arrays that are allocated.
    """
    return [
        np.empty(shape, dtype) if array is None else array
        for array, shape in zip(out or [None] * len(shapes), shapes, strict=True)
    ]


@contextlib.contextmanager
def allocate_from(pool: BufferPool):
    """Let `empty` use this pool in this thread, until the end of a ``with`` block."""
    before, _state.pool = _state.pool, pool
    try:
        yield
    finally:
        _state.pool = before
