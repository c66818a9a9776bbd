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
def _add_products(a, b, c):
    """c += a @ b"""
    K = len(b)
    for k in range(0, K - 3, 4):
        for i in range(len(c)):
            a0, a1, a2, a3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            add_scaled_4(c[i], b[k], b[k + 1], b[k + 2], b[k + 3], a0, a1, a2, a3)
    for k in range(K - K % 4, K):
        for i in range(len(c)):
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
