"""Statistics of the training images' pixels, to which images for prediction are matched."""

from typing import NamedTuple

import numpy as np

from training.errors import InputError


def border_pixels(images: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of images (..., H, W) as (..., n)."""
    rows = images[..., [0, -1], :]
    columns = images[..., 1:-1, [0, -1]]
    return np.concatenate([part.reshape(*images.shape[:-2], -1) for part in (rows, columns)], -1)


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
        return cls(*map(float, np.percentile(values, (1, 50, 99))))


class InputStats(NamedTuple):
    """The smallest and the largest pixel that there may be, and the mean of the outermost ones."""

    low: float = 0.0
    high: float = 255.0
    border: float = 127.5

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
        return cls(low, high, float(border))

    @property
    def background_level(self) -> float:
        """The brightness of the border, from 0 (the smallest pixel) to 1 (the largest)."""
        return (self.border - self.low) / ((self.high - self.low) or 1.0)
