"""Augmentation: each epoch shows randomly changed copies of the images."""

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from kernels import Backend
from kernels.scalars import check_bool
from training.input_stats import check_finite_pixels

# The weights of red, green and blue in the brightness of a color, by ITU-R BT.601.
GRAY = np.array([0.299, 0.587, 0.114], np.float32)


class Augmenter:
    """The base of all augmenters: draws a random affine map for each image of a batch.

    Pixels from outside the image take the value of the nearest border pixel, so that a white page
    stays white. An augmenter that changes images in another way overrides ``__call__``.
    """

    def fitted(self, images: np.ndarray, mean: np.ndarray) -> "Augmenter":
        """Return this augmenter as it suits the images of a training run.

        Parameters
        ----------
        images : (N, C, H, W)
            All training images.
        mean : (C,)
            Their mean, as the model uses it.
        """
        return self

    def matrices(
        self, N: int, image: tuple[int, int], rng: np.random.Generator
    ) -> np.ndarray | None:
        """Draw the maps of N images.

        Parameters
        ----------
        N : int
        image : (H, W)
        rng : numpy.random.Generator

        Returns
        -------
        (N, 2, 3), or None for no change
            Map the pixels (row, column, 1) of the result to those of each image. Rows and columns
            count from the center of the image.
        """
        return None

    def __call__(self, images: np.ndarray, rng: np.random.Generator, backend: Backend) -> Any:
        """Return augmented copies of images (N, C, H, W)."""
        matrices = self.matrices(len(images), images.shape[2:], rng)
        return images if matrices is None else backend.warp_images(images, matrices)

    @property
    def mirrors(self) -> bool:
        """Whether images are mirrored, so that a network learns to read both."""
        return False

    @property
    def shifts(self) -> bool:
        """Whether images are moved, so that a network learns to read them anywhere."""
        return False


class NoAugmenter(Augmenter):
    """Leaves the images unchanged."""


def _renamed(max_shift: float, reach: float | None) -> float:
    """Return the value of max_shift, which may come by its former name."""
    if reach is None:
        return max_shift
    # The level of whoever creates an augmenter.
    warnings.warn("reach is now called max_shift", DeprecationWarning, stacklevel=3)
    return reach


def whole_pixels(share: float, image: Sequence[int]) -> list[int]:
    """Return a share of an image's height and width, rounded down to whole pixels."""
    return [int(share * size + 1e-9) for size in image]


class ShiftAugmenter(Augmenter):
    """Shifts images by whole pixels.

    Parameters
    ----------
    max_shift : float
        The largest shift as a share of the image's height and width, rounded down to whole
        pixels: 2 pixels of 28 and none of 8. Images of 8x8 pixels are not shifted: a shift by one
        pixel lowered the accuracy on scikit-learn's digits by 2 to 11 %.
    reach : float
        The former name of `max_shift`, deprecated.
    """

    def __init__(self, max_shift: float = 1 / 14, *, reach: float | None = None):
        max_shift = _renamed(max_shift, reach)
        if not 0 <= max_shift <= 0.5:
            raise ValueError(f"max_shift must be 0 to 0.5 of the image, got {max_shift!r}")
        self.max_shift = float(max_shift)

    @property
    def shifts(self):
        return self.max_shift > 0

    def matrices(self, N, image, rng):
        matrices = np.zeros((N, 2, 3), np.float32)
        matrices[:, 0, 0] = matrices[:, 1, 1] = 1
        for axis, max_pixels in enumerate(whole_pixels(self.max_shift, image)):
            matrices[:, axis, 2] = rng.integers(-max_pixels, max_pixels, N, endpoint=True)
        return matrices


