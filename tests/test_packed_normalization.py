"""Batch normalization on the packed layout, channel by channel and in parts of the batch."""

import numpy as np
import pytest

from kernels import get_backend
from kernels.numba_backend import packed
from kernels.numba_backend.packed import normalization
from tests.cases import FUSED_ACTIVATIONS, assert_close

NUMPY = get_backend("numpy")
# Images, channels and pixels, and whether each channel is one part: many channels, or one block.
CASES = [
    ((40, 33, 4, 6), True),
    ((64, 32, 2, 2), True),
    ((2, 3, 4, 6), True),  # a block of any vector width
    ((40, 3, 4, 6), False),
    ((300, 20, 3, 3), False),
]
every_case = pytest.mark.parametrize(
    ("shape", "by_planes", "dtype", "activation"),
    [
        (shape, by_planes, dtype, activation)
        for shape, by_planes in CASES
        for dtype in (np.float32, np.float64)
        for activation in (None, *FUSED_ACTIVATIONS)
    ],
    ids=str,
)


def draw(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def draw_case(shape, dtype):
    """Return x and its batch, gamma and beta; far from 0, the variance of x loses digits."""
    x = draw(shape, dtype) * 3 + dtype(10)
    return x, packed.pack(x), draw(shape[1], dtype, 1), draw(shape[1], dtype, 2)


def padding_of(batch):
    """Return what the padding lanes of images hold."""
    return np.moveaxis(batch.data, -1, 1).reshape(-1, *batch.shape[1:])[batch.shape[0] :]


@every_case
def test_batch_norm(shape, by_planes, dtype, activation):
    x, batch, gamma, beta = draw_case(shape, dtype)
    assert normalization.allocate_sums(batch, 3)[1] is by_planes
    y, mean, variance = packed.batch_norm_activation(batch, gamma, beta, 1e-5, activation)
    want, *statistics = NUMPY.batch_norm_activation(x, gamma, beta, 1e-5, activation)
    for got, each in ((packed.unpack(y), want), (mean, statistics[0]), (variance, statistics[1])):
        assert_close(got, each)
    assert not padding_of(y).any()
    dy = draw(shape, dtype, 3)
    numbers = gamma, beta, *statistics, 1e-5, activation
    dx, *grads = packed.batch_norm_activation_grad(packed.pack(dy), batch, *numbers)
    want_dx, *want_grads = NUMPY.batch_norm_activation_grad(dy, x, *numbers)
    assert_close(packed.unpack(dx), want_dx)
    assert not padding_of(dx).any()
    for got, each in zip(grads, want_grads, strict=True):
        assert_close(got, each)


@every_case
def test_batch_norm_with_pooling(shape, by_planes, dtype, activation):
    x, batch, gamma, beta = draw_case(shape, dtype)
    arguments = gamma, beta, 1e-5, activation, 2
    y, _, mean, variance = packed.batch_norm_activation_pool(batch, *arguments)
    want, _, *statistics = NUMPY.batch_norm_activation_pool(x, *arguments)
    for got, each in ((packed.unpack(y), want), (mean, statistics[0]), (variance, statistics[1])):
        assert_close(got, each)
    assert not padding_of(y).any()


def test_both_ways_give_the_same_bits(monkeypatch):
    """A channel that is one part: in one task with all steps, or in two sweeps."""
    _, batch, gamma, beta = draw_case((40, 33, 4, 6), np.float32)
    dy = packed.pack(draw((40, 33, 4, 6), np.float32, 3))

    def run():
        y, mean, variance = packed.batch_norm_activation(batch, gamma, beta, 1e-5, None)
        numbers = gamma, beta, mean, variance, 1e-5, None
        dx, *grads = packed.batch_norm_activation_grad(dy, batch, *numbers)
        return [y.data, mean, variance, dx.data, *grads]

    want, allocate_sums = run(), normalization.allocate_sums
    monkeypatch.setattr(
        normalization, "allocate_sums", lambda x, kinds: (allocate_sums(x, kinds)[0], False)
    )
    for got, each in zip(run(), want, strict=True):
        np.testing.assert_array_equal(got, each)
