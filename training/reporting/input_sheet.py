"""A sheet of pictures as they came, as the network sees them, and what it answers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.input_stats import InputStats
from training.reporting.plots import new_figure, save_figure
from training.reporting.text_table import shorten

MAX_ENTRIES = 100
N_COLUMNS, N_COLUMNS_OF_MANY = 5, 8  # of more than 25 entries, the second
CELL_WIDTH, CELL_HEIGHT = 2.35, 1.75  # inches; a picture has one inch a side
MAX_TEXT, MAX_NOTE = 30, 44  # columns of a line above and below a picture
CHARACTER_WIDTH = 0.07  # inches, of the head
MARK = b"Title\0Input sheet"  # in the first bytes of a PNG that is such a sheet


class Entry(NamedTuple):
    """One picture of the sheet.

    Attributes
    ----------
    original : ndarray of uint8, shape (h, w, 3) or (h, w)
    image : ndarray, shape (C, H, W)
        As the network sees it.
    title : str
        Lines above the picture.
    note : str
        A line below it: how the image was made of the picture.
    is_marked : bool
        Whether the text is red.
    """

    original: np.ndarray
    image: np.ndarray
    title: str
    note: str
    is_marked: bool = False


def choose(comes_first: Sequence[bool]) -> list[int]:
    """Return the indices of the images to show: 100 at most, of more those that come first.

    Examples
    --------
    >>> choose([False, True]), choose([False] * 200 + [True])[:3]
    ([0, 1], [200, 0, 1])
    """
    indices = range(len(comes_first))
    if len(comes_first) <= MAX_ENTRIES:
        return list(indices)
    return sorted(indices, key=lambda index: not comes_first[index])[:MAX_ENTRIES]


def is_sheet(path: Path) -> bool:
    """Return whether a file is a sheet that `draw` wrote."""
    with open(path, "rb") as file:
        return MARK in file.read(1024)


def draw(entries: Sequence[Entry], stats: InputStats, path: Path, title: str = "") -> None:
    """Draw a sheet as PNG.

    Parameters
    ----------
    entries : sequence of Entry
    stats : InputStats
        Of the training images: their smallest pixel is drawn black, and the largest white.
    path : Path
    title : str
        What the texts of the entries are, if it is not plain.
    """
    n_columns = N_COLUMNS if len(entries) <= N_COLUMNS**2 else N_COLUMNS_OF_MANY
    n_columns = min(n_columns, len(entries))
    n_rows = -(-len(entries) // n_columns)
    head = "left: as it came; right: as the network sees it" + (f"; {title}" if title else "")
    width = max(n_columns * CELL_WIDTH + 0.2, len(head) * CHARACTER_WIDTH + 0.3)
    height = n_rows * CELL_HEIGHT + 0.5
    figure = new_figure(width, height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.text(0.15, 0.22, head, fontsize=9, va="center")
    for index, entry in enumerate(entries):
        row, column = divmod(index, n_columns)
        _draw_entry(axes, entry, stats, 0.15 + column * CELL_WIDTH, 0.45 + row * CELL_HEIGHT)
    # Drawing images changes the limits.
    axes.set(xlim=(0, width), ylim=(height, 0))
    save_figure(figure, path, {"Title": "Input sheet"}, "name another file")


def _draw_entry(axes: Any, entry: Entry, stats: InputStats, left: float, top: float) -> None:
    """Draw the two images of a picture side by side below its title, at a place in inches."""
    lines = [shorten(line, MAX_TEXT) for line in entry.title.split("\n")]
    color = "tab:red" if entry.is_marked else "black"
    for number, line in enumerate(lines):
        axes.text(
            left, top + 0.14 * number, line, fontsize=8, va="top", parse_math=False, color=color
        )
    top += 0.14 * len(lines) + 0.06
    low, high = stats.low, stats.high if stats.high > stats.low else stats.low + 1
    seen = np.clip((entry.image.astype(np.float32) - low) / (high - low), 0, 1)
    seen = seen.transpose(1, 2, 0) if len(seen) == 3 else seen[0]
    for image, x in ((entry.original / np.float32(255), left), (seen, left + 1.1)):
        h, w = image.shape[0] / max(image.shape[:2]), image.shape[1] / max(image.shape[:2])
        x, y = x + (1 - w) / 2, top + (1 - h) / 2
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=(x, x + w, y + h, y))
        axes.plot([x, x + w, x + w, x, x], [y, y, y + h, y + h, y], color="0.7", linewidth=0.5)
    note = shorten(entry.note, MAX_NOTE)
    axes.text(left, top + 1.05, note, fontsize=6, va="top", parse_math=False, color=color)