class AffineAugmenter(ShiftAugmenter):
    """Rotates, scales and shifts images.

    Parameters
    ----------
    degrees : float
        The largest rotation in either direction.
    scaling : float
        Height and width are multiplied by independent factors from 1 - scaling to 1 + scaling.
    max_shift : float
        As in `ShiftAugmenter`.
    reach : float
        The former name of `max_shift`, deprecated.

    References
    ----------
    Simard, Steinkraus, Platt: Best practices for convolutional neural networks applied to visual
    document analysis (2003).
    """

    def __init__(
        self,
        degrees: float = 10.0,
        scaling: float = 0.1,
        max_shift: float = 1 / 14,
        *,
        reach: float | None = None,
    ):
        super().__init__(_renamed(max_shift, reach))
        if not 0 <= degrees <= 180:
            raise ValueError(f"degrees must be 0 to 180, got {degrees!r}")
        if not 0 <= scaling < 1:
            raise ValueError(f"scaling must be at least 0 and below 1, got {scaling!r}")
        self.degrees, self.scaling = float(degrees), float(scaling)

    def matrices(self, N, image, rng):
        drawn = rng.random((5, N), np.float32)  # at once: 8 us for 64 images instead of 20
        angle, height, width = 2 * drawn[:3] - 1
        angle *= np.radians(np.float32(self.degrees))
        cosine, sine = np.cos(angle), np.sin(angle)
        height, width = 1 + self.scaling * height, 1 + self.scaling * width
        matrices = np.empty((N, 2, 3), np.float32)
        matrices[:, 0, 0], matrices[:, 0, 1] = cosine / height, sine / height
        matrices[:, 1, 0], matrices[:, 1, 1] = -sine / width, cosine / width
        for axis, max_pixels in enumerate(whole_pixels(self.max_shift, image)):
            matrices[:, axis, 2] = np.floor(drawn[3 + axis] * (2 * max_pixels + 1)) - max_pixels
        return matrices


class FlipAugmenter(Augmenter):
    """Mirrors each image with a probability of one half: left becomes right."""

    mirrors = True

    def matrices(self, N, image, rng):
        matrices = np.zeros((N, 2, 3), np.float32)
        matrices[:, 0, 0] = 1
        matrices[:, 1, 1] = np.where(rng.random(N, np.float32) < 0.5, -1, 1)
        return matrices


class _ColorRange(NamedTuple):
    """The range and the mean color of the training images."""

    low: float
    high: float
    mean: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, mean: np.ndarray) -> "_ColorRange":
        check_finite_pixels(images, "x", mean.dtype)
        return cls(float(images.min()), float(images.max()), mean)

    def matrices(
        self, brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray
    ) -> np.ndarray:
        """Return the maps of colors (N, C, C + 1) for `augment_images`.

        Parameters
        ----------
        brightness, contrast, saturation : (N,)
            A share of the range to add, and two factors.
        """
        N, C = len(brightness), len(self.mean)
        matrices = np.empty((N, C, C + 1), np.float32)
        linear = np.eye(C, dtype=np.float32)
        if C == 3:  # saturation * pixel + (1 - saturation) * gray
            linear = GRAY + saturation[:, None, None] * (linear - GRAY)
        matrices[:, :, :C] = contrast[:, None, None] * linear
        matrices[:, :, C] = (1 - contrast)[:, None] * self.mean
        matrices[:, :, C] += brightness[:, None] * np.float32(self.high - self.low)
        return matrices


def _check_share(share: float, name: str, largest: float) -> float:
    if not 0 <= share <= largest:
        raise ValueError(f"{name} must be 0 to {largest:g}, got {share!r}")
    return float(share)


