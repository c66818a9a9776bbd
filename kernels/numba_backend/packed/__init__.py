"""The backend's functions on the packed layout (`layout.py`), as `kernels.interface` defines them.

Each function checks its arguments once, as the functions on plain arrays do, and launches the
kernels of one of the modules here. Activations are `PackedBatch` objects; parameters, statistics
and their gradients are plain arrays.

Activations in bfloat16 take the same functions. Where there is no kernel for them, they are widened
to float32, and the result is rounded.
"""

import math
from functools import wraps

from kernels import validation
from kernels.geometry import Window, make_window
from kernels.numba_backend.packed import activations as activation_kernels
from kernels.numba_backend.packed import (
    checks,
    convolution,
    layout,
    normalization,
    normalization_pool,
    pooling,
    separable,
)
from kernels.numba_backend.packed import dense as dense_kernels
from kernels.numba_backend.packed.activations import (
    activate,
    activate_grad,
    add,
    softmax_cross_entropy,
)
from kernels.numba_backend.packed.layout import (
    PackedBatch,
    narrow,
    pack,
    pack_normalized,
    rounded,
    simd_width,
    unpack,
    widen,
)
from kernels.numba_backend.simd.activations import activation_argument
from kernels.scalars import check_bool
from kernels.separable import compose_separable


def _in_float32(function):
    """Return a function that also takes activations in bfloat16, and rounds its first result."""

    @wraps(function)
    def call(*args, **kwargs):
        batches = [value for value in (*args, *kwargs.values()) if isinstance(value, PackedBatch)]
        if not any(batch.is_bfloat16 for batch in batches):
            return function(*args, **kwargs)
        args = tuple(widen(value) if isinstance(value, PackedBatch) else value for value in args)
        kwargs = {
            name: widen(value) if isinstance(value, PackedBatch) else value
            for name, value in kwargs.items()
        }
        result = function(*args, **kwargs)
        if isinstance(result, tuple):
            return None if result[0] is None else narrow(result[0]), *result[1:]
        return narrow(result)

    return call


dropout = _in_float32(activation_kernels.dropout)
dropout_grad = _in_float32(activation_kernels.dropout_grad)
softmax = _in_float32(activation_kernels.softmax)
softmax_grad = _in_float32(activation_kernels.softmax_grad)
_dense = _in_float32(dense_kernels.dense)
_dense_grad = _in_float32(dense_kernels.dense_grad)


def correlate(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, scale=None, activation=None):
    checks.check_images(x)
    w, groups = checks.check_filters(w, x.shape, x.dtype, groups)
    scale, b = checks.check_scale_and_bias(scale, b, len(w), x.dtype)
    window = make_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    activation = activation_argument(activation, x.dtype)
    return convolution.correlate(x, w, b, window, groups, scale, activation)


_composed_separable_correlate = compose_separable(correlate)


def separable_correlate(
    x, w, pointwise_w, b=None, pointwise_b=None, stride=1, padding=0, dilation=1, scale=None,
    pointwise_scale=None, activation=None, pointwise_activation=None,
):  # fmt: skip
    checks.check_images(x)
    options = (
        b, pointwise_b, stride, padding, dilation, scale, pointwise_scale, activation,
        pointwise_activation,
    )  # fmt: skip
    checked_w, checked_pointwise_w, window, affine, pointwise_affine = checks.check_separable(
        x, w, pointwise_w, *options
    )
    if x.is_bfloat16:
        y = separable_correlate(
            widen(x), rounded(checked_w), rounded(checked_pointwise_w), *options
        )
        return narrow(y)
    if not separable.is_supported(window, x, checked_w.shape, checked_pointwise_w.shape):
        return _composed_separable_correlate(x, w, pointwise_w, *options)
    return separable.correlate(x, checked_w, checked_pointwise_w, window, affine, pointwise_affine)


def correlate_grad(dy, x, w, stride=1, padding=0, dilation=1, groups=1, need_dx=True, out=None):
    checks.check_compatible(dy=dy, x=x)
    checks.check_images(x)
    w, groups = checks.check_filters(w, x.shape, x.dtype, groups)
    window = make_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    validation.check_shape(dy, "dy", (x.shape[0], len(w), *window.output))
    need_dx = check_bool(need_dx, "need_dx")
    out = validation.check_out(out, (w.shape, w.shape[:1]), (w,))
    dw, db = convolution.weight_gradient(dy, x, w.shape, window, groups, out)
    return convolution.input_gradient(dy, w, window, groups) if need_dx else None, dw, db


def max_pool(x, pool_size, stride=None, padding=0):
    checks.check_images(x)
    return pooling.max_pool(x, validation.make_pool_window(x.shape[2:], pool_size, stride, padding))


def _check_pool_grad(dy, x_shape, pool_size, stride, padding) -> Window:
    """Return the window of a pooling of x, and check that dy has the shape of its output."""
    x_shape = validation.check_nchw_shape(x_shape, "x_shape")
    window = validation.make_pool_window(x_shape[2:], pool_size, stride, padding)
    validation.check_shape(dy, "dy", (*x_shape[:2], *window.output))
    return window


