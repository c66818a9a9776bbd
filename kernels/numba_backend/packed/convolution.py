"""Correlation and its gradients with the images in the lanes."""

from functools import lru_cache

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed import winograd
from kernels.numba_backend.packed.dense import scale_and_bias
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.micro_kernels import dot_tile_shape, outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import channel_sums, tiled_matmul, tiled_matmul_nt
from kernels.numba_backend.simd.vectors import load, splat, store
from kernels.numpy_backend.dense import MAX_SUM_TERMS

# The weight gradient is one task a tile. Few tiles are cut into parts of the batch as well, so
# that all threads find work, and many pixels, that no sum is too long; how many does not depend
# on the threads, and so no bit does.
MIN_TASKS = 64


@parallel
def copy_zero_padded(x, out, corner, step):
    """Write x (planes, H, W, L) onto zeros, its pixels some steps apart."""
    planes, H, W, L = x.shape
    _, height, width, _ = out.shape
    (top, left), (row_step, column_step) = corner, step
    flat, to = x.reshape(-1), out.reshape(-1)
    nothing = splat(x.dtype.type(0))
    for p in prange(planes):
        for y in range(height):
            i, row = (y - top) // row_step, (p * height + y) * width
            if (y - top) % row_step or not 0 <= i < H:
                for at in range(row, row + width):
                    store(to, at * L, nothing)
            else:
                for at in range(width):
                    j = (at - left) // column_step
                    pixel = nothing
                    if (at - left) % column_step == 0 and 0 <= j < W:
                        pixel = load(flat, ((p * H + i) * W + j) * L)
                    store(to, (row + at) * L, pixel)


@serial
def _sums(
    fresh, x, ground, corner, step, strides, x_terms, w, w_strides, w_terms, scale, bias, negative_slope,
    y, y_strides, counts, tile,
):  # fmt: skip
    """Cover y with sums of x, which is first placed on its ground if that is fresh."""
    if fresh:
        copy_zero_padded(x, ground, corner, step)
    tiled_matmul(
        ground.reshape(-1), strides, x_terms, w.reshape(-1), w_strides, w_terms, scale, bias,
        negative_slope, y.reshape(-1), y_strides, counts, tile,
    )  # fmt: skip


@serial
def _weight_gradient(
    ground, dy, dy_group, dy_row, dy_step, dy_lines, x_group, x_step,
    x_lines, x_terms, length, groups, tile, parts, dw, db,
):  # fmt: skip
    """Sum over the rows of pixels of all blocks in a few parts, and those up; db sums dy."""
    tiled_matmul_nt(
        dy.reshape(-1), dy_group, dy_row, dy_step, dy_lines,
        ground.reshape(-1), x_group, x_step, x_lines, x_terms, length, groups, tile, parts,
    )  # fmt: skip
    flat, sums = dw.reshape(-1), parts.reshape(len(parts), -1)
    for i in range(flat.size):
        flat[i] = sums[0, i]
        for part in range(1, len(sums)):
            flat[i] += sums[part, i]
    channel_sums(dy, db)


