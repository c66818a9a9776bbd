"""The model that the flags name: new or loaded, on the chosen threads, compiled."""

import argparse
from collections.abc import Callable

import numpy as np

from training.augmentation import Augmenter, make_augmenter
from training.augmentation_choice import choose_augmentation
from training.cli.architectures import build_model
from training.cli.arguments import AUTO
from training.cli.input_data import check_classes, check_shape
from training.cli.output_paths import run_path
from training.datasets import Dataset
from training.errors import InputError
from training.model import Model
from training.optimizers import AdamW
from training.trainer import split_validation

ImagesAndLabels = tuple[np.ndarray, np.ndarray]


def set_threads(model: Model, args: argparse.Namespace) -> None:
    """Limit the model's backend to the threads of --threads."""
    if args.threads is not None:
        try:
            model.backend.set_threads(args.threads)
        except ValueError as error:
            raise InputError(f"--threads {args.threads}: {error}") from None


def get_model(args: argparse.Namespace, data: Dataset) -> Model:
    """Return the model to train: a new one, or a saved one that accepts these images."""
    shape = data.images.shape[1:]
    path = run_path(args.to_path) if args.resume else args.from_path
    if path is None:
        return build_model(
            args.architecture,
            shape,
            data.n_classes,
            backend=args.backend,
            dtype=args.dtype or "float32",
            seed=args.seed or 0,
        )
    model = Model.load(path, args.backend, args.dtype)
    check_shape(data, model.input_shape, path)
    check_classes(data, model.classes, path, "train a new model, without --from_path")
    return model


def prepare(
    args: argparse.Namespace, data: Dataset
) -> tuple[Model, ImagesAndLabels, ImagesAndLabels]:
    """Return a compiled model, and its training and validation images with their labels."""
    model = get_model(args, data)
    set_threads(model, args)
    try:
        training, validation = split_validation(
            data.images, data.labels, args.validation_split, model.seed
        )
        if args.from_path is None and not args.resume:
            model.fit_normalization(training[0])
    except ValueError as error:
        raise InputError(f"{data.source}: {error}") from None
    optimizer = AdamW(args.learning_rate, weight_decay=args.weight_decay, clip_norm=args.clip_norm)
    return model.compile(optimizer, args.label_smoothing), training, validation


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
            options = {"backend": backend, "dtype": model.dtype.name, "seed": model.seed}
            return args.build_check_network(shape, model.classes, **options)

        print_line("choosing the augmentation by a small network")
        args.augment, reason = choose_augmentation(training, validation, build)
        print_line(f"--augment {args.augment}: {reason}")
    return make_augmenter(args.augment)
