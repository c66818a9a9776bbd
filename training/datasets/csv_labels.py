"""The labels of a CSV file: which cells are labels, and which classes they are."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.datasets.csv_text import DECIMAL_COMMA, SPACES, is_number
from training.datasets.dataset import encode_strings, index_labels, list_names
from training.errors import InputError

MAX_LABEL = 2**53  # whole numbers up to it are exact in float64
MAX_LABEL_CHARACTERS = 100
MAX_DIFFERENT_LABELS = 100_000
MAX_SINGLE_CLASSES = 20  # a table of so many classes may have one image of each


class LabelEncoder:
    """Turn labels into numbers as lines are read, and these into classes at the end.

    A label is a whole number from 0, or text. ``1``, ``1.0`` and ``01`` are the same number. NaN,
    infinity, fractions, negative numbers and empty cells are no labels. Text and numbers may occur
    together, such as A to Z and 0 to 9, if more than half of the labels are text; otherwise a text
    is taken as mistyped.

    Parameters
    ----------
    path : Path
        The file that an error message names.
    column : int or None
        The column of the labels, from 0; None if the file has none.
    class_names : sequence of str or None
        Names of the classes if they are known, as for ``dataset.encode_numbers``.
    """

    def __init__(self, path: Path, column: int | None, class_names: Sequence[str] | None):
        self._path, self._column, self._class_names = path, column, class_names
        self._known = None if class_names is None else index_labels(class_names)
        self._codes: dict[str, int] = {}  # by cell; those of one label are the same
        self._texts: dict[str, int] = {}  # their codes
        self._lines: list[int] = []  # where each text occurs first

    def encode(self, cell: str, line: int) -> int:
        """Return the code of a label: the number that it is, or one below 0 for text.

        Parameters
        ----------
        cell : str
        line : int
            Its line in the file.

        Raises
        ------
        InputError
            Naming the line and the column of a cell that is no label.
        """
        cell = cell.strip(SPACES)
        code = self._codes.get(cell)
        if code is None:
            fault = _label_fault(cell)
            if not fault and self._known is not None and _standard_name(cell) not in self._known:
                assert self._class_names is not None
                fault = (
                    f"is not a label: there are {len(self._class_names)} classes, "
                    f"{list_names(self._class_names)}"
                )
            if fault:
                raise self._cell_error(cell, line, fault)
            code = self._codes[cell] = self._add(_standard_name(cell), line)
        return code

    def _add(self, name: str, line: int) -> int:
        if len(self._codes) > MAX_DIFFERENT_LABELS:
            raise self._no_classes(f"holds more than {MAX_DIFFERENT_LABELS:,} different labels")
        if is_number(name):
            return int(name)
        if name not in self._texts:
            self._texts[name] = -1 - len(self._texts)
            self._lines.append(line)
        return self._texts[name]

    def are_labels(self, numbers: np.ndarray) -> bool:
        """Return whether numbers (N,) from 0, exact in float64, are all labels.

        Where they are not, `encode` says why.
        """
        if self._known is None:
            return bool((numbers % 1 == 0).all())
        present = np.unique(numbers).tolist()
        return all(number.is_integer() and str(int(number)) in self._known for number in present)

    def decode(self, codes: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the class of each image and the names of the classes.

        Parameters
        ----------
        codes : ndarray of int64, shape (N,)
            What `encode` returned, or the numbers for which `are_labels` is true.

        Raises
        ------
        InputError
            For training images: there are fewer than two classes; a text among numbers; or most
            labels occur once, so that they are no classes.
        """
        present, counts = np.unique(codes, return_counts=True)
        texts = list(self._texts)
        if self._class_names is None:
            if texts and 2 * counts[present < 0].sum() <= len(codes):
                fault = "is not a number, as most labels are: write the label in digits"
                raise self._cell_error(texts[0], self._lines[0], fault)
            n_single = int((counts == 1).sum())
            if len(present) > MAX_SINGLE_CLASSES and 2 * n_single > len(present):
                raise self._no_classes(f"has {n_single} labels that occur once")
        names = [texts[-1 - code] if code < 0 else str(code) for code in present.tolist()]
        indices = np.searchsorted(present, codes)
        return encode_strings(str(self._path), indices, names, self._class_names)

    def _cell_error(self, cell: str, line: int, fault: str) -> InputError:
        assert self._column is not None
        return cell_error(self._path, line, self._column, cell, fault)

    def _no_classes(self, found: str) -> InputError:
        assert self._column is not None
        return InputError(
            f"{self._path}: its column {self._column + 1} {found}, which are no classes: name the "
            "column of labels with --label_column"
        )


def cell_error(path: Path, line: int, column: int, cell: str, fault: str) -> InputError:
    """Return the error for a cell, whose column is counted from 0."""
    return InputError(f"{path}, line {line}, column {column + 1}: {cell[:40]!r} {fault}")


def _standard_name(label: str) -> str:
    """Return the name of a label's class: "1" for "1.0" and "01"."""
    return str(int(float(label))) if is_number(label) else label


def _label_fault(cell: str) -> str:
    """Return why a cell is no label, and what would be right; "" if it may be one."""
    if not cell:
        return "is not a label: write the label of every image"
    if is_number(cell):
        number = float(cell)
        if not number >= 0 or number % 1 != 0:  # also NaN and infinity
            return "is not a label: labels are whole numbers from 0, or names"
        return "is not a label, but too large: number the classes from 0" * (number > MAX_LABEL)
    if DECIMAL_COMMA.fullmatch(cell):
        return "is not a label: it has a decimal comma, and labels are whole numbers from 0"
    if len(cell) > MAX_LABEL_CHARACTERS:
        return f"is not a label: names have at most {MAX_LABEL_CHARACTERS} characters"
    if not cell.isprintable():
        return "is not a label: it has characters that cannot be printed: write it in digits"
    return ""
