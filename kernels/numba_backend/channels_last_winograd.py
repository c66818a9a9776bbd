"""3x3 correlation of a few images by Winograd's method, with the channels in the SIMD lanes.

`packed.winograd` explains the method. Here the transforms of a patch of the input are additions of
vectors of channels, and those of the filters and of the outputs additions of vectors of filters.
Workers share the patches or the filters, whichever are more. What they do not share, each of them
transforms for itself: it would take longer to fetch from another core than to transform again.
"""

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import SizedKernel, inlined, serial, workers_for
from kernels.numba_backend.simd.activations import activate
from kernels.numba_backend.simd.copies import transpose_padded
from kernels.numba_backend.simd.micro_kernels import outer_product_tile_shape
from kernels.numba_backend.simd.tiled_matmul import (
    batched_matmul,
    scale_and_bias,
    strided_offsets,
)
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, load, splat, store
from kernels.numba_backend.simd.winograd_transforms import (
    ELEMENTS,
    OUTPUTS,
    SIZE,
    transform_filter,
    transform_patch,
    transform_products,
)

# Patches, and vectors of filters, that are computed at a time: the transforms of both and their
# products stay in the second-level cache. With 4 vectors instead of 2, 64 channels of 14x14 pixels
# and 64 filters took 203 instead of 179 us on one thread of a Cascade Lake (1 MiB), and 128 filters
# of 16x16 pixels 320 instead of 260; with one vector 193 and 313.
MAX_PATCHES, MAX_VECTORS = 32, 2
# Multiply-adds that the transform of a filter takes as long as.
FILTER_COST = 130


