"""Correlation with its gradients on plain arrays, im2col and col2im."""

import math

import numpy as np
from numba import prange

from kernels import validation
from kernels.geometry import Window, make_window
from kernels.numba_backend import channels_last, packed
from kernels.numba_backend.layouts import use_packed_layout
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.compiler import inlined, parallel
from kernels.numba_backend.simd.copies import copy_row
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    even_lanes,
    gather_strided,
    load_between,
    masked_store,
    splat,
)
from kernels.numba_backend.simd.windows import valid_range
from kernels.numba_backend.small_work import run_by_size, run_on_one_thread
from kernels.numpy_backend.dense import blocked_matmul

# The gradients of a few images with many filters are products of BLAS: images fill few lanes of the
# packed layout. The packed kernels' speed by NumPy's on a Zen 4 for 1 and 4 images, with 32 to 256
# filters: 0.19 to 0.51 and 0.61 to 0.86. With 5 filters it is above 1.
MIN_FILTERS_OF_BLAS = 16
PRODUCTS_BY_SWEEP = 8  # computed in the time in which a sweep reads a number
MAX_NARROW_VECTORS = 4  # in a row that is copied by vectors with masks
# Of the columns of several images, in the third-level cache. On one thread of a Zen 4, 2 MiB were
# up to a fifth faster. But while other processes use the cores, each product of BLAS waits for its
# threads after a pause: with 0.5 MiB, 16 images of 28x28 pixels took 280 ms, and 21 ms with 8 MiB.
BLOCK_BYTES = 1 << 23


