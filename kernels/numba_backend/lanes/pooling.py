"""Max and average pooling with the images in the lanes."""

from functools import lru_cache

import numpy as np
from numba import njit, prange

from kernels.geometry import Window
from kernels.numba_backend.jit import OPTIONS, parallel
from kernels.numba_backend.lanes.layout import Lanes
from kernels.numba_backend.lanes.memory import empty
from kernels.numba_backend.lanes.tile import max_grad_tile, max_tile
from kernels.numba_backend.pooling import clip


@lru_cache
def _max_kernels(LANES: int):
    """Compile the forward and the backward kernel for this many lanes.

    taps holds the number of the largest pixel in its window, counted row by row.
    """

    @njit(parallel=True, **OPTIONS)
    def forward(x, y, taps, size, stride, start):
        planes, H, W, _ = x.shape
        OH, OW = y.shape[1:3]
        x_flat, y_flat, taps_flat = x.reshape(-1), y.reshape(-1), taps.reshape(-1)
        for line in prange(planes * OH):
            p, i = line // OH, line % OH
            row = i * stride[0] - start[0]
            top, bottom = clip(row, size[0], H)
            for j in range(OW):
                column = j * stride[1] - start[1]
                left, right = clip(column, size[1], W)
                max_tile(  # type: ignore[call-arg]
                    x_flat, ((p * H + top) * W + left) * LANES, W * LANES,
                    bottom - top, right - left,
                    (top - row) * size[1] + left - column, size[1],
                    y_flat, (line * OW + j) * LANES, taps_flat, LANES,
                )  # fmt: skip

    @njit(parallel=True, **OPTIONS)
    def backward(dy, taps, dx, size, stride, start):
        planes, H, W, _ = dx.shape
        OH, OW = dy.shape[1:3]
        x_flat, y_flat, taps_flat = dx.reshape(-1), dy.reshape(-1), taps.reshape(-1)
        for p in prange(planes):
            dx[p] = 0
            for i in range(OH):
                row = i * stride[0] - start[0]
                top, bottom = clip(row, size[0], H)
                for j in range(OW):
                    column = j * stride[1] - start[1]
                    left, right = clip(column, size[1], W)
                    max_grad_tile(  # type: ignore[call-arg]
                        x_flat, ((p * H + top) * W + left) * LANES, W * LANES,
                        bottom - top, right - left,
                        (top - row) * size[1] + left - column, size[1],
                        y_flat, ((p * OH + i) * OW + j) * LANES, taps_flat, LANES,
                    )  # fmt: skip

    return forward, backward


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
    forward, _ = _max_kernels(x.lanes)
    forward(
        _planes(x.data), _planes(y.data), _planes(taps), window.size, window.stride, window.start
    )
    return y, taps


def max_pool_grad(dy: Lanes, taps: np.ndarray, window: Window) -> Lanes:
    dx = dy.like(dy.shape[1], *window.image)
    _, backward = _max_kernels(dy.lanes)
    backward(
        _planes(dy.data), _planes(taps), _planes(dx.data), window.size, window.stride, window.start
    )
    return dx


def avg_pool(x: Lanes, window: Window) -> Lanes:
    y = x.like(x.shape[1], *window.output)
    _avg_pool(_planes(x.data), _planes(y.data), window.size, window.stride, window.start)
    return y


def avg_pool_grad(dy: Lanes, window: Window) -> Lanes:
    dx = dy.like(dy.shape[1], *window.image)
    _avg_pool_grad(_planes(dy.data), _planes(dx.data), window.size, window.stride, window.start)
    return dx
