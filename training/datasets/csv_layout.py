"""Find how a CSV file is arranged: its separator, its header, and what each column holds."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from training.datasets.csv_text import (
    DECIMAL_COMMA,
    SPACES,
    check_text,
    is_blank,
    is_number,
    open_text,
    split_line,
    without_empty_end,
)
from training.errors import InputError

LABEL_NAMES = ("label", "class", "labels", "target")  # in any case; the first one that occurs
# pandas writes its index as the first column without a name, and reads that back as "Unnamed: 0".
INDEX_NAME = re.compile(r"|unnamed: \d+(\.\d+)?|index|id", re.IGNORECASE)
# pixel0, px_12, 7: a prefix and a number; 1x28, r3_4: a prefix, and a row and a column.
PIXEL_NAME = re.compile(r"(.*?)(\d{1,9})(?:([x_-])(\d{1,9}))?", re.IGNORECASE | re.ASCII)
MIN_COUNTING = 32  # so many numbers that count up from 0 or 1 are no image


class Table(NamedTuple):
    """What the first lines of a CSV file show."""

    path: Path
    separator: str
    n_columns: int
    names: tuple[str, ...] | None  # None without a header
    n_skipped: int  # lines up to and including the header
    n_bytes: int  # of the text

    @property
    def n_index_columns(self) -> int:
        """The number of columns at the start that number the images."""
        return min(count_index_columns(self.names or ()), self.n_columns - 2)


class Layout(NamedTuple):
    """How the cells of a CSV file are arranged. Columns are counted from 0."""

    separator: str
    n_columns: int
    n_skipped: int  # lines up to and including the header
    max_rows: int  # upper bound on the number of rows, computed from the file size
    label_column: int | None  # None if there are no labels
    pixel_columns: tuple[int, ...]  # in the order of the pixels of an image


def inspect_table(path: Path, label_column: str | None = None) -> Table:
    """Find the separator, the number of columns and the header in the first two lines.

    Parameters
    ----------
    path : Path
        The whole file is read, to check that it is text.
    label_column : str, optional
        The name or position that the user gave.

    Raises
    ------
    InputError
        The file is not text, is empty, or its first lines are not alike.
    """
    n_bytes = check_text(path)
    with open_text(path) as text:
        lines = ((number, line) for number, line in enumerate(text, 1) if not is_blank(line))
        top = list(itertools.islice(lines, 2))
    if not top:
        raise InputError(f"{path}: is empty: write one image a line, label,pixel,pixel,...")
    separator = _find_separator([line for _, line in top])
    (number, first), *below = [
        (number, [cell.strip(SPACES) for cell in split_line(line, separator)])
        for number, line in top
    ]
    names = without_empty_end(first)
    has_header = _is_header(names, label_column)
    if has_header and not below:
        raise InputError(
            f"{path}, line {number}: no image follows the header: write one image a line, "
            "label,pixel,pixel,..."
        )
    if len(names) < 2:
        raise InputError(
            f"{path}, line {number}: has {len(names)} cells: write one image a line, "
            "label,pixel,pixel,... with commas between"
        )
    for number_below, cells in below:
        if len(without_empty_end(cells)) != len(names):
            raise ragged_line(path, number_below, cells, len(names))
    header = tuple(names) if has_header else None
    return Table(path, separator, len(names), header, number if has_header else 0, n_bytes)


def _find_separator(lines: list[str]) -> str:
    """Return what separates the cells of the first lines of a file.

    It is a semicolon or a tab if all of these lines have it, and none of the cells in the last of
    them holds another separator, but for a single comma between other characters. That comma marks
    the decimals of a number, which an error message explains. Otherwise it is a comma.
    """
    for separator in ";\t":
        others = {";", "\t", ","} - {separator}
        cells = [cell.strip(SPACES) for cell in split_line(lines[-1], separator)]
        if all(separator in line.rstrip() for line in lines) and all(
            sum(cell.count(other) for other in others) == (1 if "," in cell[1:-1] else 0)
            for cell in cells
        ):
            return separator
    return ","


def _is_header(cells: list[str], label_column: str | None) -> bool:
    """Return whether cells are names of columns, and not an image with a mistyped label."""
    if not cells:
        return False
    start = count_index_columns(cells)
    named = find_name(cells, label_column)
    if named is None or is_number(cells[named]):  # a position, or the name of a pixel
        named = find_name(cells, None)
    label = min(start, len(cells) - 1) if named is None else named
    others = cells[start:label] + cells[label + 1 :]
    # Columns may be named by numbers that count up by one. The pixels of no real image do that.
    if len(cells) >= MIN_COUNTING and _is_counting(cells):
        return True
    if not start and _is_any_number(cells[label]):
        return False
    if named is not None and _is_counting(sorted(others, key=lambda name: (len(name), name))):
        return True  # in any order
    if _is_counting(others) or (start and _is_counting(cells[start:])):
        return True
    return 2 * sum(map(_is_any_number, others)) <= len(others)


def _is_any_number(cell: str) -> bool:
    return is_number(cell) or DECIMAL_COMMA.fullmatch(cell) is not None


def _is_counting(names: list[str]) -> bool:
    """Return whether names are the whole numbers from 0 or 1, in order."""
    return any(names == [str(start + i) for i in range(len(names))] for start in (0, 1))


def count_index_columns(names: Sequence[str]) -> int:
    """Return the number of columns at the start whose names are those of an index of the images."""
    return sum(1 for _ in itertools.takewhile(INDEX_NAME.fullmatch, names))


def find_name(names: Sequence[str], label_column: str | None) -> int | None:
    """Return the place of the column of labels by its name; None if no column has such a name.

    It is the name that the user gave, or one of `LABEL_NAMES`.
    """
    lower = [name.lower() for name in names]
    if label_column is not None:
        for searched, columns in ((label_column, list(names)), (label_column.lower(), lower)):
            if searched in columns:
                return columns.index(searched)
        return None
    return next((lower.index(name) for name in LABEL_NAMES if name in lower), None)


def find_label_column(table: Table, label_column: str | None) -> int | None:
    """Return the column of labels, from 0; None if neither the user nor the header names it.

    Parameters
    ----------
    table : Table
    label_column : str or None
        A name in the header, or, if no column has that name, a position from 1.

    Raises
    ------
    InputError
        There is no such column.
    """
    column = find_name(table.names or (), label_column)
    if column is not None or label_column is None:
        return column
    if label_column.isascii() and label_column.isdecimal():
        if not 1 <= int(label_column[:9]) <= table.n_columns:
            raise InputError(
                f"{table.path}: has no column {label_column[:40]} for --label_column: its columns "
                f"are 1 to {table.n_columns}"
            )
        return int(label_column[:9]) - 1
    if table.names is None:
        raise InputError(
            f"{table.path}: has no header, in which --label_column {label_column[:40]!r} could be "
            f"a name: give a position from 1 to {table.n_columns}"
        )
    shown = ", ".join(repr(name[:40]) for name in table.names[:3])
    raise InputError(
        f"{table.path}: has no column called {label_column[:40]!r} for --label_column: the header "
        f"is {shown}{', ...' if table.n_columns > 3 else ''}"
    )


def arrange_columns(table: Table, label_column: int | None) -> Layout:
    """Return the layout of a table whose column of labels is known; None if it has no labels."""
    columns = [c for c in range(table.n_index_columns, table.n_columns) if c != label_column]
    if table.names is not None:
        keys = pixel_numbers([table.names[column] for column in columns])
        if keys is not None:
            columns = [column for _, column in sorted(zip(keys, columns, strict=True))]
    # A pixel is a digit and a separator at least; an index may be an empty cell.
    least_bytes = 2 * len(columns) + table.n_columns - len(columns)
    max_rows = (table.n_bytes + 1) // least_bytes
    return Layout(
        table.separator, table.n_columns, table.n_skipped, max_rows, label_column, tuple(columns)
    )


def pixel_numbers(names: Sequence[str]) -> list[tuple[int, int]] | None:
    """Return the place that the name of each pixel gives; None if the names give none.

    All names must be the same prefix, before a number or before a row and a column, and no two
    may be equal.

    Examples
    --------
    >>> pixel_numbers(["pixel10", "pixel9"]), pixel_numbers(["1x2", "1x1"])
    ([(10, 0), (9, 0)], [(1, 2), (1, 1)])
    >>> pixel_numbers(["a1", "b2"]), pixel_numbers(["a1", "a01"])
    (None, None)
    """
    matches = [PIXEL_NAME.fullmatch(name) for name in names]
    forms = {match and (match[1], match[3]) for match in matches}
    if len(forms) != 1 or None in forms:
        return None
    keys = [(int(match[2]), int(match[4] or 0)) for match in matches if match]
    return keys if len(set(keys)) == len(keys) else None


def ragged_line(path: Path, number: int, cells: list[str], n_columns: int) -> InputError:
    """Return the error for a line that has another number of cells than the first one."""
    return InputError(
        f"{path}, line {number}: has {len(without_empty_end(cells))} cells, and the first line "
        f"has {n_columns}: give every line its label and the same number of pixels"
    )
