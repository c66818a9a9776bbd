"""A depthwise separable correlation on the packed layout: depthwise, then 1x1, in one kernel.

The depthwise correlation writes some rows of outputs of all channels straight into the panel that
`pointwise.multiply_panel` reads, in the second-level cache. Its output, as large as its input,
never goes to memory, which is where two kernels spend a quarter of their time.
"""

import numba
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed import depthwise
from kernels.numba_backend.packed.depthwise import correlate_row
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.packed.pointwise import multiply_panel, pack_filters
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.micro_kernels import outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import VECTOR_BYTES

# Panels have as many rows as fit the first size, or one row. Beside them, the second-level cache
# holds some filters and the rows that the next panel is computed from.
PANEL_BYTES, MAX_PANEL_BYTES = 128 << 10, 512 << 10


@parallel
def _correlate(
    x, w, depthwise_scale, depthwise_bias, depthwise_activation, phase, row_step, column_step,
    term_rows, x_offsets, w_offsets, filter_tiles, term_offsets, tile_offsets, scale, bias,
    activation, y, tile, band_rows, pixel_stride, panels, filters,
):  # fmt: skip
    """y (B, F, OH, OW, L) = the 1x1 correlation of the depthwise one of x (B, C, H, W, L).

    See `depthwise._Geometry` for the arguments from ``phase`` to ``w_offsets``. panels and filters
    are work space for each worker.
    """
    B, C, H, W, L = x.shape
    _, F, OH, OW, _ = y.shape
    taps, workers, n_bands = w.shape[1], len(panels), (OH + band_rows - 1) // band_rows
    x_flat, y_flat, filters_flat = x.reshape(-1), y.reshape(-1), filter_tiles.reshape(-1)
    next_pixels = (row_step * W + OW - 1) // OW
    for worker in prange(workers):
        panel, weights = panels[worker], filters[worker]
        first_task = worker * B * n_bands // workers
        stop_task = (worker + 1) * B * n_bands // workers
        for task in range(first_task, stop_task):
            b, first = task // n_bands, min(task % n_bands * band_rows, OH - band_rows)
            for c in range(C):
                for t in range(taps):
                    weights[t] = w[c, t] * depthwise_scale[c]
                for i in range(band_rows):
                    correlate_row(
                        x_flat, b * C + c, H, W, L, first + i, phase, row_step, column_step,
                        term_rows, x_offsets, weights, w_offsets, 1, depthwise_bias[c],
                        depthwise_activation, panel, i * OW * pixel_stride + c * L, pixel_stride,
                    )  # fmt: skip
            next_row = (first + band_rows) * row_step + term_rows[-1]
            next_plane = b * C
            if first + band_rows == OH:
                next_row, next_plane = 0, next_plane + C
            multiply_panel(
                panel, pixel_stride, band_rows * OW, L, filters_flat, C, term_offsets, tile_offsets,
                scale, bias, activation, y_flat, (b * F * OH + first) * OW * L, OH * OW * L, F,
                tile, x_flat, (next_plane * H + next_row) * W * L, H * W * L,
                next_pixels if task + 1 < stop_task else 0,
            )  # fmt: skip


@serial
def _pack_and_correlate(
    x, w, depthwise_scale, depthwise_bias, depthwise_activation, phase, row_step, column_step,
    term_rows, x_offsets, w_offsets, pointwise_w, filter_tiles, term_offsets, tile_offsets, scale,
    bias, activation, y, tile, band_rows, pixel_stride, panels, filters,
):  # fmt: skip
    pack_filters(pointwise_w, w.shape[0], 1, filter_tiles)
    _correlate(
        x, w, depthwise_scale, depthwise_bias, depthwise_activation, phase, row_step, column_step,
        term_rows, x_offsets, w_offsets, filter_tiles, term_offsets, tile_offsets, scale, bias,
        activation, y, tile, band_rows, pixel_stride, panels, filters,
    )  # fmt: skip


def is_supported(window: Window, x: PackedBatch, w_shape: tuple, pointwise_shape: tuple) -> bool:
    """Return whether the kernel knows these filters, and its panels fit second-level caches."""
    C, row_bytes = x.shape[1], window.output[1] * VECTOR_BYTES
    return (
        depthwise.is_supported(window, C, w_shape)
        and pointwise_shape[2:] == (1, 1)
        and C * row_bytes <= MAX_PANEL_BYTES
    )


def correlate(
    x: PackedBatch, w, pointwise_w, window: Window, affine, pointwise_affine
) -> PackedBatch:
    """Return the 1x1 correlation of the depthwise one.

    ``affine`` and ``pointwise_affine`` are their scales, biases and activations.
    """
    (C, *_), F, L = w.shape, len(pointwise_w), x.lanes
    (*depthwise_affine, depthwise_activation), (*affine, activation) = affine, pointwise_affine
    (OH, OW), workers, dtype = window.output, numba.get_num_threads(), x.dtype
    max_rows = max(PANEL_BYTES // (C * OW * L * dtype.itemsize), 1)
    band_rows = -(-OH // max(-(-OH // max_rows), min(OH, -(-workers // len(x.data)))))
    pixel_stride = (C + 1) * L  # the pixels of a channel are in different cache sets
    ROWS, _ = tile = outer_product_tile_shape(F, band_rows * OW)
    geometry, y = depthwise.forward_geometry(window, L), x.like(F, OH, OW)
    filters = w.reshape(C, -1)
    launch(
        _pack_and_correlate, x.data, filters,
        *scale_and_bias(*depthwise_affine, C, dtype), depthwise_activation,
        geometry.phases[0], geometry.row_step, geometry.column_step, geometry.term_rows,
        geometry.x_offsets, geometry.w_offsets, pointwise_w.reshape(-1),
        empty((-(-F // ROWS), C, ROWS), dtype), strided_offsets(C, L), strided_offsets(C, ROWS),
        *scale_and_bias(*affine, F, dtype), activation, y.data, tile, band_rows, pixel_stride,
        empty((workers, band_rows * OW * pixel_stride), dtype),
        empty((workers, filters.shape[1]), dtype),
    )  # fmt: skip
    return y
