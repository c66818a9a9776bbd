"""Prediction of a few images: the channels of a pixel in the lanes of vectors.

A batch too small to fill the lanes with images is kept as (N, H, W, P): the channels of a pixel
side by side, filled up to whole vectors by each convolution. There a number of the image meets a
vector of filters, and pooling works on whole vectors; no border or odd width leaves lanes empty.
What has no kernel here goes on with plain arrays.
"""

from functools import lru_cache

import numba
import numpy as np
from numba import prange

from kernels import validation
from kernels.geometry import Window, make_window
from kernels.numba_backend.packed import checks
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel, serial
from kernels.numba_backend.simd.micro_kernels import (
    outer_product_tile_of_columns,
    outer_product_tile_shape,
)
from kernels.numba_backend.simd.tiled_matmul import scale_and_bias, strided_offsets
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    gather_strided,
    load,
    logical_not,
    masked_store,
    splat,
    store,
    transpose,
    where,
)


class ChannelsLast:
    """Activations of a few images.

    Attributes
    ----------
    data : (N, H, W, P)
        The first C of the P numbers of a pixel are its channels.
    shape : (N, C, H, W)
        What the batch is to the layers.
    """

    __slots__ = ("data", "shape")

    def __init__(self, data: np.ndarray, channels: int):
        N, H, W, _ = data.shape
        self.data, self.shape = data, (N, channels, H, W)

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype


@parallel
def _load(images, mean, std, out):
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
    launch(_load, images, mean, std, x.data)
    return x


@parallel
def _to_array(x, out):
    """out (N, C, H * W) = the channels of x (N, H, W, P)."""
    N, C, S = out.shape
    P, L = x.shape[3], VECTOR_BYTES // x.itemsize
    pixels, to, nothing = x.reshape(-1), out.reshape(-1), splat(x.dtype.type(0))
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        for p in range(0, S, L):
            some = gather_strided(pixels, (n * S + p) * P + c, P, 0, S - p, nothing)
            masked_store(to, plane * S + p, some, S - p)


def to_array(x: ChannelsLast) -> np.ndarray:
    N, C, H, W = x.shape
    out = empty(x.shape, x.dtype)
    launch(_to_array, x.data, out.reshape(N, C, H * W))
    return out


def flatten(x: ChannelsLast) -> np.ndarray:
    return to_array(x).reshape(x.shape[0], -1)


@serial
def _turn(w, F, out):
    """Write flat filters (F, terms) as (terms, F rounded up to whole vectors), zeros behind."""
    L = VECTOR_BYTES // w.itemsize
    T, P, nothing = w.size // F, (F + L - 1) // L * L, splat(w.dtype.type(0))
    for f in range(0, F, L):
        for t in range(0, T, L):
            if f + L <= F and t + L <= T:
                transpose(w, f * T + t, T, out, t * P + f, P)
            else:
                for k in range(t, min(t + L, T)):
                    store(out, k * P + f, gather_strided(w, f * T + k, T, 0, F - f, nothing))


@serial
def copy_zero_padded(x, corner, first, last, ground):
    """Write the rows from first to before last of images x (N, H, W, P) onto zeros."""
    _, H, W, _ = x.shape
    height = ground.shape[1]
    top, left = corner
    for row in range(first, last):
        n, i = row // height, row % height - top
        line = ground[n, i + top]
        if 0 <= i < H:
            line[:left] = 0
            line[left : left + W] = x[n, i]
            line[left + W :] = 0
        else:
            line[:] = 0


