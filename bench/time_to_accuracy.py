"""Measure how the test accuracy grows with the seconds of training, beside PyTorch.

    .venv/bin/python -m bench.time_to_accuracy
    .venv/bin/python -m bench.time_to_accuracy --name cifar10 --train_data train/ \\
        --test_data test/ --augment shift,flip --targets 0.9 0.93

Both train run.py's default network for such images, from the same weights, with the same recipe, on
the same batches of the same augmenter. The seconds are those of the steps with their batches; those
of the tests, which are done after each epoch without test-time augmentation, are left out. Kernels
are compiled before. PyTorch runs eagerly in the faster of its two layouts.
"""

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

import run
from bench.common import (
    COLORS,
    CORES,
    choose_outputs,
    describe,
    duration,
    has_default_settings,
    import_pyplot,
    machine,
    make_parser,
    results_folder,
    write_json,
)
from training import Augmenter, InputError, Model, make_augmenter
from training.cli.architectures import Recipe
from training.cli.flag_types import augmentation, positive_int
from training.datasets import Dataset, load_dataset, load_images
from training.optimizers import OPTIMIZERS
from training.schedules import OneCycle
from training.trainer import batches

THIS, PYTORCH = "this library", "PyTorch"
TRIAL_STEPS = 6  # of each of PyTorch's layouts, of which the first is not timed

Batches = Iterator[tuple[np.ndarray, np.ndarray]]


class Trainer(NamedTuple):
    """How a library trains and tests.

    Attributes
    ----------
    step : callable
        Called with images (N, C, H, W) in uint8, labels (N,) and the learning rate. Returns the
        loss.
    predict : callable
        Returns the labels (N,) of images.
    """

    step: Callable[[np.ndarray, np.ndarray, float], float]
    predict: Callable[[np.ndarray], np.ndarray]


class Curve(NamedTuple):
    """What `measure` returns: the accuracy after so many seconds, at the end of each epoch."""

    seconds: list[float]
    accuracies: list[float]


def build(data: Dataset, seed: int) -> tuple[Model, Recipe]:
    """Return run.py's default network for images, and its recipe."""
    function = run.NETWORKS.choose(data.images.shape[1:])
    model = function(data.images.shape[1:], data.n_classes, seed=seed)
    return model.fit_normalization(data.images), run.NETWORKS.recipes[function]


def this_library(model: Model, recipe: Recipe) -> Trainer:
    optimizer = OPTIMIZERS[recipe.optimizer](recipe.learning_rate, weight_decay=recipe.weight_decay)
    model.compile(optimizer, recipe.label_smoothing)

    def step(images, labels, learning_rate):
        optimizer.learning_rate = learning_rate
        return model.train_batch(images, labels)[0]

    return Trainer(step, model.predict)


def pytorch(model: Model, recipe: Recipe, threads: int, images: np.ndarray) -> Trainer:
    """Return PyTorch's trainer in the layout that is faster on these images."""
    from bench.time_to_accuracy_torch import make_step

    labels = np.zeros(len(images), np.int64)
    best, least = False, math.inf
    for channels_last in (False, True):
        trial = Trainer(*make_step(model, recipe, threads, channels_last))
        trial.step(images, labels, 1e-6)
        start = time.perf_counter()
        for _ in range(TRIAL_STEPS - 1):
            trial.step(images, labels, 1e-6)
        seconds = time.perf_counter() - start
        if seconds < least:
            best, least = channels_last, seconds
    return Trainer(*make_step(model, recipe, threads, best))


def epoch_of(
    data: Dataset, recipe: Recipe, augmenter: Augmenter, model: Model, rng: np.random.Generator
) -> Batches:
    """Yield the augmented batches of an epoch in random order."""
    for indices in batches(rng.permutation(len(data.images)), recipe.batch_size):
        images = np.ascontiguousarray(data.images[indices])
        yield augmenter(images, rng, model.backend), data.labels[indices]


def measure(
    trainer: Trainer,
    epoch: Callable[[], Batches],
    recipe: Recipe,
    n_steps: int,
    test: tuple[np.ndarray, np.ndarray],
) -> Curve:
    """Train for the epochs of a recipe, and test after each.

    Parameters
    ----------
    trainer : Trainer
    epoch : callable
        Returns the batches of the next epoch.
    recipe : Recipe
    n_steps : int
        Of an epoch.
    test : (images, labels)
    """
    schedule, curve, seconds = OneCycle(), Curve([], []), 0.0
    steps = itertools.count()
    for _ in range(recipe.epochs):
        start = time.perf_counter()
        for images, labels in epoch():
            factor = schedule.factor(next(steps) / (n_steps * recipe.epochs))
            trainer.step(images, labels, recipe.learning_rate * factor)
        seconds += time.perf_counter() - start
        curve.seconds.append(seconds)
        curve.accuracies.append(float(np.mean(trainer.predict(test[0]) == test[1])))
    return curve


def seconds_to(curve: Curve, target: float) -> float:
    """Return the seconds to the end of the first epoch of at least this accuracy, or infinity."""
    reached = np.flatnonzero(np.array(curve.accuracies) >= target)
    return curve.seconds[reached[0]] if len(reached) else math.inf


