"""Load images for prediction, from pictures of any size or a CSV file, in a model's form."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.datasets.csv_file import read_pixels
from training.datasets.dataset import ReadOptions
from training.datasets.folder import describe_ignored, list_pictures
from training.datasets.npz_file import is_npz
from training.datasets.parallel_map import map_in_threads
from training.datasets.picture_file import (
    SUFFIXES,
    DecodingError,
    printable,
    read_gray,
    read_thumbnail,
)
from training.datasets.pictures import decode_pictures
from training.datasets.resize import check_pillow, fit_array
from training.datasets.zip_file import open_maybe_compressed
from training.errors import InputError
from training.input_format import InputFormat
from training.input_stats import border_pixels
from training.preprocessing.pixel_scale import PICTURES_HAVE_A_SCALE, match_scale
from training.preprocessing.preprocess import (
    INVERTED,
    check_mode,
    invert,
    preprocess,
    to_brightness,
)

# The training images have a dark background below the first level and a light one above the second,
# from 0 to 1. Between them are photographs, for which no picture is inverted.
MAX_DARK, MIN_LIGHT = 0.25, 0.75
ROW_SIDE = 640  # pixels of the longer side of a picture of a row: 60 for each of ten digits


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
    rules : list of str
        How each image was brought to the form of the training images, see `preprocess`.
    remarks : list of tuple of str
        What makes an answer on each image doubtful.
    read_original : callable
        Returns an image as it came, (h, w, 3) or (h, w) in uint8 and at most 256 pixels a side,
        given its index in `names`.
    read_gray : callable
        Returns the brightness of an image as it came, (h, w) from 0 to 1 and at most 640 pixels a
        side, given its index in `names`.
    """

    names: list[str]
    images: np.ndarray
    labels: np.ndarray | None
    notes: tuple[str, ...]
    rules: list[str]
    remarks: list[tuple[str, ...]]
    read_original: Callable[[int], np.ndarray]
    read_gray: Callable[[int], np.ndarray]


def load_predict_inputs(
    path: Path,
    like: InputFormat,
    image_shape: tuple[int, int, int] | None = None,
    label_column: str | None = None,
    scale: tuple[float, float] | str | None = None,
    mode: str = "auto",
) -> PredictInputs:
    """Load images in the shape and on the scale of a model's training images.

    Each image goes through `training.preprocessing.preprocess`. Where that only resizes pictures,
    because the training images are no ink, a grey picture is inverted if its border is light and
    that of the training images is dark, or the other way round, unless the mode is "none".

    Parameters
    ----------
    path : Path
        A picture, a folder of pictures and of folders of pictures, or a CSV file of pixels, with or
        without a label at the start of each line.
    like : InputFormat
        Form of the images that the model was trained on.
    image_shape : (C, H, W), optional
        Shape of the images in a CSV file, if it is not that of the training images.
    label_column : str, optional
        Name, or position from 1, of the column of labels in a CSV file.
    scale : (darkest, lightest) or "none", optional
        The pixels of a CSV file that stand for the smallest and for the largest pixel of the
        training images; see `training.preprocessing.pixel_scale.match_scale`.
    mode : "auto", "ink" or "none"
        Of `preprocess`.

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
        listing = list_pictures(path)
        files = sorted(listing.pictures, key=_natural_key)
        if not files:
            raise InputError(f"{path}: contains no picture ({', '.join(sorted(SUFFIXES))})")
        inputs = _load_pictures(path, files, like, mode)
        return inputs._replace(notes=(*inputs.notes, *describe_ignored(listing.others)))
    if path.suffix.lower() in SUFFIXES:
        return _load_pictures(path.parent, [path.name], like, mode)
    _check_csv(path)
    options = ReadOptions(None, None, None, image_shape, label_column, like)
    rows, labels = read_pixels(path, options)
    if rows.shape[1] != like.shape[0]:
        raise InputError(
            f"{path}: its images have {rows.shape[1]} channels; the model expects {like.shape[0]}"
        )
    rows, notes = match_scale(rows, like.stats, scale, str(path))
    if rows.shape[1:] != like.shape:
        check_pillow(path)
    return _load_rows(path, rows, labels, notes, like, mode)


# -- pictures -------------------------------------------------------------------------------------
def _load_pictures(folder: Path, files: list[str], like: InputFormat, mode: str) -> PredictInputs:
    names = [printable(str(folder / file)) for file in files]
    options = ReadOptions(like=like, preprocess=mode)
    pictures = decode_pictures(names, lambda index: folder / files[index], options)
    images, rules = pictures.images, list(pictures.rules)
    if mode == "auto" and like.ink is None and like.shape[0] == 1:
        for index, image in enumerate(images):
            if _is_opposite(image, like):
                images[index] = invert(image, like.stats)
                rules[index] = INVERTED

    def read_again(index: int, read: Callable[[Path], np.ndarray]) -> np.ndarray:
        number = pictures.decoded[index]
        try:
            return read(folder / files[number])
        except DecodingError as error:  # the file has changed
            raise InputError(f"{names[number]}: {error}") from None

    return PredictInputs(
        [printable(files[index]) for index in pictures.decoded],
        images,
        None,
        pictures.notes,
        rules,
        list(pictures.remarks),
        lambda index: read_again(index, read_thumbnail),
        lambda index: read_again(index, lambda file: read_gray(file, ROW_SIDE)),
    )


def _is_opposite(image: np.ndarray, like: InputFormat) -> bool:
    """Return whether the border of an image is light and that of the training images dark."""
    level = like.stats.background_level
    is_light = border_pixels(image).mean() >= (like.stats.low + like.stats.high) / 2
    return bool((level < MAX_DARK and is_light) or (level > MIN_LIGHT and not is_light))


def _natural_key(name: str) -> list[str | int]:
    """Return a sorting key that puts 2.png before 10.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


