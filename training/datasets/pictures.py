"""Decode pictures of common formats, and bring them to one size and number of channels."""

import hashlib
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.datasets.dataset import ReadOptions
from training.datasets.parallel_map import map_in_processes, map_in_threads
from training.datasets.picture_file import DecodingError, PictureSource, decode, open_picture
from training.datasets.resize import check_pillow, to_grey
from training.errors import InputError
from training.input_format import InputFormat
from training.input_stats import InputStats
from training.preprocessing.preprocess import (
    AS_IT_IS,
    INK,
    RESIZED,
    check_mode,
    count_rules,
    preprocess,
)

MAX_ALIKE_SIDE = 256  # pictures of one size keep it up to here
MAX_CHOSEN_SIDE = 64  # the largest size that is chosen for pictures of different sizes
# In a grey picture that was saved in color, the channels are equal after JPEG and differ by up to 1
# after WebP (qualities 10 to 100). More is allowed, for pictures that were edited.
MAX_GREY_SPREAD = 4
MAX_SKIPPED, MAX_SKIPPED_SHARE = 10, 0.01  # more pictures than both of these are not skipped
N_NAMED = 5  # skipped pictures that a note names
READING = "reading pictures"


class Pictures(NamedTuple):
    """Pictures that were brought to one form.

    Attributes
    ----------
    images : ndarray of uint8 or float32, shape (n, C, H, W)
        Pixels from 0 to 255: float32 if a picture has 16 bits a pixel, else uint8.
    decoded : ndarray of int64, shape (n,)
        The index of each image in the sequence of names; those that are missing were skipped.
    resize : "pad", "crop" or "stretch"
        How pictures of other proportions were, or would have been, brought to the size.
    notes : tuple of str
        What the user should know: the color, the size, skipped pictures.
    skipped : dict of int to str
        The reason for each index of a picture that cannot be decoded.
    rules : tuple of str
        How each image was brought to the form of a model, see `preprocess`; "" without a model.
    remarks : tuple of tuple of str
        What makes an answer on each image doubtful.
    """

    images: np.ndarray
    decoded: np.ndarray
    resize: str
    notes: tuple[str, ...]
    skipped: dict[int, str]
    rules: tuple[str, ...]
    remarks: tuple[tuple[str, ...], ...]

    def describe_rules(self) -> tuple[str, ...]:
        """Return notes on the rules and the remarks, if any image was changed but in its size."""
        is_changed = any(self.remarks) or not {"", AS_IT_IS, RESIZED}.issuperset(self.rules)
        return tuple(count_rules(self.rules, self.remarks)) if is_changed else ()


class _UnequalSizesError(Exception):
    """The pictures do not all have the size of the first one."""


class _Result(NamedTuple):
    """One picture, shape (1 or 3, H, W), or the reason why there is none."""

    pixels: np.ndarray | None
    was_transparent: bool = False
    rule: str = ""
    remarks: tuple[str, ...] = ()
    reason: str = ""


def decode_pictures(
    names: Sequence[str], read: Callable[[int], bytes | Path], options: ReadOptions
) -> Pictures:
    """Decode pictures with all cores and bring them to one size and number of channels.

    A picture becomes the same pixels whichever pictures it is decoded with, if the size, the color
    and the rule for resizing are the same.

    Parameters
    ----------
    names : sequence of str
        Name of each picture, for messages; at least one.
    read : callable
        Returns the content of a file of a picture, or its path, given the index in `names`. It is
        called in threads.
    options : ReadOptions
        What it leaves open is that of `like`, or, without `like`:

        - the size: that of the pictures if it is the same for all and at most 256 pixels a side;
          else square, with the median of the longer sides of the pictures but at most 64 pixels;
        - the color: "grey" if all pictures are grey, because their files have one channel or their
          three channels are equal (up to 4 levels, for lossy compression changes them); else "rgb";
        - the rule for resizing: "pad".

        With `like`, each picture goes through `training.preprocessing.preprocess`, in the mode of
        `options.preprocess`.

    Returns
    -------
    Pictures

    Raises
    ------
    InputError
        No picture can be decoded, or more than 10 of them and more than 1 % cannot; fewer are
        skipped. Also if Pillow is missing, `like` has other than 1 or 3 channels, or the mode is
        not for `like`.

    Notes
    -----
    The EXIF orientation is applied; of an animation, the first frame is taken. Except in pictures
    that are read as ink, see `picture_file.read_gray`, transparent pixels are laid on white, and 16
    bits a pixel become float32 from 0 to 255. `fit_picture` in
    training/datasets/resize.py resizes, with antialiasing. The channels of a color picture that
    becomes grey are weighted as in ITU-R BT.601.

    Examples
    --------
    >>> from io import BytesIO
    >>> from PIL import Image
    >>> file = BytesIO()
    >>> Image.new("RGB", (3, 2), "red").save(file, "PNG")
    >>> pictures = decode_pictures(["red.png"], lambda index: file.getvalue(), ReadOptions())
    >>> pictures.images.shape, pictures.images[0, :, 0, 0]
    ((1, 3, 2, 3), array([255,   0,   0], dtype=uint8))
    """
    check_pillow(names[0])
    like = _adapted_format(names[0], options)
    resize = options.resize or (like.resize if like else "pad")
    with _prepare_pillow():
        if like is None:
            channels = {None: None, "grey": 1, "rgb": 3}[options.color]
            results = _decode_training(names, read, options.image_size, channels, resize)
        else:
            mode = options.preprocess or "none"
            read_one = partial(_preprocess_one, like=like, rule=resize, mode=mode)
            results = _Results(names, like.shape[0])
            read_or_skip = partial(_or_skip, read_one)
            for picture in map_in_processes(read_or_skip, read, len(names), READING):
                results.add(picture)
    images = results.finish()
    if images is None:
        raise _nothing_decoded(names, results.reasons)
    decoded = np.flatnonzero([not reason for reason in results.reasons])
    notes = [note for note in (results.size_note, results.color_note) if note]
    if results.n_transparent:
        notes.append(
            f"transparent pixels are laid on white (pictures with some: {results.n_transparent:,})"
        )
    notes += _check_skipped(names, results.reasons)
    if len(decoded) < len(names):
        images = images[decoded]
    return Pictures(
        images,
        decoded,
        resize,
        tuple(notes),
        {index: reason for index, reason in enumerate(results.reasons) if reason},
        tuple(results.rules[index] for index in decoded),
        tuple(results.remarks[index] for index in decoded),
    )


