"""3x3 correlations with 2.25 times fewer multiplications, by Winograd's minimal filtering.

A filter g that slides over a 4x4 patch d gives 2x2 outputs and takes 36 multiplications. Instead

    y = A' [(G g G') * (B' d B)] A      with * number by number, and ' for the transpose,

takes 16; the transforms are additions, and each serves many filters or channels. Summed over the
channels, the 16 numbers of all tiles are 16 matrix products, which the register tiles compute.
With images in the lanes the transforms add whole vectors. The gradients follow by the chain rule:
for the patch the same correlation with reversed filters, and for the filter

    dg = G' [(A dy A') * (B' d B)] G,   summed over the tiles of all images.

The work on one row of tiles stays in the second-level cache. Outputs differ from the direct sum by
rounding: additions before the multiplications lose about one bit.

References
----------
Winograd: Arithmetic complexity of computations (1980).
Lavin, Gray: Fast algorithms for convolutional neural networks (2016).
"""

import numba
import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.dense import scale_and_bias, terms
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.runtime.buffer_pool import allocate_outputs, empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.micro_kernels import outer_product_tile, outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import channel_sums
from kernels.numba_backend.simd.vectors import load, splat, store, transpose, where

# Of the tiles, for the gradient of the filters; not the threads, so that no bit depends on them.
PARTS = 16


@inlined
def _image(a, b, c, d):
    """B' of four vectors."""
    return a - c, b + c, c - b, b - d


@inlined
def _output(a, b, c, d):
    """A' of four vectors."""
    return a + b + c, b - c - d


@inlined
def _output_gradient(a, b, nothing):
    """A of two vectors."""
    return a, a + b, a - b, nothing - b


@inlined
def _plane(rows, columns, L):
    """Return how far the products of one kind are from those of the next.

    One vector more than they take: 16 writes 4 KiB apart would fight for one place in the cache.
    """
    return (rows * columns + 1) * L


@parallel
def _transform_filters(w, backwards, products):
    """products (16, rows, terms) = G g G' of the filters w (F, C, 3, 3), a row a filter.

    Backwards, as the input gradient takes them: the taps reversed, and a row a channel.
    """
    _, rows, terms = products.shape
    half = w.dtype.type(0.5)
    for r in prange(rows):
        by_rows = np.empty((4, 3), w.dtype)
        for t in range(terms):
            for k in range(3):
                if backwards:
                    a, b, c = w[t, r, 2, 2 - k], w[t, r, 1, 2 - k], w[t, r, 0, 2 - k]
                else:
                    a, b, c = w[r, t, 0, k], w[r, t, 1, k], w[r, t, 2, k]
                by_rows[0, k], by_rows[3, k] = a, c
                by_rows[1, k], by_rows[2, k] = (a + b + c) * half, (a - b + c) * half
            for i in range(4):
                a, b, c = by_rows[i, 0], by_rows[i, 1], by_rows[i, 2]
                products[4 * i, r, t], products[4 * i + 3, r, t] = a, c
                products[4 * i + 1, r, t] = (a + b + c) * half
                products[4 * i + 2, r, t] = (a - b + c) * half


@inlined
def _strip(x, plane, H, W, top, left, rows, width, L, strip):
    """Copy some rows of a plane of x, from (top, left) on; what lies outside is 0."""
    nothing = splat(x.dtype.type(0))
    first, last = max(0, -left), min(width, W - left)
    for r in range(rows):
        i, to = top + r, r * width
        inside = 0 <= i < H
        for j in range(first if inside else width):
            store(strip, (to + j) * L, nothing)
        if inside:
            at = (plane * H + i) * W + left
            for j in range(first, last):
                store(strip, (to + j) * L, load(x, (at + j) * L))
            for j in range(last, width):
                store(strip, (to + j) * L, nothing)


@inlined
def _image_of_row(strip, at, step):
    """Return B' of four vectors in a row."""
    return _image(
        load(strip, at), load(strip, at + step), load(strip, at + 2 * step),
        load(strip, at + 3 * step),
    )  # fmt: skip


