"""Read a character that was written by hand, from a picture of any paper."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from training.preprocessing.components import (
    LIKE_SIZE,
    MAX_EDGE_CONTACT,
    Shape,
    choose_main,
    drop_cut_off,
    group_shapes,
    label_components,
    remove_frames,
)
from training.preprocessing.ink_stats import InkStats
from training.preprocessing.lines import remove_boxes, remove_lines
from training.preprocessing.paper import map_ink
from training.preprocessing.placement import crop_to_ink, place
from training.preprocessing.sheet import crop_to_sheet
from training.preprocessing.strokes import (
    MAX_GROWTH,
    fill_strokes,
    resize_strokes,
    stroke_width,
    thicken,
)

MIN_PICTURE_SIDE = 128  # smaller pictures are enlarged
# Share of a picture that the ink of a character covers at most. Of crops around thick digits, with
# margins up to 5 %, the median is 0.43 and the largest 0.66.
MAX_COVER = 0.6
# A shape is the edge of a shadow where its strength changes by a smaller share of its own than this
# from a pixel to the next, at its outline. Pale shapes have another limit. Of 86 shapes on blank
# paper with shadows, this is true of 79; of 4,600 pictures of digits, of 4 that are mostly read
# wrong, of 1 in pencil, and of 27 in highlighter, of which most are read wrong.
PALE, SOFT_IF_PALE, SOFT = 0.25, 0.2, 0.08
# Strokes are measured and thickened with so many pixels for one of training; 8 read no more.
FINE = 4


class InkReading(NamedTuple):
    """What a picture of ink on paper shows.

    Attributes
    ----------
    image : ndarray of float32, shape (H, W), or None
        The character in the form of the training images; None if the picture is blank.
    n_shapes : int
        The number of separate shapes that may be characters; the main one was read.
    fills_picture : bool
        Whether the ink covers much of the picture or touches much of its edge, as if it were no
        character on paper.
    """

    image: np.ndarray | None
    n_shapes: int
    fills_picture: bool


class Ink(NamedTuple):
    """The characters that were found in a picture, from left to right.

    Attributes
    ----------
    strength : ndarray of float32, shape (h, w)
        Of the ink in the picture, which may have been enlarged.
    labels : ndarray of int32, shape (h, w)
        The connected components.
    shapes : list of Shape
        The characters.
    """

    strength: np.ndarray
    labels: np.ndarray
    shapes: list[Shape]

    def is_shade(self, shape: Shape) -> bool:
        """Return whether a shape is the edge of a shadow: its outline is soft."""
        rows = slice(max(shape.top - 1, 0), shape.bottom + 1)
        columns = slice(max(shape.left - 1, 0), shape.right + 1)
        strength = self.strength[rows, columns]
        mask = np.isin(self.labels[rows, columns], shape.labels)
        outline = mask & ~ndimage.binary_erosion(mask, border_value=1)
        if min(strength.shape) < 2 or not outline.any():
            return False
        typical = np.percentile(strength[mask], 60)
        softest = SOFT_IF_PALE if typical < PALE else SOFT
        change = np.hypot(*np.gradient(strength))[outline]
        return bool(np.median(change) < softest * typical)

    def crop(self, shape: Shape) -> np.ndarray:
        """Return the strength of the ink of one character, without that of others near it."""
        box = slice(shape.top, shape.bottom), slice(shape.left, shape.right)
        mask = np.isin(self.labels[box], shape.labels)
        return fill_strokes(np.where(ndimage.binary_dilation(mask), self.strength[box], 0), mask)


def read_ink(gray: np.ndarray, ink: InkStats, size: tuple[int, int]) -> InkReading:
    """Bring a picture of one character on paper to the form of the training images.

    Parameters
    ----------
    gray : ndarray of float32, shape (h, w)
        Brightness from 0 to 1.
    ink : InkStats
        What the ink in the training images looks like.
    size : (H, W)
        Of the training images.

    Returns
    -------
    InkReading
    """
    found = find_shapes(gray)
    if not found.shapes:
        return InkReading(None, 0, False)
    h, w = found.labels.shape
    main = choose_main(found.shapes, (h, w))
    n_shapes = sum(
        shape is main or (shape.side >= LIKE_SIZE * main.side and not shape.edge)
        for shape in found.shapes
    )
    fills_picture = main.area > MAX_COVER * h * w or main.edge > MAX_EDGE_CONTACT
    return InkReading(draw_shape(found.crop(main), ink, size), n_shapes, fills_picture)


def find_shapes(gray: np.ndarray) -> Ink:
    """Return the separate shapes of ink in a picture, from left to right.

    Parameters
    ----------
    gray : ndarray of float32, shape (h, w)
        Brightness from 0 to 1.
    """
    gray = crop_to_sheet(gray)
    side = max(gray.shape)
    if side < MIN_PICTURE_SIDE:
        gray = resize_strokes(gray, side * -(-MIN_PICTURE_SIDE // side))
    strength, threshold = map_ink(gray)
    mask = remove_boxes(strength > threshold, strength, threshold)
    mask = remove_lines(remove_frames(mask), strength, threshold)
    labels, components = label_components(mask, strength)
    shapes = group_shapes(drop_cut_off(components), max(gray.shape))
    if not shapes:
        shapes = group_shapes(components, max(gray.shape))
    found = Ink(strength, labels, sorted(shapes, key=lambda shape: shape.left))
    return found._replace(shapes=[shape for shape in found.shapes if not found.is_shade(shape)])


def draw_shape(strength: np.ndarray, ink: InkStats, size: tuple[int, int]) -> np.ndarray:
    """Draw ink as the training images have it.

    Parameters
    ----------
    strength : ndarray of float32, shape (h, w)
        Ink up to the edges, from 0 to 1.
    ink : InkStats
    size : (H, W)

    Returns
    -------
    ndarray of float32, shape (H, W)
        On the scale of the training images.
    """
    # Thinning strokes that are too thick does not pay: where they are 1.4 times as wide as in
    # training, 98.2 % are read with it and without; from 1.2 times, 95 %.
    fine = resize_strokes(strength, round(ink.side.median * FINE))
    growth = (ink.stroke_width.median * FINE - float(stroke_width(fine))) / 2
    strokes = thicken(fine, min(max(growth, 0), MAX_GROWTH * FINE))
    placed = place(crop_to_ink(strokes), ink, size)
    return np.float32(ink.background) + placed * np.float32(ink.ink - ink.background)
