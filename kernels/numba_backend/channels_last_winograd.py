"""3x3 correlation of a few images by Winograd's method, with the channels in the SIMD lanes.

`packed.winograd` explains the method. Here the transforms of a patch of the input are additions of
vectors of channels, and those of the filters and of the outputs additions of vectors of filters.
Each worker transforms all filters for itself, and then computes a run of patches: the filters would
take longer to fetch from another core than to transform again.
"""

import numba
import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.activations import activate
from kernels.numba_backend.simd.copies import transpose_padded
from kernels.numba_backend.simd.micro_kernels import (
    outer_product_tile_of_columns,
    outer_product_tile_shape,
)
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, load, splat, store

MAX_WEIGHTS = 1 << 14  # filters times channels: more take longer to transform than they save


def is_supported(window: Window, groups: int, channels: int, filters: int) -> bool:
    is_plain = window.stride == window.dilation == (1, 1) and groups == 1
    is_large = min(channels, filters) > 16 and min(window.output) >= 4
    return is_plain and window.size == (3, 3) and is_large and channels * filters <= MAX_WEIGHTS


@inlined
def _transform_input(a, b, c, d):
    """Return B' of a column of four vectors."""
    return a - c, b + c, c - b, b - d


@inlined
def _transform_output(a, b, c, d):
    """Return A' of a column of four vectors."""
    return a + b + c, b - c - d


@inlined
def _transform_input_row(x, start, stride):
    """Return B' of four vectors of a row."""
    return _transform_input(
        load(x, start), load(x, start + stride), load(x, start + 2 * stride),
        load(x, start + 3 * stride),
    )  # fmt: skip


@inlined
def _store_input_column(out, start, stride, a, b, c, d):
    """Write B' of a column to the elements (0..3, column) of a transformed patch."""
    a, b, c, d = _transform_input(a, b, c, d)
    store(out, start, a)
    store(out, start + 4 * stride, b)
    store(out, start + 8 * stride, c)
    store(out, start + 12 * stride, d)


@inlined
def _transform_patch(x, start, row_stride, column_stride, out, out_start, out_stride):
    """Write the 16 elements of B' d B, where d is the 4x4 patch of vectors of x at ``start``."""
    a0, a1, a2, a3 = _transform_input_row(x, start, column_stride)
    b0, b1, b2, b3 = _transform_input_row(x, start + row_stride, column_stride)
    c0, c1, c2, c3 = _transform_input_row(x, start + 2 * row_stride, column_stride)
    d0, d1, d2, d3 = _transform_input_row(x, start + 3 * row_stride, column_stride)
    _store_input_column(out, out_start, out_stride, a0, b0, c0, d0)
    _store_input_column(out, out_start + out_stride, out_stride, a1, b1, c1, d1)
    _store_input_column(out, out_start + 2 * out_stride, out_stride, a2, b2, c2, d2)
    _store_input_column(out, out_start + 3 * out_stride, out_stride, a3, b3, c3, d3)


@inlined
def _transform_output_row(products, start, stride):
    """Return A' of four products of a row."""
    return _transform_output(
        load(products, start), load(products, start + stride), load(products, start + 2 * stride),
        load(products, start + 3 * stride),
    )  # fmt: skip


@inlined
def _transform_products(products, start, stride):
    """Return the 2x2 outputs A' [...] A, row by row, of the 16 products of a patch."""
    a0, a1 = _transform_output_row(products, start, stride)
    b0, b1 = _transform_output_row(products, start + 4 * stride, stride)
    c0, c1 = _transform_output_row(products, start + 8 * stride, stride)
    d0, d1 = _transform_output_row(products, start + 12 * stride, stride)
    upper0, lower0 = _transform_output(a0, b0, c0, d0)
    upper1, lower1 = _transform_output(a1, b1, c1, d1)
    return upper0, upper1, lower0, lower1


@inlined
def _transform_column(a, b, c, half):
    """Return G of a column of three vectors."""
    total = (a + c) * half
    return a, total + b * half, total - b * half, c


