"""Max and average pooling and their gradients on plain arrays."""

import numpy as np
from numba import prange

from kernels import validation
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    gather_strided,
    masked_store,
    splat,
    splat_like,
    where,
)
from kernels.numba_backend.simd.windows import clip, is_new_max, valid_range
from kernels.numba_backend.small_work import run_by_size

POOLING_COST = 4  # times as long a pixel as a simple sweep takes


@parallel
def _max_pool(x, y, index, size, stride, pad_begin):
    """Pool neighboring windows in the lanes of a vector; padding counts as -inf."""
    N, C, H, W = x.shape
    OH, OW = y.shape[2:]
    x_flat, y_flat, index_flat = x.reshape(-1), y.reshape(-1), index.reshape(-1)
    L, lowest = VECTOR_BYTES // x.itemsize, splat(x.dtype.type(-np.inf))
    for row in prange(N * C * OH):
        plane, i = row // OH, row % OH
        top, bottom = clip(i * stride[0] - pad_begin[0], size[0], H)
        for j in range(0, OW, L):
            largest, position = lowest, splat_like(np.int32(-OW * stride[1]), lowest)
            for p in range(top, bottom):
                for q in range(size[1]):
                    left = j * stride[1] - pad_begin[1] + q
                    low, high = 0, min(OW - j, L)
                    if left < 0 or left + (high - 1) * stride[1] >= W:
                        low, high = valid_range(left, stride[1], W, high)
                    x0 = (plane * H + p) * W + left
                    pixel = gather_strided(x_flat, x0, stride[1], low, high, lowest)
                    is_larger = is_new_max(pixel, largest)
                    largest = where(is_larger, pixel, largest)
                    tap_position = splat_like(np.int32(p * W + q - pad_begin[1]), lowest)
                    position = where(is_larger, tap_position, position)
            masked_store(y_flat, row * OW + j, largest, OW - j)
            masked_store(index_flat, row * OW + j, position, OW - j)
        for j in range(OW):
            # If all pixels are -inf, no pixel was a new maximum: use the first pixel of the window
            # that is not padding.
            first = top * W + max(j * stride[1] - pad_begin[1], 0)
            index_flat[row * OW + j] = max(index_flat[row * OW + j] + j * stride[1], first)


@parallel
def _max_pool_grad(dy, index, dx):
    """Add dy (planes, OH * OW) to the pixels of dx (planes, H * W) at index."""
    for plane in prange(len(dx)):
        image, dy_plane, index_plane = dx[plane], dy[plane], index[plane]
        image[:] = 0
        for p in range(dy_plane.size):
            image[index_plane[p]] += dy_plane[p]


@parallel
def _avg_pool(x, y, size, stride, pad_begin):
    """Sum the rows of a window first, then its columns: the former is a loop over vectors."""
    N, C, H, W = x.shape
    OH, OW = y.shape[2:]
    for row in prange(N * C * OH):
        plane, i = row // OH, row % OH
        image, means = x[plane // C, plane % C], y[plane // C, plane % C, i]
        top, bottom = clip(i * stride[0] - pad_begin[0], size[0], H)
        column_sums = np.zeros(W)
        for p in range(top, bottom):
            for q in range(W):
                column_sums[q] += image[p, q]
        for j in range(OW):
            left, right = clip(j * stride[1] - pad_begin[1], size[1], W)
            total = 0.0
            for q in range(left, right):
                total += column_sums[q]
            means[j] = total / ((bottom - top) * (right - left))


@parallel
def _avg_pool_grad(dy, dx, size, stride, pad_begin):
    """Spread each dy over the columns of its window first, then over the rows."""
    N, C, H, W = dx.shape
    OH, OW = dy.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, shares, share = dx[n, c], np.empty(W, dx.dtype), np.empty(OW, dx.dtype)
        widths = np.empty(OW, dx.dtype)  # of the windows, without padding
        for j in range(OW):
            left, right = clip(j * stride[1] - pad_begin[1], size[1], W)
            widths[j] = right - left
        image[:] = 0
        for i in range(OH):
            top, bottom = clip(i * stride[0] - pad_begin[0], size[0], H)
            for j in range(OW):
                share[j] = dy[n, c, i, j] / (widths[j] * (bottom - top))
            shares[:] = 0
            for q in range(size[1]):
                left = q - pad_begin[1]
                first, last = valid_range(left, stride[1], W, OW)
                for j in range(first, last):
                    shares[left + j * stride[1]] += share[j]
            for p in range(top, bottom):
                for q in range(W):
                    image[p, q] += shares[q]


def max_pool(x, pool_size, stride=None, padding=0):
    x = validation.check_images(x, "x")
    window = validation.make_pool_window(x.shape[2:], pool_size, stride, padding)
    y = np.empty((*x.shape[:2], *window.output), x.dtype)
    index = np.empty(y.shape, np.int32)
    run_by_size(
        POOLING_COST * x.size, launch, _max_pool, x, y, index,
        window.size, window.stride, window.pad_begin,
    )  # fmt: skip
    return y, index


def max_pool_grad(dy, index, x_shape, pool_size, stride=None, padding=0):
    dy, index, (N, C, H, W) = validation.check_max_pool_grad(
        dy, index, x_shape, pool_size, stride, padding
    )
    dx = np.empty((N * C, H * W), dy.dtype)
    windows = dy.shape[2] * dy.shape[3]
    run_by_size(
        dx.size, _max_pool_grad, dy.reshape(N * C, windows), index.reshape(N * C, windows), dx
    )
    return dx.reshape(N, C, H, W)


def avg_pool(x, pool_size, stride=None, padding=0):
    x = validation.check_images(x, "x")
    window = validation.make_pool_window(x.shape[2:], pool_size, stride, padding)
    y = np.empty((*x.shape[:2], *window.output), x.dtype)
    run_by_size(
        POOLING_COST * x.size, _avg_pool, x, y, window.size, window.stride, window.pad_begin
    )
    return y


def avg_pool_grad(dy, x_shape, pool_size, stride=None, padding=0):
    N, C, H, W = validation.check_nchw_shape(x_shape, "x_shape")
    window = validation.make_pool_window((H, W), pool_size, stride, padding)
    dy = validation.check_output_grad(dy, N, C, window)
    dx = np.empty((N, C, H, W), dy.dtype)
    run_by_size(
        POOLING_COST * dx.size, _avg_pool_grad, dy, dx,
        window.size, window.stride, window.pad_begin,
    )  # fmt: skip
    return dx
