"""Kernels that cover a whole output with register tiles.

Where an output is no multiple of the tile, the last tile overlaps the one before it and computes
some sums twice: no second, smaller tile has to be compiled.
"""

from functools import lru_cache

import numba
from numba import njit, prange

from kernels.numba_backend.jit import OPTIONS
from kernels.numba_backend.lanes.layout import VECTOR_BYTES
from kernels.numba_backend.lanes.tile import product_tile, sum_tile

# A tile's columns for its rows. Measured on 28x28 pixels, 32 channels and 32 filters of 3x3 with
# 32 registers, in GFLOP/s of 400: 8x2 306, 4x4 296, 5x4 300; with 24 sums or more LLVM runs out
# of registers, 6x4 232, 8x3 204. Few shapes, since each takes half a second to compile.
SUM_TILES = {8: 2, 5: 4, 4: 4, 2: 4, 1: 4}
# The same for products: 4x6 285, 4x5 267, 2x9 244, 4x3 221, 8x3 186; for 5 rows, 5x5 224, 5x4 183.
PRODUCT_TILES = {5: 5, 4: 6, 2: 6, 1: 6}
if VECTOR_BYTES < 64:  # 16 registers
    SUM_TILES = {4: 2, 2: 4, 1: 4}
    PRODUCT_TILES = {3: 3, 2: 3, 1: 3}


def _tile_shape(tiles: dict[int, int], rows: int, columns: int) -> tuple[int, int]:
    """Return the tile that computes the fewest sums twice; of equals, the largest."""

    def waste(height):
        return -(-rows // height) * height

    height = min((height for height in tiles if height <= rows), key=waste)
    return height, tiles[height] if columns >= tiles[height] else 1


def sum_tile_shape(rows: int, columns: int) -> tuple[int, int]:
    """Return rows and columns of the sum tile for an output of this size."""
    return _tile_shape(SUM_TILES, rows, columns)


def product_tile_shape(rows: int, columns: int) -> tuple[int, int]:
    """Return rows and columns of the product tile for an output of this size."""
    return _tile_shape(PRODUCT_TILES, rows, columns)


@lru_cache
def sum_kernel(ROWS: int, COLUMNS: int, LANES: int) -> numba.core.dispatcher.Dispatcher:
    """Compile the kernel for a tile of this shape."""

    @njit(parallel=True, **OPTIONS)
    def sums(
        x, x_strides, x_terms, w, w_strides, w_terms, bias, out, out_strides,
        blocks, groups, lines, rows, columns,
    ):  # fmt: skip
        """out[b, g, i, r, c] = bias[g, r] + sum over t of w[g, r, t] * x[b, g, i, t, c].

        The strides are those of block, group, line and column of x; of group and row of w; of
        block, group, line, row and column of out.
        """
        tiles = (rows + ROWS - 1) // ROWS
        for task in prange(blocks * groups * lines * tiles):
            r = min(task % tiles * ROWS, rows - ROWS)
            i = task // tiles % lines
            g = task // (tiles * lines) % groups
            b = task // (tiles * lines * groups)
            x0 = b * x_strides[0] + g * x_strides[1] + i * x_strides[2]
            w0 = g * w_strides[0] + r * w_strides[1]
            out0 = b * out_strides[0] + g * out_strides[1] + i * out_strides[2]
            out0 += r * out_strides[3]
            for start in range(0, columns, COLUMNS):
                c = min(start, columns - COLUMNS)
                sum_tile(  # type: ignore[call-arg]
                    x, x0 + c * x_strides[3], x_terms, x_strides[3],
                    w, w0, w_terms, w_strides[1], x_terms.size, bias, g * rows + r,
                    out, out0 + c * out_strides[4], out_strides[3], out_strides[4],
                    ROWS, COLUMNS, LANES,
                )  # fmt: skip

    return sums


@lru_cache
def product_kernel(ROWS: int, COLUMNS: int, LANES: int) -> numba.core.dispatcher.Dispatcher:
    """Compile the kernel for a tile of this shape."""

    @njit(parallel=True, **OPTIONS)
    def products(
        a, a_group, a_row, a_lines, b, b_group, b_step, b_lines, b_terms, length, out, groups
    ):
        """out[p, g, r, c] = the products of row r of a and term c of b over part p of the lines."""
        parts, rows, columns = out.shape
        rows //= groups
        tiles, across = (rows + ROWS - 1) // ROWS, (columns + COLUMNS - 1) // COLUMNS
        flat = out.reshape(-1)
        for task in prange(parts * groups * tiles * across):
            c = min(task % across * COLUMNS, columns - COLUMNS)
            r = min(task // across % tiles * ROWS, rows - ROWS)
            g = task // (across * tiles) % groups
            p = task // (across * tiles * groups)
            first = p * a_lines.size // parts
            last = (p + 1) * a_lines.size // parts
            product_tile(  # type: ignore[call-arg]
                a, g * a_group + r * a_row, a_lines[first:last], a_row, LANES,
                b, g * b_group, b_lines[first:last], b_terms, c, b_step,
                last - first, length,
                flat, ((p * groups + g) * rows + r) * columns + c, columns,
                ROWS, COLUMNS, LANES,
            )  # fmt: skip

    return products