@inlined
def _transform_filters(taps, C, columns, transformed):
    """transformed (16, C, columns) = G g G' of the taps (C * 9, columns) of the filters."""
    L = VECTOR_BYTES // taps.itemsize
    half, stride = splat(taps.dtype.type(0.5)), C * columns
    for c in range(C):
        for f in range(0, columns, L):
            g = c * 9 * columns + f
            a0, a1, a2, a3 = _transform_column(
                load(taps, g), load(taps, g + 3 * columns), load(taps, g + 6 * columns), half
            )
            b0, b1, b2, b3 = _transform_column(
                load(taps, g + columns), load(taps, g + 4 * columns),
                load(taps, g + 7 * columns), half,
            )  # fmt: skip
            c0, c1, c2, c3 = _transform_column(
                load(taps, g + 2 * columns), load(taps, g + 5 * columns),
                load(taps, g + 8 * columns), half,
            )  # fmt: skip
            out = c * columns + f
            _store_row(transformed, out, stride, a0, b0, c0, half)
            _store_row(transformed, out + 4 * stride, stride, a1, b1, c1, half)
            _store_row(transformed, out + 8 * stride, stride, a2, b2, c2, half)
            _store_row(transformed, out + 12 * stride, stride, a3, b3, c3, half)


@inlined
def _store_row(out, start, stride, a, b, c, half):
    """Write G of a row of three vectors."""
    a, b, c, d = _transform_column(a, b, c, half)
    store(out, start, a)
    store(out, start + stride, b)
    store(out, start + 2 * stride, c)
    store(out, start + 3 * stride, d)


@inlined
def _pad_row(x, n, i, left, padded, row):
    """Row ``row`` of padded (rows, width, P) = row i of image n of x (N, H, W, P), among zeros."""
    _, H, W, P = x.shape
    width, L = padded.shape[1], VECTOR_BYTES // x.itemsize
    x_flat, padded_flat, zero = x.reshape(-1), padded.reshape(-1), splat(x.dtype.type(0))
    for q in range(width):
        is_inside = 0 <= i < H and left <= q < left + W
        for p in range(0, P, L):
            value = zero
            if is_inside:
                value = load(x_flat, ((n * H + i) * W + q - left) * P + p)
            store(padded_flat, (row * width + q) * P + p, value)


