"""The functions of a backend on activations whose images lie in the lanes of vectors.

What comes with the activations is checked here, once, as it is for plain arrays.
"""

import math

from kernels import checks
from kernels.geometry import make_window
from kernels.numba_backend.lanes import convolution, door, normalization, pooling
from kernels.numba_backend.lanes import dense as products
from kernels.numba_backend.lanes.activations import (
    dropout,
    dropout_grad,
    leaky_relu,
    leaky_relu_grad,
    softmax,
    softmax_cross_entropy,
    softmax_grad,
)
from kernels.numba_backend.lanes.layout import Lanes, lanes_of, pack, pack_normalized, unpack
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
    "flatten",
    "flatten_grad",
    "lanes_of",
    "leaky_relu",
    "leaky_relu_grad",
    "max_pool",
    "max_pool_grad",
    "pack",
    "pack_normalized",
    "record",
    "softmax",
    "softmax_cross_entropy",
    "softmax_grad",
    "spoil",
    "unpack",
]


def correlate(
    x: Lanes, w, b=None, stride=1, padding=0, dilation=1, groups=1, scale=None, slope=1.0
) -> Lanes:
    door.images(x)
    w, groups = door.filters(w, x.shape, x.dtype, groups)
    scale, b = door.scale_and_bias(scale, b, len(w), x.dtype)
    window = make_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    return convolution.correlate(x, w, b, window, groups, scale, checks.slope(slope, x.dtype))


def correlate_grad(
    dy: Lanes, x: Lanes, w, stride=1, padding=0, dilation=1, groups=1, need_dx=True, out=None
):
    door.alike("x", x, dy, x.shape[1:] if isinstance(x, Lanes) else None)
    door.images(x)
    w, groups = door.filters(w, x.shape, x.dtype, groups)
    window = make_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    door.alike("dy", dy, x, (len(w), *window.output))
    out = checks.room(out, (w.shape, w.shape[:1]), (w,))
    dw, db = convolution.weight_gradient(dy, x, w.shape, window, groups, out)
    return convolution.input_gradient(dy, w, window, groups) if need_dx else None, dw, db


def max_pool(x: Lanes, pool_size, stride=None, padding=0):
    door.images(x)
    return pooling.max_pool(x, checks.pool(x.shape[2:], pool_size, stride, padding))


def _pooled(dy: Lanes, x_shape, pool_size, stride, padding):
    """Return the window of a pooling of images of a shape, which gave what dy has the shape of."""
    x_shape = checks.image_shape(x_shape, "x_shape")
    window = checks.pool(x_shape[2:], pool_size, stride, padding)
    checks.shape_is(dy, "dy", (*x_shape[:2], *window.output))
    return window


def max_pool_grad(dy: Lanes, taps, x_shape, pool_size, stride=None, padding=0) -> Lanes:
    window = _pooled(dy, x_shape, pool_size, stride, padding)
    return pooling.max_pool_grad(dy, door.taken(taps, dy, window), window)


def avg_pool(x: Lanes, pool_size, stride=None, padding=0) -> Lanes:
    door.images(x)
    return pooling.avg_pool(x, checks.pool(x.shape[2:], pool_size, stride, padding))


def avg_pool_grad(dy: Lanes, x_shape, pool_size, stride=None, padding=0) -> Lanes:
    return pooling.avg_pool_grad(dy, _pooled(dy, x_shape, pool_size, stride, padding))


def batch_norm_relu(x: Lanes, gamma, beta, epsilon, slope):
    gamma, beta = door.vectors(x, gamma=gamma, beta=beta)
    slope = checks.slope(slope, x.dtype)
    return normalization.batch_norm_relu(x, gamma, beta, checks.epsilon(epsilon), slope)


def batch_norm_relu_inference(x: Lanes, gamma, beta, mean, variance, epsilon, slope) -> Lanes:
    vectors = door.vectors(x, gamma=gamma, beta=beta, mean=mean, variance=variance)
    slope = checks.slope(slope, x.dtype)
    return normalization.batch_norm_relu_inference(x, *vectors, checks.epsilon(epsilon), slope)


