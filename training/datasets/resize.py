"""Bring images to a size, a number of channels and a scale."""

import dataclasses
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from training.datasets.dataset import Dataset, ReadOptions
from training.errors import InputError
from training.input_stats import border_pixels
from training.preprocessing.pixel_scale import match_scale

GREY_WEIGHTS = (19595, 38470, 7471)  # of red, green and blue in 65536ths: ITU-R BT.601
BLOCK_IMAGES = 1024  # images whose channels are mixed at once, to need little memory


def check_pillow(name: str | Path) -> None:
    """Raise InputError if the package that reads and resizes pictures is missing."""
    if find_spec("PIL") is None:
        raise InputError(f"{name}: pictures and resizing need Pillow: pip install pillow")


def to_grey(images: np.ndarray) -> np.ndarray:
    """Return images (N, 3, H, W) as (N, 1, H, W); weights of ITU-R BT.601, dtype unchanged.

    Of three equal channels, each pixel is the same afterwards.
    """
    grey = np.empty((len(images), 1, *images.shape[2:]), images.dtype)
    for start in range(0, len(images), BLOCK_IMAGES):
        block = images[start : start + BLOCK_IMAGES]
        if images.dtype == np.uint8:
            r, g, b = (block[:, c].astype(np.uint32) * GREY_WEIGHTS[c] for c in range(3))
            grey[start : start + BLOCK_IMAGES, 0] = (r + g + b + (1 << 15)) >> 16
        else:
            red, green, blue = (block[:, c].astype(float) * GREY_WEIGHTS[c] for c in range(3))
            grey[start : start + BLOCK_IMAGES, 0] = (red + green + blue) / (1 << 16)
    return grey


def resized_size(full: tuple[int, int], size: tuple[int, int], rule: str) -> tuple[int, int]:
    """Return the width and height that a whole picture gets, of which "crop" cuts off the rest.

    Parameters
    ----------
    full : (width, height)
        Of the picture.
    size : (H, W)
        To be filled by a rule of `training.input_format.RESIZE_RULES`.
    """
    width, height = full
    H, W = size
    if rule == "stretch":
        return W, H
    ratios = W / width, H / height
    scale = min(ratios) if rule == "pad" else max(ratios)
    return max(1, round(width * scale)), max(1, round(height * scale))


def fit_picture(
    picture: Any, size: tuple[int, int], rule: str, full: tuple[int, int] | None = None
) -> Any:
    """Resize a picture of Pillow, of mode L, F or RGB, with antialiasing.

    Parameters
    ----------
    picture : PIL.Image.Image
    size : (H, W)
    rule : "pad", "crop" or "stretch"
        "pad" keeps the whole picture and fills the rest with the median color of its border; "crop"
        cuts the longer side at both ends; "stretch" changes the proportions.
    full : (width, height), optional
        The size of the picture before it was reduced, if it was, which decides the proportions.
    """
    from PIL import Image

    H, W = size
    if picture.size == (W, H):
        return picture
    width, height = resized_size(full or picture.size, size, rule)
    bilinear = Image.Resampling.BILINEAR  # it widens with the reduction: no thin line is lost
    if rule == "crop":
        across, down = picture.width * W / width, picture.height * H / height
        left, top = max(0.0, picture.width - across) / 2, max(0.0, picture.height - down) / 2
        box = left, top, picture.width - left, picture.height - top
        return picture.resize((W, H), bilinear, box)
    resized = picture.resize((width, height), bilinear)
    if (width, height) == (W, H):
        return resized
    array = np.asarray(picture)
    border = border_pixels(array if array.ndim == 2 else array.transpose(2, 0, 1))
    color = np.median(border, axis=-1)
    color = color if picture.mode == "F" else np.rint(color).astype(int)
    fitted = Image.new(picture.mode, (W, H), color.item() if array.ndim == 2 else tuple(color))
    fitted.paste(resized, ((W - width) // 2, (H - height) // 2))
    return fitted


def fit_array(image: np.ndarray, size: tuple[int, int], rule: str) -> np.ndarray:
    """Return an image (C, rows, columns) of uint8 or float32 resized to (C, H, W).

    Its pixels are those of a picture with the same pixels.
    """
    from PIL import Image

    planes = [fit_picture(Image.fromarray(plane), size, rule) for plane in image]
    return np.stack([np.asarray(plane) for plane in planes])


def fit_images(dataset: Dataset, options: ReadOptions) -> Dataset:
    """Bring images that were read as arrays to the size and the color that the user asked for.

    Parameters
    ----------
    dataset : Dataset
    options : ReadOptions
        Of these, only `image_size`, `color` and `resize`. Without them the dataset is returned as
        it is: images that a model does not expect are refused later, by their shape.

    Raises
    ------
    InputError
        Images of other than 1 or 3 channels cannot change their color. Or Pillow is missing.
    """
    resize = options.resize or (options.like.resize if options.like else dataset.resize)
    images = dataset.images
    channels = {None: images.shape[1], "grey": 1, "rgb": 3}[options.color]
    if images.shape[1] != channels and images.shape[1] not in (1, 3):
        raise InputError(
            f"{dataset.source}: its images have {images.shape[1]} channels, and only images of 1 "
            f"or 3 can be made {options.color}: leave --color out"
        )
    size = options.image_size or images.shape[2:]
    if tuple(size) != images.shape[2:]:
        check_pillow(dataset.source)
        fitted = np.empty((*images.shape[:2], *size), images.dtype)
        for index, image in enumerate(images):
            fitted[index] = fit_array(image, size, resize)
        images = fitted
    if images.shape[1] > channels:
        images = to_grey(images)
    elif images.shape[1] < channels:
        images = np.repeat(images, channels, axis=1)
    if images is dataset.images and resize == dataset.resize:
        return dataset
    return dataclasses.replace(dataset, images=images, resize=resize)


def fit_scale(dataset: Dataset, options: ReadOptions) -> Dataset:
    """Bring images that were read as arrays to the scale that `options.like` expects, if any.

    Raises
    ------
    InputError
        The scale of the images is another one and not clear; see `match_scale`.
    """
    if options.like is None:
        return dataset
    images, notes = match_scale(dataset.images, options.like.stats, options.scale, dataset.source)
    if images is dataset.images and not notes:
        return dataset
    return dataclasses.replace(dataset, images=images, notes=(*dataset.notes, *notes))
