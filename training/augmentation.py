"""More training images out of those that there are: each is moved a little, anew every epoch."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from kernels import Backend


class Augmenter(ABC):
    """Draws how each image of a batch is moved.

    What moves in over the border is the border's own pixel, so that a white page stays white.
    """

    @abstractmethod
    def matrices(
        self, N: int, image: tuple[int, int], rng: np.random.Generator
    ) -> np.ndarray | None:
        """Return (N, 2, 3) from pixels (row, column, 1) of the result to those of each image.

        Rows and columns count from the middle of the image. None leaves all as they are.
        """

    def __call__(self, images: np.ndarray, rng: np.random.Generator, backend: Backend) -> Any:
        """Return moved copies of images (N, C, H, W)."""
        matrices = self.matrices(len(images), images.shape[2:], rng)
        return images if matrices is None else backend.warp_images(images, matrices)


class NoAugmenter(Augmenter):
    """Leaves the images as they are."""

    def matrices(self, N, image, rng):
        return None


class ShiftAugmenter(Augmenter):
    """Shifts by whole pixels.

    Parameters
    ----------
    reach : float
        The farthest shift, as a share of the image's height and width, in whole pixels: 2 of 28
        and none of 8, where one would be an eighth (and cost 2 to 11 % of the accuracy on the 8x8
        digits of scikit-learn).
    """

    def __init__(self, reach: float = 1 / 14):
        if not 0 <= reach <= 0.5:
            raise ValueError(f"reach must be 0 to 0.5 of the image, got {reach!r}")
        self.reach = float(reach)

    def _shifts(self, N, image, rng):
        rows, columns = (int(self.reach * size + 1e-9) for size in image)
        return rng.integers(-rows, rows, N, endpoint=True), rng.integers(
            -columns, columns, N, endpoint=True
        )

    def matrices(self, N, image, rng):
        matrices = np.zeros((N, 2, 3), np.float32)
        matrices[:, 0, 0] = matrices[:, 1, 1] = 1
        matrices[:, 0, 2], matrices[:, 1, 2] = self._shifts(N, image, rng)
        return matrices


class AffineAugmenter(ShiftAugmenter):
    """Rotates, scales and shifts.

    Parameters
    ----------
    degrees : float
        The farthest rotation, either way.
    scaling : float
        Height and width are each multiplied by 1 - scaling to 1 + scaling.
    reach : float
        As in `ShiftAugmenter`.

    References
    ----------
    Simard, Steinkraus, Platt: Best practices for convolutional neural networks applied to visual
    document analysis (2003).
    """

    def __init__(self, degrees: float = 10.0, scaling: float = 0.1, reach: float = 1 / 14):
        super().__init__(reach)
        if not 0 <= degrees <= 180:
            raise ValueError(f"degrees must be 0 to 180, got {degrees!r}")
        if not 0 <= scaling < 1:
            raise ValueError(f"scaling must be at least 0 and below 1, got {scaling!r}")
        self.degrees, self.scaling = float(degrees), float(scaling)

    def matrices(self, N, image, rng):
        angle = np.radians(rng.uniform(-self.degrees, self.degrees, N))
        height, width = 1 + rng.uniform(-self.scaling, self.scaling, (2, N))
        matrices = np.empty((N, 2, 3), np.float32)
        matrices[:, 0, 0], matrices[:, 0, 1] = np.cos(angle) / height, np.sin(angle) / height
        matrices[:, 1, 0], matrices[:, 1, 1] = -np.sin(angle) / width, np.cos(angle) / width
        matrices[:, 0, 2], matrices[:, 1, 2] = self._shifts(N, image, rng)
        return matrices


AUGMENTERS: dict[str, type[Augmenter]] = {
    "none": NoAugmenter,
    "shift": ShiftAugmenter,
    "affine": AffineAugmenter,
}