@inlined
def _patch_products(strip, at, row, step, out, out0, out_step):
    """Write the 16 numbers of B' d B of a patch, whose vectors stand a row and a step apart."""
    a0, a1, a2, a3 = _image_of_row(strip, at, step)
    b0, b1, b2, b3 = _image_of_row(strip, at + row, step)
    c0, c1, c2, c3 = _image_of_row(strip, at + 2 * row, step)
    d0, d1, d2, d3 = _image_of_row(strip, at + 3 * row, step)
    _write_column(out, out0, out_step, a0, b0, c0, d0)
    _write_column(out, out0 + out_step, out_step, a1, b1, c1, d1)
    _write_column(out, out0 + 2 * out_step, out_step, a2, b2, c2, d2)
    _write_column(out, out0 + 3 * out_step, out_step, a3, b3, c3, d3)


@inlined
def _write_column(out, out0, out_step, a, b, c, d):
    a, b, c, d = _image(a, b, c, d)
    store(out, out0, a)
    store(out, out0 + 4 * out_step, b)
    store(out, out0 + 8 * out_step, c)
    store(out, out0 + 12 * out_step, d)


@inlined
def _products_of_row(products, at, step):
    """Return A' of four products in a row."""
    return _output(
        load(products, at), load(products, at + step), load(products, at + 2 * step),
        load(products, at + 3 * step),
    )  # fmt: skip


@inlined
def _activated(value, negative_slope, zero):
    """The leaky ReLU of a vector."""
    return where(value > zero, value, value * negative_slope)


