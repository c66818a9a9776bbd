"""3x3 correlations on the packed layout by Winograd's minimal filtering, and their gradients.

A 3x3 filter g that slides over a 6x6 patch d has 4x4 outputs and takes 144 multiplications.
F(4x4, 3x3) takes 36:

    y = A' [(G g G') * (B' d B)] A,     with * elementwise and ' for the transpose.

The transforms (`simd.winograd_transforms`) serve many filters or channels each. Summed over the
channels, the 36 elements of all patches are 36 matrix products, which the register tiles of `simd`
compute. On the packed layout the transforms are those of whole vectors. The gradients follow by the
chain rule: that of the patch is the same correlation with reversed filters, and that of the filter
is

    dg = G' [(A dy A') * (B' d B)] G,   summed over the patches of all images.

The patches of all blocks of images are numbered in one sequence. So many are computed at a time
that their work arrays stay in the second-level cache. A patch is six short runs of memory, which
the hardware does not prefetch, so the kernels ask for the pixels that they need next: 64 channels
and filters of 16x16 pixels ran at 285 instead of 245 GFLOP/s of the direct sum on one thread of a
Zen 4, 32 of 28x28 at 230 instead of 171.

Activations in bfloat16 are widened by the transforms: the products are in float32. A product costs
twice as much as in bfloat16, but there are four times fewer.

References
----------
Winograd: Arithmetic complexity of computations (1980).
Lavin, Gray: Fast algorithms for convolutional neural networks (2016).
"""

import numba
import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import PackedBatch, rounded
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.activations import activate, activation_argument
from kernels.numba_backend.simd.micro_kernels import (
    outer_product_tile_shape,
    product_tile,
)
from kernels.numba_backend.simd.pixels import (
    channels_per_plane,
    load_channels,
    load_pixel,
    splat_channels,
    store_channels,
    store_pixel,
)
from kernels.numba_backend.simd.tiled_matmul import (
    batched_matmul,
    scale_and_bias,
    strided_offsets,
)
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    add_lanes,
    gather_strided,
    load,
    prefetch_to_read,
    prefetch_to_write,
    splat,
    store,
    transpose,
)
from kernels.numba_backend.simd.winograd_transforms import (
    ELEMENTS,
    OUTPUTS,
    SIZE,
    transform_filter,
    transform_gradient,
    transform_padded_patch,
    transform_products,
    transform_sums,
)

# Patches that are computed at a time: as many as CHUNK_BYTES hold with their products, but enough
# for the columns of a tile or, in the weight gradient, for the terms of a sum.
CHUNK_BYTES, MIN_CHUNK, MIN_SUMMED_CHUNK, MAX_CHUNK = 640 << 10, 4, 4, 8
# Channels of the weight gradient that are one task: their numbers for a filter share cache lines.
SUMMED_CHANNELS = 4
# The weight gradient is summed over each of some parts of the patches, at most MAX_PARTS and
# PARTS_BYTES. The number does not depend on the number of threads, so no bit of a result does.
# Where parts are few, each task computes a slice of the channels, of at least MIN_SLICE.
MAX_PARTS, PARTS_BYTES, MIN_SLICE = 16, 4 << 20, 32


@inlined
def _element_stride(rows, columns, L):
    """Return the stride between consecutive matrices (rows, columns, L) of a transform.

    One extra vector avoids that the 36 stores of a patch compete for the same cache sets: the
    transform of 256 x 256 filters took 0.7 instead of 1.7 ms.
    """
    return (rows * columns + 1) * L


@inlined
def _position(patch, grid):
    """Return the block of a patch, and the row and the column of its first output."""
    rows, columns = grid
    row, column = patch // columns % rows, patch % columns
    return patch // (rows * columns), OUTPUTS * row, OUTPUTS * column


