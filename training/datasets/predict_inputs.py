"""Images to be labelled: pictures in any size, or a CSV file, made like the training images."""

import contextlib
import os
import re
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.csv_file import read_pixels
from training.datasets.gzip_file import open_maybe_gzip
from training.errors import InputError
from training.input_stats import InputStats, border_pixels
from training.saving.atomic_file import reject_special_files

# Only formats that are decoded as data: Pillow hands others, such as EPS, to other programs.
FORMATS = {"PNG": "png", "JPEG": "jpg jpeg", "BMP": "bmp", "GIF": "gif", "TIFF": "tif tiff"}
SUFFIXES = {f".{suffix}" for suffixes in FORMATS.values() for suffix in suffixes.split()}
# How light the border of the training images must be at most, or at least, for a picture on the
# other half of the scale to be inverted: photographs lie between, and stay as they are.
DARK, LIGHT = 0.25, 0.75


def load_predict_inputs(
    path: Path,
    image_shape: tuple[int, int, int],
    pixels: InputStats,
    csv_shape: tuple[int, int, int] | None = None,
    n_classes: int | None = None,
) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Load images in the shape and on the scale that a model was trained on.

    Images of another size are padded with the colour of their border to the right proportions,
    and resized. Pictures are inverted where the training images lie on a dark ground and they on a
    light one, or the other way round; what is transparent in them is white.

    Parameters
    ----------
    path : Path
        A picture, a folder of pictures, or a CSV file of pixels, with the label first or without.
    image_shape : (C, H, W)
        Of the model's images.
    pixels : Pixels
        Of the training images.
    csv_shape : (C, H, W), optional
        Of a CSV file's images, where it is another.
    n_classes : int, optional
        Number of classes, for a CSV file's labels.

    Returns
    -------
    names : list of str
        Of the files, or the numbers of the rows.
    images : (N, C, H, W)
    labels : (N,) of int, or None

    Raises
    ------
    InputError
        What is there is no image; the message names the file.
    """
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES]
        files = [file for file in files if not file.name.startswith(".")]  # macOS's, of no content
        files = [file for file in files if not file.is_dir()]
        if not files:
            raise InputError(f"{path}: holds no picture ({', '.join(sorted(SUFFIXES))})")
        files.sort(key=lambda file: [int(p) if p.isdecimal() else p for p in _split(file.name)])
    elif path.suffix.lower() in SUFFIXES:
        files = [path]
    else:
        check_text(path)
        images, labels = read_pixels(
            path, csv_shape or image_shape, csv_shape is not None, n_classes
        )
        if images.shape[1:] != tuple(image_shape):
            check_pillow(path)
            if images.shape[1] != image_shape[0]:
                raise InputError(
                    f"{path}: its images have {images.shape[1]} channels, the model's "
                    f"{image_shape[0]}"
                )
            images = np.stack([_fit(image.astype(np.float32), image_shape) for image in images])
        return [str(row) for row in range(1, len(images) + 1)], images, labels
    check_pillow(path)
    found = np.stack([_fit(_read(file, image_shape[0]), image_shape) for file in files])
    for image in found:
        ground = border_pixels(image).mean()
        level = pixels.background_level
        if (level < DARK and ground >= 0.5) or (level > LIGHT and ground < 0.5):
            np.subtract(1, image, out=image)
    names = [os.fsencode(file.name).decode("utf-8", "replace") for file in files]
    return names, pixels.low + found * (pixels.high - pixels.low), None


def _split(name: str) -> list[str]:
    """Split a name so that 2.png comes before 10.png."""
    return re.split(r"(\d+)", name)


def check_text(path: Path) -> None:
    """Raise where a file that is named like no picture is no text either."""
    with open_maybe_gzip(path) as stream:
        if b"\0" in stream.read(1024) and not path.is_dir():
            raise InputError(
                f"{path}: is neither a CSV file nor a picture by its name "
                f"({', '.join(sorted(SUFFIXES))})"
            )


def check_pillow(path: Path) -> None:
    """Raise where the package that pictures need is missing."""
    if find_spec("PIL") is None:
        raise InputError(f"{path}: pictures, and other sizes, need Pillow: pip install pillow")


def _read(path: Path, channels: int) -> np.ndarray:
    """Return a picture (C, H, W) with pixels from 0 to 1."""
    from PIL import Image, ImageOps

    if channels not in (1, 3):
        raise InputError(f"{path}: is a picture, and the model's images have {channels} channels")
    reject_special_files(path)
    try:
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore")  # of damage, which is told by what follows
            # A small file may hold a picture that fills the memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = stack.enter_context(Image.open(path, formats=list(FORMATS)))
            picture: Any = ImageOps.exif_transpose(opened)
            if picture.mode[0] in "IF":  # 16 bits a pixel, or more
                low, high = np.min(picture), np.max(picture)
                if picture.mode == "F" or low < 0 or high > 65535:
                    raise InputError(
                        f"{path}: has pixels of more than 16 bits: save it with 8 or 16 bits"
                    )
                grey = np.asarray(picture, np.float32) / 65535
                return np.repeat(grey[np.newaxis], channels, axis=0)
            if picture.has_transparency_data:
                ground = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(ground, picture.convert("RGBA"))
            array = np.asarray(picture.convert("L" if channels == 1 else "RGB"), np.float32) / 255
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: give a picture, a folder or a CSV file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path}: is larger than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except Exception as error:  # whatever a decoder meets in a damaged file
        raise InputError(f"{path}: cannot be read as a picture: {error}") from None
    return array[np.newaxis] if channels == 1 else array.transpose(2, 0, 1)


def _fit(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Resize an image (C, H, W) into another shape, and fill what it leaves free."""
    from PIL import Image

    _, H, W = shape
    if image.shape == tuple(shape):
        return image
    rows, columns = image.shape[1:]
    scale = min(H / rows, W / columns)
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    # Pillow's filters grow with the reduction, so that no thin line is lost.
    planes = [Image.fromarray(p).resize((width, height), Image.Resampling.BILINEAR) for p in image]
    fitted = np.empty(shape, np.float32)
    fitted[:] = np.median(border_pixels(image), axis=-1)[:, np.newaxis, np.newaxis]
    top, left = (H - height) // 2, (W - width) // 2
    fitted[:, top : top + height, left : left + width] = np.stack([np.asarray(p) for p in planes])
    return fitted
