"""Max and average pooling with the images in the lanes."""

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.pooling import clip
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import inlined, parallel
from kernels.numba_backend.simd.tiled_matmul import CHUNK
from kernels.numba_backend.simd.vectors import (
    load,
    load_like,
    logical_not,
    splat,
    splat_like,
    store,
    where,
)


@inlined
def is_new_max(value, largest):
    """Return where a value is larger: of equal ones the first counts, and NaN before all."""
    return logical_not(value <= largest) & (largest == largest)


@parallel
def _max_pool(x, y, taps, size, stride, start):
    """taps holds the number of the largest pixel in its window, counted row by row."""
    planes, H, W, L = x.shape
    OH, OW = y.shape[1:3]
    x_flat, y_flat, taps_flat = x.reshape(-1), y.reshape(-1), taps.reshape(-1)
    number = taps_flat.dtype.type
    for line in prange(planes * OH):
        p, i = line // OH, line % OH
        row = i * stride[0] - start[0]
        top, bottom = clip(row, size[0], H)
        for j in range(OW):
            column = j * stride[1] - start[1]
            left, right = clip(column, size[1], W)
            at = (p * H + top) * W + left
            tap = (top - row) * size[1] + left - column
            largest = load(x_flat, at * L)
            taken = splat_like(number(tap), largest)
            for r in range(bottom - top):
                for q in range(right - left):
                    pixel = load(x_flat, (at + r * W + q) * L)
                    larger = is_new_max(pixel, largest)
                    largest = where(larger, pixel, largest)
                    here = splat_like(number(tap + r * size[1] + q), largest)
                    taken = where(larger, here, taken)
            store(y_flat, (line * OW + j) * L, largest)
            store(taps_flat, (line * OW + j) * L, taken)


@parallel
def _max_pool_grad(dy, taps, dx, size, stride, start):
    planes, H, W, L = dx.shape
    OH, OW = dy.shape[1:3]
    dx_flat, dy_flat, taps_flat = dx.reshape(-1), dy.reshape(-1), taps.reshape(-1)
    number = taps_flat.dtype.type
    nothing = splat(dx.dtype.type(0))
    for p in prange(planes):
        for at in range(p * H * W, (p + 1) * H * W):
            store(dx_flat, at * L, nothing)
        for i in range(OH):
            row = i * stride[0] - start[0]
            top, bottom = clip(row, size[0], H)
            for j in range(OW):
                column = j * stride[1] - start[1]
                left, right = clip(column, size[1], W)
                sent = load(dy_flat, ((p * OH + i) * OW + j) * L)
                taken = load_like(taps_flat, ((p * OH + i) * OW + j) * L, sent)
                for r in range(top, bottom):
                    for q in range(left, right):
                        at = ((p * H + r) * W + q) * L
                        here = splat_like(number((r - row) * size[1] + q - column), sent)
                        share = where(taken == here, sent, nothing)
                        store(dx_flat, at, load(dx_flat, at) + share)


@parallel
def _avg_pool(x, y, size, stride, start):
    planes, H, W, L = x.shape
    OH, OW = y.shape[1:3]
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    real = x.dtype.type
    for p in prange(planes):
        for i in range(OH):
            top, bottom = clip(i * stride[0] - start[0], size[0], H)
            for j in range(OW):
                left, right = clip(j * stride[1] - start[1], size[1], W)
                mean = splat(real(0))
                for first in range(top, bottom, CHUNK):
                    lines = splat(real(0))
                    for r in range(first, min(first + CHUNK, bottom)):
                        line = splat(real(0))  # added up first, that no sum is too long
                        for q in range(left, right):
                            line += load(x_flat, ((p * H + r) * W + q) * L)
                        lines += line
                    mean += lines
                count = splat(real((bottom - top) * (right - left)))
                store(y_flat, ((p * OH + i) * OW + j) * L, mean / count)


@parallel
def _avg_pool_grad(dy, dx, size, stride, start):
    planes, H, W, L = dx.shape
    OH, OW = dy.shape[1:3]
    dx_flat, dy_flat = dx.reshape(-1), dy.reshape(-1)
    real = dx.dtype.type
    nothing = splat(real(0))
    for p in prange(planes):
        for at in range(p * H * W, (p + 1) * H * W):
            store(dx_flat, at * L, nothing)
        for i in range(OH):
            top, bottom = clip(i * stride[0] - start[0], size[0], H)
            for j in range(OW):
                left, right = clip(j * stride[1] - start[1], size[1], W)
                count = splat(real((bottom - top) * (right - left)))
                share = load(dy_flat, ((p * OH + i) * OW + j) * L) / count
                for r in range(top, bottom):
                    for q in range(left, right):
                        at = ((p * H + r) * W + q) * L
                        store(dx_flat, at, load(dx_flat, at) + share)


def taps_of(y: PackedBatch, window: Window) -> np.ndarray:
    """Return an array for the taps of y: a byte each, but for giant windows."""
    small = window.size[0] * window.size[1] <= 256
    return empty(y.images.shape, np.dtype(np.uint8 if small else np.int32))


def max_pool(x: PackedBatch, window: Window) -> tuple[PackedBatch, np.ndarray]:
    y = x.like(x.shape[1], *window.output)
    taps = taps_of(y, window)
    launch(_max_pool, x.images, y.images, taps, window.size, window.stride, window.pad_begin)
    return y, taps


def max_pool_grad(dy: PackedBatch, taps: np.ndarray, window: Window) -> PackedBatch:
    dx = dy.like(dy.shape[1], *window.image)
    launch(_max_pool_grad, dy.images, taps, dx.images, window.size, window.stride, window.pad_begin)
    return dx


def avg_pool(x: PackedBatch, window: Window) -> PackedBatch:
    y = x.like(x.shape[1], *window.output)
    launch(_avg_pool, x.images, y.images, window.size, window.stride, window.pad_begin)
    return y


def avg_pool_grad(dy: PackedBatch, window: Window) -> PackedBatch:
    dx = dy.like(dy.shape[1], *window.image)
    launch(_avg_pool_grad, dy.images, dx.images, window.size, window.stride, window.pad_begin)
    return dx
