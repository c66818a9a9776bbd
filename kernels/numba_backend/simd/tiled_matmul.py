"""Matrix products that cover their whole output with register tiles, and sums over channels.

The arrays are flat and may have any layout: strides and tables of offsets say where rows, columns
and summed terms lie, so that a convolution is such a product without a copy of its windows. Where
the output is no multiple of the tile, the last tile overlaps the one before it and computes some
sums twice; so no tile needs a mask.
"""

from functools import lru_cache

import numpy as np
from numba import prange

from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.micro_kernels import dot_tile, outer_product_tile, product_tile
from kernels.numba_backend.simd.pixels import (
    add_channel_sums,
    channels_per_plane,
    load_pixel,
    splat_pixel,
)
from kernels.numba_backend.simd.vectors import VECTOR_BYTES

CHUNK_VECTORS = 256  # vectors summed in their own dtype before their sum is added up in float64


@lru_cache(maxsize=256)
def strided_offsets(count: int, stride: int) -> np.ndarray:
    """Return the offsets 0, stride, 2 * stride, ... of so many terms."""
    return np.arange(count, dtype=np.int64) * stride


@lru_cache(maxsize=64)
def _filled(value: float, count: int, dtype: np.dtype) -> np.ndarray:
    return np.full(count, value, dtype)


