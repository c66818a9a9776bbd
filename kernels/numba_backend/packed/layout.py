"""The packed layout of activations: the same pixel of many images in one vector.

A batch of N images (N, C, H, W) is stored as (B, C, H, W, L): B blocks of L images, with the
images of a block in the last axis. One vector register then holds the same pixel of L images, one
in each lane. So any number of channels, kernel size and stride fills the vectors, borders need no
masks, and whatever works on single pixels is plain vector code.

Where N is no multiple of L, the last block has padding lanes. In the forward pass they hold finite
numbers without a meaning, such as the bias; in gradients they hold zeros, so that sums over a batch
may include them. A gradient function relies on this: its dy must come from `pack`, from the loss or
from a gradient function, not from a function of the forward pass.
"""

import math

import numpy as np
from numba import prange

from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.codegen import VECTOR_BYTES
from kernels.numba_backend.simd.vectors import transpose

PACK_TILE_PIXELS = 64  # pixels of each of L images that are packed at a time
UNPACK_TILE_PIXELS = 16


def simd_width(dtype: np.dtype) -> int:
    """Return the number of elements in a vector."""
    return VECTOR_BYTES // dtype.itemsize


class PackedBatch:
    """A batch of activations in the packed layout.

    Parameters
    ----------
    data : (B, C, H, W, L) or (B, features, L)
    N : int
        Number of images, at most B * L.

    Attributes
    ----------
    data : (B, C, H, W, L) or (B, features, L)
    shape : (N, C, H, W) or (N, features)
        Shape of the batch as a plain array, which layers see.
    padded : dict
        Zero-padded copies of ``data`` that kernels have made, for the kernels that run later.
    """

    __slots__ = ("data", "padded", "shape")

    def __init__(self, data: np.ndarray, N: int):
        self.data = data
        self.shape = (N, *data.shape[1:-1])
        self.padded: dict[object, np.ndarray] = {}

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def lanes(self) -> int:
        return self.data.shape[-1]

    def like(self, *shape: int) -> "PackedBatch":
        """Return an uninitialized batch of as many images: of the same shape, or of another."""
        shape = shape or self.shape[1:]
        return PackedBatch(empty((len(self.data), *shape, self.lanes), self.dtype), self.shape[0])

    def reshape(self, *shape: int) -> "PackedBatch":
        """Return a view of the batch in which each image has another shape."""
        return PackedBatch(self.data.reshape(len(self.data), *shape, self.lanes), self.shape[0])

    @property
    def flat(self) -> np.ndarray:
        return self.data.reshape(-1)

    @property
    def planes(self) -> np.ndarray:
        """The activations as (B, C, pixels, L)."""
        return self.data.reshape(*self.data.shape[:2], math.prod(self.data.shape[2:-1]), self.lanes)

    @property
    def images(self) -> np.ndarray:
        """The activations as (B * C, H, W, L)."""
        return self.data.reshape(-1, *self.data.shape[2:])


@parallel
def _pack(x, mean, std, out):
    """out (B, C, S, L) = (x - mean) / std of x (N, C, ...) with S pixels; padding lanes are 0.

    Squares of L images x L pixels are transposed in registers. The images are normalized into a
    buffer first, so that the vectors of a square lie close to each other in the cache.
    """
    B, C, S, L = out.shape
    N = len(x)
    pixels, out_flat = x.reshape(N, C, S), out.reshape(-1)
    for task in prange(B * C):
        b, c = task // C, task % C
        channel_mean, scale = mean[c], mean.dtype.type(1) / std[c]
        pack_buffer = np.empty(L * PACK_TILE_PIXELS, out.dtype)
        for start in range(0, S, PACK_TILE_PIXELS):
            count = min(PACK_TILE_PIXELS, S - start)
            for lane in range(L):
                n = b * L + lane
                for s in range(count if n < N else 0):
                    value = (pixels[n, c, start + s] - channel_mean) * scale
                    pack_buffer[lane * PACK_TILE_PIXELS + s] = value
                for s in range(0 if n < N else count):
                    pack_buffer[lane * PACK_TILE_PIXELS + s] = 0
            in_squares = count // L * L
            for s in range(0, in_squares, L):
                transpose(pack_buffer, s, PACK_TILE_PIXELS, out_flat, (task * S + start + s) * L, L)
            for s in range(in_squares, count):
                for lane in range(L):
                    out_flat[(task * S + start + s) * L + lane] = pack_buffer[
                        lane * PACK_TILE_PIXELS + s
                    ]


@parallel
def _unpack(x, out):
    """out (N, C, ...) = the images of x (B, C, S, L)."""
    _, C, S, L = x.shape
    N = len(out)
    pixels = out.reshape(N, C, S)
    for task in prange(len(x) * C):
        b, c = task // C, task % C
        for start in range(0, S, UNPACK_TILE_PIXELS):
            stop = min(start + UNPACK_TILE_PIXELS, S)
            for lane in range(min(L, N - b * L)):
                for s in range(start, stop):
                    pixels[b * L + lane, c, s] = x[b, c, s, lane]


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
    out = np.empty(x.shape, x.dtype)
    launch(_unpack, x.planes, out)
    return out
