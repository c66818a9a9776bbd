"""A depthwise separable correlation of a few images: depthwise, then 1x1, in one kernel.

As in `packed.separable`, the numbers in between stay in the cache of the core that computes them.
The kernels of each alone are so short that a second thread hardly pays: the depthwise one would
take longer to fetch what the other core has written than to compute.
"""

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.channels_last_depthwise import correlate_row, row_offsets, scale_taps
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import SizedKernel, workers_for
from kernels.numba_backend.simd.copies import transpose_padded
from kernels.numba_backend.simd.micro_kernels import (
    MAX_SHORT_BYTES,
    outer_product_tile_of_columns,
    outer_product_tile_shape,
    sliding_columns,
)
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import VECTOR_BYTES


@SizedKernel
def _correlate(
    x, w, pad_begin, stride, row_dilation, depthwise_scale, depthwise_bias, depthwise_activation,
    x_offsets, w_offsets, tile_columns, taps, pointwise_w, scale, bias, factors, shifts,
    activation, term_offsets, filter_offsets, tile, panels, packed_filters, y,
):  # fmt: skip
    """y (N, OH, OW, P) = the 1x1 correlation of the depthwise one of x (N, H, W, C or more).

    Each task computes some rows of outputs: first the depthwise ones, in panels (tasks, pixels *
    channels), then their products with the filters pointwise_w (F, C) of one column of tiles
    after the other, packed_filters (tasks, C * vectors). factors and shifts (P,) get the scale and
    the bias.
    """
    N, H, W, C_padded = x.shape
    _, OH, OW, P = y.shape
    _, _, KH, KW = w.shape
    (F, C), tasks, (ROWS, COLUMNS) = pointwise_w.shape, len(panels), tile
    L = VECTOR_BYTES // x.itemsize
    x_flat, y_flat, w_flat = x.reshape(-1), y.reshape(-1), pointwise_w.reshape(-1)
    shape, width = (N, H, W, C_padded), COLUMNS * L
    for f in range(F):
        factors[f], shifts[f] = scale[f], bias[f]
    scale_taps(w, depthwise_scale, taps, C_padded)
    for task in prange(tasks):
        panel, weights = panels[task], packed_filters[task]
        first, last = task * N * OH // tasks, (task + 1) * N * OH // tasks
        for row in range(first, last):
            correlate_row(
                x_flat, shape, row // OH, row % OH * stride[0] - pad_begin[0], -pad_begin[1],
                row_dilation, stride[1], (KH, KW), x_offsets, taps, w_offsets, depthwise_bias,
                depthwise_activation, panel, (row - first) * OW * C_padded, OW, tile_columns,
            )  # fmt: skip
        pixels = (last - first) * OW
        for column in range(0, P, width):
            f = min(column, P - width)
            transpose_padded(w_flat, f * C, C, min(F - f, width), C, weights, 0, width)
            for start in range(0, pixels, ROWS):
                p = min(start, pixels - ROWS)
                outer_product_tile_of_columns(
                    weights, 0, filter_offsets, L, panel, p * C_padded, term_offsets, C_padded, C,
                    factors, shifts, f, activation, y_flat, (first * OW + p) * P + f, P, L,
                    ROWS, COLUMNS,
                )  # fmt: skip


def correlate(
    x: np.ndarray, w, pointwise_w, window: Window, affine, pointwise_affine
) -> np.ndarray:
    """Return the correlation (N, OH, OW, P) of x (N, H, W, C), of whole vectors of channels.

    ``affine`` and ``pointwise_affine`` are their scales, biases and activations.
    """
    (N, _, _, C_padded), (OH, OW), dtype = x.shape, window.output, x.dtype
    (F, C), taps, L = pointwise_w.shape[:2], w[0].size, simd_width(dtype)
    (*depthwise_affine, depthwise_activation), (*affine, activation) = affine, pointwise_affine
    P, work = -(-F // L) * L, N * OH * OW * C * (F + taps)
    tasks = min(workers_for(work), N * OH)
    is_short = C * L * dtype.itemsize <= MAX_SHORT_BYTES
    tile = outer_product_tile_shape(N * OH // tasks * OW, P // L, in_first_level=is_short)
    y, width = empty((N, OH, OW, P), dtype), tile[1] * L
    launch(
        _correlate.for_work(work), x, w, window.pad_begin, window.stride, window.dilation[0],
        *scale_and_bias(*depthwise_affine, C, dtype), depthwise_activation,
        *row_offsets(window, C_padded), sliding_columns(OW), empty((taps * C_padded,), dtype),
        pointwise_w.reshape(F, C), *scale_and_bias(*affine, F, dtype), *np.zeros((2, P), dtype),
        activation, strided_offsets(C, 1), strided_offsets(C, width), tile,
        empty((tasks, -(-N * OH // tasks) * OW * C_padded), dtype),
        empty((tasks, C * width), dtype), y,
    )  # fmt: skip
    return y
