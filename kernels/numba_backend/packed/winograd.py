"""3x3 correlations on the packed layout by Winograd's minimal filtering, and their gradients.

A 3x3 filter g that slides over a 4x4 patch d has 2x2 outputs and takes 36 multiplications.
F(2x2, 3x3) takes 16:

    y = A' [(G g G') * (B' d B)] A,     with * elementwise and ' for the transpose.

The transforms are additions, and each serves many filters or channels. Summed over the channels,
the 16 elements of all patches are 16 matrix products, which the register tiles of `simd` compute.
On the packed layout the transforms add whole vectors. The gradients follow by the chain rule: that
of the patch is the same correlation with reversed filters, and that of the filter is

    dg = G' [(A dy A') * (B' d B)] G,   summed over the patches of all images.

One row of patches is computed at a time, and its work arrays stay in the second-level cache.
Outputs differ from the direct sum by rounding: the additions before the multiplications lose about
one bit.

References
----------
Winograd: Arithmetic complexity of computations (1980).
Lavin, Gray: Fast algorithms for convolutional neural networks (2016).
"""

import numba
import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.activations import activate, activation_argument
from kernels.numba_backend.simd.copies import copy_padded_rows
from kernels.numba_backend.simd.micro_kernels import outer_product_tile, outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import channel_sums, scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import load, splat, store, transpose

# The weight gradient is summed over each of at most so many parts of the patches. The number does
# not depend on the number of threads, so no bit of a result does.
MAX_PARTS = 16


@inlined
def _transform_input(a, b, c, d):
    """Return B' of a column of four vectors."""
    return a - c, b + c, c - b, b - d


@inlined
def _transform_output(a, b, c, d):
    """Return A' of a column of four vectors."""
    return a + b + c, b - c - d


@inlined
def _transform_dy(a, b, zero):
    """Return A of a column of two vectors."""
    return a, a + b, a - b, zero - b


@inlined
def _product_stride(rows, columns, L):
    """Return the stride between consecutive matrices (rows, columns, L) of a transform.

    One extra vector avoids cache-set conflicts between the 16 stores.
    """
    return (rows * columns + 1) * L


@parallel
def _transform_filters(w, reverse, transformed):
    """transformed (16, F, C) = G g G' of the filters w (F, C, 3, 3).

    For the input gradient (``reverse``) it is (16, C, F), with the taps of g reversed.
    """
    _, rows, columns = transformed.shape
    half = w.dtype.type(0.5)
    for r in prange(rows):
        column_transform = np.empty((4, 3), w.dtype)
        for t in range(columns):
            for k in range(3):
                if reverse:
                    a, b, c = w[t, r, 2, 2 - k], w[t, r, 1, 2 - k], w[t, r, 0, 2 - k]
                else:
                    a, b, c = w[r, t, 0, k], w[r, t, 1, k], w[r, t, 2, k]
                column_transform[0, k], column_transform[3, k] = a, c
                column_transform[1, k] = (a + b + c) * half
                column_transform[2, k] = (a - b + c) * half
            for i in range(4):
                a, b, c = column_transform[i, 0], column_transform[i, 1], column_transform[i, 2]
                transformed[4 * i, r, t], transformed[4 * i + 3, r, t] = a, c
                transformed[4 * i + 1, r, t] = (a + b + c) * half
                transformed[4 * i + 2, r, t] = (a - b + c) * half


@inlined
def _transform_input_row(x, start, stride):
    """Return B' of four vectors of a row."""
    return _transform_input(
        load(x, start), load(x, start + stride), load(x, start + 2 * stride),
        load(x, start + 3 * stride),
    )  # fmt: skip


@inlined
def _store_input_column(out, start, stride, a, b, c, d):
    """Write B' of a column to the elements (0..3, column) of a transformed patch."""
    a, b, c, d = _transform_input(a, b, c, d)
    store(out, start, a)
    store(out, start + 4 * stride, b)
    store(out, start + 8 * stride, c)
    store(out, start + 12 * stride, d)


