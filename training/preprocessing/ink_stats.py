"""The handwriting in training images: how dark, large, centered and thick it is."""

from typing import NamedTuple

import numpy as np

from training.input_stats import Spread, border_pixels, sample_images
from training.preprocessing.strokes import stroke_width

MIN_STRENGTH = 0.1  # of the pixels in the bounding box of the ink
MIN_SOLID = 0.2  # strength of a pixel that counts as full ink in the width of strokes
MAX_PLAIN = 0.05  # strength of a pixel of the ground
MIN_PLAIN_BORDER = 0.5  # share of an image's outermost pixels that are ground
MIN_PLAIN = 0.3  # share of an image's pixels that are ground
MIN_CONTRAST = 0.5  # strength of the strongest pixel
# Of a stroke to the longer side of the ink: in 99 % of MNIST's images at most 0.22, and 0.3 in
# scikit-learn's of 8x8 pixels; in half of the images of clothes it is more.
MAX_WIDTH_RATIO = 0.3
MAX_EXCEPTIONS = 0.05  # share of the images that may be otherwise, such as blank ones


class InkStats(NamedTuple):
    """What ink on a plain ground looks like in the training images.

    The strength of the ink in a pixel is from 0, the ground, to 1, full ink.

    Attributes
    ----------
    background, ink : float
        The pixel values of the ground and of full ink.
    side : Spread
        The longer side of the ink's bounding box, in pixels. Pixels of a strength of 0.1 or more
        are in the box.
    row, column : Spread
        The ink's center of mass less the center of the image, (H - 1) / 2 and (W - 1) / 2.
    stroke_width : Spread
        See `training.preprocessing.strokes.stroke_width`, in pixels.
    contrast : Spread
        The strength of the strongest pixel of an image.
    plain : Spread
        The share of an image's pixels that are ground, of a strength up to 0.05.
    """

    background: float
    ink: float
    side: Spread
    row: Spread
    column: Spread
    stroke_width: Spread
    contrast: Spread
    plain: Spread

    def to_strength(self, images: np.ndarray) -> np.ndarray:
        """Return the strength of the ink in each pixel of images on the training scale, float32."""
        scale = np.float32(1 / (self.ink - self.background))
        strength = (images - np.float32(self.background)) * scale
        return np.clip(strength, 0, 1, out=strength)


class _Measures(NamedTuple):
    """Measures of each of N images, as `InkStats` describes them; of images without ink, NaN."""

    side: np.ndarray
    row: np.ndarray
    column: np.ndarray
    stroke_width: np.ndarray
    contrast: np.ndarray
    plain: np.ndarray


def measure_ink(images: np.ndarray) -> InkStats | None:
    """Return what the ink in training images looks like; None if they are not ink on a ground.

    Parameters
    ----------
    images : (N, C, H, W)

    Returns
    -------
    InkStats or None
        Measured on at most 2,000 of the images, evenly spaced. They are ink on a plain ground if
        they have one channel, the median of their outermost pixels is at the dark or at the light
        end of the pixels, and in 95 % of the images

        - half of the outermost pixels, and 30 % of all, are ground;
        - the strongest pixel has a strength of 0.5 or more;
        - the strokes, all pixels of a strength of 0.2 or more, are at most 0.3 times as wide as the
          longer side of the ink.
    """
    if images.shape[1] != 1:
        return None
    sample = sample_images(images)[:, 0].astype(np.result_type(images.dtype, np.float32))
    background = float(np.median(border_pixels(sample)))
    low, high = float(sample.min()), float(sample.max())
    middle = (low + high) / 2
    strongest = sample.max(axis=(1, 2)) if background < middle else sample.min(axis=(1, 2))
    ink = float(np.median(strongest))
    end = low if background < middle else high
    contrast = abs(ink - background)
    if abs(background - end) > MAX_PLAIN * (high - low) or contrast < MIN_CONTRAST * (high - low):
        return None
    if contrast == 0:  # the images are constant
        return None
    scale = np.float32(1 / (ink - background))
    strength = np.clip((sample - np.float32(background)) * scale, 0, 1)
    measures = _measure(strength)
    is_ink = (
        ((border_pixels(strength) <= MAX_PLAIN).mean(axis=-1) >= MIN_PLAIN_BORDER)
        & (measures.plain >= MIN_PLAIN)
        & (measures.contrast >= MIN_CONTRAST)
        & (_solid_width(strength) <= MAX_WIDTH_RATIO * measures.side)
    )
    if is_ink.mean() < 1 - MAX_EXCEPTIONS:
        return None
    return InkStats(background, ink, *(Spread.of(values[is_ink]) for values in measures))


def _measure(strength: np.ndarray) -> _Measures:
    """Measure images (N, H, W) of strengths from 0 to 1."""
    H, W = strength.shape[1:]
    mask = strength >= MIN_STRENGTH
    heights, widths = (_extent(np.any(mask, axis=axis)) for axis in (2, 1))
    by_row, by_column = strength.sum(axis=2), strength.sum(axis=1)
    with np.errstate(invalid="ignore"):  # of images without ink
        total = by_row.sum(axis=1)
        row = by_row @ np.arange(H) / total - (H - 1) / 2
        column = by_column @ np.arange(W) / total - (W - 1) / 2
    return _Measures(
        np.maximum(heights, widths),
        row,
        column,
        stroke_width(strength),
        strength.max(axis=(1, 2)),
        (strength <= MAX_PLAIN).mean(axis=(1, 2)),
    )


def _solid_width(strength: np.ndarray) -> np.ndarray:
    """Return the width of strokes (N,) as if all ink were full: clothes and photographs are not."""
    return stroke_width((strength >= MIN_SOLID).astype(np.float32))


def _extent(mask: np.ndarray) -> np.ndarray:
    """Return the distance from the first to the last True in each row of (N, n), both included."""
    n = mask.shape[1]
    return np.where(mask.any(axis=1), n - mask.argmax(axis=1) - mask[:, ::-1].argmax(axis=1), 0)


def looks_like(image: np.ndarray, ink: InkStats) -> bool:
    """Return whether an image has ink as the training images have it.

    Its measures must be those of the training images, with a margin to what 98 % of these have:

    - the strongest pixel: 0.1 less;
    - the longer side of the ink: 10 % less or 5 % more;
    - the center of mass, by row and by column: 0.25 pixels and a quarter of its range to each side;
    - the width of the strokes: 1.4 times less or twice as much;
    - the share of the pixels with ink: half or twice as much.

    Parameters
    ----------
    image : (H, W)
        On the scale of the training images.
    ink : InkStats
        Of the training images.

    Notes
    -----
    It is true of all 70,000 images of MNIST with the statistics of any 100 training images that
    were tried. It is true of half of the test images that were moved by one pixel, and of none that
    were moved by two, or enlarged or reduced by a fifth.
    """
    measures = _measure(ink.to_strength(image[np.newaxis]))
    side, row, column, width, contrast, plain = (float(values[0]) for values in measures)
    return (
        contrast >= ink.contrast.low - 0.1
        and 0.9 * ink.side.low <= side <= 1.05 * ink.side.high
        and _is_near(row, ink.row)
        and _is_near(column, ink.column)
        and ink.stroke_width.low / 1.4 <= width <= 2 * ink.stroke_width.high
        and (1 - ink.plain.high) / 2 <= 1 - plain <= 2 * (1 - ink.plain.low)
    )


def _is_near(offset: float, spread: Spread) -> bool:
    margin = 0.25 + (spread.high - spread.low) / 4
    return spread.low - margin <= offset <= spread.high + margin
