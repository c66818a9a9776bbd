"""Predict the labels of images with a saved model: run.py --predict."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.cli.answers import (
    REMARKS_FIRST,
    UNSURE,
    UNSURE_BELOW,
    add_unsure,
    answer_probabilities,
    describe_sheet,
    draw_answers,
)
from training.cli.arguments import DEFAULT_MODEL
from training.cli.digit_strings import format_strings, read_strings, string_entries, string_rows
from training.cli.flag_types import AUTO
from training.cli.model_setup import load_for_answers
from training.cli.output_paths import check_output, check_sheet, write_table
from training.cli.summary import MAX_NAME
from training.datasets import load_predict_inputs
from training.datasets.predict_inputs import PredictInputs
from training.model import Model
from training.preprocessing.preprocess import AS_IT_IS, BLANK, count_rules
from training.reporting import input_sheet
from training.reporting.text_table import format_table, shorten

MAX_LISTED_RULES = 20  # of more images, the table shows no rules: their numbers are printed
NO_ANSWER = "-"


def predict(args: argparse.Namespace) -> None:
    """Print the most probable classes of each image as a table, or write them to a CSV file."""
    path = args.from_path or DEFAULT_MODEL
    model = load_for_answers(path, args)
    if args.output is not None:
        check_output(args.output, [args.predict, path])
    if args.show_input is not None:
        check_sheet(args.show_input, args.predict)
    inputs = load_predict_inputs(
        args.predict,
        model.input_format,
        args.image_shape,
        args.label_column,
        args.scale,
        args.preprocess,
    )
    for note in inputs.notes:
        print(note, file=sys.stderr)
    is_gray, is_measured = model.input_shape[0] == 1, model.input_stats.mean is not None
    is_changed = any(rule != AS_IT_IS for rule in inputs.rules)
    if args.preprocess == AUTO and is_gray and not is_measured and is_changed:
        print(
            f"{path}: is of an earlier version, which did not measure its training images: ink on "
            "paper is not looked for; train it again for that",
            file=sys.stderr,
        )
    if args.digits == AUTO:
        _predict_strings(args, model, path, inputs)
        return
    probabilities = answer_probabilities(model, model.logits(inputs.images))
    # Of equal probabilities, the first class comes first, as with argmax.
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, : args.top]
    remarks = add_unsure(inputs.remarks, probabilities)
    if args.output is None:
        shown = [shorten(name, MAX_NAME) for name in model.class_names]
        rows = answer_rows(inputs, top, probabilities, shown, remarks)
        print("\n".join(_format_answers(rows, shown)))
    else:
        rows = answer_rows(inputs, top, probabilities, model.class_names, remarks)
        _write_answers(rows, path, args.output)
    for line in _describe(inputs, remarks, listed=args.output is None):
        print(line)
    if inputs.labels is not None:
        is_answered = np.array([BLANK not in remark for remark in remarks])
        is_right = (top[:, 0] == inputs.labels) & is_answered
        print(f"accuracy {is_right.mean():.2%} on the labels in {args.predict}")
    if args.show_input is not None:
        print(draw_answers(args.show_input, model, inputs, probabilities, remarks))


def _predict_strings(
    args: argparse.Namespace, model: Model, path: Path, inputs: PredictInputs
) -> None:
    """Print or write the digits of each picture, from left to right."""
    strings = read_strings(inputs, model.input_format)
    rows = string_rows(model, inputs.names, strings)
    if args.output is None:
        print("\n".join(format_strings(rows)))
    else:
        _write_answers(rows, path, args.output)
    if args.show_input is not None:
        entries = string_entries(inputs, strings, rows)
        input_sheet.draw(entries, model.input_stats, args.show_input)
        print(describe_sheet(args.show_input, len(entries), len(rows) - 1, REMARKS_FIRST))


def _write_answers(rows: list[list[str]], model_path: Path, output: Path) -> None:
    """Write a head and the rows of images as CSV, and print how many there are."""
    write_table(rows, output)
    print(f"{len(rows) - 1:,} labels by {model_path} in {output}")


def answer_rows(
    inputs: PredictInputs,
    top: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    remarks: Sequence[tuple[str, ...]],
) -> list[list[str]]:
    """Return a head and a row for each image: its name, its classes with their probabilities.

    The columns are image, label, probability, label_2, probability_2 and so on; preprocessing, the
    rule of `training.preprocessing.preprocess` that was applied; and remarks. The cells of classes
    are empty for a blank page.

    Parameters
    ----------
    inputs : PredictInputs
        N images.
    top : (N, K) of int
        The classes to list for each image.
    probabilities : (N, classes)
    class_names : sequence of str
    remarks : sequence of tuple of str
    """
    head = ["image"]
    for rank in range(1, top.shape[1] + 1):
        suffix = "" if rank == 1 else f"_{rank}"
        head += [f"label{suffix}", f"probability{suffix}"]
    rows = [[*head, "preprocessing", "remarks"]]
    for image, classes, shares, rule, found in zip(
        inputs.names, top, probabilities, inputs.rules, remarks, strict=True
    ):
        cells = [cell for label in classes for cell in (class_names[label], f"{shares[label]:.4f}")]
        if BLANK in found:
            cells = [""] * len(cells)
        rows.append([image, *cells, rule, "; ".join(found)])
    return rows


def _format_answers(rows: list[list[str]], class_names: Sequence[str]) -> list[str]:
    """Return the lines of a table for the terminal, without columns that say nothing."""
    names_side = ">" if all(name.isdecimal() for name in class_names) else "<"
    n_classes = (len(rows[0]) - 3) // 2
    has_rules = len(rows) - 1 <= MAX_LISTED_RULES
    has_remarks = any(row[-1] for row in rows[1:])
    shown = [
        [
            row[0],
            *(cell or NO_ANSWER for cell in row[1:-2]),
            *row[-2:-1][: int(has_rules)],
            *row[-1:][: int(has_remarks)],
        ]
        for row in rows
    ]
    sides = "<" + (names_side + ">") * n_classes + "<" * (has_rules + has_remarks)
    return format_table(shown, sides)


def _describe(inputs: PredictInputs, remarks: Sequence[tuple[str, ...]], listed: bool) -> list[str]:
    """Return the lines below the table: what was done with how many images, and what is unsure."""
    lines = []
    if not listed or len(inputs.names) > MAX_LISTED_RULES:
        lines += count_rules(inputs.rules, inputs.remarks)
    n_unsure = sum(UNSURE in found for found in remarks)
    if n_unsure:
        lines.append(
            f"unsure (a probability below {UNSURE_BELOW}): {n_unsure:,} of {len(remarks):,}"
        )
    return lines
