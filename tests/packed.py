"""The numba backend with images in lanes, in the dress of a backend that takes plain arrays."""

from types import SimpleNamespace

import numpy as np

from kernels import numba_backend
from kernels.numba_backend import packed

# Plain arguments by place: 0 is the first.
ACTIVATIONS = {
    "avg_pool": [0],
    "avg_pool_grad": [0],
    "batch_norm": [0],
    "batch_norm_grad": [0, 1],
    "batch_norm_inference": [0],
    "batch_norm_relu": [0],
    "batch_norm_relu_grad": [0, 1],
    "batch_norm_relu_inference": [0],
    "correlate": [0],
    "correlate_grad": [0, 1],
    "dense": [0],
    "dense_grad": [0, 1],
    "dropout": [0],
    "dropout_grad": [0, 1],
    "flatten": [0],
    "flatten_grad": [0],
    "leaky_relu": [0],
    "leaky_relu_grad": [0, 1],
    "softmax": [0],
    "softmax_grad": [0, 1],
    "softmax_cross_entropy": [0],
}


def _plain(value):
    if isinstance(value, packed.PackedBatch):
        return packed.unpack(value)
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _adapted(name):
    function = getattr(numba_backend, name)

    def call(*arguments, **options):
        arguments = [
            packed.pack(np.ascontiguousarray(value)) if place in ACTIVATIONS[name] else value
            for place, value in enumerate(arguments)
        ]
        return _plain(function(*arguments, **options))

    return call


def max_pool(x, pool_size, stride=None, padding=0):
    """Return the largest pixels, and the gradient function's index with the plain index."""
    y, taps = numba_backend.max_pool(packed.pack(x), pool_size, stride, padding)
    return packed.unpack(y), taps


def max_pool_grad(dy, taps, x_shape, pool_size, stride=None, padding=0):
    dy = packed.pack(dy)
    return packed.unpack(numba_backend.max_pool_grad(dy, taps, x_shape, pool_size, stride, padding))


def batch_norm_relu_pool(x, *arguments):
    y, taken, mean, variance = numba_backend.batch_norm_relu_pool(packed.pack(x), *arguments)
    return packed.unpack(y), taken, mean, variance


def batch_norm_relu_pool_grad(dy, x, *arguments):
    dx, *grads = numba_backend.batch_norm_relu_pool_grad(
        packed.pack(dy), packed.pack(x), *arguments
    )
    return packed.unpack(dx), *grads


LANES = SimpleNamespace(
    **{name: _adapted(name) for name in ACTIVATIONS},
    max_pool=max_pool,
    max_pool_grad=max_pool_grad,
    batch_norm_relu_pool=batch_norm_relu_pool,
    batch_norm_relu_pool_grad=batch_norm_relu_pool_grad,
)
