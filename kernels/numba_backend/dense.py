"""Matrix products and the fully connected layer on plain arrays."""

import numpy as np

from kernels import checks
from kernels.numba_backend.jit import serial
from kernels.numba_backend.lanes.dense import scale_and_bias
from kernels.numba_backend.lanes.layout import lanes_of
from kernels.numba_backend.lanes.sums import cover_with_products, cover_with_sums
from kernels.numba_backend.lanes.tile import product_tile_shape, sum_tile_shape
from kernels.numba_backend.memory import empty
from kernels.numba_backend.tape import call
from kernels.numpy_backend.dense import flatten, flatten_grad

MOST_VECTORS = 4  # of units that one task covers

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
    L = lanes_of(b.dtype)
    b = _whole_vectors(b, L)
    width = b.shape[1]
    out = empty((N, width), b.dtype)
    flat, row, column = (a, K, 1) if a.flags.c_contiguous else (a.T, 1, N)
    cover_with_sums(
        b.reshape(-1), (0, 0, 0, L), np.arange(K, dtype=np.int64) * width,
        flat.reshape(-1), (0, row), np.arange(K, dtype=np.int64) * column,
        *scale_and_bias(None, None, N, b.dtype), b.dtype.type(1),
        out.reshape(-1), (0, 0, 0, width, L),
        (1, 1, 1, N, width // L), sum_tile_shape(N, width // L),
    )  # fmt: skip
    return out[:, :M] + (0 if bias is None else bias)


def _matmul_transposed(a, b):
    """Return a (N, M) @ b.T of b (K, M): products of rows, which lie in the lanes."""
    N, K = len(a), len(b)
    if 0 in (N, K, a.shape[1]):
        return np.zeros((N, K), a.dtype)
    L = lanes_of(a.dtype)
    a, b = _whole_vectors(a, L), _whole_vectors(b, L)
    width = b.shape[1]
    out = np.empty((1, N, K), a.dtype)
    whole = np.zeros(1, np.int64)  # a single line of the full width
    cover_with_products(
        a.reshape(-1), 0, width, L, whole,
        b.reshape(-1), 0, L, whole, np.arange(K, dtype=np.int64) * width, width // L, 1,
        product_tile_shape(N, K), out,
    )  # fmt: skip
    return out[0]


@serial
def _dense(
    x, w, whole, strides, terms, x_strides, x_terms, ones, zeros, one, wide, wide_strides, counts,
    tile, scale, b, slope, y,
):  # fmt: skip
    """y = leaky ReLU of scale * (x @ w) + b; whole is w, or room for rows of whole vectors."""
    if whole.shape[1] != w.shape[1]:
        for k in range(len(w)):
            for m in range(w.shape[1]):
                whole[k, m] = w[k, m]
    cover_with_sums(
        whole.reshape(-1), strides, terms, x.reshape(-1), x_strides, x_terms, ones, zeros,
        one, wide.reshape(-1), wide_strides, counts, tile,
    )  # fmt: skip
    for n in range(len(y)):
        for m in range(y.shape[1]):
            value = wide[n, m] * scale[m] + b[m]
            y[n, m] = value if value > 0 else value * slope


def dense(x, w, b=None, scale=None, slope=1.0):
    x, w = checks.dense(x, w)
    (N, K), M, dtype = x.shape, w.shape[1], x.dtype
    scale, b = scale_and_bias(*checks.scale_and_bias(scale, b, M, dtype), M, dtype)
    y = np.empty((N, M), dtype)
    if 0 in (N, K, M):
        y[:] = np.where(b > 0, b, b * dtype.type(slope))
        return y
    L = lanes_of(dtype)
    _, vectors = tile = sum_tile_shape(N, min(MOST_VECTORS, -(-M // L)))
    line = vectors * L
    lines = -(-M // line)
    width = lines * line
    call(
        _dense,
        x,
        w,
        w if width == M else np.zeros((K, width), dtype),
        (0, 0, line, L),
        np.arange(K, dtype=np.int64) * width,
        (0, K),
        np.arange(K, dtype=np.int64),
        *scale_and_bias(None, None, N, dtype),
        dtype.type(1),
        empty((N, width), dtype),
        (0, 0, line, width, L),
        (1, 1, lines, N, vectors),
        tile,
        scale,
        b,
        dtype.type(slope),
        y,
    )
    return y


def dense_grad(dy, x, w, need_dx=True, out=None):
    x, w = checks.dense(x, w)
    dy = checks.matrix(dy, "dy", x.dtype)
    checks.shape_is(dy, "dy", (len(x), w.shape[1]))
    dx = _matmul_transposed(dy, w) if need_dx else None
    return dx, matmul(x.T, dy), dy.sum(axis=0)
