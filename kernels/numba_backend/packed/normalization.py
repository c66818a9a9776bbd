"""Batch normalization on the packed layout, fused with the activation and pooling that follow it.

Activations are large and a normalization does little arithmetic with each: its time goes into
reading and writing them. So the activation, and a max pooling if one follows, run in the same
sweep over memory, and the arrays between them are never written. The kernels take the
activation as `simd.activations.activation_argument` returns it.

Most kernels see x as (B, planes, S, L): B blocks of L images and S pixels. Those that pool see it
as (B * planes, H, W, L). A plane holds one channel, or two as pairs of bfloat16 numbers; the
functions of `simd.pixels` read and write both. A name that ends in ``_v`` is a pixel that holds in
each lane the number of its channel.

References
----------
Ioffe, Szegedy: Batch normalization (2015).
Chan, Golub, LeVeque: Algorithms for computing the sample variance (1983).
"""

import math
from functools import lru_cache

import numba
import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.packed.pooling import index_dtype, index_shape
from kernels.numba_backend.packed.row_normalization import batch_norm_rows, batch_norm_rows_grad
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.activations import activate, activate_grad
from kernels.numba_backend.simd.pixels import (
    add_channel_sums,
    channels_per_plane,
    load_lane_mask,
    load_pixel,
    round_to_pixel,
    splat_channels,
    splat_pixel,
    store_pixel,
)
from kernels.numba_backend.simd.tiled_matmul import CHUNK_VECTORS
from kernels.numba_backend.simd.vectors import load_like, splat_like, store, where
from kernels.numba_backend.simd.windows import is_new_max

# The blocks of a channel are summed by one task or, where channels are few, by several. Their
# number does not depend on the number of threads, so no bit of a result does.
MIN_TASKS = 32


@lru_cache(maxsize=64)
def _valid_lanes(B: int, N: int, L: int, dtype: np.dtype) -> np.ndarray:
    """Return, for each lane of B blocks, 1 if it holds one of N images and 0 if it is padding."""
    return (np.arange(B * L) < N).astype(dtype)


@inlined
def _add_pixels(x, start, count, stride, is_valid, sums, channel):
    """Add the valid lanes of ``count`` pixels to the sums of their channels."""
    acc0 = splat_pixel(x, 0.0)
    acc1 = acc0  # a single accumulator would wait four cycles for each addition
    for p in range(0, count - 1, 2):
        acc0 += load_pixel(x, start + p * stride)
        acc1 += load_pixel(x, start + (p + 1) * stride)
    if count % 2:
        acc0 += load_pixel(x, start + (count - 1) * stride)
    add_channel_sums(x, where(is_valid, acc0 + acc1, splat_pixel(x, 0.0)), sums, channel)


@inlined
def _add_deviations(x, start, count, stride, is_valid, mean_v, sums, squares, channel):
    """Add x - mean and its square, of the valid lanes of ``count`` pixels, to two sums."""
    zero = splat_pixel(x, 0.0)
    acc0, acc1, square0, square1 = zero, zero, zero, zero
    for p in range(0, count - 1, 2):
        deviation = load_pixel(x, start + p * stride) - mean_v
        acc0 += deviation
        square0 += deviation * deviation
        deviation = load_pixel(x, start + (p + 1) * stride) - mean_v
        acc1 += deviation
        square1 += deviation * deviation
    if count % 2:
        deviation = load_pixel(x, start + (count - 1) * stride) - mean_v
        acc0 += deviation
        square0 += deviation * deviation
    add_channel_sums(x, where(is_valid, acc0 + acc1, zero), sums, channel)
    add_channel_sums(x, where(is_valid, square0 + square1, zero), squares, channel)


