"""Correlation, its gradients, im2col and col2im."""

from functools import lru_cache

import numpy as np
from numba import prange

from kernels import validation
from kernels.geometry import Window, make_window
from kernels.numba_backend.dense import matmul
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.polyphase import (
    copy_row,
    inside,
    planes_for,
    split,
    split_phases,
    widen,
)
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.micro_kernels import outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, tiled_matmul
from kernels.numba_backend.vector import add_scaled, add_scaled_4, dot, dot_4
from kernels.numpy_backend.dense import MAX_SUM_TERMS

MAX_VECTORS = 4  # of pixels that one task covers
# Images whose weight gradients are summed by one task. Fixed, so that the order of the sums
# and with it every bit of the result does not depend on the number of threads. Of a great many
# images there are more parts, none too long a sum.
MAX_BATCH_PARTS = 16


@lru_cache(maxsize=1024)
def _tap_shifts(window: Window, channels: int) -> np.ndarray:
    """Return where the run of each channel's each tap begins, (channels * KH * KW,)."""
    planes = planes_for(window)
    return (np.arange(channels, dtype=np.int64)[:, None] * planes.size + planes.shifts).ravel()


@parallel
def _crop(wide, width, out):
    """out (N, F, OH, OW) = the pixels of planes (N, F, run) whose rows are ``width`` long."""
    N, F, OH, OW = out.shape
    size, pixels, to = wide.shape[2], wide.reshape(-1), out.reshape(-1)
    for plane in prange(N * F):
        for i in range(OH):
            copy_row(pixels, plane * size + i * width, 1, to, (plane * OH + i) * OW, OW)


@serial
def _correlate(
    x, phases, stride, start, rows, width, strides, shifts, w, w_strides, w_terms, scale, b, negative_slope,
    wide, wide_strides, counts, tile, out,
):  # fmt: skip
    """Pixels in the lanes: each tap of the kernel is a shift of whole planes."""
    N, C, _, _ = x.shape
    size = stride[0] * stride[1] * rows * width
    split_phases(x, phases[: N * C * size].reshape(N, C, size), stride, start, rows, width)
    # Read over the end and cropped again; but what memory held may be denormal, 100 times slower.
    phases[N * C * size :] = 0
    tiled_matmul(
        phases, strides, shifts, w.reshape(-1), w_strides, w_terms, scale, b, negative_slope,
        wide.reshape(-1), wide_strides, counts, tile,
    )  # fmt: skip
    _crop(wide, width, out)


