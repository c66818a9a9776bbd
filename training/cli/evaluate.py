"""Measure the accuracy of a saved model: run.py --test."""

import argparse
import sys

from training.cli.arguments import DEFAULT_MODEL
from training.cli.input_data import check_shape, load_named, match_classes, read_images
from training.cli.model_setup import set_threads
from training.cli.output_paths import check_report, write_text
from training.cli.summary import summarize
from training.datasets.dataset import ReadOptions
from training.datasets.resize import fit_scale
from training.model import Model
from training.saving import report_file


def evaluate(args: argparse.Namespace) -> None:
    """Print, draw and report the measures of a saved model on test images."""
    path = args.from_path or DEFAULT_MODEL
    model = Model.load(path, args.backend, args.dtype)
    set_threads(model, args)
    if args.report is not None:
        check_report(args.report)
    if args.test_data is not None:
        data = read_images(
            args, args.test_data, model.input_format, part="test", preprocess=args.preprocess
        )
    else:
        _, data = load_named(args.dataset, args.data_dir)
        data = fit_scale(data, ReadOptions(like=model.input_format, scale=args.scale))
    for note in data.notes:
        print(note, file=sys.stderr)
    check_shape(data, model.input_shape, path)
    hint = "name its own test images with --test_data or --dataset"
    data = match_classes(data, model.class_names, path, hint)
    print(f"{path} on {data.source}")
    # The history in a model's file ends at its best epoch. The plot of the whole run shows more,
    # and is not replaced.
    summary = summarize(
        model,
        data.images,
        data.labels,
        "test",
        path,
        no_plots=args.no_plots,
        print_line=print,
        history=False,
    )
    if args.report is not None:
        document = report_file.to_document(path, data.source, model.class_names, *summary)
        write_text("--report", args.report, report_file.to_text(document))
        print(f"report: {args.report}")
