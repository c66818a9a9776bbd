"""Max and average pooling with the images in the lanes."""

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.jit import parallel
from kernels.numba_backend.lanes.layout import Lanes
from kernels.numba_backend.lanes.memory import empty
from kernels.numba_backend.pooling import clip, start


@parallel
def _max_pool(x, y, taps, size, stride, start):
    """taps holds the number of the largest pixel in its window, counted row by row."""
    planes, H, W, L = x.shape
    OH, OW = y.shape[1:3]
    for p in prange(planes):
        image = x[p]
        for i in range(OH):
            first_row = i * stride[0] - start[0]
            top, bottom = clip(first_row, size[0], H)
            for j in range(OW):
                first_column = j * stride[1] - start[1]
                left, right = clip(first_column, size[1], W)
                largest, tap = y[p, i, j], taps[p, i, j]
                first = (top - first_row) * size[1] + left - first_column
                for lane in range(L):
                    largest[lane] = image[top, left, lane]
                    tap[lane] = first
                for r in range(top, bottom):
                    for q in range(left, right):
                        number = (r - first_row) * size[1] + q - first_column
                        pixels = image[r, q]
                        for lane in range(L):
                            pixel, best = pixels[lane], largest[lane]
                            # NaN is not larger than anything, but must come out.
                            take = (pixel > best) | ((pixel != pixel) & (best == best))
                            largest[lane] = pixel if take else best
                            tap[lane] = number if take else tap[lane]


@parallel
def _max_pool_grad(dy, taps, dx, size, stride, start):
    planes, H, W, L = dx.shape
    OH, OW = dy.shape[1:3]
    for p in prange(planes):
        image = dx[p]
        image[:] = 0
        for i in range(OH):
            first_row = i * stride[0] - start[0]
            top, bottom = clip(first_row, size[0], H)
            for j in range(OW):
                first_column = j * stride[1] - start[1]
                left, right = clip(first_column, size[1], W)
                sent, tap = dy[p, i, j], taps[p, i, j]
                for r in range(top, bottom):
                    for q in range(left, right):
                        number = (r - first_row) * size[1] + q - first_column
                        pixels = image[r, q]
                        for lane in range(L):
                            pixels[lane] += sent[lane] if tap[lane] == number else 0


@parallel
def _avg_pool(x, y, size, stride, start):
    planes, H, W, L = x.shape
    OH, OW = y.shape[1:3]
    for p in prange(planes):
        image = x[p]
        for i in range(OH):
            top, bottom = clip(i * stride[0] - start[0], size[0], H)
            for j in range(OW):
                left, right = clip(j * stride[1] - start[1], size[1], W)
                mean = y[p, i, j]
                mean[:] = 0
                for r in range(top, bottom):
                    for q in range(left, right):
                        pixels = image[r, q]
                        for lane in range(L):
                            mean[lane] += pixels[lane]
                count = (bottom - top) * (right - left)
                for lane in range(L):
                    mean[lane] /= count


@parallel
def _avg_pool_grad(dy, dx, size, stride, start):
    planes, H, W, L = dx.shape
    OH, OW = dy.shape[1:3]
    for p in prange(planes):
        image = dx[p]
        image[:] = 0
        for i in range(OH):
            top, bottom = clip(i * stride[0] - start[0], size[0], H)
            for j in range(OW):
                left, right = clip(j * stride[1] - start[1], size[1], W)
                count = (bottom - top) * (right - left)
                sent = dy[p, i, j]
                for r in range(top, bottom):
                    for q in range(left, right):
                        pixels = image[r, q]
                        for lane in range(L):
                            pixels[lane] += sent[lane] / count


def _planes(data):
    return data.reshape(-1, *data.shape[2:])


def max_pool(x: Lanes, window: Window) -> tuple[Lanes, np.ndarray]:
    y = x.like(x.shape[1], *window.output)
    small = window.size[0] * window.size[1] <= 256
    taps = empty(y.data.shape, np.dtype(np.uint8 if small else np.int32))
    _max_pool(
        _planes(x.data), _planes(y.data), _planes(taps), window.size, window.stride, start(window)
    )
    return y, taps


def max_pool_grad(dy: Lanes, taps: np.ndarray, window: Window) -> Lanes:
    dx = dy.like(dy.shape[1], *window.image)
    _max_pool_grad(
        _planes(dy.data), _planes(taps), _planes(dx.data), window.size, window.stride, start(window)
    )
    return dx


def avg_pool(x: Lanes, window: Window) -> Lanes:
    y = x.like(x.shape[1], *window.output)
    _avg_pool(_planes(x.data), _planes(y.data), window.size, window.stride, start(window))
    return y


def avg_pool_grad(dy: Lanes, window: Window) -> Lanes:
    dx = dy.like(dy.shape[1], *window.image)
    _avg_pool_grad(_planes(dy.data), _planes(dx.data), window.size, window.stride, start(window))
    return dx
