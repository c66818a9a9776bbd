"""Bring the pixels of arrays to the scale of a model's training images.

A file of arrays, such as CSV or .npz, does not say what its pixels mean: 1 may be white, or nearly
black. The pixels of pictures need no such guess: they are from 0 to 255.
"""

import reprlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kernels.scalars import check_number
from training.errors import InputError
from training.input_stats import InputStats, Spread, border_pixels, sample_images

UNSCALED = "none"  # the scale of images that are to be left as they are
# Why a scale is refused for them; after their name.
PICTURES_HAVE_A_SCALE = (
    "has pictures, whose pixels are from 0 to 255: --scale is for files of arrays, such as CSV"
)
# Of a fraction of white, of tanh, of scikit-learn's digits, and of 8 and 16 bits. A narrower scale
# comes before one that it is a part of.
KNOWN_SCALES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 16.0), (0.0, 255.0), (0.0, 65535.0))
MANY_IMAGES = 30  # so many show how large and small the pixels of a file can be

# All of these are shares of the range of the training images.
TOLERANCE = 0.2  # of the statistics of images
MAX_OUTSIDE = 0.25  # pixels on the right scale may be noisy, or resized with overshoot
MAX_FAINT = 0.25  # images of less contrast than this are reported
MAX_FLAT = 0.03  # standardized pixels have a contrast of 2 % of 0 to 255, those of 0 to 16 of 6 %
MAX_DIM = 0.5  # contrast of a whole file of images, where all training images have full contrast
MIN_FULL = 0.9  # what all training images have, then
MAX_SAME_BORDER, MIN_OPPOSITE_BORDER = 0.4, 0.6  # distance to the border of the training images
MIN_PLAIN_BORDER = 0.5  # share of equal pixels in the border of images that may be inverted

# What is taken for granted of the images of a model that knows only their range.
USUAL_MIN, USUAL_MAX, USUAL_MEAN = Spread(0, 0, 0.4), Spread(0.6, 1, 1), Spread(0, 0.5, 1)
MAX_ROUNDING = 0.02  # pixels that are all so close to whole numbers were whole numbers


class PixelScale(NamedTuple):
    """The pixels that stand for the smallest and the largest pixel of the training images."""

    darkest: float
    lightest: float

    @property
    def inverse(self) -> "PixelScale":
        return PixelScale(self.lightest, self.darkest)

    def __str__(self) -> str:
        return f"{self.darkest:.6g},{self.lightest:.6g}"


class _Pixels(NamedTuple):
    """Statistics of a file: its range, and the medians of those of its images.

    Attributes
    ----------
    n : int
        The number of images that were measured: those whose pixels are not all equal.
    low, high : float
        The smallest and the largest pixel.
    image_min, image_max, image_mean, border : float
        Of an image: the smallest and the largest pixel, the mean of all and of the outermost ones.
    """

    n: int
    low: float
    high: float
    image_min: float
    image_max: float
    image_mean: float
    border: float

    @classmethod
    def of(cls, images: np.ndarray) -> "_Pixels":
        sample = sample_images(images)
        pixels = sample.reshape(len(sample), -1)
        smallest, largest = pixels.min(axis=1), pixels.max(axis=1)
        varied = smallest < largest
        if not varied.any():
            varied[:] = True
        return cls(
            int((smallest < largest).sum()),
            float(images.min()),
            float(images.max()),
            float(np.median(smallest[varied])),
            float(np.median(largest[varied])),
            float(np.median(pixels[varied].mean(axis=1, dtype=np.float64))),
            float(border_pixels(sample[varied]).mean(dtype=np.float64)),
        )

    def on(self, scale: PixelScale) -> "_Pixels":
        """Return the statistics after the scale is brought to 0 (darkest) and 1 (lightest)."""
        width = scale.lightest - scale.darkest
        numbers = [(number - scale.darkest) / width for number in self[1:]]
        low, high, image_min, image_max, image_mean, border = numbers
        if width < 0:
            low, high, image_min, image_max = high, low, image_max, image_min
        return _Pixels(self.n, low, high, image_min, image_max, image_mean, border)

    @property
    def has_many(self) -> bool:
        return self.n >= MANY_IMAGES


