"""Depthwise correlation and its gradients on the packed layout: a filter for each channel.

Nothing is summed over channels, so an output pixel needs few multiplications, and loads and stores
bound the time. The padded rows of a plane are therefore copied to a small buffer that stays in the
first-level cache, a band of rows at a time, and each vector that is loaded from it serves all
windows of a row that contain its pixel (`sliding_sums`).
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
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.activations import activate, activation_argument
from kernels.numba_backend.simd.copies import copy_padded_rows
from kernels.numba_backend.simd.micro_kernels import (
    SLIDING_WINDOWS,
    sliding_columns,
    sliding_dots,
    sliding_sums,
)
from kernels.numba_backend.simd.tiled_matmul import add_pixel_sums, scale_and_bias
from kernels.numba_backend.simd.vectors import load, reduce_sum, splat, store
from kernels.numpy_backend.dense import MAX_SUM_TERMS

# The padded rows of a band: half of a first-level cache of 48 KiB, most of one of 32 KiB.
BAND_BYTES = 24 << 10
# The weight gradient is summed over each of several parts of the batch if filters are few. Their
# number does not depend on the number of threads, so no bit of a result does.
MIN_TASKS = 32


@parallel
def _correlate(
    x, w, scale, bias, activation, is_linear, y, bands, phases, x_offsets, w_offsets, w_stride,
    out_step, row_buffers, filters,
):  # fmt: skip
    """y (B * C, OH, OW, L) = the correlation of each plane of x with its filter in w (C, taps).

    See `_Geometry` for the arguments from ``bands`` to ``out_step``. row_buffers and filters are
    work space for each worker.
    """
    planes, H, W, L = x.shape
    _, OH, OW, _ = y.shape
    C, taps = w.shape
    top, left, width, extent, row_step, column_step, band_rows, n_rows = bands
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    workers, n_bands = len(row_buffers), (n_rows + band_rows - 1) // band_rows
    for worker in prange(workers):
        padded_rows, weights = row_buffers[worker], filters[worker]
        first_task = worker * planes * n_bands // workers
        for task in range(first_task, (worker + 1) * planes * n_bands // workers):
            plane, first = task // n_bands, task % n_bands * band_rows
            c, stop = plane % C, min(first + band_rows, n_rows)
            for t in range(taps):
                weights[t] = w[c, t] * scale[c]
            copy_padded_rows(
                x_flat, plane, H, W, first * row_step + top, left,
                (stop - first - 1) * row_step + extent, width, L, padded_rows,
            )  # fmt: skip
            for phase in range(len(phases)):
                row0, column0 = phases[phase, 0], phases[phase, 1]
                rows, columns = phases[phase, 2], phases[phase, 3]
                first_term, n_terms = phases[phase, 4], phases[phase, 5]
                TAPS, COLUMNS = phases[phase, 6], phases[phase, 7]
                rows = min(stop, rows) - first
                out = ((plane * OH + row0 + first * out_step[0]) * OW + column0) * L
                out_row_stride, out_stride = out_step[0] * OW * L, out_step[1] * L
                sliding_sums(
                    padded_rows, 0, row_step * width * L, x_offsets,
                    weights, w_offsets, w_stride, first_term, n_terms, bias[c],
                    y_flat, out, out_row_stride, out_stride, rows, columns,
                    TAPS, column_step, COLUMNS,
                )  # fmt: skip
                for i in range(0 if is_linear else rows):
                    for j in range(columns):
                        p = out + i * out_row_stride + j * out_stride
                        store(y_flat, p, activate(load(y_flat, p), activation))


@parallel
def _sum_products(x, dy, bands, size, row_dilation, row_buffers, sum_buffers, parts, dy_parts):
    """parts (parts, F, taps) = dy times the pixels of each tap, summed over parts of the bands.

    dy_parts (parts, F) = the sums of dy. row_buffers and sum_buffers, for a vector of each tap,
    are work space for each worker.
    """
    planes, H, W, L = x.shape
    OW, (n_parts, F, taps) = dy.shape[2], parts.shape
    KH, KW = size
    top, left, width, extent, row_step, column_step, band_rows, n_rows = bands
    x_flat, dy_flat, dy_sums_flat = x.reshape(-1), dy.reshape(-1), dy_parts.reshape(-1)
    zero = splat(x.dtype.type(0))
    workers, n_bands = len(row_buffers), (n_rows + band_rows - 1) // band_rows
    n_segments = planes // F * n_bands
    for worker in prange(workers):
        padded_rows, sums = row_buffers[worker], sum_buffers[worker]
        first_task = worker * n_parts * F // workers
        for task in range(first_task, (worker + 1) * n_parts * F // workers):
            part, f = task // F, task % F
            for t in range(taps):
                store(sums, t * L, zero)
            dy_parts[part, f] = 0.0
            for segment in range(part * n_segments // n_parts, (part + 1) * n_segments // n_parts):
                plane, first = segment // n_bands * F + f, segment % n_bands * band_rows
                rows = min(band_rows, n_rows - first)
                copy_padded_rows(
                    x_flat, plane, H, W, first * row_step + top, left,
                    (rows - 1) * row_step + extent, width, L, padded_rows,
                )  # fmt: skip
                dy_start = (plane * n_rows + first) * OW * L
                for k in range(KH):
                    sliding_dots(
                        padded_rows, k * row_dilation * width * L, row_step * width * L,
                        dy_flat, dy_start, OW * L, rows, OW, sums, k * KW * L, KW, column_step,
                    )  # fmt: skip
                add_pixel_sums(dy_flat, dy_start, rows * OW, dy_sums_flat, part * F + f)
            for t in range(taps):
                parts[part, f, t] = reduce_sum(load(sums, t * L))


@serial
def _weight_gradient(
    x, dy, bands, size, row_dilation, row_buffers, sum_buffers, parts, dy_parts, dw, db
):
    """dw (F, taps) and db (F,) = the sums over all parts of `_sum_products`."""
    _sum_products(x, dy, bands, size, row_dilation, row_buffers, sum_buffers, parts, dy_parts)
    F, taps = dw.shape
    for f in range(F):
        dy_sum = 0.0
        for part in range(len(parts)):
            dy_sum += dy_parts[part, f]
        db[f] = dy_sum
        for t in range(taps):
            dw[f, t] = parts[0, f, t]
            for part in range(1, len(parts)):
                dw[f, t] += parts[part, f, t]


class _Geometry(NamedTuple):
    """Where the rows, terms and outputs of a correlation lie, for the kernels above.

    Attributes
    ----------
    bands : Bands
    phases : (phases, 8)
        The first row and column of outputs, the numbers of rows and columns, the first term, the
        number of terms, the taps of a term and the windows of a tile.
    x_offsets, w_offsets : (terms,)
        A term is the taps of one row of a filter.
    w_stride : int
        Distance in w of two taps of a term.
    out_step : (vertical, horizontal)
        Distance in pixels of two outputs of a phase.
    """

    bands: Bands
    phases: np.ndarray
    x_offsets: np.ndarray
    w_offsets: np.ndarray
    w_stride: int
    out_step: tuple[int, int]

    def row_buffers(self, workers: int, L: int, dtype: np.dtype) -> np.ndarray:
        """Return memory for the padded rows of a band, for each worker."""
        return empty((workers, self.bands.padded_rows * self.bands.width * L), dtype)


def _make_geometry(rows, columns, step, out_step, KW, w_stride, vector) -> _Geometry:
    """Return the `_Geometry` of phases of rows and columns; ``vector`` is (lanes, itemsize)."""
    L, itemsize = vector
    bands = make_bands(rows, columns, step, BAND_BYTES // (L * itemsize))
    phases, x_offsets, w_offsets = [], [], []
    for row in rows:
        for column in columns:
            left, m = column.taps[0] if column.taps else (bands.left, 0)
            taps = row.taps if column.taps else []
            phases.append(
                (row.first, column.first, row.n_outputs, column.n_outputs, len(x_offsets),
                 len(taps), max(len(column.taps), 1), sliding_columns(column.n_outputs))
            )  # fmt: skip
            for offset, k in taps:
                pixel = (offset - bands.top) * bands.width + left - bands.left
                x_offsets.append(pixel * L)
                w_offsets.append(k * KW + m)
    return _Geometry(
        bands, np.array(phases, np.int64), np.array(x_offsets, np.int64),
        np.array(w_offsets, np.int64), w_stride, out_step,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _forward_geometry(window: Window, *vector: int) -> _Geometry:
    rows, columns = correlation_phases(window, 0), correlation_phases(window, 1)
    return _make_geometry(rows, columns, window.stride, (1, 1), window.size[1], 1, vector)


@lru_cache(maxsize=256)
def _gradient_geometry(window: Window, *vector: int) -> _Geometry:
    rows, columns = gradient_phases(window, 0), gradient_phases(window, 1)
    KW, stride = window.size[1], window.stride
    return _make_geometry(rows, columns, (1, 1), stride, KW, -stride[1], vector)


def is_supported(window: Window, groups: int, w_shape: tuple) -> bool:
    """Return whether these kernels compute a convolution: depthwise, with windows they know."""
    is_depthwise = w_shape[:2] == (groups, 1)
    has_neighboring_taps = window.dilation[1] == 1 or window.size[1] == 1
    return (
        is_depthwise
        and has_neighboring_taps
        and (window.size[1], window.stride[1]) in SLIDING_WINDOWS
    )


def _product(x: PackedBatch, w, affine, activation, geometry: _Geometry, y):
    """Fill y with the correlation of x and w, and return it."""
    C, workers, dtype = len(w), numba.get_num_threads(), x.dtype
    filters = w.reshape(C, -1)
    launch(
        _correlate, x.images, filters, *affine, activation, bool(activation == 1), y.images,
        *geometry, geometry.row_buffers(workers, x.lanes, dtype),
        empty((workers, filters.shape[1]), dtype),
    )  # fmt: skip
    return y


def correlate(x: PackedBatch, w, b, window: Window, scale, activation) -> PackedBatch:
    geometry = _forward_geometry(window, x.lanes, x.dtype.itemsize)
    affine = scale_and_bias(scale, b, len(w), x.dtype)
    return _product(x, w, affine, activation, geometry, x.like(len(w), *window.output))


def input_gradient(dy: PackedBatch, w, window: Window) -> PackedBatch:
    """Return dx."""
    geometry = _gradient_geometry(window, dy.lanes, dy.dtype.itemsize)
    affine = scale_and_bias(None, None, len(w), dy.dtype)
    identity = activation_argument(None, dy.dtype)
    return _product(dy, w, affine, identity, geometry, dy.like(len(w), *window.image))


def weight_gradient(dy: PackedBatch, x: PackedBatch, w_shape, window: Window, out=None):
    """Return dw and db."""
    F, taps, dtype, L = w_shape[0], window.size[0] * window.size[1], x.dtype, x.lanes
    geometry, workers = _forward_geometry(window, L, dtype.itemsize), numba.get_num_threads()
    B, (OH, OW) = len(x.data), window.output
    segments, vectors = B * -(-OH // geometry.bands.band_rows), B * OH * OW
    n_parts = min(max(-(-MIN_TASKS // F), vectors // MAX_SUM_TERMS), segments)
    dw, db = allocate_outputs(out, (w_shape, w_shape[:1]), dtype)
    launch(
        _weight_gradient, x.images, dy.images, geometry.bands, window.size, window.dilation[0],
        geometry.row_buffers(workers, L, dtype), empty((workers, taps * L), dtype),
        empty((n_parts, F, taps), dtype), empty((n_parts, F), np.dtype(np.float64)),
        dw.reshape(F, taps), db,
    )  # fmt: skip
    return dw, db
