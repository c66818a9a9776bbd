"""The width of strokes."""

import numpy as np


def stroke_width(strength: np.ndarray) -> float:
    """Return the mean width of the strokes of an image, in pixels.

    It is twice the area of the ink by the length of its outline. The length is the total variation
    of the strength, which counts soft edges as sharp ones (coarea formula).

    Parameters
    ----------
    strength : (H, W)
        How much ink each pixel has, from 0 to 1.

    Returns
    -------
    float
        0 without ink.

    References
    ----------
    Fleming and Rishel, "An integral formula for total gradient variation", 1960.

    Examples
    --------
    >>> line = np.zeros((100, 100))
    >>> line[:, 50:53] = 1
    >>> round(stroke_width(line), 1)
    3.0
    """
    padded = np.pad(strength, 1)
    steps = np.hypot(np.diff(padded, axis=0)[:, :-1], np.diff(padded, axis=1)[:-1])
    outline = float(steps.sum())
    return 2 * float(strength.sum()) / outline if outline else 0.0
