"""Correlation of a few plain images with few filters: neighboring pixels of a row in the lanes.

With so few filters, neither images nor channels would fill a vector. A vector of pixels begins at
any pixel, so that each tap of a filter is an unaligned load from the padded image. The activations
are plain arrays (N, C, H, W).
"""

from functools import lru_cache

import numba
import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.copies import copy_row
from kernels.numba_backend.simd.micro_kernels import outer_product_tile, outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import VECTOR_BYTES

# Microseconds of one image on one thread of a Zen 4, here and with the channels in the lanes: 5
# filters of 5x5 on 1 channel of 28x28 pixels ROWS0, of 3x3 on 5 channels of 14x14 ROWS1.
MAX_FILTERS = 8
MIN_WORK = 1 << 20  # multiply-adds that are worth a second thread


def is_supported(window: Window, groups: int, filters: int) -> bool:
    is_dense = window.stride == (1, 1) and groups == 1
    return is_dense and filters <= MAX_FILTERS


@parallel
def _correlate(x, pad_begin, x_offsets, w, w_offsets, scale, bias, activation, tile, padded, rows,
               y):  # fmt: skip
    """y (N, F, OH, OW) = the correlation of x (N, C, H, W) with w.

    padded (workers, C, padded rows, width) is work space for one image. Its rows end with as many
    zeros as a vector reads beyond the last window. rows (workers, F, vectors of a row) receives a
    row of outputs.
    """
    N, C, H, W = x.shape
    _, F, OH, OW = y.shape
    workers, _, padded_h, width = padded.shape
    (top, left), (ROWS, COLUMNS), L = pad_begin, tile, VECTOR_BYTES // x.itemsize
    row_width = rows.shape[2]
    x_flat, w_flat, y_flat = x.reshape(-1), w.reshape(-1), y.reshape(-1)
    for worker in prange(workers):
        image, row = padded[worker].reshape(-1), rows[worker].reshape(-1)
        first, last = worker * N * OH // workers, (worker + 1) * N * OH // workers
        copied = -1
        for task in range(first, last):
            n, i = task // OH, task % OH
            if n != copied:
                image[:] = 0
                for c in range(C):
                    for h in range(max(0, -top), min(H, padded_h - top)):
                        copy_row(
                            x_flat, ((n * C + c) * H + h) * W + max(0, -left), 1,
                            image, (c * padded_h + h + top) * width + max(left, 0),
                            min(W - max(0, -left), width - max(left, 0)),
                        )  # fmt: skip
                copied = n
            for start in range(0, row_width // L, COLUMNS):
                v = min(start, row_width // L - COLUMNS)
                for f in range(0, F, ROWS):
                    r = min(f, F - ROWS)
                    outer_product_tile(
                        image, i * width + v * L, x_offsets, L,
                        w_flat, r * w_offsets.size, w_offsets, w_offsets.size, w_offsets.size,
                        scale, bias, r, activation,
                        row, r * row_width + v * L, row_width, L, ROWS, COLUMNS,
                    )  # fmt: skip
            for f in range(F):
                copy_row(row, f * row_width, 1, y_flat, ((n * F + f) * OH + i) * OW, OW)


@lru_cache(maxsize=256)
def _tap_offsets(C: int, window: Window, padded_h: int, width: int) -> np.ndarray:
    """Return the offset of each tap of each channel in a padded image."""
    (KH, KW), (dh, dw) = window.size, window.dilation
    c, k, m = np.ogrid[:C, :KH, :KW]
    return ((c * padded_h + k * dh) * width + m * dw).astype(np.int64).ravel()


def correlate(x: np.ndarray, w, b, window: Window, scale, activation) -> np.ndarray:
    """Return the correlation; all arguments are checked."""
    (N, C), F, dtype, L = x.shape[:2], len(w), x.dtype, simd_width(x.dtype)
    (OH, OW), terms = window.output, w[0].size
    vectors = -(-OW // L)
    padded_h, width = window.padded[0], window.padded[1] + vectors * L - OW
    workers = numba.get_num_threads() if N * OH * OW * F * terms >= MIN_WORK else 1
    y = empty((N, F, OH, OW), dtype)
    launch(
        _correlate, x, window.pad_begin, _tap_offsets(C, window, padded_h, width), w,
        strided_offsets(terms, 1), *scale_and_bias(scale, b, F, dtype), activation,
        outer_product_tile_shape(F, vectors), empty((workers, C, padded_h, width), dtype),
        empty((workers, F, vectors * L), dtype), y,
    )  # fmt: skip
    return y
