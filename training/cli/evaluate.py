"""Measure the accuracy of a saved model: run.py --test."""

import argparse
import sys
import unicodedata
from pathlib import Path

import numpy as np

from training.cli.answers import add_unsure, answer_probabilities, draw_answers
from training.cli.arguments import DEFAULT_MODEL
from training.cli.flag_types import AUTO
from training.cli.input_data import check_shape, load_named, match_classes, read_images
from training.cli.model_setup import load_for_answers
from training.cli.output_paths import check_report, check_sheet, write_text
from training.cli.summary import summarize
from training.datasets import load_predict_inputs
from training.datasets.dataset import ReadOptions
from training.datasets.load import holds_pictures
from training.datasets.parquet_file import is_parquet_folder
from training.datasets.resize import fit_scale
from training.errors import InputError
from training.model import Model
from training.saving import report_file


def evaluate(args: argparse.Namespace) -> None:
    """Print, draw and report the measures of a saved model on test images."""
    path = args.from_path or DEFAULT_MODEL
    model = load_for_answers(path, args)
    if args.report is not None:
        check_report(args.report)
    _check_pictures(args)
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
    if args.show_input is not None:
        print(_show_input(args, model, Path(data.source)))
    if args.report is not None:
        document = report_file.to_document(path, data.source, model.class_names, *summary)
        write_text("--report", args.report, report_file.to_text(document))
        print(f"report: {args.report}")


def _check_pictures(args: argparse.Namespace) -> None:
    """Raise InputError if flags for pictures were given, and the test images are no pictures."""
    path = args.test_data
    if args.preprocess != AUTO and (path is None or not holds_pictures(path)):
        raise InputError(
            "--preprocess is for pictures: give a folder or a Parquet file of them with --test_data"
        )
    if args.show_input is not None:
        if path is None or not path.is_dir() or is_parquet_folder(path):
            raise InputError(
                "--show_input is for files of pictures: give a folder of them with --test_data"
            )
        check_sheet(args.show_input, path)


def _show_input(args: argparse.Namespace, model: Model, folder: Path) -> str:
    """Draw pictures of a folder of class folders with their answers; return a line on the sheet.

    The pictures are read once more, because a data set does not keep the names of its files.
    """
    # Without ink, --predict inverts some pictures that --test leaves as they are.
    mode = "none" if model.ink_stats is None else args.preprocess
    inputs = load_predict_inputs(folder, model.input_format, mode=mode)
    probabilities = answer_probabilities(model, model.logits(inputs.images))
    classes = [unicodedata.normalize("NFC", name.split("/")[0]) for name in inputs.names]
    labels = np.array([model.class_names.index(name) for name in classes])
    remarks = add_unsure(inputs.remarks, probabilities)
    return draw_answers(args.show_input, model, inputs, probabilities, remarks, labels)
