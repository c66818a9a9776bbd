"""Images as flat planes on which every tap of a kernel is a shift.

A padded image stored row after row turns "one row down, two columns right" into "PW + 2
elements on": a correlation with stride 1 is then a weighted sum of shifted planes, each one
long contiguous run that fills the vectors whatever the size of the kernel. The few columns
where a window would reach over the right border are computed too and thrown away.

A stride s is brought back to that case by splitting the image into s * s phases, one for each
remainder of row and column: within one phase, neighbouring windows are neighbours again.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import prange

from kernels.geometry import Window
from kernels.numba_backend.runtime.compiler import inlined, parallel, serial
from kernels.numba_backend.simd.vectors import (
    VECTOR_BYTES,
    gather_strided,
    masked_load,
    masked_store,
    splat,
)


class Planes(NamedTuple):
    """How the images that a window slides over lie in memory.

    Attributes
    ----------
    rows, width : int
        PH and PW, the size of one phase.
    size : int
        Elements of one image: all its phases.
    shifts : (KH * KW,) of int64
        Where each tap's run of pixels begins.
    run : int
        Length of the run: OH rows of which the last ends after OW columns.
    """

    rows: int
    width: int
    size: int
    shifts: np.ndarray
    run: int


@lru_cache(maxsize=1024)
def planes_for(window: Window) -> Planes:
    (sh, sw), (dh, dw), (KH, KW) = window.stride, window.dilation, window.size
    rows, width = -(-window.padded[0] // sh), -(-window.padded[1] // sw)
    shifts = np.empty((KH, KW), np.int64)
    for k in range(KH):
        for m in range(KW):
            phase = (k * dh % sh) * sw + m * dw % sw
            shifts[k, m] = (phase * rows + k * dh // sh) * width + m * dw // sw
    OH, OW = window.output
    run = (OH - 1) * width + OW
    return Planes(rows, width, sh * sw * rows * width, shifts.ravel(), run)


@serial
def inside(offset, stride, length, count):
    """Return [first, last) of the places i < count with 0 <= offset + i * stride < length."""
    first = max(0, (-offset + stride - 1) // stride)
    last = min(count, (length - 1 - offset) // stride + 1)
    return first, max(first, last)


@inlined
def copy_row(source, at, step, target, to, count):
    """Copy pixels that stand a step apart. Rows are short: a plain loop takes longer to begin."""
    lanes = VECTOR_BYTES // source.itemsize
    nothing = splat(source.dtype.type(0))
    for p in range(0, count, lanes):
        if step == 1:
            pixels = masked_load(source, at + p, count - p)
        else:
            pixels = gather_strided(source, at + p * step, step, 0, count - p, nothing)
        masked_store(target, to + p, pixels, count - p)


@parallel
def split_phases(x, out, stride, start, rows, width):
    """Write images (N, C, H, W), padded and split into phases, into out (N, C, planes.size)."""
    N, C, H, W = x.shape
    (sh, sw), (top, left) = stride, start
    size, source, target = out.shape[2], x.reshape(-1), out.reshape(-1)
    for plane in prange(N * C):
        target[plane * size : (plane + 1) * size] = 0
        for i in range(H):
            row = (i + top) % sh * sw * rows + (i + top) // sh
            for b in range(sw):
                first = (b - left) % sw
                at = (plane * H + i) * W + first
                to = plane * size + (row + b * rows) * width + (first + left) // sw
                copy_row(source, at, sw, target, to, (W - first + sw - 1) // sw)


def split(x, window: Window, planes: Planes):
    """Return images (N, C, H, W) padded and split into phases, (N, C, planes.size)."""
    out = np.empty((*x.shape[:2], planes.size), x.dtype)
    split_phases(x, out, window.stride, window.pad_begin, planes.rows, planes.width)
    return out


def widen(dy, width):
    """Return images (N, F, OH, OW) as flat planes whose rows are ``width`` long, zeros behind."""
    N, F, OH, _ = dy.shape
    out = np.empty((N, F, OH * width), dy.dtype)
    split_phases(dy, out, (1, 1), (0, 0), OH, width)
    return out
