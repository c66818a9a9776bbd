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

import math
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
from kernels.numba_backend.runtime.compiler import inlined, parallel
from kernels.numba_backend.simd.activations import activation_argument
from kernels.numba_backend.simd.copies import copy_padded_rows
from kernels.numba_backend.simd.micro_kernels import outer_product_tile, outer_product_tile_shape
from kernels.numba_backend.simd.pixels import (
    PAIR_DTYPE,
    channels_per_plane,
    round_bits,
    store_paired_images,
    transpose_pixel,
)
from kernels.numba_backend.simd.tiled_matmul import add_pixel_sums, scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, load, splat, store

PANEL_BYTES = 256 << 10  # beside the filters, in second-level caches of 512 KiB and more
TASKS_PER_WORKER = 4
# The tasks of the weight gradient, at least MIN_PARTS, are parts of the batch where these take less
# memory than PARTS_BYTES, up to MAX_PARTS. Otherwise, slices of the filters of a group share a
# part: with 256 filters and channels, 64 images of 4x4 pixels, bfloat16 and one thread of a Zen 4,
# 8 parts took 11.2 ms and 8 slices 6.8 ms. No number depends on that of threads, so no bit of a
# result does.
MIN_PARTS, MAX_PARTS, PARTS_BYTES, MIN_SLICE = 8, 32, 2 << 20, 16


