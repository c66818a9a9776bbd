"""Affine maps of images, by bilinear interpolation."""

from functools import lru_cache

import numpy as np
from numba import prange

from kernels import validation
from kernels.numba_backend.runtime.compiler import inlined, parallel


@inlined
def _clamp(value, low, high):
    """Return the nearest number from low to high; low for NaN."""
    value = value if value > low else low
    return value if value < high else high


@inlined
def _locate_sources(m, rows, columns, P, sources, row_weights, column_weights):
    """Write where in the image each output pixel lies.

    sources gets row * P + column of the pixel above and to the left of that point, and the weights
    get the point's distance from that pixel. rows and columns are the coordinates of the output
    pixels, relative to the center of the image.
    """
    as_dtype = m.dtype.type
    zero, bottom, right = as_dtype(0), -rows[0] - rows[0], -columns[0] - columns[0]
    m00, m01, m10, m11 = m[0, 0], m[0, 1], m[1, 0], m[1, 1]
    y0, x0 = m[0, 2] - rows[0], m[1, 2] - columns[0]
    for p in range(len(rows)):
        y = _clamp(m00 * rows[p] + m01 * columns[p] + y0, zero, bottom)
        x = _clamp(m10 * rows[p] + m11 * columns[p] + x0, zero, right)
        top, left = np.int32(y), np.int32(x)
        row_weights[p], column_weights[p] = y - as_dtype(top), x - as_dtype(left)
        sources[p] = top * np.int32(P) + left


@inlined
def _shift(image, m, out):
    """Shift an image (H, W) by whole pixels; return False where the map is not such a shift."""
    H, W = image.shape
    if m[0, 0] != 1 or m[0, 1] != 0 or m[1, 0] != 0 or m[1, 1] != 1:
        return False
    if m[0, 2] != np.rint(m[0, 2]) or m[1, 2] != np.rint(m[1, 2]):
        return False
    rows = int(_clamp(m[0, 2], -m.dtype.type(H), m.dtype.type(H)))
    columns = int(_clamp(m[1, 2], -m.dtype.type(W), m.dtype.type(W)))
    begin, end = max(0, -columns), min(W, W - columns)  # the border is repeated outside
    for i in range(H):
        row, start = image[max(0, min(i + rows, H - 1))], i * W
        for j in range(begin):
            out[start + j] = row[0]
        for j in range(begin, end):
            out[start + j] = row[j + columns]
        for j in range(end, W):
            out[start + j] = row[W - 1]
    return True


@parallel
def _warp(images, matrices, rows, columns, out):
    """Interpolate in separate loops over a plane, of which only the second is scalar.

    LLVM does not vectorize a loop that loads from arbitrary positions, and the rows of an image
    are too short for a vector loop. The separate loops take 51 us for 64 images of 28x28 pixels,
    one loop over pixels takes 104 us. pixels has one row and one column more than the image, in
    which the last ones are repeated.
    """
    N, C, H, W = images.shape
    S, P = H * W, W + 1
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, warped = images[n, c], out[n, c].reshape(-1)
        if _shift(image, matrices[n], warped):
            continue
        pixels = np.empty((H + 1) * P, matrices.dtype)
        for i in range(H + 1):
            for j in range(W):
                pixels[i * P + j] = image[min(i, H - 1), j]
            pixels[i * P + W] = pixels[i * P + W - 1]
        sources = np.empty(S, np.int32)
        row_weights, column_weights = np.empty(S, matrices.dtype), np.empty(S, matrices.dtype)
        _locate_sources(matrices[n], rows, columns, P, sources, row_weights, column_weights)
        a, b = np.empty(S, matrices.dtype), np.empty(S, matrices.dtype)
        d, e = np.empty(S, matrices.dtype), np.empty(S, matrices.dtype)
        for p in range(S):
            q = np.uint64(sources[p])  # unsigned, so that Numba does not check for a negative index
            a[p], b[p] = pixels[q], pixels[q + np.uint64(1)]
            d[p], e[p] = pixels[q + np.uint64(P)], pixels[q + np.uint64(P + 1)]
        for p in range(S):
            upper = a[p] + (b[p] - a[p]) * column_weights[p]
            lower = d[p] + (e[p] - d[p]) * column_weights[p]
            warped[p] = upper + (lower - upper) * row_weights[p]


@parallel
def _warp_bytes(images, matrices, rows, columns, out):
    """Interpolate bytes: one 32-bit number holds the four pixels around a point."""
    N, C, H, W = images.shape
    S, word, byte = H * W, np.uint32, np.uint32(255)
    for plane in prange(N * C):
        n, c = plane // C, plane % C
        image, warped = images[n, c], out[n, c].reshape(-1)
        if _shift(image, matrices[n], warped):
            continue
        quads = np.empty(S, word)
        for i in range(H):
            row, below = image[i], image[min(i + 1, H - 1)]
            for j in range(W - 1):
                upper = word(row[j]) | word(row[j + 1]) << word(8)
                lower = word(below[j]) << word(16) | word(below[j + 1]) << word(24)
                quads[i * W + j] = upper | lower
            quads[i * W + W - 1] = word(row[W - 1]) * word(257) | word(below[W - 1]) * word(
                257 << 16
            )
        sources, gathered = np.empty(S, np.int32), np.empty(S, word)
        row_weights, column_weights = np.empty(S, np.float32), np.empty(S, np.float32)
        _locate_sources(matrices[n], rows, columns, W, sources, row_weights, column_weights)
        for p in range(S):
            gathered[p] = quads[np.uint64(sources[p])]
        for p in range(S):
            quad = gathered[p]
            a, b = np.float32(quad & byte), np.float32(quad >> word(8) & byte)
            d, e = np.float32(quad >> word(16) & byte), np.float32(quad >> word(24))
            upper, lower = a + (b - a) * column_weights[p], d + (e - d) * column_weights[p]
            warped[p] = np.int32(upper + (lower - upper) * row_weights[p] + np.float32(0.5))


@lru_cache(maxsize=64)
def _coordinates(H: int, W: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the column (H * W,) of each pixel, relative to the center."""
    rows = np.arange(H, dtype=dtype) - dtype((H - 1) / 2)
    columns = np.arange(W, dtype=dtype) - dtype((W - 1) / 2)
    return rows.repeat(W), np.tile(columns, H)


def warp_images(images, matrices):
    images, matrices = validation.check_warp(images, matrices)
    out = np.empty_like(images)
    if out.size:
        coordinates = _coordinates(*images.shape[2:], matrices.dtype.type)
        kernel = _warp_bytes if images.dtype == np.uint8 else _warp
        kernel(images, matrices, *coordinates, out)
    return out
