"""CSV files of images: one image a line, its label first, then its pixels."""

import codecs
import contextlib
import csv
import io
import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.datasets.dataset import Dataset, count_classes
from training.datasets.open_maybe_gzip import open_stream
from training.errors import InputError

BLOCK = 1 << 20
LONGEST_LINE = 1 << 24  # bytes: an image of 4 million pixels
MOST_SPARE = 1 << 14  # the columns of a spreadsheet, which may export empty ones; each takes memory
# MNIST's 47 million cells take pandas 1.2 s in one chunk, 1.3 s in chunks of this many bytes and
# 1.7 s in chunks a quarter of this size: a chunk has some 20 ms of bookkeeping.
CHUNK_BYTES = 1 << 24
SPACES = " \t\r\n\v\f"  # that pandas skips about a number; Python's strip() takes off more
FLOAT32_MAX = float(np.finfo(np.float32).max)


class Layout(NamedTuple):
    """How the cells lie in a CSV file."""

    n_columns: int
    n_spare: int  # empty cells that may follow them
    n_skipped: int  # lines up to and including the header
    max_rows: int
    n_labels: int = 1  # 0 where a line is pixels alone
    has_words: bool = False  # below the header


class BadRowsError(Exception):
    """Something is wrong in a chunk of rows; its first row and pandas's words for it."""

    def __init__(self, first_row: int, reason: str):
        super().__init__(reason)
        self.first_row = first_row


def read_csv(
    path: Path,
    image_shape: tuple[int, int, int] | None = None,
    n_classes: int | None = None,
) -> Dataset:
    """Read labels and pixels from a CSV file.

    Parameters
    ----------
    path : Path
        UTF-8 text, gzip or not. A first line is a header if its first cell is no number and
        most others are none, or count up from 0 or 1.
    image_shape : (C, H, W), optional
        Shape of an image; without it, images are square and have one channel.
    n_classes : int, optional
        See `training.datasets.dataset.count_classes`.

    Returns
    -------
    Dataset
        Its pixels are uint8, or float32 where one of them is no whole number from 0 to 255.

    Raises
    ------
    InputError
        The file is not such a table. The message names the line and the column of a bad cell.
    """
    layout = _inspect(path)
    shape = _image_shape(path, layout.n_columns - 1, image_shape)
    images, labels = _read(path, layout, n_classes)
    bad = labels < 0 if n_classes is None else (labels < 0) | (labels >= n_classes)
    if bad.any():
        raise _diagnose(path, layout, n_classes, int(bad.argmax()), "its labels are wrong")
    n_classes = count_classes(str(path), labels, n_classes)
    return Dataset(images.reshape(-1, *shape), labels, n_classes, str(path))


