"""Depthwise correlation and its gradients on the packed layout: a filter for each channel.

Nothing is summed over channels, so an output pixel needs few multiplications, and loads and stores
bound the time. Each vector that is loaded therefore serves all windows of a row that contain its
pixel (`sliding_sums`). Rows are read where they lie: rows of padding are left out, and columns of
padding replaced by zeros. The weight gradient copies the padded rows of a plane to a small buffer
that stays in the first-level cache, a band of rows at a time.
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
from kernels.numba_backend.simd.micro_kernels import (
    SLIDING_WINDOWS,
    sliding_columns,
    sliding_dots,
    sliding_sums,
)
from kernels.numba_backend.simd.tiled_matmul import add_pixel_sums, scale_and_bias
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, load, reduce_sum, splat, store
from kernels.numpy_backend.dense import MAX_SUM_TERMS

# The padded rows of a band: half of a first-level cache of 48 KiB, most of one of 32 KiB.
BAND_BYTES = 24 << 10
TASKS_PER_WORKER = 4
# The weight gradient is summed over each of several parts of the batch if filters are few. Their
# number does not depend on the number of threads, so no bit of a result does.
MIN_TASKS = 32


@inlined
def correlate_row(
    x, plane, H, W, L, row, phase, row_step, column_step, term_rows, x_offsets, weights, w_offsets,
    w_stride, bias, activation, y, y_start, y_stride,
):  # fmt: skip
    """y = one row of outputs of a phase, of a plane of x (planes, H, W, L).

    See `_Geometry` for the arguments from ``phase``, a row of phases, to ``w_stride``.
    """
    columns, left, TAPS, COLUMNS = phase[3], phase[6], phase[7], phase[8]
    first, stop, x_row = phase[4], phase[4] + phase[5], row * row_step
    while first < stop and x_row + term_rows[first] < 0:
        first += 1
    while first < stop and x_row + term_rows[stop - 1] >= H:
        stop -= 1
    sliding_sums(
        x, (plane * H + x_row) * W * L, x_offsets, VECTOR_BYTES // x.itemsize, left, W, weights, 0,
        w_offsets, w_stride, first, stop - first, bias, activation, y, y_start, y_stride, columns,
        TAPS, column_step, COLUMNS,
    )  # fmt: skip


@parallel
def _correlate(
    x, w, scale, bias, activation, y, phases, row_step, column_step, term_rows, x_offsets,
    w_offsets, w_stride, out_step, n_slices, filters,
):  # fmt: skip
    """y (B * C, OH, OW, L) = the correlation of each plane of x with its filter in w (C, taps).

    See `_Geometry` for the arguments from ``phases`` to ``out_step``. Each task computes a slice of
    the rows of a plane. filters are work space for each worker.
    """
    planes, H, W, L = x.shape
    _, OH, OW, _ = y.shape
    C, taps = w.shape
    x_flat, y_flat, workers = x.reshape(-1), y.reshape(-1), len(filters)
    n_rows = (OH + out_step[0] - 1) // out_step[0]
    for worker in prange(workers):
        weights = filters[worker]
        first_task = worker * planes * n_slices // workers
        for task in range(first_task, (worker + 1) * planes * n_slices // workers):
            plane, part = task // n_slices, task % n_slices
            c = plane % C
            for t in range(taps):
                weights[t] = w[c, t] * scale[c]
            for row in range(part * n_rows // n_slices, (part + 1) * n_rows // n_slices):
                for p in range(len(phases)):
                    if row < phases[p, 2]:
                        out = (plane * OH + phases[p, 0] + row * out_step[0]) * OW + phases[p, 1]
                        correlate_row(
                            x_flat, plane, H, W, L, row, phases[p], row_step, column_step,
                            term_rows, x_offsets, weights, w_offsets, w_stride, bias[c], activation,
                            y_flat, out * L, out_step[1] * L,
                        )  # fmt: skip


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
    """Where the terms and outputs of a correlation lie, for the kernels above.

    Attributes
    ----------
    phases : (phases, 9)
        The first row and column of outputs, the numbers of rows and columns, the first term, the
        number of terms, the column of x under the first tap of the first output, the taps of a term
        and the windows of a tile.
    row_step, column_step : int
        Distance in pixels of the windows of two outputs.
    term_rows, x_offsets : (terms,)
        A term is the taps of one row of a filter. Its row of x under the first row of outputs, and
        where this row lies.
    w_offsets : (terms,)
    w_stride : int
        Distance in w of two taps of a term.
    out_step : (vertical, horizontal)
        Distance in pixels of two outputs of a phase.
    """

    phases: np.ndarray
    row_step: int
    column_step: int
    term_rows: np.ndarray
    x_offsets: np.ndarray
    w_offsets: np.ndarray
    w_stride: int
    out_step: tuple[int, int]


def _make_geometry(rows, columns, step, out_step, KW, w_stride, row_stride) -> _Geometry:
    """Return the `_Geometry` of phases of rows and columns; ``row_stride`` is that of x."""
    phases, term_rows, w_offsets = [], [], []
    for row in rows:
        for column in columns:
            left, m = column.taps[0] if column.taps else (0, 0)
            taps = row.taps if column.taps else []
            phases.append(
                (row.first, column.first, row.n_outputs, column.n_outputs, len(term_rows),
                 len(taps), left, max(len(column.taps), 1), sliding_columns(column.n_outputs))
            )  # fmt: skip
            for offset, k in taps:
                term_rows.append(offset)
                w_offsets.append(k * KW + m)
    x_rows = np.array(term_rows, np.int64)
    return _Geometry(
        np.array(phases, np.int64), *step, x_rows, x_rows * row_stride,
        np.array(w_offsets, np.int64), w_stride, out_step,
    )  # fmt: skip


@lru_cache(maxsize=256)
def forward_geometry(window: Window, L: int) -> _Geometry:
    rows, columns = correlation_phases(window, 0), correlation_phases(window, 1)
    row_stride = window.image[1] * L
    return _make_geometry(rows, columns, window.stride, (1, 1), window.size[1], 1, row_stride)


@lru_cache(maxsize=256)
def _gradient_geometry(window: Window, L: int) -> _Geometry:
    rows, columns = gradient_phases(window, 0), gradient_phases(window, 1)
    KW, stride, row_stride = window.size[1], window.stride, window.output[1] * L
    return _make_geometry(rows, columns, (1, 1), stride, KW, -stride[1], row_stride)


@lru_cache(maxsize=256)
def _weight_gradient_bands(window: Window, max_pixels: int) -> Bands:
    rows, columns = correlation_phases(window, 0), correlation_phases(window, 1)
    return make_bands(rows, columns, window.stride, max_pixels)


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
    C, workers = len(w), numba.get_num_threads()
    filters, n_slices = w.reshape(C, -1), -(-TASKS_PER_WORKER * workers // (C * len(x.data)))
    launch(
        _correlate, x.images, filters, *affine, activation, y.images, *geometry, n_slices,
        empty((workers, filters.shape[1]), x.dtype),
    )  # fmt: skip
    return y


def correlate(x: PackedBatch, w, b, window: Window, scale, activation) -> PackedBatch:
    affine, y = scale_and_bias(scale, b, len(w), x.dtype), x.like(len(w), *window.output)
    return _product(x, w, affine, activation, forward_geometry(window, x.lanes), y)


def input_gradient(dy: PackedBatch, w, window: Window) -> PackedBatch:
    """Return dx."""
    affine, dx = scale_and_bias(None, None, len(w), dy.dtype), dy.like(len(w), *window.image)
    identity = activation_argument(None, dy.dtype)
    return _product(dy, w, affine, identity, _gradient_geometry(window, dy.lanes), dx)


def weight_gradient(dy: PackedBatch, x: PackedBatch, w_shape, window: Window, out=None):
    """Return dw and db."""
    F, taps, dtype, L = w_shape[0], window.size[0] * window.size[1], x.dtype, x.lanes
    bands = _weight_gradient_bands(window, BAND_BYTES // VECTOR_BYTES)
    workers = numba.get_num_threads()
    B, (OH, OW) = len(x.data), window.output
    segments, vectors = B * -(-OH // bands.band_rows), B * OH * OW
    n_parts = min(max(-(-MIN_TASKS // F), vectors // MAX_SUM_TERMS), segments)
    dw, db = allocate_outputs(out, (w_shape, w_shape[:1]), dtype)
    launch(
        _weight_gradient, x.images, dy.images, bands, window.size, window.dilation[0],
        empty((workers, bands.padded_rows * bands.width * L), dtype),
        empty((workers, taps * L), dtype),
        empty((n_parts, F, taps), dtype), empty((n_parts, F), np.dtype(np.float64)),
        dw.reshape(F, taps), db,
    )  # fmt: skip
    return dw, db