@parallel
def _correlate(
    x, C, pad_begin, w, tap_offsets, x_offsets, scale, bias, activation, tile, ones, zeros,
    identity, taps, filters, padded, patches, products, y,
):  # fmt: skip
    """y (N, OH, OW, P) = the correlation of x (N, H, W, P) with w (F, C, 3, 3).

    The rest is work space of each worker: taps (workers, 9 * C, columns) and filters (workers, 16,
    C, columns), padded (workers, 4, width, P of x) for the rows under a row of patches, patches
    (workers, 16, patches, P of x) and products (workers, 16, patches, columns).
    """
    N, OH, OW, P = y.shape
    F, (top, left), (ROWS, COLUMNS) = len(w), pad_begin, tile
    workers, _, columns = taps.shape
    _, _, n_patches, P_x = patches.shape
    width, L = padded.shape[2], VECTOR_BYTES // x.itemsize
    patch_rows, patch_columns = (OH + 1) // 2, (OW + 1) // 2
    w_flat, y_flat = w.reshape(-1), y.reshape(-1)
    for worker in prange(workers):
        taps_flat, filters_flat = taps[worker].reshape(-1), filters[worker].reshape(-1)
        patches_flat, products_flat = patches[worker].reshape(-1), products[worker].reshape(-1)
        padded_flat = padded[worker].reshape(-1)
        total = N * patch_rows * patch_columns
        first, last = worker * total // workers, (worker + 1) * total // workers
        if first < last:
            transpose_padded(w_flat, 0, 9 * C, F, 9 * C, taps_flat, 0, columns)
            _transform_filters(taps_flat, C, columns, filters_flat)
        for run in range(first, last, n_patches):
            count = min(n_patches, last - run)
            copied = -1
            for p in range(count):
                row, j = (run + p) // patch_columns, (run + p) % patch_columns
                if row != copied:
                    for r in range(4):
                        i = row % patch_rows * 2 - top + r
                        _pad_row(x, row // patch_rows, i, left, padded[worker], r)
                    copied = row
                for v in range(0, P_x, L):
                    _transform_patch(
                        padded_flat, 2 * j * P_x + v, width * P_x, P_x,
                        patches_flat, p * P_x + v, n_patches * P_x,
                    )  # fmt: skip
            for u in range(16):
                for start in range(0, count, ROWS):
                    p = min(start, n_patches - ROWS)
                    for column in range(0, columns, COLUMNS * L):
                        f = min(column, columns - COLUMNS * L)
                        outer_product_tile_of_columns(
                            filters_flat, u * C * columns + f, tap_offsets, L,
                            patches_flat, (u * n_patches + p) * P_x, x_offsets, P_x, C,
                            ones, zeros, f, identity,
                            products_flat, (u * n_patches + p) * columns + f, columns, L,
                            ROWS, COLUMNS,
                        )  # fmt: skip
            for p in range(count):
                row, j = (run + p) // patch_columns, (run + p) % patch_columns
                n, i = row // patch_rows, row % patch_rows
                has_right, has_below = 2 * j + 1 < OW, 2 * i + 1 < OH
                for f in range(0, columns, L):
                    factor, shift = load(scale, f), load(bias, f)
                    upper0, upper1, lower0, lower1 = _transform_products(
                        products_flat, p * columns + f, n_patches * columns
                    )
                    out = ((n * OH + 2 * i) * OW + 2 * j) * P + f
                    store(y_flat, out, activate(upper0 * factor + shift, activation))
                    if has_right:
                        store(y_flat, out + P, activate(upper1 * factor + shift, activation))
                    if has_below:
                        store(y_flat, out + OW * P, activate(lower0 * factor + shift, activation))
                    if has_right and has_below:
                        out += (OW + 1) * P
                        store(y_flat, out, activate(lower1 * factor + shift, activation))


@serial
def _fill_vectors(values, padded):
    """padded = values and then zeros."""
    for i in range(padded.size):
        padded[i] = values[i] if i < values.size else 0


MAX_PATCHES = 64  # of a run: their transforms stay in the second-level cache


def correlate(x: np.ndarray, C: int, w, b, window: Window, scale, activation) -> np.ndarray:
    """Return the correlation (N, OH, OW, P) of x (N, H, W, P), of whole vectors of channels."""
    F, N, P_x, dtype, L = len(w), len(x), x.shape[3], x.dtype, simd_width(x.dtype)
    (OH, OW), workers = window.output, numba.get_num_threads()
    columns = -(-F // L) * L
    patch_rows, patch_columns = (OH + 1) // 2, (OW + 1) // 2
    share = -(-N * patch_rows * patch_columns // workers)
    n_patches = -(-share // -(-share // MAX_PATCHES))
    scale, b = scale_and_bias(scale, b, F, dtype)
    if columns != F:
        padded_scale, padded_bias = empty((2, columns), dtype)
        launch(_fill_vectors, scale, padded_scale)
        launch(_fill_vectors, b, padded_bias)
        scale, b = padded_scale, padded_bias
    y = empty((N, OH, OW, columns), dtype)
    launch(
        _correlate, x, C, window.pad_begin, w, strided_offsets(C, columns), strided_offsets(C, 1),
        scale, b, activation, outer_product_tile_shape(n_patches, columns // L),
        *scale_and_bias(None, None, columns, dtype), dtype.type(1),
        empty((workers, 9 * C, columns), dtype), empty((workers, 16, C, columns), dtype),
        empty((workers, 4, 2 * patch_columns + 2, P_x), dtype),
        empty((workers, 16, n_patches, P_x), dtype),
        empty((workers, 16, n_patches, columns), dtype), y,
    )  # fmt: skip
    return y
