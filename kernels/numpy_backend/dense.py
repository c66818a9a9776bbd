"""The fully connected layer, and the way from images to rows."""

import math

import numpy as np

from kernels import checks
from kernels.numpy_backend.activations import activated

# A float32 sum of 10 million products, one after the other, is off by 1 %.
LONGEST_SUM = 1 << 13


def matmul_in_parts(a, b, matmul=np.matmul):
    """Return a (M, K) @ b (K, N); parts of LONGEST_SUM terms are added up in float64."""
    if a.shape[1] <= LONGEST_SUM:
        return matmul(a, b)
    total = np.zeros((len(a), b.shape[1]))
    for first in range(0, a.shape[1], LONGEST_SUM):
        part = slice(first, first + LONGEST_SUM)
        total += matmul(a[:, part], b[part])
    return total.astype(a.dtype)


def flatten(x):
    x = checks.images(x, "x")
    return x.reshape(len(x), math.prod(x.shape[1:]))


def flatten_grad(dy, image):
    dy, image = checks.rows_gradient(dy, image)
    return dy.reshape(len(dy), *image)


def dense(x, w, b=None, scale=None, slope=1.0):
    x, w = checks.dense(x, w)
    scale, b = checks.scale_and_bias(scale, b, w.shape[1], x.dtype)
    return activated(matmul_in_parts(x, w), scale, b, slope)


def dense_grad(dy, x, w, need_dx=True, out=None):
    x, w = checks.dense(x, w)
    dy = checks.matrix(dy, "dy", x.dtype)
    checks.shape_is(dy, "dy", (len(x), w.shape[1]))
    checks.room(out, (w.shape, w.shape[1:]), (w,))
    dx = matmul_in_parts(dy, w.T) if need_dx else None
    return dx, matmul_in_parts(x.T, dy), dy.sum(axis=0, dtype=np.float64).astype(dy.dtype)
