"""Train a model: run.py without an action, or with --train or --resume."""

import argparse
import math
import time

import filelock
import numpy as np

from training.augmentation import Augmenter
from training.cli import arguments
from training.cli.architectures import Networks, Recipe
from training.cli.flag_types import AUTO
from training.cli.input_data import load_data, match_classes
from training.cli.model_setup import get_augmenter, load_saved, prepare
from training.cli.output_paths import LOG_NAME, prepare_training, run_path, sibling_path
from training.cli.summary import summarize
from training.datasets import Dataset
from training.errors import InputError
from training.model import Model
from training.reporting.data_account import describe
from training.reporting.reporter import Reporter
from training.saving.atomic_file import remove_leftovers
from training.saving.training_state import TrainingState
from training.schedules import SCHEDULES, Schedule, TimeLimited
from training.test_time_augmentation import NUMBER_OF_VIEWS, suitable

# Few images are shown more often: 1,000 of 8x8 pixels were learned to 94 % in 240 steps of 64, to
# 97 % in 1,500 and no better in 3,000. MNIST has 844 steps an epoch.
MIN_IMAGES = 3000 * 64
# But not for longer than about a minute on two cores.
MAX_MULTIPLY_ADDS = 5e12
PLOT_SECONDS = 3.0  # to import the plotting library, and to draw and save the plots


def train(args: argparse.Namespace, networks: Networks) -> None:
    """Train a model, and save the best one.

    Parameters
    ----------
    args : argparse.Namespace
    networks : Networks

    Raises
    ------
    InputError
        The arguments or the images are wrong, or another run writes to the same path.
    """
    if args.to_path.is_symlink():  # the file that the link points to is replaced, not the link
        args.to_path = args.to_path.resolve()
    inputs = [args.train_data, args.test_data, args.from_path]
    prepare_training(args.to_path, inputs, not args.no_plots)
    state_path = run_path(args.to_path)
    history_path = sibling_path(args.to_path, "history.csv")
    lock = filelock.FileLock(state_path.parent / f".{state_path.name}.lock", timeout=0)
    try:
        with lock:
            for path in (args.to_path, state_path, history_path):
                remove_leftovers(path)
            _train_locked(args, networks)
    except filelock.Timeout:
        raise InputError(
            f"--to_path {args.to_path}: another run is writing there: wait for it, or name another"
        ) from None


def _train_locked(args: argparse.Namespace, networks: Networks) -> None:
    start = time.perf_counter()
    saved = load_saved(args)
    has_default_network = saved is None and args.arch is None
    data = load_data(args, saved.input_format if saved else None)
    model, training, validation = prepare(args, data, networks, saved)
    with Reporter(
        args.to_path.parent / LOG_NAME,
        compiling=args.backend == "numba",
        history_path=sibling_path(args.to_path, "history.csv"),
        tensorboard=args.tensorboard,
    ) as reporter:
        for line in describe(data):
            reporter.line(line)
        if has_default_network:
            reporter.line(f"network: --arch {args.arch}, the default for such images")
        augmenter = get_augmenter(args, model, training, validation, reporter.line)
        if args.epochs is None and args.time_limit is None:
            recipe = networks.recipe(args.architecture)
            args.epochs = default_epochs(args, recipe, augmenter, model, len(training[0]))
        model.test_time_augmentation = args.tta if args.tta != AUTO else suitable(augmenter)
        if model.test_time_augmentation != "none":
            reporter.line(
                f"--tta {model.test_time_augmentation}: answers are the mean of those to an image "
                "and to views of it; the accuracy after each epoch is without"
            )
        state = _open_state(args, reporter)
        n_epochs_before, had_model = len(model.history.get("loss", [])), args.to_path.exists()
        print(model)
        reporter.line(
            f"training on {len(training[0]):,} images of {data.source}, validating on "
            f"{len(validation[0]):,}; {args.backend} backend, {model.compute_dtype}"
        )
        schedule = SCHEDULES[args.schedule]()
        if args.time_limit is not None:
            schedule = _limit_time(args, schedule, start, model, validation, data)
        try:
            model.train(
                *training,
                epochs=args.epochs,
                batch_size=args.batch_size,
                validation_data=validation,
                augmenter=augmenter,
                augmenter_ratio=args.augmenter_ratio,
                schedule=schedule,
                patience=args.patience,
                to_path=args.to_path,
                reporter=reporter,
                training_state=state,
                save_every=args.save_every,
                class_weight=arguments.CLASS_WEIGHTS[args.class_weight],
            )
        except KeyboardInterrupt:
            if len(model.history.get("loss", [])) > n_epochs_before:
                result = f"the best model so far is {args.to_path}"
            elif had_model:
                result = f"no epoch had ended, so that {args.to_path} is unchanged"
            else:
                result = f"no epoch had ended; {args.to_path} is the model at that moment"
            reporter.line(f"stopped; {result}" + ("; --resume continues" if state.saved else ""))
            raise
        if data.test is None:
            name, (images, labels) = "validation", validation
        else:
            test = match_classes(data.test, model.class_names, args.to_path, "train a new model")
            name, images, labels = "test", test.images, test.labels
        summarize(
            model,
            images,
            labels,
            name,
            args.to_path,
            no_plots=args.no_plots,
            print_line=reporter.line,
        )
        reporter.line(f"model: {args.to_path} | {time.perf_counter() - start:.1f} s in all")