def _patch_grid(window: Window) -> tuple[int, int]:
    """Return the numbers of rows and columns of patches that cover the output of an image."""
    OH, OW = window.output
    return -(-OH // OUTPUTS), -(-OW // OUTPUTS)


def is_supported(window: Window, groups: int, images: int, channels: int, filters: int) -> bool:
    """Return whether there is a kernel for a correlation, and it takes fewer multiplications."""
    is_plain = window.stride == window.dilation == (1, 1) and groups == 1
    if not is_plain or window.size != (3, 3) or min(channels, filters) <= 16:
        return False
    (OH, OW), (rows, columns) = window.output, _patch_grid(window)
    return FILTER_COST + images * ELEMENTS * rows * columns < images * 9 * OH * OW


@inlined
def _first_row(row, rows):
    """Return the first row of a row of patches in the padded images, of ``rows`` of them each."""
    return row // rows * (OUTPUTS * rows + SIZE - OUTPUTS) + row % rows * OUTPUTS


@inlined
def _transform_filters(w, C, F, first, vectors, taps, transformed, stride):
    """transformed[u * stride:] (C, vectors) = element u of G g G' of the filters from ``first`` on.

    ``taps`` is work space for C * 9 vectors.
    """
    L = VECTOR_BYTES // w.itemsize
    for v in range(vectors):
        f = first + v * L
        transpose_padded(w, f * 9 * C, 9 * C, min(L, F - f), 9 * C, taps, 0, L)
        for c in range(C):
            out = (c * vectors + v) * L
            transform_filter(taps, 9 * c * L, 3 * L, L, transformed, out, stride)


@inlined
def _pad_rows(x, shape, pad_begin, first, last, padded, height, width):
    """Write the rows from first to before last of the zero-padded images (N, height, width, P)."""
    _, H, W, P = shape
    L, zero, (top, left) = VECTOR_BYTES // x.itemsize, splat(x.dtype.type(0)), pad_begin
    for row in range(first, last):
        n, i, start = row // height, row % height - top, row * width * P
        stop = left if 0 <= i < H else width
        for p in range(0, stop * P, L):
            store(padded, start + p, zero)
        if 0 <= i < H:
            count = min(W, width - left) * P
            for p in range(0, count, L):
                store(padded, start + left * P + p, load(x, (n * H + i) * W * P + p))
            for p in range(left * P + count, width * P, L):
                store(padded, start + p, zero)


@inlined
def _transform_patches(padded, P, width, grid, first, count, transformed, stride):
    """transformed[u * stride:] (count, P) = element u of B' d B of patches from ``first`` on."""
    (rows, columns), L = grid, VECTOR_BYTES // padded.itemsize
    for k in range(count):
        row, j = (first + k) // columns, (first + k) % columns
        start = (_first_row(row, rows) * width + OUTPUTS * j) * P
        for p in range(0, P, L):
            transform_patch(padded, start + p, width * P, P, transformed, k * P + p, stride)


@inlined
def _store_outputs(
    products, start, stride, outputs, factor, shift, activation, y, shape, grid, patch, f
):  # fmt: skip
    """Write the outputs of a patch and a vector of filters that lie in y (N, OH, OW, P)."""
    (_, OH, OW, P), (rows, columns), L = shape, grid, VECTOR_BYTES // y.itemsize
    transform_products(products, start, SIZE * stride, stride, outputs, 0, L)
    row, left = patch // columns, patch % columns * OUTPUTS
    n, top = row // rows, row % rows * OUTPUTS
    out_rows, out_columns = min(OUTPUTS, OH - top), min(OUTPUTS, OW - left)
    out, row_stride = ((n * OH + top) * OW + left) * P + f, OW * P
    if out_rows == out_columns == OUTPUTS:  # LLVM knows the bounds of these loops
        for i in range(OUTPUTS):
            for j in range(OUTPUTS):
                value = load(outputs, (i * OUTPUTS + j) * L) * factor + shift
                store(y, out + i * row_stride + j * P, activate(value, activation))
    else:
        for i in range(out_rows):
            for j in range(out_columns):
                value = load(outputs, (i * OUTPUTS + j) * L) * factor + shift
                store(y, out + i * row_stride + j * P, activate(value, activation))


@SizedKernel
def _correlate(
    x, C, pad_begin, grid, w, filter_offsets, patch_offsets, scale, bias, activation, parts, tile,
    vectors, n_patches, padded, taps, filters, patches, products, outputs, y,
):  # fmt: skip
    """y (N, OH, OW, P) = the correlation of x (N, H, W, P of x) with w (F, C, 3, 3).

    Tasks compute one of ``parts`` (of the patches, of the filters) each, ``n_patches`` and
    ``vectors`` of filters at a time. The rest is work space of each task: the padded images, the
    taps of a vector of filters, the transforms of filters and patches and their products, whose 36
    elements lie one vector apart so that they do not compete for the same cache sets, and the
    outputs of a patch.
    """
    N, H, W, P_x = x.shape
    _, OH, OW, P = y.shape
    F, _, _, _ = w.shape
    shape, out_shape = (N, H, W, P_x), (N, OH, OW, P)
    L = VECTOR_BYTES // w.itemsize
    w_flat, y_flat, x_flat = w.reshape(-1), y.reshape(-1), x.reshape(-1)
    total, width = N * grid[0] * grid[1], vectors * L
    filter_stride, patch_stride = C * width + L, n_patches * P_x + L
    product_stride = n_patches * width + L
    height, padded_width = OUTPUTS * grid[0] + SIZE - OUTPUTS, OUTPUTS * grid[1] + SIZE - OUTPUTS
    for task in prange(parts[0] * parts[1]):
        filters_flat, patches_flat = filters[task], patches[task]
        products_flat, padded_flat = products[task], padded[task]
        part, slice_ = task // parts[1], task % parts[1]
        first, last = part * total // parts[0], (part + 1) * total // parts[0]
        f_first = slice_ * (P // L) // parts[1] * L
        f_last = (slice_ + 1) * (P // L) // parts[1] * L
        _pad_rows(
            x_flat, shape, pad_begin, _first_row(first // grid[1], grid[0]),
            _first_row((last - 1) // grid[1], grid[0]) + SIZE, padded_flat, height, padded_width,
        )  # fmt: skip
        for run in range(first, last, n_patches):
            count = min(n_patches, last - run)
            _transform_patches(
                padded_flat, P_x, padded_width, grid, run, count, patches_flat, patch_stride
            )
            for f_start in range(f_first, f_last, width):
                f = min(f_start, f_last - width)
                _transform_filters(
                    w_flat, C, F, f, vectors, taps[task], filters_flat, filter_stride
                )
                batched_matmul(
                    ELEMENTS, filters_flat, filter_stride, filter_offsets, patches_flat,
                    patch_stride, P_x, patch_offsets, C, products_flat, product_stride,
                    count, n_patches, vectors, tile,
                )  # fmt: skip
                for v in range(0, width, L):
                    factor, shift = load(scale, f + v), load(bias, f + v)
                    for p in range(count):
                        _store_outputs(
                            products_flat, p * width + v, product_stride, outputs[task],
                            factor, shift, activation, y_flat, out_shape, grid, run + p, f + v,
                        )  # fmt: skip


@serial
def _fill_vectors(values, padded):
    """padded = values and then zeros."""
    for i in range(padded.size):
        padded[i] = values[i] if i < values.size else 0


def _parts(workers: int, patches: int, vectors: int, lanes: int) -> tuple[int, int]:
    """Return the numbers of parts of the patches and of the filters."""
    by_filters = vectors * lanes > patches
    return (1, min(workers, vectors)) if by_filters else (min(workers, patches), 1)


def correlate(x: np.ndarray, C: int, w, b, window: Window, scale, activation) -> np.ndarray:
    """Return the correlation (N, OH, OW, P) of x (N, H, W, P), of whole vectors of channels."""
    F, (N, _, _, P_x), dtype, L = len(w), x.shape, x.dtype, simd_width(x.dtype)
    (OH, OW), grid = window.output, _patch_grid(window)
    columns, patches, work = -(-F // L) * L, N * grid[0] * grid[1], N * OH * OW * 9 * C * F
    parts = _parts(workers_for(work), patches, columns // L, L)
    vectors = min(MAX_VECTORS, columns // L // parts[1])
    share = -(-patches // parts[0])
    n_patches = -(-share // -(-share // MAX_PATCHES))
    scale, b = scale_and_bias(scale, b, F, dtype)
    if columns != F:
        padded_scale, padded_bias = empty((2, columns), dtype)
        launch(_fill_vectors, scale, padded_scale)
        launch(_fill_vectors, b, padded_bias)
        scale, b = padded_scale, padded_bias
    y, tasks, width = empty((N, OH, OW, columns), dtype), parts[0] * parts[1], vectors * L
    launch(
        _correlate.for_work(work), x, C, window.pad_begin, grid, w, strided_offsets(C, width),
        strided_offsets(C, 1), scale, b, activation, parts,
        outer_product_tile_shape(n_patches, vectors, in_first_level=True), vectors, n_patches,
        empty((tasks, N * (OUTPUTS * grid[0] + 2) * (OUTPUTS * grid[1] + 2) * P_x), dtype),
        empty((tasks, 9 * C * L), dtype),
        empty((tasks, ELEMENTS * (C * width + L)), dtype),
        empty((tasks, ELEMENTS * (n_patches * P_x + L)), dtype),
        empty((tasks, ELEMENTS * (n_patches * width + L)), dtype),
        empty((tasks, OUTPUTS * OUTPUTS * L), dtype), y,
    )  # fmt: skip
    return y
