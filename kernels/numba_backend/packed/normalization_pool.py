"""Batch normalization on the packed layout, fused with the activation and max pooling after it.

The array between the activation and the pooling, four times the size of the result for windows of
2x2 pixels, is never written. The numbers that are needed are computed again in the backward pass.

The kernels see x as in `normalization`, and as images (B * planes, H, W, L) where they pool.
"""

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.packed.normalization import (
    allocate_sums,
    gradient_sums,
    moments_of_parts,
    moments_of_plane,
    parameter_gradients,
    set_scale,
    valid_lanes_of,
)
from kernels.numba_backend.packed.pooling import index_dtype, index_shape
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.activations import activate, activate_grad
from kernels.numba_backend.simd.pixels import (
    load_lane_mask,
    load_pixel,
    splat_channels,
    splat_pixel,
    store_pixel,
)
from kernels.numba_backend.simd.vectors import load_like, splat_like, store, where
from kernels.numba_backend.simd.windows import is_new_max


@inlined
def _normalize_and_pool_plane(
    x, task, size, valid_lanes, mean, scale, beta, activation, y, index, x_at_max
):
    """Compute plane ``task`` of `_normalize_and_pool`."""
    all_planes, H, W, L = x.shape
    OH, OW, index_lanes = index.shape[1:]
    planes, (KH, KW) = all_planes * L // valid_lanes.size, size
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    index_flat, x_at_max_flat = index.reshape(-1), x_at_max.reshape(-1)
    tap_type = index.dtype.type
    b, plane = task // planes, task % planes
    mean_v, scale_v = splat_channels(x, mean, plane), splat_channels(x, scale, plane)
    beta_v, zero = splat_channels(x, beta, plane), splat_pixel(x, 0.0)
    lowest = splat_pixel(x, -np.inf)
    is_valid = load_lane_mask(x, valid_lanes, b * L)
    for i in range(OH):
        for j in range(OW):
            first_pixel = (task * H + i * KH) * W + j * KW
            largest, x_largest = lowest, lowest
            argmax_tap = splat_like(tap_type(0), lowest)
            for r in range(KH):
                for q in range(KW):
                    pixel = load_pixel(x_flat, (first_pixel + r * W + q) * L)
                    value = activate((pixel - mean_v) * scale_v + beta_v, activation)
                    is_larger = is_new_max(value, largest)
                    largest = where(is_larger, value, largest)
                    x_largest = where(is_larger, pixel, x_largest)
                    tap = splat_like(tap_type(r * KW + q), lowest)
                    argmax_tap = where(is_larger, tap, argmax_tap)
            out = (task * OH + i) * OW + j
            store_pixel(y_flat, out * L, where(is_valid, largest, zero))
            store(index_flat, out * index_lanes, argmax_tap)
            store_pixel(x_at_max_flat, out * L, where(is_valid, x_largest, zero))


@parallel
def _normalize_and_pool(x, size, valid_lanes, mean, scale, beta, activation, y, index, x_at_max):
    """y = the maximum in each window of the activation of (x - mean) * scale + beta.

    index is the tap of the maximum, and x_at_max the x that it came from. x is (B * planes, H, W,
    L), and y and x_at_max are (B * planes, OH, OW, L). The last dimension of index has a lane for
    each channel of a plane. Padding lanes become 0.
    """
    for task in prange(len(x)):
        _normalize_and_pool_plane(
            x, task, size, valid_lanes, mean, scale, beta, activation, y, index, x_at_max
        )


@inlined
def _input_gradient_of_plane(
    dy, index, size, x, task, valid_lanes, mean, scale, beta, activation, coefficients, dx
):
    """Compute plane ``task`` of `_input_gradient`."""
    all_planes, H, W, L = x.shape
    OH, OW, index_lanes = index.shape[1:]
    planes, (KH, KW) = all_planes * L // valid_lanes.size, size
    x_flat, dy_flat = x.reshape(-1), dy.reshape(-1)
    index_flat, dx_flat = index.reshape(-1), dx.reshape(-1)
    tap_type = index.dtype.type
    b, plane = task // planes, task % planes
    mean_v, scale_v = splat_channels(x, mean, plane), splat_channels(x, scale, plane)
    beta_v, zero = splat_channels(x, beta, plane), splat_pixel(x, 0.0)
    constant_v = splat_channels(x, coefficients[0], plane)
    slope_v = splat_channels(x, coefficients[1], plane)
    is_valid = load_lane_mask(x, valid_lanes, b * L)
    for i in range(OH):
        for j in range(OW):
            out = (task * OH + i) * OW + j
            dy_at_max = load_pixel(dy_flat, out * L)
            argmax_tap = load_like(index_flat, out * index_lanes, dy_at_max)
            for r in range(KH):
                for q in range(KW):
                    p = ((task * H + i * KH + r) * W + j * KW + q) * L
                    deviation = load_pixel(x_flat, p) - mean_v
                    g = activate_grad(dy_at_max, deviation * scale_v + beta_v, activation)
                    is_argmax = argmax_tap == splat_like(tap_type(r * KW + q), dy_at_max)
                    g = where(is_argmax, g, zero)
                    value = scale_v * g - constant_v - slope_v * deviation
                    store_pixel(dx_flat, p, where(is_valid, value, zero))
    # Pixels to the right of the last window and below it have g = 0.
    for i in range(H):
        for j in range(OW * KW if i < OH * KH else 0, W):
            p = ((task * H + i) * W + j) * L
            deviation = load_pixel(x_flat, p) - mean_v
            value = zero - constant_v - slope_v * deviation
            store_pixel(dx_flat, p, where(is_valid, value, zero))