class _Training(NamedTuple):
    """Statistics of training images, whose range is from 0 to 1."""

    border: float
    has_plain_border: bool
    image_min: Spread
    image_max: Spread
    image_mean: Spread

    @classmethod
    def of(cls, stats: InputStats) -> "_Training":
        def relative(spread: Spread | None, usual: Spread) -> Spread:
            if spread is None:
                return usual
            return Spread(*((number - stats.low) / width for number in spread))

        width = (stats.high - stats.low) or 1.0
        border = stats.background_level
        is_plain = stats.plain_border is None or stats.plain_border >= MIN_PLAIN_BORDER
        return cls(
            border,
            is_plain and abs(border - 0.5) > 0.25,
            relative(stats.image_min, USUAL_MIN),
            relative(stats.image_max, USUAL_MAX),
            relative(stats.image_mean, USUAL_MEAN),
        )

    @property
    def have_full_contrast(self) -> bool:
        """Whether every training image has the smallest and the largest pixel, as digits have."""
        return self.image_min.high <= 1 - MIN_FULL and self.image_max.low >= MIN_FULL

    def has_ends_like(self, pixels: _Pixels) -> bool:
        """Return whether pixels from 0 to 1 have the contrast of the training images."""
        return (
            _is_within(pixels.image_min, self.image_min)
            and _is_within(pixels.image_max, self.image_max)
            and (
                not pixels.has_many
                or (
                    pixels.low - TOLERANCE <= self.image_min.median
                    and pixels.high + TOLERANCE >= self.image_max.median
                )
            )
        )

    def are_inverse_of(self, pixels: _Pixels) -> bool:
        """Return whether these images and the training images have opposite backgrounds."""
        return (
            self.has_plain_border
            and abs(pixels.border - self.border) > MIN_OPPOSITE_BORDER
            and abs(pixels.image_mean - self.border) > MAX_SAME_BORDER
        )

    def is_like(self, pixels: _Pixels) -> bool:
        """Return whether pixels from 0 to 1 are those of images like the training images."""
        has_border = abs(pixels.border - self.border) <= MAX_SAME_BORDER
        return (
            self.has_ends_like(pixels)
            and _is_within(pixels.image_mean, self.image_mean)
            and (has_border or not self.has_plain_border)
        )


def _is_within(number: float, spread: Spread) -> bool:
    return spread.low - TOLERANCE <= number <= spread.high + TOLERANCE


def check_scale(scale: Any) -> tuple[float, float] | str:
    """Return a scale that a user gave; raise InputError for anything else.

    Examples
    --------
    >>> check_scale([1, 0]), check_scale("none")
    ((1.0, 0.0), 'none')
    """
    if isinstance(scale, str) and scale == UNSCALED:
        return scale
    try:
        darkest, lightest = (check_number(number, "scale") for number in scale)
    except (TypeError, ValueError):
        darkest = lightest = 0.0
    if darkest == lightest:
        raise InputError(
            f'scale must be two different numbers, such as (0, 1), or "{UNSCALED}": '
            f"got {reprlib.repr(scale)}"
        )
    return darkest, lightest


