"""Convolution and max pooling of a few images, with the channels in the SIMD lanes.

A batch that is too small to fill the SIMD lanes with images is stored as (N, H, W, P): the
channels of a pixel lie side by side. Each convolution pads them to whole vectors. A convolution
multiplies one number of the image by a vector of filters, and pooling compares whole vectors, so
that neither borders nor odd widths leave lanes empty. Prediction keeps this layout from layer to
layer. A layer that has no kernel here gets plain arrays.
"""

import math
from functools import lru_cache, partial

import numpy as np
from numba import prange

from kernels import validation
from kernels.geometry import Window, make_window
from kernels.numba_backend import (
    channels_last_depthwise,
    channels_last_separable,
    channels_last_winograd,
    planes,
)
from kernels.numba_backend.packed import checks
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.packed.shape_class import ShapeClass
from kernels.numba_backend.planes import Planes
from kernels.numba_backend.runtime import tuning
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import SizedKernel, serial, workers_for
from kernels.numba_backend.simd.activation_kernels import activate_kernel, add_kernel
from kernels.numba_backend.simd.activations import activation_argument
from kernels.numba_backend.simd.copies import transpose_padded
from kernels.numba_backend.simd.micro_kernels import (
    MAX_SHORT_BYTES,
    outer_product_tile_of_columns,
    outer_product_tile_shape,
)
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    gather_strided,
    load,
    masked_store,
    splat,
    store,
    transpose,
    where,
)
from kernels.numba_backend.simd.windows import clip, is_new_max
from kernels.separable import compose_separable


class ChannelsLast:
    """Activations of a few images.

    Attributes
    ----------
    data : (N, H, W, P)
        The first C of the P numbers of a pixel are its channels.
    shape : (N, C, H, W)
        The shape that the layers see.
    """

    __slots__ = ("data", "shape")

    def __init__(self, data: np.ndarray, channels: int):
        N, H, W, _ = data.shape
        self.data, self.shape = data, (N, channels, H, W)

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype


@SizedKernel
def _normalize(images, mean, std, out):
    N, C, H, W = images.shape
    for row in prange(N * H):
        n, i = row // H, row % H
        for c in range(C):
            scale = mean.dtype.type(1) / std[c]
            for j in range(W):
                out[n, i, j, c] = (images[n, c, i, j] - mean[c]) * scale


def normalize_images(images, mean, std) -> ChannelsLast:
    N, C, H, W = images.shape
    x = ChannelsLast(empty((N, H, W, C), mean.dtype), C)
    launch(_normalize.for_sweep(images.size), images, mean, std, x.data)
    return x


@SizedKernel
def _to_array(x, out):
    """Write the channels of x (N, H, W, P) to out (N, C, H * W)."""
    N, C, S = out.shape
    P, L = x.shape[3], VECTOR_BYTES // x.itemsize
    x_flat, out_flat, zero = x.reshape(-1), out.reshape(-1), splat(x.dtype.type(0))
    blocks = (C + L - 1) // L
    for block in prange(N * blocks):
        n, first = block // blocks, block % blocks * L
        for p in range(0, S, L):
            x0, out0 = (n * S + p) * P + first, (n * C + first) * S + p
            if first + L <= C and p + L <= S:
                transpose(x_flat, x0, P, out_flat, out0, S)
            else:
                for k in range(min(L, C - first)):
                    pixels = gather_strided(x_flat, x0 + k, P, 0, S - p, zero)
                    masked_store(out_flat, out0 + k * S, pixels, S - p)


def to_array(x: ChannelsLast | Planes) -> np.ndarray:
    if isinstance(x, Planes):
        return planes.to_array(x)
    N, C, H, W = x.shape
    out = empty(x.shape, x.dtype)
    launch(_to_array.for_sweep(out.size), x.data, out.reshape(N, C, H * W))
    return out


def flatten(x: ChannelsLast | Planes) -> np.ndarray:
    return to_array(x).reshape(x.shape[0], math.prod(x.shape[1:]))


