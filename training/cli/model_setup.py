"""The model that the flags name: new or loaded, on the chosen threads, compiled."""

import argparse

import numpy as np

from training.cli.architectures import build_model
from training.cli.input_data import check_shape, match_classes
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


def get_model(args: argparse.Namespace, data: Dataset) -> tuple[Model, Dataset]:
    """Return the model to train, a new or a saved one, and the data with its classes."""
    shape = data.images.shape[1:]
    path = run_path(args.to_path) if args.resume else args.from_path
    if path is None:
        model = build_model(
            args.architecture,
            shape,
            data.n_classes,
            backend=args.backend,
            dtype=args.dtype or "float32",
            seed=args.seed or 0,
        )
        model.class_names, model.resize = data.class_names, data.resize
        return model, data
    model = Model.load(path, args.backend, args.dtype)
    check_shape(data, model.input_shape, path)
    hint = "train a new model, without --from_path"
    return model, match_classes(data, model.class_names, path, hint)


def prepare(
    args: argparse.Namespace, data: Dataset
) -> tuple[Model, ImagesAndLabels, ImagesAndLabels]:
    """Return a compiled model, and its training and validation images with their labels."""
    model, data = get_model(args, data)
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
