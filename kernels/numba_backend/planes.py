"""Correlation and max pooling of a few images, with neighboring pixels in the SIMD lanes.

Where a convolution has few filters, the lanes of `channels_last` stay empty. Here a channel of an
image is a plane, and a vector holds a run of its pixels. All rows of the padded input and of the
output are equally long. A run may therefore go on in the next row. The pixels between two rows of
the output are numbers that nobody reads.
"""

import numpy as np
from numba import prange

from kernels import validation
from kernels.geometry import Window
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import SizedKernel
from kernels.numba_backend.simd.micro_kernels import outer_product_tile, outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    even_lanes,
    gather_strided,
    masked_load,
    masked_store,
    splat,
    where,
)
from kernels.numba_backend.simd.windows import clip, is_new_max, valid_range


class Planes:
    """Activations of a few images.

    Attributes
    ----------
    data : (N, C, H, P)
        The first W of the P numbers of a row are its pixels.
    shape : (N, C, H, W)
        The shape that the layers see.
    """

    __slots__ = ("data", "shape")

    def __init__(self, data: np.ndarray, columns: int):
        self.data, self.shape = data, (*data.shape[:3], columns)

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype


@SizedKernel
def _copy_rows(x, out):
    """out (rows, W) = the first W numbers of each row of x."""
    rows, W = out.shape
    L, P = VECTOR_BYTES // x.itemsize, x.shape[1]
    x_flat, out_flat = x.reshape(-1), out.reshape(-1)
    for row in prange(rows):
        for j in range(0, W, L):
            masked_store(out_flat, row * W + j, masked_load(x_flat, row * P + j, W - j), W - j)


def to_array(x: Planes) -> np.ndarray:
    if x.data.shape == x.shape:
        return x.data
    out = empty(x.shape, x.dtype)
    rows, columns = x.data.shape[3], x.shape[3]
    launch(_copy_rows.for_work(out.size), x.data.reshape(-1, rows), out.reshape(-1, columns))
    return out


def _row_width(window: Window) -> int:
    """Return the length of the rows of the padded input and of the output."""
    return window.padded[1]


def _span(window: Window) -> int:
    """Return the number of pixels from the first to the last one of an output plane."""
    (OH, OW), width = window.output, _row_width(window)
    return (OH - 1) * width + OW


def is_faster(window: Window, groups: int, filters: int, dtype: np.dtype) -> bool:
    """Return whether this kernel takes fewer multiplications than that of `channels_last`."""
    if groups > 1 or window.stride != (1, 1) or _span(window) < simd_width(dtype):
        return False
    OH, OW = window.output
    channels_last_vectors = OH * OW * -(-filters // simd_width(dtype))
    vectors = filters * -(-_span(window) // simd_width(dtype))
    return 4 * vectors <= 3 * channels_last_vectors


@SizedKernel
def _correlate(
    x, columns, pad_begin, padded, x_offsets, w, w_offsets, scale, bias, activation, span, tile, y
):
    """y (N, F, OH, width) = the correlation of x (N, C, H, P) with the filters w (F, C, KH, KW).

    ``padded`` (N, C, padded H, width) gets the first ``columns`` pixels of the rows of x.
    """
    N, C, H, P = x.shape
    _, F, OH, width = y.shape
    height, (top, left), (ROWS, COLUMNS) = padded.shape[2], pad_begin, tile
    L, terms = VECTOR_BYTES // x.itemsize, w_offsets.size
    x_flat, w_flat, y_flat, padded_flat = (
        x.reshape(-1), w.reshape(-1), y.reshape(-1), padded.reshape(-1),
    )  # fmt: skip
    for plane in prange(N * C):
        for r in range(height):
            row, i = (plane * height + r) * width, r - top
            stop = left if 0 <= i < H else width
            for j in range(stop):
                padded_flat[row + j] = 0
            if 0 <= i < H:
                for j in range(0, columns, L):
                    pixels = masked_load(x_flat, (plane * H + i) * P + j, columns - j)
                    masked_store(padded_flat, row + left + j, pixels, columns - j)
                for j in range(left + columns, width):
                    padded_flat[row + j] = 0
    step = COLUMNS * L
    tiles = (span + step - 1) // step
    for task in prange(N * tiles):
        n, p = task // tiles, min(task % tiles * step, span - step)
        for first in range(0, F, ROWS):
            f = min(first, F - ROWS)
            outer_product_tile(
                padded_flat, n * C * height * width + p, x_offsets, L,
                w_flat, f * terms, w_offsets, terms, terms, scale, bias, f, activation,
                y_flat, (n * F + f) * OH * width + p, OH * width, L, ROWS, COLUMNS,
            )  # fmt: skip


def correlate(x: Planes, w, b, window: Window, scale, activation, x_offsets) -> Planes:
    """Return the correlation; ``x_offsets`` are those of the terms in the padded planes."""
    (N, C), F, T, dtype = x.shape[:2], len(w), w[0].size, x.dtype
    (OH, OW), width, span = window.output, _row_width(window), _span(window)
    y = Planes(empty((N, F, OH, width), dtype), OW)
    launch(
        _correlate.for_work(N * F * T * OH * OW), x.data, x.shape[3], window.pad_begin,
        empty((N, C, window.padded[0], width), dtype), x_offsets, w, strided_offsets(T, 1),
        *scale_and_bias(scale, b, F, dtype), activation, span,
        outer_product_tile_shape(F, span // simd_width(dtype)), y.data,
    )  # fmt: skip
    return y


@SizedKernel
def _max_pool(x, W, size, stride, pad_begin, y):
    """Pool neighboring windows in the lanes of a vector; padding counts as -inf."""
    N, C, H, P = x.shape
    _, _, OH, OW = y.shape
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    L, lowest = VECTOR_BYTES // x.itemsize, splat(x.dtype.type(-np.inf))
    for row in prange(N * C * OH):
        plane, i = row // OH, row % OH
        top, bottom = clip(i * stride[0] - pad_begin[0], size[0], H)
        for j in range(0, OW, L):
            count, largest = min(OW - j, L), lowest
            for p in range(top, bottom):
                for q in range(size[1]):
                    left = j * stride[1] - pad_begin[1] + q
                    x0 = (plane * H + p) * P + left
                    if stride[1] == 2 and left >= 0 and left + 2 * count - 2 < W:
                        # A gather would take ten times as long.
                        pixel = even_lanes(
                            masked_load(x_flat, x0, W - left),
                            masked_load(x_flat, x0 + L, W - left - L),
                        )
                    else:
                        low, high = valid_range(left, stride[1], W, count)
                        pixel = gather_strided(x_flat, x0, stride[1], low, high, lowest)
                    largest = where(is_new_max(pixel, largest), pixel, largest)
            masked_store(y_flat, row * OW + j, largest, count)


def max_pool(x: Planes, pool_size, stride=None, padding=0):
    """Return the largest pixels, and None for the indices, which only a gradient needs."""
    window = validation.make_pool_window(x.shape[2:], pool_size, stride, padding)
    y = Planes(empty((*x.shape[:2], *window.output), x.dtype), window.output[1])
    work = y.data.size * window.size[0] * window.size[1]
    launch(
        _max_pool.for_work(work), x.data, x.shape[3],
        window.size, window.stride, window.pad_begin, y.data,
    )  # fmt: skip
    return y, None
