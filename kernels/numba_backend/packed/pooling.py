"""Max and average pooling on the packed layout.

A window's pixels are whole vectors, one image in each lane, so any pool size, stride and padding
runs the same vector code without masks. A plane is one channel of a block of images, or two as
pairs of bfloat16 numbers: x is (planes, H, W, L) and y (planes, OH, OW, L).
"""

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.pixels import load_pixel, splat_pixel, store_pixel
from kernels.numba_backend.simd.tiled_matmul import CHUNK_VECTORS
from kernels.numba_backend.simd.vectors import constant_like, load_like, splat_like, store, where
from kernels.numba_backend.simd.windows import clip, is_new_max


@parallel
def _max_pool(x, y, index, size, stride, pad_begin):
    """y = the maximum of each window, and index = its tap, counted row by row in the window."""
    planes, H, W, L = x.shape
    OH, OW, index_lanes = index.shape[1:]
    x_flat, y_flat, index_flat = x.reshape(-1), y.reshape(-1), index.reshape(-1)
    tap_type = index_flat.dtype.type
    for row in prange(planes * OH):
        p, i = row // OH, row % OH
        window_top = i * stride[0] - pad_begin[0]
        top, bottom = clip(window_top, size[0], H)
        for j in range(OW):
            window_left = j * stride[1] - pad_begin[1]
            left, right = clip(window_left, size[1], W)
            first_pixel = (p * H + top) * W + left
            first_tap = (top - window_top) * size[1] + left - window_left
            largest = load_pixel(x_flat, first_pixel * L)
            argmax_tap = splat_like(tap_type(first_tap), largest)
            for r in range(bottom - top):
                for q in range(right - left):
                    pixel = load_pixel(x_flat, (first_pixel + r * W + q) * L)
                    is_larger = is_new_max(pixel, largest)
                    largest = where(is_larger, pixel, largest)
                    tap = splat_like(tap_type(first_tap + r * size[1] + q), largest)
                    argmax_tap = where(is_larger, tap, argmax_tap)
            store_pixel(y_flat, (row * OW + j) * L, largest)
            store(index_flat, (row * OW + j) * index_lanes, argmax_tap)


@parallel
def _max_pool_grad(dy, index, dx, size, stride, pad_begin):
    """dx = dy, added onto the pixel at the tap ``index`` of each window."""
    planes, H, W, L = dx.shape
    OH, OW, index_lanes = index.shape[1:]
    dx_flat, dy_flat, index_flat = dx.reshape(-1), dy.reshape(-1), index.reshape(-1)
    tap_type = index_flat.dtype.type
    zero = splat_pixel(dx, 0.0)
    for p in prange(planes):
        for pixel in range(p * H * W, (p + 1) * H * W):
            store_pixel(dx_flat, pixel * L, zero)
        for i in range(OH):
            window_top = i * stride[0] - pad_begin[0]
            top, bottom = clip(window_top, size[0], H)
            for j in range(OW):
                window_left = j * stride[1] - pad_begin[1]
                left, right = clip(window_left, size[1], W)
                gradient = load_pixel(dy_flat, ((p * OH + i) * OW + j) * L)
                argmax_tap = load_like(index_flat, ((p * OH + i) * OW + j) * index_lanes, gradient)
                for r in range(top, bottom):
                    for q in range(left, right):
                        offset = ((p * H + r) * W + q) * L
                        tap = tap_type((r - window_top) * size[1] + q - window_left)
                        is_argmax = argmax_tap == splat_like(tap, gradient)
                        share = where(is_argmax, gradient, zero)
                        store_pixel(dx_flat, offset, load_pixel(dx_flat, offset) + share)


