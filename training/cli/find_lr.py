"""Suggest a learning rate for a new model: run.py --find_lr."""

import argparse

from training.cli.architectures import Networks
from training.cli.arguments import CLASS_WEIGHTS
from training.cli.input_data import load_data
from training.cli.model_setup import get_augmenter, prepare
from training.cli.output_paths import prepare_folder, sibling_path
from training.cli.summary import plots_wanted
from training.lr_finder import find_learning_rate
from training.reporting import plots


def find_lr(args: argparse.Namespace, networks: Networks) -> None:
    """Print a good learning rate for a new model, and plot the losses that it follows from."""
    path = sibling_path(args.to_path, "find_lr.png")
    if not args.no_plots:
        prepare_folder(path)
    data = load_data(args)
    model, training, validation = prepare(args, data, networks)
    augmenter = get_augmenter(args, model, training, validation, print)
    rates, losses, best = find_learning_rate(
        model, *training, args.batch_size, augmenter, CLASS_WEIGHTS[args.class_weight]
    )
    print(
        f"tried {len(rates)} steps from {rates[0]:g} to {rates[-1]:.2g}; the loss is lowest, "
        f"{losses.min():.3f}, at {2 * best:.2g}\nsuggestion: --learning_rate {best:.2g}"
    )
    if plots_wanted(args.no_plots, print):
        plots.rates(rates, losses, best, path)
        print(f"plot: {path}")