@parallel
def _transform_filters(w, reverse, rows, columns, transformed):
    """transformed (36, F, columns) = G g G' of the filters w (F, C, 3, 3), with C <= columns.

    For the input gradient (``reverse``) it is (36, C, columns), with F <= columns and the taps of g
    reversed. The columns fill whole vectors.
    """
    F, C, _, _ = w.shape
    w_flat, L = w.reshape(-1), VECTOR_BYTES // w.itemsize
    row_stride, column_stride, n_columns = (9, C * 9, F) if reverse else (C * 9, 9, C)
    stride, zero = _element_stride(rows, columns // L, L), splat(w.dtype.type(0))
    for r in prange(rows):
        taps = np.empty(9 * L, w.dtype)
        for t in range(0, columns, L):
            start = r * row_stride + t * column_stride
            for k in range(9):
                tap = start + (8 - k if reverse else k)
                g = gather_strided(w_flat, tap, column_stride, 0, n_columns - t, zero)
                store(taps, k * L, g)
            transform_filter(taps, 0, 3 * L, L, transformed, r * columns + t, stride)


@inlined
def _prefetch_patch(x, plane, H, W, top, left, size, L):
    """Ask for the pixels of a patch of a plane (H, W, L) of x."""
    for i in range(max(0, top), min(top + size, H)):
        for j in range(max(0, left), min(left + size, W)):
            prefetch_to_read(x, ((plane * H + i) * W + j) * L)


@inlined
def _transform_patches(
    x, shape, pad_begin, first_plane, stop_plane, first, count, chunk, grid, transformed
):
    """transformed (36, channels, chunk, L) = B' d B of ``count`` patches of x from ``first`` on.

    The channels are those of some planes. ``shape`` is that of x (planes, H, W, L).
    """
    planes, H, W, L = shape
    per_plane, size = channels_per_plane(x), H * W * L
    stride = _element_stride((stop_plane - first_plane) * per_plane, chunk, L)
    for c in range(first_plane, stop_plane):
        next_plane = size if c + 1 < stop_plane else 0
        for p in range(count):
            b, i, j = _position(first + p, grid)
            transform_padded_patch(
                x, (b * planes + c) * size, (H, W), i - pad_begin[0], j - pad_begin[1],
                next_plane, transformed, ((c - first_plane) * per_plane * chunk + p) * L, stride,
                chunk * L,
            )  # fmt: skip


@inlined
def _store_output(outputs, m, n, scale, bias, activation, y, plane, i, j, shape):
    """Write output (m, n) of a patch: see `_store_outputs`."""
    OH, OW, L = shape
    value = load_channels(y, outputs, (OUTPUTS * m + n) * L, OUTPUTS * OUTPUTS * L)
    value = activate(value * scale + bias, activation)
    store_pixel(y, ((plane * OH + i + m) * OW + j + n) * L, value)


@inlined
def _prefetch_outputs(y, plane, i, j, shape):
    """Ask for the pixels of y that `_store_outputs` writes, if the patch has all of them."""
    OH, OW, L = shape
    if i + OUTPUTS <= OH and j + OUTPUTS <= OW:
        for m in range(OUTPUTS):
            for n in range(OUTPUTS):
                prefetch_to_write(y, ((plane * OH + i + m) * OW + j + n) * L)


@inlined
def _store_outputs(
    products, start, stride, channel_stride, scale, bias, activation, y, plane, i, j, shape, outputs
):
    """Write the outputs A' m A of the products m of a patch to (i, j) of a plane of y.

    ``shape`` is that of a plane (OH, OW, L), and ``outputs`` is work space.
    """
    OH, OW, L = shape
    for k in range(channels_per_plane(y)):
        transform_products(
            products, start + k * channel_stride, SIZE * stride, stride,
            outputs, k * OUTPUTS * OUTPUTS * L, L,
        )  # fmt: skip
    rows, columns = min(OUTPUTS, OH - i), min(OUTPUTS, OW - j)
    if rows == columns == OUTPUTS:  # loops whose bounds LLVM knows
        for m in range(OUTPUTS):
            for n in range(OUTPUTS):
                _store_output(outputs, m, n, scale, bias, activation, y, plane, i, j, shape)
    else:
        for m in range(rows):
            for n in range(columns):
                _store_output(outputs, m, n, scale, bias, activation, y, plane, i, j, shape)


@parallel
def _correlate(
    x, w_transformed, columns, x_offsets, w_offsets, scale, bias, activation, y, pad_begin, chunk,
    tile, x_buffers, product_buffers, output_buffers,
):  # fmt: skip
    """y (B, F, OH, OW, L) = the correlation of x (B, C, H, W, L), by chunks of patches.

    In bfloat16, x and y have planes of two channels. w_transformed and columns are those of
    `_transform_filters`. The rest is work space for each worker: x_buffers and product_buffers for
    the 36 elements of C channels or F filters and the patches of a chunk.
    """
    B, x_planes, H, W, L = x.shape
    _, y_planes, OH, OW, _ = y.shape
    C, F = x_offsets.size, y_planes * channels_per_plane(y)
    grid = (OH + OUTPUTS - 1) // OUTPUTS, (OW + OUTPUTS - 1) // OUTPUTS
    n_patches, workers = B * grid[0] * grid[1], len(x_buffers)
    n_chunks = (n_patches + chunk - 1) // chunk
    w_stride = _element_stride(F, columns // L, L)
    x_stride, product_stride = _element_stride(C, chunk, L), _element_stride(F, chunk, L)
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    for worker in prange(workers):
        transformed, products = x_buffers[worker], product_buffers[worker]
        for task in range(worker * n_chunks // workers, (worker + 1) * n_chunks // workers):
            first = min(task * chunk, n_patches - chunk)
            _transform_patches(
                x_flat, (x_planes, H, W, L), pad_begin, 0, x_planes, first, chunk, chunk, grid,
                transformed,
            )  # fmt: skip
            batched_matmul(
                ELEMENTS, transformed, x_stride, x_offsets, w_transformed, w_stride, columns,
                w_offsets, C, products, product_stride, F, F, chunk, tile,
            )  # fmt: skip
            for f in range(y_planes):
                for p in range(chunk if f + 1 < y_planes else 0):
                    b, i, j = _position(first + p, grid)
                    _prefetch_outputs(y_flat, b * y_planes + f + 1, i, j, (OH, OW, L))
                scale_v, bias_v = splat_channels(y, scale, f), splat_channels(y, bias, f)
                for p in range(chunk):
                    b, i, j = _position(first + p, grid)
                    start = (f * channels_per_plane(y) * chunk + p) * L
                    _store_outputs(
                        products, start, product_stride, chunk * L, scale_v, bias_v, activation,
                        y_flat, b * y_planes + f, i, j, (OH, OW, L), output_buffers[worker],
                    )  # fmt: skip


@inlined
def _transform_gradients(
    dy, shape, first, count, grid, stride, square, transformed, sums, first_sum, needs_sums
):
    """transformed (36, (patch, image), F) = A dy A' of ``count`` patches of dy from ``first`` on.

    ``shape`` is that of dy (planes, OH, OW, L). The lanes are filters. ``square`` is work space
    (4, 4, L, L) for a patch of L filters and images. The sums of dy are added to ``sums`` from
    ``first_sum`` on if they are needed.
    """
    planes, OH, OW, L = shape
    per_plane, zero = channels_per_plane(dy), splat(transformed.dtype.type(0))
    vectors, vector_planes = planes * per_plane // L, L // per_plane
    for task in range(count * vectors):
        p, v = task // vectors, task % vectors
        if task + 1 < count * vectors:
            b, i, j = _position(first + (task + 1) // vectors, grid)
            plane = b * planes + (task + 1) % vectors * vector_planes
            for f in range(plane, plane + vector_planes):
                _prefetch_patch(dy, f, OH, OW, i, j, OUTPUTS, L)
        b, i, j = _position(first + p, grid)
        for f in range(vector_planes):
            plane = b * planes + v * vector_planes + f
            for m in range(OUTPUTS):
                for n in range(OUTPUTS):
                    out = ((OUTPUTS * m + n) * L + f * per_plane) * L
                    if i + m < OH and j + n < OW:
                        pixel = load_pixel(dy, ((plane * OH + i + m) * OW + j + n) * L)
                        store_channels(dy, pixel, square, out, L)
                    else:
                        for k in range(per_plane):
                            store(square, out + k * L, zero)
        for m in range(OUTPUTS * OUTPUTS):
            transpose(square, m * L * L, L, square, m * L * L, L)
        if needs_sums:
            acc = zero
            for q in range(OUTPUTS * OUTPUTS * L):
                acc += load(square, q * L)
            add_lanes(acc, sums, first_sum + v * L)
        for n in range(L):
            transform_gradient(
                square, n * L, OUTPUTS * L * L, L * L,
                transformed, ((p * L + n) * vectors + v) * L, stride,
            )  # fmt: skip


@serial
def _multiply_gradients(
    transformed, gradients, x_offsets, dy_offsets, rows, vectors, chunk, count, tile,
    sums, first_sum, sum_stride, is_continued,
):  # fmt: skip
    """sums (36, rows, F) = the products of channels and filters over the images of some patches.

    They are added to the sums so far if ``is_continued``. As `batched_matmul`, this is a function
    of its own so that it has registers.
    """
    (ROWS, COLUMNS), L = tile, VECTOR_BYTES // sums.itemsize
    x_stride = _element_stride(rows, chunk, L)
    dy_stride = _element_stride(chunk * L, vectors, L)
    tile_sums = np.zeros(ROWS * COLUMNS * L, sums.dtype)
    for u in range(ELEMENTS):
        for row in range(0, rows, ROWS):
            r = min(row, rows - ROWS)
            for column in range(0, vectors, COLUMNS):
                v = min(column, vectors - COLUMNS)
                start = first_sum + u * sum_stride + (r * vectors + v) * L
                out, out_start, row_stride = sums, start, vectors * L
                # Another tile has already added to the sums that this one shares with it.
                is_overlapping = is_continued and (r < row or v < column)
                if is_overlapping:
                    out, out_start, row_stride = tile_sums, 0, COLUMNS * L
                    for i in range(row - r, ROWS):
                        for j in range(column - v, COLUMNS):
                            value = load(sums, start + (i * vectors + j) * L)
                            store(tile_sums, (i * COLUMNS + j) * L, value)
                product_tile(
                    gradients, u * dy_stride + v * L, dy_offsets, L,
                    transformed, u * x_stride + r * chunk * L, x_offsets, chunk * L, count * L,
                    out, out_start, row_stride, L, ROWS, COLUMNS, is_continued,
                )  # fmt: skip
                if is_overlapping:
                    for i in range(row - r, ROWS):
                        for j in range(column - v, COLUMNS):
                            value = load(tile_sums, (i * COLUMNS + j) * L)
                            store(sums, start + (i * vectors + j) * L, value)


@parallel
def _sum_products(
    x, dy, pad_begin, chunk, slices, tile, x_offsets, dy_offsets, squares,
    x_buffers, dy_buffers, parts, dy_parts,
):  # fmt: skip
    """parts (parts, 36, C, F) = (A dy A') * (B' d B), summed over each part of the patches of x.

    dy_parts (parts, F) = the sums of dy. The lanes are filters here, and the images are summed like
    the patches. Each task computes a slice of the channels for a part. The arrays before ``parts``
    are work space for each worker.
    """
    B, planes, H, W, L = x.shape
    _, dy_planes, OH, OW, _ = dy.shape
    per_plane = channels_per_plane(x)
    slice_planes, vectors = planes // slices, dy_planes * per_plane // L
    rows, F = slice_planes * per_plane, vectors * L
    grid = (OH + OUTPUTS - 1) // OUTPUTS, (OW + OUTPUTS - 1) // OUTPUTS
    n_patches, workers, n_parts = B * grid[0] * grid[1], len(x_buffers), len(parts)
    dy_stride = _element_stride(chunk * L, vectors, L)
    part_stride = _element_stride(rows * slices, vectors, L)
    x_flat, dy_flat, parts_flat = x.reshape(-1), dy.reshape(-1), parts.reshape(-1)
    sums_flat = dy_parts.reshape(-1)
    for worker in prange(workers):
        transformed, gradients = x_buffers[worker], dy_buffers[worker]
        first_task = worker * n_parts * slices // workers
        for task in range(first_task, (worker + 1) * n_parts * slices // workers):
            part, first_plane = task // slices, task % slices * slice_planes
            first_patch = part * n_patches // n_parts
            stop_patch = (part + 1) * n_patches // n_parts
            for f in range(F if first_plane == 0 else 0):
                sums_flat[part * F + f] = 0
            for first in range(first_patch, stop_patch, chunk):
                count = min(chunk, stop_patch - first)
                _transform_patches(
                    x_flat, (planes, H, W, L), pad_begin, first_plane, first_plane + slice_planes,
                    first, count, chunk, grid, transformed,
                )  # fmt: skip
                _transform_gradients(
                    dy_flat, (dy_planes, OH, OW, L), first, count, grid, dy_stride,
                    squares[worker], gradients, sums_flat, part * F, first_plane == 0,
                )  # fmt: skip
                _multiply_gradients(
                    transformed, gradients, x_offsets, dy_offsets, rows, vectors, chunk, count,
                    tile, parts_flat, part * ELEMENTS * part_stride + first_plane * per_plane * F,
                    part_stride, first > first_patch,
                )  # fmt: skip


@parallel
def _add_parts(parts, dy_parts, dw, db):
    """dw (F, C, 3, 3) = G' P G, where P is the sum over parts (parts, 36, C, F).

    db (F,) = the sum over dy_parts (parts, F).
    """
    F, C, _, _ = dw.shape
    parts_flat, n_parts, L = parts.reshape(-1), len(parts), VECTOR_BYTES // parts.itemsize
    stride = _element_stride(C, F // L, L)
    for c_block in prange((C + SUMMED_CHANNELS - 1) // SUMMED_CHANNELS):
        sums, taps = np.empty(ELEMENTS * F, parts.dtype), np.empty(9 * L, parts.dtype)
        first = c_block * SUMMED_CHANNELS
        for c in range(first, min(first + SUMMED_CHANNELS, C)):
            for u in range(ELEMENTS):
                for f in range(0, F, L):
                    acc = load(parts_flat, u * stride + c * F + f)
                    for part in range(1, n_parts):
                        acc += load(parts_flat, (part * ELEMENTS + u) * stride + c * F + f)
                    store(sums, u * F + f, acc)
            for f in range(0, F, L):
                transform_sums(sums, f, SIZE * F, F, taps, 0, L)
                for lane in range(L):
                    for tap in range(9):
                        dw[f + lane, c, tap // 3, tap % 3] = taps[tap * L + lane]
    for f in range(F):
        dy_sum = 0.0
        for part in range(n_parts):
            dy_sum += dy_parts[part, f]
        db[f] = dy_sum


def _chunk_size(n_patches: int, min_size: int, C: int, F: int, L: int, itemsize: int) -> int:
    """Return the number of patches that are computed at a time."""
    fitting = CHUNK_BYTES // (ELEMENTS * (C + F) * L * itemsize)
    return min(n_patches, max(min_size, min(fitting, MAX_CHUNK)))


def _count_patches(B: int, outputs: tuple[int, int]) -> int:
    OH, OW = outputs
    return B * -(-OH // OUTPUTS) * -(-OW // OUTPUTS)


def _launch_correlate(
    x: PackedBatch, w, reverse: bool, scale, bias, activation, pad_begin, y: PackedBatch
) -> PackedBatch:
    """Fill y, and return it."""
    C, F, L, dtype, workers = x.shape[1], y.shape[1], x.lanes, x.dtype, numba.get_num_threads()
    n_patches = _count_patches(len(x.data), y.shape[2:])
    chunk = _chunk_size(n_patches, MIN_CHUNK, C, F, L, dtype.itemsize)
    columns = -(-C // L) * L
    transformed = empty((ELEMENTS * _element_stride(F, columns // L, L),), dtype)
    w = rounded(w) if x.is_bfloat16 else w
    launch(_transform_filters, w, reverse, F, columns, transformed)
    launch(
        _correlate, x.data, transformed, columns, strided_offsets(C, chunk * L),
        strided_offsets(C, 1), *scale_and_bias(scale, bias, F, dtype), activation,
        y.data, pad_begin, chunk, outer_product_tile_shape(F, chunk, in_first_level=True),
        empty((workers, ELEMENTS * _element_stride(C, chunk, L)), dtype),
        empty((workers, ELEMENTS * _element_stride(F, chunk, L)), dtype),
        empty((workers, 2 * OUTPUTS * OUTPUTS * L), dtype),
    )  # fmt: skip
    return y


def correlate(x: PackedBatch, w, b, window: Window, scale, activation) -> PackedBatch:
    """Return y; in bfloat16, the numbers of channels and filters must be even."""
    y = x.like(len(w), *window.output)
    return _launch_correlate(x, w, False, scale, b, activation, window.pad_begin, y)


def input_gradient(dy: PackedBatch, w, window: Window) -> PackedBatch:
    """Return dx; in bfloat16, the numbers of channels and filters must be even."""
    top, left = window.pad_begin
    dx = dy.like(w.shape[1], *window.image)
    identity = activation_argument(None, dy.dtype)
    return _launch_correlate(dy, w, True, None, None, identity, (2 - top, 2 - left), dx)


def _count_slices(C: int, n_parts: int, workers: int) -> int:
    """Return in how many equal slices of pairs of channels to cut each part."""
    slices = 1
    while n_parts * slices < 2 * workers and C % (4 * slices) == 0 and C // slices > MIN_SLICE:
        slices *= 2
    return slices


def weight_gradient(dy: PackedBatch, x: PackedBatch, w_shape, window: Window, out=None):
    """Return dw and db; the filters must fill whole vectors, and pairs of channels in bfloat16."""
    (F, C), dtype, B, L = w_shape[:2], x.dtype, len(x.data), x.lanes
    workers, n_patches = numba.get_num_threads(), _count_patches(B, window.output)
    chunk = _chunk_size(n_patches, MIN_SUMMED_CHUNK, C, F, L, dtype.itemsize)
    n_parts = min(MAX_PARTS, max(1, PARTS_BYTES // (ELEMENTS * C * F * dtype.itemsize)), n_patches)
    slices = _count_slices(C, n_parts, workers)
    rows, vectors = C // slices, F // L
    parts = empty((n_parts, ELEMENTS * _element_stride(C, vectors, L)), dtype)
    dy_parts = empty((n_parts, F), np.dtype(np.float64))
    launch(
        _sum_products, x.data, dy.data, window.pad_begin, chunk, slices,
        outer_product_tile_shape(rows, vectors, in_first_level=True),
        strided_offsets(chunk * L, 1), strided_offsets(chunk * L, F),
        empty((workers, OUTPUTS * OUTPUTS * L * L), dtype),
        empty((workers, ELEMENTS * _element_stride(rows, chunk, L)), dtype),
        empty((workers, ELEMENTS * _element_stride(chunk * L, vectors, L)), dtype),
        parts, dy_parts,
    )  # fmt: skip
    dw, db = allocate_outputs(out, (w_shape, w_shape[:1]), dtype)
    launch(_add_parts, parts, dy_parts, dw, db)
    return dw, db
