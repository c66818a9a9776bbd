"""The packed Dense layer is that of the numpy backend, at any size."""

import numpy as np
import pytest

from kernels import get_backend
from kernels.activations import LeakyRelu, Silu
from kernels.numba_backend import packed
from tests.cases import assert_close

NUMPY = get_backend("numpy")
# Images, features and units: whole tiles, tiles that overlap, and units that fill no tile.
SIZES = [(16, 245, 256), (5, 9, 33), (40, 30, 70), (20, 3, 40), (7, 20, 10), (150, 12, 48)]


@pytest.mark.parametrize("activation", [None, LeakyRelu(0.1), Silu()], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_dense(size, dtype, activation):
    (N, features, units), rng = size, np.random.default_rng(0)
    x, w = rng.uniform(0.5, 1.5, (N, features)), rng.uniform(0.5, 1.5, (features, units))
    scale, b = rng.uniform(0.5, 1.5, (2, units))
    arrays = [array.astype(dtype) for array in (x, w, b, scale)]
    got = packed.dense(packed.pack(arrays[0]), *arrays[1:], activation)
    assert_close(packed.unpack(got), NUMPY.dense(*arrays, activation))