@inlined
def transform_patch(x, start, row_stride, column_stride, out, out_start, out_stride):
    """Write the 16 elements of B' d B, where d is the 4x4 patch of vectors of x at ``start``."""
    a0, a1, a2, a3 = _transform_input_row(x, start, column_stride)
    b0, b1, b2, b3 = _transform_input_row(x, start + row_stride, column_stride)
    c0, c1, c2, c3 = _transform_input_row(x, start + 2 * row_stride, column_stride)
    d0, d1, d2, d3 = _transform_input_row(x, start + 3 * row_stride, column_stride)
    _store_input_column(out, out_start, out_stride, a0, b0, c0, d0)
    _store_input_column(out, out_start + out_stride, out_stride, a1, b1, c1, d1)
    _store_input_column(out, out_start + 2 * out_stride, out_stride, a2, b2, c2, d2)
    _store_input_column(out, out_start + 3 * out_stride, out_stride, a3, b3, c3, d3)


@inlined
def _transform_output_row(products, start, stride):
    """Return A' of four products of a row."""
    return _transform_output(
        load(products, start), load(products, start + stride), load(products, start + 2 * stride),
        load(products, start + 3 * stride),
    )  # fmt: skip


@inlined
def transform_products(products, start, stride):
    """Return the 2x2 outputs A' [...] A, row by row, of the 16 products of a patch."""
    a0, a1 = _transform_output_row(products, start, stride)
    b0, b1 = _transform_output_row(products, start + 4 * stride, stride)
    c0, c1 = _transform_output_row(products, start + 8 * stride, stride)
    d0, d1 = _transform_output_row(products, start + 12 * stride, stride)
    upper0, lower0 = _transform_output(a0, b0, c0, d0)
    upper1, lower1 = _transform_output(a1, b1, c1, d1)
    return upper0, upper1, lower0, lower1


@inlined
def _store_dy_column(out, start, stride, a, b, zero):
    """Write A of a column to the elements (0..3, column) of a transformed gradient."""
    a, b, c, d = _transform_dy(a, b, zero)
    store(out, start, a)
    store(out, start + 4 * stride, b)
    store(out, start + 8 * stride, c)
    store(out, start + 12 * stride, d)


@inlined
def _transform_dy_patch(dy_rows, start, row_stride, L, out, out_start, out_stride, zero):
    """Write the 16 elements of A dy A', where dy is the 2x2 patch of vectors at ``start``."""
    a0, a1, a2, a3 = _transform_dy(load(dy_rows, start), load(dy_rows, start + L), zero)
    start += row_stride
    b0, b1, b2, b3 = _transform_dy(load(dy_rows, start), load(dy_rows, start + L), zero)
    _store_dy_column(out, out_start, out_stride, a0, b0, zero)
    _store_dy_column(out, out_start + out_stride, out_stride, a1, b1, zero)
    _store_dy_column(out, out_start + 2 * out_stride, out_stride, a2, b2, zero)
    _store_dy_column(out, out_start + 3 * out_stride, out_stride, a3, b3, zero)


