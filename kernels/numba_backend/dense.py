"""Matrix products and the fully connected layer."""

import numpy as np
from numba import prange

from kernels import checks
from kernels.numba_backend.jit import parallel, serial
from kernels.numba_backend.vector import add_scaled, add_scaled_4
from kernels.numpy_backend.dense import flatten, flatten_grad

__all__ = ["dense", "dense_grad", "flatten", "flatten_grad", "matmul"]

ROWS = 4  # of a task: each row of b that is loaded serves all of them
COLUMNS = 256


@serial
def _add_products_4x4(c0, c1, c2, c3, b0, b1, b2, b3, a):
    """Add a (4, 4) times the rows b to the rows c: 16 multiply-adds for 12 loads and stores."""
    a00, a01, a02, a03 = a[0, 0], a[0, 1], a[0, 2], a[0, 3]
    a10, a11, a12, a13 = a[1, 0], a[1, 1], a[1, 2], a[1, 3]
    a20, a21, a22, a23 = a[2, 0], a[2, 1], a[2, 2], a[2, 3]
    a30, a31, a32, a33 = a[3, 0], a[3, 1], a[3, 2], a[3, 3]
    for j in range(c0.size):
        c0[j] += a00 * b0[j] + a01 * b1[j] + a02 * b2[j] + a03 * b3[j]
        c1[j] += a10 * b0[j] + a11 * b1[j] + a12 * b2[j] + a13 * b3[j]
        c2[j] += a20 * b0[j] + a21 * b1[j] + a22 * b2[j] + a23 * b3[j]
        c3[j] += a30 * b0[j] + a31 * b1[j] + a32 * b2[j] + a33 * b3[j]


@serial
def _add_products(a, b, c):
    """c += a @ b for up to 4 rows of c."""
    K = len(b)
    k4 = K - K % 4
    if len(c) == 4:
        for k in range(0, k4, 4):
            _add_products_4x4(
                c[0], c[1], c[2], c[3], b[k], b[k + 1], b[k + 2], b[k + 3], a[:, k : k + 4]
            )
    else:
        for i in range(len(c)):
            for k in range(0, k4, 4):
                add_scaled_4(
                    c[i],
                    b[k],
                    b[k + 1],
                    b[k + 2],
                    b[k + 3],
                    a[i, k],
                    a[i, k + 1],
                    a[i, k + 2],
                    a[i, k + 3],
                )
    for i in range(len(c)):
        for k in range(k4, K):
            add_scaled(c[i], b[k], a[i, k])


@parallel
def _matmul(a, b, out):
    N, M = out.shape
    blocks = (M + COLUMNS - 1) // COLUMNS
    for task in prange((N + ROWS - 1) // ROWS * blocks):
        i, j = task // blocks * ROWS, task % blocks * COLUMNS
        c = out[i : i + ROWS, j : j + COLUMNS]
        c[:] = 0
        _add_products(a[i : i + ROWS], b[:, j : j + COLUMNS], c)


@parallel
def _transpose(x, out):
    for i in prange(len(out)):
        for j in range(len(x)):
            out[i, j] = x[j, i]


def _transposed(x):
    out = np.empty(x.shape[::-1], x.dtype)
    _transpose(x, out)
    return out


def matmul(a, b, out):
    """Write a (N, K) @ b (K, M) into out (N, M); all are C-contiguous."""
    _matmul(a, b, out)
    return out


def dense(x, w, b=None):
    x, w = checks.dense(x, w)
    y = matmul(x, w, np.empty((len(x), w.shape[1]), x.dtype))
    y += checks.bias(b, w.shape[1], x.dtype)
    return y


def dense_grad(dy, x, w, need_dx=True):
    x, w = checks.dense(x, w)
    dy = checks.matrix(dy, "dy", x.dtype)
    checks.shape_is(dy, "dy", (len(x), w.shape[1]))
    dw = matmul(_transposed(x), dy, np.empty_like(w))
    dx = matmul(dy, _transposed(w), np.empty_like(x)) if need_dx else None
    return dx, dw, dy.sum(axis=0)
