"""Batch normalization on the packed layout, fused with the activation that follows it.

Activations are large and a normalization does little arithmetic with each: its time goes into
reading and writing them. So the activation runs in the same sweep over memory. The mean, the
variance and the result of a channel are computed in a row, while its numbers are in the
second-level cache; the gradients as well. Where channels are too few to keep all threads busy, the
sums run over parts of the batch, and a second sweep follows.

The kernels see x as (B, planes, S, L): B blocks of L images and S pixels. A plane holds one
channel, or two as pairs of bfloat16 numbers; the functions of `simd.pixels` read and write both. A
name that ends in ``_v`` is a pixel that holds in each lane the number of its channel. The
activation is what `simd.activations.activation_argument` returns.

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

from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.packed.row_normalization import batch_norm_rows, batch_norm_rows_grad
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs
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
from kernels.numba_backend.simd.vectors import where

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


@inlined
def _plane_moments(x, N, valid_lanes, part, parts, plane, means, squared_deviations, residuals):
    """Write the moments of a part of the channels of a plane: see `_moments`."""
    B, planes, S, L = x.shape
    first, stop = part * B // parts, (part + 1) * B // parts
    count = S * (min(stop * L, N) - first * L)
    per_plane = channels_per_plane(x)
    channel = (part * planes + plane) * per_plane
    for c in range(channel, channel + per_plane):
        means[c], squared_deviations[c], residuals[c] = 0.0, 0.0, 0.0
    _add_blocks(x, plane, first, stop, N, valid_lanes, None, means, squared_deviations, channel)
    for c in range(channel, channel + per_plane):
        means[c] = round_to_pixel(x, means[c] / count)
    _add_blocks(
        x, plane, first, stop, N, valid_lanes, means, residuals, squared_deviations, channel
    )
    for c in range(channel, channel + per_plane):
        means[c] += residuals[c] / count
        squares = squared_deviations[c] - residuals[c] * residuals[c] / count
        squared_deviations[c] = max(squares, 0.0)


@parallel
def _moments(x, N, valid_lanes, means, squared_deviations, residuals):
    """means and squared_deviations (parts, channels): the moments of each part of each channel.

    A squared deviation is the sum of (x - mean)**2. The mean is rounded, so the deviations do not
    sum to exactly 0. The residual is subtracted (corrected two-pass algorithm of Chan, Golub,
    LeVeque (1983)). Without the correction a constant channel of value 1000.1 would get a non-zero
    variance.
    """
    planes, parts = x.shape[1], means.shape[0]
    means_flat, squares_flat = means.reshape(-1), squared_deviations.reshape(-1)
    residuals_flat = residuals.reshape(-1)
    for task in prange(parts * planes):
        _plane_moments(
            x, N, valid_lanes, task // planes, parts, task % planes,
            means_flat, squares_flat, residuals_flat,
        )  # fmt: skip


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


@inlined
def set_scale(c, gamma, variance, epsilon, scale):
    """Write the scale of channel c: gamma / sqrt(variance + epsilon)."""
    scale[c] = gamma[c] / math.sqrt(variance[c] + epsilon)


@inlined
def moments_of_plane(x, N, valid_lanes, plane, gamma, epsilon, moments, scale, mean, variance):
    """Write the moments and the scales of the channels of a plane, each computed as one part."""
    S, per_plane = x.shape[2], channels_per_plane(x)
    means, squares = moments[0].reshape(-1), moments[1].reshape(-1)
    _plane_moments(x, N, valid_lanes, 0, 1, plane, means, squares, moments[2].reshape(-1))
    for c in range(plane * per_plane, min((plane + 1) * per_plane, gamma.size)):
        mean[c], variance[c] = means[c], squares[c] / (N * S)
        set_scale(c, gamma, variance, epsilon, scale)


@serial
def moments_of_parts(x, N, valid_lanes, gamma, epsilon, moments, scale, mean, variance):
    """Write the moments and the scales of all channels."""
    _moments(x, N, valid_lanes, moments[0], moments[1], moments[2])
    _merge_moments(moments[0], moments[1], len(x), N, x.shape[2], x.shape[3], mean, variance)
    for c in range(gamma.size):
        set_scale(c, gamma, variance, epsilon, scale)


@inlined
def _normalize_plane(x, b, plane, valid_lanes, mean, scale, beta, activation, y):
    _, planes, S, L = x.shape
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    mean_v, scale_v = splat_channels(x, mean, plane), splat_channels(x, scale, plane)
    beta_v, zero = splat_channels(x, beta, plane), splat_pixel(x, 0.0)
    is_valid = load_lane_mask(x, valid_lanes, b * L)
    start = (b * planes + plane) * S * L
    for p in range(start, start + S * L, L):
        value = activate((load_pixel(x_flat, p) - mean_v) * scale_v + beta_v, activation)
        store_pixel(y_flat, p, where(is_valid, value, zero))


@parallel
def _normalize(x, valid_lanes, mean, scale, beta, activation, y):
    """y = the activation of (x - mean) * scale + beta.

    Padding lanes become 0: otherwise each normalization in turn would multiply what they hold.
    """
    B, planes, _, _ = x.shape
    for task in prange(B * planes):
        b, plane = task // planes, task % planes
        _normalize_plane(x, b, plane, valid_lanes, mean, scale, beta, activation, y)


@inlined
def _plane_gradient_sums(
    dy, x, part, parts, plane, mean, scale, beta, activation, sums_g, sums_g_deviation
):
    """Write the sums of a part of the channels of a plane: see `gradient_sums`."""
    B, planes, S, L = x.shape
    x_flat, dy_flat = x.reshape(-1), dy.reshape(-1)
    mean_v, scale_v = splat_channels(x, mean, plane), splat_channels(x, scale, plane)
    beta_v, zero = splat_channels(x, beta, plane), splat_pixel(x, 0.0)
    per_plane = channels_per_plane(x)
    channel = (part * planes + plane) * per_plane
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


@parallel
def gradient_sums(dy, x, mean, scale, beta, activation, sums):
    """sums (2, parts, channels) = the sums of g and of g * (x - mean) over parts of each channel.

    g is the gradient with respect to the input of the activation, which is computed again from x.
    Padding lanes of dy hold 0.
    """
    planes, parts = x.shape[1], sums.shape[1]
    sums_g, sums_g_deviation = sums[0].reshape(-1), sums[1].reshape(-1)
    for task in prange(parts * planes):
        _plane_gradient_sums(
            dy, x, task // planes, parts, task % planes, mean, scale, beta, activation,
            sums_g, sums_g_deviation,
        )  # fmt: skip


@inlined
def set_coefficients(
    c, sum_g, sum_g_deviation, count, gamma, variance, epsilon, dgamma, dbeta, coefficients
):
    """Write the gradients of channel c, and what `_input_gradient` multiplies by."""
    inverse_std = 1 / math.sqrt(np.float64(variance[c]) + epsilon)
    dgamma[c] = sum_g_deviation * inverse_std
    dbeta[c] = sum_g
    coefficients[0, c] = gamma[c] * inverse_std * sum_g / count
    coefficients[1, c] = gamma[c] * inverse_std**3 * sum_g_deviation / count


@serial
def parameter_gradients(sums, count, gamma, variance, epsilon, dgamma, dbeta, coefficients):
    """Write dgamma and dbeta (C,), and the coefficients (2, C) of dx: constant and slope.

    dx = scale * g - constant - slope * (x - mean): the mean and the variance of the batch depend on
    x, too.
    """
    for c in range(gamma.size):
        sum_g, sum_g_deviation = 0.0, 0.0
        for part in range(sums.shape[1]):
            sum_g += sums[0, part, c]
            sum_g_deviation += sums[1, part, c]
        set_coefficients(
            c, sum_g, sum_g_deviation, count, gamma, variance, epsilon, dgamma, dbeta, coefficients
        )


@inlined
def _plane_input_gradient(
    dy, x, b, plane, valid_lanes, mean, scale, beta, activation, coefficients, dx
):
    _, planes, S, L = x.shape
    x_flat, dy_flat, dx_flat = x.reshape(-1), dy.reshape(-1), dx.reshape(-1)
    mean_v, scale_v = splat_channels(x, mean, plane), splat_channels(x, scale, plane)
    beta_v, zero = splat_channels(x, beta, plane), splat_pixel(x, 0.0)
    constant_v = splat_channels(x, coefficients[0], plane)
    slope_v = splat_channels(x, coefficients[1], plane)
    is_valid = load_lane_mask(x, valid_lanes, b * L)
    start = (b * planes + plane) * S * L
    for p in range(start, start + S * L, L):
        deviation = load_pixel(x_flat, p) - mean_v
        g = activate_grad(load_pixel(dy_flat, p), deviation * scale_v + beta_v, activation)
        value = scale_v * g - constant_v - slope_v * deviation
        store_pixel(dx_flat, p, where(is_valid, value, zero))


@parallel
def _input_gradient(dy, x, valid_lanes, mean, scale, beta, activation, coefficients, dx):
    """dx = scale * g - constant - slope * (x - mean), with g as in `gradient_sums`.

    Padding lanes of dx become 0.
    """
    B, planes, _, _ = x.shape
    for task in prange(B * planes):
        _plane_input_gradient(
            dy, x, task // planes, task % planes, valid_lanes, mean, scale, beta, activation,
            coefficients, dx,
        )  # fmt: skip


@serial
def _batch_norm_inference(x, valid_lanes, gamma, beta, mean, variance, epsilon, scale, y):
    for c in range(gamma.size):
        set_scale(c, gamma, variance, epsilon, scale)
    _normalize(x, valid_lanes, mean, scale, beta, gamma.dtype.type(1), y)


@serial
def _batch_norm_in_parts(
    x, N, valid_lanes, gamma, beta, epsilon, activation, moments, scale, mean, variance, y
):
    moments_of_parts(x, N, valid_lanes, gamma, epsilon, moments, scale, mean, variance)
    _normalize(x, valid_lanes, mean, scale, beta, activation, y)


@parallel
def _batch_norm_by_planes(
    x, N, valid_lanes, gamma, beta, epsilon, activation, moments, scale, mean, variance, y
):
    B, planes, _, _ = x.shape
    for plane in prange(planes):
        moments_of_plane(x, N, valid_lanes, plane, gamma, epsilon, moments, scale, mean, variance)
        for b in range(B):
            _normalize_plane(x, b, plane, valid_lanes, mean, scale, beta, activation, y)


@serial
def _batch_norm_grad_in_parts(
    dy, x, N, valid_lanes, gamma, beta, mean, variance, epsilon, activation, sums, scale,
    coefficients, dgamma, dbeta, dx,
):  # fmt: skip
    for c in range(gamma.size):
        set_scale(c, gamma, variance, epsilon, scale)
    gradient_sums(dy, x, mean, scale, beta, activation, sums)
    count = N * x.shape[2]
    parameter_gradients(sums, count, gamma, variance, epsilon, dgamma, dbeta, coefficients)
    _input_gradient(dy, x, valid_lanes, mean, scale, beta, activation, coefficients, dx)


@parallel
def _batch_norm_grad_by_planes(
    dy, x, N, valid_lanes, gamma, beta, mean, variance, epsilon, activation, sums, scale,
    coefficients, dgamma, dbeta, dx,
):  # fmt: skip
    B, planes, S, _ = x.shape
    sums_g, sums_g_deviation = sums[0].reshape(-1), sums[1].reshape(-1)
    per_plane = channels_per_plane(x)
    for plane in prange(planes):
        first, stop = plane * per_plane, min((plane + 1) * per_plane, gamma.size)
        for c in range(first, stop):
            set_scale(c, gamma, variance, epsilon, scale)
        _plane_gradient_sums(
            dy, x, 0, 1, plane, mean, scale, beta, activation, sums_g, sums_g_deviation
        )
        for c in range(first, stop):
            set_coefficients(
                c, sums_g[c], sums_g_deviation[c], N * S, gamma, variance, epsilon, dgamma, dbeta,
                coefficients,
            )  # fmt: skip
        for b in range(B):
            _plane_input_gradient(
                dy, x, b, plane, valid_lanes, mean, scale, beta, activation, coefficients, dx
            )


def allocate_sums(x: PackedBatch, kinds: int) -> tuple[np.ndarray, bool]:
    """Return an array (kinds, parts, channels) for sums over each part of each channel.

    The padding channel counts as one. The second result is whether each channel is one part.
    """
    B, planes = x.data.shape[:2]
    channels = 2 * planes if x.is_bfloat16 else planes
    parts = min(B, -(-MIN_TASKS // planes))
    return np.empty((kinds, parts, channels)), parts == 1


def valid_lanes_of(x: PackedBatch) -> np.ndarray:
    """Return, for each lane of all blocks, 1 if it holds an image and 0 if it is padding."""
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
    moments, by_planes = allocate_sums(x, 3)
    launch(
        _batch_norm_by_planes if by_planes else _batch_norm_in_parts,
        x.planes, x.shape[0], valid_lanes_of(x), gamma, beta, x.dtype.type(epsilon), activation,
        moments, np.empty_like(gamma), mean, variance, y.planes,
    )  # fmt: skip
    return y, mean, variance


def batch_norm_inference(x: PackedBatch, gamma, beta, mean, variance, epsilon) -> PackedBatch:
    y = x.like()
    launch(
        _batch_norm_inference, x.planes, valid_lanes_of(x), gamma, beta, mean, variance,
        x.dtype.type(epsilon), np.empty_like(gamma), y.planes,
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
    sums, by_planes = allocate_sums(x, 2)
    launch(
        _batch_norm_grad_by_planes if by_planes else _batch_norm_grad_in_parts,
        dy.planes, x.planes, x.shape[0], valid_lanes_of(x), gamma, beta, mean, variance,
        x.dtype.type(epsilon), activation, sums, np.empty_like(gamma),
        np.empty((2, *gamma.shape), gamma.dtype), dgamma, dbeta, dx.planes,
    )  # fmt: skip
    return dx, dgamma, dbeta
