"""Measure the accuracy of a saved model: run.py --test."""

import argparse

from training.cli.arguments import DEFAULT_MODEL
from training.cli.input_data import check_classes, check_shape, load_named, read_images
from training.cli.model_setup import set_threads
from training.cli.summary import summarize
from training.model import Model


def evaluate(args: argparse.Namespace) -> None:
    """Print and draw the accuracy of a saved model on test images."""
    path = args.from_path or DEFAULT_MODEL
    model = Model.load(path, args.backend, args.dtype)
    set_threads(model, args)
    if args.test_data is not None:
        data = read_images(args, args.test_data, model.input_format, part="test")
    else:
        _, data = load_named(args.dataset, args.data_dir)
    check_shape(data, model.input_shape, path)
    check_classes(
        data, model.classes, path, "name its own test images with --test_data or --dataset"
    )
    print(f"{path} on {data.source}")
    # The history in a model's file ends at its best epoch. The plot of the whole run shows more,
    # and is not replaced.
    summarize(
        model,
        data.images,
        data.labels,
        "test",
        path,
        no_plots=args.no_plots,
        print_line=print,
        history=False,
    )