class _Plan:
    """Where everything stands in a convolution of this geometry, for the kernels above.

    The input gradient is dy, with zeros between its pixels where the stride left some out,
    correlated with the reversed filters.
    """

    def __init__(self, B: int, groups: int, channels: int, filters: int, window: Window, L: int):
        (KH, KW), (dh, dw), (eh, ew) = window.size, window.dilation, window.kernel_extent
        (H, W), (OH, OW), (height, width) = window.image, window.output, window.padded
        (top, _), (left, _) = window.padding
        row_step, column_step = window.stride
        C, F, taps = groups * channels, groups * filters, KH * KW

        self.x_ground = (B * C, height, width, L), (top, left), (1, 1)
        plane = height * width * L
        c, k, m = np.ogrid[:channels, :KH, :KW]
        terms = (((c * height + k * dh) * width + m * dw) * L).astype(np.int64).ravel()
        self.x = (C * plane, channels * plane, row_step * width * L, column_step * L), terms
        self.w = (filters * terms.size, terms.size), np.arange(terms.size, dtype=np.int64)
        self.output = F, OH, OW
        self.y = (
            (F * OH * OW * L, filters * OH * OW * L, OW * L, OH * OW * L, L),
            (B, groups, OH, filters, OW),
            outer_product_tile_shape(filters, OW),
        )

        def lines(block, row):
            rows = np.arange(OH, dtype=np.int64) * row
            return (np.arange(B, dtype=np.int64)[:, None] * block + rows).ravel()

        ROWS, COLUMNS = tile = dot_tile_shape(filters, terms.size)
        tasks = groups * -(-filters // ROWS) * -(-terms.size // COLUMNS)
        self.products = (
            *(filters * OH * OW * L, OH * OW * L, L, lines(F * OH * OW * L, OW * L)),
            *(channels * plane, column_step * L, lines(C * plane, row_step * width * L)),
            *(terms, OW, groups, tile),
        )
        parts = max(-(-MIN_TASKS // tasks), B * OH * OW // MAX_SUM_TERMS)
        self.parts = min(parts, B * OH), F, terms.size

        high, wide = H + eh - 1, W + ew - 1
        self.dy_ground = (B * F, high, wide, L), (eh - 1 - top, ew - 1 - left), window.stride
        plane = high * wide * L
        f, k, m = np.ogrid[:filters, :KH, :KW]
        terms = ((f * high + (KH - 1 - k) * dh) * wide + (KW - 1 - m) * dw) * L
        self.dy = (F * plane, filters * plane, wide * L, L), terms.astype(np.int64).ravel()
        terms = (f * channels * KH + k) * KW + m
        self.reversed_w = (filters * channels * taps, taps), terms.astype(np.int64).ravel()
        self.input = C, H, W
        self.dx = (
            (C * H * W * L, channels * H * W * L, W * L, H * W * L, L),
            (B, groups, H, channels, W),
            outer_product_tile_shape(channels, W),
        )


@lru_cache(maxsize=256)
def _plan(B: int, w_shape: tuple, window: Window, groups: int, L: int) -> _Plan:
    return _Plan(B, groups, w_shape[1], w_shape[0] // groups, window, L)


def _ground(x: PackedBatch, shape, corner, step):
    """Return whether x must be placed on its ground yet, x, the ground, and where on it."""
    if x.images.shape == shape and corner == (0, 0) and step == (1, 1):
        return False, x.images, x.images, corner, step
    key = shape, corner, step
    fresh = key not in x.padded
    if fresh:
        x.padded[key] = empty(shape, x.dtype)
    return fresh, x.images, x.padded[key], corner, step


def _padded(x: PackedBatch, plan: _Plan) -> np.ndarray:
    """Return x on its ground, where the forward pass has left it."""
    fresh, *placing = _ground(x, *plan.x_ground)
    if fresh:
        launch(copy_zero_padded, placing[0], *placing[1:])
    return placing[1]


def _use_winograd(window: Window, groups: int, w_shape: tuple) -> bool:
    """Return whether fewer multiplications make up for the transforms.

    Milliseconds for 64 images on 2 cores, direct and Winograd's, forward: 28x28 pixels with 8
    channels and filters 0.20 and 0.30, with 16 0.76 and 0.76, with 32 3.1 and 2.3; 14x14 with 32
    channels and 64 filters 1.6 and 1.1, with 64 and 64 3.2 and 2.1. The input gradient is alike.
    """
    F, channels = w_shape[:2]
    plain = window.stride == window.dilation == (1, 1) and groups == 1
    return plain and window.size == (3, 3) and min(F, channels) > 16


def correlate(
    x: PackedBatch, w, b, window: Window, groups: int, scale, negative_slope: float
) -> PackedBatch:
    if _use_winograd(window, groups, w.shape):
        return winograd.correlate(x, w, b, window, scale, negative_slope)
    plan = _plan(len(x.data), w.shape, window, groups, x.lanes)
    y = x.like(*plan.output)
    affine = scale_and_bias(scale, b, len(w), x.dtype)
    ground, negative_slope = _ground(x, *plan.x_ground), x.dtype.type(negative_slope)
    launch(_sums, *ground, *plan.x, w, *plan.w, *affine, negative_slope, y.data, *plan.y)
    return y


def input_gradient(dy: PackedBatch, w, window: Window, groups: int) -> PackedBatch:
    if _use_winograd(window, groups, w.shape):
        return winograd.input_gradient(dy, w, window)
    plan = _plan(len(dy.data), w.shape, window, groups, dy.lanes)
    dx = dy.like(*plan.input)
    affine = scale_and_bias(None, None, plan.input[0], dy.dtype)
    ground = _ground(dy, *plan.dy_ground)
    negative_slope = dy.dtype.type(1)
    launch(
        _sums, *ground, *plan.dy, w, *plan.reversed_w, *affine, negative_slope, dx.data, *plan.dx
    )
    return dx


def weight_gradient(
    dy: PackedBatch, x: PackedBatch, w_shape, window: Window, groups: int, out=None
):
    """Return dw and db."""
    if _use_winograd(window, groups, w_shape) and w_shape[1] % x.lanes == 0:
        return winograd.weight_gradient(dy, x, w_shape, window, out)
    plan = _plan(len(x.data), w_shape, window, groups, x.lanes)
    dw, db = allocate_outputs(out, (w_shape, w_shape[:1]), x.dtype)
    parts = empty(plan.parts, x.dtype)
    launch(_weight_gradient, _padded(x, plan), dy.planes, *plan.products, parts, dw, db)
    return dw, db
