"""Place ink where the training images have it."""

import numpy as np

from training.preprocessing.ink_stats import InkStats


def crop_to_ink(strength: np.ndarray) -> np.ndarray:
    """Return the part of an image (h, w) within the bounding box of its ink."""
    ink = strength > 0.5
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return strength[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def place(strength: np.ndarray, ink: InkStats, size: tuple[int, int]) -> np.ndarray:
    """Return an image in which the ink has the size and the place that it has in training.

    Parameters
    ----------
    strength : ndarray of float32, shape (h, w)
        Ink up to the edges, from 0 to 1.
    ink : InkStats
    size : (H, W)

    Returns
    -------
    ndarray of float32, shape (H, W)
        From 0 to 1. The longer side of the ink has the median length; its center of mass has the
        median place, if all ink is in the image then.
    """
    from PIL import Image

    h, w = strength.shape
    scale = min(ink.side.median / max(h, w), size[0] / h, size[1] / w)  # pixels of it per pixel
    box: list[float] = []
    pads = []
    offsets = ink.row.median, ink.column.median
    for axis, (length, extent, offset) in enumerate(zip((h, w), size, offsets, strict=True)):
        mass = strength.sum(axis=1 - axis)
        center = float(mass @ np.arange(length) / mass.sum()) + 0.5
        view = extent / scale  # length of the whole image, in pixels of the ink
        start = center - view / 2 - offset / scale
        start = min(max(start, length - view), 0.0)  # all ink is in the image
        pad = int(np.ceil(max(-start, start + view - length, 0))) + 1
        pads.append((pad, pad))
        box += [start + pad, start + pad + view]
    top, bottom, left, right = box
    padded = Image.fromarray(np.pad(strength, pads))
    placed = padded.resize(size[::-1], Image.Resampling.BOX, (left, top, right, bottom))
    return np.clip(np.asarray(placed), 0, 1)
