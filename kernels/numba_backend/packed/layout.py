"""Activations inside a model: the same pixel of many images in one vector.

A batch of N images (N, C, H, W) is kept as (B, C, H, W, L): blocks of L images, with the images
of a block in the last axis, so that one vector register holds the same pixel of L of them, a
lane each. Every number of channels, kernel size and stride then fills the vectors, borders need
no masks, and whatever works on a pixel alone is plain vector code.

Where N is no multiple of L, the last block has empty lanes. What they hold on the way forward is
finite and means nothing; on the way back they are zero, so that sums over a batch may run over
them.
"""

import numpy as np
from numba import prange

from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import launch
from kernels.numba_backend.runtime.compiler import parallel
from kernels.numba_backend.simd.vectors import VECTOR_BYTES, transpose

PIXELS = 64  # packed at a time


def simd_width(dtype: np.dtype) -> int:
    """Return how many numbers a vector holds."""
    return VECTOR_BYTES // dtype.itemsize


class PackedBatch:
    """A batch of activations with the images in the lanes.

    Attributes
    ----------
    data : (B, C, H, W, L) or (B, features, L)
    shape : (N, C, H, W) or (N, features)
        What the batch is to the layers.
    padded : dict
        Copies with a border of zeros that kernels have made, for those that come after them.
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
        """Return uninitialised activations of these images: of the same shape, or of another."""
        shape = shape or self.shape[1:]
        return PackedBatch(empty((len(self.data), *shape, self.lanes), self.dtype), self.shape[0])

    def reshape(self, *shape: int) -> "PackedBatch":
        """Return the same numbers under another shape of one image."""
        return PackedBatch(self.data.reshape(len(self.data), *shape, self.lanes), self.shape[0])

    @property
    def flat(self) -> np.ndarray:
        return self.data.reshape(-1)

    @property
    def planes(self) -> np.ndarray:
        """The activations as (B, C, pixels, L)."""
        return self.data.reshape(*self.data.shape[:2], -1, self.lanes)

    @property
    def images(self) -> np.ndarray:
        """The activations as (B * C, H, W, L)."""
        return self.data.reshape(-1, *self.data.shape[2:])


@parallel
def _pack(x, mean, std, out):
    """x (N, C, ...), out (B, C, S, L) = (x - mean) / std; lanes without an image become 0."""
    B, C, S, L = out.shape
    N = len(x)
    pixels, to = x.reshape(N, C, S), out.reshape(-1)
    for task in prange(B * C):
        b, c = task // C, task % C
        centre, scale = mean[c], mean.dtype.type(1) / std[c]
        some = np.empty(L * PIXELS, out.dtype)  # of all images at a time, so that they stay near
        for start in range(0, S, PIXELS):
            count = min(PIXELS, S - start)
            for lane in range(L):
                n = b * L + lane
                for s in range(count if n < N else 0):
                    some[lane * PIXELS + s] = (pixels[n, c, start + s] - centre) * scale
                for s in range(0 if n < N else count):
                    some[lane * PIXELS + s] = 0
            whole = count // L * L
            for s in range(0, whole, L):
                transpose(some, s, PIXELS, to, (task * S + start + s) * L, L)
            for s in range(whole, count):
                for lane in range(L):
                    to[(task * S + start + s) * L + lane] = some[lane * PIXELS + s]


@parallel
def _unpack(x, out):
    """x (B, C, S, L), out (N, C, ...)."""
    _, C, S, L = x.shape
    N = len(out)
    pixels = out.reshape(N, C, S)
    for task in prange(len(x) * C):
        b, c = task // C, task % C
        for start in range(0, S, 16):
            stop = min(start + 16, S)
            for lane in range(min(L, N - b * L)):
                for s in range(start, stop):
                    pixels[b * L + lane, c, s] = x[b, c, s, lane]


def pack_normalized(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> PackedBatch:
    """Return (x - mean) / std of an array (N, C, ...) in the layout and dtype of the lanes."""
    L = simd_width(mean.dtype)
    N = len(x)
    packed = PackedBatch(empty((-(-N // L), *x.shape[1:], L), mean.dtype), N)
    launch(_pack, x, mean, std, packed.planes)
    return packed


def pack(x: np.ndarray) -> PackedBatch:
    """Return an array (N, C, H, W) or (N, features) in the layout of the lanes."""
    C = x.shape[1]
    return pack_normalized(x, np.zeros(C, x.dtype), np.ones(C, x.dtype))


def unpack(x: PackedBatch) -> np.ndarray:
    """Return activations as a plain array."""
    out = np.empty(x.shape, x.dtype)
    launch(_unpack, x.planes, out)
    return out
