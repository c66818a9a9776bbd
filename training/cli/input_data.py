"""The images that the flags name."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.datasets import Dataset, DownloadError, load_dataset, load_images
from training.datasets.dataset import ReadOptions, list_names
from training.datasets.resize import fit_scale
from training.errors import InputError
from training.input_format import InputFormat


def load_named(name: str | None, data_dir: Path | None) -> tuple[Dataset, Dataset]:
    """Return the training and the test images of a data set.

    Without a name, it is MNIST, or mnist-5k if MNIST is neither on disk nor can be downloaded.
    """
    if name is not None:
        return load_dataset(name, data_dir)
    try:
        return load_dataset("mnist", data_dir)
    except DownloadError:
        print(
            "MNIST is not on this machine and cannot be downloaded now: using mnist-5k, the 5,000 "
            "images that come with the program. For all 70,000 images, connect to the network, or "
            "put the four IDX files into a folder and name it with --data_dir.",
            flush=True,
        )
        return load_dataset("mnist-5k")


def load_data(args: argparse.Namespace, like: InputFormat | None = None) -> Dataset:
    """Return the training images; its `test` is the test images, or None if there are none.

    Parameters
    ----------
    args : argparse.Namespace
    like : InputFormat, optional
        What a saved model expects of them.
    """
    if args.train_data is None:
        options = ReadOptions(like=like, scale=args.scale)
        parts = load_named(args.dataset, args.data_dir)
        train, test = (fit_scale(part, options) for part in parts)
        train = replace(train, test=test)
    else:
        train = read_images(args, args.train_data, like)
    if args.test_data is not None:
        test = read_images(args, args.test_data, train.input_format, part="test", preprocess="auto")
        check_shape(test, train.images.shape[1:], train.source)
        train = replace(train, test=test)
    return train


def read_images(
    args: argparse.Namespace,
    path: Path,
    like: InputFormat | None,
    part: str = "train",
    preprocess: str = "none",
) -> Dataset:
    """Return the images of a path, read as the flags say; see `load_images`.

    Training images are not preprocessed: they decide what other images are brought to.
    """
    return load_images(
        path,
        args.image_size,
        color=args.color,
        resize=args.resize,
        image_shape=args.image_shape,
        label_column=args.label_column,
        like=like,
        part=part,
        preprocess=preprocess,
        scale=None if like is None else args.scale,
    )


def check_shape(data: Dataset, shape: tuple[int, ...], owner: str | Path) -> None:
    """Raise InputError unless the images have the shape (C, H, W) of those of `owner`."""
    if data.images.shape[1:] != tuple(shape):
        raise InputError(
            f"{data.source}: its images are {data.images.shape[1:]} (channels, rows, columns), "
            f"and those of {owner} are {tuple(shape)}: both must have the same shape"
        )


def match_classes(
    data: Dataset, class_names: Sequence[str], owner: str | Path, hint: str
) -> Dataset:
    """Return the data with the classes of a model, matched by name.

    Where the names of only one of both are numbers, the classes are matched by their order: numbers
    stand for classes without names, as in the files of earlier versions.

    Parameters
    ----------
    data : Dataset
    class_names : sequence of str
        Of the model.
    owner : path
        File of the model.
    hint : str
        What to do about classes that do not match.

    Raises
    ------
    InputError
        The data has more classes than the model, or one that the model does not have.
    """
    if data.n_classes > len(class_names):
        raise InputError(
            f"{data.source}: has {data.n_classes} classes, and the model {owner} has "
            f"{len(class_names)}: {hint}"
        )
    by_name = {name: index for index, name in enumerate(class_names)}
    if _are_numbers(data.class_names) != _are_numbers(class_names):
        by_name = {name: index for index, name in enumerate(data.class_names)}
    unknown = [name for name in data.class_names if name not in by_name]
    if unknown:
        raise InputError(
            f"{data.source}: has the class {unknown[0]}, which the model {owner} does not have "
            f"({list_names(class_names)}): {hint}"
        )
    indices = np.array([by_name[name] for name in data.class_names])
    return replace(data, labels=indices[data.labels], class_names=tuple(class_names))


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in names)
