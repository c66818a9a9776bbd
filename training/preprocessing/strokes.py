"""The width of strokes."""

import numpy as np


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
