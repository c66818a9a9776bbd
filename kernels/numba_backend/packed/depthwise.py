"""Depthwise correlation and its gradients on the packed layout: a filter for each channel.

Nothing is summed over channels, so an output pixel needs few multiplications, and loads and stores
bound the time. The padded rows of a plane are therefore copied to a small buffer that stays in the
first-level cache, a band of rows at a time, and each vector that is loaded from it serves all
windows of a row that contain its pixel (`sliding_sums`).

The input gradient of a stride s has s * s phases: the pixels of dx whose row and column have the
same remainders modulo s lie under the same taps. Each phase is a correlation of dy with these taps
in reverse order.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.activation_kernels import leaky_relu_vector
from kernels.numba_backend.simd.copies import copy_padded_rows
from kernels.numba_backend.simd.micro_kernels import (
    SLIDING_WINDOWS,
    sliding_columns,
    sliding_dots,
    sliding_sums,
)
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, sum_vectors
from kernels.numba_backend.simd.vectors import load, reduce_sum, splat, store
from kernels.numpy_backend.dense import MAX_SUM_TERMS

# The padded rows of a band: half of a first-level cache of 48 KiB, most of one of 32 KiB.
BAND_BYTES = 24 << 10
# The weight gradient is summed over each of several parts of the batch if filters are few. Their
# number does not depend on the number of threads, so no bit of a result does.
MIN_TASKS = 32


@parallel
def _correlate(
    x, w, scale, bias, negative_slope, y, bands, phases, x_offsets, w_offsets, w_stride, out_step,
    row_buffers, filters,
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
    slope_v, zero = splat(negative_slope), splat(x.dtype.type(0))
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
                for i in range(rows if negative_slope != 1 else 0):
                    for j in range(columns):
                        p = out + i * out_row_stride + j * out_stride
                        value = leaky_relu_vector(load(y_flat, p), slope_v, zero)
                        store(y_flat, p, value)


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
    x_flat, dy_flat, zero = x.reshape(-1), dy.reshape(-1), splat(x.dtype.type(0))
    workers, n_bands = len(row_buffers), (n_rows + band_rows - 1) // band_rows
    n_segments = planes // F * n_bands
    for worker in prange(workers):
        padded_rows, sums = row_buffers[worker], sum_buffers[worker]
        first_task = worker * n_parts * F // workers
        for task in range(first_task, (worker + 1) * n_parts * F // workers):
            part, f = task // F, task % F
            for t in range(taps):
                store(sums, t * L, zero)
            dy_sum = 0.0
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
                dy_sum += sum_vectors(dy_flat, dy_start, rows * OW)
            for t in range(taps):
                parts[part, f, t] = reduce_sum(load(sums, t * L))
            dy_parts[part, f] = dy_sum


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
    bands : tuple of int
        The first row and column of the input under the first window; the length of a padded row,
        and how many of them a row of windows covers; the distances of two rows and columns of
        windows; the rows of windows of a band, and of the whole output.
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

    bands: tuple[int, ...]
    phases: np.ndarray
    x_offsets: np.ndarray
    w_offsets: np.ndarray
    w_stride: int
    out_step: tuple[int, int]

    def row_buffers(self, workers: int, L: int, dtype: np.dtype) -> np.ndarray:
        """Return memory for the padded rows of a band, for each worker."""
        _, _, width, extent, row_step, _, band_rows, _ = self.bands
        return empty((workers, ((band_rows - 1) * row_step + extent) * width * L), dtype)


def _make_geometry(row_phases, column_phases, step, out_step, w_shape, w_stride, vector):
    """Return the `_Geometry` of phases of rows and columns.

    Parameters
    ----------
    row_phases : list of (first, count, [(offset, k), ...])
        The first row of the outputs and their number, and for each row k of the filter under them
        the row of the input that it covers for the first output.
    column_phases : list of (first, count, offset, m, taps)
        Likewise, with the column m of the filter at the first of so many taps.
    vector : (lanes, itemsize)
    """
    (_, KW), (L, itemsize) = w_shape, vector
    row_offsets = [offset for _, _, taps in row_phases for offset, _ in taps]
    top, left = min(row_offsets, default=0), min(phase[2] for phase in column_phases)
    extent = max(row_offsets, default=0) - top + 1
    width = max(
        offset - left + (count - 1) * step[1] + taps for _, count, offset, _, taps in column_phases
    )
    n_rows = max(count for _, count, _ in row_phases)
    rows_in_band = BAND_BYTES // (width * L * itemsize)
    band_rows = min(max((rows_in_band - extent) // step[0] + 1, 1), n_rows)
    phases, x_offsets, w_offsets = [], [], []
    for row0, rows, row_taps in row_phases:
        for column0, columns, offset, m, taps in column_phases:
            n_terms = len(row_taps) if taps else 0
            phases.append(
                (row0, column0, rows, columns, len(x_offsets), n_terms, max(taps, 1),
                 sliding_columns(columns))
            )  # fmt: skip
            x_offsets += [((row - top) * width + offset - left) * L for row, _ in row_taps]
            w_offsets += [k * KW + m for _, k in row_taps]
    return _Geometry(
        (top, left, width, extent, *step, band_rows, n_rows),
        *(np.array(table, np.int64) for table in (phases, x_offsets, w_offsets)),
        w_stride, out_step,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _forward_geometry(window: Window, L: int, itemsize: int) -> _Geometry:
    (KH, KW), (OH, OW), (top, left) = window.size, window.output, window.pad_begin
    rows = [(0, OH, [(k * window.dilation[0] - top, k) for k in range(KH)])]
    columns = [(0, OW, -left, 0, KW)]
    return _make_geometry(rows, columns, window.stride, (1, 1), window.size, 1, (L, itemsize))


@lru_cache(maxsize=256)
def _input_gradient_geometry(window: Window, L: int, itemsize: int) -> _Geometry:
    (KH, KW), (H, W), (top, left) = window.size, window.image, window.pad_begin
    row_stride, column_stride = window.stride
    rows, columns = [], []
    for a in range(min(row_stride, H)):
        windows = [(a + top - k * window.dilation[0], k) for k in range(KH)]
        taps = [(row // row_stride, k) for row, k in windows if row % row_stride == 0]
        rows.append((a, -(-(H - a) // row_stride), taps))
    for b in range(min(column_stride, W)):
        taps = [m for m in reversed(range(KW)) if (b + left - m) % column_stride == 0]
        m = taps[0] if taps else 0
        columns.append(
            (b, -(-(W - b) // column_stride), (b + left - m) // column_stride, m, len(taps))
        )
    return _make_geometry(
        rows, columns, (1, 1), window.stride, window.size, -column_stride, (L, itemsize)
    )


def is_supported(window: Window, groups: int, w_shape: tuple) -> bool:
    """Return whether these kernels compute a convolution: depthwise, with windows they know."""
    is_depthwise = w_shape[:2] == (groups, 1)
    has_neighboring_taps = window.dilation[1] == 1 or window.size[1] == 1
    return (
        is_depthwise
        and has_neighboring_taps
        and (window.size[1], window.stride[1]) in SLIDING_WINDOWS
    )


def _product(x: PackedBatch, w, affine, negative_slope: float, geometry: _Geometry, y):
    """Fill y with the correlation of x and w, and return it."""
    C, workers, dtype = len(w), numba.get_num_threads(), x.dtype
    filters = w.reshape(C, -1)
    launch(
        _correlate, x.images, filters, *affine, dtype.type(negative_slope), y.images, *geometry,
        geometry.row_buffers(workers, x.lanes, dtype), empty((workers, filters.shape[1]), dtype),
    )  # fmt: skip
    return y


def correlate(
    x: PackedBatch, w, b, window: Window, scale=None, negative_slope: float = 1.0
) -> PackedBatch:
    geometry = _forward_geometry(window, x.lanes, x.dtype.itemsize)
    affine = scale_and_bias(scale, b, len(w), x.dtype)
    return _product(x, w, affine, negative_slope, geometry, x.like(len(w), *window.output))


def input_gradient(dy: PackedBatch, w, window: Window) -> PackedBatch:
    """Return dx."""
    geometry = _input_gradient_geometry(window, dy.lanes, dy.dtype.itemsize)
    affine = scale_and_bias(None, None, len(w), dy.dtype)
    return _product(dy, w, affine, 1.0, geometry, dy.like(len(w), *window.image))


def weight_gradient(dy: PackedBatch, x: PackedBatch, w_shape, window: Window, out=None):
    """Return dw and db."""
    F, taps, dtype, L = w_shape[0], window.size[0] * window.size[1], x.dtype, x.lanes
    geometry, workers = _forward_geometry(window, L, dtype.itemsize), numba.get_num_threads()
    band_rows, n_rows = geometry.bands[-2:]
    segments = len(x.data) * -(-n_rows // band_rows)
    vectors = len(x.data) * n_rows * window.output[1]
    n_parts = min(max(-(-MIN_TASKS // F), vectors // MAX_SUM_TERMS), segments)
    dw, db = allocate_outputs(out, (w_shape, w_shape[:1]), dtype)
    launch(
        _weight_gradient, x.images, dy.images, geometry.bands, window.size, window.dilation[0],
        geometry.row_buffers(workers, L, dtype), empty((workers, taps * L), dtype),
        empty((n_parts, F, taps), dtype), empty((n_parts, F), np.dtype(np.float64)),
        dw.reshape(F, taps), db,
    )  # fmt: skip
    return dw, db
