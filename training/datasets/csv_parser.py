"""Parse the lines of a CSV file into pixels and labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.datasets.csv_labels import LabelEncoder, cell_error
from training.datasets.csv_layout import Layout, ragged_line
from training.datasets.csv_text import (
    DECIMAL_COMMA,
    SPACES,
    is_blank,
    is_number,
    is_plain,
    split_line,
    without_empty_end,
)
from training.errors import InputError

MAX_EMPTY_CELLS = 1 << 14  # a spreadsheet has this many columns, and may export the empty ones
MAX_DIGITS = 15  # any whole number of 15 digits is exact in float64
POWERS_OF_10 = 10.0 ** np.arange(MAX_DIGITS + 1)


class BlockParser:
    """Parse blocks of whole lines into pixels and the codes of labels.

    A block of numbers only is parsed by array operations. So is one with text in the columns that
    hold no pixels, after these were cut out of each line. Any other block is parsed cell by cell.

    Parameters
    ----------
    path : Path
        The file that an error message names.
    layout : Layout
    encoder : LabelEncoder
    """

    def __init__(self, path: Path, layout: Layout, encoder: LabelEncoder):
        self._path, self._encoder = path, encoder
        self._separator, self._n_columns = layout.separator, layout.n_columns
        self._label_column = layout.label_column
        self._columns = sorted(layout.pixel_columns)
        self._is_pixel = np.isin(range(layout.n_columns), self._columns).tolist()
        self._slice = _as_slice(self._columns)
        ranks = np.searchsorted(self._columns, layout.pixel_columns)
        self._order = ranks if (np.diff(ranks) < 0).any() else None
        self._cutter = _Cutter(layout)
        self._has_text = False  # in the block before

    def parse(self, block: bytes, first_line: int) -> tuple[np.ndarray, np.ndarray | int]:
        """Return pixels (rows, n), uint8 or float32, and codes of labels (rows,); 0 without labels.

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
        parsed = self._parse_numbers(block) if not self._has_text else None
        if parsed is None and self._cutter.columns:
            parsed = self._parse_with_text(block, first_line)
            self._has_text = parsed is not None
        if parsed is None:
            parsed = self._parse_lines(block.decode().split("\n"), first_line)
        numbers, codes = parsed
        with np.errstate(invalid="ignore"):  # from numbers that are too large for uint8
            as_bytes = numbers.astype(np.uint8)
        pixels = as_bytes if (as_bytes == numbers).all() else numbers.astype(np.float32)
        return (pixels if self._order is None else pixels[:, self._order]), codes

    def _parse_numbers(self, block: bytes) -> tuple[np.ndarray, np.ndarray | int] | None:
        """Parse a block in which the label is a number, too; None if it cannot be parsed so."""
        separator = self._separator.encode()
        table = _parse_plain(block, self._n_columns, separator)
        if table is None:
            table = _parse_plain(_simplify(block, separator), self._n_columns, separator)
        if table is None:
            return None
        pixels = table[:, self._slice]
        if self._label_column is None:
            return pixels, 0
        labels = table[:, self._label_column]
        if not self._encoder.are_labels(labels):
            return None
        return pixels, labels.astype(np.int64)

    def _parse_with_text(
        self, block: bytes, first_line: int
    ) -> tuple[np.ndarray, np.ndarray | int] | None:
        """Parse a block in which only the pixels are numbers; None if it cannot be parsed so."""
        parsed = self._parse_cut(block, first_line)
        if parsed is None:
            simple = _simplify(block, self._separator.encode())
            # A block without its blank lines does not show the line of a bad label.
            if simple != block and simple.count(b"\n") == block.count(b"\n"):
                parsed = self._parse_cut(simple, first_line)
        return parsed

    def _parse_cut(
        self, block: bytes, first_line: int
    ) -> tuple[np.ndarray, np.ndarray | int] | None:
        cut = self._cutter.cut(block)
        if cut is None:
            return None
        rest, labels = cut
        numbers = _parse_plain(rest, len(self._columns), self._separator.encode())
        if numbers is None or self._label_column is None:
            return None if numbers is None else (numbers, 0)
        codes = map(self._encoder.encode, labels, range(first_line, first_line + len(labels)))
        return numbers, np.fromiter(codes, np.int64, len(labels))

    def _parse_lines(
        self, lines: list[str], first_line: int
    ) -> tuple[np.ndarray, np.ndarray | int]:
        """Parse lines cell by cell. It is slow, accepts any number, and locates errors."""
        parsed = [
            self._parse_line(line, number)
            for number, line in enumerate(lines, first_line)
            if not is_blank(line)
        ]
        numbers = np.array([row for row, _ in parsed]).reshape(-1, len(self._columns))
        if self._label_column is None:
            return numbers, 0
        return numbers, np.array([code for _, code in parsed], np.int64)

    def _parse_line(self, line: str, number: int) -> tuple[np.ndarray, int]:
        cells = split_line(line, self._separator)
        n_cells = len(without_empty_end(cells))
        if len(cells) - n_cells > MAX_EMPTY_CELLS:
            ends = {",": "commas", ";": "semicolons", "\t": "tabs"}[self._separator]
            raise InputError(
                f"{self._path}, line {number}: has {len(cells) - n_cells} {ends} at its end: "
                "delete them"
            )
        is_label_last = self._label_column == self._n_columns - 1
        if n_cells != self._n_columns and not (
            is_label_last and n_cells == self._n_columns - 1 < len(cells)
        ):
            raise ragged_line(self._path, number, cells, self._n_columns)
        pixels = [cells[column] for column in self._columns]
        try:
            row = np.array([float(cell) for cell in pixels])
        except ValueError:
            row = np.full(len(pixels), np.nan)
        if not is_plain("".join(pixels)) or not _fits_float32(row).all():
            self._check_cells(cells, number)
        if self._label_column is None:
            return row, 0
        return row, self._encoder.encode(cells[self._label_column], number)

    def _check_cells(self, cells: list[str], number: int) -> None:
        for column in range(self._n_columns):
            if column == self._label_column:
                self._encoder.encode(cells[column], number)
            elif self._is_pixel[column]:
                cell = cells[column].strip(SPACES)
                fault = _pixel_fault(cell)
                if fault:
                    raise cell_error(self._path, number, column, cell, fault)


