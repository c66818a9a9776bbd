"""Bring strokes to the width that they have in the training images."""

import numpy as np

EDGE_STRENGTH = 0.35  # of full ink: where a stroke ends
MAX_GROWTH = 1.5  # training pixels that are added at each side of a stroke at most


def stroke_width(strength: np.ndarray) -> np.ndarray:
    """Return the mean width of the strokes of each image, in pixels.

    It is twice the area of the ink by the length of its outline. The length is the total variation
    of the strength, which counts soft edges as sharp ones (coarea formula).

    Parameters
    ----------
    strength : (..., H, W)
        How much ink each pixel has, from 0 to 1.

    Returns
    -------
    ndarray, shape (...)
        0 without ink.

    References
    ----------
    Fleming and Rishel, "An integral formula for total gradient variation", 1960.

    Examples
    --------
    >>> line = np.zeros((100, 100))
    >>> line[:, 50:53] = 1
    >>> print(stroke_width(line).round(1))  # its ends are a part of the outline
    2.9
    """
    padded = np.pad(strength, [(0, 0)] * (strength.ndim - 2) + [(1, 1), (1, 1)])
    down, across = np.diff(padded, axis=-2)[..., :-1], np.diff(padded, axis=-1)[..., :-1, :]
    outline = np.sqrt(down**2 + across**2).sum(axis=(-2, -1))
    return 2 * strength.sum(axis=(-2, -1)) / np.maximum(outline, 1e-6)


def fill_strokes(strength: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return strengths so that most of the ink has the strength 1, float32."""
    full = np.percentile(strength[mask], 60)
    return np.clip(strength / np.float32(max(full, 1e-6)), 0, 1)


def resize_strokes(strength: np.ndarray, side: int) -> np.ndarray:
    """Return strokes enlarged or reduced, smoothly, so that their longer side has `side` pixels."""
    from PIL import Image

    scale = side / max(strength.shape)
    h, w = (max(1, round(n * scale)) for n in strength.shape)
    resized = Image.fromarray(strength).resize((w, h), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def thicken(strength: np.ndarray, growth: float) -> np.ndarray:
    """Return strokes with `growth` pixels more at each side, in an image that has them as well.

    Parameters
    ----------
    strength : ndarray of float32, shape (h, w)
    growth : float
        At least 0.

    Returns
    -------
    ndarray of float32, shape (h + 2 * pad, w + 2 * pad)
        Where pad is 2 or more.
    """
    from scipy import ndimage  # what is trained needs no SciPy

    pad = int(np.ceil(growth)) + 2
    padded = np.pad(strength, pad)
    if growth < 1:
        return np.clip(padded * 1.5, 0, 1)
    distance = ndimage.distance_transform_edt(padded <= EDGE_STRENGTH)
    return np.clip(growth + 1 - distance, 0, 1).astype(np.float32)
