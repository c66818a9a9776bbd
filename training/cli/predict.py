"""Predict the labels of images with a saved model: run.py --predict."""

import argparse
import sys

from training.cli.arguments import DEFAULT_MODEL
from training.cli.model_setup import set_threads
from training.cli.output_paths import check_output, write_table
from training.datasets import load_predict_inputs
from training.model import Model


def predict(args: argparse.Namespace) -> None:
    """Print the label of each image as a table, or write the labels to a CSV file."""
    path = args.from_path or DEFAULT_MODEL
    model = Model.load(path, args.backend, args.dtype)
    set_threads(model, args)
    if args.output is not None:
        check_output(args.output, [args.predict, path])
    names, images, labels, notes = load_predict_inputs(
        args.predict, model.input_format, model.input_stats, args.image_shape
    )
    for note in notes:
        print(note, file=sys.stderr)
    probabilities = model.predict_proba(images)
    predicted = probabilities.argmax(axis=1)
    rows = [
        (name, label, f"{row[label]:.4f}")
        for name, label, row in zip(names, predicted, probabilities, strict=True)
    ]
    if args.output is None:
        width = max(5, *map(len, names))
        print(f"{'image':<{width}}  label  probability")
        for name, label, probability in rows:
            print(f"{name:<{width}}  {label:>5}  {probability:>11}")
    else:
        write_table([("image", "label", "probability"), *rows], args.output)
        print(f"{len(rows):,} labels by {path} in {args.output}")
    if labels is not None:
        print(f"accuracy {(predicted == labels).mean():.2%} on the labels in {args.predict}")