def read_pixels(
    path: Path,
    image_shape: tuple[int, int, int],
    given: bool = False,
    n_classes: int | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read images (N, C, H, W) to be labelled, and the labels where the file has some.

    Parameters
    ----------
    path : Path
        As for `read_csv`, with the label first in each line, or without any.
    image_shape : (C, H, W)
        What the images are if their number of pixels is that; else they are square, with one
        channel, unless the shape was `given`.
    n_classes : int, optional
        Number of classes, for the labels.
    """
    layout = _inspect(path)
    pixels = math.prod(image_shape)
    for n_labels in (0, 1):
        if layout.n_columns - n_labels == pixels:
            return _read_some(path, layout, image_shape, n_labels, n_classes)
    for n_labels in (0, 1):
        side = math.isqrt(layout.n_columns - n_labels)
        if side**2 == layout.n_columns - n_labels and not given:
            return _read_some(path, layout, (1, side, side), n_labels, n_classes)
    raise InputError(
        f"{path}: has {layout.n_columns} cells a line, and an image of "
        f"{','.join(map(str, image_shape))} has {pixels} pixels: give the shape of the images "
        "with --image_shape C,H,W; a label may come before the pixels"
    )


def _read_some(path, layout, image_shape, n_labels, n_classes):
    if n_labels:
        data = read_csv(path, image_shape, n_classes)
        return data.images, data.labels
    images, _ = _read(path, layout._replace(n_labels=0), None)
    return images.reshape(-1, *image_shape), None


def _inspect(path: Path) -> Layout:
    n_bytes, n_letters = _count_bytes(path)
    top = [(number, _cells(line)) for number, line in itertools.islice(_lines(path), 2)]
    if not top:
        raise InputError(f"{path}: is empty: write one image a line, label,pixel,pixel,...")
    number, first = top[0]
    has_header = _is_header(first)
    if has_header and len(top) == 1:
        raise InputError(
            f"{path}, line {number}: no image follows the header: write one image a line, "
            "label,pixel,pixel,..."
        )
    n_columns = len(_filled(first))
    if n_columns < 2:
        raise InputError(
            f"{path}, line {number}: has {n_columns} cells: write one image a line, "
            "label,pixel,pixel,... with commas between"
        )
    for number_below, cells in top[1:]:
        if len(_filled(cells)) != n_columns:
            raise _ragged(path, number_below, cells, n_columns)
    n_spare = _count_spare(path, n_columns, top)
    max_rows = (n_bytes + 1) // (2 * n_columns)  # a cell is a digit and a comma at least
    if has_header:
        n_letters -= _count_letters(",".join(first).encode())
    n_skipped = number if has_header else 0
    return Layout(n_columns, n_spare, n_skipped, max_rows, has_words=n_letters > 0)


def _is_header(cells: list[str]) -> bool:
    """Tell names of columns from an image whose label is mistyped."""
    others = _filled(cells)[1:]
    n_numbers = sum(map(_is_number, others))
    # Pixels may be named by their numbers: those count up by one from the first to the last, from 0
    # or 1, which the pixels of no real image do.
    counts = any(others == [str(start + i) for i in range(len(others))] for start in (0, 1))
    return not _is_number(cells[0]) and (counts or 2 * n_numbers <= len(others))


def _count_letters(text: bytes) -> int:
    """Count letters of True and False, of which pandas makes 1 and 0; no number has them."""
    return sum(text.count(letter) for letter in (b"r", b"R", b"l", b"L"))


def _count_spare(path: Path, n_columns: int, rows: Iterable[tuple[int, list[str]]]) -> int:
    """Count the empty cells that follow the cells of a row at most, but one at least."""
    n_spare = 1
    for number, cells in rows:
        if len(cells) > n_columns + n_spare and len(_filled(cells)) <= n_columns:
            n_spare = len(cells) - n_columns
            if n_spare > MOST_SPARE:
                raise InputError(
                    f"{path}, line {number}: has {n_spare} commas at its end: delete them"
                )
    return n_spare


def _count_bytes(path: Path) -> tuple[int, int]:
    """Count the bytes of the (unpacked) file, and the letters of words; refuse what is no text.

    It takes 0.2 s for 110 MB.
    """
    n_bytes = n_letters = line_bytes = 0
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_stream(path) as stream:
            while block := stream.read(BLOCK):
                if n_bytes == 0 and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise InputError(f"{path}: is UTF-16 text: save it as CSV in UTF-8")
                if b"\0" in block:
                    raise InputError(
                        f"{path}: is neither IDX nor text: save the images as CSV in UTF-8"
                    )
                decoder.decode(block)
                n_bytes += len(block)
                n_letters += _count_letters(block)
                line_end = max(block.rfind(b"\n"), block.rfind(b"\r"))
                line_bytes = len(block) - line_end - 1 + (line_bytes if line_end < 0 else 0)
                if line_bytes > LONGEST_LINE:
                    raise InputError(
                        f"{path}: has a line of more than {LONGEST_LINE >> 20} MB: write one image "
                        "a line, label,pixel,pixel,..."
                    )
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is neither IDX nor text in UTF-8 ({error.reason}): save it as CSV in UTF-8"
        ) from None
    return n_bytes, n_letters


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, each with its number."""
    with open_stream(path) as stream, io.TextIOWrapper(stream, "utf-8-sig") as text:
        for number, line in enumerate(text, start=1):
            if line.strip(" \t\r\n"):
                yield number, line


def _cells(line: str) -> list[str]:
    """Split one line, so that an open quote does not swallow the lines after it."""
    try:
        return [cell.strip(SPACES) for cell in next(csv.reader([line]))]
    except csv.Error:
        return line.split(",")


def _filled(cells: list[str]) -> list[str]:
    """Drop the empty cells that commas at the end of a line make."""
    n = len(cells)
    while n and not cells[n - 1]:
        n -= 1
    return cells[:n]


def _is_number(cell: str) -> bool:
    """Tell whether pandas reads a number: float() also takes 1_0, other scripts and spaces."""
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and cell.isprintable() and "_" not in cell


def _image_shape(
    path: Path, n_pixels: int, image_shape: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    if image_shape is None:
        side = math.isqrt(n_pixels)
        if side * side != n_pixels:
            raise InputError(
                f"{path}: has {n_pixels} pixels an image, which make no square: "
                "give the shape with --image_shape C,H,W"
            )
        return 1, side, side
    if math.prod(image_shape) != n_pixels:
        raise InputError(
            f"{path}: has {n_pixels} pixels an image, and --image_shape "
            f"{','.join(map(str, image_shape))} has {math.prod(image_shape)}: "
            "C times H times W must be the number of pixels"
        )
    return image_shape


def _read(path: Path, layout: Layout, n_classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    if layout.has_words:
        raise _diagnose(path, layout, n_classes, 0, "it holds words")
    try:
        return _parse_narrowest(path, layout)
    except BadRowsError as error:
        first_row, reason = error.first_row, str(error)
    # Any line may end in more commas than the first two did. Only those that have more commas are
    # split into cells, which takes far longer than the counting.
    n_commas = layout.n_columns + layout.n_spare
    rows = ((number, _cells(line)) for number, line in _lines(path) if line.count(",") >= n_commas)
    n_spare = _count_spare(path, layout.n_columns, rows)
    if n_spare > layout.n_spare:
        return _read(path, layout._replace(n_spare=n_spare), n_classes)
    raise _diagnose(path, layout, n_classes, first_row, reason)


def _parse_narrowest(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    with contextlib.suppress(BadRowsError):
        return _parse(path, layout, np.uint8)
    return _parse(path, layout, np.float32)  # out of the block: the error holds the bytes read


def _parse(path: Path, layout: Layout, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Read all rows into pixels of `dtype`, uint8 or float32, and labels."""
    import pandas as pd  # 0.3 s, for those who have a CSV file

    n_columns, n_spare, n_skipped, max_rows, n_labels, _ = layout
    label, pixel = (np.int64, _byte_type()) if dtype is np.uint8 else (np.float64, np.float64)
    spare = range(n_columns, n_columns + n_spare)
    pixels_at = range(n_labels, n_columns)
    types = {**dict.fromkeys(pixels_at, pixel), **dict.fromkeys(spare, str)}
    types = {0: label, **types} if n_labels else types
    # Rows that the file turns out not to have take no memory: their pages are never written to.
    images: np.ndarray = np.empty((max_rows, len(pixels_at)), dtype)
    labels = np.empty(max_rows if n_labels else 0, np.int64)
    n_rows = 0
    try:
        with open_stream(path) as stream, np.errstate(over="ignore", invalid="ignore"):
            for chunk in pd.read_csv(
                stream,
                header=None,
                names=list(types),
                dtype=types,
                skiprows=n_skipped,
                chunksize=max(1, CHUNK_BYTES // (len(types) * np.dtype(pixel).itemsize)),
                na_filter=False,
                encoding="utf-8-sig",
            ):
                rows = slice(n_rows, n_rows + len(chunk))
                cells = chunk.iloc[:, n_labels:n_columns].to_numpy()
                pixels = images[rows]
                pixels[:] = cells
                if n_labels:
                    labels[rows] = chunk[0]
                    if (labels[rows] != chunk[0]).any():
                        raise ValueError("labels must be whole numbers")
                if any(chunk[column].str.strip(SPACES).ne("").any() for column in spare):
                    raise ValueError("lines must have the same number of cells")
                fits = pixels == cells if dtype is np.uint8 else np.isfinite(pixels)
                if not fits.all():
                    raise ValueError(f"pixels must fit {pixels.dtype}")
                n_rows = rows.stop
    except (ValueError, TypeError, OverflowError) as error:
        raise BadRowsError(n_rows, str(error)) from None
    return images[:n_rows], labels[:n_rows]


def _byte_type() -> type:
    """Return the type to parse bytes with: pandas 2.1 to 3.0 silently make 0 of 256 in uint8.

    3.1 refuses the cell. In int64, a fifth slower, it can be seen that a pixel is no byte.
    """
    import pandas as pd

    try:
        pd.read_csv(io.StringIO("256"), header=None, dtype=np.uint8)
    except ValueError:
        return np.uint8
    return np.int64


def _diagnose(
    path: Path, layout: Layout, n_classes: int | None, first_row: int, reason: str
) -> InputError:
    """Search for the cell that made `_parse` or the labels fail, from `first_row` on."""
    rows = (line for line in _lines(path) if line[0] > layout.n_skipped)
    for number, line in itertools.islice(rows, first_row, None):
        cells = _cells(line)
        if len(_filled(cells)) != layout.n_columns:
            return _ragged(path, number, cells, layout.n_columns)
        for column, cell in enumerate(_filled(cells), start=1):
            fault = _number_fault(cell)
            if column <= layout.n_labels and _is_number(cell):
                fault = _label_fault(cell, n_classes)
            if fault:
                return InputError(f"{path}, line {number}, column {column}: {cell[:40]!r} {fault}")
    return InputError(
        f"{path}: cannot be read as CSV ({' '.join(reason.split())}): write one image a line, "
        "label,pixel,pixel,... in plain numbers"
    )


def _ragged(path: Path, number: int, cells: list[str], n_columns: int) -> InputError:
    return InputError(
        f"{path}, line {number}: has {len(_filled(cells))} cells, and the first line has "
        f"{n_columns}: give every line its label and the same number of pixels"
    )


def _number_fault(cell: str) -> str:
    if not _is_number(cell):
        return "is not a number: write the label and the pixels in digits"
    if not abs(float(cell)) <= FLOAT32_MAX:
        return "is not a finite number: pixels are 0 to 255 as a rule"
    return ""


def _label_fault(cell: str, n_classes: int | None) -> str:
    label = float(cell)
    if not 0 <= label < math.inf or label != int(label):
        return "is no label: labels are whole numbers from 0"
    if label >= 2**63:  # what int64 holds
        return "is no label, but too large: number the classes from 0"
    if n_classes is not None and label >= n_classes:
        return f"is no label: there are {n_classes} classes, 0 to {n_classes - 1}"
    return ""