class PhotoAugmenter(Augmenter):
    """Changes photos: mirrors, shifts and recolors them, and covers a box.

    This is for networks that learn the training images by heart. The `small` network does not, in
    15 epochs on CIFAR-10: validation accuracy is 70.3 % with shifts, 71.4 % with shifts and flips,
    70.5 % with changes of color as well, and 69.5 % with the box, too (one seed).

    Parameters
    ----------
    flip : bool
        Whether each image is mirrored with a probability of one half.
    max_shift : float
        As in `ShiftAugmenter`. Pixels from outside the image are those of its reflection.
    cutout : float
        Height and width of the covered box as a share of the image's, rounded down to whole
        pixels. Its center is anywhere in the image. It is filled with the mean of the training
        images, which the model normalizes to 0.
    brightness : float
        The largest change of all pixels, as a share of the range of the training images.
    contrast : float
        Differences to the mean color are multiplied by 1 - contrast to 1 + contrast.
    saturation : float
        Differences of red, green and blue to the gray of the same pixel are multiplied by
        1 - saturation to 1 + saturation. Images that do not have three channels keep them.

    Notes
    -----
    Pixels stay in the range of the training images. `Model.train` and `find_learning_rate` call
    `fitted` with them; without that, range and mean are those of the images of each call.

    References
    ----------
    See `augment_images` in `kernels.interface`.
    """

    def __init__(
        self,
        flip: bool = True,
        max_shift: float = 1 / 14,
        cutout: float = 1 / 4,
        brightness: float = 0.1,
        contrast: float = 0.2,
        saturation: float = 0.2,
    ):
        self.flip = check_bool(flip, "flip")
        self.max_shift = _check_share(max_shift, "max_shift", 0.5)
        self.cutout = _check_share(cutout, "cutout", 1)
        self.brightness = _check_share(brightness, "brightness", 1)
        self.contrast = _check_share(contrast, "contrast", 1)
        self.saturation = _check_share(saturation, "saturation", 1)
        self._range: _ColorRange | None = None

    @property
    def mirrors(self):
        return self.flip

    @property
    def shifts(self):
        return self.max_shift > 0

    def fitted(self, images, mean):
        augmenter = copy.copy(self)
        augmenter._range = _ColorRange.of(images, mean)
        return augmenter

    def __call__(self, images, rng, backend):
        if len(images) == 0:
            return images
        N, _, *image = images.shape
        colors = self._range or _ColorRange.of(images, images.mean(axis=(0, 2, 3)))
        drawn = rng.random((8, N), np.float32)  # at once, as in AffineAugmenter
        mirrored = (drawn[0] < 0.5) & self.flip
        max_shifts = np.array(whole_pixels(self.max_shift, image))
        shifts = np.floor(drawn[1:3].T * (2 * max_shifts + 1)).astype(np.int64) - max_shifts
        box = np.array(whole_pixels(self.cutout, image))
        corners = np.floor(drawn[3:5].T * np.array(image)).astype(np.int64) - box // 2
        boxes = np.concatenate([corners, corners + box], axis=1)
        brightness, contrast, saturation = 2 * drawn[5:] - 1
        matrices = colors.matrices(
            self.brightness * brightness,
            1 + self.contrast * contrast,
            1 + self.saturation * saturation,
        )
        return backend.augment_images(
            images, mirrored, shifts, matrices, boxes, colors.mean, colors.low, colors.high
        )


class ComposedAugmenter(Augmenter):
    """Applies several augmenters, one after the other.

    Parameters
    ----------
    augmenters : sequence of Augmenter
    """

    def __init__(self, augmenters: Sequence[Augmenter]):
        self.augmenters = list(augmenters)

    @property
    def mirrors(self):
        return any(augmenter.mirrors for augmenter in self.augmenters)

    @property
    def shifts(self):
        return any(augmenter.shifts for augmenter in self.augmenters)

    def fitted(self, images, mean):
        return ComposedAugmenter([each.fitted(images, mean) for each in self.augmenters])

    def __call__(self, images, rng, backend):
        for augmenter in self.augmenters:
            images = augmenter(images, rng, backend)
        return images


AUGMENTERS: dict[str, Callable[[], Augmenter]] = {
    "none": NoAugmenter,
    "shift": ShiftAugmenter,
    "affine": AffineAugmenter,
    "flip": FlipAugmenter,
    "photo": PhotoAugmenter,
    "photo_no_flip": partial(PhotoAugmenter, flip=False),
}


def make_augmenter(names: str) -> Augmenter:
    """Return an augmenter by its name, or several that are applied in order.

    Parameters
    ----------
    names : str
        Keys of `AUGMENTERS`, separated by commas: each at most once, and ``none`` alone.

    Raises
    ------
    ValueError
        A name is unknown, occurs twice, or stands beside ``none``.

    Examples
    --------
    >>> make_augmenter("shift,flip").augmenters  # doctest: +ELLIPSIS
    [<training.augmentation.ShiftAugmenter ...>, <training.augmentation.FlipAugmenter ...>]
    """
    parts = names.split(",")
    for name in parts:
        if name not in AUGMENTERS:
            known = ", ".join(AUGMENTERS)
            raise ValueError(
                f"must be one or more of {known}, separated by commas, got {names[:40]!r}"
            )
    if len(set(parts)) < len(parts):
        raise ValueError(f"must name each augmentation once, got {names!r}")
    if len(parts) > 1 and "none" in parts:
        raise ValueError(f"must be none alone, or without none, got {names!r}")
    augmenters = [AUGMENTERS[name]() for name in parts]
    return augmenters[0] if len(augmenters) == 1 else ComposedAugmenter(augmenters)
