"""Describe the training images and draw examples: run.py --show_data."""

import argparse

import numpy as np

from training.cli.architectures import Networks
from training.cli.input_data import load_data
from training.cli.model_setup import get_augmenter, prepare
from training.cli.output_paths import prepare_folder, sibling_path
from training.errors import InputError
from training.reporting import plots
from training.reporting.data_account import describe


def show_data(args: argparse.Namespace, networks: Networks) -> None:
    """Print the account of the data, and draw images of each class, also augmented."""
    if not plots.can_draw():
        raise InputError(f"--show_data needs matplotlib: {plots.INSTALL}")
    path = sibling_path(args.to_path, "data.png")
    prepare_folder(path)
    data = load_data(args)
    print("\n".join(describe(data)), flush=True)
    model, training, validation = prepare(args, data, networks)
    augmenter = get_augmenter(args, model, training, validation, print)
    rng = np.random.default_rng(model.seed)
    examples = plots.choose_examples(data.labels, data.n_classes, rng)
    images = np.array(data.images[np.concatenate(examples)])
    augmented = augmenter.fitted(training[0], model.mean)(images, rng, model.backend)
    plots.examples(examples, images, augmented, data.class_names, path)
    print(f"examples, each with an augmented copy (--augment {args.augment}): {path}")
