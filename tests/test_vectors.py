"""Vector registers as values of Numba kernels."""

import numba
import numpy as np
import pytest

from kernels.numba_backend.simd import codegen
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, load, masked_store


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("is_fast", [False, True])
def test_masked_store_writes_the_first_lanes_only(monkeypatch, is_fast, dtype):
    monkeypatch.setattr(codegen, "HAS_FAST_MASKED_STORE", is_fast)

    @numba.njit
    def store_first(x, y, offset, count):
        masked_store(y, offset, load(x, 0), count)

    L = VECTOR_BYTES // np.dtype(dtype).itemsize
    x = np.arange(1, L + 1).astype(dtype)
    for count in range(-2 * L - 1, 2 * L + 2):
        for offset in (0, 3):
            y = np.zeros(2 * L + 4, dtype)
            store_first(x, y, offset, count)
            expected = np.zeros_like(y)
            stored = max(0, min(count, L))
            expected[offset : offset + stored] = x[:stored]
            np.testing.assert_array_equal(y, expected)