@serial
def copy_padded_rows(x, pad_begin, first, last, padded):
    """Write the rows from first to before last of the zero-padded images x (N, H, W, C)."""
    _, H, W, _ = x.shape
    height = padded.shape[1]
    top, left = pad_begin
    for row in range(first, last):
        n, i = row // height, row % height - top
        pixels = padded[n, i + top]
        if 0 <= i < H:
            pixels[:left] = 0
            pixels[left : left + W] = x[n, i]
            pixels[left + W :] = 0
        else:
            pixels[:] = 0


@SizedKernel
def _correlate(
    x, is_padded, pad_begin, padded_buffers, kernel_extent, x_offsets, w, packed_filters, w_offsets,
    scale, bias, factors, shifts, activation, stride, parts, tile, y,
):  # fmt: skip
    """Write the correlation of x (N, H, W, P) with the filters w (F, C/groups, KH, KW) to y.

    Tasks compute one of ``parts`` (of the rows of output pixels, of the filters of a group) each.
    A task pads the rows that it needs, in a buffer of its own: data that another core has just
    written takes longer to fetch than to write again. Where there is nothing to pad, the only
    buffer is x itself. It packs the filters of one column of tiles at a time, packed_filters
    (tasks, terms, vectors), which stay in the first-level cache for all pixels.

    In y (N, OH, OW, P) the groups lie side by side. The zeros after the filters of one group are
    overwritten by the next group.
    """
    N, OH, OW, P = y.shape
    buffers, _, H, W, C = padded_buffers.shape
    groups, columns = factors.shape
    filters, terms = scale.size // groups, w_offsets.size
    channels = w.shape[1]
    (ROWS, COLUMNS), (sh, sw) = tile, stride
    L = VECTOR_BYTES // w.itemsize
    width = COLUMNS * L
    for g in range(groups):
        for f in range(filters):
            factors[g, f], shifts[g, f] = scale[g * filters + f], bias[g * filters + f]
    w_flat, y_flat = w.reshape(-1), y.reshape(-1)
    factors_flat, shifts_flat = factors.reshape(-1), shifts.reshape(-1)
    for task in prange(parts[0] * parts[1]):
        padded, weights = padded_buffers[task % buffers], packed_filters[task]
        part, slice_ = task // parts[1], task % parts[1]
        first, last = part * N * OH // parts[0], (part + 1) * N * OH // parts[0]
        c_first = slice_ * (columns // L) // parts[1] * L
        c_last = (slice_ + 1) * (columns // L) // parts[1] * L
        if first < last and is_padded:
            end = (last - 1) // OH * H + (last - 1) % OH * sh + kernel_extent
            copy_padded_rows(x, pad_begin, first // OH * H + first % OH * sh, end, padded)
        x_flat = padded.reshape(-1)
        blocks = (c_last - c_first + width - 1) // width
        for block in range(groups * blocks):
            g, c = block // blocks, min(c_first + block % blocks * width, c_last - width)
            transpose_padded(
                w_flat, (g * filters + c) * terms, terms, min(filters - c, width), terms,
                weights, 0, width,
            )  # fmt: skip
            for row in range(first, last):
                padded_row = (row // OH * H + row % OH * sh) * W
                for column_start in range(0, OW, ROWS):
                    j = min(column_start, OW - ROWS)
                    outer_product_tile_of_columns(
                        weights, 0, w_offsets, L,
                        x_flat, (padded_row + j * sw) * C + g * channels, x_offsets, sw * C,
                        terms,
                        factors_flat, shifts_flat, g * columns + c, activation,
                        y_flat, (row * OW + j) * P + g * filters + c, P, L, ROWS, COLUMNS,
                    )  # fmt: skip


@SizedKernel
def _copy_pixels(x, out):
    """out (N, H, W, P) = x (N, H, W, C) of any strides, and then zeros."""
    N, H, W, P = out.shape
    C = x.shape[3]
    for row in prange(N * H):
        n, i = row // H, row % H
        for j in range(W):
            for c in range(P):
                out[n, i, j, c] = x[n, i, j, c] if c < C else 0


def _in_whole_vectors(x: ChannelsLast) -> ChannelsLast:
    """Return activations whose pixels lie one after the other, in whole vectors.

    Those of a plain array are a view, in which the numbers of a pixel lie apart.
    """
    L, data = simd_width(x.dtype), x.data
    if data.flags.c_contiguous and data.shape[3] % L == 0:
        return x
    N, C, H, W = x.shape
    out = empty((N, H, W, -(-C // L) * L), x.dtype)
    launch(_copy_pixels.for_sweep(out.size), data, out)
    return ChannelsLast(out, C)


@lru_cache(maxsize=256)
def _x_offsets(window: Window, channels: int, pixel_stride: int, channel_stride: int):
    """Return the offset of each tap of each channel in a padded image, (channels * KH * KW,)."""
    (KH, KW), (dh, dw), width = window.size, window.dilation, window.padded[1]
    c, k, m = np.ogrid[:channels, :KH, :KW]
    offsets = (k * dh * width + m * dw) * pixel_stride + c * channel_stride
    return offsets.astype(np.int64).ravel()


def _as_planes(x: ChannelsLast | Planes) -> Planes:
    if isinstance(x, Planes):
        return x
    data = x.data.transpose(0, 3, 1, 2)
    if not data.flags.c_contiguous:  # as it is for one channel, and for a view of plain images
        data = to_array(x)
    return Planes(data, x.shape[3])


def _as_channels_last(x: ChannelsLast | Planes) -> ChannelsLast:
    """Return activations with their channels last; for planes, a view of them."""
    if isinstance(x, ChannelsLast):
        return x
    return ChannelsLast(x.data[..., : x.shape[3]].transpose(0, 2, 3, 1), x.shape[1])


def _parts(workers: int, rows: int, columns: int, vectors: int, lanes: int) -> tuple[int, int]:
    """Return the numbers of parts of the rows of output pixels and of the vectors of filters.

    Each part of the rows packs all filters. Where these are more than the pixels, packing them
    takes longer than padding the pixels.
    """
    if vectors * lanes > rows * columns:
        return 1, min(workers, vectors)
    return min(workers, rows), 1


def _correlate_by_winograd(x, w, b, window, groups, scale, activation) -> ChannelsLast:
    x = _in_whole_vectors(x)
    out = channels_last_winograd.correlate(x.data, x.shape[1], w, b, window, scale, activation)
    return ChannelsLast(out, len(w))


def _correlate_directly(x, w, b, window, groups, scale, activation) -> ChannelsLast:
    N, F, C = x.shape[0], len(w), x.data.shape[3]
    L, filters = simd_width(x.dtype), F // groups
    (OH, OW), T = window.output, w[0].size
    work, columns = N * OH * OW * T * F, -(-filters // L) * L  # with the zeros after a group
    parts = _parts(workers_for(work), N * OH, OW, columns // L if groups == 1 else 1, L)
    tasks, P = parts[0] * parts[1], -(-((groups - 1) * filters + columns) // L) * L
    is_short = T * L * x.dtype.itemsize <= MAX_SHORT_BYTES
    tile = outer_product_tile_shape(OW, columns // L // parts[1], in_first_level=is_short)
    is_padded = window.padded != x.shape[2:] or not x.data.flags.c_contiguous
    padded = empty((tasks, N, *window.padded, C), x.dtype) if is_padded else x.data[np.newaxis]
    y = ChannelsLast(empty((N, OH, OW, P), x.dtype), F)
    launch(
        _correlate.for_work(work), x.data, is_padded, window.pad_begin, padded,
        window.kernel_extent[0], _x_offsets(window, w.shape[1], C, 1), w,
        empty((tasks, T * tile[1] * L), x.dtype), strided_offsets(T, tile[1] * L),
        *scale_and_bias(scale, b, F, x.dtype), *np.zeros((2, groups, columns), x.dtype),
        activation, window.stride, parts, tile, y.data,
    )  # fmt: skip
    return y


def _correlate_fastest(x, w, b, window, groups, scale, activation) -> ChannelsLast:
    """Correlate by Winograd's method or directly, whichever is faster on this machine."""
    args = (x, w, b, window, groups, scale, activation)
    runs = {
        "winograd": partial(_correlate_by_winograd, *args),
        "direct": partial(_correlate_directly, *args),
    }
    shape_class = ShapeClass(window, w.shape, groups, x.dtype, "images", len(x.data))
    return runs[tuning.choose("correlate", shape_class, runs, "winograd")]()


def correlate(
    x: ChannelsLast | Planes,
    w,
    b=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    scale=None,
    activation=None,
) -> ChannelsLast | Planes:
    w, groups = checks.check_filters(w, x.shape, x.dtype, groups)
    scale, b = checks.check_scale_and_bias(scale, b, len(w), x.dtype)
    activation = activation_argument(activation, x.dtype)
    window = make_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    args = (w, b, window, groups, scale, activation)
    if channels_last_winograd.is_supported(window, groups, *x.shape[:2], len(w)):
        return _correlate_fastest(_as_channels_last(x), *args)
    if planes.is_faster(window, groups, len(w), x.dtype):
        x_offsets = _x_offsets(window, x.shape[1], 1, math.prod(window.padded))
        return planes.correlate(_as_planes(x), w, b, window, scale, activation, x_offsets)
    x = _as_channels_last(x)
    if channels_last_depthwise.is_supported(window, groups, x.shape[1], len(w)):
        data = _in_whole_vectors(x).data
        out = channels_last_depthwise.correlate(data, w, b, window, scale, activation)
        return ChannelsLast(out, len(w))
    return _correlate_directly(x, *args)


_composed_separable_correlate = compose_separable(correlate)


def separable_correlate(
    x: ChannelsLast | Planes, w, pointwise_w, b=None, pointwise_b=None, stride=1, padding=0,
    dilation=1, scale=None, pointwise_scale=None, activation=None, pointwise_activation=None,
) -> ChannelsLast | Planes:  # fmt: skip
    options = (
        b, pointwise_b, stride, padding, dilation, scale, pointwise_scale, activation,
        pointwise_activation,
    )  # fmt: skip
    checked_w, checked_pointwise_w, window, affine, pointwise_affine = checks.check_separable(
        x, w, pointwise_w, *options
    )
    is_known = channels_last_depthwise.is_supported(window, x.shape[1], x.shape[1], len(checked_w))
    if not is_known or checked_pointwise_w.shape[2:] != (1, 1):
        return _composed_separable_correlate(x, w, pointwise_w, *options)
    data = _in_whole_vectors(_as_channels_last(x)).data
    out = channels_last_separable.correlate(
        data, checked_w, checked_pointwise_w, window, affine, pointwise_affine
    )
    return ChannelsLast(out, len(checked_pointwise_w))


def activate(x: ChannelsLast | Planes, activation) -> ChannelsLast | Planes:
    activation = activation_argument(activation, x.dtype)
    y = _like(x)
    kernel = activate_kernel.for_sweep(x.data.size)
    launch(kernel, x.data.reshape(-1), activation, y.data.reshape(-1))
    return y


def _like(x: ChannelsLast | Planes) -> ChannelsLast | Planes:
    """Return activations of the same shape, whose numbers are not set."""
    data = empty(x.data.shape, x.dtype)
    return Planes(data, x.shape[3]) if isinstance(x, Planes) else ChannelsLast(data, x.shape[1])


def is_alike(x: ChannelsLast | Planes, other: ChannelsLast | Planes) -> bool:
    """Return whether activations have the same layout, shape, dtype and padding."""
    same_layout = type(x) is type(other) and x.data.shape == other.data.shape
    return same_layout and x.shape == other.shape and x.dtype == other.dtype


def add(
    x: ChannelsLast | Planes, other: ChannelsLast | Planes, activation=None
) -> ChannelsLast | Planes:
    """Return the activation of x + other, which must be alike."""
    activation = activation_argument(activation, x.dtype)
    y = _like(x)
    x_flat, other_flat = x.data.reshape(-1), other.data.reshape(-1)
    kernel = add_kernel.for_sweep(x_flat.size)
    launch(kernel, x_flat, other_flat, activation, y.data.reshape(-1))
    return y


@SizedKernel
def _max_pool(x, y, size, stride, pad_begin):
    """Pool images (N, H, W, P) whose P is a multiple of the vector's length."""
    N, H, W, P = x.shape
    _, OH, OW, _ = y.shape
    L = VECTOR_BYTES // x.itemsize
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    for row in prange(N * OH):
        n, i = row // OH, row % OH
        top = i * stride[0] - pad_begin[0]
        for j in range(OW):
            left = j * stride[1] - pad_begin[1]
            for v in range(0, P, L):
                largest = splat(x.dtype.type(-np.inf))
                for p in range(max(top, 0), min(top + size[0], H)):
                    for q in range(max(left, 0), min(left + size[1], W)):
                        pixel = load(x_flat, ((n * H + p) * W + q) * P + v)
                        largest = where(is_new_max(pixel, largest), pixel, largest)
                store(y_flat, (row * OW + j) * P + v, largest)


def max_pool(x: ChannelsLast | Planes, pool_size, stride=None, padding=0):
    """Return the largest pixels, and None for the indices, which only a gradient needs."""
    if isinstance(x, Planes):
        return planes.max_pool(x, pool_size, stride, padding)
    N, C, P = x.shape[0], x.shape[1], x.data.shape[3]
    if P % simd_width(x.dtype):
        return NotImplemented
    window = validation.make_pool_window(x.shape[2:], pool_size, stride, padding)
    y = ChannelsLast(empty((N, *window.output, P), x.dtype), C)
    work = y.data.size * math.prod(window.size)
    launch(_max_pool.for_work(work), x.data, y.data, window.size, window.stride, window.pad_begin)
    return y, None


@SizedKernel
def _avg_pool(x, y, size, stride, pad_begin):
    """Average images (N, H, W, P) whose P is a multiple of the vector's length, row by row."""
    N, H, W, P = x.shape
    _, OH, OW, _ = y.shape
    L = VECTOR_BYTES // x.itemsize
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    for row in prange(N * OH):
        n, i = row // OH, row % OH
        top, bottom = clip(i * stride[0] - pad_begin[0], size[0], H)
        for j in range(OW):
            left, right = clip(j * stride[1] - pad_begin[1], size[1], W)
            share = splat(x.dtype.type(1 / ((bottom - top) * (right - left))))
            for v in range(0, P, L):
                total = splat(x.dtype.type(0))
                for p in range(top, bottom):
                    row_total = splat(x.dtype.type(0))
                    for q in range(left, right):
                        row_total += load(x_flat, ((n * H + p) * W + q) * P + v)
                    total += row_total
                store(y_flat, (row * OW + j) * P + v, total * share)


def avg_pool(x: ChannelsLast | Planes, pool_size, stride=None, padding=0) -> ChannelsLast:
    window = validation.make_pool_window(x.shape[2:], pool_size, stride, padding)
    x = _in_whole_vectors(_as_channels_last(x))
    N, _, _, P = x.data.shape
    y = ChannelsLast(empty((N, *window.output, P), x.dtype), x.shape[1])
    work = y.data.size * math.prod(window.size)
    arguments = window.size, window.stride, window.pad_begin
    launch(_avg_pool.for_work(work), x.data, y.data, *arguments)
    return y
