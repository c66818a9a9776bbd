"""Handwriting as it reaches the program: pictures of digits in many styles, from MNIST's.

The digits are training images that a model was not trained on. See `write` and `write_row`.
"""

import zlib
from typing import NamedTuple

import numpy as np

import tests.handwriting.surroundings  # noqa: F401  enters its styles into STYLES
from tests.handwriting.rows import ROWS, row_text
from tests.handwriting.strokes import is_line_drawing
from tests.handwriting.styles import LINE_STYLES, STYLES

N_HELD_OUT = 5000  # images at the end of MNIST's training set


class Sample(NamedTuple):
    """A picture of a digit, or of a row of digits.

    Attributes
    ----------
    content : bytes
        Of the picture's file.
    suffix : str
        Of the file's name, such as ".png".
    label : str
        The digit, or the digits from left to right.
    """

    content: bytes
    suffix: str
    label: str


def random_generator(*keys: str | int) -> np.random.Generator:
    """Return a generator that depends on these words and numbers alone."""
    return np.random.default_rng([zlib.crc32(str(key).encode()) for key in keys])


def write(style: str, index: int, images: np.ndarray, labels: np.ndarray) -> Sample:
    """Return a picture of a digit in a style.

    Parameters
    ----------
    style : str
        A name in `STYLES`.
    index : int
        Number of the picture in its style: the same numbers give the same picture.
    images : ndarray of uint8, shape (N, 1, 28, 28)
        Digits, light on black, of which the style shows one.
    labels : ndarray of int, shape (N,)

    Examples
    --------
    >>> images = np.zeros((2, 1, 28, 28), np.uint8)
    >>> images[:, :, 4:24, 13:16] = 255
    >>> sample = write("gif", 0, images, np.array([1, 1]))
    >>> sample.content[:3], sample.suffix, sample.label
    (b'GIF', '.gif', '1')
    """
    rng = random_generator(style, index)
    first, second = rng.integers(len(images), size=2)
    if style in LINE_STYLES:
        first = _line_drawing(np.arange(len(images)), images, rng)
    content, suffix = STYLES[style](images[[first, second], 0], rng)
    return Sample(content, suffix, str(labels[first]))


def write_row(kind: str, index: int, images: np.ndarray, labels: np.ndarray) -> Sample:
    """Return a picture of several separate digits.

    Parameters
    ----------
    kind : str
        A name in `ROWS`.
    index, images, labels
        As for `write`; there must be each of the ten digits.
    """
    rng = random_generator(kind, index)
    text = row_text(kind, rng)
    chosen = [_line_drawing(np.flatnonzero(labels == int(digit)), images, rng) for digit in text]
    content, suffix = ROWS[kind](images[chosen, 0], rng)
    return Sample(content, suffix, text)


def _line_drawing(indices: np.ndarray, images: np.ndarray, rng: np.random.Generator) -> int:
    """Return one of some indices, of an image of which `is_line_drawing` is true."""
    while True:
        index = rng.choice(indices)
        if is_line_drawing(images[index, 0]):
            return index
