"""The fully connected layer on the packed layout.

Rows x (N, K) lie in memory as (B, K, L): a feature of L rows is one vector. The output and the
input gradient are matrix products whose columns are these vectors, and the weight gradient is one
with the units in the lanes. All three run on register tiles, each number loaded once for several
multiply-adds.
"""

from functools import lru_cache

import numpy as np
from numba import prange

from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.activations import activation_argument
from kernels.numba_backend.simd.micro_kernels import outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import (
    channel_sums,
    scale_and_bias,
    strided_offsets,
    tiled_matmul,
)


@lru_cache(maxsize=256)
def _image_offsets(N: int, features: int, lanes: int) -> np.ndarray:
    """Return the offset of the first feature of each image in (B, features, lanes)."""
    n = np.arange(N, dtype=np.int64)
    return n // lanes * features * lanes + n % lanes


def _matmul(
    x: PackedBatch, w, w_stride: int, w_offsets, units: int, scale, b, activation
) -> PackedBatch:
    """y[u] = scale[u] * sum over t of w[u * w_stride + w_offsets[t]] * x[t] + b[u].

    The columns of the product are blocks of images.
    """
    B, K, L = x.data.shape
    y = x.like(units)
    launch(
        tiled_matmul, x.data.reshape(-1), (0, 0, 0, K * L), strided_offsets(K, L),
        w.reshape(-1), (0, w_stride), w_offsets,
        *scale_and_bias(scale, b, units, x.dtype), activation,
        y.data.reshape(-1), (0, 0, 0, L, units * L),
        (1, 1, 1, units, B), outer_product_tile_shape(units, B),
    )  # fmt: skip
    return y


def dense(x: PackedBatch, w, b, scale, activation) -> PackedBatch:
    features, units = w.shape
    w_offsets = strided_offsets(features, units)
    return _matmul(x, w, 1, w_offsets, units, scale, b, activation)


def input_gradient(dy: PackedBatch, w) -> PackedBatch:
    """Return dx = dy @ w.T."""
    features, units = w.shape
    identity = activation_argument(None, dy.dtype)
    return _matmul(dy, w, units, strided_offsets(units, 1), features, None, None, identity)


@parallel
def _unpack_rows(x, out):
    """out (N, K rounded up to whole vectors) = the rows of x (B, K, 1, L), then zeros."""
    _, K, _, L = x.shape
    for n in prange(len(out)):
        for k in range(K):
            out[n, k] = x[n // L, k, 0, n % L]
        for k in range(K, out.shape[1]):
            out[n, k] = 0


@serial
def _weight_gradient(
    dy, dy_rows, dy_strides, dy_offsets, x, x_strides, x_offsets, ones, zeros, identity,
    padded_dw, dw_strides, counts, tile, dw, db,
):  # fmt: skip
    """dw = x.T @ dy, summed over the images with the units in the lanes; db = the sums of dy.

    ``padded_dw`` is dw with its rows padded to whole vectors, or dw itself.
    """
    _unpack_rows(dy, dy_rows)
    tiled_matmul(
        dy_rows.reshape(-1), dy_strides, dy_offsets, x.reshape(-1), x_strides, x_offsets,
        ones, zeros, identity, padded_dw.reshape(-1), dw_strides, counts, tile,
    )  # fmt: skip
    if padded_dw.shape[1] != dw.shape[1]:
        for k in range(dw.shape[0]):
            for u in range(dw.shape[1]):
                dw[k, u] = padded_dw[k, u]
    channel_sums(dy, db)


def weight_gradient(dy: PackedBatch, x: PackedBatch, out=None):
    """Return dw (features, units) and db (units,)."""
    (N, units), L, features = dy.shape, dy.lanes, x.shape[1]
    dw, db = allocate_outputs(out, ((features, units), (units,)), dy.dtype)
    vectors = -(-units // L)
    padded_dw = dw if units == vectors * L else empty((features, vectors * L), dy.dtype)
    launch(
        _weight_gradient, dy.planes,
        empty((N, vectors * L), dy.dtype), (0, 0, 0, L), strided_offsets(N, vectors * L),
        x.data, (0, L), _image_offsets(N, features, L),
        *scale_and_bias(None, None, features, dy.dtype), activation_argument(None, dy.dtype),
        padded_dw, (0, 0, 0, vectors * L, L),
        (1, 1, 1, features, vectors), outer_product_tile_shape(features, vectors), dw, db,
    )  # fmt: skip
    return dw, db


def dense_grad(dy: PackedBatch, x: PackedBatch, w, need_dx: bool = True, out=None):
    """Return dx (None unless needed), dw and db."""
    dx = input_gradient(dy, w) if need_dx else None
    return dx, *weight_gradient(dy, x, out)