@parallel
def _correlate(
    x, w_products, x_terms, w_terms, scale, bias, negative_slope, y, corner, tile, strips, x_products,
    y_products,
):  # fmt: skip
    """y = the correlation of x, whose padding begins at a corner, by rows of tiles.

    x (B, C, H, W, L), w_products (16, F, C), y (B, F, OH, OW, L). The rest is room for a worker
    each: strips (workers, 4 * width * L), x_products and y_products (workers, 16 * C or F *
    columns * L).
    """
    B, C, H, W, L = x.shape
    _, F, OH, OW, _ = y.shape
    (top, left), (ROWS, COLUMNS) = corner, tile
    lines, columns = (OH + 1) // 2, (OW + 1) // 2
    width, workers = 2 * columns + 2, len(strips)
    x_step, y_step = _plane(C, columns, L), _plane(F, columns, L)
    flat, weights, to = x.reshape(-1), w_products.reshape(-1), y.reshape(-1)
    ones, zeros = np.ones(F, x.dtype), np.zeros(F, x.dtype)
    plain, zero = x.dtype.type(1), splat(x.dtype.type(0))
    for worker in prange(workers):
        strip, patches, sums = strips[worker], x_products[worker], y_products[worker]
        for task in range(worker * B * lines // workers, (worker + 1) * B * lines // workers):
            b, i = task // lines, task % lines
            for c in range(C):
                _strip(flat, b * C + c, H, W, 2 * i - top, -left, 4, width, L, strip)
                for j in range(columns):
                    at = (c * columns + j) * L
                    _patch_products(strip, 2 * j * L, width * L, L, patches, at, x_step)
            for u in range(16):
                for start in range(0, F, ROWS):
                    r = min(start, F - ROWS)
                    for begin in range(0, columns, COLUMNS):
                        j = min(begin, columns - COLUMNS)
                        outer_product_tile(
                            patches, u * x_step + j * L, x_terms, L,
                            weights, (u * F + r) * C, w_terms, C, C, ones, zeros, r, plain,
                            sums, u * y_step + (r * columns + j) * L, columns * L, L, ROWS, COLUMNS,
                        )  # fmt: skip
            for f in range(F):
                factor, shift, weak = splat(scale[f]), splat(bias[f]), splat(negative_slope)
                for j in range(columns):
                    at = (f * columns + j) * L
                    a0, a1 = _products_of_row(sums, at, y_step)
                    b0, b1 = _products_of_row(sums, at + 4 * y_step, y_step)
                    c0, c1 = _products_of_row(sums, at + 8 * y_step, y_step)
                    d0, d1 = _products_of_row(sums, at + 12 * y_step, y_step)
                    upper0, lower0 = _output(a0, b0, c0, d0)
                    upper1, lower1 = _output(a1, b1, c1, d1)
                    out = (((b * F + f) * OH + 2 * i) * OW + 2 * j) * L
                    right, below = 2 * j + 1 < OW, 2 * i + 1 < OH
                    store(to, out, _activated(upper0 * factor + shift, weak, zero))
                    if right:
                        store(to, out + L, _activated(upper1 * factor + shift, weak, zero))
                    if below:
                        store(to, out + OW * L, _activated(lower0 * factor + shift, weak, zero))
                    if right and below:
                        store(
                            to, out + (OW + 1) * L, _activated(lower1 * factor + shift, weak, zero)
                        )


@parallel
def _filter_products(
    x, dy, corner, tile, strips, turned, x_products, dy_products, one, parts, x_terms, dy_terms
):
    """parts (PARTS, 16, F, C) = (A dy A') * (B' x B), summed over each part of the tiles.

    Here the channels of x go into the lanes, and the images become terms beside the tiles. The
    rest is room for a worker each: strips of x and turned ones, the products of both, and those
    of one kind (F, C).
    """
    B, C, H, W, L = x.shape
    _, F, OH, OW, _ = dy.shape
    (top, left), (ROWS, COLUMNS) = corner, tile
    lines, columns = (OH + 1) // 2, (OW + 1) // 2
    width, vectors, workers, pieces = 2 * columns + 2, C // L, len(strips), len(parts)
    x_step, y_step = _plane(columns * L, vectors, L), _plane(F, columns, L)
    flat, sent, sums = x.reshape(-1), dy.reshape(-1), parts.reshape(-1)
    ones, zeros, zero = np.ones(F, x.dtype), np.zeros(F, x.dtype), splat(x.dtype.type(0))
    itself = x.dtype.type(1)
    for worker in prange(workers):
        strip, channels, patches = strips[worker], turned[worker], x_products[worker]
        outputs, fresh = dy_products[worker], one[worker]
        for part in range(worker * pieces // workers, (worker + 1) * pieces // workers):
            for at in range(part * 16 * F * C, (part + 1) * 16 * F * C, L):
                store(sums, at, zero)
            for task in range(part * B * lines // pieces, (part + 1) * B * lines // pieces):
                b, i = task // lines, task % lines
                for v in range(vectors):
                    for c in range(L):
                        _strip(
                            flat, b * C + v * L + c, H, W, 2 * i - top, -left, 4, width, L,
                            strip[c * 4 * width * L :],
                        )  # fmt: skip
                    for p in range(4 * width):  # from (channel, pixel, image) to (pixel, image, c)
                        transpose(strip, p * L, 4 * width * L, channels, p * L * L, L)
                    for j in range(columns):
                        for n in range(L):
                            at = (2 * j * L + n) * L
                            out = ((j * L + n) * vectors + v) * L
                            _patch_products(
                                channels, at, width * L * L, L * L, patches, out, x_step
                            )
                for f in range(F):
                    _strip(sent, b * F + f, OH, OW, 2 * i, 0, 2, width, L, strip)
                    for j in range(columns):
                        at, out = 2 * j * L, (f * columns + j) * L
                        a0, a1, a2, a3 = _output_gradient(
                            load(strip, at), load(strip, at + L), zero
                        )
                        at += width * L
                        b0, b1, b2, b3 = _output_gradient(
                            load(strip, at), load(strip, at + L), zero
                        )
                        _write_gradient_column(outputs, out, y_step, a0, b0, zero)
                        _write_gradient_column(outputs, out + y_step, y_step, a1, b1, zero)
                        _write_gradient_column(outputs, out + 2 * y_step, y_step, a2, b2, zero)
                        _write_gradient_column(outputs, out + 3 * y_step, y_step, a3, b3, zero)
                for u in range(16):
                    for start in range(0, F, ROWS):
                        r = min(start, F - ROWS)
                        for begin in range(0, vectors, COLUMNS):
                            v = min(begin, vectors - COLUMNS)
                            outer_product_tile(
                                patches, u * x_step + v * L, x_terms, L,
                                outputs, u * y_step + r * columns * L, dy_terms, columns * L,
                                columns * L, ones, zeros, r, itself,
                                fresh, r * C + v * L, C, L, ROWS, COLUMNS,
                            )  # fmt: skip
                    at = (part * 16 + u) * F * C
                    for p in range(0, F * C, L):
                        store(sums, at + p, load(sums, at + p) + load(fresh, p))


@inlined
def _write_gradient_column(out, out0, out_step, a, b, nothing):
    a, b, c, d = _output_gradient(a, b, nothing)
    store(out, out0, a)
    store(out, out0 + 4 * out_step, b)
    store(out, out0 + 8 * out_step, c)
    store(out, out0 + 12 * out_step, d)


@parallel
def _filters(parts, dw):
    """dw (F, C, 3, 3) = G' P G of the summed products P (PARTS, 16, F, C)."""
    pieces, _, F, C = parts.shape
    half = dw.dtype.type(0.5)
    for f in prange(F):
        products = np.empty((4, 4), dw.dtype)
        by_rows = np.empty((3, 4), dw.dtype)
        for c in range(C):
            for u in range(16):
                products[u // 4, u % 4] = parts[0, u, f, c]
                for part in range(1, pieces):
                    products[u // 4, u % 4] += parts[part, u, f, c]
            for k in range(4):
                plus = (products[1, k] + products[2, k]) * half
                by_rows[0, k] = products[0, k] + plus
                by_rows[1, k] = (products[1, k] - products[2, k]) * half
                by_rows[2, k] = plus + products[3, k]
            for i in range(3):
                plus = (by_rows[i, 1] + by_rows[i, 2]) * half
                dw[f, c, i, 0] = by_rows[i, 0] + plus
                dw[f, c, i, 1] = (by_rows[i, 1] - by_rows[i, 2]) * half
                dw[f, c, i, 2] = plus + by_rows[i, 3]


@serial
def _weight_gradient(
    x, dy, dy_planes, corner, tile, strips, turned, x_products, dy_products, one, parts,
    x_terms, dy_terms, dw, db,
):  # fmt: skip
    _filter_products(
        x, dy, corner, tile, strips, turned, x_products, dy_products, one, parts, x_terms, dy_terms
    )
    _filters(parts, dw)
    channel_sums(dy_planes, db)


@serial
def _whole(
    w, backwards, w_products, x, x_terms, w_terms, scale, bias, negative_slope, y, corner, tile, strips,
    x_products, y_products,
):  # fmt: skip
    _transform_filters(w, backwards, w_products)
    _correlate(
        x,
        w_products,
        x_terms,
        w_terms,
        scale,
        bias,
        negative_slope,
        y,
        corner,
        tile,
        strips,
        x_products,
        y_products,
    )


def _run(
    x: PackedBatch, w, backwards: bool, scale, bias, negative_slope: float, corner, y: PackedBatch
) -> PackedBatch:
    _, C, _, _, L = x.data.shape
    F, columns, dtype = y.shape[1], (y.shape[3] + 1) // 2, x.dtype
    workers = numba.get_num_threads()
    launch(
        _whole, w, backwards, empty((16, F, C), dtype), x.data, terms(C, columns * L),
        terms(C, 1), *scale_and_bias(scale, bias, F, dtype), dtype.type(negative_slope),
        y.data, corner, outer_product_tile_shape(F, columns),
        empty((workers, 4 * (2 * columns + 2) * L), dtype),
        empty((workers, 16 * _plane(C, columns, L)), dtype),
        empty((workers, 16 * _plane(F, columns, L)), dtype),
    )  # fmt: skip
    return y


def correlate(
    x: PackedBatch, w, b, window: Window, scale=None, negative_slope: float = 1.0
) -> PackedBatch:
    y = x.like(len(w), *window.output)
    return _run(x, w, False, scale, b, negative_slope, window.pad_begin, y)


def input_gradient(dy: PackedBatch, w, window: Window) -> PackedBatch:
    top, left = window.pad_begin
    dx = dy.like(w.shape[1], *window.image)
    return _run(dy, w, True, None, None, 1.0, (2 - top, 2 - left), dx)


def weight_gradient(dy: PackedBatch, x: PackedBatch, w_shape, window: Window, out=None):
    """Return dw and db; the channels must fill whole vectors."""
    dtype, (B, C, _, _, L) = x.dtype, x.data.shape
    F, columns, workers = w_shape[0], (dy.shape[3] + 1) // 2, numba.get_num_threads()
    dw, db = allocate_outputs(out, (w_shape, w_shape[:1]), dtype)
    width, lines = 2 * columns + 2, (dy.shape[2] + 1) // 2
    launch(
        _weight_gradient, x.data, dy.data, dy.planes, window.pad_begin,
        outer_product_tile_shape(F, C // L),
        empty((workers, L * 4 * width * L), dtype), empty((workers, 4 * width * L * L), dtype),
        empty((workers, 16 * _plane(columns * L, C // L, L)), dtype),
        empty((workers, 16 * _plane(F, columns, L)), dtype), empty((workers, F * C), dtype),
        empty((min(PARTS, B * lines), 16, F, C), dtype),
        terms(columns * L, C), terms(columns * L, 1), dw, db,
    )  # fmt: skip
    return dw, db
