"""Read a row of separate characters, such as the digits of a year or of a postal code."""

from typing import NamedTuple

import numpy as np

from training.preprocessing.components import Shape
from training.preprocessing.ink import draw_shape, find_shapes
from training.preprocessing.ink_stats import InkStats

MIN_HEIGHT = 0.4  # of the tallest character in a row: smaller shapes are dots, dashes and labels
MAX_ASPECT = 1.3  # a shape so much wider than the row is tall is two characters that touch


class RowReading(NamedTuple):
    """The characters in a picture, from left to right.

    Attributes
    ----------
    images : ndarray of float32, shape (n, H, W)
        Each character in the form of the training images; n is 0 for a blank picture.
    touching : tuple of int
        The places, from 0, of shapes that look like several characters that touch.
    """

    images: np.ndarray
    touching: tuple[int, ...]


def read_row(gray: np.ndarray, ink: InkStats, size: tuple[int, int]) -> RowReading:
    """Bring each character of a row to the form of the training images.

    Characters that touch are one shape, and are not split.

    Parameters
    ----------
    gray, ink, size
        As in `read_ink`.
    """
    found = find_shapes(gray)
    row = choose_row(found.shapes)
    images = np.empty((len(row), *size), np.float32)
    for image, shape in zip(images, row, strict=True):
        image[:] = draw_shape(found.crop(shape), ink, size)
    return RowReading(images, touching_shapes(row))


def choose_row(shapes: list[Shape]) -> list[Shape]:
    """Return the shapes that stand in one row with the tallest one, from left to right."""
    if not shapes:
        return []
    whole = [shape for shape in shapes if not shape.edge] or shapes
    tallest = max(whole, key=lambda shape: shape.height)
    row = [
        shape
        for shape in whole
        if shape.height >= MIN_HEIGHT * tallest.height
        and tallest.top - tallest.height / 2 < (shape.top + shape.bottom) / 2
        and (shape.top + shape.bottom) / 2 < tallest.bottom + tallest.height / 2
    ]
    return sorted(row, key=lambda shape: shape.left)


def touching_shapes(row: list[Shape]) -> tuple[int, ...]:
    """Return the places of shapes that are too wide for one character."""
    if len(row) < 2:  # a single one may be wide
        return ()
    height = float(np.median([shape.height for shape in row]))
    return tuple(place for place, shape in enumerate(row) if shape.width > MAX_ASPECT * height)
