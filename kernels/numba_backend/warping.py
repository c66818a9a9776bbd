"""Images seen through an affine map."""

from functools import lru_cache

import numpy as np
from numba import prange

from kernels import checks
from kernels.numba_backend.jit import inlined, parallel


@inlined
def _clip(place, first, last):
    """Return the nearest place from first to last; the first for NaN."""
    place = place if place > first else first
    return place if place < last else last


@parallel
def _warp(images, matrices, rows, columns, half, out):
    """Bilinear interpolation in three sweeps over a plane, of which the second alone is scalar.

    Numbers that are fetched from anywhere keep LLVM from making vectors of a loop, and the rows
    of an image are too short for one: 51 us for 64 images of 28x28 pixels, against 104 us pixel
    by pixel. rows and columns are those of each pixel, from the middle; pixels gets a row and a
    column more, in which the last ones are repeated.
    """
    N, C, H, W = images.shape
    S, P = H * W, W + 1
    whole, real = np.int32, matrices.dtype.type
    zero, bottom, right = real(0), -rows[0] - rows[0], -columns[0] - columns[0]
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        m, image, to = matrices[n], images[n, c], out[n, c].reshape(-1)
        pixels = np.empty((H + 1) * P, matrices.dtype)
        for i in range(H + 1):
            for j in range(W):
                pixels[i * P + j] = image[min(i, H - 1), j]
            pixels[i * P + W] = pixels[i * P + W - 1]
        places = np.empty(S, np.int32)
        down, across = np.empty(S, matrices.dtype), np.empty(S, matrices.dtype)
        a, b = np.empty(S, matrices.dtype), np.empty(S, matrices.dtype)
        d, e = np.empty(S, matrices.dtype), np.empty(S, matrices.dtype)
        m00, m01, m10, m11 = m[0, 0], m[0, 1], m[1, 0], m[1, 1]
        y0, x0 = m[0, 2] - rows[0], m[1, 2] - columns[0]
        for p in range(S):
            y = _clip(m00 * rows[p] + m01 * columns[p] + y0, zero, bottom)
            x = _clip(m10 * rows[p] + m11 * columns[p] + x0, zero, right)
            top, left = whole(y), whole(x)
            down[p], across[p] = y - real(top), x - real(left)
            places[p] = top * whole(P) + left
        for p in range(S):
            q = np.uint64(places[p])  # which needs no look at its sign
            a[p], b[p] = pixels[q], pixels[q + np.uint64(1)]
            d[p], e[p] = pixels[q + np.uint64(P)], pixels[q + np.uint64(P + 1)]
        for p in range(S):
            upper, lower = a[p] + (b[p] - a[p]) * across[p], d[p] + (e[p] - d[p]) * across[p]
            a[p] = upper + (lower - upper) * down[p] + half
        for p in range(S):
            to[p] = a[p]


@lru_cache(maxsize=64)
def _coordinates(H: int, W: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the column (H * W,) of each pixel, counted from the middle."""
    rows = np.arange(H, dtype=dtype) - dtype((H - 1) / 2)
    columns = np.arange(W, dtype=dtype) - dtype((W - 1) / 2)
    return rows.repeat(W), np.tile(columns, H)


def warp_images(images, matrices):
    images, matrices = checks.warping(images, matrices)
    out = np.empty_like(images)
    real = np.float64 if images.dtype == np.float64 else np.float32
    half = real(0.5 if images.dtype == np.uint8 else 0)  # towards zero is down
    if out.size:
        coordinates = _coordinates(*images.shape[2:], real)
        _warp(images, matrices.astype(real), *coordinates, half, out)
    return out
