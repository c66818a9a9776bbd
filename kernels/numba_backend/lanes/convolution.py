"""Correlation and its gradients with the images in the lanes."""

from functools import lru_cache

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.jit import parallel
from kernels.numba_backend.lanes.layout import Lanes
from kernels.numba_backend.lanes.memory import empty
from kernels.numba_backend.lanes.sums import (
    product_kernel,
    product_tile_shape,
    sum_kernel,
    sum_tile_shape,
)

# The weight gradient is one task a tile. Few tiles are cut into parts of the batch as well, so
# that all threads find work; how many does not depend on the threads, and so no bit does.
ENOUGH_TASKS = 16


@parallel
def _place(x, out, top, left, row_step, column_step):
    """Write x (planes, H, W, L) into zeros, its pixels row_step and column_step apart."""
    planes, H, W, L = x.shape
    _, height, width, _ = out.shape
    for p in prange(planes):
        to = out[p]
        to[:] = 0
        for i in range(H):
            y = top + i * row_step
            if 0 <= y < height:
                for j in range(W):
                    at = left + j * column_step
                    if 0 <= at < width:
                        for lane in range(L):
                            to[y, at, lane] = x[p, i, j, lane]


def _placed(x: Lanes, size, corner, step=(1, 1)) -> np.ndarray:
    """Return a copy of x on a ground of zeros of this size; each is made once."""
    key = (size, corner, step)
    if key not in x.padded:
        B, C, H, W, L = x.data.shape
        out = empty((B, C, *size, L), x.dtype)
        _place(x.data.reshape(-1, H, W, L), out.reshape(-1, *size, L), *corner, *step)
        x.padded[key] = out
    return x.padded[key]


def _padded(x: Lanes, window: Window) -> np.ndarray:
    (top, bottom), (left, right) = window.padding
    if top == bottom == left == right == 0:
        return x.data
    return _placed(x, window.padded, (top, left))


@lru_cache(maxsize=256)
def _forward_terms(window: Window, channels: int, lanes: int):
    """Return where each term's pixel and weight stand: one a channel and tap."""
    (KH, KW), (dh, dw), (height, width) = window.size, window.dilation, window.padded
    c, k, m = np.ogrid[:channels, :KH, :KW]
    x = ((c * height + k * dh) * width + m * dw) * lanes
    return x.astype(np.int64).ravel(), np.arange(channels * KH * KW)


@lru_cache(maxsize=256)
def _backward_terms(window: Window, channels: int, filters: int, lanes: int):
    """Return the same for the input gradient: a term a filter and tap, the taps reversed."""
    (KH, KW), (dh, dw) = window.size, window.dilation
    (eh, ew), (H, W) = window.extent, window.image
    f, k, m = np.ogrid[:filters, :KH, :KW]
    height, width = H + eh - 1, W + ew - 1
    x = ((f * height + (KH - 1 - k) * dh) * width + (KW - 1 - m) * dw) * lanes
    w = (f * channels * KH + k) * KW + m
    return x.astype(np.int64).ravel(), w.astype(np.int64).ravel()


def correlate(x: Lanes, w, b, window: Window, groups: int) -> Lanes:
    F, channels = w.shape[:2]
    (OH, OW), (height, width), L = window.output, window.padded, x.lanes
    y = x.like(F, OH, OW)
    x_terms, w_terms = _forward_terms(window, channels, L)
    rows, plane = F // groups, height * width * L
    kernel = sum_kernel(*sum_tile_shape(rows, OW), L)
    kernel(
        _padded(x, window).reshape(-1),
        (
            groups * channels * plane,
            channels * plane,
            window.stride[0] * width * L,
            window.stride[1] * L,
        ),
        x_terms,
        w.reshape(-1),
        (rows * w_terms.size, w_terms.size),
        w_terms,
        b,
        y.data.reshape(-1),
        (F * OH * OW * L, rows * OH * OW * L, OW * L, OH * OW * L, L),
        len(x.data),
        groups,
        OH,
        rows,
        OW,
    )
    return y


def input_gradient(dy: Lanes, w, window: Window, groups: int) -> Lanes:
    """Return dx: dy with zeros between its pixels, correlated with the reversed filters."""
    F, channels, KH, KW = w.shape
    (H, W), (eh, ew), L = window.image, window.extent, dy.lanes
    (top, _), (left, _) = window.padding
    height, width = H + eh - 1, W + ew - 1
    spread = _placed(dy, (height, width), (eh - 1 - top, ew - 1 - left), window.stride)
    dx = dy.like(groups * channels, H, W)
    filters = F // groups
    x_terms, w_terms = _backward_terms(window, channels, filters, L)
    plane = height * width * L
    kernel = sum_kernel(*sum_tile_shape(channels, W), L)
    kernel(
        spread.reshape(-1),
        (F * plane, filters * plane, width * L, L),
        x_terms,
        w.reshape(-1),
        (filters * channels * KH * KW, KH * KW),
        w_terms,
        np.zeros(groups * channels, dy.dtype),
        dx.data.reshape(-1),
        (groups * channels * H * W * L, channels * H * W * L, W * L, H * W * L, L),
        len(dy.data),
        groups,
        H,
        channels,
        W,
    )
    return dx


@lru_cache(maxsize=256)
def _lines(blocks: int, block: int, rows: int, row: int) -> np.ndarray:
    """Return where each row of pixels of each block of images begins."""
    return (np.arange(blocks)[:, None] * block + np.arange(rows) * row).ravel()


def weight_gradient(dy: Lanes, x: Lanes, w_shape, window: Window, groups: int) -> np.ndarray:
    F, channels = w_shape[:2]
    (OH, OW), (height, width), L = window.output, window.padded, x.lanes
    B, plane = len(x.data), height * width * L
    terms, _ = _forward_terms(window, channels, L)
    rows = F // groups
    ROWS, COLUMNS = product_tile_shape(rows, terms.size)
    tasks = groups * -(-rows // ROWS) * -(-terms.size // COLUMNS)
    parts = min(-(-ENOUGH_TASKS // tasks), B * OH)
    out = empty((parts, F, terms.size), x.dtype)
    product_kernel(ROWS, COLUMNS, L)(
        dy.data.reshape(-1),
        rows * OH * OW * L,
        OH * OW * L,
        _lines(B, F * OH * OW * L, OH, OW * L),
        _padded(x, window).reshape(-1),
        channels * plane,
        window.stride[1] * L,
        _lines(B, groups * channels * plane, OH, window.stride[0] * width * L),
        terms,
        OW,
        out,
        groups,
    )
    return (out.sum(axis=0) if parts > 1 else out[0]).reshape(w_shape)


@parallel
def _channel_sums(x, out):
    """x (B, C, run), out (C,); empty lanes hold 0."""
    B, C, run = x.shape
    for c in prange(C):
        total = 0.0
        for b in range(B):
            for p in range(run):
                total += np.float64(x[b, c, p])
        out[c] = total


def channel_sums(dy: Lanes) -> np.ndarray:
    """Return the sum of each channel over the batch."""
    out = np.empty(dy.shape[1], dy.dtype)
    _channel_sums(dy.runs, out)
    return out
