"""Affine transformation of images with bilinear interpolation."""

import numpy as np

from kernels.validation import check_warp


def warp_images(images, matrices):
    images, matrices = check_warp(images, matrices)
    H, W = images.shape[2:]
    center = (H - 1) / 2, (W - 1) / 2
    # Coordinates of the output pixels from the center: i is (H, 1) and j is (W,).
    i, j = (np.arange(H) - center[0])[:, None], np.arange(W) - center[1]
    # Position in the input of each output pixel, (N, H, W); outside it is that of the edge.
    y, x = (
        np.clip(
            matrices[:, axis, 0, None, None] * i
            + matrices[:, axis, 1, None, None] * j
            + matrices[:, axis, 2, None, None]
            + center[axis],
            0,
            (H, W)[axis] - 1,
        )
        for axis in (0, 1)
    )
    # Each position lies between four pixels; the fractions are its distances from the first.
    top, left = y.astype(np.int64), x.astype(np.int64)
    bottom, right = np.minimum(top + 1, H - 1), np.minimum(left + 1, W - 1)
    y_fraction, x_fraction = (y - top)[:, None], (x - left)[:, None]
    n = np.arange(len(images))[:, None, None]

    def pixels(rows, columns):
        return images[n, :, rows, columns].transpose(0, 3, 1, 2).astype(np.float64)

    upper = pixels(top, left) * (1 - x_fraction) + pixels(top, right) * x_fraction
    lower = pixels(bottom, left) * (1 - x_fraction) + pixels(bottom, right) * x_fraction
    warped = upper * (1 - y_fraction) + lower * y_fraction
    return (warped + 0.5 if images.dtype == np.uint8 else warped).astype(images.dtype)
