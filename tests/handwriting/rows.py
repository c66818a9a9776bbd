"""Pictures of several separate digits in a row, such as a year or a postal code.

A row is a function of digits (n, 28, 28), whose center lines show them, and of a random generator.
It returns the content of a file, and the suffix of the file's name.
"""

from collections.abc import Callable

import numpy as np

from tests.handwriting.files import jpeg, png
from tests.handwriting.light import BLACK, WHITE, off_white, paint, pen_color, rectangle
from tests.handwriting.strokes import outline, pen, place
from tests.handwriting.styles import MAX_SIDE, File, Rng, photographed

Row = Callable[[np.ndarray, Rng], File]
ROWS: dict[str, Row] = {}
MIN_HEIGHT = 40  # of a digit, in pixels
TEXTS: dict[str, Callable[[Rng], str]] = {
    "year": lambda rng: f"{rng.integers(1900, 2030)}",
    "postal code": lambda rng: f"{rng.integers(100_000):05}",
}


def row(function: Row) -> Row:
    """Enter a function into the table of rows, under its name with spaces."""
    ROWS[function.__name__.replace("_", " ")] = function
    return function


def row_text(name: str, rng: Rng) -> str:
    """Return the digits to write: four, but for a postal code."""
    return TEXTS.get(name, lambda rng: f"{rng.integers(10_000):04}")(rng)


def trimmed(digits: np.ndarray, rng: Rng, low: float = 0.85) -> list[np.ndarray]:
    """Return the ink of each digit, cut out, as one hand and one pen write them.

    Parameters
    ----------
    digits : ndarray of uint8, shape (n, 28, 28)
    rng : numpy.random.Generator
    low : float
        Size of the smallest digits, as a share of the largest.
    """
    most = MAX_SIDE / (2.2 * len(digits))
    height = np.exp(rng.uniform(np.log(MIN_HEIGHT / low), np.log(most)))
    slant, width, is_pen = rng.uniform(-8, 8), rng.uniform(0.9, 2.2), rng.random() < 0.7
    inks = []
    for digit in digits:
        side = height * rng.uniform(low, 1)
        strokes = pen(digit, width * height / side) if is_pen else outline(digit)
        n = round(side) + 4
        cover = place(strokes, (n, n), side, (n / 2, n / 2), slant=slant)
        rows, columns = (np.flatnonzero(cover.any(axis=axis)) for axis in (1, 0))
        inks.append(cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return inks


def side_by_side(
    inks: list[np.ndarray], rng: Rng, gap: tuple[float, float], wave: float = 0.06
) -> np.ndarray:
    """Return a canvas (H, W) with digits from left to right.

    Parameters
    ----------
    inks : list of ndarray
        Of `trimmed`.
    rng : numpy.random.Generator
    gap : (low, high)
        Range of the space between two digits, as a share of the tallest.
    wave : float
        Largest distance of a digit from the line, as a share of the tallest.
    """
    height = max(len(ink) for ink in inks)
    above, below, before, after = (round(height * rng.uniform(0.25, 0.7)) for _ in range(4))
    gaps = [round(height * rng.uniform(*gap)) for _ in inks[1:]]
    width = before + sum(ink.shape[1] for ink in inks) + sum(gaps) + after
    cover = np.zeros((above + height + below, width), np.float32)
    left = before
    for ink, space in zip(inks, [*gaps, 0], strict=True):
        bottom = above + height - round(height * rng.uniform(-wave, wave))
        cover[bottom - len(ink) : bottom, left : left + ink.shape[1]] = ink
        left += ink.shape[1] + space
    return cover


def in_cells(
    inks: list[np.ndarray], rng: Rng, spacing: float, margin: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return a canvas with a digit in each box of a form, and its printed lines.

    Parameters
    ----------
    inks : list of ndarray
    rng : numpy.random.Generator
    spacing : float
        Space between two boxes, as a share of the height of a box; 0: they share a line.
    margin : float
        Space around all boxes, as a share of the height of a box.
    """
    largest = max(max(ink.shape) for ink in inks)
    height = round(largest * rng.uniform(1.35, 1.8))
    width = round(max(height * rng.uniform(0.75, 1), 1.2 * max(ink.shape[1] for ink in inks)))
    line = max(1.0, height * rng.uniform(0.012, 0.03))
    step = round(width + height * spacing) if spacing else round(width - line)
    edge = round(height * margin)
    shape = height + 2 * edge, step * (len(inks) - 1) + width + 2 * edge
    cover, printed = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for place_in_row, ink in enumerate(inks):
        left = edge + step * place_in_row
        box = rectangle(shape, edge, left, edge + height, left + width, line)
        printed = np.maximum(printed, box)
        h, w = ink.shape
        free = height - h - 2 * line, width - w - 2 * line
        top, start = (line + n * rng.uniform(0.3, 0.7) for n in free)
        row, column = round(edge + top), round(left + start)
        cover[row : row + h, column : column + w] = ink
    return cover, printed


@row
def on_a_line(digits, rng):
    cover = side_by_side(trimmed(digits, rng), rng, gap=(0.15, 0.4))
    return png(1 - cover), ".png"


@row
def wide_apart(digits, rng):
    cover = side_by_side(trimmed(digits, rng), rng, gap=(0.5, 1.2))
    return png(1 - cover), ".png"


@row
def of_different_sizes(digits, rng):
    cover = side_by_side(trimmed(digits, rng, low=0.55), rng, gap=(0.15, 0.5), wave=0.15)
    return png(1 - cover), ".png"


@row
def in_boxes(digits, rng):
    cover, printed = in_cells(trimmed(digits, rng), rng, spacing=0, margin=rng.uniform(0.05, 0.3))
    return png(paint(np.maximum(cover, printed), WHITE, BLACK)), ".png"


@row
def in_separate_boxes(digits, rng):
    spacing, margin = rng.uniform(0.1, 0.3), rng.uniform(0.05, 0.3)
    cover, printed = in_cells(trimmed(digits, rng), rng, spacing, margin)
    form = paint(printed, WHITE, (rng.uniform(0, 0.5),) * 3)
    return png(paint(cover, form, pen_color(rng))), ".png"


@row
def year(digits, rng):
    """In blue or black on white paper, photographed."""
    cover = side_by_side(trimmed(digits, rng), rng, gap=(0.15, 0.4))
    return jpeg(photographed(paint(cover, off_white(rng), pen_color(rng)), rng), 70), ".jpg"


@row
def postal_code(digits, rng):
    """On an envelope of white or brown paper, photographed."""
    cover = side_by_side(trimmed(digits, rng), rng, gap=(0.15, 0.5))
    paper = off_white(rng) if rng.random() < 0.6 else (0.78, 0.65, 0.47)
    return jpeg(photographed(paint(cover, paper, pen_color(rng)), rng), 70), ".jpg"
