"""Correlation of each channel of a few images with a filter of its own, channels in the SIMD lanes.

A vector of channels of a pixel is multiplied by the vector of their weights. Each filter is only
used by its channel, so that loads and stores bound the time. Each vector that is loaded therefore
serves all windows of a row that contain its pixel, as in `packed.depthwise`.
"""

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import SizedKernel, inlined, serial
from kernels.numba_backend.simd.copies import transpose_padded
from kernels.numba_backend.simd.micro_kernels import (
    SLIDING_WINDOWS,
    sliding_columns,
    sliding_sums,
)
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, load, masked_load, store
from kernels.numba_backend.simd.windows import valid_range


def is_supported(window: Window, groups: int, channels: int, filters: int) -> bool:
    """Return whether the kernel computes a convolution: depthwise, with windows it knows."""
    is_depthwise = groups == channels == filters
    has_neighboring_taps = window.dilation[1] == 1 or window.size[1] == 1
    return (
        is_depthwise
        and has_neighboring_taps
        and (window.size[1], window.stride[1]) in SLIDING_WINDOWS
    )


@serial
def scale_taps(w, scale, taps, P):
    """taps (KH * KW * P) = the filters (C, 1, KH, KW), scaled, with their channels last."""
    C, n_taps, L = len(w), w[0].size, VECTOR_BYTES // w.itemsize
    transpose_padded(w.reshape(-1), 0, n_taps, C, n_taps, taps, 0, P)
    for v in range(0, P, L):
        factor = masked_load(scale, v, C - v)
        for t in range(n_taps):
            store(taps, t * P + v, load(taps, t * P + v) * factor)


@inlined
def correlate_row(
    x, shape, n, top, left, row_dilation, stride, size, x_offsets, taps, w_offsets, bias,
    activation, y, y_start, columns, tile_columns,
):  # fmt: skip
    """y (columns, P) = a row of outputs; its first window begins at (top, left) of image n of x.

    ``shape`` is that of x (N, H, W, P), and ``size`` (KH, KW). x_offsets and w_offsets (KH,) are
    those of the rows of a window.
    """
    (_, H, W, P), (KH, KW), L = shape, size, VECTOR_BYTES // x.itemsize
    first, stop = valid_range(top, row_dilation, H, KH)
    for v in range(0, P, L):
        sliding_sums(
            x, (n * H + top) * W * P + v, x_offsets, P, left, W, taps, v, w_offsets, P,
            first, stop - first, masked_load(bias, v, bias.size - v), activation,
            y, y_start + v, P, columns, KW, stride, tile_columns,
        )  # fmt: skip


@SizedKernel
def _correlate(
    x, w, pad_begin, stride, row_dilation, scale, bias, activation, x_offsets, w_offsets,
    tile_columns, taps, y,
):  # fmt: skip
    """y (N, OH, OW, P) = the correlation of x (N, H, W, P) with the filters w (C, 1, KH, KW).

    taps (KH * KW * P) is work space. See `correlate_row` for the offsets.
    """
    N, H, W, P = x.shape
    _, OH, OW, _ = y.shape
    _, _, KH, KW = w.shape
    x_flat, y_flat, shape = x.reshape(-1), y.reshape(-1), (N, H, W, P)
    scale_taps(w, scale, taps, P)
    for row in prange(N * OH):
        correlate_row(
            x_flat, shape, row // OH, row % OH * stride[0] - pad_begin[0], -pad_begin[1],
            row_dilation, stride[1], (KH, KW), x_offsets, taps, w_offsets, bias, activation,
            y_flat, row * OW * P, OW, tile_columns,
        )  # fmt: skip


def row_offsets(window: Window, P: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets of the rows of a window, in images and in taps of P channels."""
    (KH, KW), W = window.size, window.image[1]
    return strided_offsets(KH, window.dilation[0] * W * P), strided_offsets(KH, KW * P)


def correlate(x: np.ndarray, w, b, window: Window, scale, activation) -> np.ndarray:
    """Return the correlation (N, OH, OW, P) of x (N, H, W, P), of whole vectors of channels."""
    (N, _, _, P), (OH, OW), taps = x.shape, window.output, w[0].size
    y = empty((N, OH, OW, P), x.dtype)
    launch(
        _correlate.for_work(2 * y.size * taps), x, w,
        window.pad_begin, window.stride, window.dilation[0],
        *scale_and_bias(scale, b, len(w), x.dtype), activation, *row_offsets(window, P),
        sliding_columns(OW), empty((taps * P,), x.dtype), y,
    )  # fmt: skip
    return y