@inlined
def _add_blocks(x, plane, first, stop, N, valid_lanes, means, sums, squares, channel):
    """Add sums over the blocks from ``first`` to before ``stop`` of a plane of x.

    They are the sums of x - mean and of its square, or of x alone where ``means`` is None. Their
    place, and that of the means, is ``channel``.
    """
    _, planes, S, L = x.shape
    x_flat = x.reshape(-1)
    # In rows (S = 1) a channel has one vector in each block. The blocks without padding lanes,
    # from ``first`` to before ``full_stop``, are then summed as one run.
    full_stop = min(stop, N // L) if S == 1 else first
    runs = stop - full_stop + (full_stop > first)
    for run in range(runs):
        b = full_stop + run - (full_stop > first)
        length, stride = S, L
        if b < full_stop:
            b, length, stride = first, full_stop - first, planes * L
        is_valid = load_lane_mask(x, valid_lanes, b * L)
        for s in range(0, length, CHUNK_VECTORS):
            start, count = (b * planes + plane) * S * L + s * stride, min(CHUNK_VECTORS, length - s)
            if means is None:
                _add_pixels(x_flat, start, count, stride, is_valid, sums, channel)
            else:
                mean_v = splat_channels(x, means, channel // channels_per_plane(x))
                _add_deviations(
                    x_flat, start, count, stride, is_valid, mean_v, sums, squares, channel
                )


@parallel
def _moments(x, N, valid_lanes, means, squared_deviations):
    """means and squared_deviations (parts, channels): the moments of each part of each channel.

    A squared deviation is the sum of (x - mean)**2. The mean is rounded, so the deviations do not
    sum to exactly 0. The residual is subtracted (corrected two-pass algorithm of Chan, Golub,
    LeVeque (1983)). Without the correction a constant channel of value 1000.1 would get a non-zero
    variance.
    """
    B, planes, S, L = x.shape
    parts, channels = means.shape
    per_plane = channels_per_plane(x)
    means_flat, squares_flat = means.reshape(-1), squared_deviations.reshape(-1)
    residuals = np.empty(parts * channels)
    for task in prange(parts * planes):
        part, plane = task // planes, task % planes
        first, stop = part * B // parts, (part + 1) * B // parts
        count = S * (min(stop * L, N) - first * L)
        channel = task * per_plane
        for c in range(channel, channel + per_plane):
            means_flat[c], squares_flat[c], residuals[c] = 0.0, 0.0, 0.0
        _add_blocks(x, plane, first, stop, N, valid_lanes, None, means_flat, squares_flat, channel)
        for c in range(channel, channel + per_plane):
            means_flat[c] = round_to_pixel(x, means_flat[c] / count)
        _add_blocks(
            x, plane, first, stop, N, valid_lanes, means_flat, residuals, squares_flat, channel
        )
        for c in range(channel, channel + per_plane):
            means_flat[c] += residuals[c] / count
            squares_flat[c] = max(squares_flat[c] - residuals[c] * residuals[c] / count, 0.0)


@serial
def _merge_moments(means, squared_deviations, B, N, S, L, mean, variance):
    """mean and variance (C,) = the moments of all parts together: Chan, Golub, LeVeque (1983)."""
    parts = len(means)
    for c in range(mean.size):
        merged_mean, squares = means[0, c], squared_deviations[0, c]
        count = S * min(B // parts * L, N)
        for part in range(1, parts):
            part_count = S * (min((part + 1) * B // parts * L, N) - part * B // parts * L)
            delta = means[part, c] - merged_mean
            count += part_count
            merged_mean += delta * part_count / count
            squares += (
                squared_deviations[part, c]
                + delta * delta * part_count * (count - part_count) / count
            )
        mean[c] = merged_mean
        variance[c] = squares / count


@serial
def _channel_scales(gamma, variance, epsilon):
    """Return gamma / sqrt(variance + epsilon)."""
    scale = np.empty_like(gamma)
    for c in range(gamma.size):
        scale[c] = gamma[c] / math.sqrt(variance[c] + epsilon)
    return scale


@parallel
def _normalize(x, valid_lanes, mean, scale, beta, activation, y):
    """y = the activation of (x - mean) * scale + beta.

    Padding lanes become 0: otherwise each normalization in turn would multiply what they hold.
    """
    B, planes, S, L = x.shape
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    for task in prange(B * planes):
        b, plane = task // planes, task % planes
        mean_v, scale_v = splat_channels(x, mean, plane), splat_channels(x, scale, plane)
        beta_v, zero = splat_channels(x, beta, plane), splat_pixel(x, 0.0)
        is_valid = load_lane_mask(x, valid_lanes, b * L)
        for p in range(task * S * L, (task + 1) * S * L, L):
            value = activate((load_pixel(x_flat, p) - mean_v) * scale_v + beta_v, activation)
            store_pixel(y_flat, p, where(is_valid, value, zero))


@parallel
def _normalize_and_pool(x, size, valid_lanes, mean, scale, beta, activation, y, index, x_at_max):
    """y = the maximum of `_normalize` in each window, index its tap, x_at_max the x it came from.

    x is (B * planes, H, W, L), and y and x_at_max are (B * planes, OH, OW, L). The last dimension
    of index has a lane for each channel of a plane.
    """
    all_planes, H, W, L = x.shape
    OH, OW, index_lanes = index.shape[1:]
    planes, (KH, KW) = all_planes * L // valid_lanes.size, size
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    index_flat, x_at_max_flat = index.reshape(-1), x_at_max.reshape(-1)
    tap_type = index.dtype.type
    for task in prange(all_planes):
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
def _gradient_sums(dy, x, mean, scale, beta, activation, sums):
    """sums (2, parts, channels) = the sums of g and of g * (x - mean) over parts of each channel.

    g is the gradient with respect to the input of the activation, which is computed again from x.
    Padding lanes of dy hold 0.
    """
    B, planes, S, L = x.shape
    x_flat, dy_flat = x.reshape(-1), dy.reshape(-1)
    parts = sums.shape[1]
    sums_g, sums_g_deviation = sums[0].reshape(-1), sums[1].reshape(-1)
    per_plane = channels_per_plane(x)
    for task in prange(parts * planes):
        part, plane = task // planes, task % planes
        mean_v, scale_v = splat_channels(x, mean, plane), splat_channels(x, scale, plane)
        beta_v, zero = splat_channels(x, beta, plane), splat_pixel(x, 0.0)
        channel = task * per_plane
        for c in range(channel, channel + per_plane):
            sums_g[c], sums_g_deviation[c] = 0.0, 0.0
        first, stop = part * B // parts, (part + 1) * B // parts
        # In rows (S = 1) a channel has one vector in each block: all blocks are one run.
        runs, length, stride = (1, stop - first, planes * L) if S == 1 else (stop - first, S, L)
        for b in range(first, first + runs):
            for s in range(0, length, CHUNK_VECTORS):
                acc_g, acc_g_deviation = zero, zero
                start = (b * planes + plane) * S * L + s * stride
                chunk_stop = start + min(CHUNK_VECTORS, length - s) * stride
                for p in range(start, chunk_stop, stride):
                    deviation = load_pixel(x_flat, p) - mean_v
                    value = deviation * scale_v + beta_v
                    g = activate_grad(load_pixel(dy_flat, p), value, activation)
                    acc_g += g
                    acc_g_deviation += g * deviation
                add_channel_sums(x, acc_g, sums_g, channel)
                add_channel_sums(x, acc_g_deviation, sums_g_deviation, channel)


@serial
def _parameter_gradients(sums, count, gamma, variance, epsilon, dgamma, dbeta):
    """Write dgamma and dbeta (C,); return the coefficients (C,) of dx that `_input_gradient` uses.

    dx = scale * g - constant - linear_coef * (x - mean): the mean and the variance of the batch
    depend on x, too.
    """
    constant, linear_coef = np.empty_like(gamma), np.empty_like(gamma)
    for c in range(gamma.size):
        sum_g, sum_g_deviation = 0.0, 0.0
        for part in range(sums.shape[1]):
            sum_g += sums[0, part, c]
            sum_g_deviation += sums[1, part, c]
        inverse_std = 1 / math.sqrt(np.float64(variance[c]) + epsilon)
        dgamma[c] = sum_g_deviation * inverse_std
        dbeta[c] = sum_g
        constant[c] = gamma[c] * inverse_std * sum_g / count
        linear_coef[c] = gamma[c] * inverse_std**3 * sum_g_deviation / count
    return constant, linear_coef


@parallel
def _input_gradient(dy, x, valid_lanes, mean, scale, beta, activation, constant, linear_coef, dx):
    """dx = scale * g - constant - linear_coef * (x - mean), with g as in `_gradient_sums`.

    Padding lanes of dx become 0.
    """
    B, planes, S, L = x.shape
    x_flat, dy_flat, dx_flat = x.reshape(-1), dy.reshape(-1), dx.reshape(-1)
    for task in prange(B * planes):
        b, plane = task // planes, task % planes
        mean_v, scale_v = splat_channels(x, mean, plane), splat_channels(x, scale, plane)
        beta_v, zero = splat_channels(x, beta, plane), splat_pixel(x, 0.0)
        constant_v = splat_channels(x, constant, plane)
        linear_coef_v = splat_channels(x, linear_coef, plane)
        is_valid = load_lane_mask(x, valid_lanes, b * L)
        for p in range(task * S * L, (task + 1) * S * L, L):
            deviation = load_pixel(x_flat, p) - mean_v
            g = activate_grad(load_pixel(dy_flat, p), deviation * scale_v + beta_v, activation)
            value = scale_v * g - constant_v - linear_coef_v * deviation
            store_pixel(dx_flat, p, where(is_valid, value, zero))


@parallel
def _input_gradient_through_pool(
    dy, index, size, x, valid_lanes, mean, scale, beta, activation, constant, linear_coef, dx
):
    """`_input_gradient` where dy (B * planes, OH, OW, L) is the gradient of a max pooling's output.

    Only the pixel at tap ``index`` of each window receives its dy. x and dx are (B * planes, H, W,
    L).
    """
    all_planes, H, W, L = x.shape
    OH, OW, index_lanes = index.shape[1:]
    planes, (KH, KW) = all_planes * L // valid_lanes.size, size
    x_flat, dy_flat = x.reshape(-1), dy.reshape(-1)
    index_flat, dx_flat = index.reshape(-1), dx.reshape(-1)
    tap_type = index.dtype.type
    for task in prange(all_planes):
        b, plane = task // planes, task % planes
        mean_v, scale_v = splat_channels(x, mean, plane), splat_channels(x, scale, plane)
        beta_v, zero = splat_channels(x, beta, plane), splat_pixel(x, 0.0)
        constant_v = splat_channels(x, constant, plane)
        linear_coef_v = splat_channels(x, linear_coef, plane)
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
                        value = scale_v * g - constant_v - linear_coef_v * deviation
                        store_pixel(dx_flat, p, where(is_valid, value, zero))
        # Pixels to the right of the last window and below it have g = 0.
        for i in range(H):
            for j in range(OW * KW if i < OH * KH else 0, W):
                p = ((task * H + i) * W + j) * L
                deviation = load_pixel(x_flat, p) - mean_v
                value = zero - constant_v - linear_coef_v * deviation
                store_pixel(dx_flat, p, where(is_valid, value, zero))


@serial
def _batch_norm_activation(
    x, N, valid_lanes, gamma, beta, epsilon, activation, moments, mean, variance, y
):
    _moments(x, N, valid_lanes, moments[0], moments[1])
    _merge_moments(moments[0], moments[1], len(x), N, x.shape[2], x.shape[3], mean, variance)
    scale = _channel_scales(gamma, variance, epsilon)
    _normalize(x, valid_lanes, mean, scale, beta, activation, y)


@serial
def _batch_norm_inference(x, valid_lanes, gamma, beta, mean, variance, epsilon, y):
    scale, identity = _channel_scales(gamma, variance, epsilon), gamma.dtype.type(1)
    _normalize(x, valid_lanes, mean, scale, beta, identity, y)


@serial
def _batch_norm_activation_grad(
    dy, x, N, valid_lanes, gamma, beta, mean, variance, epsilon, activation, sums,
    dgamma, dbeta, dx,
):  # fmt: skip
    scale = _channel_scales(gamma, variance, epsilon)
    _gradient_sums(dy, x, mean, scale, beta, activation, sums)
    count = N * x.shape[2]
    constant, linear_coef = _parameter_gradients(
        sums, count, gamma, variance, epsilon, dgamma, dbeta
    )
    _input_gradient(dy, x, valid_lanes, mean, scale, beta, activation, constant, linear_coef, dx)


@serial
def _batch_norm_activation_pool(
    x, x_images, N, valid_lanes, size, gamma, beta, epsilon, activation, moments,
    mean, variance, y, index, x_at_max,
):  # fmt: skip
    """x (B, C, S, L) and x_images (B * C, H, W, L) are the same memory."""
    _moments(x, N, valid_lanes, moments[0], moments[1])
    _merge_moments(moments[0], moments[1], len(x), N, x.shape[2], x.shape[3], mean, variance)
    scale = _channel_scales(gamma, variance, epsilon)
    _normalize_and_pool(
        x_images, size, valid_lanes, mean, scale, beta, activation, y, index, x_at_max
    )


@serial
def _batch_norm_activation_pool_grad(
    dy, dy_images, x_at_max, index, size, x_images, N, valid_lanes, gamma, beta, mean, variance,
    epsilon, activation, sums, dgamma, dbeta, dx,
):  # fmt: skip
    """dy (B, C, S, L) and dy_images (B * C, OH, OW, L) are the same memory.

    Only the pixels that were a maximum have a gradient before the normalization, so the sums run
    over them alone: dy and x_at_max.
    """
    scale = _channel_scales(gamma, variance, epsilon)
    _gradient_sums(dy, x_at_max, mean, scale, beta, activation, sums)
    count = N * x_images.shape[1] * x_images.shape[2]
    constant, linear_coef = _parameter_gradients(
        sums, count, gamma, variance, epsilon, dgamma, dbeta
    )
    _input_gradient_through_pool(
        dy_images, index, size, x_images, valid_lanes, mean, scale, beta, activation,
        constant, linear_coef, dx,
    )  # fmt: skip


def _allocate_sums(x: PackedBatch) -> np.ndarray:
    """Return an array (2, parts, channels) for two sums over each part of each channel.

    The padding channel counts as one.
    """
    B, planes = x.data.shape[:2]
    channels = 2 * planes if x.is_bfloat16 else planes
    return np.empty((2, min(B, -(-MIN_TASKS // planes)), channels))


def _valid_lanes_of(x: PackedBatch) -> np.ndarray:
    return _valid_lanes(len(x.data), x.shape[0], x.lanes, x.dtype)


def sums_by_lanes(x: PackedBatch) -> bool:
    """Return whether x are rows that `row_normalization` takes."""
    return len(x.shape) == 2 and x.shape[1] >= x.lanes and not x.is_bfloat16


def batch_norm_activation(x: PackedBatch, gamma, beta, epsilon, activation):
    """Return y, mean and variance."""
    mean, variance, y = np.empty_like(gamma), np.empty_like(gamma), x.like()
    if sums_by_lanes(x):
        launch(
            batch_norm_rows, x.data, x.shape[0], gamma, beta, x.dtype.type(epsilon), activation,
            mean, variance, y.data, numba.get_num_threads(),
        )  # fmt: skip
        return y, mean, variance
    launch(
        _batch_norm_activation, x.planes, x.shape[0], _valid_lanes_of(x), gamma, beta,
        x.dtype.type(epsilon), activation, _allocate_sums(x), mean, variance, y.planes,
    )  # fmt: skip
    return y, mean, variance


def batch_norm_inference(x: PackedBatch, gamma, beta, mean, variance, epsilon) -> PackedBatch:
    y = x.like()
    launch(
        _batch_norm_inference, x.planes, _valid_lanes_of(x), gamma, beta, mean, variance,
        x.dtype.type(epsilon), y.planes,
    )  # fmt: skip
    return y


def batch_norm_activation_grad(
    dy: PackedBatch, x: PackedBatch, gamma, beta, mean, variance, epsilon, activation, out=None
):
    """Return dx, dgamma and dbeta."""
    dgamma, dbeta = allocate_outputs(out, (gamma.shape, gamma.shape), x.dtype)
    dx = x.like()
    if sums_by_lanes(x):
        launch(
            batch_norm_rows_grad, dy.data, x.data, x.shape[0], gamma, beta, mean, variance,
            x.dtype.type(epsilon), activation, dgamma, dbeta, dx.data, numba.get_num_threads(),
        )  # fmt: skip
        return dx, dgamma, dbeta
    launch(
        _batch_norm_activation_grad, dy.planes, x.planes, x.shape[0], _valid_lanes_of(x), gamma,
        beta, mean, variance, x.dtype.type(epsilon), activation, _allocate_sums(x),
        dgamma, dbeta, dx.planes,
    )  # fmt: skip
    return dx, dgamma, dbeta


def batch_norm_activation_pool(x: PackedBatch, gamma, beta, epsilon, activation, window: Window):
    """Return y, (argmax_taps, x_at_max), mean and variance."""
    mean, variance = np.empty_like(gamma), np.empty_like(gamma)
    y = x.like(x.shape[1], *window.output)
    argmax_taps, x_at_max = empty(index_shape(y), index_dtype(window)), y.like()
    launch(
        _batch_norm_activation_pool, x.planes, x.images, x.shape[0], _valid_lanes_of(x),
        window.size, gamma, beta, x.dtype.type(epsilon), activation, _allocate_sums(x), mean,
        variance, y.images, argmax_taps, x_at_max.data,
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
    launch(
        _batch_norm_activation_pool_grad, dy.planes, dy.images, x_at_max.planes, argmax_taps,
        window.size, x.images, x.shape[0], _valid_lanes_of(x), gamma, beta, mean, variance,
        x.dtype.type(epsilon), activation, _allocate_sums(x), dgamma, dbeta, dx.images,
    )  # fmt: skip
    return dx, dgamma, dbeta
