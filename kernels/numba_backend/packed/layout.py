"""The packed layout of activations: the same pixel of many images in one vector.

A batch of N images (N, C, H, W) is stored as (B, C, H, W, L): B blocks of L images, with the
images of a block in the last axis. One vector register then holds the same pixel of L images, one
in each lane. So any number of channels, kernel size and stride fills the vectors, borders need no
masks, and whatever works on single pixels is plain vector code.

Where N is no multiple of L, the last block has padding lanes. In the forward pass they hold finite
numbers without a meaning, such as the bias; in gradients they hold zeros, so that sums over a batch
may include them. A gradient function relies on this: its dy must come from `pack`, from the loss or
from a gradient function, not from a function of the forward pass.

In mixed precision, activations are stored in bfloat16, two neighboring channels of an image as a
pair in the 32 bits of a lane: (B, ceil(C / 2), H, W, L) of uint32. The same number of images fills
a vector, and an instruction that multiplies pairs sums over both channels (`simd.bfloat16`). An odd
number of channels is followed by a padding channel (`simd.pixels`).
"""

import math

import numpy as np
from numba import prange

from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.codegen import VECTOR_BYTES
from kernels.numba_backend.simd.pixels import (
    PAIR_DTYPE,
    first_channel,
    join_channels,
    load_pixel,
    round_bits,
    second_channel,
    store_pixel,
)
from kernels.numba_backend.simd.vectors import (
    first_lanes_of,
    load,
    splat,
    store,
    transpose_rows,
    transpose_to_rows,
    where,
)


def simd_width(dtype: np.dtype) -> int:
    """Return the number of elements in a vector."""
    return VECTOR_BYTES // dtype.itemsize


