"""Correlation with its gradients on plain arrays, im2col and col2im."""

import math

import numpy as np
from numba import prange

from kernels import numpy_backend, validation
from kernels.geometry import make_window
from kernels.numba_backend import channels_last, packed
from kernels.numba_backend.layouts import use_packed_layout
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.copies import copy_row
from kernels.numba_backend.simd.windows import valid_range
from kernels.numpy_backend.dense import blocked_matmul

# The gradients of a few images with many filters are left to BLAS: images fill few lanes of the
# packed layout. Numba's speed by NumPy's on a Zen 4 for 1 and 4 images, with 32 to 256 filters:
# 0.19 to 0.51 and 0.61 to 0.86. With 5 filters it is above 1.
MIN_FILTERS_OF_BLAS = 16


def correlate(x, w, b=None, stride=1, padding=0, dilation=1, groups=1, scale=None, activation=None):
    x = validation.check_images(x, "x")
    arguments = (w, b, stride, padding, dilation, groups, scale, activation)
    if use_packed_layout(len(x), x.dtype, training=False):
        return packed.unpack(packed.correlate(packed.pack(x), *arguments))
    x_channels_last = channels_last.ChannelsLast(x.transpose(0, 2, 3, 1), x.shape[1])
    return channels_last.to_array(channels_last.correlate(x_channels_last, *arguments))


def correlate_grad(dy, x, w, stride=1, padding=0, dilation=1, groups=1, need_dx=True, out=None):
    dy, (x, w, _, groups) = validation.check_correlation_grad(
        dy, x, w, stride, padding, dilation, groups, need_dx, out
    )
    if len(x) == 0:
        return np.empty_like(x) if need_dx else None, np.zeros_like(w), np.zeros(len(w), w.dtype)
    if groups == 1 and len(w) >= MIN_FILTERS_OF_BLAS and 4 * len(x) <= simd_width(x.dtype):
        return numpy_backend.correlate_grad(
            dy, x, w, stride, padding, dilation, groups, need_dx, out
        )
    dx, dw, db = packed.correlate_grad(
        packed.pack(dy), packed.pack(x), w, stride, padding, dilation, groups, need_dx, out
    )
    return None if dx is None else packed.unpack(dx), dw, db


@inlined
def _copy_tap(tap, x, out, stride, dilation, pad_begin):
    """Copy the pixels of x (N, C, H, W) under one tap to out (N, C, KH, KW, OH, OW).

    ``tap`` counts the taps of all windows, channels and images: N * C * KH * KW.
    """
    _, _, H, W = x.shape
    _, _, KH, KW, OH, OW = out.shape
    x_flat, out_flat = x.reshape(-1), out.reshape(-1)
    plane, k, m = tap // (KH * KW), tap // KW % KH, tap % KW
    top, left = k * dilation[0] - pad_begin[0], m * dilation[1] - pad_begin[1]
    i0, i1 = valid_range(top, stride[0], H, OH)
    j0, j1 = valid_range(left, stride[1], W, OW)
    if i1 - i0 < OH or j1 - j0 < OW:
        out_flat[tap * OH * OW : (tap + 1) * OH * OW] = 0
    for i in range(i0, i1):
        copy_row(
            x_flat, (plane * H + top + i * stride[0]) * W + left + j0 * stride[1], stride[1],
            out_flat, (tap * OH + i) * OW + j0, j1 - j0,
        )  # fmt: skip


@parallel
def _im2col(x, out, stride, dilation, pad_begin):
    N, C, KH, KW = out.shape[:4]
    for tap in prange(N * C * KH * KW):
        _copy_tap(tap, x, out, stride, dilation, pad_begin)


@serial
def _im2col_on_one_thread(x, out, stride, dilation, pad_begin):
    N, C, KH, KW = out.shape[:4]
    for tap in range(N * C * KH * KW):
        _copy_tap(tap, x, out, stride, dilation, pad_begin)


@parallel
def _col2im(columns, x, stride, dilation, pad_begin):
    """Add columns (N, C, KH, KW, OH, OW) to the pixels of x (N, C, H, W) under each tap."""
    N, C, H, W = x.shape
    _, _, KH, KW, OH, OW = columns.shape
    for plane in prange(N * C):
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


def im2col(x, kernel_size, stride=1, padding=0, dilation=1):
    x = validation.check_images(x, "x")
    window = make_window(x.shape[2:], kernel_size, stride, padding, dilation, "kernel_size")
    (N, C), (KH, KW), (OH, OW) = x.shape[:2], window.size, window.output
    out = np.empty((N, C, KH, KW, OH, OW), x.dtype)
    _im2col(x, out, window.stride, window.dilation, window.pad_begin)
    return out.reshape(N, C * KH * KW, OH * OW)


def col2im(cols, x_shape, kernel_size, stride=1, padding=0, dilation=1):
    cols, x_shape, window = validation.check_columns(
        cols, x_shape, kernel_size, stride, padding, dilation
    )
    x = np.empty(x_shape, cols.dtype)
    columns = cols.reshape(*x_shape[:2], *window.size, *window.output)
    _col2im(columns, x, window.stride, window.dilation, window.pad_begin)
    return x


def correlate_im2col(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    x, w, window, groups = validation.check_correlation(x, w, stride, padding, dilation, groups)
    b = validation.check_bias(b, len(w), x.dtype)
    (N, C), F = x.shape[:2], len(w)
    cols = empty((N, C, *window.size, *window.output), x.dtype)
    # The threads of BLAS spin after a product, and would compete with Numba's for the cores: on 2
    # cores, one image of 7 to 14 MFLOP takes 1.6 to 2 times as long with `_im2col`, 64 images of
    # them 0.9 to 1.06 times.
    _im2col_on_one_thread(x, cols, window.stride, window.dilation, window.pad_begin)
    filters = w.reshape(groups, F // groups, -1)
    cols = cols.reshape(N, groups, filters.shape[2], math.prod(window.output))
    y = blocked_matmul(filters, cols).reshape(N, F, *window.output)
    y += b[:, None, None]
    return y