@parallel
def _correlate(
    x, corner, grounds, reach, x_terms, w, turned, w_terms, scale, bias, factors, shifts, negative_slope,
    stride, tile, y,
):  # fmt: skip
    """y (N, OH, OW, P) = a pixel's sums for all filters (F, terms).

    Each worker places the rows that it needs, and turns the filters, into room of its own: what
    another core has just written takes longer to fetch than to write again.
    """
    N, OH, OW, P = y.shape
    workers, _, H, W, C = grounds.shape
    (ROWS, COLUMNS), (sh, sw) = tile, stride
    L = VECTOR_BYTES // x.itemsize
    for f in range(scale.size):
        factors[f], shifts[f] = scale[f], bias[f]
    filters, to = w.reshape(-1), y.reshape(-1)
    for worker in prange(workers):
        ground, weights = grounds[worker], turned[worker]
        first, last = worker * N * OH // workers, (worker + 1) * N * OH // workers
        if first < last:
            end = (last - 1) // OH * H + (last - 1) % OH * sh + reach
            copy_zero_padded(x, corner, first // OH * H + first % OH * sh, end, ground)
            _turn(filters, scale.size, weights)
        pixels = ground.reshape(-1)
        for line in range(first, last):
            row = (line // OH * H + line % OH * sh) * W
            for right in range(0, OW, ROWS):
                j = min(right, OW - ROWS)
                for above in range(0, P, COLUMNS * L):
                    f = min(above, P - COLUMNS * L)
                    outer_product_tile_of_columns(
                        weights, f, w_terms, L,
                        pixels, (row + j * sw) * C, x_terms, sw * C, x_terms.size,
                        factors, shifts, f, negative_slope,
                        to, (line * OW + j) * P + f, P, L, ROWS, COLUMNS,
                    )  # fmt: skip


@lru_cache(maxsize=256)
def _x_terms(window: Window, channels: int, P: int) -> np.ndarray:
    """Return where each channel's each tap stands, (channels * KH * KW,)."""
    (KH, KW), (dh, dw), width = window.size, window.dilation, window.padded[1]
    c, k, m = np.ogrid[:channels, :KH, :KW]
    return ((k * dh * width + m * dw) * P + c).astype(np.int64).ravel()


def correlate(
    x: ChannelsLast,
    w,
    b=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    scale=None,
    negative_slope=1.0,
):
    w, groups = checks.check_filters(w, x.shape, x.dtype, groups)
    if groups != 1:
        return NotImplemented
    scale, b = checks.check_scale_and_bias(scale, b, len(w), x.dtype)
    negative_slope = validation.check_negative_slope(negative_slope, x.dtype)
    window = make_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    (N, C, _, _), F, P = x.shape, len(w), x.data.shape[3]
    L = simd_width(x.dtype)
    vectors, workers = -(-F // L), numba.get_num_threads()
    (OH, OW), T = window.output, w[0].size
    y = ChannelsLast(empty((N, OH, OW, vectors * L), x.dtype), F)
    launch(
        _correlate, x.data, window.start, empty((workers, N, *window.padded, P), x.dtype),
        window.extent[0], _x_terms(window, C, P), w, empty((workers, T * vectors * L), x.dtype),
        strided_offsets(T, vectors * L), *scale_and_bias(scale, b, F, x.dtype),
        *np.zeros((2, vectors * L), x.dtype), negative_slope, window.stride,
        outer_product_tile_shape(OW, vectors), y.data,
    )  # fmt: skip
    return y


@parallel
def _max_pool(x, y, size, stride, start):
    """Whole vectors of channels, whose number is a multiple of theirs."""
    N, H, W, P = x.shape
    _, OH, OW, _ = y.shape
    L = VECTOR_BYTES // x.itemsize
    pixels, to = x.reshape(-1), y.reshape(-1)
    for line in prange(N * OH):
        n, i = line // OH, line % OH
        top = i * stride[0] - start[0]
        for j in range(OW):
            left = j * stride[1] - start[1]
            for v in range(0, P, L):
                largest = splat(x.dtype.type(-np.inf))
                for p in range(max(top, 0), min(top + size[0], H)):
                    for q in range(max(left, 0), min(left + size[1], W)):
                        pixel = load(pixels, ((n * H + p) * W + q) * P + v)
                        # NaN is not larger than anything, but must come out.
                        larger = logical_not(pixel <= largest) & (largest == largest)
                        largest = where(larger, pixel, largest)
                store(to, (line * OW + j) * P + v, largest)


def max_pool(x: ChannelsLast, pool_size, stride=None, padding=0):
    """Return no indices, which only a gradient needs."""
    N, C, P = x.shape[0], x.shape[1], x.data.shape[3]
    if P % simd_width(x.dtype):
        return NotImplemented
    window = validation.make_pool_window(x.shape[2:], pool_size, stride, padding)
    y = ChannelsLast(empty((N, *window.output, P), x.dtype), C)
    launch(_max_pool, x.data, y.data, window.size, window.stride, window.start)
    return y, None