def correlate(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, scale=None, activation=None):
    x = validation.check_images(x, "x")
    arguments = (w, b, stride, padding, dilation, groups, scale, activation)
    if use_packed_layout(len(x), x.dtype, training=False):
        return packed.unpack(packed.correlate(packed.pack(x), *arguments))
    n_products = x[:, 0].size * np.size(w)  # `w` is not checked yet
    return run_by_size(n_products // PRODUCTS_BY_SWEEP, _correlate_few, x, *arguments)


def _correlate_few(x, *arguments):
    x_channels_last = channels_last.ChannelsLast(x.transpose(0, 2, 3, 1), x.shape[1])
    return channels_last.to_array(channels_last.correlate(x_channels_last, *arguments))


def correlate_grad(dy, x, w, stride=1, padding=0, dilation=1, groups=1, need_dx=True, out=None):
    dy, (x, w, window, groups) = validation.check_correlation_grad(
        dy, x, w, stride, padding, dilation, groups, need_dx, out
    )
    if len(x) == 0:
        return np.empty_like(x) if need_dx else None, np.zeros_like(w), np.zeros(len(w), w.dtype)
    if groups == 1 and len(w) >= MIN_FILTERS_OF_BLAS and 4 * len(x) <= simd_width(x.dtype):
        return _correlate_grad_by_columns(dy, x, w, window, groups, need_dx)
    dx, dw, db = packed.correlate_grad(
        packed.pack(dy), packed.pack(x), w, stride, padding, dilation, groups, need_dx, out
    )
    return None if dx is None else packed.unpack(dx), dw, db


@inlined
def _load_row(x, x0, step, start, stop):
    """Return a vector of numbers that are a step apart; lanes before start or from stop on are 0.

    A gather takes a load for each lane, and two neighboring vectors take two.
    """
    if step == 1:
        return load_between(x, x0, start, stop)
    if step == 2:
        L, first, last = VECTOR_BYTES // x.itemsize, 2 * start, 2 * stop - 1
        near, far = load_between(x, x0, first, last), load_between(x, x0 + L, first - L, last - L)
        return even_lanes(near, far)
    return gather_strided(x, x0, step, start, stop, splat(x.dtype.type(0)))


@inlined
def _copy_rows(x, x0, x_row, step, out, out0, rows, valid_rows, width, valid_columns):
    """Copy rows of pixels that are a step apart; those that are not valid are 0.

    The masks of the vectors below each other are the same, so that the inner loops have none to
    compute: a row of 14 pixels takes half the time that it takes with the loops exchanged.
    """
    zero = splat(x.dtype.type(0))
    for j in range(0, width, VECTOR_BYTES // x.itemsize):
        start, stop = valid_columns[0] - j, valid_columns[1] - j
        for i in range(valid_rows[0]):
            masked_store(out, out0 + i * width + j, zero, width - j)
        for i in range(valid_rows[0], valid_rows[1]):
            pixels = _load_row(x, x0 + i * x_row + j * step, step, start, stop)
            masked_store(out, out0 + i * width + j, pixels, width - j)
        for i in range(valid_rows[1], rows):
            masked_store(out, out0 + i * width + j, zero, width - j)


@inlined
def _copy_wide_rows(x, x0, x_row, out, out0, rows, valid_rows, width, valid_columns):
    """Copy rows of neighboring pixels, one row after the other; those that are not valid are 0."""
    first, last = valid_columns
    for i in range(rows):
        row = out0 + i * width
        is_valid = valid_rows[0] <= i < valid_rows[1]
        for j in range(first if is_valid else width):
            out[row + j] = 0
        if is_valid:
            copy_row(x, x0 + i * x_row + first, out, row + first, last - first)
            for j in range(last, width):
                out[row + j] = 0


@parallel
def _im2col(x, out, stride, dilation, pad_begin):
    """Copy the pixels of x (N, C, H, W) under each tap to out (N, C, KH, KW, OH, OW)."""
    N, C, H, W = x.shape
    _, _, KH, KW, OH, OW = out.shape
    x_flat, out_flat, x_row = x.reshape(-1), out.reshape(-1), stride[0] * W
    is_wide = stride[1] == 1 and MAX_NARROW_VECTORS * VECTOR_BYTES // x.itemsize < OW
    for row_of_taps in prange(N * C * KH):
        plane, k = row_of_taps // KH, row_of_taps % KH
        top = k * dilation[0] - pad_begin[0]
        valid_rows = valid_range(top, stride[0], H, OH)
        for m in range(KW):
            left = m * dilation[1] - pad_begin[1]
            valid_columns = valid_range(left, stride[1], W, OW)
            x0, out0 = (plane * H + top) * W + left, (row_of_taps * KW + m) * OH * OW
            if is_wide:
                _copy_wide_rows(
                    x_flat, x0, x_row, out_flat, out0, OH, valid_rows, OW, valid_columns
                )
            else:
                _copy_rows(
                    x_flat, x0, x_row, stride[1], out_flat, out0, OH, valid_rows, OW, valid_columns
                )


@inlined
def _gather_rows(plane, columns, x, stride, dilation, pad_begin):
    """Write a plane of x, whose windows lie side by side: each vector of it is a sum of vectors."""
    _, _, H, W = x.shape
    _, _, KH, KW, OH, OW = columns.shape
    x_flat, columns_flat, L = x.reshape(-1), columns.reshape(-1), VECTOR_BYTES // x.itemsize
    for p in range(H):
        for q in range(0, W, L):
            total = splat(x.dtype.type(0))
            for k in range(KH):
                below = p + pad_begin[0] - k * dilation[0]
                if below % stride[0] or not 0 <= below < OH * stride[0]:
                    continue
                row = ((plane * KH + k) * KW * OH + below // stride[0]) * OW
                for m in range(KW):
                    j = q + pad_begin[1] - m * dilation[1]
                    total += load_between(columns_flat, row + m * OH * OW + j, -j, OW - j)
            masked_store(x_flat, (plane * H + p) * W + q, total, W - q)


@inlined
def _scatter_columns(plane, columns, x, stride, dilation, pad_begin):
    """Write a plane of x, to which each column adds its pixels."""
    _, C, H, W = x.shape
    _, _, KH, KW, OH, OW = columns.shape
    image, values = x[plane // C, plane % C], columns[plane // C, plane % C]
    image[:] = 0
    for k in range(KH):
        top = k * dilation[0] - pad_begin[0]
        i0, i1 = valid_range(top, stride[0], H, OH)
        for m in range(KW):
            left = m * dilation[1] - pad_begin[1]
            j0, j1 = valid_range(left, stride[1], W, OW)
            for i in range(i0, i1):
                for j in range(j0, j1):
                    image[top + i * stride[0], left + j * stride[1]] += values[k, m, i, j]


@parallel
def _col2im(columns, x, stride, dilation, pad_begin):
    """Add columns (N, C, KH, KW, OH, OW) to the pixels of x (N, C, H, W) under each tap."""
    N, C = x.shape[:2]
    for plane in prange(N * C):
        if stride[1] == 1:
            _gather_rows(plane, columns, x, stride, dilation, pad_begin)
        else:
            _scatter_columns(plane, columns, x, stride, dilation, pad_begin)


def _columns(x, window: Window):
    """Return the pixels of x under each tap, (N, C, KH, KW, OH, OW)."""
    if window.size == (1, 1) and window.stride == (1, 1) and window.padded == window.image:
        return x[:, :, None, None]
    out = empty((*x.shape[:2], *window.size, *window.output), x.dtype)
    _im2col(x, out, window.stride, window.dilation, window.pad_begin)
    return out


def im2col(x, kernel_size, stride=1, padding=0, dilation=1):
    x = validation.check_images(x, "x")
    window = make_window(x.shape[2:], kernel_size, stride, padding, dilation, "kernel_size")
    (N, C), (KH, KW), (OH, OW) = x.shape[:2], window.size, window.output
    out = empty((N, C, KH, KW, OH, OW), x.dtype)
    run_by_size(out.size, _im2col, x, out, window.stride, window.dilation, window.pad_begin)
    return out.reshape(N, C * KH * KW, OH * OW)


def col2im(cols, x_shape, kernel_size, stride=1, padding=0, dilation=1):
    cols, x_shape, window = validation.check_columns(
        cols, x_shape, kernel_size, stride, padding, dilation
    )
    columns = cols.reshape(*x_shape[:2], *window.size, *window.output)
    return run_by_size(cols.size, _from_columns, columns, x_shape, window)


def _from_columns(columns, x_shape, window: Window):
    """Return columns (N, C, KH, KW, OH, OW) added to the pixels (N, C, H, W) under each tap."""
    x = empty(x_shape, columns.dtype)
    _col2im(columns, x, window.stride, window.dilation, window.pad_begin)
    return x


# The threads of BLAS spin after a product, and would compete with Numba's for the cores: on 2
# cores, one image of 7 to 14 MFLOP took 1.6 to 2 times as long with `_im2col` on both. The kernels
# between products therefore run on one thread.


def correlate_im2col(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    x, w, window, groups = validation.check_correlation(x, w, stride, padding, dilation, groups)
    b = validation.check_bias(b, len(w), x.dtype)
    N, F = len(x), len(w)
    y = empty((N, F, *window.output), x.dtype)
    columns_bytes = w[0].size * groups * math.prod(window.output) * x.itemsize  # of an image
    block = max(1, BLOCK_BYTES // columns_bytes)
    for start in range(0, N, block):
        product = _multiply_columns(x[start : start + block], w, window, groups)
        np.add(product, b[:, None, None], out=y[start : start + block])
    return y


def _multiply_columns(x, w, window: Window, groups):
    columns = run_on_one_thread(_columns, x, window).reshape(len(x), groups, w[0].size, -1)
    product = blocked_matmul(w.reshape(groups, -1, w[0].size), columns)
    return product.reshape(len(x), len(w), *window.output)


def _correlate_grad_by_columns(dy, x, w, window: Window, groups, need_dx):
    """Return the gradients of the product in `correlate_im2col`."""
    N, filters = len(x), w.reshape(groups, len(w) // groups, -1)
    dy_rows = dy.reshape(N, *filters.shape[:2], -1)
    columns = run_on_one_thread(_columns, x, window).reshape(N, groups, filters.shape[2], -1)
    dw = blocked_matmul(dy_rows, columns.swapaxes(2, 3)).sum(axis=0).reshape(w.shape)
    db = dy.sum(axis=(0, 2, 3), dtype=np.float64).astype(dy.dtype)
    if not need_dx:
        return None, dw, db
    d_columns = blocked_matmul(filters.swapaxes(1, 2), dy_rows)
    d_columns = d_columns.reshape(*x.shape[:2], *window.size, *window.output)
    return run_on_one_thread(_from_columns, d_columns, x.shape, window), dw, db