def table(runs: list[dict], targets: list[float]) -> str:
    """Return the seconds to each target and the last accuracy, as means over the seeds."""
    names = list(dict.fromkeys(each["library"] for each in runs))
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    curves = {
        name: [Curve(r["seconds"], r["accuracies"]) for r in runs if r["library"] == name]
        for name in names
    }
    for target in targets:
        means = [np.mean([seconds_to(c, target) for c in curves[name]]) for name in names]
        cells = [duration(mean) if math.isfinite(mean) else "not reached" for mean in means]
        lines.append(f"| to {100 * target:.4g} % | " + " | ".join(cells) + " |")
    last = [np.mean([c.accuracies[-1] for c in curves[name]]) for name in names]
    total = [np.mean([c.seconds[-1] for c in curves[name]]) for name in names]
    lines.append("| all epochs | " + " | ".join(duration(each) for each in total) + " |")
    lines.append("| accuracy then | " + " | ".join(f"{each:.2%}" for each in last) + " |")
    return "\n".join(lines)


def plot(runs: list[dict], title: str, path: Path) -> None:
    """Draw the accuracy over the seconds of each run."""
    plt = import_pyplot()
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    colors = dict(zip(dict.fromkeys(each["library"] for each in runs), COLORS, strict=False))
    lowest = 1.0
    for each in runs:
        name, color = each["library"], colors[each["library"]]
        axis.plot(each["seconds"], each["accuracies"], "o-", ms=3, color=color, label=name)
        lowest = min(lowest, float(np.median(each["accuracies"])))
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), loc="lower right")
    axis.set_ylim(1 - 2.5 * (1 - lowest), None)
    axis.set_xlabel("seconds of training")
    axis.set_ylabel("test accuracy")
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
    axis.grid(alpha=0.3)
    axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__ or "", rounds=1, seconds=None)
    add = parser.add_argument
    add("--train_data", type=Path, metavar="PATH", help="training images (default: MNIST)")
    add("--test_data", type=Path, metavar="PATH", help="test images (default: MNIST's)")
    add("--augment", type=augmentation, default="shift", metavar="NAMES", help="as of run.py")
    add("--targets", type=float, nargs="+", default=[0.99, 0.994], help="accuracies to reach")
    add("--epochs", type=positive_int, metavar="N", help="default: those of the recipe")
    add("--name", metavar="NAME", help="of --train_data; without it, nothing is published")
    args = parser.parse_args(argv)
    if (args.train_data is None) != (args.test_data is None):
        parser.error("--train_data and --test_data belong together")
    if args.name is not None and args.train_data is None:
        parser.error("--name is for --train_data: the results of MNIST have its name")
    name = "mnist" if args.train_data is None else args.name
    # As in `parse_measurement`: a quick trial does not replace what is published.
    is_whole = args.epochs is None and args.threads == CORES
    if args.train_data is None:
        is_whole = has_default_settings(parser, args)
    folder = results_folder() if name is not None and is_whole else None
    choose_outputs(args, f"time-to-accuracy-{name or 'own'}", folder)
    return args


def load_both(args: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Return the training and the test images."""
    if args.train_data is None:
        return load_dataset("mnist")
    data = load_images(args.train_data)
    test = load_images(args.test_data)
    if data.class_names != test.class_names or data.images.shape[1:] != test.images.shape[1:]:
        raise InputError(f"{args.test_data}: other classes or sizes than {args.train_data}")
    return data, test


def run_library(
    library: str, data: Dataset, test: Dataset, seed: int, args: argparse.Namespace
) -> Curve:
    """Return the curve of a library, whose kernels are compiled first."""
    model, recipe = build(data, seed)
    model.backend.set_threads(args.threads)
    recipe = recipe._replace(epochs=args.epochs or recipe.epochs)
    first = slice(recipe.batch_size)
    if library == THIS:
        this_library(*build(data, seed)).step(data.images[first], data.labels[first], 1e-6)
        trainer = this_library(model, recipe)
    else:
        trainer = pytorch(model, recipe, args.threads, data.images[first])
    augmenter = make_augmenter(args.augment).fitted(data.images, model.mean)
    rng = np.random.default_rng(seed)
    n_steps = len(list(batches(np.arange(len(data.images)), recipe.batch_size)))
    return measure(
        trainer,
        lambda: epoch_of(data, recipe, augmenter, model, rng),
        recipe,
        n_steps,
        (test.images, test.labels),
    )


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    data, test = load_both(args)
    libraries = (THIS, PYTORCH) if find_spec("torch") else (THIS,)
    runs = []
    for seed, library in itertools.product(range(args.rounds), libraries):
        curve = run_library(library, data, test, seed, args)
        runs.append({"library": library, "seed": seed, **curve._asdict()})
        print(f"{library}, seed {seed}: {curve.accuracies[-1]:.2%} in {curve.seconds[-1]:.0f} s")
    print(table(runs, args.targets))
    if args.json is not None:
        write_json(args.json, args, targets=args.targets, runs=runs)
    if args.plot is not None:
        plot(runs, describe(machine()), args.plot)


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"time_to_accuracy.py: {error}")
