"""Load images and their labels from a file or a folder."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from training.datasets.cache import cached, file_state
from training.datasets.csv_file import read_csv
from training.datasets.dataset import COLORS, Dataset, ReadOptions
from training.datasets.folder import read_folder, reject_zipped_pictures
from training.datasets.gzip_file import open_maybe_gzip
from training.datasets.idx_file import read_idx
from training.datasets.npz_file import is_npz, read_npz
from training.datasets.parquet_file import is_parquet_folder, read_parquet
from training.datasets.resize import fit_images, fit_scale
from training.errors import InputError
from training.input_format import InputFormat, check_resize
from training.preprocessing.pixel_scale import PICTURES_HAVE_A_SCALE, check_scale
from training.preprocessing.preprocess import MODES

Reader = Callable[[Path, ReadOptions], Dataset]
PICTURE_READERS: tuple[Reader, ...] = (read_folder, read_parquet)


def load_images(
    path: str | os.PathLike,
    image_size: int | tuple[int, int] | None = None,
    *,
    color: str | None = None,
    resize: str | None = None,
    image_shape: tuple[int, int, int] | None = None,
    label_column: str | None = None,
    like: InputFormat | None = None,
    part: str | None = None,
    preprocess: str = "auto",
    scale: tuple[float, float] | str | None = None,
) -> Dataset:
    """Load images from a folder of pictures, or from a CSV, IDX, .npz or Parquet file.

    The content of a file decides the format, not its name. What takes long to read is kept in the
    user's cache, see `training.datasets.cache`.

    Parameters
    ----------
    path : str or path
        A folder with a folder of pictures for each class, see `read_folder`; a CSV file, or the
        images of a pair of IDX files, either of which may be gzip-compressed; an .npz file, see
        `read_npz`; a Parquet file or a folder of these, see `read_parquet`.
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
        Name, or position from 1, of the column of labels in a CSV or Parquet file.
    like : InputFormat, optional
        What the model expects that the images are for; see `Model.input_format`. Without it they
        are training images: they decide the classes, of which there must be two or more.
    part : "train" or "test", optional
        The part to return of a source that is already split into parts. By default, "train", or
        "test" with `like`.
    preprocess : "auto", "ink" or "none"
        How pictures are brought to the form of `like`, see `training.preprocessing.preprocess`:
        "auto" reads ink on paper, for a model of such images; "none", for more training images,
        adapts only the size, the channels and the scale of the pixels. It has no effect without
        `like`, or on files of numbers.
    scale : (darkest, lightest) or "none", optional
        With `like`: the pixels of a file of arrays that stand for the smallest and for the largest
        pixel of the model's training images, such as (0, 1), or (1, 0) for inverted images; "none":
        the file has the scale of the training images. By default, it is found from the pixels, and
        named in the notes if it is another one; see
        `training.preprocessing.pixel_scale.match_scale`. Pixels of pictures are always from 0 to
        255.

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
    if color not in (None, *COLORS):
        raise InputError(f"color must be {' or '.join(COLORS)}, got {color!r}")
    if resize is not None:
        check_resize(resize)
    if part not in (None, "train", "test"):
        raise InputError(f"part must be train or test, got {part!r}")
    if preprocess not in MODES:
        raise InputError(f"preprocess must be one of {', '.join(MODES)}, got {preprocess!r}")
    if scale is not None:
        scale = check_scale(scale)
        if like is None:
            raise InputError("scale is for images of a saved model: give its format with like")
    read = _choose_reader(path)
    has_pictures = read in PICTURE_READERS
    if scale is not None and has_pictures:
        raise InputError(f"{path}: {PICTURES_HAVE_A_SCALE}")
    mode = None if like is None or not has_pictures else preprocess
    options = ReadOptions(size, color, resize, image_shape, label_column, like, part, mode, scale)
    return read(path, options)


def holds_pictures(path: Path) -> bool:
    """Return whether a source holds pictures: a folder, or Parquet files. Others hold arrays."""
    return _choose_reader(path) in PICTURE_READERS


def _choose_reader(path: Path) -> Reader:
    if path.is_dir():
        return read_parquet if is_parquet_folder(path) else read_folder
    with open_maybe_gzip(path) as stream:
        start = stream.read(8)
    for magic, suffix, read in FILE_FORMATS:
        if start.startswith(magic) or path.suffix.lower() == suffix:
            return read
    return _read_csv


def _read_idx(path: Path, options: ReadOptions) -> Dataset:
    return fit_scale(fit_images(read_idx(path, options), options), options)


def _read_zip(path: Path, options: ReadOptions) -> Dataset:
    if is_npz(path):
        return read_npz(path, options)
    reject_zipped_pictures(path)
    return _read_csv(path, options)


def _read_csv(path: Path, options: ReadOptions) -> Dataset:
    identity = "csv", str(path.resolve()), options.for_cache
    dataset = cached(
        identity, file_state(path), lambda: fit_images(read_csv(path, options), options)
    )
    return fit_scale(dataclasses.replace(dataset, source=str(path)), options)


def _check_size(size: Any) -> tuple[int, int]:
    """Return the numbers of rows and columns from one number or two."""
    pair = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, Integral) and int(n) > 0 for n in pair):
        raise InputError(f"image_size must be a whole number above 0, or two (H, W), got {size!r}")
    return int(pair[0]), int(pair[1])


# How files of a format begin, how the name of a damaged one ends, and its reader: others are CSV.
FILE_FORMATS: tuple[tuple[bytes, str, Reader], ...] = (
    (b"\0\0", ".idx3-ubyte", _read_idx),
    (b"PAR1", ".parquet", read_parquet),
    (b"PK\3\4", ".npz", _read_zip),
    (b"\x93NUMPY", ".npy", read_npz),  # which says that it is no archive
)
