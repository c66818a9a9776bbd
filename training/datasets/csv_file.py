"""Read CSV files of images: one image per line, its label first, then its pixels."""

import codecs
import csv
import io
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from training.datasets.dataset import Dataset, ReadOptions, encode_numbers
from training.datasets.gzip_file import open_maybe_gzip
from training.errors import InputError

BLOCK_BYTES = 1 << 18  # the arrays that are made of a block lie in the processor's caches
MAX_LINE_BYTES = 1 << 24  # an image of 4 million pixels
MAX_EMPTY_CELLS = 1 << 14  # a spreadsheet has this many columns, and may export the empty ones
MAX_DIGITS = 15  # any whole number of 15 digits is exact in float64
POWERS_OF_10 = 10.0 ** np.arange(MAX_DIGITS + 1)
SPACES = " \t\r\n\v\f"  # allowed around a number; str.strip() alone removes more than these


class Layout(NamedTuple):
    """How the cells of a CSV file are arranged."""

    n_columns: int
    n_skipped: int  # lines up to and including the header
    max_rows: int  # upper bound on the number of rows, computed from the file size
    n_labels: int = 1  # 0 if the lines hold only pixels


def read_csv(path: Path, options: ReadOptions) -> Dataset:
    """Read labels and pixels from a CSV file.

    Parameters
    ----------
    path : Path
        Text in UTF-8, gzip-compressed or not. The first line is a header if its first cell is not
        a number and the other cells are names: at least half of them are not numbers, or they
        count up from 0 or 1.
    options : ReadOptions
        By default, images are square and have one channel, or the shape that a model expects.

    Returns
    -------
    Dataset
        The pixels are uint8 if all of them are whole numbers from 0 to 255, else float32.

    Raises
    ------
    InputError
        The file is not such a table. The message names the line and the column of a bad cell.
    """
    layout = _inspect(path)
    like = options.like
    shape = _image_shape(path, layout.n_columns - 1, options.image_shape, like and like.shape)
    images, numbers = _read(path, layout, len(like.class_names) if like else None)
    labels, class_names = encode_numbers(str(path), numbers, like and like.class_names)
    return Dataset(images.reshape(-1, *shape), labels, class_names, str(path))


def read_pixels(path: Path, options: ReadOptions) -> tuple[np.ndarray, np.ndarray | None]:
    """Read images (N, C, H, W) for prediction, and their labels if the file has labels.

    Parameters
    ----------
    path : Path
        As for `read_csv`, but the label at the start of each line may be missing.
    options : ReadOptions
        If the number of pixels differs from that of the images that the model expects, they are
        taken as square with one channel, unless `image_shape` says otherwise.

    Returns
    -------
    images : ndarray of uint8 or float32, shape (N, C, H, W)
    labels : ndarray of int64, shape (N,), or None

    Raises
    ------
    InputError
        As for `read_csv`.
    """
    assert options.like is not None
    layout = _inspect(path)
    image_shape = options.image_shape or options.like.shape
    n_pixels = math.prod(image_shape)
    for n_labels in (0, 1):
        if layout.n_columns - n_labels == n_pixels:
            return _read_images(path, layout, image_shape, n_labels, options)
    for n_labels in (0, 1):
        side = math.isqrt(layout.n_columns - n_labels)
        if side**2 == layout.n_columns - n_labels and options.image_shape is None:
            return _read_images(path, layout, (1, side, side), n_labels, options)
    raise InputError(
        f"{path}: has {layout.n_columns} cells a line, and an image of "
        f"{','.join(map(str, image_shape))} has {n_pixels} pixels: give the shape of the images "
        "with --image_shape C,H,W; a label may come before the pixels"
    )


def _read_images(
    path: Path,
    layout: Layout,
    image_shape: tuple[int, int, int],
    n_labels: int,
    options: ReadOptions,
) -> tuple[np.ndarray, np.ndarray | None]:
    if n_labels:
        data = read_csv(path, options._replace(image_shape=image_shape))
        return data.images, data.labels
    images, _ = _read(path, layout._replace(n_labels=0), None)
    return images.reshape(-1, *image_shape), None


