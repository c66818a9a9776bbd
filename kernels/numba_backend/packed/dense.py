"""The fully connected layer with the images in the lanes."""

from functools import lru_cache

import numpy as np
from numba import prange

from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.micro_kernels import outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import channel_sums, tiled_matmul


@lru_cache(maxsize=256)
def terms(count: int, step: int) -> np.ndarray:
    """Return where terms stand that are some steps apart."""
    return np.arange(count, dtype=np.int64) * step


@lru_cache(maxsize=256)
def _image_terms(N: int, features: int, lanes: int) -> np.ndarray:
    """Return where the first feature of each image stands."""
    n = np.arange(N, dtype=np.int64)
    return n // lanes * features * lanes + n % lanes


@lru_cache(maxsize=64)
def _all(number: float, count: int, dtype: np.dtype) -> np.ndarray:
    return np.full(count, number, dtype)


def scale_and_bias(scale, bias, count: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return them, or ones and zeros to read where there is none."""
    return (
        _all(1.0, count, dtype) if scale is None else scale,
        _all(0.0, count, dtype) if bias is None else bias,
    )


def _product(
    x: PackedBatch, w, w_step: int, w_terms, units: int, scale=None, b=None, negative_slope=1.0
) -> PackedBatch:
    """y[u] = scale[u] * sum over t of w[u * w_step + w_terms[t]] * x[t] + b[u].

    The columns are blocks of images.
    """
    B, K, L = x.data.shape
    y = x.like(units)
    launch(
        tiled_matmul, x.data.reshape(-1), (0, 0, 0, K * L), terms(K, L),
        w.reshape(-1), (0, w_step), w_terms,
        *scale_and_bias(scale, b, units, x.dtype), x.dtype.type(negative_slope),
        y.data.reshape(-1), (0, 0, 0, L, units * L),
        (1, 1, 1, units, B), outer_product_tile_shape(units, B),
    )  # fmt: skip
    return y


def dense(x: PackedBatch, w, b=None, scale=None, negative_slope=1.0) -> PackedBatch:
    features, units = w.shape
    return _product(x, w, 1, terms(features, units), units, scale, b, negative_slope)


def input_gradient(dy: PackedBatch, w) -> PackedBatch:
    features, units = w.shape
    return _product(dy, w, units, terms(units, 1), features)


@parallel
def _rows(x, out):
    """x (B, K, 1, L), out (N, K rounded up): a row for each image, zeros behind."""
    _, K, _, L = x.shape
    for n in prange(len(out)):
        for k in range(K):
            out[n, k] = x[n // L, k, 0, n % L]
        for k in range(K, out.shape[1]):
            out[n, k] = 0


@serial
def _weight_gradient(
    dy, rows, row_strides, row_terms, x, x_strides, x_terms, ones, zeros, negative_slope, wide, strides,
    counts, tile, dw, db,
):  # fmt: skip
    """Sum over the images, with the units in the lanes; db is the sum of dy."""
    _rows(dy, rows)
    tiled_matmul(
        rows.reshape(-1), row_strides, row_terms, x.reshape(-1), x_strides, x_terms, ones, zeros,
        negative_slope, wide.reshape(-1), strides, counts, tile,
    )  # fmt: skip
    if wide.shape[1] != dw.shape[1]:  # the units do not fill their last vector
        for k in range(dw.shape[0]):
            for u in range(dw.shape[1]):
                dw[k, u] = wide[k, u]
    channel_sums(dy, db)


def weight_gradient(dy: PackedBatch, x: PackedBatch, out=None):
    """Return dw (features, units) and db (units,)."""
    (N, units), L, features = dy.shape, dy.lanes, x.shape[1]
    dw, db = allocate_outputs(out, ((features, units), (units,)), dy.dtype)
    vectors = -(-units // L)
    wide = dw if units == vectors * L else empty((features, vectors * L), dy.dtype)
    launch(
        _weight_gradient, dy.planes,
        empty((N, vectors * L), dy.dtype), (0, 0, 0, L), terms(N, vectors * L),
        x.data, (0, L), _image_terms(N, features, L),
        *scale_and_bias(None, None, features, dy.dtype), dy.dtype.type(1),
        wide, (0, 0, 0, vectors * L, L),
        (1, 1, 1, features, vectors), outer_product_tile_shape(features, vectors), dw, db,
    )  # fmt: skip
    return dw, db


def dense_grad(dy: PackedBatch, x: PackedBatch, w, need_dx: bool = True, out=None):
    dx = input_gradient(dy, w) if need_dx else None
    return dx, *weight_gradient(dy, x, out)
