"""Statistics of the training images' pixels, to which images for prediction are matched."""

from typing import NamedTuple

import numpy as np

from training.errors import InputError

MAX_SAMPLED = 2000  # images of which each is measured
BORDER_TOLERANCE = 0.02  # of the range, from the median of the outermost pixels


def border_pixels(images: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of images (..., H, W) as (..., n)."""
    rows = images[..., [0, -1], :]
    columns = images[..., 1:-1, [0, -1]]
    return np.concatenate([part.reshape(*images.shape[:-2], -1) for part in (rows, columns)], -1)


def sample_images(images: np.ndarray) -> np.ndarray:
    """Return at most 2,000 images, evenly spaced over all of them, which may be sorted by class."""
    return images[:: -(-len(images) // MAX_SAMPLED)]


def pixel_moments(images: np.ndarray) -> tuple[float, float]:
    """Return the mean and the standard deviation of all pixels."""
    total = squares = 0.0
    origin = images[0].mean(dtype=np.float64)  # of large numbers, the squares would be infinite
    # Whole numbers up to 255 are as good in float32, and it takes half the time.
    dtype = np.float32 if images.dtype == np.uint8 else np.float64
    for start in range(0, len(images), 256):  # in parts, which stay in the caches
        part = images[start : start + 256].astype(dtype).reshape(-1) - dtype(origin)
        total += float(part.sum())
        squares += float(part @ part)
    mean = total / images.size
    deviation = np.sqrt(max(squares / images.size - mean * mean, 0))
    return float(dtype(origin)) + mean, float(deviation)


def check_finite_pixels(images: np.ndarray, name: str, dtype: np.dtype) -> None:
    """Raise InputError for the first pixel that is not finite in a dtype.

    Parameters
    ----------
    images : (N, C, H, W)
    name : str
        The name of the array in the message.
    dtype : float dtype
        The dtype in which the pixels are used; 1e300 is infinite in float32.
    """
    if images.dtype.kind != "f":
        return
    for start in range(0, len(images), 1024):  # in parts, to need little memory
        part = images[start : start + 1024]
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(part.astype(dtype, copy=False))
        if bad.any():
            n, c, row, column = map(int, np.unravel_index(bad.argmax(), bad.shape))
            raise InputError(
                f"{name}[{start + n}, {c}, {row}, {column}] is {part[n, c, row, column]}: "
                f"pixels must be finite numbers in {dtype}"
            )


class Spread(NamedTuple):
    """How a number varies over images: its 1st, 50th and 99th percentile."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Spread":
        """Return the spread of values (N,), at least one."""
        return cls(*map(float, np.percentile(values.astype(np.float64), (1, 50, 99))))


class InputStats(NamedTuple):
    """Statistics of the pixels of training images.

    Attributes
    ----------
    low, high : float
        The smallest and the largest pixel that there may be.
    border : float
        The mean of the outermost pixels.
    mean, deviation : float or None
        Of all pixels. None, as the attributes below, if they were not measured: for models of
        earlier versions, and without `Model.fit_normalization`.
    plain_border : float or None
        The share of the outermost pixels that are equal to their median, up to 2 % of the range.
    image_min, image_max, image_mean : Spread or None
        The smallest pixel, the largest pixel and the mean of each image.
    """

    low: float = 0.0
    high: float = 255.0
    border: float = 127.5
    mean: float | None = None
    deviation: float | None = None
    plain_border: float | None = None
    image_min: Spread | None = None
    image_max: Spread | None = None
    image_mean: Spread | None = None

    @classmethod
    def of(cls, images: np.ndarray) -> "InputStats":
        """Return the statistics of images (N, C, H, W).

        If all pixels are from 0 to 255, and one is in the upper half, the smallest and the largest
        pixel are 0 and 255, whether there are such pixels or not: that is the range of pictures.
        """
        border = border_pixels(images).mean(dtype=np.float64)
        low, high = float(images.min()), float(images.max())
        if low >= 0 and 127 < high <= 255:
            low, high = 0.0, 255.0
        sample = sample_images(images)
        pixels = sample.reshape(len(sample), -1)
        return cls(
            low,
            high,
            float(border),
            *pixel_moments(images),
            _plain_share(border_pixels(sample), BORDER_TOLERANCE * (high - low)),
            Spread.of(pixels.min(axis=1)),
            Spread.of(pixels.max(axis=1)),
            Spread.of(pixels.mean(axis=1, dtype=np.float64)),
        )

    @property
    def background_level(self) -> float:
        """The brightness of the border, from 0 (the smallest pixel) to 1 (the largest)."""
        return (self.border - self.low) / ((self.high - self.low) or 1.0)


def _plain_share(pixels: np.ndarray, tolerance: float) -> float:
    """Return the share of pixels that are equal to their median, up to a tolerance."""
    pixels = pixels.astype(np.float64)
    return float((np.abs(pixels - np.median(pixels)) <= tolerance).mean())
