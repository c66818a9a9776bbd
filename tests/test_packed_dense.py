"""The packed Dense layer is that of the numpy backend, at any size."""

import sys

import numpy as np
import pytest

from kernels import get_backend
from kernels.activations import LeakyRelu, Silu
from kernels.numba_backend import packed
from tests.cases import assert_close

NUMPY = get_backend("numpy")
dense = sys.modules["kernels.numba_backend.packed.dense"]  # which the function dense hides
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


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [(16, 245, 256), (40, 300, 70), (7, 20, 10)], ids=str)
def test_every_split_of_the_work_computes_the_same_bits(size, threads, monkeypatch):
    (N, features, units), rng = size, np.random.default_rng(0)
    x, dy = (packed.pack(rng.standard_normal((N, K), np.float32)) for K in (features, units))
    w, b, scale = (
        rng.standard_normal(shape, np.float32) for shape in ((features, units), units, units)
    )
    want = packed.dense(x, w, b, scale).data.copy(), *packed.dense_grad(dy, x, w)[1:]
    assert_close(want[1], packed.unpack(x).T @ packed.unpack(dy))
    monkeypatch.setattr(dense.numba, "get_num_threads", lambda: threads)
    got = packed.dense(x, w, b, scale).data, *packed.dense_grad(dy, x, w)[1:]
    for each, wanted in zip(got, want, strict=True):
        np.testing.assert_array_equal(each, wanted)
