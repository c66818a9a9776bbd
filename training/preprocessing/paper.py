"""Find how strongly each pixel of a picture differs from the paper under it."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

MIN_CONTRAST = 0.04  # of the range from black to white: fainter marks are not ink
N_NOISE = 3  # marks fainter than this multiple of the paper's noise are not ink
GRID = 9  # rows and columns of the points at which the paper's brightness is taken
MAX_SAMPLES = 40  # pixels along the longer side of the copy from which it is taken
WINDOW = 0.6  # side of the window of the median, of the picture's longer side


class InkMap(NamedTuple):
    """The ink in a picture.

    Attributes
    ----------
    strength : ndarray of float32, shape (h, w)
        By how much each pixel differs from the paper, at least 0.
    threshold : float
        Strengths above it are ink.
    """

    strength: np.ndarray
    threshold: float


def map_ink(gray: np.ndarray) -> InkMap:
    """Subtract the paper from a picture, and choose the threshold between paper and ink.

    Parameters
    ----------
    gray : ndarray of float32, shape (h, w)
        Brightness from 0 to 1.
    """
    difference = gray - paper_brightness(gray)
    noise = noise_level(difference)
    smooth = ndimage.gaussian_filter(difference, 0.7, truncate=2)
    strength = np.maximum(smooth if is_lighter(smooth) else -smooth, 0)
    return InkMap(strength, max(otsu_threshold(strength), N_NOISE * noise, MIN_CONTRAST))


def paper_brightness(gray: np.ndarray) -> np.ndarray:
    """Return the brightness of the paper under each pixel, shape (h, w).

    It is the median of the pixels in a wide window, which holds more paper than ink. The medians
    are taken on a coarse grid, from a sample of the pixels, and interpolated.
    """
    step = max(1, -(-max(gray.shape) // MAX_SAMPLES))
    sample = gray[step // 2 :: step, step // 2 :: step]
    half = max(1, round(max(sample.shape) * WINDOW / 2))
    rows, columns = (np.linspace(0, n - 1, GRID) for n in sample.shape)
    medians = np.empty((GRID, GRID), np.float32)
    for i, row in enumerate(rows):
        band = sample[max(0, round(row) - half) : round(row) + half + 1]
        for j, column in enumerate(columns):
            medians[i, j] = np.median(
                band[:, max(0, round(column) - half) : round(column) + half + 1]
            )
    medians = ndimage.gaussian_filter(medians, 0.8, mode="nearest")
    return resize(medians, gray.shape)


def resize(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a float32 array interpolated linearly to a shape, with antialiasing."""
    from PIL import Image

    h, w = shape
    return np.asarray(Image.fromarray(array).resize((w, h), Image.Resampling.BILINEAR))


def noise_level(difference: np.ndarray) -> float:
    """Return the standard deviation of the paper's noise, from the median absolute deviation."""
    sample = difference[::2, ::2]
    return 1.4826 * float(np.median(np.abs(sample - np.median(sample))))


def is_lighter(difference: np.ndarray) -> bool:
    """Return whether the ink is lighter than the paper: whether that tail is the stronger one."""
    low, high = np.percentile(difference[::2, ::2], [1, 99])
    return bool(difference.max() + high > -difference.min() - low)


def otsu_threshold(values: np.ndarray, n_bins: int = 128) -> float:
    """Return the threshold that separates two classes of values best, by Otsu's method.

    N. Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979: the variance between
    the two classes is largest.

    Examples
    --------
    >>> otsu_threshold(np.float32([0, 0, 0.1, 0.9, 1]))
    0.1
    """
    low, high = float(values.min()), float(values.max())
    scale = n_bins / max(high - low, 1e-9)
    bins = np.minimum(((values - low) * scale).astype(np.int32), n_bins - 1)
    counts = np.bincount(bins.ravel(), minlength=n_bins).astype(float)
    below = np.cumsum(counts)[:-1]
    above = below[-1] + counts[-1] - below
    moments = np.cumsum(counts * np.arange(n_bins))
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = moments[:-1] / below - (moments[-1] - moments[:-1]) / above
        between = np.nan_to_num(below * above * gap**2)
    return low + (int(between.argmax()) + 1) / scale
