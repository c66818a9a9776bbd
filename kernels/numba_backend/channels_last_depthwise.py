"""Correlation of each channel of a few images with a filter of its own, channels in the SIMD lanes.

A vector of channels of a pixel is multiplied by the vector of their weights. Each filter is only
used by its channel, so that the kernel is limited by loads: neighboring pixels of the output share
those of the weights.
"""

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import SizedKernel, inlined
from kernels.numba_backend.simd.activations import activate
from kernels.numba_backend.simd.copies import transpose_padded
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    load,
    masked_load,
    splat,
    store,
)
from kernels.numba_backend.simd.windows import valid_range


def is_supported(groups: int, channels: int, filters: int) -> bool:
    return groups == channels == filters


@inlined
def _sum_of_four(x, start, row_stride, tap_stride, pixel_stride, taps, tap, tap_row, P, KH, KW):
    """Return the sums over all taps of the windows of four pixels."""
    acc0 = splat(x.dtype.type(0))
    acc1, acc2, acc3 = acc0, acc0, acc0
    for k in range(KH):
        for m in range(KW):
            weight = load(taps, tap + k * tap_row + m * P)
            p = start + k * row_stride + m * tap_stride
            acc0 += load(x, p) * weight
            acc1 += load(x, p + pixel_stride) * weight
            acc2 += load(x, p + 2 * pixel_stride) * weight
            acc3 += load(x, p + 3 * pixel_stride) * weight
    return acc0, acc1, acc2, acc3


@inlined
def _sum_of_one(x, start, row_stride, tap_stride, taps, tap, tap_row, P, KH, first, last):
    """Return the sum over the rows of taps, and the columns from ``first`` to before ``last``."""
    acc = splat(x.dtype.type(0))
    for k in range(KH):
        for m in range(first, last):
            weight = load(taps, tap + k * tap_row + m * P)
            acc += load(x, start + k * row_stride + m * tap_stride) * weight
    return acc


@SizedKernel
def _correlate(
    x, w, pad_begin, stride, dilation, scale, bias, activation, taps, y
):  # fmt: skip
    """y (N, OH, OW, P) = the correlation of x (N, H, W, P) with the filters w (C, 1, KH, KW).

    ``taps`` (KH * KW * P) gets the weights with their channels last.
    """
    N, H, W, P = x.shape
    _, OH, OW, _ = y.shape
    C, _, KH, KW = w.shape
    L, (sh, sw), (dh, dw) = VECTOR_BYTES // x.itemsize, stride, dilation
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    transpose_padded(w.reshape(-1), 0, KH * KW, C, KH * KW, taps, 0, P)
    for row in prange(N * OH):
        n, top = row // OH, row % OH * sh - pad_begin[0]
        k0, k1 = valid_range(top, dh, H, KH)
        # The pixels whose windows lie inside the image from left to right.
        inside, _ = valid_range(-pad_begin[1], sw, W, OW)
        _, end = valid_range((KW - 1) * dw - pad_begin[1], sw, W, OW)
        for v in range(0, P, L):
            factor, shift = masked_load(scale, v, C - v), masked_load(bias, v, C - v)
            tap, base = k0 * KW * P + v, (n * H + top + k0 * dh) * W * P + v
            j = 0
            while j < OW:
                left, out = j * sw - pad_begin[1], (row * OW + j) * P + v
                start = base + left * P
                if inside <= j <= end - 4:
                    acc0, acc1, acc2, acc3 = _sum_of_four(
                        x_flat, start, dh * W * P, dw * P, sw * P, taps, tap, KW * P, P,
                        k1 - k0, KW,
                    )  # fmt: skip
                    store(y_flat, out, activate(acc0 * factor + shift, activation))
                    store(y_flat, out + P, activate(acc1 * factor + shift, activation))
                    store(y_flat, out + 2 * P, activate(acc2 * factor + shift, activation))
                    store(y_flat, out + 3 * P, activate(acc3 * factor + shift, activation))
                    j += 4
                else:
                    m0, m1 = valid_range(left, dw, W, KW)
                    acc = _sum_of_one(
                        x_flat, start, dh * W * P, dw * P, taps, tap, KW * P, P, k1 - k0, m0, m1
                    )
                    store(y_flat, out, activate(acc * factor + shift, activation))
                    j += 1


def correlate(x: np.ndarray, w, b, window: Window, scale, activation) -> np.ndarray:
    """Return the correlation (N, OH, OW, P) of x (N, H, W, P), of whole vectors of channels."""
    (N, _, _, P), (OH, OW), (KH, KW) = x.shape, window.output, window.size
    y = empty((N, OH, OW, P), x.dtype)
    launch(
        _correlate.for_work(2 * y.size * KH * KW), x, w,
        window.pad_begin, window.stride, window.dilation,
        *scale_and_bias(scale, b, len(w), x.dtype), activation, empty((KH * KW * P,), x.dtype), y,
    )  # fmt: skip
    return y
