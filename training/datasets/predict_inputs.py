"""Load images for prediction, from pictures of any size or a CSV file, in a model's form."""

import contextlib
import os
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.csv_file import read_pixels
from training.datasets.dataset import ReadOptions
from training.datasets.zip_file import open_maybe_compressed
from training.errors import InputError
from training.input_format import InputFormat
from training.input_stats import InputStats, border_pixels
from training.saving.atomic_file import reject_special_files

# Only formats that Pillow decodes itself. It passes others, such as EPS, to other programs.
FORMATS = {"PNG": "png", "JPEG": "jpg jpeg", "BMP": "bmp", "GIF": "gif", "TIFF": "tif tiff"}
SUFFIXES = {f".{suffix}" for suffixes in FORMATS.values() for suffix in suffixes.split()}
# The training images have a dark background below the first level and a light one above the second,
# from 0 to 1. Between them are photographs, for which no picture is inverted.
MAX_DARK, MIN_LIGHT = 0.25, 0.75


def load_predict_inputs(
    path: Path,
    input_format: InputFormat,
    input_stats: InputStats,
    image_shape: tuple[int, int, int] | None = None,
    label_column: str | None = None,
) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Load images in the shape and on the scale of a model's training images.

    Images of another size are resized, and padded with the color of their border to the right
    proportions. Pictures are inverted if their background is light and that of the training images
    is dark, or the other way round. Transparent parts become white.

    Parameters
    ----------
    path : Path
        A picture, a folder of pictures, or a CSV file of pixels, with or without a label at the
        start of each line.
    input_format : InputFormat
        Form of the images that the model was trained on.
    input_stats : InputStats
        Statistics of the images that the model was trained on.
    image_shape : (C, H, W), optional
        Shape of the images in a CSV file, if it is not that of the training images.
    label_column : str, optional
        Name, or position from 1, of the column of labels in a CSV file.

    Returns
    -------
    names : list of str
        Names of the pictures, or the numbers of the rows of a CSV file from 1.
    images : ndarray, shape (N, C, H, W)
    labels : ndarray of int64, shape (N,), or None
        The labels of a CSV file, if it has any.

    Raises
    ------
    InputError
        A file is not an image or not such a table. The message names the file.
    """
    shape = input_format.shape
    if path.is_dir():
        files = _find_pictures(path)
    elif path.suffix.lower() in SUFFIXES:
        files = [path]
    else:
        check_text(path)
        images, labels = read_pixels(
            path, ReadOptions(None, None, None, image_shape, label_column, input_format)
        )
        if images.shape[1:] != shape:
            check_pillow(path)
            if images.shape[1] != shape[0]:
                raise InputError(
                    f"{path}: its images have {images.shape[1]} channels; the model expects "
                    f"{shape[0]}"
                )
            images = np.stack([_fit(image.astype(np.float32), shape) for image in images])
        return [str(row) for row in range(1, len(images) + 1)], images, labels
    check_pillow(path)
    pictures = np.stack([_fit(_read(file, shape[0]), shape) for file in files])
    for picture in pictures:
        is_light = border_pixels(picture).mean() >= 0.5
        level = input_stats.background_level
        if (level < MAX_DARK and is_light) or (level > MIN_LIGHT and not is_light):
            np.subtract(1, picture, out=picture)
    names = [os.fsencode(file.name).decode("utf-8", "replace") for file in files]
    low, high = input_stats.low, input_stats.high
    return names, low + pictures * (high - low), None


def _find_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder, in the order of the numbers in their names."""
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES
        and not file.name.startswith(".")  # metadata files of macOS
        and not file.is_dir()
    ]
    if not files:
        raise InputError(f"{folder}: contains no picture ({', '.join(sorted(SUFFIXES))})")
    return sorted(files, key=lambda file: _natural_key(file.name))


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


def check_pillow(path: Path) -> None:
    """Raise InputError if the package that reads pictures is missing."""
    if find_spec("PIL") is None:
        raise InputError(f"{path}: pictures and resizing need Pillow: pip install pillow")


def _read(path: Path, channels: int) -> np.ndarray:
    """Return a picture (C, H, W) with pixels from 0 to 1."""
    from PIL import Image, ImageOps

    if channels not in (1, 3):
        raise InputError(
            f"{path}: is a picture, and the images of the model have {channels} channels"
        )
    reject_special_files(path)
    try:
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore")  # damage is reported as an error below
            # A small file may decode to a picture that fills the memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = stack.enter_context(Image.open(path, formats=list(FORMATS)))
            picture: Any = ImageOps.exif_transpose(opened)
            if picture.mode[0] in "IF":  # 16 bits a pixel, or more
                low, high = np.min(picture), np.max(picture)
                if picture.mode == "F" or low < 0 or high > 65535:
                    raise InputError(
                        f"{path}: has pixels of more than 16 bits: save it with 8 or 16 bits"
                    )
                gray = np.asarray(picture, np.float32) / 65535
                return np.repeat(gray[np.newaxis], channels, axis=0)
            if picture.has_transparency_data:
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture.convert("RGBA"))
            array = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.float32) / 255
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: give a picture, a folder or a CSV file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path}: is larger than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except Exception as error:  # decoders raise many types for a damaged file
        raise InputError(f"{path}: cannot be read as a picture: {error}") from None
    return array[np.newaxis] if channels == 1 else array.transpose(2, 0, 1)


def _fit(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Resize an image (C, H, W) to fit into a shape, centered, and pad it with its border color."""
    from PIL import Image

    _, H, W = shape
    if image.shape == tuple(shape):
        return image
    rows, columns = image.shape[1:]
    scale = min(H / rows, W / columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    # The filters of Pillow widen with the reduction, so that no thin line is lost.
    planes = [Image.fromarray(p).resize((width, height), Image.Resampling.BILINEAR) for p in image]
    fitted = np.empty(shape, np.float32)
    fitted[:] = np.median(border_pixels(image), axis=-1)[:, np.newaxis, np.newaxis]
    top, left = (H - height) // 2, (W - width) // 2
    fitted[:, top : top + height, left : left + width] = np.stack([np.asarray(p) for p in planes])
    return fitted
