"""Correlation of many channels and its gradients on the packed layout, by panels in the cache.

A tile of a matrix product reads all channels under a few windows. In memory they lie a plane apart:
the hardware does not prefetch them, and planes of a power of two compete for the same cache sets.
So each worker first copies some rows of all channels into a panel that stays in its second-level
cache, and computes all filters of these rows from there. That serves any stride: the input gradient
has phases (`phases.py`), and no product is with the zeros between the pixels of a dilated dy.

The weight gradient is a sum over images and pixels. Its panel is transposed, so that the lanes are
channels and the images are summed like the pixels: no lanes are added up at the end.

References
----------
Goto, van de Geijn: Anatomy of high-performance matrix multiplication (2008).
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.packed.phases import (
    Bands,
    correlation_phases,
    gradient_phases,
    make_bands,
)
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.activations import activation_argument
from kernels.numba_backend.simd.copies import copy_padded_rows
from kernels.numba_backend.simd.micro_kernels import outer_product_tile, outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets, sum_vectors
from kernels.numba_backend.simd.vectors import load, splat, store, transpose

PANEL_BYTES = 256 << 10  # beside the filters, in second-level caches of 512 KiB and more
TASKS_PER_WORKER = 4
# The weight gradient is summed over each of several parts of the batch: MIN_PARTS or, where they
# take less memory than PARTS_BYTES, up to MAX_PARTS. The number does not depend on the number of
# threads, so no bit of a result does.
MIN_PARTS, MAX_PARTS, PARTS_BYTES = 8, 32, 2 << 20


@parallel
def _correlate(
    x, w, scale, bias, activation, y, bands, channel_stride, phases, x_offsets, w_offsets,
    w_strides, out_step, groups, panels,
):  # fmt: skip
    """y (B, F, OH, OW, L) = the correlation of x (B, C, H, W, L) with w.

    See `_Geometry` for the arguments from ``bands`` to ``out_step``. panels is work space for each
    worker.
    """
    B, C, H, W, L = x.shape
    _, F, OH, OW, _ = y.shape
    channels, filters, workers = C // groups, F // groups, len(panels)
    top, left, width, extent, row_step, column_step, band_rows, n_rows = bands
    n_bands = (n_rows + band_rows - 1) // band_rows
    x_flat, w_flat, y_flat = x.reshape(-1), w.reshape(-1), y.reshape(-1)
    zero = splat(x.dtype.type(0))
    for worker in prange(workers):
        panel = panels[worker]
        first_task = worker * B * groups * n_bands // workers
        for task in range(first_task, (worker + 1) * B * groups * n_bands // workers):
            b, g = task // (groups * n_bands), task // n_bands % groups
            first = task % n_bands * band_rows
            stop = min(first + band_rows, n_rows)
            for c in range(channels):
                copy_padded_rows(
                    x_flat, b * C + g * channels + c, H, W, first * row_step + top, left,
                    (stop - first - 1) * row_step + extent, width, L, panel[c * channel_stride :],
                )  # fmt: skip
            for phase in range(len(phases)):
                row0, column0 = phases[phase, 0], phases[phase, 1]
                rows, columns = phases[phase, 2], phases[phase, 3]
                first_term, n_terms = phases[phase, 4], phases[phase, 5]
                ROWS, COLUMNS = phases[phase, 6], phases[phase, 7]
                term_x = x_offsets[first_term : first_term + n_terms]
                term_w = w_offsets[first_term : first_term + n_terms]
                for i in range(first, min(stop, rows)):
                    x_row = (i - first) * row_step * width
                    y_row = ((b * F + g * filters) * OH + row0 + i * out_step[0]) * OW + column0
                    if n_terms == 0:
                        for r in range(filters):
                            for j in range(columns):
                                out = y_row + r * OH * OW + j * out_step[1]
                                store(y_flat, out * L, zero)
                        continue
                    for column in range(0, columns, COLUMNS):
                        j = min(column, columns - COLUMNS)
                        for row in range(0, filters, ROWS):
                            r = min(row, filters - ROWS)
                            outer_product_tile(
                                panel, (x_row + j * column_step) * L, term_x, column_step * L,
                                w_flat, g * w_strides[0] + r * w_strides[1], term_w, w_strides[1],
                                n_terms, scale, bias, g * filters + r, activation,
                                y_flat, (y_row + r * OH * OW + j * out_step[1]) * L,
                                OH * OW * L, out_step[1] * L, ROWS, COLUMNS,
                            )  # fmt: skip


@inlined
def _transpose_padded_rows(x, plane, H, W, top, left, rows, width, L, panel):
    """panel (rows, width, image, channel) = L planes (channel, H, W, image) of x; 0 outside."""
    zero = splat(x.dtype.type(0))
    for r in range(rows):
        for q in range(width):
            i, j, dst = top + r, left + q, (r * width + q) * L * L
            if 0 <= i < H and 0 <= j < W:
                transpose(x, ((plane * H + i) * W + j) * L, H * W * L, panel, dst, L)
            else:
                for n in range(L):
                    store(panel, dst + n * L, zero)


@parallel
def _sum_products(
    x, dy, bands, size, dilation, groups, tile, x_offsets, dy_offsets, panels, products, parts,
    dy_parts,
):  # fmt: skip
    """parts (parts, groups, taps, filters, channels) = dy times the pixels of x under each tap.

    Each part is the sum over some of the bands. dy_parts (parts, F) = the sums of dy. The offsets
    are those of each pixel and image of a band. panels and products (workers, filters * channels)
    are work space for each worker.
    """
    B, C, H, W, L = x.shape
    _, F, OH, OW, _ = dy.shape
    channels, filters, (ROWS, COLUMNS) = C // groups, F // groups, tile
    top, left, width, extent, row_step, _, band_rows, n_rows = bands
    workers, n_parts, n_bands = len(panels), len(parts), (n_rows + band_rows - 1) // band_rows
    vector_stride = ((band_rows - 1) * row_step + extent) * width * L * L
    vectors, dw_size = channels // L, filters * channels
    x_flat, dy_flat, parts_flat = x.reshape(-1), dy.reshape(-1), parts.reshape(-1)
    ones, zeros, identity = np.ones(filters, x.dtype), np.zeros(filters, x.dtype), x.dtype.type(1)
    for worker in prange(workers):
        panel, product = panels[worker], products[worker]
        first_task = worker * n_parts * groups // workers
        for task in range(first_task, (worker + 1) * n_parts * groups // workers):
            part, g = task // groups, task % groups
            parts[part, g] = 0
            dy_parts[part, g * filters : (g + 1) * filters] = 0
            first_segment = part * B * n_bands // n_parts
            for segment in range(first_segment, (part + 1) * B * n_bands // n_parts):
                b, first = segment // n_bands, segment % n_bands * band_rows
                rows = min(band_rows, n_rows - first)
                for v in range(vectors):
                    _transpose_padded_rows(
                        x_flat, b * C + g * channels + v * L, H, W, first * row_step + top, left,
                        (rows - 1) * row_step + extent, width, L, panel[v * vector_stride :],
                    )  # fmt: skip
                dy_start = ((b * F + g * filters) * OH + first) * OW * L
                for f in range(filters):
                    dy_sum = sum_vectors(dy_flat, dy_start + f * OH * OW * L, rows * OW)
                    dy_parts[part, g * filters + f] += dy_sum
                for tap in range(size[0] * size[1]):
                    k, m = tap // size[1] * dilation[0], tap % size[1] * dilation[1]
                    for column in range(0, vectors, COLUMNS):
                        v = min(column, vectors - COLUMNS)
                        for row in range(0, filters, ROWS):
                            r = min(row, filters - ROWS)
                            outer_product_tile(
                                panel, v * vector_stride + (k * width + m) * L * L, x_offsets,
                                vector_stride, dy_flat, dy_start + r * OH * OW * L, dy_offsets,
                                OH * OW * L, rows * OW * L, ones, zeros, r, identity,
                                product, r * channels + v * L, channels, L, ROWS, COLUMNS,
                            )  # fmt: skip
                    start = ((part * groups + g) * size[0] * size[1] + tap) * dw_size
                    for p in range(0, dw_size, L):
                        acc = load(parts_flat, start + p) + load(product, p)
                        store(parts_flat, start + p, acc)


@parallel
def _add_parts(parts, dy_parts, dw, db):
    """dw (F, channels, taps) and db (F,) = the sums over all parts."""
    n_parts, _, taps, filters, channels = parts.shape
    for f in prange(len(dw)):
        g, r = f // filters, f % filters
        for c in range(channels):
            for tap in range(taps):
                dw[f, c, tap] = parts[0, g, tap, r, c]
        for part in range(1, n_parts):
            for tap in range(taps):
                for c in range(channels):
                    dw[f, c, tap] += parts[part, g, tap, r, c]
        dy_sum = 0.0
        for part in range(n_parts):
            dy_sum += dy_parts[part, f]
        db[f] = dy_sum


@serial
def _weight_gradient(
    x, dy, bands, size, dilation, groups, tile, x_offsets, dy_offsets, panels, products, parts,
    dy_parts, dw, db,
):  # fmt: skip
    _sum_products(
        x, dy, bands, size, dilation, groups, tile, x_offsets, dy_offsets, panels, products, parts,
        dy_parts,
    )  # fmt: skip
    _add_parts(parts, dy_parts, dw, db)


class _Geometry(NamedTuple):
    """Where the rows, terms and outputs of a correlation lie, for `_correlate`.

    Attributes
    ----------
    bands : Bands
    channel_stride : int
        Distance of two channels in a panel.
    phases : (phases, 8)
        The first row and column of outputs, the numbers of rows and columns, the first term, the
        number of terms, and the rows and columns of a tile.
    x_offsets, w_offsets : (terms,)
        A term is one tap of one channel.
    w_strides : (group, row)
    out_step : (vertical, horizontal)
        Distance in pixels of two outputs of a phase.
    """

    bands: Bands
    channel_stride: int
    phases: np.ndarray
    x_offsets: np.ndarray
    w_offsets: np.ndarray
    w_strides: tuple[int, int]
    out_step: tuple[int, int]


def _make_geometry(rows, columns, step, w_layout, out_step, max_rows, vector) -> _Geometry:
    """Return the `_Geometry` of phases of rows and columns.

    Parameters
    ----------
    rows, columns : list of Phase
    step : (vertical, horizontal)
        Distance of the windows of two outputs.
    w_layout : (channels, filters, channel stride, KW, w_strides)
        Of one group, as the correlation sees it: in the input gradient the filters are summed.
    out_step : (vertical, horizontal)
    max_rows : int
        Of a band.
    vector : (lanes, itemsize)
    """
    (channels, filters, w_channel_stride, KW, w_strides), (L, itemsize) = w_layout, vector
    max_pixels = PANEL_BYTES // (channels * L * itemsize)
    bands = make_bands(rows, columns, step, max_pixels, max_rows)
    # An odd number of vectors, so that the channels do not compete for the same cache sets.
    channel_stride = bands.padded_rows * bands.width // 2 * 2 + 1
    phases, x_offsets, w_offsets, first_term = [], [], [], 0
    c = np.arange(channels)[:, None]
    for row in rows:
        for column in columns:
            taps = [
                ((i - bands.top) * bands.width + j - bands.left, k * KW + m)
                for i, k in row.taps
                for j, m in column.taps
            ]
            pixels, w_taps = np.array(taps, np.int64).reshape(-1, 2).T
            x_offsets.append((c * channel_stride + pixels).ravel() * L)
            w_offsets.append((c * w_channel_stride + w_taps).ravel())
            tile = outer_product_tile_shape(filters, column.n_outputs)
            n_terms = channels * len(taps)
            phases.append(
                (
                    row.first,
                    column.first,
                    row.n_outputs,
                    column.n_outputs,
                    first_term,
                    n_terms,
                    *tile,
                )
            )
            first_term += n_terms
    return _Geometry(
        bands, channel_stride * L, np.array(phases, np.int64), np.concatenate(x_offsets),
        np.concatenate(w_offsets), w_strides, out_step,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _forward_geometry(window: Window, w_shape, groups: int, max_rows: int, *vector) -> _Geometry:
    F, channels, KH, KW = w_shape
    rows, columns = correlation_phases(window, 0), correlation_phases(window, 1)
    taps, filters = channels * KH * KW, F // groups
    w_layout = channels, filters, KH * KW, KW, (filters * taps, taps)
    return _make_geometry(rows, columns, window.stride, w_layout, (1, 1), max_rows, vector)


@lru_cache(maxsize=256)
def _gradient_geometry(window: Window, w_shape, groups: int, max_rows: int, *vector) -> _Geometry:
    F, channels, KH, KW = w_shape
    rows, columns = gradient_phases(window, 0), gradient_phases(window, 1)
    taps, filters = channels * KH * KW, F // groups
    w_layout = filters, channels, taps, KW, (filters * taps, KH * KW)
    return _make_geometry(rows, columns, (1, 1), w_layout, window.stride, max_rows, vector)


def _rows_for_tasks(n_rows: int, runs: int, n_tasks: int) -> int:
    """Return the rows of a band with which ``runs`` times ``n_rows`` are about so many tasks."""
    return -(-n_rows // -(-n_tasks // runs))


def _product(make_geometry, x: PackedBatch, w, window, groups, affine, activation, y):
    """Fill y with the correlation of x and w, and return it."""
    workers, dtype, B = numba.get_num_threads(), x.dtype, len(x.data)
    max_rows = _rows_for_tasks(y.shape[2], B * groups, TASKS_PER_WORKER * workers)
    geometry = make_geometry(window, w.shape, groups, max_rows, x.lanes, dtype.itemsize)
    panel_size = x.shape[1] // groups * geometry.channel_stride
    launch(
        _correlate, x.data, w, *affine, activation, y.data, *geometry, groups,
        empty((workers, panel_size), dtype),
    )  # fmt: skip
    return y


def correlate(x: PackedBatch, w, b, window: Window, groups: int, scale, activation) -> PackedBatch:
    affine, y = scale_and_bias(scale, b, len(w), x.dtype), x.like(len(w), *window.output)
    return _product(_forward_geometry, x, w, window, groups, affine, activation, y)


def input_gradient(dy: PackedBatch, w, window: Window, groups: int) -> PackedBatch:
    """Return dx."""
    C = w.shape[1] * groups
    affine, dx = scale_and_bias(None, None, C, dy.dtype), dy.like(C, *window.image)
    return _product(
        _gradient_geometry, dy, w, window, groups, affine, activation_argument(None, dy.dtype), dx
    )


@lru_cache(maxsize=256)
def _band_offsets(bands: Bands, columns: int, L: int) -> np.ndarray:
    """Return the offset in a panel of each pixel and image under the first tap of a band."""
    i, j, n = np.ogrid[: bands.band_rows, :columns, :L]
    pixels = i * bands.row_step * bands.width + j * bands.column_step
    return ((pixels * L + n) * L).astype(np.int64).ravel()


def weight_gradient(
    dy: PackedBatch, x: PackedBatch, w_shape, window: Window, groups: int, out=None
):
    """Return dw and db; the channels of a group must fill whole vectors."""
    (F, channels, KH, KW), dtype, B, L = w_shape, x.dtype, len(x.data), x.lanes
    (OH, OW), workers, filters = window.output, numba.get_num_threads(), F // groups
    rows, columns = correlation_phases(window, 0), correlation_phases(window, 1)
    max_pixels = PANEL_BYTES // (channels * L * dtype.itemsize)
    bands = make_bands(rows, columns, window.stride, max_pixels, _rows_for_tasks(OH, B, MIN_PARTS))
    n_parts = PARTS_BYTES // (F * channels * KH * KW * dtype.itemsize)
    n_parts = min(max(MIN_PARTS, n_parts), MAX_PARTS, B * -(-OH // bands.band_rows))
    dw, db = allocate_outputs(out, (w_shape, w_shape[:1]), dtype)
    launch(
        _weight_gradient, x.data, dy.data, bands, window.size, window.dilation, groups,
        outer_product_tile_shape(filters, channels // L), _band_offsets(bands, OW, L),
        strided_offsets(bands.band_rows * OW * L, 1),
        empty((workers, bands.padded_rows * bands.width * L * channels), dtype),
        empty((workers, filters * channels), dtype),
        empty((n_parts, groups, KH * KW, filters, channels), dtype),
        empty((n_parts, F), np.dtype(np.float64)), dw.reshape(F, channels, KH * KW), db,
    )  # fmt: skip
    return dw, db
