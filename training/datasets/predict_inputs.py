"""Load images for prediction, from pictures of any size or a CSV file, in a model's form."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.datasets.csv_file import read_pixels
from training.datasets.dataset import ReadOptions
from training.datasets.folder import list_pictures
from training.datasets.pictures import SUFFIXES, decode_pictures, printable
from training.datasets.resize import check_pillow, fit_array
from training.datasets.zip_file import open_maybe_compressed
from training.errors import InputError
from training.input_format import InputFormat
from training.input_stats import InputStats, border_pixels
from training.preprocessing.pixel_scale import PICTURES_HAVE_A_SCALE, match_scale

# The training images have a dark background below the first level and a light one above the second,
# from 0 to 1. Between them are photographs, for which no picture is inverted.
MAX_DARK, MIN_LIGHT = 0.25, 0.75


class PredictInputs(NamedTuple):
    """Images for prediction.

    Attributes
    ----------
    names : list of str
        Names of the pictures, with that of the folder in the given one that they are in; or the
        numbers of the rows of a CSV file, from 1.
    images : ndarray, shape (N, C, H, W)
    labels : ndarray of int64, shape (N,), or None
        The labels of a CSV file, if it has any.
    notes : tuple of str
        What the user should know, such as pictures that were skipped; one line each.
    """

    names: list[str]
    images: np.ndarray
    labels: np.ndarray | None
    notes: tuple[str, ...] = ()


def load_predict_inputs(
    path: Path,
    input_format: InputFormat,
    input_stats: InputStats,
    image_shape: tuple[int, int, int] | None = None,
    label_column: str | None = None,
    scale: tuple[float, float] | str | None = None,
) -> PredictInputs:
    """Load images in the shape and on the scale of a model's training images.

    Images of another size are resized by the rule of the model. Pictures of one channel are
    inverted if their background is light and that of the training images is dark, or the other way
    round. For a model that was trained on pictures, their pixels are those that
    `training.datasets.load_images` returns.

    Parameters
    ----------
    path : Path
        A picture, a folder of pictures and of folders of pictures, or a CSV file of pixels, with or
        without a label at the start of each line.
    input_format : InputFormat
        Form of the images that the model was trained on.
    input_stats : InputStats
        Statistics of the images that the model was trained on.
    image_shape : (C, H, W), optional
        Shape of the images in a CSV file, if it is not that of the training images.
    label_column : str, optional
        Name, or position from 1, of the column of labels in a CSV file.
    scale : (darkest, lightest) or "none", optional
        The pixels of a CSV file that stand for the smallest and for the largest pixel of the
        training images; see `training.preprocessing.pixel_scale.match_scale`.

    Returns
    -------
    PredictInputs

    Raises
    ------
    InputError
        A file is not an image or not such a table. The message names the file. Of a folder, as many
        pictures are skipped as `decode_pictures` allows.
    """
    if scale is not None and (path.is_dir() or path.suffix.lower() in SUFFIXES):
        raise InputError(f"{path}: {PICTURES_HAVE_A_SCALE}")
    if path.is_dir():
        files = sorted(list_pictures(path).pictures, key=_natural_key)
        if not files:
            raise InputError(f"{path}: contains no picture ({', '.join(sorted(SUFFIXES))})")
        return _load_pictures(path, files, input_format, input_stats)
    if path.suffix.lower() in SUFFIXES:
        return _load_pictures(path.parent, [path.name], input_format, input_stats)
    check_text(path)
    shape = input_format.shape
    options = ReadOptions(None, None, None, image_shape, label_column, input_format)
    images, labels = read_pixels(path, options)
    if images.shape[1] != shape[0]:
        raise InputError(
            f"{path}: its images have {images.shape[1]} channels; the model expects {shape[0]}"
        )
    images, notes = match_scale(images, input_stats, scale, str(path))
    if images.shape[1:] != shape:
        check_pillow(path)
        rule = input_format.resize
        images = np.stack([fit_array(image, shape[1:], rule) for image in images.astype("float32")])
    return PredictInputs([str(row) for row in range(1, len(images) + 1)], images, labels, notes)


def _load_pictures(
    folder: Path, files: list[str], input_format: InputFormat, input_stats: InputStats
) -> PredictInputs:
    names = [printable(str(folder / file)) for file in files]
    options = ReadOptions(like=input_format)
    pictures = decode_pictures(names, lambda index: folder / files[index], options)
    images = pictures.images.astype(np.float32)
    level = input_stats.background_level
    if images.shape[1] == 1:
        for image in images:
            is_light = border_pixels(image).mean() >= 127.5
            if (level < MAX_DARK and is_light) or (level > MIN_LIGHT and not is_light):
                np.subtract(255, image, out=image)
    low, high = input_stats.low, input_stats.high  # 0 and 255 change nothing
    images = np.float32(low) + images * np.float32((high - low) / 255)
    kept = [printable(files[index]) for index in pictures.decoded]
    return PredictInputs(kept, images, None, pictures.notes)


def _natural_key(name: str) -> list[str | int]:
    """Return a sorting key that puts 2.png before 10.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def check_text(path: Path) -> None:
    """Raise InputError if a file whose name is not that of a picture is not text."""
    with open_maybe_compressed(path) as stream:
        if b"\0" in stream.read(1024):
            raise InputError(
                f"{path}: is not a CSV file, and its name is not that of a picture "
                f"({', '.join(sorted(SUFFIXES))})"
            )