def _inspect(path: Path) -> Layout:
    """Find the number of columns and the header in the first two lines."""
    n_bytes = _check_text(path)
    with _open_text(path) as text:
        lines = ((number, line) for number, line in enumerate(text, 1) if not _is_blank(line))
        top = [
            (number, [cell.strip(SPACES) for cell in _split(line)])
            for number, line in itertools.islice(lines, 2)
        ]
    if not top:
        raise InputError(f"{path}: is empty: write one image a line, label,pixel,pixel,...")
    number, first = top[0]
    has_header = _is_header(first)
    if has_header and len(top) == 1:
        raise InputError(
            f"{path}, line {number}: no image follows the header: write one image a line, "
            "label,pixel,pixel,..."
        )
    n_columns = len(_without_empty_end(first))
    if n_columns < 2:
        raise InputError(
            f"{path}, line {number}: has {n_columns} cells: write one image a line, "
            "label,pixel,pixel,... with commas between"
        )
    for number_below, cells in top[1:]:
        if len(_without_empty_end(cells)) != n_columns:
            raise _ragged(path, number_below, cells, n_columns)
    max_rows = (n_bytes + 1) // (2 * n_columns)  # a cell has a digit and a comma at least
    return Layout(n_columns, number if has_header else 0, max_rows)


def _is_header(cells: list[str]) -> bool:
    """Return whether cells are names of columns, and not an image with a mistyped label."""
    others = _without_empty_end(cells)[1:]
    n_numbers = sum(map(_is_number, others))
    # Columns may be named by numbers that count up by one from 0 or 1. The pixels of no real image
    # do that.
    is_counting = any(others == [str(start + i) for i in range(len(others))] for start in (0, 1))
    return not _is_number(cells[0]) and (is_counting or 2 * n_numbers <= len(others))


def _check_text(path: Path) -> int:
    """Raise InputError if a file is not text in UTF-8; return its size in bytes, decompressed.

    It takes 0.05 s for 110 MB.
    """
    n_bytes = line_bytes = 0
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open_maybe_gzip(path) as stream:
            while block := stream.read(BLOCK_BYTES):
                if n_bytes == 0 and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise InputError(f"{path}: is UTF-16 text: save it as CSV in UTF-8")
                if b"\0" in block:
                    raise InputError(
                        f"{path}: is neither IDX nor text: save the images as CSV in UTF-8"
                    )
                decoder.decode(block)
                n_bytes += len(block)
                line_end = max(block.rfind(b"\n"), block.rfind(b"\r"))
                line_bytes = len(block) - line_end - 1 + (line_bytes if line_end < 0 else 0)
                if line_bytes > MAX_LINE_BYTES:
                    raise InputError(
                        f"{path}: has a line of more than {MAX_LINE_BYTES >> 20} MB: write one "
                        "image a line, label,pixel,pixel,..."
                    )
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is neither IDX nor text in UTF-8 ({error.reason}): save it as CSV in UTF-8"
        ) from None
    return n_bytes


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    with open_maybe_gzip(path) as stream, io.TextIOWrapper(stream, "utf-8-sig") as text:
        yield text


