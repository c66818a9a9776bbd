"""Mirroring, shifts, changes of color, and covered boxes of images, in one pass."""

import numpy as np
from numba import prange

from kernels import validation
from kernels.numba_backend.runtime.compiler import inlined, parallel


@inlined
def _reflect(position, length):
    """Return the pixel of an image at a position that may lie in its reflections."""
    period = max(2 * (length - 1), 1)
    position = abs(position) % period
    return position if position < length else period - position


@inlined
def _move(image, is_mirrored, shift, columns, moved):
    """Write an image (C, H, W), mirrored and shifted, into moved (C, H * W)."""
    C, H, W = image.shape
    for j in range(W):
        column = _reflect(j + shift[1], W)
        columns[j] = W - 1 - column if is_mirrored else column
    for c in range(C):
        for i in range(H):
            row, start = image[c, _reflect(i + shift[0], H)], i * W
            for j in range(W):
                # Unsigned, so that Numba does not check for a negative index.
                moved[c, start + j] = row[np.uint64(columns[j])]


@inlined
def _cover(image, box, fill):
    for c in range(len(image)):
        for i in range(box[0], box[2]):
            for j in range(box[1], box[3]):
                image[c, i, j] = fill[c]


@parallel
def _augment(images, mirrored, shifts, colors, boxes, fill, low, high, half, out):
    """Change each image as a whole: one of 32x32 pixels stays in the first-level cache.

    half is 0.5 if the conversion to the dtype of the images rounds down, else 0.
    """
    N, C, H, W = images.shape
    as_dtype = colors.dtype.type
    low, high, half = as_dtype(low), as_dtype(high), as_dtype(half)
    for n in prange(N):
        moved, columns = np.empty((C, H * W), colors.dtype), np.empty(W, np.int64)
        recolored = np.empty(H * W, colors.dtype)
        _move(images[n], mirrored[n], shifts[n], columns, moved)
        for c in range(C):
            recolored[:] = colors[n, c, C]
            for d in range(C):
                factor, channel = colors[n, c, d], moved[d]
                for p in range(H * W):
                    recolored[p] += factor * channel[p]
            channel_out = out[n, c].reshape(-1)
            for p in range(H * W):
                pixel = recolored[p]
                pixel = pixel if pixel > low else low  # low for NaN
                channel_out[p] = (pixel if pixel < high else high) + half
        _cover(out[n], boxes[n], fill)


def augment_images(images, mirrored, shifts, colors, boxes, fill, low, high):
    checked = validation.check_augmentation(
        images, mirrored, shifts, colors, boxes, fill, low, high
    )
    out = np.empty_like(checked.images)
    if out.size:
        _augment(*checked, 0.5 if out.dtype == np.uint8 else 0.0, out)
    return out