def _limit_time(
    args: argparse.Namespace,
    schedule: Schedule,
    start: float,
    model: Model,
    validation: tuple[np.ndarray, np.ndarray],
    data: Dataset,
) -> TimeLimited:
    """Return a schedule for what is left of --time_limit, less the time of `summarize`."""
    passed = time.perf_counter() - start
    seconds = args.time_limit - passed - (0 if args.no_plots else PLOT_SECONDS)
    if seconds <= 0:
        raise InputError(
            f"--time_limit {args.time_limit:g}: nothing is left for the training, since "
            f"{passed:.1f} s have passed and the plots take about {PLOT_SECONDS:g} s: give more"
        )
    n_answers = len(validation[0] if data.test is None else data.test.images)
    n_views = NUMBER_OF_VIEWS[model.test_time_augmentation]
    return TimeLimited(schedule, seconds, n_answers * n_views / len(validation[0]))


def _open_state(args: argparse.Namespace, reporter: Reporter) -> TrainingState:
    """Return the state of the run to resume, or of a new run."""
    path = run_path(args.to_path)
    if args.resume:
        state = TrainingState.open(path)
        if "split" not in state.settings:
            reporter.line(
                f"{path} is of an earlier version, which set other images aside for validation: "
                "from now on, the validation accuracy is too high"
            )
        state.settings |= arguments.settings(args)
        reporter.line(f"resuming the run of {path}")
        return state
    if path.exists():
        reporter.line(
            f"starting a new run; the interrupted run in {path} will be replaced (use --resume to "
            "continue it)"
        )
    return TrainingState(path, arguments.settings(args) | {"split": "stratified"})


def default_epochs(
    args: argparse.Namespace, recipe: Recipe, augmenter: Augmenter, model: Model, n_images: int
) -> int:
    """Return the number of epochs if --epochs does not set it.

    Parameters
    ----------
    args : argparse.Namespace
    recipe : Recipe
    augmenter : Augmenter
        It mirrors images if they are photos or other images that mean the same when mirrored.
    model : Model
    n_images : int
        Number of training images, each counted once.
    """
    epochs = recipe.photo_epochs if recipe.photo_epochs and augmenter.mirrors else recipe.epochs
    n_shown = n_images * args.augmenter_ratio
    affordable = MAX_MULTIPLY_ADDS / max(1, model.multiply_adds)  # 0: layers of the user's own
    return max(epochs, math.ceil(min(MIN_IMAGES, affordable) / n_shown))