def _read(path: Path, layout: Layout, n_classes: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Read pixels (rows, n), uint8 or float32, and labels (rows,); none if the file has none."""
    parser = BlockParser(path, layout, n_classes)
    # Rows that the file turns out not to have take no memory: their pages are never written to.
    shape = layout.max_rows, layout.n_columns - layout.n_labels
    images: np.ndarray = np.empty(shape, np.uint8)
    labels = np.empty((layout.max_rows, layout.n_labels), np.int64)
    n_rows, line_number = 0, layout.n_skipped + 1
    for block in _blocks(path, layout.n_skipped):
        pixels, block_labels = parser.parse(block, line_number)
        if pixels.dtype == np.float32 and images.dtype == np.uint8:
            as_bytes = images[:n_rows]
            images = np.empty(shape, np.float32)
            images[:n_rows] = as_bytes
        rows = slice(n_rows, n_rows + len(pixels))
        images[rows], labels[rows] = pixels, block_labels
        n_rows = rows.stop
        line_number += block.count(b"\n")
    return images[:n_rows], labels[:n_rows].reshape(-1)


def _blocks(path: Path, n_skipped: int) -> Iterator[bytes]:
    """Yield the lines after the first `n_skipped`, many at a time, each with "\\n" at its end."""
    with _open_text(path) as text:
        for _ in range(n_skipped):
            text.readline()
        rest = ""
        while read := text.read(BLOCK_BYTES):
            lines, newline, after = read.rpartition("\n")
            if newline:
                yield (rest + lines + newline).encode()
                rest = after
            else:
                rest += read
        if rest:
            yield (rest + "\n").encode()


class BlockParser:
    """Parse blocks of whole lines into pixels and labels.

    Parameters
    ----------
    path : Path
        The file that an error message names.
    layout : Layout
    n_classes : int or None
        Number of classes, to check the labels against; None if it is not known.
    """

    def __init__(self, path: Path, layout: Layout, n_classes: int | None):
        self._path, self._n_classes = path, n_classes
        self._n_columns, self._n_labels = layout.n_columns, layout.n_labels

    def parse(self, block: bytes, first_line: int) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels (rows, n), uint8 or float32, and labels (rows, 1 or 0), int64.

        Parameters
        ----------
        block : bytes
            Whole lines, each ended by a newline.
        first_line : int
            Number of the first line in the file.

        Raises
        ------
        InputError
            Naming the line and the column of a bad cell.
        """
        table = _parse_plain(block, self._n_columns)
        if table is None:
            table = _parse_plain(_simplify(block), self._n_columns)
        if table is None or not self._has_valid_labels(table):
            table = self._parse_lines(block.decode().split("\n"), first_line)
        labels = table[:, : self._n_labels].astype(np.int64)
        pixels = table[:, self._n_labels :]
        with np.errstate(invalid="ignore"):  # from numbers that are too large for uint8
            as_bytes = pixels.astype(np.uint8)
        return as_bytes if (as_bytes == pixels).all() else pixels.astype(np.float32), labels

    def _has_valid_labels(self, table: np.ndarray) -> bool:
        labels = table[:, : self._n_labels]
        is_valid = labels == np.floor(labels)
        if self._n_classes is not None:
            is_valid &= labels < self._n_classes
        return bool(is_valid.all())

    def _parse_lines(self, lines: list[str], first_line: int) -> np.ndarray:
        """Parse lines cell by cell. It is slow, accepts any number, and locates errors."""
        rows = [
            self._parse_line(line, number)
            for number, line in enumerate(lines, first_line)
            if not _is_blank(line)
        ]
        return np.array(rows).reshape(-1, self._n_columns)

    def _parse_line(self, line: str, number: int) -> np.ndarray:
        cells = _split(line)
        n_empty = len(cells) - len(_without_empty_end(cells))
        if n_empty > MAX_EMPTY_CELLS:
            raise InputError(
                f"{self._path}, line {number}: has {n_empty} commas at its end: delete them"
            )
        cells = cells[: len(cells) - n_empty]
        if len(cells) != self._n_columns:
            raise _ragged(self._path, number, cells, self._n_columns)
        try:
            row = np.array([float(cell) for cell in cells])
        except ValueError:
            row = np.full(len(cells), np.nan)
        if not _is_plain("".join(cells)) or not _fits_float32(row).all():
            self._check_cells(cells, number)
        self._check_cells(cells[: self._n_labels], number)
        return row

    def _check_cells(self, cells: list[str], number: int) -> None:
        for column, cell in enumerate(cells, start=1):
            stripped = cell.strip(SPACES)
            fault = _cell_fault(stripped, column <= self._n_labels, self._n_classes)
            if fault:
                raise InputError(
                    f"{self._path}, line {number}, column {column}: {stripped[:40]!r} {fault}"
                )


def _parse_plain(block: bytes, n_columns: int) -> np.ndarray | None:
    """Parse lines of numbers such as 12 and 0.75 by array operations.

    Parameters
    ----------
    block : bytes
        Whole lines, each ended by a newline.
    n_columns : int
        Number of cells in each line.

    Returns
    -------
    ndarray of float64, shape (rows, n_columns), or None
        None if the block holds anything but digits, points, commas and newlines, or a number of
        more than `MAX_DIGITS` digits.

    Notes
    -----
    A number is its digits as a whole number, divided by a power of ten. Both are exact in float64,
    so that their quotient is rounded once: it is what ``float`` returns [1]_.

    References
    ----------
    .. [1] Clinger, "How to read floating point numbers accurately", PLDI 1990.
    """
    decimals = None
    if b"." in block:
        decimals = _count_decimals(block)
        if decimals is None:
            return None
        block = block.replace(b".", b"")
    text = np.frombuffer(block, np.uint8)
    digits = text - ord("0")  # modulo 256: more than 9 for any other character
    ends = np.flatnonzero(digits > 9)
    n_rows, n_left = divmod(len(ends), n_columns)
    n_commas, n_newlines = block.count(b","), block.count(b"\n")
    if n_left or n_newlines != n_rows or n_commas + n_newlines != len(ends):
        return None
    if (text[ends[n_columns - 1 :: n_columns]] != ord("\n")).any():
        return None  # one line is too long, and another one too short
    n_digits = np.diff(ends, prepend=-1) - 1
    if n_digits.min() < 1 or n_digits.max() > MAX_DIGITS:
        return None
    n_digits = n_digits.astype(np.uint8)  # faster to compare
    last = ends - 1
    numbers = digits[last].astype(np.float64)
    for place in range(1, n_digits.max()):
        longer = np.flatnonzero(n_digits > place)
        numbers[longer] += POWERS_OF_10[place] * digits[last[longer] - place]
    if decimals is not None:
        numbers /= POWERS_OF_10[decimals]
    return numbers.reshape(n_rows, n_columns)


def _count_decimals(block: bytes) -> np.ndarray | None:
    """Return the number of digits after the point of each cell; None if a cell has two points."""
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text - ord("0") > 9)  # of runs of digits
    is_point = text[ends] == ord(".")
    if (is_point[1:] & is_point[:-1]).any():
        return None
    points = np.flatnonzero(is_point)
    cells = points - np.arange(len(points))  # the cell of each point
    decimals = np.zeros(len(ends) - len(points), np.intp)
    decimals[cells] = ends[points + 1] - ends[points] - 1
    return decimals