@parallel
def _correlate(
    x, w, scale, bias, activation, y, bands, channel_stride, phases, x_offsets, w_offsets,
    w_strides, out_step, groups, panels,
):  # fmt: skip
    """y (B, F, OH, OW, L) = the correlation of x (B, C, H, W, L) with w.

    In bfloat16, C and F are planes of two channels, and w are pairs.

    See `_Geometry` for the arguments from ``bands`` to ``out_step``. panels is work space for each
    worker.
    """
    B, C, H, W, L = x.shape
    _, F, OH, OW, _ = y.shape
    per_plane = channels_per_plane(y)
    channels, filters, workers = C // groups, F // groups * per_plane, len(panels)
    top, left, width, extent, row_step, column_step, band_rows, n_rows = bands
    n_bands = (n_rows + band_rows - 1) // band_rows
    x_flat, w_flat, y_flat = x.reshape(-1), w.reshape(-1), y.reshape(-1)
    zero = splat(y.dtype.type(0))
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
                    y_row = ((b * F + g * (F // groups)) * OH + row0 + i * out_step[0]) * OW
                    y_row += column0
                    if n_terms == 0:
                        for r in range(F // groups):
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
                                y_flat, (y_row + r // per_plane * OH * OW + j * out_step[1]) * L,
                                OH * OW * L, out_step[1] * L, ROWS, COLUMNS,
                            )  # fmt: skip


@inlined
def _transpose_padded_rows(x, plane, H, W, top, left, rows, width, L, panel):
    """panel (rows, width, image, channel) = L channels (H, W, image) of x; 0 outside.

    In bfloat16, the panel has a pair of images for each channel.
    """
    zero, vectors = splat(x.dtype.type(0)), L // channels_per_plane(x)
    for r in range(rows):
        for q in range(width):
            i, j, dst = top + r, left + q, (r * width + q) * vectors * L
            if 0 <= i < H and 0 <= j < W:
                transpose_pixel(x, ((plane * H + i) * W + j) * L, H * W * L, panel, dst, L)
            else:
                for n in range(vectors):
                    store(panel, dst + n * L, zero)


@inlined
def _pair_images(dy, start, planes, plane_stride, size, panel):
    """panel (filters, size) = pairs of images of dy, the numbers of one filter beside each other.

    ``size`` is the number of pairs of a plane.
    """
    L = VECTOR_BYTES // dy.itemsize
    for f in range(planes):
        for p in range(0, size, L // 2):
            store_paired_images(dy, start + f * plane_stride + 2 * p, panel, 2 * f * size + p, size)


@parallel
def _sum_products(
    x, dy, bands, size, dilation, groups, slices, tile, x_offsets, dy_offsets, panels, dy_panels,
    products, parts, dy_parts,
):  # fmt: skip
    """parts (parts, groups, taps, filters, channels) = dy times the pixels of x under each tap.

    Each part is the sum over some of the bands, and each task computes a slice of the filters of a
    group for a part. dy_parts (parts, F) = the sums of dy. The offsets are those of each pixel and
    image of a band. panels, dy_panels, which are used in bfloat16 alone, and products (workers,
    filters of a slice * channels) are work space for each worker.
    """
    B, C, H, W, L = x.shape
    _, F, OH, OW, _ = dy.shape
    per_plane, (_, _, _, filters, channels) = channels_per_plane(x), parts.shape
    group_planes, dy_planes, (ROWS, COLUMNS) = C // groups, F // groups // slices, tile
    slice_filters, n_slices = filters // slices, groups * slices
    top, left, width, extent, row_step, _, band_rows, n_rows = bands
    workers, n_parts, n_bands = len(panels), len(parts), (n_rows + band_rows - 1) // band_rows
    images = L // per_plane  # or pairs of them
    vector_stride = ((band_rows - 1) * row_step + extent) * width * images * L
    vectors, dw_size = channels // L, slice_filters * channels
    x_flat, dy_flat, parts_flat = x.reshape(-1), dy.reshape(-1), parts.reshape(-1)
    sums_flat = dy_parts.reshape(-1)
    ones, zeros = np.ones(slice_filters, parts.dtype), np.zeros(slice_filters, parts.dtype)
    identity = parts.dtype.type(1)
    for worker in prange(workers):
        panel, product = panels[worker], products[worker]
        first_task = worker * n_parts * n_slices // workers
        for task in range(first_task, (worker + 1) * n_parts * n_slices // workers):
            part, g, first_filter = task // n_slices, task % n_slices // slices, task % slices
            first_filter *= slice_filters
            sums_start = part * F * per_plane + g * filters + first_filter
            sums_flat[sums_start : sums_start + slice_filters] = 0
            first_segment = part * B * n_bands // n_parts
            for segment in range(first_segment, (part + 1) * B * n_bands // n_parts):
                b, first = segment // n_bands, segment % n_bands * band_rows
                rows = min(band_rows, n_rows - first)
                for v in range(vectors):
                    _transpose_padded_rows(
                        x_flat, b * C + g * group_planes + v * images, H, W,
                        first * row_step + top, left, (rows - 1) * row_step + extent, width, L,
                        panel[v * vector_stride :],
                    )  # fmt: skip
                dy_start = b * F + (g * filters + first_filter) // per_plane
                dy_start = (dy_start * OH + first) * OW * L
                for f in range(dy_planes):
                    add_pixel_sums(
                        dy_flat, dy_start + f * OH * OW * L, rows * OW,
                        sums_flat, sums_start + f * per_plane,
                    )  # fmt: skip
                gradients, gradient_start, row_stride = dy_flat, dy_start, OH * OW * L
                if per_plane == 2:
                    gradients, gradient_start = dy_panels[worker], 0
                    row_stride = rows * OW * images
                    _pair_images(dy_flat, dy_start, dy_planes, OH * OW * L, row_stride, gradients)
                for tap in range(size[0] * size[1]):
                    k, m = tap // size[1] * dilation[0], tap % size[1] * dilation[1]
                    start = ((part * groups + g) * size[0] * size[1] + tap) * filters + first_filter
                    start *= channels
                    # The first segment is the sum so far; the others are added to it.
                    sums, sums_base = product, 0
                    if segment == first_segment:
                        sums, sums_base = parts_flat, start
                    for column in range(0, vectors, COLUMNS):
                        v = min(column, vectors - COLUMNS)
                        for row in range(0, slice_filters, ROWS):
                            r = min(row, slice_filters - ROWS)
                            outer_product_tile(
                                panel, v * vector_stride + (k * width + m) * images * L, x_offsets,
                                vector_stride, gradients, gradient_start + r * row_stride,
                                dy_offsets, row_stride, rows * OW * images, ones, zeros, r,
                                identity, sums, sums_base + r * channels + v * L, channels, L,
                                ROWS, COLUMNS,
                            )  # fmt: skip
                    for p in range(0, dw_size if segment > first_segment else 0, L):
                        acc = load(parts_flat, start + p) + load(product, p)
                        store(parts_flat, start + p, acc)


@parallel
def _add_parts(parts, dy_parts, dw, db):
    """dw (F, channels, taps) and db (F,) = the sums over all parts."""
    n_parts, _, taps, filters, channels = parts.shape
    for f in prange(len(dw)):  # in bfloat16, a last odd filter is followed by a padding one
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


@parallel
def _pack_filters(w_bits, reverse, groups, scale, bias, w_pairs, padded_affine):
    """w_pairs (groups * rows, planes, taps, 2) = the filters in bfloat16, summed channels in pairs.

    w_bits (F, C / groups, taps) are the float32 numbers as integers. A row is a filter and sums
    over channels; for the input gradient (``reverse``) it is a channel and sums over filters. The
    numbers of padding rows and channels are 0. padded_affine (2, rows) = the scale and the bias of
    each row.
    """
    F, C, taps = w_bits.shape
    filters = F // groups
    n_rows, n_terms = (C, filters) if reverse else (filters, C)
    rows = len(w_pairs) // groups
    for task in prange(len(w_pairs)):
        g, r = task // rows, task % rows
        for t in range(2 * w_pairs.shape[1]):
            for tap in range(taps):
                bits = np.uint32(0)
                if r < n_rows and t < n_terms:
                    f, c = (t, r) if reverse else (r, t)
                    bits = round_bits(w_bits[g * filters + f, c, tap])
                w_pairs[task, t // 2, tap, t % 2] = bits
    for r in range(len(w_pairs)):
        padded_affine[0, r] = scale[r] if r < scale.size else 1
        padded_affine[1, r] = bias[r] if r < scale.size else 0


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
    vector : (lanes, itemsize, paired)
    """
    (channels, filters, w_channel_stride, KW, w_strides), (L, itemsize, paired) = w_layout, vector
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
            tile = outer_product_tile_shape(filters, column.n_outputs, paired)
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


def _pairs(count: int) -> int:
    """Return the number of pairs that hold so many channels."""
    return -(-count // 2)


@lru_cache(maxsize=256)
def _forward_geometry(window: Window, w_shape, groups: int, max_rows: int, *vector) -> _Geometry:
    F, channels, KH, KW = w_shape
    filters, (_, _, paired) = F // groups, vector
    if paired:
        channels, filters = _pairs(channels), 2 * _pairs(filters)
    rows, columns = correlation_phases(window, 0), correlation_phases(window, 1)
    taps = channels * KH * KW
    w_layout = channels, filters, KH * KW, KW, (filters * taps, taps)
    return _make_geometry(rows, columns, window.stride, w_layout, (1, 1), max_rows, vector)


@lru_cache(maxsize=256)
def _gradient_geometry(window: Window, w_shape, groups: int, max_rows: int, *vector) -> _Geometry:
    F, channels, KH, KW = w_shape
    filters, (_, _, paired) = F // groups, vector
    rows, columns = gradient_phases(window, 0), gradient_phases(window, 1)
    if paired:  # `_pack_filters` has made rows of the channels
        filters, channels = _pairs(filters), 2 * _pairs(channels)
        taps = filters * KH * KW
        w_layout = filters, channels, KH * KW, KW, (channels * taps, taps)
    else:
        taps = channels * KH * KW
        w_layout = filters, channels, taps, KW, (filters * taps, KH * KW)
    return _make_geometry(rows, columns, (1, 1), w_layout, window.stride, max_rows, vector)


def _rows_for_tasks(n_rows: int, runs: int, n_tasks: int) -> int:
    """Return the rows of a band with which ``runs`` times ``n_rows`` are about so many tasks."""
    return -(-n_rows // -(-n_tasks // runs))


def _product(make_geometry, x: PackedBatch, w, window, groups, affine, activation, y):
    """Fill y with the correlation of x and w, and return it."""
    workers, B, L = numba.get_num_threads(), len(x.data), x.lanes
    max_rows = _rows_for_tasks(y.shape[2], B * groups, TASKS_PER_WORKER * workers)
    vector = L, x.data.itemsize, x.is_bfloat16
    geometry = make_geometry(window, w.shape, groups, max_rows, *vector)
    panel_size = x.data.shape[1] // groups * geometry.channel_stride
    panels = empty((workers, panel_size), x.data.dtype)
    if not x.is_bfloat16:
        launch(_correlate, x.data, w, *affine, activation, y.data, *geometry, groups, panels)
        return y
    rows, planes, taps = 2 * y.data.shape[1], x.data.shape[1] // groups, math.prod(w.shape[2:])
    w_pairs = empty((rows, planes, taps), PAIR_DTYPE)
    halves = w_pairs.reshape(rows, planes, taps, 1).view(np.uint16)
    w_bits = w.reshape(*w.shape[:2], taps).view(np.uint32)
    padded_affine = empty((2, rows), x.dtype)
    is_gradient = make_geometry is _gradient_geometry
    launch(_pack_filters, w_bits, is_gradient, groups, *affine, halves, padded_affine)
    launch(
        _correlate, x.data, w_pairs, *padded_affine, activation, y.data, *geometry, groups, panels
    )
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
def _band_offsets(bands: Bands, columns: int, images: int, L: int) -> np.ndarray:
    """Return the offset in a panel of each pixel and image under the first tap of a band."""
    i, j, n = np.ogrid[: bands.band_rows, :columns, :images]
    pixels = i * bands.row_step * bands.width + j * bands.column_step
    return ((pixels * images + n) * L).astype(np.int64).ravel()


def _slices(filters: int, count: int) -> int:
    """Return in how many equal slices to cut filters: ``count``, or fewer where it must be.

    A slice has whole pairs of filters, and at least MIN_SLICE, because each task copies x again.
    """
    fitting = (
        n for n in range(1, count + 1) if filters % (2 * n) == 0 and filters // n >= MIN_SLICE
    )
    return max(fitting, default=1)


def weight_gradient(
    dy: PackedBatch, x: PackedBatch, w_shape, window: Window, groups: int, out=None
):
    """Return dw and db; the channels of a group must fill whole vectors."""
    (F, channels, KH, KW), dtype, B, L = w_shape, x.dtype, len(x.data), x.lanes
    (OH, OW), workers = window.output, numba.get_num_threads()
    per_plane = 2 if x.is_bfloat16 else 1
    images, filters = L // per_plane, dy.data.shape[1] * per_plane // groups
    rows, columns = correlation_phases(window, 0), correlation_phases(window, 1)
    max_pixels = PANEL_BYTES // (channels * images * x.data.itemsize)
    max_parts = max(1, PARTS_BYTES // (F * channels * KH * KW * dtype.itemsize))
    slices = _slices(filters, -(-MIN_PARTS // (max_parts * groups)))
    max_rows = _rows_for_tasks(OH, B, -(-MIN_PARTS // slices))
    bands = make_bands(rows, columns, window.stride, max_pixels, max_rows)
    n_parts = max(-(-MIN_PARTS // (slices * groups)), max_parts)
    n_parts = min(n_parts, MAX_PARTS, B * -(-OH // bands.band_rows))
    band_pixels = bands.band_rows * OW * images
    parts = empty((n_parts, groups, KH * KW, filters, channels), dtype)
    dy_parts = empty((n_parts, filters * groups), np.dtype(np.float64))
    launch(
        _sum_products, x.data, dy.data, bands, window.size, window.dilation, groups, slices,
        outer_product_tile_shape(filters // slices, channels // L),
        _band_offsets(bands, OW, images, L), strided_offsets(band_pixels, 1),
        empty((workers, bands.padded_rows * bands.width * images * channels), x.data.dtype),
        empty((workers, filters // slices * band_pixels if x.is_bfloat16 else 0), x.data.dtype),
        empty((workers, filters // slices * channels), dtype), parts, dy_parts,
    )  # fmt: skip
    dw, db = allocate_outputs(out, (w_shape, w_shape[:1]), dtype)
    launch(_add_parts, parts, dy_parts, dw.reshape(F, channels, KH * KW), db)
    return dw, db