def match_scale(
    images: np.ndarray,
    stats: InputStats,
    scale: tuple[float, float] | str | None = None,
    name: str = "images",
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return images on the scale of a model's training images, and what the user should know.

    Parameters
    ----------
    images : (N, C, H, W)
        Of one file. They are returned unchanged, the same array, if they are on the scale already.
    stats : InputStats
        Of the training images.
    scale : (darkest, lightest), "none" or None
        The pixels of the file that stand for the smallest and for the largest pixel of the training
        images; "none": the images are on the right scale. None: it is found, see the notes.
    name : str
        Name of the file, for messages.

    Returns
    -------
    images : ndarray, shape (N, C, H, W)
        If they were scaled, uint8 if the training images have the range of pictures and all pixels
        are whole numbers, up to rounding; else float32.
    notes : tuple of str
        The scale that was found, or a doubt.

    Raises
    ------
    InputError
        The scale of the images is not that of the training images, and cannot be found.

    Notes
    -----
    The statistics that decide are, of each image, the smallest and the largest pixel and the mean,
    in the median over the images that are not constant; and the mean of the outermost pixels, if
    that of the training images is plainly dark or light. They are alike if they are at most 20 % of
    the training range outside what is usual for a training image, and the border at most 40 %. Of
    30 images or more, the range of all pixels counts as well.

    1. Images whose smallest and largest pixels are like those of the training images are left as
       they are, unless both their border and their mean are on the other side, light for dark.
    2. Otherwise, their scale is the first of 0 to 1, -1 to 1, 0 to 16, 0 to 255, 0 to 65535 and
       their inverses on which they are like the training images. But fewer than 30 images within
       the range of the training images may just be dark, if some training images are as well: they
       are scaled only if they have less than 3 % of the contrast, or are inverted. Images are
       inverted only if the border of the training images is plain.
    3. Otherwise, it is the range of the file itself, as for standardized pixels, if they are like
       the training images on it. There must be 30 images, or all training images have the full
       contrast. Within the range of the training images, they must have less than 3 % of the
       contrast, or half of it if all training images have the full one and there are 30 images.
    4. Otherwise, images within the range of the training images, and up to 25 % of it outside, are
       left as they are, but not those of less than 3 % contrast and with pixels below the smallest
       training pixel. Others are refused.

    Examples
    --------
    >>> images = np.linspace(0, 1, 9).reshape(1, 1, 3, 3)
    >>> scaled, notes = match_scale(images, InputStats(0, 255, 20), name="mine.csv")
    >>> scaled[0, 0, 0]
    array([ 0.   , 31.875, 63.75 ], dtype=float32)
    >>> notes[0].split(":")[0]
    'mine.csv'
    """
    if scale == UNSCALED or stats.low == stats.high:
        return images, ()
    if scale is not None:
        return _bring_to_scale(images, PixelScale(*scale), stats), ()
    if stats == InputStats():  # the training images were not measured
        return images, ()
    pixels = _Pixels.of(images)
    training = f"those of the training images from {stats.low:.4g} to {stats.high:.4g}"
    has = f"{name}: its pixels are from {pixels.low:.4g} to {pixels.high:.4g}, {training}"
    try:
        found = _find_scale(pixels, stats)
    except _UnclearError:
        known = (scale for scale in _known_scales(pixels) if scale.darkest <= pixels.low)
        example = next(known, PixelScale(pixels.low, pixels.high))
        raise InputError(
            f"{has}: say which pixels stand for these with --scale, such as --scale {example}, or "
            "leave them as they are with --scale none"
        ) from None
    if found is not None:
        return _bring_to_scale(images, found, stats), (
            f"{has}: they are scaled as by --scale {found}; --scale none leaves them as they are",
        )
    if pixels.n and pixels.image_max - pixels.image_min < MAX_FAINT * (stats.high - stats.low):
        return images, (
            f"{has}: they are used as they are; if they are on another scale, name it with --scale",
        )
    return images, ()


class _UnclearError(Exception):
    """The images are on another scale than the training images, and which one is not clear."""


def _find_scale(pixels: _Pixels, stats: InputStats) -> PixelScale | None:
    """Return the scale of images; None if they are to be left as they are. See `match_scale`."""
    training = _Training.of(stats)
    relative = pixels.on(PixelScale(stats.low, stats.high))
    are_inverse = training.are_inverse_of(relative)
    if training.has_ends_like(relative) and not are_inverse:
        return None
    is_outside = relative.low < -MAX_OUTSIDE or relative.high > 1 + MAX_OUTSIDE
    is_flat = relative.image_max - relative.image_min <= MAX_FLAT
    is_off = is_outside or is_flat
    is_sure = pixels.has_many or training.have_full_contrast
    is_dim = pixels.has_many and relative.high - relative.low <= MAX_DIM
    scales: list[PixelScale] = []
    if is_off or is_sure or are_inverse:
        scales += _known_scales(pixels)
    if is_sure and (is_off or (is_dim and training.have_full_contrast)):
        scales.append(PixelScale(pixels.low, pixels.high))
    for scale in scales if pixels.n else ():
        if training.is_like(pixels.on(scale)):
            return scale
        if training.has_plain_border and training.is_like(pixels.on(scale.inverse)):
            return scale.inverse
    if is_outside or (is_flat and relative.low < 0 and pixels.n):
        raise _UnclearError
    return None


def _known_scales(pixels: _Pixels) -> Iterator[PixelScale]:
    """Yield the known scales that the pixels may be on."""
    for darkest, lightest in KNOWN_SCALES:
        margin = MAX_ROUNDING * (lightest - darkest)
        if darkest - margin <= pixels.low and pixels.high <= lightest + margin:
            yield PixelScale(darkest, lightest)


def _bring_to_scale(images: np.ndarray, scale: PixelScale, stats: InputStats) -> np.ndarray:
    """Return images on the scale of the training images, float32 or uint8; see `match_scale`."""
    factor = (stats.high - stats.low) / (scale.lightest - scale.darkest)
    scaled = np.empty(images.shape, np.float32)
    for start in range(0, len(images), 256):  # in parts: all in float64 would be twice as large
        part = images[start : start + 256].astype(np.float64)
        scaled[start : start + 256] = stats.low + (part - scale.darkest) * factor
    if (stats.low, stats.high) != (0, 255):
        return scaled
    whole = np.rint(scaled)
    if (np.abs(scaled - whole) <= MAX_ROUNDING).all() and whole.min() >= 0 and whole.max() <= 255:
        return whole.astype(np.uint8)
    return scaled
