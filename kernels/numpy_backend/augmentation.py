"""Mirroring, shifts, changes of color, and covered boxes of images."""

import numpy as np

from kernels.validation import check_augmentation


def _reflect(positions, length):
    """Return the pixels of an image at positions that may lie in its reflections."""
    period = max(2 * (length - 1), 1)
    positions = np.abs(positions) % period
    return np.where(positions < length, positions, period - positions)


def augment_images(images, mirrored, shifts, colors, boxes, fill, low, high):
    images, mirrored, shifts, colors, boxes, fill, low, high = check_augmentation(
        images, mirrored, shifts, colors, boxes, fill, low, high
    )
    N, C, H, W = images.shape
    i, j = np.arange(H), np.arange(W)
    rows, columns = _reflect(shifts[:, :1] + i, H), _reflect(shifts[:, 1:] + j, W)
    columns = np.where(mirrored[:, None], W - 1 - columns, columns)
    n = np.arange(N)[:, None, None]
    moved = images[n, :, rows[:, :, None], columns[:, None, :]].astype(np.float64)  # channels last
    pixels = np.einsum("ncd,nijd->ncij", colors[:, :, :C], moved) + colors[:, :, C, None, None]
    pixels = np.clip(pixels, low, high)
    if images.dtype == np.uint8:
        pixels += 0.5  # the conversion to uint8 rounds down
    top, left, bottom, right = boxes.T[:, :, None]
    covered_rows, covered_columns = (top <= i) & (i < bottom), (left <= j) & (j < right)
    is_covered = covered_rows[:, None, :, None] & covered_columns[:, None, None, :]
    return np.where(is_covered, fill[:, None, None], pixels.astype(images.dtype))
