"""The flags that each action of run.py uses, and flags that exclude each other."""

import argparse
from collections.abc import Mapping
from typing import Any

from training.cli.flag_types import AUTO

DATA_FLAGS = (
    *("dataset", "data_dir", "train_data"),
    *("image_shape", "image_size", "color", "resize", "label_column"),
)
# The flags that these actions use. Any other flag is an error, because it would be ignored.
ALLOWED_FLAGS = {
    "test": {
        *("dataset", "data_dir", "test_data", "image_shape", "label_column", "scale"),
        *("preprocess", "show_input", "no_plots", "report", "tta"),
    },
    "predict": {
        *("image_shape", "label_column", "scale", "preprocess", "output", "top", "show_input"),
        *("digits", "tta"),
    },
    "show_data": {*DATA_FLAGS, "test_data", "to_path", "augment", "validation_split", "seed"},
    "find_lr": {
        *DATA_FLAGS,
        *("to_path", "arch", "no_plots"),
        *("batch_size", "optimizer", "weight_decay", "label_smoothing", "clip_norm", "augment"),
        *("class_weight", "validation_split", "seed"),
    },
}
for _flags in ALLOWED_FLAGS.values():
    _flags |= {"from_path", "backend", "dtype", "threads"}


def check_conflicts(
    parser: argparse.ArgumentParser, args: argparse.Namespace, typed: Mapping[str, Any]
) -> None:
    """Exit with an error if an action does not use a flag, or if two flags exclude each other.

    Parameters
    ----------
    parser : ArgumentParser
    args : Namespace
        The value of each flag.
    typed : dict of str to object
        The flags in the command line, without the defaults of others.
    """
    if args.dataset and args.train_data:
        parser.error("--dataset and --train_data both name the training images: give one")
    if args.from_path and args.seed is not None:
        parser.error("--seed is for a new model: the model in --from_path keeps its own seed")
    if args.from_path and args.arch is not None:
        parser.error("--arch is for a new model: the model in --from_path has its layers already")
    if args.augment == "none" and args.augmenter_ratio > 1:
        parser.error("--augmenter_ratio adds augmented copies, and --augment none makes none")
    if args.test and args.dataset and args.test_data:
        parser.error("--dataset and --test_data both name the test images: give one")
    if args.test and args.train_data:
        parser.error("--test uses the images of --test_data, not of --train_data")
    if args.predict and (args.train_data or args.test_data or args.dataset):
        parser.error("--predict cannot be combined with --train_data, --test_data or --dataset")
    if args.find_lr and args.from_path:
        parser.error("--find_lr trains a new model, not the one in --from_path")
    if args.output and not args.predict:
        parser.error("--output is for the labels of --predict")
    if "top" in typed and not args.predict:
        parser.error("--top is for the classes of --predict")
    if "digits" in typed and not args.predict:
        parser.error("--digits is for the pictures of --predict")
    if "top" in typed and args.digits == AUTO:
        parser.error("--top is for the classes of one digit, and --digits auto reads several")
    if args.preprocess == "none" and args.digits == AUTO:
        parser.error("--preprocess none looks for no ink, and --digits auto reads rows of it")
    if "preprocess" in typed and not (args.predict or args.test):
        parser.error("--preprocess is for the images of --predict and --test")
    if args.show_input and not (args.predict or args.test):
        parser.error("--show_input is for the images of --predict and --test")
    if args.report and not args.test:
        parser.error("--report is for the measures of --test")
    if args.image_shape and not (args.train_data or args.test_data or args.predict):
        parser.error("--image_shape is for a CSV file, of --train_data, --test_data or --predict")
    for flag in ("image_size", "color", "resize"):
        if getattr(args, flag) and args.from_path:
            parser.error(f"--{flag} is for a new model: the model in --from_path has its own")
    if args.label_column and not (args.train_data or args.test_data or args.predict):
        parser.error("--label_column is for a CSV file: name it with --train_data or --test_data")
    if args.scale and not (
        args.predict or args.test or args.from_path or args.resume or args.test_data
    ):
        parser.error("--scale is for a saved model: training images have the scale that they have")
    if args.data_dir and args.dataset == "mnist-5k":
        parser.error("--data_dir has no effect on mnist-5k, which is part of the program")
    if args.data_dir and (args.train_data or (args.test and args.test_data)):
        parser.error("--data_dir is for a --dataset, and your own files are named by their paths")
    for action, flags in ALLOWED_FLAGS.items():
        if action in typed and (ignored := sorted(set(typed) - flags - {action})):
            hint = ": name the model with --from_path" if "to_path" in ignored else ""
            parser.error(f"--{ignored[0]} is for training, and --{action} does not use it{hint}")
