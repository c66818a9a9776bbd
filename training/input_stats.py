"""What the pixels of the training images are like, so that pictures can be made alike."""

from typing import NamedTuple

import numpy as np


def border_pixels(images: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of images (..., H, W) as (..., n)."""
    rows = images[..., [0, -1], :]
    columns = images[..., 1:-1, [0, -1]]
    return np.concatenate([part.reshape(*images.shape[:-2], -1) for part in (rows, columns)], -1)


class InputStats(NamedTuple):
    """The smallest and the largest pixel, and the mean of the outermost ones."""

    low: float = 0.0
    high: float = 255.0
    border: float = 127.5

    @classmethod
    def of(cls, images: np.ndarray) -> "InputStats":
        """Measure images (N, C, H, W)."""
        border = border_pixels(images).mean(dtype=np.float64)
        return cls(float(images.min()), float(images.max()), float(border))

    @property
    def ground(self) -> float:
        """How light the border is, from 0 (as the smallest pixel) to 1 (as the largest)."""
        return (self.border - self.low) / ((self.high - self.low) or 1.0)