# -- rows of numbers ------------------------------------------------------------------------------
class _RowSource:
    """An image (C, h, w) that was read as numbers on the scale of the training images.

    See `training.preprocessing.preprocess.Source`.
    """

    def __init__(self, image: np.ndarray, like: InputFormat):
        self._image, self._like = image, like
        self.is_right_size = image.shape == like.shape

    def fitted(self) -> np.ndarray:
        if self.is_right_size:
            return self._image
        return fit_array(self._image.astype(np.float32), self._like.shape[1:], self._like.resize)

    preview = fitted

    @property
    def gray(self) -> np.ndarray:
        return to_brightness(self._image[0], self._like.stats)


def _load_rows(
    path: Path,
    rows: np.ndarray,
    labels: np.ndarray | None,
    notes: tuple[str, ...],
    like: InputFormat,
    mode: str,
) -> PredictInputs:
    try:
        check_mode(mode, like)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    sources = [_RowSource(row, like) for row in rows]
    prepared = list(
        map_in_threads(
            lambda index: preprocess(sources[index], like, mode), len(rows), "preparing images"
        )
    )

    def read_original(index: int) -> np.ndarray:
        pixels = (to_brightness(rows[index], like.stats) * 255).astype(np.uint8)
        return pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]

    return PredictInputs(
        [str(row) for row in range(1, len(rows) + 1)],
        np.stack([image for image, _, _ in prepared]),
        labels,
        notes,
        [rule for _, rule, _ in prepared],
        [remarks for _, _, remarks in prepared],
        read_original,
        lambda index: sources[index].gray,
    )


def _check_csv(path: Path) -> None:
    """Raise InputError if a file whose name is not that of a picture is not text."""
    is_csv = not (path.is_file() and is_npz(path))
    if is_csv:
        with open_maybe_compressed(path) as stream:
            is_csv = b"\0" not in stream.read(1024)
    if not is_csv:
        raise InputError(
            f"{path}: is not a CSV file, and its name is not that of a picture "
            f"({', '.join(sorted(SUFFIXES))}); .npz, IDX and Parquet files of images and labels "
            "are for --test, with --test_data"
        )
