"""The fully connected layer, and flattening."""

import math

import numpy as np

from kernels.numpy_backend.activations import scale_and_activate
from kernels.validation import (
    check_activation,
    check_dense,
    check_dense_grad,
    check_images,
    check_rows_grad,
    check_scale_and_bias,
)

# The number of products that are summed in float32. If 10 million products are summed one after the
# other, the relative error of a float32 sum is 1 %.
MAX_SUM_TERMS = 1 << 13


def blocked_matmul(a, b):
    """Return a (..., M, K) @ b (..., K, N), accurate for any K.

    How a BLAS adds up a long sum depends on the processor: with ten million float32 terms, the
    relative error is 2e-5 to 4e-3. Therefore blocks of at most `MAX_SUM_TERMS` terms are
    multiplied one after the other, and their products are added in float64.
    """
    K = a.shape[-1]
    if K <= MAX_SUM_TERMS:
        return a @ b
    blocks = [slice(start, start + MAX_SUM_TERMS) for start in range(0, K, MAX_SUM_TERMS)]
    y = (a[..., blocks[0]] @ b[..., blocks[0], :]).astype(np.float64)
    for block in blocks[1:]:
        y += a[..., block] @ b[..., block, :]
    return y.astype(a.dtype)


def flatten(x):
    x = check_images(x, "x")
    return x.reshape(len(x), math.prod(x.shape[1:]))


def flatten_grad(dy, image_shape):
    dy, image_shape = check_rows_grad(dy, image_shape)
    return dy.reshape(len(dy), *image_shape)


def dense(x, w, b=None, scale=None, activation=None):
    x, w = check_dense(x, w)
    scale, b = check_scale_and_bias(scale, b, w.shape[1], x.dtype)
    activation = check_activation(activation, x.dtype)
    return scale_and_activate(blocked_matmul(x, w), scale, b, activation)


def dense_grad(dy, x, w, need_dx=True, out=None):
    dy, x, w = check_dense_grad(dy, x, w, need_dx, out)
    dx = blocked_matmul(dy, w.T) if need_dx else None
    db = dy.sum(axis=0, dtype=np.float64).astype(dy.dtype)
    return dx, blocked_matmul(x.T, dy), db
