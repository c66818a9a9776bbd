"""Load images and their labels from a file or a folder."""

import dataclasses
import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from training.datasets.cache import cached, file_state
from training.datasets.csv_file import read_csv
from training.datasets.dataset import Dataset, ReadOptions
from training.datasets.folder import read_folder, reject_zipped_pictures
from training.datasets.gzip_file import open_maybe_gzip
from training.datasets.idx_file import read_idx
from training.datasets.resize import fit_images
from training.errors import InputError
from training.input_format import InputFormat, check_resize


def load_images(
    path: str | os.PathLike,
    image_size: int | tuple[int, int] | None = None,
    *,
    color: str | None = None,
    resize: str | None = None,
    image_shape: tuple[int, int, int] | None = None,
    label_column: str | None = None,
    like: InputFormat | None = None,
) -> Dataset:
    """Load images from a folder of pictures, or from a CSV or IDX file.

    The content of a file decides the format, not its name. What takes long to read is kept in the
    user's cache, see `training.datasets.cache`.

    Parameters
    ----------
    path : str or path
        A folder with a folder of pictures for each class, see `read_folder`; a CSV file; or the
        images of a pair of IDX files. Files may be gzip-compressed.
    image_size : int or (H, W), optional
        Size that all images are brought to. By default, that of `like`, or as the images decide.
    color : "grey" or "rgb", optional
        By default, that of `like`, or as the images decide.
    resize : "pad", "crop" or "stretch", optional
        How an image of other proportions is brought to the size. By default, that of `like`, or
        "pad".
    image_shape : (C, H, W), optional
        Shape of the images in a file that holds only their pixels, such as CSV. By default, they
        are square and have one channel, or have the shape of `like`.
    label_column : str, optional
        Name, or position from 1, of the column of labels in a CSV file.
    like : InputFormat, optional
        What the model expects that the images are for; see `Model.input_format`. Without it they
        are training images: they decide the classes, of which there must be two or more.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        An argument is wrong, or a file is missing or wrong. The message names the file, and the
        line where there is one.
    """
    path = Path(path)
    size = None if image_size is None else _check_size(image_size)
    if color not in (None, "grey", "rgb"):
        raise InputError(f"color must be grey or rgb, got {color!r}")
    if resize is not None:
        check_resize(resize)
    options = ReadOptions(size, color, resize, image_shape, label_column, like)
    if path.is_dir():
        return read_folder(path, options)
    with open_maybe_gzip(path) as stream:
        start = stream.read(2)
    if start == b"\0\0":
        return fit_images(read_idx(path, options), options)
    if start == b"PK":
        reject_zipped_pictures(path)
    identity = "csv", str(path.resolve()), options
    dataset = cached(
        identity, file_state(path), lambda: fit_images(read_csv(path, options), options)
    )
    return dataclasses.replace(dataset, source=str(path))


def _check_size(size: Any) -> tuple[int, int]:
    """Return the numbers of rows and columns from one number or two."""
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, Integral) and int(n) > 0 for n in pair):
        raise InputError(f"image_size must be a whole number above 0, or two (H, W), got {size!r}")
    return int(pair[0]), int(pair[1])