def batch_norm_relu_grad(
    dy: Lanes, x: Lanes, gamma, beta, mean, variance, epsilon, slope, out=None
):
    door.alike("x", x, dy)
    vectors = door.vectors(x, gamma=gamma, beta=beta, mean=mean, variance=variance)
    out = checks.room(out, [x.shape[1:2]] * 2, vectors)
    epsilon, slope = checks.epsilon(epsilon), checks.slope(slope, x.dtype)
    return normalization.batch_norm_relu_grad(dy, x, *vectors, epsilon, slope, out)


# With a slope of 1 the activation is none.
def batch_norm(x: Lanes, gamma, beta, epsilon):
    return batch_norm_relu(x, gamma, beta, epsilon, 1)


def batch_norm_inference(x: Lanes, gamma, beta, mean, variance, epsilon) -> Lanes:
    return batch_norm_relu_inference(x, gamma, beta, mean, variance, epsilon, 1)


def batch_norm_grad(dy: Lanes, x: Lanes, gamma, mean, variance, epsilon, out=None):
    # Any beta will do: only the activation asks for it.
    return batch_norm_relu_grad(dy, x, gamma, gamma, mean, variance, epsilon, 1, out)


def batch_norm_relu_pool(x: Lanes, gamma, beta, epsilon, slope, pool_size):
    door.images(x)
    gamma, beta = door.vectors(x, gamma=gamma, beta=beta)
    window = checks.pool(x.shape[2:], pool_size, None, 0)
    epsilon, slope = checks.epsilon(epsilon), checks.slope(slope, x.dtype)
    return normalization.batch_norm_relu_pool(x, gamma, beta, epsilon, slope, window)


def batch_norm_relu_pool_grad(
    dy: Lanes, x: Lanes, taken, gamma, beta, mean, variance, epsilon, slope, pool_size, out=None
):
    door.alike("x", x, dy, x.shape[1:] if isinstance(x, Lanes) else None)
    window = _pooled(dy, x.shape, pool_size, None, 0)
    if not isinstance(taken, tuple) or len(taken) != 2:
        raise TypeError("taken must be what batch_norm_relu_pool returned")
    taps, largest = taken
    door.taken(taps, dy, window)
    door.alike("taken", largest, dy)
    vectors = door.vectors(x, gamma=gamma, beta=beta, mean=mean, variance=variance)
    gamma, beta, mean, variance = vectors
    out = checks.room(out, [x.shape[1:2]] * 2, vectors)
    epsilon, slope = checks.epsilon(epsilon), checks.slope(slope, x.dtype)
    return normalization.batch_norm_relu_pool_grad(
        dy, x, taken, gamma, beta, mean, variance, epsilon, slope, window, out
    )


def dense(x: Lanes, w, b=None, scale=None, slope=1.0) -> Lanes:
    door.rows(x)
    w = door.weights(w, x.shape[1], x.dtype)
    scale, b = door.scale_and_bias(scale, b, w.shape[1], x.dtype)
    return products.dense(x, w, b, scale, checks.slope(slope, x.dtype))


def dense_grad(dy: Lanes, x: Lanes, w, need_dx=True, out=None):
    door.alike("x", x, dy, x.shape[1:] if isinstance(x, Lanes) else None)
    door.rows(x)
    w = door.weights(w, x.shape[1], x.dtype)
    door.alike("dy", dy, x, w.shape[1:])
    out = checks.room(out, (w.shape, w.shape[1:]), (w,))
    return products.dense_grad(dy, x, w, bool(need_dx), out)


def flatten(x: Lanes) -> Lanes:
    door.images(x)
    return x.reshape(math.prod(x.shape[1:]))


def flatten_grad(dy: Lanes, image) -> Lanes:
    shape = checks.image(image)
    checks.shape_is(dy, "dy", (dy.shape[0], math.prod(shape)))
    return dy.reshape(*shape)
