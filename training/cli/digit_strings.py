"""Predict rows of separate digits, such as a year: run.py --predict --digits auto."""

from typing import NamedTuple

import numpy as np

from training.cli.answers import UNSURE, UNSURE_BELOW, answer_probabilities
from training.datasets.parallel_map import map_in_threads
from training.datasets.predict_inputs import PredictInputs
from training.errors import InputError
from training.input_format import InputFormat
from training.model import Model
from training.preprocessing.preprocess import BLANK, INK
from training.reporting import input_sheet
from training.reporting.text_table import format_table

HEAD = ["image", "label", "probabilities", "preprocessing", "remarks"]


class DigitString(NamedTuple):
    """The characters of one picture, from left to right.

    Attributes
    ----------
    images : ndarray, shape (n, C, H, W)
        In the form of the training images.
    rule : str
        How they were brought to that form, see `training.preprocessing.preprocess`.
    remarks : tuple of str
        What makes the answer doubtful.
    """

    images: np.ndarray
    rule: str
    remarks: tuple[str, ...]


def read_strings(inputs: PredictInputs, like: InputFormat) -> list[DigitString]:
    """Return the characters of each picture.

    A picture in which there is one character, or none, is read as without --digits.

    Raises
    ------
    InputError
        The training images are not ink on a plain ground.
    """
    ink = like.ink
    if ink is None:
        raise InputError(
            "--digits auto is for a model whose training images are ink on a plain ground, which "
            "those of this model are not, or it was saved by an earlier version"
        )

    from training.preprocessing.digits import read_row  # SciPy is loaded where it is needed

    def read(index: int) -> DigitString:
        row = read_row(inputs.read_gray(index), ink, like.shape[1:])
        if len(row.images) < 2:
            image = inputs.images[index][np.newaxis]
            return DigitString(image, inputs.rules[index], inputs.remarks[index])
        remarks = tuple(f"shape {n + 1} may be digits that touch" for n in row.touching)
        return DigitString(row.images[:, np.newaxis], INK, remarks)

    return list(map_in_threads(read, len(inputs.names), "reading rows"))


def string_rows(model: Model, names: list[str], strings: list[DigitString]) -> list[list[str]]:
    """Return a head and a row for each picture.

    The columns are image; label, the names of the classes from left to right; probabilities, one
    for each; preprocessing; remarks.
    """
    images = np.concatenate([string.images for string in strings])
    probabilities = answer_probabilities(model, model.logits(images))
    ends = np.cumsum([len(string.images) for string in strings])[:-1]
    separator = "" if all(len(name) == 1 for name in model.class_names) else " "
    rows = [HEAD]
    for name, string, shares in zip(names, strings, np.split(probabilities, ends), strict=True):
        is_blank = BLANK in string.remarks
        labels = [model.class_names[label] for label in shares.argmax(axis=1)]
        text = "" if is_blank else separator.join(labels)
        best = shares.max(axis=1)
        remarks = string.remarks
        if best.min() < UNSURE_BELOW and not is_blank:
            remarks = (*remarks, UNSURE)
        numbers = "" if is_blank else " ".join(f"{share:.4f}" for share in best)
        rows.append([name, text, numbers, string.rule, "; ".join(remarks)])
    return rows


def string_entries(
    inputs: PredictInputs, strings: list[DigitString], rows: list[list[str]]
) -> list[input_sheet.Entry]:
    """Return what the sheet of --show_input shows of the rows of `string_rows`, 100 at most."""
    first = [bool(row[-1]) for row in rows[1:]]
    entries = []
    for index in input_sheet.choose(first):
        name, text, _, rule, remarks = rows[1 + index]
        entries.append(
            input_sheet.Entry(
                inputs.read_original(index),
                np.concatenate(list(strings[index].images), axis=-1),
                f"{name}\n{text or 'no answer'}",
                "; ".join(filter(None, (rule, remarks))),
                first[index],
            )
        )
    return entries


def format_strings(rows: list[list[str]]) -> list[str]:
    """Return the lines of a table for the terminal, without remarks if there are none."""
    n_columns = len(HEAD) if any(row[-1] for row in rows[1:]) else len(HEAD) - 1
    shown = [[cell or "-" for cell in row[:3]] + row[3:n_columns] for row in rows]
    return format_table(shown, "<" * n_columns)