def decoder_version(options: ReadOptions) -> tuple[str, ...]:
    """Return all but the files and the options that pixels depend on, to key a cache with it."""
    import PIL

    return (PIL.__version__, *((code_version(),) if options.preprocess else ()))


@cache
def code_version() -> str:
    """Return a hash of the source that the pixels of preprocessed pictures depend on."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in _code_files())).hexdigest()[:16]


def _code_files() -> list[Path]:
    here = Path(__file__).parent
    others = [here / "picture_file.py", here / "resize.py", here.parent / "input_stats.py"]
    return [*sorted((here.parent / "preprocessing").glob("*.py")), *others]


def _adapted_format(name: str, options: ReadOptions) -> InputFormat | None:
    """Return `like` with the size and the color that the options ask for.

    Images of another shape than the training images cannot have ink as these have it. The images of
    other parts of a source of training images stay on the scale of pictures.
    """
    like = options.like
    if like is None:
        return None
    channels, *size = like.shape
    if options.color is not None:
        channels = {"grey": 1, "rgb": 3}[options.color]
    elif channels not in (1, 3):
        raise InputError(
            f"{name}: is a picture, and the images of the model have {channels} channels"
        )
    H, W = options.image_size or size
    if (channels, H, W) != like.shape:
        like = like._replace(shape=(channels, H, W), ink=None)
    if options.preprocess is None:
        return like._replace(stats=InputStats(), ink=None)
    try:
        check_mode(options.preprocess, like)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return like


def _preprocess_one(content: bytes | Path, like: InputFormat, rule: str, mode: str) -> "_Result":
    """Bring a picture to the form of training images.

    Reading ink is many short calls of SciPy, of which two threads together do hardly more than one.
    """
    source = PictureSource(content, like, rule)
    image, applied, remarks = preprocess(source, like, mode)
    return _Result(image, source.was_transparent, applied, remarks)


def _or_skip(read_one: Callable[[Any], "_Result"], item: Any) -> "_Result":
    """Return what a function reads of a picture, or why it cannot be read."""
    try:
        return read_one(item)
    except DecodingError as error:
        return _Result(None, reason=str(error))


@contextmanager
def _prepare_pillow() -> Iterator[None]:
    """Load Pillow's decoders, and ignore its warnings: damage is reported as an error."""
    from PIL import Image

    Image.init()  # here, because it is not safe in threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# -- sets of pictures -----------------------------------------------------------------------------