def max_pool_grad(dy, index, x_shape, pool_size, stride=None, padding=0):
    window = _check_pool_grad(dy, x_shape, pool_size, stride, padding)
    return pooling.max_pool_grad(dy, checks.check_argmax_taps(index, dy, window), window)


def avg_pool(x, pool_size, stride=None, padding=0):
    checks.check_images(x)
    return pooling.avg_pool(x, validation.make_pool_window(x.shape[2:], pool_size, stride, padding))


def avg_pool_grad(dy, x_shape, pool_size, stride=None, padding=0):
    return pooling.avg_pool_grad(dy, _check_pool_grad(dy, x_shape, pool_size, stride, padding))


def batch_norm_activation(x, gamma, beta, epsilon, activation):
    gamma, beta = checks.check_vectors(x, gamma=gamma, beta=beta)
    epsilon, activation = checks.check_scalars(epsilon, activation, x.dtype)
    return normalization.batch_norm_activation(x, gamma, beta, epsilon, activation)


def batch_norm_activation_grad(dy, x, gamma, beta, mean, variance, epsilon, activation, out=None):
    checks.check_same_shape(dy=dy, x=x)
    vectors = checks.check_vectors(x, gamma=gamma, beta=beta, mean=mean, variance=variance)
    epsilon, activation = checks.check_scalars(epsilon, activation, x.dtype)
    out = validation.check_out(out, [x.shape[1:2]] * 2, vectors)
    return normalization.batch_norm_activation_grad(dy, x, *vectors, epsilon, activation, out)


def batch_norm(x, gamma, beta, epsilon):
    return batch_norm_activation(x, gamma, beta, epsilon, None)


def batch_norm_inference(x, gamma, beta, mean, variance, epsilon):
    vectors = checks.check_vectors(x, gamma=gamma, beta=beta, mean=mean, variance=variance)
    return normalization.batch_norm_inference(x, *vectors, validation.check_epsilon(epsilon))


def batch_norm_grad(dy, x, gamma, mean, variance, epsilon, out=None):
    # Only the gradient of an activation depends on beta: any vector will do.
    return batch_norm_activation_grad(dy, x, gamma, gamma, mean, variance, epsilon, None, out)


def batch_norm_activation_pool(x, gamma, beta, epsilon, activation, pool_size):
    checks.check_images(x)
    gamma, beta = checks.check_vectors(x, gamma=gamma, beta=beta)
    window = validation.make_pool_window(x.shape[2:], pool_size, None, 0)
    epsilon, activation = checks.check_scalars(epsilon, activation, x.dtype)
    return normalization_pool.batch_norm_activation_pool(
        x, gamma, beta, epsilon, activation, window
    )


def batch_norm_activation_pool_grad(
    dy, x, index, gamma, beta, mean, variance, epsilon, activation, pool_size, out=None
):
    checks.check_compatible(dy=dy, x=x)
    window = _check_pool_grad(dy, x.shape, pool_size, None, 0)
    if not isinstance(index, tuple) or len(index) != 2:
        raise TypeError("index must be what batch_norm_activation_pool returned")
    argmax_taps, x_at_max = index
    argmax_taps = checks.check_argmax_taps(argmax_taps, dy, window)
    checks.check_same_shape(dy=dy, index=x_at_max)
    vectors = checks.check_vectors(x, gamma=gamma, beta=beta, mean=mean, variance=variance)
    gamma, beta, mean, variance = vectors
    epsilon, activation = checks.check_scalars(epsilon, activation, x.dtype)
    out = validation.check_out(out, [x.shape[1:2]] * 2, vectors)
    return normalization_pool.batch_norm_activation_pool_grad(
        dy, x, (argmax_taps, x_at_max), gamma, beta, mean, variance, epsilon, activation,
        window, out,
    )  # fmt: skip


def dense(x, w, b=None, scale=None, activation=None):
    checks.check_rows(x, "x")
    w = checks.check_weights(w, x.shape[1], x.dtype)
    scale, b = checks.check_scale_and_bias(scale, b, w.shape[1], x.dtype)
    activation = activation_argument(activation, x.dtype)
    w = rounded(w) if x.is_bfloat16 else w
    return _dense(x, w, b, scale, activation)


def dense_grad(dy, x, w, need_dx=True, out=None):
    checks.check_compatible(dy=dy, x=x)
    checks.check_rows(x, "x")
    w = checks.check_weights(w, x.shape[1], x.dtype)
    validation.check_shape(dy, "dy", (x.shape[0], w.shape[1]))
    need_dx = check_bool(need_dx, "need_dx")
    out = validation.check_out(out, (w.shape, w.shape[1:]), (w,))
    w = rounded(w) if x.is_bfloat16 and need_dx else w
    return _dense_grad(dy, x, w, need_dx, out)


def flatten(x):
    checks.check_images(x)
    return layout.flatten(x)


def flatten_grad(dy, image_shape):
    image_shape = validation.check_chw_shape(image_shape)
    validation.check_shape(dy, "dy", (dy.shape[0], math.prod(image_shape)))
    return layout.unflatten(dy, image_shape)
