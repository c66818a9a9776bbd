"""Activations inside a model: the same pixel of many images in one vector.

A batch of N images (N, C, H, W) is kept as (B, C, H, W, L): blocks of L images, with the images
of a block in the last axis, so that one vector register holds the same pixel of L of them, a
lane each. Every number of channels, kernel size and stride then fills the vectors, borders need
no masks, and whatever works on a pixel alone is plain vector code.

Where N is no multiple of L, the last block has empty lanes. What they hold on the way forward is
finite and means nothing; on the way back they are zero, so that sums over a batch may run over
them.
"""

import llvmlite.binding as llvm
import numpy as np
from numba import config, prange

from kernels.numba_backend.jit import parallel
from kernels.numba_backend.lanes.memory import empty
from kernels.numba_backend.lanes.tape import call


def _vector_bytes() -> int:
    """Return the width of this processor's vectors, or of the one that Numba is told to take."""
    name, features = config.CPU_NAME, config.CPU_FEATURES  # type: ignore[attr-defined]
    if features is None:
        features = "" if name not in (None, "host") else llvm.get_host_cpu_features().flatten()
    if "+avx512f" in features:
        return 64
    if "+avx2" in features or name == "haswell":
        return 32
    return 16


VECTOR_BYTES = _vector_bytes()


def lanes_of(dtype: np.dtype) -> int:
    """Return how many numbers a vector holds."""
    return VECTOR_BYTES // dtype.itemsize


class Lanes:
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

    def like(self, *shape: int) -> "Lanes":
        """Return uninitialised activations of these images: of the same shape, or of another."""
        shape = shape or self.shape[1:]
        return Lanes(empty((len(self.data), *shape, self.lanes), self.dtype), self.shape[0])

    def reshape(self, *shape: int) -> "Lanes":
        """Return the same numbers under another shape of one image."""
        return Lanes(self.data.reshape(len(self.data), *shape, self.lanes), self.shape[0])

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
    pixels = x.reshape(N, C, S)
    for task in prange(B * C):
        b, c = task // C, task % C
        plane, scale = out[b, c], mean.dtype.type(1) / std[c]
        for start in range(0, S, 16):  # a few pixels of all images at a time stay in the cache
            stop = min(start + 16, S)
            for lane in range(L):
                n = b * L + lane
                if n < N:
                    for s in range(start, stop):
                        plane[s, lane] = (pixels[n, c, s] - mean[c]) * scale
                else:
                    for s in range(start, stop):
                        plane[s, lane] = 0


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


def pack_normalized(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> Lanes:
    """Return (x - mean) / std of an array (N, C, ...) in the layout and dtype of the lanes."""
    L = lanes_of(mean.dtype)
    N = len(x)
    packed = Lanes(empty((-(-N // L), *x.shape[1:], L), mean.dtype), N)
    call(_pack, x, mean, std, packed.planes)
    return packed


def pack(x: np.ndarray) -> Lanes:
    """Return an array (N, C, H, W) or (N, features) in the layout of the lanes."""
    C = x.shape[1]
    return pack_normalized(x, np.zeros(C, x.dtype), np.ones(C, x.dtype))


def unpack(x: Lanes) -> np.ndarray:
    """Return activations as a plain array."""
    out = np.empty(x.shape, x.dtype)
    call(_unpack, x.planes, out)
    return out