@parallel
def _correlate(
    x, w_transformed, x_offsets, w_offsets, scale, bias, activation, y, pad_begin, tile,
    row_buffers, x_buffers, product_buffers,
):  # fmt: skip
    """y (B, F, OH, OW, L) = the correlation of x (B, C, H, W, L), by rows of patches.

    w_transformed is (16, F, C). The rest is work space for each worker: row_buffers (workers,
    4 * width * L) for the four padded rows of a channel, x_buffers and product_buffers (workers,
    16 products of C or F rows and as many columns as patches).
    """
    B, C, H, W, L = x.shape
    _, F, OH, OW, _ = y.shape
    (top, left), (ROWS, COLUMNS) = pad_begin, tile
    patch_rows, patch_columns = (OH + 1) // 2, (OW + 1) // 2
    width, workers = 2 * patch_columns + 2, len(row_buffers)
    x_stride = _product_stride(C, patch_columns, L)
    product_stride = _product_stride(F, patch_columns, L)
    x_flat, w_flat, y_flat = x.reshape(-1), w_transformed.reshape(-1), y.reshape(-1)
    ones, zeros = np.ones(F, x.dtype), np.zeros(F, x.dtype)
    identity = x.dtype.type(1)
    for worker in prange(workers):
        padded_rows, patches = row_buffers[worker], x_buffers[worker]
        products = product_buffers[worker]
        first = worker * B * patch_rows // workers
        stop = (worker + 1) * B * patch_rows // workers
        for task in range(first, stop):
            b, i = task // patch_rows, task % patch_rows
            for c in range(C):
                copy_padded_rows(
                    x_flat, b * C + c, H, W, 2 * i - top, -left, 4, width, L, padded_rows
                )
                for j in range(patch_columns):
                    patch = (c * patch_columns + j) * L
                    transform_patch(padded_rows, 2 * j * L, width * L, L, patches, patch, x_stride)
            for u in range(16):
                for row in range(0, F, ROWS):
                    r = min(row, F - ROWS)
                    for column in range(0, patch_columns, COLUMNS):
                        j = min(column, patch_columns - COLUMNS)
                        outer_product_tile(
                            patches, u * x_stride + j * L, x_offsets, L,
                            w_flat, (u * F + r) * C, w_offsets, C, C,
                            ones, zeros, r, identity,
                            products, u * product_stride + (r * patch_columns + j) * L,
                            patch_columns * L, L, ROWS, COLUMNS,
                        )  # fmt: skip
            for f in range(F):
                scale_v, bias_v = splat(scale[f]), splat(bias[f])
                for j in range(patch_columns):
                    upper0, upper1, lower0, lower1 = transform_products(
                        products, (f * patch_columns + j) * L, product_stride
                    )
                    out = (((b * F + f) * OH + 2 * i) * OW + 2 * j) * L
                    has_right, has_below = 2 * j + 1 < OW, 2 * i + 1 < OH
                    upper0 = activate(upper0 * scale_v + bias_v, activation)
                    store(y_flat, out, upper0)
                    if has_right:
                        upper1 = activate(upper1 * scale_v + bias_v, activation)
                        store(y_flat, out + L, upper1)
                    if has_below:
                        lower0 = activate(lower0 * scale_v + bias_v, activation)
                        store(y_flat, out + OW * L, lower0)
                    if has_right and has_below:
                        lower1 = activate(lower1 * scale_v + bias_v, activation)
                        store(y_flat, out + (OW + 1) * L, lower1)


@inlined
def _transpose_rows(padded_rows, count, L, transposed_rows):
    """transposed_rows (count, image, channel) = padded_rows (channel, count, image).

    ``count`` is the number of pixels, and there are L channels and L images.
    """
    for p in range(count):
        transpose(padded_rows, p * L, count * L, transposed_rows, p * L * L, L)