@parallel
def _avg_pool(x, y, size, stride, pad_begin):
    """y = the mean of the pixels of each window; padding does not count.

    Rows are summed first, and then the sums of CHUNK_VECTORS rows, so that no sum is too long for
    its precision.
    """
    planes, H, W, L = x.shape
    OH, OW = y.shape[1:3]
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    for p in prange(planes):
        for i in range(OH):
            top, bottom = clip(i * stride[0] - pad_begin[0], size[0], H)
            for j in range(OW):
                left, right = clip(j * stride[1] - pad_begin[1], size[1], W)
                window_sum = splat_pixel(x, 0.0)
                for chunk in range(top, bottom, CHUNK_VECTORS):
                    chunk_sum = splat_pixel(x, 0.0)
                    for r in range(chunk, min(chunk + CHUNK_VECTORS, bottom)):
                        row_sum = splat_pixel(x, 0.0)
                        for q in range(left, right):
                            row_sum += load_pixel(x_flat, ((p * H + r) * W + q) * L)
                        chunk_sum += row_sum
                    window_sum += chunk_sum
                count = constant_like(np.float64((bottom - top) * (right - left)), window_sum)
                store_pixel(y_flat, ((p * OH + i) * OW + j) * L, window_sum / count)


@parallel
def _avg_pool_grad(dy, dx, size, stride, pad_begin, is_partition):
    """dx = an equal share of dy, added onto each pixel of each window.

    ``is_partition`` says that each pixel lies in one window: then nothing is added, and dx is
    written only once.
    """
    planes, H, W, L = dx.shape
    OH, OW = dy.shape[1:3]
    dx_flat, dy_flat = dx.reshape(-1), dy.reshape(-1)
    zero = splat_pixel(dx, 0.0)
    for p in prange(planes):
        for pixel in range(p * H * W, p * H * W if is_partition else (p + 1) * H * W):
            store_pixel(dx_flat, pixel * L, zero)
        for i in range(OH):
            top, bottom = clip(i * stride[0] - pad_begin[0], size[0], H)
            for j in range(OW):
                left, right = clip(j * stride[1] - pad_begin[1], size[1], W)
                gradient = load_pixel(dy_flat, ((p * OH + i) * OW + j) * L)
                count = constant_like(np.float64((bottom - top) * (right - left)), gradient)
                share = gradient / count
                for r in range(top, bottom):
                    for q in range(left, right):
                        offset = ((p * H + r) * W + q) * L
                        if is_partition:
                            store_pixel(dx_flat, offset, share)
                        else:
                            store_pixel(dx_flat, offset, load_pixel(dx_flat, offset) + share)


def index_dtype(window: Window) -> np.dtype:
    """Return the dtype of a window's taps: bytes, except for windows of more than 256 pixels."""
    is_small = window.size[0] * window.size[1] <= 256
    return np.dtype(np.uint8 if is_small else np.int32)


def index_shape(y: PackedBatch) -> tuple[int, ...]:
    """Return the shape of the index of a pooling with output y: (planes, OH, OW, lanes).

    It has a lane for each channel of a plane.
    """
    *shape, L = y.images.shape
    return *shape, 2 * L if y.is_bfloat16 else L


def _window_args(window: Window) -> tuple:
    """Return the size, the stride and ``pad_begin`` of a window, as the kernels above take them."""
    return window.size, window.stride, window.pad_begin


def max_pool(x: PackedBatch, window: Window) -> tuple[PackedBatch, np.ndarray]:
    """Return y, and the index, of `index_shape`: the tap of each maximum within its window."""
    y = x.like(x.shape[1], *window.output)
    index = empty(index_shape(y), index_dtype(window))
    launch(_max_pool, x.images, y.images, index, *_window_args(window))
    return y, index


def max_pool_grad(dy: PackedBatch, index: np.ndarray, window: Window) -> PackedBatch:
    dx = dy.like(dy.shape[1], *window.image)
    launch(_max_pool_grad, dy.images, index, dx.images, *_window_args(window))
    return dx


def avg_pool(x: PackedBatch, window: Window) -> PackedBatch:
    y = x.like(x.shape[1], *window.output)
    launch(_avg_pool, x.images, y.images, *_window_args(window))
    return y


def avg_pool_grad(dy: PackedBatch, window: Window) -> PackedBatch:
    dx = dy.like(dy.shape[1], *window.image)
    (OH, OW), (KH, KW) = window.output, window.size
    covered = OH * KH, OW * KW
    is_partition = window.stride == window.size and covered == window.image == window.padded
    launch(_avg_pool_grad, dy.images, dx.images, *_window_args(window), is_partition)
    return dx