class _Results:
    """The images of a set, which are grey until a picture has colors, and uint8 until one is float.

    Parameters
    ----------
    names : sequence of str
    channels : int or None
        Number of channels of the images; None: 1 if all pictures are grey, else 3.
    """

    def __init__(self, names: Sequence[str], channels: int | None):
        self._names, self._channels = names, channels
        self._images: np.ndarray | None = None
        self._floats: list[int] = []  # indices of pictures of 16 bits
        self.reasons: list[str] = []
        self.rules: list[str] = []
        self.remarks: list[tuple[str, ...]] = []
        self.n_transparent = 0
        self.size_note = self.color_note = ""

    def add(self, picture: _Result) -> None:
        """Store the next picture."""
        index = len(self.reasons)
        self.reasons.append(picture.reason)
        self.rules.append(picture.rule)
        self.remarks.append(picture.remarks)
        pixels = picture.pixels
        if pixels is None:
            return
        # Ink on a transparent ground is laid on its opposite, see `picture_file.read_gray`.
        self.n_transparent += picture.was_transparent and picture.rule != INK
        if self._channels == 1:
            pixels = pixels if len(pixels) == 1 else to_grey(pixels[np.newaxis])[0]
        channels = self._channels or len(pixels)
        if self._images is None:
            # Pages of images that do not come take no memory.
            shape = len(self._names), channels, *pixels.shape[1:]
            self._images = np.empty(shape, pixels.dtype)
        elif channels > self._images.shape[1]:
            self._images = np.repeat(self._images, channels, axis=1)
        if pixels.dtype == np.float32:
            self._floats.append(index)
            self._images = self._images.astype(np.float32, copy=False)
        if self._channels is None and not self.color_note and not _is_grey(pixels):
            self.color_note = f"rgb: not every picture is grey, such as {self._names[index]}"
        self._images[index] = pixels

    def finish(self) -> np.ndarray | None:
        """Return the images, in one channel if no number of channels was given and all are grey."""
        images = self._images
        if images is None or self._channels is not None or self.color_note:
            return images
        self.color_note = "grey: every picture is grey"
        if images.shape[1] == 1:
            return images
        if images.dtype == np.uint8:
            return to_grey(images)
        # Other pictures than those of 16 bits must become the same pixels as without these.
        grey = images[:, :1].copy()
        others = np.delete(np.arange(len(images)), self._floats)
        grey[others] = to_grey(images[others].astype(np.uint8))
        return grey


def _decode_training(
    names: Sequence[str],
    read: Callable[[int], bytes | Path],
    size: tuple[int, int] | None,
    channels: int | None,
    resize: str,
) -> _Results:
    """Decode all pictures in a size, or in that of all of them, or in one that they decide."""
    note = ""
    if size is None:
        try:
            return _decode_all(
                names, lambda index: _Result(*decode(read(index), None, resize)), channels, True
            )
        except _UnequalSizesError as error:
            size = _choose_size(names, read)
            note = f"{error}: they are resized to {size[0]}x{size[1]} ({resize})"
    results = _decode_all(
        names, lambda index: _Result(*decode(read(index), size, resize)), channels
    )
    results.size_note = note
    return results


def _decode_all(
    names: Sequence[str],
    read_one: Callable[[int], _Result],
    channels: int | None,
    alike: bool = False,
) -> _Results:
    """Decode all pictures.

    Raises
    ------
    _UnequalSizesError
        `alike`, and there are pictures of different sizes or larger than 256 pixels.
    """
    results = _Results(names, channels)
    first: tuple[int, ...] | None = None

    for picture in map_in_threads(partial(_or_skip, read_one), len(names), READING):
        if alike and picture.pixels is not None:
            shape = picture.pixels.shape[1:]
            first = first or shape
            if shape != first:
                raise _UnequalSizesError("the pictures have different sizes")
            if max(shape) > MAX_ALIKE_SIDE:
                raise _UnequalSizesError(f"the pictures have {shape[0]}x{shape[1]} pixels")
        results.add(picture)
    return results


def _choose_size(names: Sequence[str], read: Callable[[int], bytes | Path]) -> tuple[int, int]:
    """Return the size for pictures of different sizes, from the headers of their files."""

    def longer_side(index: int) -> int:
        try:
            with open_picture(read(index)) as picture:
                return max(picture.size)
        except DecodingError:
            return 0

    sides = [s for s in map_in_threads(longer_side, len(names), "measuring pictures") if s]
    side = min(MAX_CHOSEN_SIDE, int(statistics.median_high(sides)))
    return side, side


def _check_skipped(names: Sequence[str], reasons: list[str]) -> list[str]:
    """Return a note on the pictures that are skipped; raise InputError if they are too many."""
    skipped = [index for index, reason in enumerate(reasons) if reason]
    if not skipped:
        return []
    if len(skipped) > max(MAX_SKIPPED, MAX_SKIPPED_SHARE * len(names)):
        first = skipped[0]
        raise InputError(
            f"{names[first]}: {reasons[first]}; and so {len(skipped):,} of {len(names):,} pictures "
            f"cannot be used; up to {MAX_SKIPPED_SHARE:.0%} would be skipped: delete them, or "
            "copy them again"
        )
    named = "; ".join(f"{names[index]} {reasons[index]}" for index in skipped[:N_NAMED])
    more = f"; and {len(skipped) - N_NAMED} more" if len(skipped) > N_NAMED else ""
    return [f"skipped {len(skipped):,} of {len(names):,} pictures: {named}{more}"]


def _nothing_decoded(names: Sequence[str], reasons: list[str]) -> InputError:
    others = f"; nor can any of the {len(names):,} pictures be used" if len(names) > 1 else ""
    return InputError(f"{names[0]}: {reasons[0]}{others}")


def _is_grey(pixels: np.ndarray) -> bool:
    """Return whether the channels of a picture (C, H, W) are equal but for lossy compression."""
    spread = pixels.max(axis=0) - pixels.min(axis=0)
    return len(pixels) == 1 or int(spread.max()) <= MAX_GREY_SPREAD