@parallel
def _sum_products(
    x, dy, pad_begin, tile, row_buffers, transposed_buffers, x_buffers, dy_buffers,
    product_buffers, parts, x_offsets, dy_offsets,
):  # fmt: skip
    """parts (parts, 16, F, C) = (A dy A') * (B' d B), summed over each part of the patches of x.

    The lanes are channels of x here, and the images are summed like the patches. The rest is work
    space for each worker: row_buffers for the padded rows of L channels, transposed_buffers for
    these with the channels in the lanes, x_buffers and dy_buffers for the transforms, and
    product_buffers (workers, F * C) for one of the 16 products.
    """
    B, C, H, W, L = x.shape
    _, F, OH, OW, _ = dy.shape
    (top, left), (ROWS, COLUMNS) = pad_begin, tile
    patch_rows, patch_columns = (OH + 1) // 2, (OW + 1) // 2
    width, vectors = 2 * patch_columns + 2, C // L
    workers, n_parts = len(row_buffers), len(parts)
    x_stride = _product_stride(patch_columns * L, vectors, L)
    dy_stride = _product_stride(F, patch_columns, L)
    x_flat, dy_flat, parts_flat = x.reshape(-1), dy.reshape(-1), parts.reshape(-1)
    ones, zeros, zero = np.ones(F, x.dtype), np.zeros(F, x.dtype), splat(x.dtype.type(0))
    identity = x.dtype.type(1)
    for worker in prange(workers):
        padded_rows, transposed_rows = row_buffers[worker], transposed_buffers[worker]
        patches, gradients = x_buffers[worker], dy_buffers[worker]
        product = product_buffers[worker]
        for part in range(worker * n_parts // workers, (worker + 1) * n_parts // workers):
            for p in range(part * 16 * F * C, (part + 1) * 16 * F * C, L):
                store(parts_flat, p, zero)
            first = part * B * patch_rows // n_parts
            stop = (part + 1) * B * patch_rows // n_parts
            for task in range(first, stop):
                b, i = task // patch_rows, task % patch_rows
                for v in range(vectors):
                    for c in range(L):
                        copy_padded_rows(
                            x_flat, b * C + v * L + c, H, W, 2 * i - top, -left, 4, width, L,
                            padded_rows[c * 4 * width * L :],
                        )  # fmt: skip
                    _transpose_rows(padded_rows, 4 * width, L, transposed_rows)
                    for j in range(patch_columns):
                        for n in range(L):
                            transform_patch(
                                transposed_rows, (2 * j * L + n) * L, width * L * L, L * L,
                                patches, ((j * L + n) * vectors + v) * L, x_stride,
                            )  # fmt: skip
                for f in range(F):
                    copy_padded_rows(dy_flat, b * F + f, OH, OW, 2 * i, 0, 2, width, L, padded_rows)
                    for j in range(patch_columns):
                        _transform_dy_patch(
                            padded_rows, 2 * j * L, width * L, L,
                            gradients, (f * patch_columns + j) * L, dy_stride, zero,
                        )  # fmt: skip
                for u in range(16):
                    for row in range(0, F, ROWS):
                        r = min(row, F - ROWS)
                        for column in range(0, vectors, COLUMNS):
                            v = min(column, vectors - COLUMNS)
                            outer_product_tile(
                                patches, u * x_stride + v * L, x_offsets, L,
                                gradients, u * dy_stride + r * patch_columns * L, dy_offsets,
                                patch_columns * L, patch_columns * L,
                                ones, zeros, r, identity,
                                product, r * C + v * L, C, L, ROWS, COLUMNS,
                            )  # fmt: skip
                    start = (part * 16 + u) * F * C
                    for p in range(0, F * C, L):
                        acc = load(parts_flat, start + p) + load(product, p)
                        store(parts_flat, start + p, acc)


@parallel
def _transform_sums(parts, dw):
    """dw (F, C, 3, 3) = G' P G, where P is the sum over parts (parts, 16, F, C)."""
    n_parts, _, F, C = parts.shape
    half = dw.dtype.type(0.5)
    for f in prange(F):
        products = np.empty((4, 4), dw.dtype)
        column_transform = np.empty((3, 4), dw.dtype)
        for c in range(C):
            for u in range(16):
                products[u // 4, u % 4] = parts[0, u, f, c]
                for part in range(1, n_parts):
                    products[u // 4, u % 4] += parts[part, u, f, c]
            for k in range(4):
                half_sum = (products[1, k] + products[2, k]) * half
                column_transform[0, k] = products[0, k] + half_sum
                column_transform[1, k] = (products[1, k] - products[2, k]) * half
                column_transform[2, k] = half_sum + products[3, k]
            for i in range(3):
                half_sum = (column_transform[i, 1] + column_transform[i, 2]) * half
                dw[f, c, i, 0] = column_transform[i, 0] + half_sum
                dw[f, c, i, 1] = (column_transform[i, 1] - column_transform[i, 2]) * half
                dw[f, c, i, 2] = half_sum + column_transform[i, 3]


@serial
def _weight_gradient(
    x, dy, dy_planes, pad_begin, tile, row_buffers, transposed_buffers, x_buffers, dy_buffers,
    product_buffers, parts, x_offsets, dy_offsets, dw, db,
):  # fmt: skip
    _sum_products(
        x, dy, pad_begin, tile, row_buffers, transposed_buffers, x_buffers, dy_buffers,
        product_buffers, parts, x_offsets, dy_offsets,
    )  # fmt: skip
    _transform_sums(parts, dw)
    channel_sums(dy_planes, db)


@serial
def _transform_and_correlate(
    w, reverse, w_transformed, x, x_offsets, w_offsets, scale, bias, activation, y, pad_begin,
    tile, row_buffers, x_buffers, product_buffers,
):  # fmt: skip
    _transform_filters(w, reverse, w_transformed)
    _correlate(
        x, w_transformed, x_offsets, w_offsets, scale, bias, activation, y, pad_begin, tile,
        row_buffers, x_buffers, product_buffers,
    )  # fmt: skip


def _launch_correlate(
    x: PackedBatch, w, reverse: bool, scale, bias, activation, pad_begin, y: PackedBatch
) -> PackedBatch:
    """Fill y, and return it."""
    _, C, _, _, L = x.data.shape
    F, patch_columns, dtype = y.shape[1], (y.shape[3] + 1) // 2, x.dtype
    workers = numba.get_num_threads()
    launch(
        _transform_and_correlate, w, reverse, empty((16, F, C), dtype), x.data,
        strided_offsets(C, patch_columns * L), strided_offsets(C, 1),
        *scale_and_bias(scale, bias, F, dtype), activation,
        y.data, pad_begin, outer_product_tile_shape(F, patch_columns),
        empty((workers, 4 * (2 * patch_columns + 2) * L), dtype),
        empty((workers, 16 * _product_stride(C, patch_columns, L)), dtype),
        empty((workers, 16 * _product_stride(F, patch_columns, L)), dtype),
    )  # fmt: skip
    return y


def correlate(x: PackedBatch, w, b, window: Window, scale, activation) -> PackedBatch:
    y = x.like(len(w), *window.output)
    return _launch_correlate(x, w, False, scale, b, activation, window.pad_begin, y)


def input_gradient(dy: PackedBatch, w, window: Window) -> PackedBatch:
    """Return dx."""
    top, left = window.pad_begin
    dx = dy.like(w.shape[1], *window.image)
    identity = activation_argument(None, dy.dtype)
    return _launch_correlate(dy, w, True, None, None, identity, (2 - top, 2 - left), dx)


def weight_gradient(dy: PackedBatch, x: PackedBatch, w_shape, window: Window, out=None):
    """Return dw and db; the channels must fill whole vectors."""
    dtype, (B, C, _, _, L) = x.dtype, x.data.shape
    F, workers = w_shape[0], numba.get_num_threads()
    patch_rows, patch_columns = (dy.shape[2] + 1) // 2, (dy.shape[3] + 1) // 2
    row_size = 4 * (2 * patch_columns + 2) * L
    dw, db = allocate_outputs(out, (w_shape, w_shape[:1]), dtype)
    launch(
        _weight_gradient, x.data, dy.data, dy.planes, window.pad_begin,
        outer_product_tile_shape(F, C // L),
        empty((workers, L * row_size), dtype), empty((workers, row_size * L), dtype),
        empty((workers, 16 * _product_stride(patch_columns * L, C // L, L)), dtype),
        empty((workers, 16 * _product_stride(F, patch_columns, L)), dtype),
        empty((workers, F * C), dtype),
        empty((min(MAX_PARTS, B * patch_rows), 16, F, C), dtype),
        strided_offsets(patch_columns * L, C), strided_offsets(patch_columns * L, 1), dw, db,
    )  # fmt: skip
    return dw, db
