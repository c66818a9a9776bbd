"""Images seen through an affine map."""

import numpy as np

from kernels import validation


def warp_images(images, matrices):
    images, matrices = validation.check_warp(images, matrices)
    H, W = images.shape[2:]
    middle = (H - 1) / 2, (W - 1) / 2
    i, j = (np.arange(size) - centre for size, centre in zip((H, W), middle, strict=True))
    y, x = (
        np.clip(
            matrices[:, axis, :1, None] * i[:, None]
            + matrices[:, axis, 1:2, None] * j
            + matrices[:, axis, 2:, None]
            + middle[axis],
            0,
            (H, W)[axis] - 1,
        )
        for axis in (0, 1)
    )
    top, left = y.astype(np.int64), x.astype(np.int64)
    bottom, right = np.minimum(top + 1, H - 1), np.minimum(left + 1, W - 1)
    down, across = (y - top)[:, None], (x - left)[:, None]
    n = np.arange(len(images))[:, None, None]

    def pixels(rows, columns):
        return images[n, :, rows, columns].transpose(0, 3, 1, 2).astype(np.float64)

    above = pixels(top, left) * (1 - across) + pixels(top, right) * across
    below = pixels(bottom, left) * (1 - across) + pixels(bottom, right) * across
    warped = above * (1 - down) + below * down
    return (warped + 0.5 if images.dtype == np.uint8 else warped).astype(images.dtype)