class _Cutter:
    """Cut the columns that hold no pixels out of lines.

    Parameters
    ----------
    layout : Layout
    """

    def __init__(self, layout: Layout):
        n_columns = layout.n_columns
        self.columns = sorted(set(range(n_columns)) - set(layout.pixel_columns))
        self._separator = layout.separator.encode()
        # Most cells stay one piece: only those up to the last column to cut are split off, from
        # the nearer end of the line.
        front = [column for column in self.columns if 2 * column < n_columns]
        back = [column for column in self.columns if 2 * column >= n_columns]
        self._n_front = max(front) + 1 if front else 0
        self._n_back = n_columns - min(back) if back else 0
        n_joined = n_columns - self._n_front - self._n_back - 1  # cells that the middle has more
        places = {c: c if c < self._n_front else c - n_joined for c in self.columns}
        label = layout.label_column
        self._label = None if label is None else places[label]
        n_pieces = self._n_front + 1 + self._n_back
        self._kept = [place for place in range(n_pieces) if place not in places.values()]

    def cut(self, block: bytes) -> tuple[bytes, list[str]] | None:
        """Return the lines without these columns, and the labels.

        None if a line has too few cells, or a label is in quotes that are more than its ends.
        """
        separator, rest, labels = self._separator, [], []
        for line in block.split(b"\n")[:-1]:
            pieces = line.split(separator, self._n_front)
            pieces += pieces.pop().rsplit(separator, self._n_back)
            if len(pieces) != self._n_front + 1 + self._n_back:
                return None
            if self._label is not None:
                labels.append(pieces[self._label])
            rest.append(separator.join([pieces[place] for place in self._kept]))
        texts = [_unquote(label.decode()) for label in labels]
        if None in texts:
            return None
        return b"\n".join([*rest, b""]), [text for text in texts if text is not None]


def _unquote(cell: str) -> str | None:
    """Return a cell without its quotes; None if only the csv module can tell what it means."""
    if '"' not in cell:
        return cell
    inner = cell[1:-1]
    return inner if cell == f'"{inner}"' and '"' not in inner else None


def _as_slice(columns: Sequence[int]) -> slice | list[int]:
    """Return an index for increasing columns that makes a view, if there is one."""
    is_range = columns[-1] - columns[0] + 1 == len(columns)
    return slice(columns[0], columns[-1] + 1) if is_range else list(columns)


def _parse_plain(block: bytes, n_columns: int, separator: bytes) -> np.ndarray | None:
    """Parse lines of numbers such as 12 and 0.75 by array operations.

    Parameters
    ----------
    block : bytes
        Whole lines, each ended by a newline.
    n_columns : int
        Number of cells in each line.
    separator : bytes
        The character between two cells.

    Returns
    -------
    ndarray of float64, shape (rows, n_columns), or None
        None if the block holds anything but digits, points, separators and newlines, or a number of
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
    n_separators, n_newlines = block.count(separator), block.count(b"\n")
    if n_left or n_newlines != n_rows or n_separators + n_newlines != len(ends):
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


def _simplify(block: bytes, separator: bytes) -> bytes:
    """Remove what `_parse_plain` does not accept but whole files have: spaces, a last separator."""
    for old in (b" " + separator, separator + b" "):
        block = block.replace(old, separator)
    return block.replace(b"\n\n", b"\n").replace(separator + b"\n", b"\n")


def _fits_float32(numbers: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.isfinite(numbers.astype(np.float32))


def _pixel_fault(cell: str) -> str:
    """Return what is wrong with a cell and what would be right; "" for a good pixel."""
    if DECIMAL_COMMA.fullmatch(cell):
        return "is not a number, but has a decimal comma: write decimals with a point, as in 0.5"
    if not is_number(cell):
        return "is not a number: write the label and the pixels in digits"
    if not _fits_float32(np.array(float(cell))):
        return "is not a finite number: pixels are 0 to 255 as a rule"
    return ""