class PackedBatch:
    """A batch of activations in the packed layout.

    Parameters
    ----------
    data : (B, planes, H, W, L) or (B, planes, L)
        A plane is a channel or a feature, or a pair of them in bfloat16.
    N : int
        Number of images, at most B * L.
    channels : int, optional
        Number of channels or features. None: as many as the planes hold.

    Attributes
    ----------
    data : (B, planes, H, W, L) or (B, planes, L)
    shape : (N, C, H, W) or (N, features)
        Shape of the batch as a plain array, which layers see.
    padded : dict
        Zero-padded copies of ``data`` that kernels have made, for the kernels that run later.
    """

    __slots__ = ("data", "padded", "shape")

    def __init__(self, data: np.ndarray, N: int, channels: int | None = None):
        self.data = data
        if channels is None:
            channels = data.shape[1] * (2 if data.dtype == PAIR_DTYPE else 1)
        self.shape = (N, channels, *data.shape[2:-1])
        self.padded: dict[object, np.ndarray] = {}

    @property
    def is_bfloat16(self) -> bool:
        """Whether the activations are stored as pairs of bfloat16 numbers."""
        return self.data.dtype == PAIR_DTYPE

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the arithmetic, and of the parameters that go with the activations."""
        return np.dtype(np.float32) if self.is_bfloat16 else self.data.dtype

    @property
    def precision(self) -> str:
        """The format that the activations are stored in: "float32", "float64" or "bfloat16"."""
        return "bfloat16" if self.is_bfloat16 else self.data.dtype.name

    @property
    def lanes(self) -> int:
        return self.data.shape[-1]

    def like(self, *shape: int) -> "PackedBatch":
        """Return an uninitialized batch of as many images: of the same shape, or of another."""
        return empty_batch(self.shape[0], shape or self.shape[1:], self.lanes, self.data.dtype)

    def reshape(self, *shape: int) -> "PackedBatch":
        """Return a view of the batch in which each image has another shape; not of pairs."""
        return PackedBatch(self.data.reshape(len(self.data), *shape, self.lanes), self.shape[0])

    @property
    def flat(self) -> np.ndarray:
        return self.data.reshape(-1)

    @property
    def planes(self) -> np.ndarray:
        """The activations as (B, planes, pixels, L)."""
        return self.data.reshape(*self.data.shape[:2], math.prod(self.data.shape[2:-1]), self.lanes)

    @property
    def images(self) -> np.ndarray:
        """The activations as (B * planes, H, W, L)."""
        return self.data.reshape(-1, *self.data.shape[2:])


def empty_batch(N: int, shape: tuple[int, ...], lanes: int, storage: np.dtype) -> PackedBatch:
    """Return an uninitialized batch of N images of a shape.

    ``storage`` is the dtype of its array, `PAIR_DTYPE` for bfloat16.
    """
    channels, *pixels = shape
    planes = -(-channels // 2) if storage == PAIR_DTYPE else channels
    return PackedBatch(empty((-(-N // lanes), planes, *pixels, lanes), storage), N, channels)


@parallel
def _pack(x, mean, std, out):
    """out (B, C, S, L) = (x - mean) / std of x (N, C, ...) with S pixels; padding lanes are 0.

    Squares of L images x L pixels are transposed in registers. The last square of a channel
    overlaps the one before it. The lanes of images that are missing repeat the last image first.
    """
    B, C, S, L = out.shape
    N = len(x)
    x_flat, out_flat, zero = x.reshape(-1), out.reshape(-1), splat(out.dtype.type(0))
    for task in prange(B * C):
        b, c = task // C, task % C
        count = min(L, N - b * L)
        scale = mean.dtype.type(1) / std[c]
        mean_v, scale_v, is_valid = splat(mean[c]), splat(scale), first_lanes_of(zero, count)
        first_pixel = (b * L * C + c) * S
        for square in range(0, S if S >= L else 0, L):
            s = min(square, S - L)
            out_offset = (task * S + s) * L
            transpose_rows(x_flat, first_pixel + s, C * S, count, out_flat, out_offset)
            for p in range(out_offset, out_offset + L * L, L):
                value = (load(out_flat, p) - mean_v) * scale_v
                store(out_flat, p, where(is_valid, value, zero))
        for s in range(S if S < L else 0):
            for lane in range(L):
                value = mean[c]
                if lane < count:
                    value = out.dtype.type(x_flat[first_pixel + lane * C * S + s])
                out_flat[(task * S + s) * L + lane] = (value - mean[c]) * scale


@parallel
def _unpack(x, out):
    """out (N, C, ...) = the images of x (B, C, S, L), by squares as in `_pack`."""
    _, C, S, L = x.shape
    N = len(out)
    x_flat, out_flat = x.reshape(-1), out.reshape(-1)
    for task in prange(len(x) * C):
        b, c = task // C, task % C
        count = min(L, N - b * L)
        first_pixel = (b * L * C + c) * S
        for square in range(0, S if S >= L else 0, L):
            s = min(square, S - L)
            transpose_to_rows(x_flat, (task * S + s) * L, out_flat, first_pixel + s, C * S, count)
        for s in range(S if S < L else 0):
            for lane in range(count):
                out_flat[first_pixel + lane * C * S + s] = x_flat[(task * S + s) * L + lane]


@parallel
def _narrow(x, y):
    """y (B, ceil(C / 2), S, L) of pairs = x (B, C, S, L); the padding channel is 0."""
    B, C, S, L = x.shape
    planes = y.shape[1]
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    for task in prange(B * planes):
        b, plane = task // planes, task % planes
        first = (b * C + 2 * plane) * S * L
        has_second = 2 * plane + 1 < C
        second = first + S * L if has_second else first
        for p in range(0, S * L, L):
            value = load(x_flat, first + p)
            other = load(x_flat, second + p)
            if not has_second:
                other = other - other
            store_pixel(y_flat, task * S * L + p, join_channels(value, other))


@parallel
def _widen(x, y):
    """y (B, C, S, L) = the numbers of x (B, ceil(C / 2), S, L) of pairs."""
    B, C, S, L = y.shape
    planes = x.shape[1]
    x_flat, y_flat = x.reshape(-1), y.reshape(-1)
    for task in prange(B * planes):
        b, plane = task // planes, task % planes
        first = (b * C + 2 * plane) * S * L
        has_second = 2 * plane + 1 < C
        for p in range(0, S * L, L):
            pixel = load_pixel(x_flat, task * S * L + p)
            store(y_flat, first + p, first_channel(pixel))
            if has_second:
                store(y_flat, first + S * L + p, second_channel(pixel))


@parallel
def _flatten_pairs(x, S, channels, y):
    """y (B, planes, L, 2) = the features of x (B, planes, S, L, 2), channel by channel.

    A feature is a pixel of a channel, and the last number of its plane stands alone.
    """
    B, planes, L, _ = y.shape
    for task in prange(B * planes):
        b, plane = task // planes, task % planes
        for i in range(2):
            feature = 2 * plane + i
            c, s = feature // S, feature % S
            for lane in range(L):
                y[b, plane, lane, i] = x[b, c // 2, s, lane, c % 2] if c < channels else 0


@parallel
def _unflatten_pairs(x, S, channels, y):
    """y (B, planes, S, L, 2) = the features x (B, planes, L, 2): `_flatten_pairs` reversed."""
    B, planes, _, L, _ = y.shape
    for task in prange(B * planes):
        b, plane = task // planes, task % planes
        for i in range(2):
            for s in range(S):
                feature = (2 * plane + i) * S + s
                for lane in range(L):
                    value = x[b, feature // 2, lane, feature % 2] if 2 * plane + i < channels else 0
                    y[b, plane, s, lane, i] = value


@parallel
def _round(x_bits, y_bits):
    """y = x rounded to bfloat16, of float32 numbers that are given as integers."""
    for i in prange(x_bits.size):
        y_bits[i] = round_bits(x_bits[i]) << np.uint32(16)


def rounded(w: np.ndarray) -> np.ndarray:
    """Return float32 weights rounded to bfloat16, in float32."""
    out = empty(w.shape, w.dtype)
    launch(_round, w.reshape(-1).view(np.uint32), out.reshape(-1).view(np.uint32))
    return out


def narrow(x: PackedBatch) -> PackedBatch:
    """Return float32 activations rounded to bfloat16; those in bfloat16 as they are."""
    if x.is_bfloat16:
        return x
    y = empty_batch(x.shape[0], x.shape[1:], x.lanes, PAIR_DTYPE)
    launch(_narrow, x.planes, y.planes)
    return y


def widen(x: PackedBatch) -> PackedBatch:
    """Return bfloat16 activations in float32; others as they are."""
    if not x.is_bfloat16:
        return x
    y = empty_batch(x.shape[0], x.shape[1:], x.lanes, x.dtype)
    launch(_widen, x.planes, y.planes)
    return y


def _halves(x: PackedBatch) -> np.ndarray:
    """Return the numbers (B, planes, pixels, L, 2) of pairs, in 16 bits each."""
    return x.planes.reshape(*x.planes.shape, 1).view(np.uint16)


def flatten(x: PackedBatch) -> PackedBatch:
    """Return images (N, C, H, W) as rows (N, C * H * W)."""
    features, pixels = math.prod(x.shape[1:]), math.prod(x.shape[2:])
    if not x.is_bfloat16:
        return x.reshape(features)
    if pixels == 1:  # one channel after the other already
        return PackedBatch(x.data.reshape(len(x.data), -1, x.lanes), x.shape[0], features)
    y = x.like(features)
    launch(_flatten_pairs, _halves(x), pixels, x.shape[1], _halves(y)[:, :, 0])
    return y


def unflatten(x: PackedBatch, shape: tuple[int, ...]) -> PackedBatch:
    """Return rows (N, C * H * W) as images of a shape (C, H, W)."""
    if not x.is_bfloat16:
        return x.reshape(*shape)
    channels, *size = shape
    if math.prod(size) == 1:
        data = x.data.reshape(len(x.data), -1, *size, x.lanes)
        return PackedBatch(data, x.shape[0], channels)
    y = x.like(*shape)
    launch(_unflatten_pairs, _halves(x)[:, :, 0], math.prod(size), channels, _halves(y))
    return y


def pack_normalized(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> PackedBatch:
    """Return (x - mean) / std of an array (N, C, ...), packed, in the dtype of the mean."""
    L = simd_width(mean.dtype)
    N = len(x)
    packed = PackedBatch(empty((-(-N // L), *x.shape[1:], L), mean.dtype), N)
    launch(_pack, x, mean, std, packed.planes)
    return packed


def pack(x: np.ndarray) -> PackedBatch:
    """Return an array (N, C, H, W) or (N, features) in the packed layout."""
    C = x.shape[1]
    return pack_normalized(x, np.zeros(C, x.dtype), np.ones(C, x.dtype))


def unpack(x: PackedBatch) -> np.ndarray:
    """Return a packed batch as a plain array (N, C, H, W) or (N, features)."""
    x = widen(x)
    out = np.empty(x.shape, x.dtype)
    launch(_unpack, x.planes, out)
    return out
