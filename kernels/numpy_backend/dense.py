"""The fully connected layer, and the way from images to rows."""

import math

import numpy as np

from kernels import validation
from kernels.numpy_backend.activations import apply_activation

# A float32 sum of 10 million products, one after the other, is off by 1 %.
MAX_SUM_TERMS = 1 << 13


def blocked_matmul(a, b, matmul=np.matmul):
    """Return a (M, K) @ b (K, N); parts of MAX_SUM_TERMS terms are added up in float64."""
    if a.shape[1] <= MAX_SUM_TERMS:
        return matmul(a, b)
    total = np.zeros((len(a), b.shape[1]))
    for first in range(0, a.shape[1], MAX_SUM_TERMS):
        part = slice(first, first + MAX_SUM_TERMS)
        total += matmul(a[:, part], b[part])
    return total.astype(a.dtype)


def flatten(x):
    x = validation.check_images(x, "x")
    return x.reshape(len(x), math.prod(x.shape[1:]))


def flatten_grad(dy, image):
    dy, image = validation.check_rows_grad(dy, image)
    return dy.reshape(len(dy), *image)


def dense(x, w, b=None, scale=None, negative_slope=1.0):
    x, w = validation.check_dense(x, w)
    scale, b = validation.check_scale_and_bias(scale, b, w.shape[1], x.dtype)
    return apply_activation(blocked_matmul(x, w), scale, b, negative_slope)


def dense_grad(dy, x, w, need_dx=True, out=None):
    x, w = validation.check_dense(x, w)
    dy = validation.check_matrix(dy, "dy", x.dtype)
    validation.check_shape(dy, "dy", (len(x), w.shape[1]))
    validation.check_out(out, (w.shape, w.shape[1:]), (w,))
    dx = blocked_matmul(dy, w.T) if need_dx else None
    return dx, blocked_matmul(x.T, dy), dy.sum(axis=0, dtype=np.float64).astype(dy.dtype)
