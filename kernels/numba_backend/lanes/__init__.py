"""The functions of a backend on activations whose images lie in the lanes of vectors.

The arguments come from layers, which have checked them; only plain arrays are checked again.
"""

import math
from functools import lru_cache

from kernels.geometry import make_window
from kernels.numba_backend.lanes import convolution, normalization, pooling
from kernels.numba_backend.lanes.activations import (
    dropout,
    dropout_grad,
    leaky_relu,
    leaky_relu_grad,
    softmax,
    softmax_cross_entropy,
    softmax_grad,
)
from kernels.numba_backend.lanes.dense import dense, dense_grad
from kernels.numba_backend.lanes.layout import Lanes, lanes_of, pack, pack_normalized, unpack
from kernels.numba_backend.lanes.normalization import (
    batch_norm,
    batch_norm_grad,
    batch_norm_inference,
    batch_norm_relu,
    batch_norm_relu_grad,
    batch_norm_relu_inference,
)
from kernels.numba_backend.tape import call, record, spoil

__all__ = [
    "Lanes",
    "avg_pool",
    "avg_pool_grad",
    "batch_norm",
    "batch_norm_grad",
    "batch_norm_inference",
    "batch_norm_relu",
    "batch_norm_relu_grad",
    "batch_norm_relu_inference",
    "batch_norm_relu_pool",
    "batch_norm_relu_pool_grad",
    "call",
    "correlate",
    "correlate_grad",
    "dense",
    "dense_grad",
    "dropout",
    "dropout_grad",
    "find_window",
    "flatten",
    "flatten_grad",
    "lanes_of",
    "leaky_relu",
    "leaky_relu_grad",
    "max_pool",
    "max_pool_grad",
    "pack",
    "pack_normalized",
    "pool_window",
    "record",
    "softmax",
    "softmax_cross_entropy",
    "softmax_grad",
    "spoil",
    "unpack",
]


# Layers give the same few windows in every step: 0.1 us to find one again, 3 us to check one.
find_window = lru_cache(maxsize=1024)(make_window)


def correlate(
    x: Lanes, w, b=None, stride=1, padding=0, dilation=1, groups=1, scale=None, slope=1.0
) -> Lanes:
    window = find_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    return convolution.correlate(x, w, b, window, groups, scale, slope)


def correlate_grad(
    dy: Lanes, x: Lanes, w, stride=1, padding=0, dilation=1, groups=1, need_dx=True, out=None
):
    window = find_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    dw, db = convolution.weight_gradient(dy, x, w.shape, window, groups, out)
    return convolution.input_gradient(dy, w, window, groups) if need_dx else None, dw, db


def pool_window(image, pool_size, stride, padding):
    return find_window(image, pool_size, pool_size if stride is None else stride, padding)


def max_pool(x: Lanes, pool_size, stride=None, padding=0):
    return pooling.max_pool(x, pool_window(x.shape[2:], pool_size, stride, padding))


def max_pool_grad(dy: Lanes, taps, x_shape, pool_size, stride=None, padding=0) -> Lanes:
    return pooling.max_pool_grad(dy, taps, pool_window(x_shape[2:], pool_size, stride, padding))


def avg_pool(x: Lanes, pool_size, stride=None, padding=0) -> Lanes:
    return pooling.avg_pool(x, pool_window(x.shape[2:], pool_size, stride, padding))


def avg_pool_grad(dy: Lanes, x_shape, pool_size, stride=None, padding=0) -> Lanes:
    return pooling.avg_pool_grad(dy, pool_window(x_shape[2:], pool_size, stride, padding))


def batch_norm_relu_pool(x: Lanes, gamma, beta, epsilon, slope, pool_size):
    window = pool_window(x.shape[2:], pool_size, None, 0)
    return normalization.batch_norm_relu_pool(x, gamma, beta, epsilon, slope, window)


def batch_norm_relu_pool_grad(
    dy: Lanes, x: Lanes, taken, gamma, beta, mean, variance, epsilon, slope, pool_size, out=None
):
    window = pool_window(x.shape[2:], pool_size, None, 0)
    return normalization.batch_norm_relu_pool_grad(
        dy, x, taken, gamma, beta, mean, variance, epsilon, slope, window, out
    )


def flatten(x: Lanes) -> Lanes:
    return x.reshape(math.prod(x.shape[1:]))


def flatten_grad(dy: Lanes, image) -> Lanes:
    return dy.reshape(*image)
