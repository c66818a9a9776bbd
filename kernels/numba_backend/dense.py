"""Matrix products and the fully connected layer on plain arrays."""

import numpy as np
from numba import prange

from kernels import validation
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.micro_kernels import (
    dot_tile_shape,
    outer_product_tile,
    outer_product_tile_shape,
)
from kernels.numba_backend.simd.tiled_matmul import (
    scale_and_bias,
    strided_offsets,
    tiled_matmul,
    tiled_matmul_nt,
)
from kernels.numba_backend.simd.vectors import VECTOR_BYTES
from kernels.numpy_backend.dense import blocked_matmul, flatten, flatten_grad

MAX_VECTORS = 8  # of units that one task covers
# The weights of many features are read in parts, each from its beginning to its end: 1.6 MB that
# no longer were in the second-level cache took 42 us by columns on 2 threads, and so 27.
PARTS, LARGE = 16, 1 << 17

__all__ = ["dense", "dense_grad", "flatten", "flatten_grad", "matmul"]


def _whole_vectors(b, lanes):
    """Return b (K, M) with its rows filled up by zeros to whole vectors."""
    K, M = b.shape
    if M % lanes == 0:
        return b
    filled = np.zeros((K, -(-M // lanes) * lanes), b.dtype)
    filled[:, :M] = b
    return filled


def matmul(a, b, bias=None):
    """Return a (N, K) @ b (K, M) + bias (M,); b is contiguous, and a or its transpose.

    The columns of b lie in the lanes of vectors, and the numbers of a are their weights.
    """
    (N, K), M = a.shape, b.shape[1]
    if 0 in (N, K, M):
        return np.zeros((N, M), b.dtype) + (0 if bias is None else bias)
    L = simd_width(b.dtype)
    b = _whole_vectors(b, L)
    width = b.shape[1]
    out = empty((N, width), b.dtype)
    flat, row, column = (a, K, 1) if a.flags.c_contiguous else (a.T, 1, N)
    tiled_matmul(
        b.reshape(-1), (0, 0, 0, L), np.arange(K, dtype=np.int64) * width,
        flat.reshape(-1), (0, row), np.arange(K, dtype=np.int64) * column,
        *scale_and_bias(None, None, N, b.dtype), b.dtype.type(1),
        out.reshape(-1), (0, 0, 0, width, L),
        (1, 1, 1, N, width // L), outer_product_tile_shape(N, width // L),
    )  # fmt: skip
    return out[:, :M] + (0 if bias is None else bias)


def _matmul_transposed(a, b):
    """Return a (N, M) @ b.T of b (K, M): products of rows, which lie in the lanes."""
    N, K = len(a), len(b)
    if 0 in (N, K, a.shape[1]):
        return np.zeros((N, K), a.dtype)
    L = simd_width(a.dtype)
    a, b = _whole_vectors(a, L), _whole_vectors(b, L)
    width = b.shape[1]
    out = np.empty((1, N, K), a.dtype)
    whole = np.zeros(1, np.int64)  # a single line of the full width
    tiled_matmul_nt(
        a.reshape(-1), 0, width, L, whole,
        b.reshape(-1), 0, L, whole, np.arange(K, dtype=np.int64) * width, width // L, 1,
        dot_tile_shape(N, K), out,
    )  # fmt: skip
    return out[0]


@parallel
def _dense(x, w, whole, terms, x_terms, ones, zeros, one, tile, sums, scale, b, negative_slope, y):
    """y = leaky ReLU of scale * (x @ w) + b.

    whole is w, or room for it with rows of whole vectors. A task sums some of the features for
    one tile, into sums (parts, rows, units).
    """
    (ROWS, COLUMNS), (parts, N, width) = tile, sums.shape
    K, M = w.shape
    weights, numbers, to = whole.reshape(-1), x.reshape(-1), sums.reshape(-1)
    line = COLUMNS * VECTOR_BYTES // x.itemsize
    tiles = width // line
    for task in prange(parts * tiles):
        part, m = task // tiles, task % tiles * line
        first, last = part * K // parts, (part + 1) * K // parts
        if width != M:
            for k in range(first, last):
                for u in range(m, m + line):
                    whole[k, u] = w[k, u] if u < M else 0
        for row in range(0, N, ROWS):
            n = min(row, N - ROWS)
            outer_product_tile(
                weights, first * width + m, terms, line // COLUMNS,
                numbers, n * K + first, x_terms, K, last - first, ones, zeros, 0, one,
                to, (part * N + n) * width + m, width, line // COLUMNS, ROWS, COLUMNS,
            )  # fmt: skip
    for n in range(N):
        for m in range(M):
            total = 0.0
            for part in range(parts):
                total += np.float64(sums[part, n, m])
            value = x.dtype.type(total) * scale[m] + b[m]
            y[n, m] = value if value > 0 else value * negative_slope


def dense(x, w, b=None, scale=None, negative_slope=1.0):
    x, w = validation.check_dense(x, w)
    (N, K), M, dtype = x.shape, w.shape[1], x.dtype
    scale, b = scale_and_bias(*validation.check_scale_and_bias(scale, b, M, dtype), M, dtype)
    negative_slope = validation.check_negative_slope(negative_slope, dtype)
    y = np.empty((N, M), dtype)
    if 0 in (N, K, M):
        y[:] = np.where(b > 0, b, b * negative_slope)
        return y
    L = simd_width(dtype)
    tile = outer_product_tile_shape(N, min(MAX_VECTORS, -(-M // L)))
    width = -(-M // (tile[1] * L)) * tile[1] * L
    parts = min(PARTS, K) if w.size > LARGE else 1
    launch(
        _dense, x, w, w if width == M else empty((K, width), dtype),
        strided_offsets(K, width), strided_offsets(K, 1),
        *scale_and_bias(None, None, tile[0], dtype), dtype.type(1),
        tile, empty((parts, N, width), dtype), scale, b, negative_slope, y,
    )  # fmt: skip
    return y


def dense_grad(dy, x, w, need_dx=True, out=None):
    x, w = validation.check_dense(x, w)
    dy = validation.check_matrix(dy, "dy", x.dtype)
    validation.check_shape(dy, "dy", (len(x), w.shape[1]))
    validation.check_out(out, (w.shape, w.shape[1:]), (w,))
    dx = blocked_matmul(dy, w.T, _matmul_of_rows) if need_dx else None
    dw = matmul(np.ascontiguousarray(x).T, dy)
    return dx, dw, dy.sum(axis=0, dtype=np.float64).astype(dy.dtype)


def _matmul_of_rows(a, b):
    return _matmul_transposed(np.ascontiguousarray(a), np.ascontiguousarray(b.T))