@parallel
def _input_gradient(
    dy, index, size, x, valid_lanes, mean, scale, beta, activation, coefficients, dx
):
    """dx = that of `normalization`, where dy (B * planes, OH, OW, L) is the gradient of the maxima.

    Only the pixel at tap ``index`` of each window receives its dy. x and dx are (B * planes, H, W,
    L). Padding lanes of dx become 0.
    """
    for task in prange(len(x)):
        _input_gradient_of_plane(
            dy, index, size, x, task, valid_lanes, mean, scale, beta, activation, coefficients, dx
        )


@serial
def _batch_norm_in_parts(
    x, x_images, N, valid_lanes, size, gamma, beta, epsilon, activation, moments, scale,
    mean, variance, y, index, x_at_max,
):  # fmt: skip
    """x (B, planes, S, L) and x_images (B * planes, H, W, L) are the same memory."""
    moments_of_parts(x, N, valid_lanes, gamma, epsilon, moments, scale, mean, variance)
    _normalize_and_pool(
        x_images, size, valid_lanes, mean, scale, beta, activation, y, index, x_at_max
    )


@parallel
def _batch_norm_by_planes(
    x, x_images, N, valid_lanes, size, gamma, beta, epsilon, activation, moments, scale,
    mean, variance, y, index, x_at_max,
):  # fmt: skip
    """x (B, planes, S, L) and x_images (B * planes, H, W, L) are the same memory."""
    B, planes, _, _ = x.shape
    for plane in prange(planes):
        moments_of_plane(x, N, valid_lanes, plane, gamma, epsilon, moments, scale, mean, variance)
        for b in range(B):
            _normalize_and_pool_plane(
                x_images, b * planes + plane, size, valid_lanes, mean, scale, beta, activation,
                y, index, x_at_max,
            )  # fmt: skip


@serial
def _batch_norm_grad(
    dy, dy_images, x_at_max, index, size, x_images, N, valid_lanes, gamma, beta, mean, variance,
    epsilon, activation, sums, scale, coefficients, dgamma, dbeta, dx,
):  # fmt: skip
    """dy (B, planes, S, L) and dy_images (B * planes, OH, OW, L) are the same memory.

    Only the pixels that were a maximum have a gradient before the normalization, so the sums run
    over them alone: dy and x_at_max.
    """
    for c in range(gamma.size):
        set_scale(c, gamma, variance, epsilon, scale)
    gradient_sums(dy, x_at_max, mean, scale, beta, activation, sums)
    count = N * x_images.shape[1] * x_images.shape[2]
    parameter_gradients(sums, count, gamma, variance, epsilon, dgamma, dbeta, coefficients)
    _input_gradient(
        dy_images, index, size, x_images, valid_lanes, mean, scale, beta, activation,
        coefficients, dx,
    )  # fmt: skip


def batch_norm_activation_pool(x: PackedBatch, gamma, beta, epsilon, activation, window: Window):
    """Return y, (argmax_taps, x_at_max), mean and variance."""
    mean, variance = np.empty_like(gamma), np.empty_like(gamma)
    y = x.like(x.shape[1], *window.output)
    argmax_taps, x_at_max = empty(index_shape(y), index_dtype(window)), y.like()
    moments, by_planes = allocate_sums(x, 3)
    launch(
        _batch_norm_by_planes if by_planes else _batch_norm_in_parts,
        x.planes, x.images, x.shape[0], valid_lanes_of(x), window.size, gamma, beta,
        x.dtype.type(epsilon), activation, moments, np.empty_like(gamma), mean, variance,
        y.images, argmax_taps, x_at_max.data,
    )  # fmt: skip
    return y, (argmax_taps, x_at_max), mean, variance


def batch_norm_activation_pool_grad(
    dy: PackedBatch,
    x: PackedBatch,
    index,
    gamma,
    beta,
    mean,
    variance,
    epsilon,
    activation,
    window: Window,
    out=None,
):
    """Return dx, dgamma and dbeta; index is (argmax_taps, x_at_max)."""
    dgamma, dbeta = allocate_outputs(out, (gamma.shape, gamma.shape), x.dtype)
    argmax_taps, x_at_max = index
    dx = x.like()
    sums, _ = allocate_sums(x, 2)
    launch(
        _batch_norm_grad, dy.planes, dy.images, x_at_max.planes, argmax_taps, window.size,
        x.images, x.shape[0], valid_lanes_of(x), gamma, beta, mean, variance,
        x.dtype.type(epsilon), activation, sums, np.empty_like(gamma),
        np.empty((2, *gamma.shape), gamma.dtype), dgamma, dbeta, dx.images,
    )  # fmt: skip
    return dx, dgamma, dbeta
