"""The buffer pool reuses memory, never hands a block out twice, and frees old blocks."""

import threading
import tracemalloc

import numpy as np
import pytest

from kernels.numba_backend.runtime import buffer_pool
from kernels.numba_backend.runtime.buffer_pool import BufferPool

FLOAT32 = np.dtype(np.float32)


def use(pool, sizes):
    """Allocate arrays of these sizes in MiB, hold all of them at once, and let them go."""
    return len([pool.empty((size << 18,), FLOAT32) for size in sizes])


@pytest.fixture
def new_blocks(monkeypatch):
    """Return a list to which the size of each new block is added."""
    sizes, allocate_block = [], buffer_pool.allocate_block

    def counted(size):
        sizes.append(size)
        return allocate_block(size)

    monkeypatch.setattr(buffer_pool, "allocate_block", counted)
    return sizes


def test_arrays_begin_on_a_cache_line():
    pool = BufferPool()
    arrays = [pool.empty((size,), FLOAT32) for size in (0, 1, 17, 1000)]
    assert all(array.ctypes.data % buffer_pool.ALIGNMENT == 0 for array in arrays)


def test_a_repeated_pattern_of_sizes_needs_no_new_memory(new_blocks):
    pool = BufferPool()
    pattern = [100, 40, 7], [60, 60], [90]  # these sizes together are never in use at once
    for _ in range(2):
        for sizes in pattern:
            use(pool, sizes)
    assert new_blocks
    new_blocks.clear()
    for sizes in pattern:
        use(pool, sizes)
    assert not new_blocks


def test_blocks_of_sizes_no_longer_used_are_freed():
    pool = BufferPool()
    tracemalloc.start()
    try:
        use(pool, [300, 500])
        for size in range(1, 80):
            use(pool, [size, size])
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2 * 79 < held >> 20 <= 3 * 2 * 79
    assert peak >> 20 <= 3 * 800


def test_small_new_sizes_do_not_free_a_large_block_in_use(new_blocks):
    pool = BufferPool()
    use(pool, [400, 200])
    new_blocks.clear()
    for size in range(1, 500):
        pool.empty((size,), FLOAT32)
        use(pool, [400, 200])
    assert max(new_blocks) < 2000


def test_a_view_keeps_its_block_in_use_and_an_unowned_view_does_not(new_blocks):
    pool = BufferPool()
    view = pool.empty((4, 8), FLOAT32)[1:, ::2]
    pool.empty((4, 8), FLOAT32)
    assert len(new_blocks) == 2
    view[:] = 3
    unowned = pool.unowned_view(view)
    assert unowned.strides == view.strides
    np.testing.assert_array_equal(unowned, view)
    address = view.ctypes.data
    del view
    again = [pool.empty((4, 8), FLOAT32) for _ in range(2)]
    assert len(new_blocks) == 2
    assert address in [array[1:].ctypes.data for array in again]
    elsewhere = np.zeros(3)
    assert pool.unowned_view(elsewhere) is elsewhere


def test_no_block_is_handed_out_twice():
    """Also where the garbage collector returns blocks while other threads allocate."""
    pool, overwritten = BufferPool(), []

    def work(seed):
        rng, held = np.random.default_rng(seed), []
        for n in range(3000):
            array = pool.empty((int(rng.integers(1, 300)),), np.dtype(np.float64))
            array[:] = mark = seed + 10 * n
            cycle = [array]
            cycle.append(cycle)  # only the garbage collector frees a cycle
            held.append((array, mark))
            if len(held) > 20:
                array, mark = held.pop(int(rng.integers(20)))
                if not (array == mark).all():
                    overwritten.append(mark)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert not overwritten
