"""Bring one image to the form of a model's training images."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np

from training.errors import InputError
from training.input_format import InputFormat
from training.input_stats import InputStats
from training.preprocessing.ink_stats import looks_like

MODES = ("auto", "ink", "none")
AS_IT_IS, RESIZED, INVERTED, INK = "as it is", "resized", "inverted", "ink"  # the rules
BLANK = "blank page"
MAX_OWN_SCALE = 16  # the largest pixel of scikit-learn's digits


class Source(Protocol):
    """An image as it came, which is brought to the form that a rule needs.

    Attributes
    ----------
    is_right_size : bool
        Whether it has the rows and columns of the training images.
    """

    is_right_size: bool

    @property
    def gray(self) -> np.ndarray:
        """Its brightness (h, w) in its own size, from 0 (black) to 1, float32."""

    def fitted(self) -> np.ndarray:
        """Return the image (C, H, W) in the shape and on the scale of the training images."""

    def preview(self) -> np.ndarray:
        """Return what `fitted` does, or nearly, made from `gray`, which may be faster."""


class Preprocessed(NamedTuple):
    """An image in the form of the training images.

    Attributes
    ----------
    image : ndarray, shape (C, H, W)
        On the scale of the training images.
    rule : str
        What was done: "as it is", "resized", "inverted" or "ink".
    remarks : tuple of str
        What makes an answer doubtful, such as "blank page".
    """

    image: np.ndarray
    rule: str
    remarks: tuple[str, ...] = ()


def preprocess(source: Source, like: InputFormat, mode: str = "auto") -> Preprocessed:
    """Bring an image to the form of a model's training images.

    Parameters
    ----------
    source : Source
    like : InputFormat
        Form of the training images. `like.ink` describes them if they are ink on a plain ground.
    mode : "auto", "ink" or "none"
        With "auto", the first of these rules that applies:

        - "as it is": where the training images are ink on a plain ground, an image of the right
          size that looks like them (see `looks_like`) stays the same, to the bit;
        - "resized": there, an image of another size that looks like them after it is resized as
          training images are;
        - "inverted": there, an image that does either after black and white are exchanged;
        - "ink": there, any other image is read as ink on paper (see `read_ink`);
        - "as it is" or "resized": where the training images are something else, such as
          photographs, only the size and the number of channels are adapted.

        With "ink", every image is read as ink on paper. With "none", only the size and the number
        of channels are adapted.

    Returns
    -------
    Preprocessed
        A blank page has the pixels of the ground, and the remark "blank page".

    Raises
    ------
    InputError
        The mode is "ink", and the training images are not ink on a plain ground.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> image = np.zeros((1, 8, 8), np.uint8)
    >>> source = SimpleNamespace(is_right_size=True, fitted=lambda: image)
    >>> preprocess(source, InputFormat((1, 8, 8), ("cat", "dog"))).rule
    'as it is'
    """
    check_mode(mode, like)
    unchanged = AS_IT_IS if source.is_right_size else RESIZED
    if mode == "none" or like.ink is None:
        return Preprocessed(source.fitted(), unchanged)
    # Large pictures are compared in a small copy, which saves decoding most of them twice.
    if mode == "auto" and (source.is_right_size or _looks_like_any(source.preview(), like)):
        image = source.fitted()
        if looks_like(image[0], like.ink):
            return Preprocessed(image, unchanged)
        image = invert(image, like.stats)
        if looks_like(image[0], like.ink):
            return Preprocessed(image, INVERTED)
    from training.preprocessing.ink import read_ink  # SciPy is loaded where it is needed

    reading = read_ink(source.gray, like.ink, like.shape[1:])
    if reading.image is None:
        blank = np.full(like.shape, like.ink.background, np.float32)
        return Preprocessed(blank, INK, (BLANK,))
    return Preprocessed(
        reading.image[np.newaxis], INK, _remarks(reading.n_shapes, reading.fills_picture)
    )


def _looks_like_any(image: np.ndarray, like: InputFormat) -> bool:
    assert like.ink is not None
    inverted = invert(image, like.stats)
    return looks_like(image[0], like.ink) or looks_like(inverted[0], like.ink)


def check_mode(mode: str, like: InputFormat) -> None:
    """Raise InputError if the mode is "ink" and the training images are something else."""
    if mode == "ink" and like.ink is None:
        raise InputError(
            "preprocess ink is for a model whose training images are ink on a plain ground, which "
            "those of this model are not, or it was saved by an earlier version: use auto or none"
        )


def count_rules(rules: Iterable[str], remarks: Iterable[tuple[str, ...]]) -> list[str]:
    """Return lines that say how often each rule was applied, and each remark was made.

    Examples
    --------
    >>> count_rules(["ink", "ink", "as it is"], [(), ("blank page",), ()])
    ['preprocessing: ink (2), as it is (1)', 'remarks: blank page (1)']
    """
    lines = []
    found = (remark for of_image in remarks for remark in of_image)
    for title, texts in (("preprocessing", rules), ("remarks", found)):
        counts = Counter(texts).most_common()
        if counts:
            lines.append(f"{title}: " + ", ".join(f"{text} ({n:,})" for text, n in counts))
    return lines


def invert(image: np.ndarray, stats: InputStats) -> np.ndarray:
    """Return an image with black and white exchanged; the dtype stays the same.

    Parameters
    ----------
    image : ndarray of uint8 or float32
    stats : InputStats
        Of the training images, whose smallest and largest pixel are exchanged.
    """
    inverted = np.float32(stats.low + stats.high) - image
    if image.dtype == np.uint8:  # of a pixel outside the range of the training images
        inverted = np.clip(inverted, 0, 255)
    return inverted.astype(image.dtype)


def scale_pictures(pixels: np.ndarray, stats: InputStats) -> np.ndarray:
    """Return pixels of pictures, from 0 to 255, on the scale of the training images.

    Training images with pixels from 0 to some number above 16 were pictures themselves, all dark if
    the number is small. Others have a scale of their own, such as 0 to 1.
    """
    if stats.low >= 0 and MAX_OWN_SCALE < stats.high <= 255:
        return pixels
    return np.float32(stats.low) + pixels * np.float32((stats.high - stats.low) / 255)


def to_brightness(images: np.ndarray, stats: InputStats) -> np.ndarray:
    """Return images on the scale of the training images as brightness, from 0 to 1, in float32."""
    scale = np.float32(1 / ((stats.high - stats.low) or 1))
    return np.clip((images - np.float32(stats.low)) * scale, 0, 1).astype(np.float32, copy=False)


def _remarks(n_shapes: int, fills_picture: bool) -> tuple[str, ...]:
    remarks = []
    if n_shapes > 1:
        remarks.append(f"{n_shapes} shapes found, the largest was read")
    if fills_picture:
        remarks.append("the ink fills the picture")
    return tuple(remarks)