def correlate(
    x, w, b=None, stride=1, padding=0, dilation=1, groups=1, scale=None, negative_slope=1.0
):
    x, w, window, groups = validation.check_correlation(x, w, stride, padding, dilation, groups)
    affine = validation.check_scale_and_bias(scale, b, len(w), x.dtype)
    negative_slope = validation.check_negative_slope(negative_slope, x.dtype)
    (N, C), (F, channels), planes = x.shape[:2], w.shape[:2], planes_for(window)
    out = np.empty((N, F, *window.output), x.dtype)
    if 0 in out.shape:
        return out
    shifts = _tap_shifts(window, channels)
    filters = F // groups
    tile = outer_product_tile_shape(filters, MAX_VECTORS)
    L, vectors = simd_width(x.dtype), tile[1]
    line = vectors * L
    lines = -(-planes.run // line)
    launch(
        _correlate,
        x,
        empty((N * C * planes.size + line,), x.dtype),  # the last line may read over the end
        window.stride,
        window.start,
        planes.rows,
        planes.width,
        (C * planes.size, channels * planes.size, line, L),
        shifts,
        w,
        (filters * shifts.size, shifts.size),
        np.arange(shifts.size, dtype=np.int64),
        *scale_and_bias(*affine, F, x.dtype),
        negative_slope,
        empty((N, F, lines * line), x.dtype),
        (F * lines * line, filters * lines * line, line, lines * line, L),
        (N, groups, lines, filters, vectors),
        tile,
        out,
    )
    return out


@parallel
def _input_grad(dy, w, shifts, size, run, stride, start, rows, width, dx):
    """dy (N, F, OH * width), w (F, C/groups, taps), dx (N, C, H, W)."""
    N, C, H, W = dx.shape
    F, channels, taps = w.shape
    filters = F * channels // C  # of one group
    sh, sw = stride
    top, left = start
    for task in prange(N * C):
        n, c = task // C, task % C
        k, first = c % channels, c // channels * filters
        sent = dy[n, :, :run]
        phases = np.zeros(size, dx.dtype)
        totals = np.zeros(size if filters * taps > MAX_SUM_TERMS else 0)
        added = 0
        for t in range(taps):
            seen = phases[shifts[t] : shifts[t] + run]
            for low in range(first, first + filters, MAX_SUM_TERMS):
                high = min(low + MAX_SUM_TERMS, first + filters)
                whole = high - (high - low) % 4
                for f in range(low, whole, 4):
                    add_scaled_4(
                        seen,
                        sent[f],
                        sent[f + 1],
                        sent[f + 2],
                        sent[f + 3],
                        w[f, k, t],
                        w[f + 1, k, t],
                        w[f + 2, k, t],
                        w[f + 3, k, t],
                    )
                for f in range(whole, high):
                    add_scaled(seen, sent[f], w[f, k, t])
                added += high - low
                if totals.size and added >= MAX_SUM_TERMS:
                    totals += phases
                    phases[:] = 0
                    added = 0
        if totals.size:
            totals += phases
            phases[:] = totals
        for i in range(H):
            row = (i + top) % sh * sw * rows + (i + top) // sh
            for p in range(sw):
                j = (p - left) % sw
                line = phases[(row + p * rows) * width + (j + left) // sw :]
                for q in range((W - j + sw - 1) // sw):
                    dx[n, c, i, j + q * sw] = line[q]


@parallel
def _weight_grad(dy, x, shifts, groups, run, dw, db):
    """Sum over each part of the batch: dw (parts, F, taps), db (parts, F)."""
    N, F, _ = dy.shape
    parts, _, taps = dw.shape
    for task in prange(parts * F):
        part, f = task // F, task % F
        total = dw[part, f]
        total[:] = 0
        bias = 0.0
        for n in range(part * N // parts, (part + 1) * N // parts):
            image, sent = x[n, f * groups // F], dy[n, f, :run]
            bias += _sum(sent)
            for start in range(0, run, MAX_SUM_TERMS):
                some = sent[start : start + MAX_SUM_TERMS]
                seen = image[start:]
                for t in range(0, taps - 3, 4):
                    s0, s1, s2, s3 = shifts[t], shifts[t + 1], shifts[t + 2], shifts[t + 3]
                    t0, t1, t2, t3 = dot_4(
                        some,
                        seen[s0 : s0 + some.size],
                        seen[s1 : s1 + some.size],
                        seen[s2 : s2 + some.size],
                        seen[s3 : s3 + some.size],
                    )
                    total[t] += t0
                    total[t + 1] += t1
                    total[t + 2] += t2
                    total[t + 3] += t3
                for t in range(taps - taps % 4, taps):
                    total[t] += dot(some, seen[shifts[t] : shifts[t] + some.size])
        db[part, f] = bias


@serial
def _sum(x):
    total = 0.0
    for p in range(x.size):
        total += x[p]
    return total


def correlate_grad(dy, x, w, stride=1, padding=0, dilation=1, groups=1, need_dx=True, out=None):
    x, w, window, groups = validation.check_correlation(x, w, stride, padding, dilation, groups)
    dy = validation.check_output_grad(dy, len(x), len(w), window, x.dtype)
    validation.check_out(out, (w.shape, w.shape[:1]), (w,))
    N, F = len(x), len(w)
    planes = planes_for(window)
    sent = widen(dy, planes.width)
    parts = max(1, min(N, MAX_BATCH_PARTS), -(-N // MAX_SUM_TERMS))
    shifts = _tap_shifts(window, w.shape[1])
    dw = np.empty((parts, F, shifts.size), x.dtype)
    db = np.empty((parts, F), x.dtype)
    phases = split(x, window, planes).reshape(N, groups, w.shape[1] * planes.size)
    _weight_grad(sent, phases, shifts, groups, planes.run, dw, db)
    dx = None
    if need_dx:
        (top, _), (left, _) = window.padding
        dx = np.empty_like(x)
        _input_grad(
            sent,
            w.reshape(F, w.shape[1], -1),
            planes.shifts,
            planes.size,
            planes.run,
            window.stride,
            (top, left),
            planes.rows,
            planes.width,
            dx,
        )
    return dx, dw.sum(axis=0).reshape(w.shape), db.sum(axis=0)


@parallel
def _im2col(x, out, stride, dilation, start):
    """x (N, C, H, W), out (N, C, KH, KW, OH, OW)."""
    N, C, H, W = x.shape
    _, _, KH, KW, OH, OW = out.shape
    for plane in prange(N * C):
        image, columns = x[plane // C, plane % C], out[plane // C, plane % C]
        columns[:] = 0
        for k in range(KH):
            above = k * dilation[0] - start[0]
            i0, i1 = inside(above, stride[0], H, OH)
            for m in range(KW):
                before = m * dilation[1] - start[1]
                j0, j1 = inside(before, stride[1], W, OW)
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        columns[k, m, i, j] = image[above + i * stride[0], before + j * stride[1]]


@parallel
def _col2im(columns, x, stride, dilation, start):
    """columns (N, C, KH, KW, OH, OW), x (N, C, H, W)."""
    N, C, H, W = x.shape
    _, _, KH, KW, OH, OW = columns.shape
    for plane in prange(N * C):
        image, values = x[plane // C, plane % C], columns[plane // C, plane % C]
        image[:] = 0
        for k in range(KH):
            above = k * dilation[0] - start[0]
            i0, i1 = inside(above, stride[0], H, OH)
            for m in range(KW):
                before = m * dilation[1] - start[1]
                j0, j1 = inside(before, stride[1], W, OW)
                for i in range(i0, i1):
                    for j in range(j0, j1):
                        image[above + i * stride[0], before + j * stride[1]] += values[k, m, i, j]


def im2col(x, kernel_size, stride=1, padding=0, dilation=1):
    x = validation.check_images(x, "x")
    window = make_window(x.shape[2:], kernel_size, stride, padding, dilation, "kernel_size")
    (N, C), (KH, KW), (OH, OW) = x.shape[:2], window.size, window.output
    out = np.empty((N, C, KH, KW, OH, OW), x.dtype)
    _im2col(x, out, window.stride, window.dilation, window.start)
    return out.reshape(N, C * KH * KW, OH * OW)


def col2im(cols, x_shape, kernel_size, stride=1, padding=0, dilation=1):
    cols, x_shape, window = validation.check_columns(
        cols, x_shape, kernel_size, stride, padding, dilation
    )
    x = np.empty(x_shape, cols.dtype)
    columns = cols.reshape(*x_shape[:2], *window.size, *window.output)
    _col2im(columns, x, window.stride, window.dilation, window.start)
    return x


def correlate_im2col(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    x, w, window, groups = validation.check_correlation(x, w, stride, padding, dilation, groups)
    b = validation.check_bias(b, len(w), x.dtype)
    N, F = len(x), len(w)
    cols = im2col(x, window.size, stride, padding, dilation)
    cols = cols.reshape(N, groups, cols.shape[1] // groups, cols.shape[2])
    weights = w.reshape(groups, F // groups, -1)
    y = np.empty((N, groups, F // groups, cols.shape[3]), x.dtype)
    for n in range(N):
        for g in range(groups):
            y[n, g] = matmul(weights[g], cols[n, g])
    return y.reshape(N, F, *window.output) + b[:, None, None]
