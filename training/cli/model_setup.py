"""The model that the flags name: new or loaded, on the chosen threads, compiled."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.augmentation import Augmenter, make_augmenter
from training.augmentation_choice import choose_augmentation
from training.cli.architectures import Architecture, Networks, build_model
from training.cli.flag_types import AUTO
from training.cli.input_data import check_shape, match_classes
from training.cli.output_paths import run_path
from training.datasets import Dataset
from training.errors import InputError
from training.model import Model
from training.optimizers import OPTIMIZERS
from training.trainer import split_validation

# The flags that a network's recipe sets if they are not given.
RECIPE_FLAGS = ("optimizer", "learning_rate", "weight_decay", "batch_size", "label_smoothing")

ImagesAndLabels = tuple[np.ndarray, np.ndarray]


def set_threads(model: Model, args: argparse.Namespace) -> None:
    """Limit the model's backend to the threads of --threads."""
    if args.threads is not None:
        try:
            model.backend.set_threads(args.threads)
        except ValueError as error:
            raise InputError(f"--threads {args.threads}: {error}") from None


def load_for_answers(path: Path, args: argparse.Namespace) -> Model:
    """Return a saved model to test or to predict with, on the threads and views of the flags."""
    model = Model.load(path, args.backend, args.dtype)
    set_threads(model, args)
    if args.tta != AUTO:
        model.test_time_augmentation = args.tta
    return model


def load_saved(args: argparse.Namespace) -> Model | None:
    """Return the saved model to train further, or of the run to resume; None for a new model."""
    path = run_path(args.to_path) if args.resume else args.from_path
    return None if path is None else Model.load(path, args.backend, args.dtype)


def build_new(args: argparse.Namespace, data: Dataset, networks: Networks) -> Model:
    """Return a new model for the images; without --arch, choose its network."""
    C, H, W = data.images.shape[1:]
    if args.architecture is None:
        build = networks.choose((C, H, W))
        args.arch, args.architecture = build.__name__, Architecture(build.__name__, build, True)
    model = build_model(
        args.architecture,
        (C, H, W),
        data.n_classes,
        backend=args.backend,
        dtype=args.dtype or "float32",
        seed=args.seed or 0,
    )
    model.class_names, model.resize = data.class_names, data.resize
    return model


def prepare(
    args: argparse.Namespace, data: Dataset, networks: Networks, saved: Model | None = None
) -> tuple[Model, ImagesAndLabels, ImagesAndLabels]:
    """Return a compiled model, and its training and validation images with their labels.

    Parameters
    ----------
    args : argparse.Namespace
    data : Dataset
        Its `validation` part is the validation images; None: they are split off.
    networks : Networks
    saved : Model, optional
        The model to train further; None: a new one is built.
    """
    model = build_new(args, data, networks) if saved is None else saved
    if saved is not None:
        owner = run_path(args.to_path) if args.resume else args.from_path
        check_shape(data, model.input_shape, owner)
        hint = "train a new model, without --from_path"
        data = match_classes(data, model.class_names, owner, hint)
    set_threads(model, args)
    training, validation = (data.images, data.labels), data.validation
    try:
        if validation is None:
            training, held_out = split_validation(*training, args.validation_split, model.seed)
        else:
            held_out = validation.images, validation.labels
        if saved is None:
            model.fit_normalization(training[0])
    except ValueError as error:
        raise InputError(f"{data.source}: {error}") from None
    recipe = networks.recipe(args.architecture).for_images(len(training[0]))
    if args.optimizer is not None:
        recipe = recipe.with_optimizer(args.optimizer)
    for flag in RECIPE_FLAGS:
        if getattr(args, flag) is None:
            setattr(args, flag, getattr(recipe, flag))
    optimizer = OPTIMIZERS[args.optimizer](
        args.learning_rate, weight_decay=args.weight_decay, clip_norm=args.clip_norm
    )
    return model.compile(optimizer, args.label_smoothing), training, held_out


def get_augmenter(
    args: argparse.Namespace,
    model: Model,
    training: ImagesAndLabels,
    validation: ImagesAndLabels,
    print_line: Callable[[str], object],
) -> Augmenter:
    """Return the augmenter of --augment; replace ``auto`` by the names that suit the images."""
    if args.augment == AUTO:

        def build(shape):
            backend = "numpy" if args.backend == "scipy" else args.backend  # faster
            options = {"backend": backend, "dtype": model.compute_dtype, "seed": model.seed}
            return args.build_check_network(shape, model.classes, **options)

        print_line("choosing the augmentation by a small network")
        args.augment, reason = choose_augmentation(training, validation, build)
        print_line(f"--augment {args.augment}: {reason}")
    return make_augmenter(args.augment)