def scale_and_bias(scale, bias, count: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale and the bias as arrays: ones and zeros where they are None."""
    return (
        _filled(1.0, count, dtype) if scale is None else scale,
        _filled(0.0, count, dtype) if bias is None else bias,
    )


@parallel
def tiled_matmul(
    x, x_strides, x_offsets, w, w_strides, w_offsets, scale, bias, activation,
    out, out_strides, counts, tile,
):  # fmt: skip
    """out[b, g, i, r, c] = scale[g, r] * sum over t of w[g, r, t] * x[b, g, i, t, c] + bias[g, r].

    The activation, one of `kernels.activations`, is applied to the results.

    Parameters
    ----------
    counts
        Numbers of blocks b, groups g, slices i (in a convolution, the rows of output pixels), rows
        r and columns c. A column is one vector.
    x_strides
        Of b, g, i and c.
    w_strides
        Of g and r.
    out_strides
        Of b, g, i, r and c.
    x_offsets, w_offsets
        Offset of each summed term t.
    tile
        One of `micro_kernels.OUTER_PRODUCT_TILES`, no larger than (r, c).
    """
    blocks, groups, slices, rows, columns = counts
    ROWS, COLUMNS = tile
    row_tiles = (rows + ROWS - 1) // ROWS
    for task in prange(blocks * groups * slices * row_tiles):
        r = min(task % row_tiles * ROWS, rows - ROWS)
        i = task // row_tiles % slices
        g = task // (row_tiles * slices) % groups
        b = task // (row_tiles * slices * groups)
        x_base = b * x_strides[0] + g * x_strides[1] + i * x_strides[2]
        w_base = g * w_strides[0] + r * w_strides[1]
        out_base = b * out_strides[0] + g * out_strides[1] + i * out_strides[2] + r * out_strides[3]
        for start in range(0, columns, COLUMNS):
            c = min(start, columns - COLUMNS)
            outer_product_tile(
                x, x_base + c * x_strides[3], x_offsets, x_strides[3],
                w, w_base, w_offsets, w_strides[1], x_offsets.size,
                scale, bias, g * rows + r, activation,
                out, out_base + c * out_strides[4], out_strides[3], out_strides[4],
                ROWS, COLUMNS,
            )  # fmt: skip


@serial
def batched_matmul(
    batch, x, x_stride, x_offsets, w, w_stride, w_row_stride, w_offsets, n_terms,
    out, out_stride, rows, max_rows, columns, tile,
):  # fmt: skip
    """out[i, r, c] = sum over t of w[i, r, t] * x[i, t, c], for i < batch and r < rows.

    A column is one vector; the columns of x and out lie beside each other. Up to ``max_rows`` rows
    may be computed. ``tile`` is one of `micro_kernels.OUTER_PRODUCT_TILES`, no larger than
    (max_rows, columns).

    This is a function of its own, for a kernel has more variables than the processor has registers:
    the products of Winograd's method for 32 channels and filters ran at 100 GFLOP/s of 150 in the
    kernel on an Intel Xeon, and at 104 here.
    """
    (ROWS, COLUMNS), L = tile, VECTOR_BYTES // out.itemsize
    for i in range(batch):
        for row in range(0, rows, ROWS):
            r = min(row, max_rows - ROWS)
            for column in range(0, columns, COLUMNS):
                c = min(column, columns - COLUMNS)
                product_tile(
                    x, i * x_stride + c * L, x_offsets, L,
                    w, i * w_stride + r * w_row_stride, w_offsets, w_row_stride, n_terms,
                    out, i * out_stride + (r * columns + c) * L, columns * L, L,
                    ROWS, COLUMNS, False,
                )  # fmt: skip


@parallel
def tiled_matmul_nt(
    a, a_group_stride, a_row_stride, a_vector_stride, a_segment_offsets,
    b, b_group_stride, b_vector_stride, b_segment_offsets, b_column_offsets,
    segment_length, groups, tile, out,
):  # fmt: skip
    """out[p, g, r, c] = the dot product of row r of a and row c of b, over part p of the segments.

    The summed dimension lies in the lanes of both, as in A @ B.T of row-major matrices. It is cut
    into segments of ``segment_length`` vectors that lie ``vector_stride`` apart, and the segments
    into the parts of out (parts, groups * rows, columns). See `dot_tile` for the offsets.
    """
    parts, rows, columns = out.shape
    rows //= groups
    ROWS, COLUMNS = tile
    row_tiles, column_tiles = (rows + ROWS - 1) // ROWS, (columns + COLUMNS - 1) // COLUMNS
    out_flat = out.reshape(-1)
    for task in prange(parts * groups * row_tiles * column_tiles):
        c = min(task % column_tiles * COLUMNS, columns - COLUMNS)
        r = min(task // column_tiles % row_tiles * ROWS, rows - ROWS)
        g = task // (column_tiles * row_tiles) % groups
        p = task // (column_tiles * row_tiles * groups)
        first = p * a_segment_offsets.size // parts
        stop = (p + 1) * a_segment_offsets.size // parts
        dot_tile(
            a, g * a_group_stride + r * a_row_stride, a_segment_offsets, a_row_stride,
            a_vector_stride,
            b, g * b_group_stride, b_segment_offsets, b_column_offsets, c, b_vector_stride,
            first, stop - first, segment_length,
            out_flat, ((p * groups + g) * rows + r) * columns + c, columns,
            ROWS, COLUMNS,
        )  # fmt: skip


@inlined
def add_pixel_sums(x, start, count, sums, channel):
    """Add ``count`` neighboring pixels of x to the float64 sums of their channels.

    The channels of a plane begin at ``sums[channel]``.
    """
    L = VECTOR_BYTES // x.itemsize
    for first in range(0, count, CHUNK_VECTORS):
        stop = min(first + CHUNK_VECTORS, count)
        acc0 = load_pixel(x, start + first * L)
        acc1 = splat_pixel(x, 0.0)  # one alone would wait four cycles for each addition
        for p in range(first + 1, stop - 1, 2):
            acc0 += load_pixel(x, start + p * L)
            acc1 += load_pixel(x, start + (p + 1) * L)
        if (stop - first) % 2 == 0:
            acc1 += load_pixel(x, start + (stop - 1) * L)
        add_channel_sums(x, acc0 + acc1, sums, channel)


@parallel
def channel_sums(x, out):
    """out (C,) = the sum of each channel of x (B, planes, S, L), whose padding lanes hold 0."""
    B, planes, S, L = x.shape
    x_flat, per_plane = x.reshape(-1), channels_per_plane(x)
    sums = np.empty(B * planes * per_plane)
    for task in prange(B * planes):
        for i in range(per_plane):
            sums[task * per_plane + i] = 0.0
        add_pixel_sums(x_flat, task * S * L, S, sums, task * per_plane)
    for c in range(out.size):
        channel_sum = 0.0
        for b in range(B):
            channel_sum += sums[b * planes * per_plane + c]
        out[c] = channel_sum
