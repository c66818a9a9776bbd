"""The fully connected layer on the packed layout.

Rows x (N, K) lie in memory as (B, K, L): a feature of L rows is one vector. The output and the
input gradient are matrix products whose columns are these vectors, and the weight gradient is one
with the units in the lanes. All three run on register tiles, each number loaded once for several
multiply-adds.
"""

from functools import lru_cache

import numba
import numpy as np
from numba import prange

from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.activations import activation_argument
from kernels.numba_backend.simd.copies import transpose_padded
from kernels.numba_backend.simd.micro_kernels import (
    MAX_SHORT_BYTES,
    outer_product_tile,
    outer_product_tile_shape,
)
from kernels.numba_backend.simd.tiled_matmul import (
    channel_sums,
    scale_and_bias,
    strided_offsets,
    tiled_matmul,
)
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, load, store

BLOCK_BYTES = 128 << 10  # in second-level caches of 256 KiB and more


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


@parallel
def _dense_by_panels(
    x, x_offsets, w, w_offsets, scale, bias, activation, panels, parts, tile, y
):  # fmt: skip
    """y (B, U, L) = activation(scale * (w.T @ x) + bias) for x (B, K, L) and w (K, U).

    Each task computes L units of one of ``parts`` of the blocks. It first copies their weights to a
    panel, of panels (tasks, K * L): in w they lie in as many cache lines, often a power of two
    apart, which compete for the same few sets.
    """
    B, K, L = x.shape
    U, (ROWS, COLUMNS) = y.shape[1], tile
    x_flat, w_flat, y_flat = x.reshape(-1), w.reshape(-1), y.reshape(-1)
    for task in prange(len(panels)):
        panel, part = panels[task], task % parts
        u = min(task // parts * L, U - L)
        first, last = part * B // parts, (part + 1) * B // parts
        for t in range(K):
            store(panel, t * L, load(w_flat, t * U + u))
        for r in range(0, L, ROWS):
            row = min(r, L - ROWS)
            for start in range(first, last, COLUMNS):
                b = min(start, B - COLUMNS)
                outer_product_tile(
                    x_flat, b * K * L, x_offsets, K * L, panel, row, w_offsets, 1, K,
                    scale, bias, u + row, activation,
                    y_flat, (b * U + u + row) * L, L, U * L, ROWS, COLUMNS,
                )  # fmt: skip


def dense(x: PackedBatch, w, b, scale, activation) -> PackedBatch:
    (features, units), L, B = w.shape, x.lanes, len(x.data)
    if units < L:
        w_offsets = strided_offsets(features, units)
        return _matmul(x, w, 1, w_offsets, units, scale, b, activation)
    y, vectors = x.like(units), -(-units // L)
    parts = min(B, -(-numba.get_num_threads() // vectors))
    offsets = strided_offsets(features, L)
    launch(
        _dense_by_panels, x.data, offsets, w, offsets, *scale_and_bias(scale, b, units, x.dtype),
        activation, empty((vectors * parts, features * L), x.dtype), parts,
        outer_product_tile_shape(L, B), y.data,
    )  # fmt: skip
    return y


def input_gradient(dy: PackedBatch, w) -> PackedBatch:
    """Return dx = dy @ w.T."""
    features, units = w.shape
    identity = activation_argument(None, dy.dtype)
    return _matmul(dy, w, units, strided_offsets(units, 1), features, None, None, identity)


@parallel
def _sum_outer_products(
    dy, dy_rows, dy_offsets, x, x_offsets, ones, zeros, identity, workers, tile, dw
):  # fmt: skip
    """dw (K, whole vectors of units) = x.T @ dy, summed over the images.

    The units are in the lanes: dy_rows (vectors, B * L, L) gets the rows of dy (B, U, 1, L), one
    vector of units after the other. Each worker multiplies BLOCK_BYTES of x at a time, which stay
    in the second-level cache, by one column of tiles of them after the other.
    """
    B, U, _, L = dy.shape
    (K, width), (vectors, images, _), (ROWS, COLUMNS) = dw.shape, dy_rows.shape, tile
    dy_flat, rows_flat = dy.reshape(-1), dy_rows.reshape(-1)
    x_flat, dw_flat, row_tiles = x.reshape(-1), dw.reshape(-1), (K + ROWS - 1) // ROWS
    for v in prange(vectors):
        for b in range(B):
            transpose_padded(
                dy_flat, (b * U + v * L) * L, L, min(L, U - v * L), L,
                rows_flat, (v * images + b * L) * L, L,
            )  # fmt: skip
    block_tiles = max(1, BLOCK_BYTES // (ROWS * images * x.itemsize))
    for worker in prange(workers):
        first, last = worker * row_tiles // workers, (worker + 1) * row_tiles // workers
        for block in range(first, last, block_tiles):
            for column in range(0, vectors, COLUMNS):
                v = min(column, vectors - COLUMNS)
                for r in range(block, min(block + block_tiles, last)):
                    k = min(r * ROWS, K - ROWS)
                    outer_product_tile(
                        rows_flat, v * images * L, dy_offsets, images * L,
                        x_flat, k * L, x_offsets, L, x_offsets.size,
                        ones, zeros, k, identity, dw_flat, k * width + v * L, width, L,
                        ROWS, COLUMNS,
                    )  # fmt: skip


@serial
def _weight_gradient(
    dy, dy_rows, dy_offsets, x, x_offsets, ones, zeros, identity, workers, tile, padded_dw, dw, db
):  # fmt: skip
    """dw = x.T @ dy; db = the sums of dy.

    ``padded_dw`` is dw with its rows padded to whole vectors, or dw itself.
    """
    _sum_outer_products(
        dy, dy_rows, dy_offsets, x, x_offsets, ones, zeros, identity, workers, tile, padded_dw
    )
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
    is_short = N * VECTOR_BYTES <= MAX_SHORT_BYTES
    launch(
        _weight_gradient, dy.planes, empty((vectors, len(dy.data) * L, L), dy.dtype),
        strided_offsets(N, L), x.data, _image_offsets(N, features, L),
        *scale_and_bias(None, None, features, dy.dtype), activation_argument(None, dy.dtype),
        numba.get_num_threads(),
        outer_product_tile_shape(features, vectors, in_first_level=is_short), padded_dw, dw, db,
    )  # fmt: skip
    return dw, db


def dense_grad(dy: PackedBatch, x: PackedBatch, w, need_dx: bool = True, out=None):
    """Return dx (None unless needed), dw and db."""
    dx = input_gradient(dy, w) if need_dx else None
    return dx, *weight_gradient(dy, x, out)
