"""Describe the training images and draw examples: run.py --show_data."""

import argparse

import numpy as np

from kernels import get_backend
from training.augmentation import AUGMENTERS
from training.cli.input_data import load_data
from training.cli.output_paths import prepare_folder, sibling_path
from training.errors import InputError
from training.reporting import plots
from training.reporting.data_account import describe


def show_data(args: argparse.Namespace) -> None:
    """Print the account of the data, and draw images of each class, also augmented."""
    if not plots.can_draw():
        raise InputError(f"--show_data needs matplotlib: {plots.INSTALL}")
    path = sibling_path(args.to_path, "data.png")
    prepare_folder(path)
    data = load_data(args)
    print("\n".join(describe(data)))
    rng = np.random.default_rng(args.seed or 0)
    examples = plots.choose_examples(data.labels, data.n_classes, rng)
    images = np.array(data.images[np.concatenate(examples)])
    augmented = AUGMENTERS[args.augment]()(images, rng, get_backend(args.backend))
    plots.examples(examples, images, augmented, data.class_names, path)
    print(f"examples, each with an augmented copy (--augment {args.augment}): {path}")
