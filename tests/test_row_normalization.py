"""Batch normalization of rows with the channels in the lanes is that of the numpy backend."""

import numpy as np
import pytest

from kernels import get_backend
from kernels.numba_backend import packed
from kernels.numba_backend.packed import normalization
from kernels.numba_backend.packed.layout import simd_width
from tests.cases import FUSED_ACTIVATIONS, assert_close

NUMPY = get_backend("numpy")
# Images and channels: less than a block, whole blocks and one image more; channels that fill whole
# groups of lanes, and channels whose last group overlaps the one before it.
SIZES = [(5, 16), (16, 256), (37, 20), (65, 33), (300, 19)]
every_case = pytest.mark.parametrize(
    ("dtype", "size", "activation"),
    [
        (dtype, size, activation)
        for dtype in (np.float32, np.float64)
        for size in SIZES
        for activation in (None, *FUSED_ACTIVATIONS)
    ],
    ids=str,
)


def draw(dtype, size):
    """Return x, dy, gamma and beta; x lies far from 0, where the variance loses digits."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, *size))
    gamma, beta = rng.uniform(0.5, 1.5, (2, size[1]))
    return tuple(array.astype(dtype) for array in (x * 3 + 10, dy, gamma, beta))


def padding_of(batch):
    """Return what the padding lanes of rows hold."""
    return np.moveaxis(batch.data, -1, 1).reshape(-1, batch.shape[1])[batch.shape[0] :]


@every_case
def test_forward(dtype, size, activation):
    x, _, gamma, beta = draw(dtype, size)
    batch = packed.pack(x)
    assert normalization.sums_by_lanes(batch)
    y, mean, variance = packed.batch_norm_activation(batch, gamma, beta, 1e-5, activation)
    want = NUMPY.batch_norm_activation(x, gamma, beta, 1e-5, activation)
    assert_close(packed.unpack(y), want[0])
    assert_close(mean, want[1])
    assert_close(variance, want[2])
    assert not padding_of(y).any()


@every_case
def test_gradient(dtype, size, activation):
    x, dy, gamma, beta = draw(dtype, size)
    _, mean, variance = NUMPY.batch_norm_activation(x, gamma, beta, 1e-5, activation)
    arguments = gamma, beta, mean, variance, 1e-5, activation
    dx, *grads = packed.batch_norm_activation_grad(packed.pack(dy), packed.pack(x), *arguments)
    want = NUMPY.batch_norm_activation_grad(dy, x, *arguments)
    assert_close(packed.unpack(dx), want[0])
    for gradient, reference in zip(grads, want[1:], strict=True):
        assert_close(gradient, reference)
    assert not padding_of(dx).any()


def test_a_constant_channel_has_no_variance():
    """Whose mean is no float32 number: the deviations of the rounded mean are taken off."""
    x = np.full((50, 16), 1000.1, np.float32)
    ones = np.ones(16, np.float32)
    _, mean, variance = packed.batch_norm_activation(packed.pack(x), ones, ones, 1e-5, None)
    np.testing.assert_array_equal(mean, np.float32(1000.1))
    assert not variance.any()


def test_few_channels_and_pairs_take_the_other_kernels():
    few = packed.pack(np.ones((4, simd_width(np.dtype(np.float32)) - 1), np.float32))
    many = packed.pack(np.ones((4, 64), np.float32))
    assert not normalization.sums_by_lanes(few)
    assert normalization.sums_by_lanes(many)
    assert not normalization.sums_by_lanes(packed.narrow(many))
