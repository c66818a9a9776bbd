"""Max and average pooling and their gradients, a plane at a time."""

import numpy as np
from numba import prange

from kernels import validation
from kernels.numba_backend.polyphase import inside
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    gather_strided,
    logical_not,
    masked_store,
    splat,
    splat_like,
    where,
)
from kernels.numba_backend.simd.windows import clip


@parallel
def _max_pool(x, y, index, size, stride, start):
    """Neighbouring windows in the lanes; what is no pixel is the lowest number."""
    N, C, H, W = x.shape
    OH, OW = y.shape[2:]
    pixels, to, at = x.reshape(-1), y.reshape(-1), index.reshape(-1)
    lanes, lowest = VECTOR_BYTES // x.itemsize, splat(x.dtype.type(-np.inf))
    for line in prange(N * C * OH):
        plane, i = line // OH, line % OH
        top, bottom = clip(i * stride[0] - start[0], size[0], H)
        for j in range(0, OW, lanes):
            largest, place = lowest, splat_like(np.int32(-OW * stride[1]), lowest)
            for p in range(top, bottom):
                for q in range(size[1]):
                    left = j * stride[1] - start[1] + q
                    low, high = 0, min(OW - j, lanes)
                    if left < 0 or left + (high - 1) * stride[1] >= W:
                        low, high = inside(left, stride[1], W, high)
                    row = (plane * H + p) * W
                    pixel = gather_strided(pixels, row + left, stride[1], low, high, lowest)
                    # NaN is not larger than anything, but must come out.
                    larger = logical_not(pixel <= largest) & (largest == largest)
                    largest = where(larger, pixel, largest)
                    here = splat_like(np.int32(p * W + q - start[1]), lowest)
                    place = where(larger, here, place)
            masked_store(to, line * OW + j, largest, OW - j)
            masked_store(at, line * OW + j, place, OW - j)
        for j in range(OW):
            # Where all pixels are -inf, none was larger: the first, which may lie behind padding.
            first = max(j * stride[1] - start[1], 0)
            at[line * OW + j] = max(at[line * OW + j] + j * stride[1], top * W + first)


@parallel
def _max_pool_grad(dy, index, dx):
    """dy and index (planes, OH * OW), dx (planes, H * W)."""
    for plane in prange(len(dx)):
        image, sent, to = dx[plane], dy[plane], index[plane]
        image[:] = 0
        for p in range(sent.size):
            image[to[p]] += sent[p]


@parallel
def _avg_pool(x, y, size, stride, start):
    N, C, H, W = x.shape
    OH, OW = y.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image = x[n, c]
        for i in range(OH):
            top, bottom = clip(i * stride[0] - start[0], size[0], H)
            for j in range(OW):
                left, right = clip(j * stride[1] - start[1], size[1], W)
                total = 0.0
                for p in range(top, bottom):
                    for q in range(left, right):
                        total += image[p, q]
                y[n, c, i, j] = total / ((bottom - top) * (right - left))


@parallel
def _avg_pool_grad(dy, dx, size, stride, start):
    N, C, H, W = dx.shape
    OH, OW = dy.shape[2:]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image = dx[n, c]
        image[:] = 0
        for i in range(OH):
            top, bottom = clip(i * stride[0] - start[0], size[0], H)
            for j in range(OW):
                left, right = clip(j * stride[1] - start[1], size[1], W)
                share = dy[n, c, i, j] / ((bottom - top) * (right - left))
                for p in range(top, bottom):
                    for q in range(left, right):
                        image[p, q] += share


def max_pool(x, pool_size, stride=None, padding=0):
    x = validation.check_images(x, "x")
    window = validation.make_pool_window(x.shape[2:], pool_size, stride, padding)
    y = np.empty((*x.shape[:2], *window.output), x.dtype)
    index = np.empty(y.shape, np.int32)
    launch(_max_pool, x, y, index, window.size, window.stride, window.start)
    return y, index


def max_pool_grad(dy, index, x_shape, pool_size, stride=None, padding=0):
    dy, index, (N, C, H, W) = validation.check_max_pool_grad(
        dy, index, x_shape, pool_size, stride, padding
    )
    dx = np.empty((N * C, H * W), dy.dtype)
    places = dy.shape[2] * dy.shape[3]
    _max_pool_grad(dy.reshape(N * C, places), index.reshape(N * C, places), dx)
    return dx.reshape(N, C, H, W)


def avg_pool(x, pool_size, stride=None, padding=0):
    x = validation.check_images(x, "x")
    window = validation.make_pool_window(x.shape[2:], pool_size, stride, padding)
    y = np.empty((*x.shape[:2], *window.output), x.dtype)
    _avg_pool(x, y, window.size, window.stride, window.start)
    return y


def avg_pool_grad(dy, x_shape, pool_size, stride=None, padding=0):
    N, C, H, W = validation.check_image_shape(x_shape, "x_shape")
    window = validation.make_pool_window((H, W), pool_size, stride, padding)
    dy = validation.check_output_grad(dy, N, C, window)
    dx = np.empty((N, C, H, W), dy.dtype)
    _avg_pool_grad(dy, dx, window.size, window.stride, window.start)
    return dx
