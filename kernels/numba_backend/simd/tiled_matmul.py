"""Kernels that cover a whole output with register tiles.

Where an output is no multiple of the tile, the last tile overlaps the one before it and computes
some sums twice.
"""

import numpy as np
from numba import prange

from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.micro_kernels import dot_tile, outer_product_tile
from kernels.numba_backend.simd.vectors import load, reduce_sum

CHUNK = 256  # vectors added in their own precision before the sum goes on in float64


@parallel
def tiled_matmul(
    x, x_strides, x_terms, w, w_strides, w_terms, scale, bias, negative_slope, out, out_strides, counts,
    tile,
):  # fmt: skip
    """out[b, g, i, r, c] = scale[g, r] * sum over t of w[g, r, t] * x[b, g, i, t, c] + bias[g, r].

    What is negative is multiplied by the slope.

    counts are the numbers of blocks b, groups g, lines i, rows r and columns c. The strides are
    those of b, g, i and c in x; of g and r in w; of b, g, i, r and c in out.
    """
    blocks, groups, lines, rows, columns = counts
    ROWS, COLUMNS = tile
    tiles = (rows + ROWS - 1) // ROWS
    for task in prange(blocks * groups * lines * tiles):
        r = min(task % tiles * ROWS, rows - ROWS)
        i = task // tiles % lines
        g = task // (tiles * lines) % groups
        b = task // (tiles * lines * groups)
        x0 = b * x_strides[0] + g * x_strides[1] + i * x_strides[2]
        w0 = g * w_strides[0] + r * w_strides[1]
        out0 = b * out_strides[0] + g * out_strides[1] + i * out_strides[2] + r * out_strides[3]
        for start in range(0, columns, COLUMNS):
            c = min(start, columns - COLUMNS)
            outer_product_tile(
                x, x0 + c * x_strides[3], x_terms, x_strides[3],
                w, w0, w_terms, w_strides[1], x_terms.size, scale, bias, g * rows + r,
                negative_slope,
                out, out0 + c * out_strides[4], out_strides[3], out_strides[4],
                ROWS, COLUMNS,
            )  # fmt: skip


@parallel
def tiled_matmul_nt(
    a, a_group, a_row, a_step, a_lines, b, b_group, b_step, b_lines, b_terms, length, groups,
    tile, out,
):  # fmt: skip
    """out[p, g, r, c] = the products of row r of a and term c of b over part p of the lines."""
    parts, rows, columns = out.shape
    rows //= groups
    ROWS, COLUMNS = tile
    tiles, across = (rows + ROWS - 1) // ROWS, (columns + COLUMNS - 1) // COLUMNS
    flat = out.reshape(-1)
    for task in prange(parts * groups * tiles * across):
        c = min(task % across * COLUMNS, columns - COLUMNS)
        r = min(task // across % tiles * ROWS, rows - ROWS)
        g = task // (across * tiles) % groups
        p = task // (across * tiles * groups)
        first = p * a_lines.size // parts
        last = (p + 1) * a_lines.size // parts
        dot_tile(
            a, g * a_group + r * a_row, a_lines, a_row, a_step,
            b, g * b_group, b_lines, b_terms, c, b_step,
            first, last - first, length,
            flat, ((p * groups + g) * rows + r) * columns + c, columns,
            ROWS, COLUMNS,
        )  # fmt: skip


@parallel
def channel_sums(x, out):
    """out (C,) = the sum of each channel of x (B, C, S, L); empty lanes hold 0."""
    B, C, S, L = x.shape
    flat = x.reshape(-1)
    sums = np.empty(B * C)
    for task in prange(B * C):
        plane = 0.0
        for s in range(0, S, CHUNK):
            at = (task * S + s) * L
            some = load(flat, at)
            for p in range(at + L, at + min(CHUNK, S - s) * L, L):
                some += load(flat, p)
            plane += np.float64(reduce_sum(some))
        sums[task] = plane
    for c in range(C):
        channel = 0.0
        for b in range(B):
            channel += sums[b * C + c]
        out[c] = channel
