"""Predict the labels of images with a saved model: run.py --predict."""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from training.cli.arguments import DEFAULT_MODEL
from training.cli.model_setup import set_threads
from training.cli.output_paths import check_output, write_table
from training.cli.summary import MAX_NAME
from training.datasets import load_predict_inputs
from training.model import Model
from training.reporting.text_table import format_table, shorten


def predict(args: argparse.Namespace) -> None:
    """Print the most probable classes of each image as a table, or write them to a CSV file."""
    path = args.from_path or DEFAULT_MODEL
    model = Model.load(path, args.backend, args.dtype)
    set_threads(model, args)
    if args.output is not None:
        check_output(args.output, [args.predict, path])
    names, images, labels, notes = load_predict_inputs(
        args.predict,
        model.input_format,
        model.input_stats,
        args.image_shape,
        args.label_column,
        args.scale,
    )
    for note in notes:
        print(note, file=sys.stderr)
    probabilities = model.predict_proba(images)
    # Of equal probabilities, the first class comes first, as with argmax.
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, : args.top]
    if args.output is None:
        shown = [shorten(name, MAX_NAME) for name in model.class_names]
        names_side = ">" if all(name.isdecimal() for name in shown) else "<"
        rows = top_rows(names, top, probabilities, shown)
        print("\n".join(format_table(rows, "<" + (names_side + ">") * top.shape[1])))
    else:
        write_table(top_rows(names, top, probabilities, model.class_names), args.output)
        print(f"{len(names):,} labels by {path} in {args.output}")
    if labels is not None:
        predicted = top[:, 0]
        print(f"accuracy {(predicted == labels).mean():.2%} on the labels in {args.predict}")


def top_rows(
    images: Sequence[str],
    top: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> list[list[str]]:
    """Return a head and a row for each image: its name, and its classes with their probabilities.

    The columns are image, label, probability, label_2, probability_2 and so on.

    Parameters
    ----------
    images : sequence of str
        Names of N images.
    top : (N, K) of int
        The classes to list for each image.
    probabilities : (N, classes)
    class_names : sequence of str
    """
    head = ["image"]
    for rank in range(1, top.shape[1] + 1):
        suffix = "" if rank == 1 else f"_{rank}"
        head += [f"label{suffix}", f"probability{suffix}"]
    rows = [head]
    for image, classes, shares in zip(images, top, probabilities, strict=True):
        cells = [(class_names[label], f"{shares[label]:.4f}") for label in classes]
        rows.append([image, *(cell for pair in cells for cell in pair)])
    return rows
