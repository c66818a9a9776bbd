"""Sums of ten million float32 values are within 1e-5 of their float64 sums, on every backend.

This must hold with every BLAS and on every processor. OPENBLAS_CORETYPE (Haswell, SkylakeX, Zen,
Prescott, ...) and NPY_DISABLE_CPU_FEATURES select the code that NumPy runs on other processors.
"""

import numpy as np
import pytest

from kernels import get_backend
from tests.packed import CAPTURED, LANES
from tests.test_kernels import every_backend, every_layout

TOLERANCE = 1e-5
# SciPy's loops would take minutes.
FAST = [*map(get_backend, ("numpy", "numba")), LANES]
without_scipy = pytest.mark.parametrize("backend", FAST, ids=["numpy", "numba", "numba packed"])
# Images with 10 million values in each channel: many small images, and few large ones.
SHAPES = [(12_756, 2, 28, 28), (16, 2, 791, 791)]


def values(shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def assert_within(got, want):
    np.testing.assert_allclose(np.squeeze(got), np.squeeze(want), rtol=TOLERANCE)


@every_layout
@pytest.mark.parametrize("shape", [*SHAPES, (10_000_000, 2)])
def test_batch_norm(backend, shape):
    # Far from 0, where mean(x**2) - mean(x)**2 would have no correct digit.
    x, dy = values(shape) + np.float32(100), values(shape, 1)
    axes = (0, 2, 3)[: x.ndim - 1]
    gamma, beta = np.ones((2, 2), np.float32)
    _, mean, variance = backend.batch_norm(x, gamma, beta, 1e-5)
    exact = x.astype(np.float64)
    assert_within(mean, exact.mean(axes))
    assert_within(variance, exact.var(axes))
    dy += x - 100
    _, dgamma, dbeta = backend.batch_norm_grad(dy, x, gamma, mean, variance, 1e-5)
    assert_within(dbeta, dy.sum(axes, np.float64))
    by_channel = [-1 if axis == 1 else 1 for axis in range(x.ndim)]
    mean, variance = (v.astype(np.float64).reshape(by_channel) for v in (mean, variance))
    assert_within(dgamma, (dy * ((exact - mean) / np.sqrt(variance + 1e-5))).sum(axes))


@every_layout
@pytest.mark.parametrize("shape", [(37, 2, 28, 28), (37, 2), (3, 2, 5, 1)])
@pytest.mark.parametrize("std", [0, 1e-3])
def test_batch_norm_far_from_0(backend, shape, std):
    """The rounding error of a large mean must not become a deviation of every pixel."""
    x = np.random.default_rng(0).normal(1000.1, std, shape).astype(np.float32)
    gamma, beta = np.ones((2, 2), np.float32)
    y, mean, variance = backend.batch_norm(x, gamma, beta, 1e-5)
    axes = (0, 2, 3)[: x.ndim - 1]
    assert_within(mean, x.mean(axes, np.float64))
    np.testing.assert_allclose(variance, x.astype(np.float64).var(axes), 1e-5, 1e-20)
    if not std:
        np.testing.assert_array_equal(y, np.ones_like(y))


@every_layout
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 3])
def test_correlate_grad(backend, shape, size):
    x, dy = values(shape), values(shape, 1)
    w = values((2, 2, size, size), 2)
    _, dw, db = backend.correlate_grad(dy, x, w, padding=size // 2)
    assert_within(db, dy.sum((0, 2, 3), np.float64))
    for f, c in np.ndindex(2, 2):
        center = (x[:, c].astype(np.float64) * dy[:, f]).sum()
        assert_within(dw[f, c, size // 2, size // 2], center)


@every_layout
def test_correlate(backend):
    x, w = values((1, 16, 791, 791)), values((1, 16, 791, 791), 1)
    assert_within(backend.correlate(x, w), (x.astype(np.float64) * w).sum())


@every_backend
def test_correlate_im2col(backend):
    x, w = values((1, 16, 791, 791)), values((1, 16, 791, 791), 1)
    assert_within(backend.correlate_im2col(x, w), (x.astype(np.float64) * w).sum())


@without_scipy
def test_input_gradient_of_many_filters(backend):
    x, w, dy = (
        values((1, 2, 1, 2)),
        values((1_000_000, 2, 1, 1), 1),
        values((1, 1_000_000, 1, 2), 2),
    )
    dx, _, _ = backend.correlate_grad(dy, x, w)
    assert_within(dx, np.einsum("fs,fc->cs", dy[0, :, 0].astype(np.float64), w[:, :, 0, 0]))


@every_layout
@pytest.mark.parametrize("width", [1, 2])
def test_dense(backend, width):
    rows, dy = values((10_000_000, 1)), values((10_000_000, width), 1)
    want = (rows.astype(np.float64) * dy).sum(axis=0)
    _, dw, db = backend.dense_grad(dy, rows, values((1, width), 2))
    assert_within(dw, want)
    assert_within(db, dy.sum(0, np.float64))
    for kernels in (backend, CAPTURED):
        got = kernels.dense(rows.reshape(1, -1), dy, np.zeros(width, np.float32))
        assert_within(got, want)
    dx, _, _ = backend.dense_grad(rows.reshape(1, -1), values((1, width), 2), dy.T.copy())
    assert_within(dx, want)


# NumPy would need 15 GB.
@pytest.mark.parametrize("backend", FAST[1:], ids=["numba", "numba packed"])
def test_weight_gradient_of_large_filter(backend):
    x, dy, w = values((16, 1, 791, 791)), values((16, 1, 772, 772), 1), values((1, 1, 20, 20), 2)
    _, dw, _ = backend.correlate_grad(dy, x, w, need_dx=False)
    assert_within(dw[0, 0, 19, 19], (x[:, :, 19:, 19:].astype(np.float64) * dy).sum())


@every_layout
@pytest.mark.parametrize("shape", [(4, 1, 1581, 1581), (1, 1, 500_000, 2)])
def test_avg_pool_of_whole_image(backend, shape):
    x = values(shape)
    assert_within(backend.avg_pool(x, x.shape[2:]), x.mean((1, 2, 3), np.float64))


@every_backend
@pytest.mark.parametrize("shape", [(1, 1, 3163, 3163), (1, 1, 10_000_000, 1)])
def test_avg_pool_of_ten_million_pixels(backend, shape):
    x = values(shape)
    assert_within(backend.avg_pool(x, x.shape[2:]), x.mean((1, 2, 3), np.float64))


def test_avg_pool_of_columns_in_numpy():
    x = values((1, 1, 10_000_000, 2))
    y = get_backend("numpy").avg_pool(x, (10_000_000, 1))
    assert y.dtype == np.float32
    assert_within(y, x.mean(axis=2, dtype=np.float64))


@every_layout
def test_loss(backend):
    logits = values((1_000_000, 10))
    labels = np.random.default_rng(1).integers(0, 10, len(logits))
    exact = logits.astype(np.float64)
    label_logits = np.take_along_axis(exact, labels[:, None], axis=1)[:, 0]
    loss, _, _ = backend.softmax_cross_entropy(logits, labels)
    assert_within(loss, (np.log(np.exp(exact).sum(axis=1)) - label_logits).mean())