def _simplify(block: bytes) -> bytes:
    """Remove what `_parse_plain` does not accept but whole files have: spaces, a last comma."""
    for old, new in ((b" ,", b","), (b", ", b","), (b"\n\n", b"\n"), (b",\n", b"\n")):
        block = block.replace(old, new)
    return block


def _is_blank(line: str) -> bool:
    return not line.strip(" \t\r\n")


def _split(line: str) -> list[str]:
    """Split one line, so that an open quote does not swallow the lines after it."""
    try:
        return next(csv.reader([line]))
    except csv.Error:
        return line.split(",")


def _without_empty_end(cells: list[str]) -> list[str]:
    """Remove the empty cells at the end of a line."""
    n = len(cells)
    while n and not cells[n - 1].strip(SPACES):
        n -= 1
    return cells[:n]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return _is_plain(cell)


def _is_plain(text: str) -> bool:
    """Return False for what float() accepts and CSV does not: 1_0, other scripts and spaces."""
    return text.isascii() and text.isprintable() and "_" not in text


def _fits_float32(numbers: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.isfinite(numbers.astype(np.float32))


def _image_shape(
    path: Path,
    n_pixels: int,
    image_shape: tuple[int, int, int] | None,
    model_shape: tuple[int, int, int] | None,
) -> tuple[int, int, int]:
    if image_shape is None:
        if model_shape is not None and math.prod(model_shape) == n_pixels:
            return model_shape
        side = math.isqrt(n_pixels)
        if side * side != n_pixels and model_shape is not None:
            raise InputError(
                f"{path}: has {n_pixels} pixels an image; the model expects "
                f"{','.join(map(str, model_shape))}, which has {math.prod(model_shape)}"
            )
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


def _ragged(path: Path, number: int, cells: list[str], n_columns: int) -> InputError:
    return InputError(
        f"{path}, line {number}: has {len(_without_empty_end(cells))} cells, and the first line "
        f"has {n_columns}: give every line its label and the same number of pixels"
    )


def _cell_fault(cell: str, is_label: bool, n_classes: int | None) -> str:
    """Return what is wrong with a cell and what would be right; "" for a good cell."""
    if not _is_number(cell):
        return "is not a number: write the label and the pixels in digits"
    number = float(cell)
    if is_label:
        return _label_fault(number, n_classes)
    if not _fits_float32(np.array(number)):
        return "is not a finite number: pixels are 0 to 255 as a rule"
    return ""


def _label_fault(label: float, n_classes: int | None) -> str:
    if not 0 <= label < math.inf or label != int(label):
        return "is not a label: labels are whole numbers from 0"
    if label >= 2**63:  # what int64 holds
        return "is not a label, but too large: number the classes from 0"
    if n_classes is not None and label >= n_classes:
        return f"is not a label: there are {n_classes} classes, 0 to {n_classes - 1}"
    return ""
