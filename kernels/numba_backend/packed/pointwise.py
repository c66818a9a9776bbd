"""Correlation of 1x1 windows on the packed layout, by panels of pixels.

A product of the filters and the pixels of a plane reads all channels of each pixel once for every
tile of filters. In memory, the channels lie a plane apart, often a power of two, and compete for
the same few cache sets. So each worker copies some pixels into a panel, the channels of a pixel
beside each other, and multiplies it by all filters while it lies in the second-level cache.
Meanwhile the pixels of its next panel are prefetched.

The filters are copied as well, in the order in which a register tile reads them. So the input
gradient, which sums over filters, is the same product with another copy.
"""

import numba
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.activations import activation_argument
from kernels.numba_backend.simd.micro_kernels import outer_product_tile, outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import load, prefetch_to_second_level, store

PANEL_BYTES = 128 << 10  # in second-level caches of 256 KiB and more
# Channels (in the input gradient, filters) from which on the copies pay. GFLOP/s on one thread of a
# Zen 4, in place and in panels, 256 images: 32 to 64 channels of 32x32 pixels 58 and 82, their
# gradient 41 and 71; 128 to 128 of 16x16 73 and 96, 256 to 256 of 8x8 95 and 102. Fewer channels
# read few lines: 16 to 16 of 32x32 61 and 59, their gradient 49 and 53, 3 to 32 33 and 36.
MIN_TERMS = 32


@parallel
def pack_filters(w, row_stride, term_stride, filter_tiles):
    """filter_tiles (tiles, terms, ROWS) = the rows of each tile; the last tile overlaps."""
    tiles, terms, ROWS = filter_tiles.shape
    rows = w.size // terms
    for tile in prange(tiles):
        first = min(tile * ROWS, rows - ROWS)
        for t in range(terms):
            for r in range(ROWS):
                filter_tiles[tile, t, r] = w[(first + r) * row_stride + t * term_stride]


@inlined
def multiply_panel(
    panel, pixel_stride, pixels, L, filter_tiles, terms, term_offsets, tile_offsets, scale, bias,
    activation, y, y_start, y_stride, rows, tile, x, next_start, next_stride, next_pixels,
):  # fmt: skip
    """y (rows, pixels, L) = the products of the filters and a panel (pixels, terms, L).

    The rows of y are ``y_stride`` apart, and the pixels of the panel ``pixel_stride``. For each
    pixel, ``next_pixels`` vectors of each channel of x are prefetched, from ``next_start`` on.
    """
    ROWS, COLUMNS = tile
    n_tiles = (rows + ROWS - 1) // ROWS
    for k in range(n_tiles):
        r = min(k * ROWS, rows - ROWS)
        first_channel, stop_channel = k * terms // n_tiles, (k + 1) * terms // n_tiles
        for column in range(0, pixels, COLUMNS):
            p = min(column, pixels - COLUMNS)
            for c in range(first_channel, stop_channel):
                start = next_start + c * next_stride + p * next_pixels * L
                for q in range(COLUMNS * next_pixels):
                    prefetch_to_second_level(x, start + q * L)
            outer_product_tile(
                panel, p * pixel_stride, term_offsets, pixel_stride,
                filter_tiles, k * terms * ROWS, tile_offsets, 1, terms,
                scale, bias, r, activation, y, y_start + r * y_stride + p * L, y_stride, L,
                ROWS, COLUMNS,
            )  # fmt: skip


@parallel
def _correlate(
    x, filter_tiles, term_offsets, tile_offsets, scale, bias, activation, y, tile, pixels,
    pixel_stride, panels,
):  # fmt: skip
    """y (B, F, S, L) = the products of the filters and the pixels of x (B, C, S, L)."""
    B, C, S, L = x.shape
    F, workers, n_chunks = y.shape[1], len(panels), (S + pixels - 1) // pixels
    x_flat, y_flat, filters_flat = x.reshape(-1), y.reshape(-1), filter_tiles.reshape(-1)
    for worker in prange(workers):
        panel = panels[worker]
        first_task = worker * B * n_chunks // workers
        stop_task = (worker + 1) * B * n_chunks // workers
        for task in range(first_task, stop_task):
            b, chunk = task // n_chunks, task % n_chunks
            first = min(chunk * pixels, S - pixels)
            for c in range(C):
                start = ((b * C + c) * S + first) * L
                for p in range(pixels):
                    store(panel, p * pixel_stride + c * L, load(x_flat, start + p * L))
            next_b, next_chunk = (task + 1) // n_chunks, (task + 1) % n_chunks
            multiply_panel(
                panel, pixel_stride, pixels, L, filters_flat, C, term_offsets, tile_offsets,
                scale, bias, activation, y_flat, (b * F * S + first) * L, S * L, F, tile,
                x_flat, (next_b * C * S + next_chunk * pixels) * L, S * L,
                1 if task + 1 < stop_task else 0,
            )  # fmt: skip


@serial
def _pack_and_correlate(
    x, w, row_stride, term_stride, filter_tiles, term_offsets, tile_offsets, scale, bias,
    activation, y, tile, pixels, pixel_stride, panels,
):  # fmt: skip
    pack_filters(w, row_stride, term_stride, filter_tiles)
    _correlate(
        x, filter_tiles, term_offsets, tile_offsets, scale, bias, activation, y, tile, pixels,
        pixel_stride, panels,
    )  # fmt: skip


def is_supported(window: Window, groups: int, n_summed: int) -> bool:
    """Return whether to use these kernels: every pixel is read alone, and enough is summed."""
    reads_single_pixels = window.size == window.stride == (1, 1) and window.padded == window.image
    return reads_single_pixels and groups == 1 and n_summed >= MIN_TERMS


def _product(x: PackedBatch, w, strides, affine, activation, y: PackedBatch) -> PackedBatch:
    """Fill y with the products of w and the pixels of x; ``strides`` are (row, term) of w."""
    (B, terms, S, L), rows, workers = x.planes.shape, y.shape[1], numba.get_num_threads()
    pixel_stride = (terms + 1) * L  # the pixels of a channel are in different cache sets
    n_chunks = -(-S // max(PANEL_BYTES // (terms * L * x.dtype.itemsize), 1))
    pixels = -(-S // max(n_chunks, min(S, -(-workers // B))))
    ROWS, _ = tile = outer_product_tile_shape(rows, pixels)
    launch(
        _pack_and_correlate, x.planes, w.reshape(-1), *strides,
        empty((-(-rows // ROWS), terms, ROWS), x.dtype), strided_offsets(terms, L),
        strided_offsets(terms, ROWS), *affine, activation, y.planes, tile, pixels, pixel_stride,
        empty((workers, pixels * pixel_stride), x.dtype),
    )  # fmt: skip
    return y


def correlate(x: PackedBatch, w, b, window: Window, scale, activation) -> PackedBatch:
    affine, y = scale_and_bias(scale, b, len(w), x.dtype), x.like(len(w), *window.output)
    return _product(x, w, (w.shape[1], 1), affine, activation, y)


def input_gradient(dy: PackedBatch, w, window: Window) -> PackedBatch:
    """Return dx."""
    C = w.shape[1]
    affine, dx = scale_and_bias(None, None, C, dy.dtype), dy.like(C, *window.image)
    return _product(dy, w, (1, C), affine, activation_argument(None, dy.dtype), dx)
