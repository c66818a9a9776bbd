"""Decode one picture: upright, in a size or as brightness, from a file of any common format."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.datasets.resize import fit_array, fit_picture, resized_size, to_grey
from training.input_format import InputFormat
from training.preprocessing.preprocess import scale_pictures

# Only formats that Pillow decodes itself. It passes others, such as EPS, to other programs.
FORMATS = {
    "PNG": "png",
    "JPEG": "jpg jpeg jpe jfif",
    "BMP": "bmp",
    "GIF": "gif",
    "TIFF": "tif tiff",
    "WEBP": "webp",
}
SUFFIXES = {f".{suffix}" for suffixes in FORMATS.values() for suffix in suffixes.split()}
DRAFT_RATIO = 2  # a JPEG file is decoded at no less than this multiple of the size needed
MAX_READ_BYTES = 1 << 24  # larger files are read as the decoder needs them
GREY_MODES = ("1", "L", "LA", "La")
ORIENTATION_TAG = 0x0112  # of EXIF
MAX_SIDE = 256  # pixels of the longer side of a picture that is read as brightness or shown
# The visible part of a picture is drawn in one color if its brightness, from 0 to 255, deviates by
# no more than this from its mean.
MAX_PLAIN_DEVIATION = 24.0
CHECKERS = (112, 144)  # what is shown below transparent parts: black and white ink are seen on it
CHECKER_PIXELS = 8


class DecodingError(Exception):
    """A picture cannot be decoded; the message continues its name."""


class Decoded(NamedTuple):
    """One picture, shape (1 or 3, H, W), and whether parts of it were transparent."""

    pixels: np.ndarray
    was_transparent: bool = False


def printable(text: str) -> str:
    """Return text without characters that cannot be printed, such as bytes that are not UTF-8."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# -- files ----------------------------------------------------------------------------------------
@contextmanager
def open_picture(content: bytes | Path) -> Iterator[Any]:
    """Open a picture; raise DecodingError for whatever goes wrong until it is closed."""
    from PIL import Image

    try:
        file = _read_file(content) if isinstance(content, Path) else BytesIO(content)
        with Image.open(file, formats=list(FORMATS)) as picture:
            limit = Image.MAX_IMAGE_PIXELS
            # A small file may decode to a picture that fills the memory.
            if limit is not None and picture.width * picture.height > limit:
                raise Image.DecompressionBombError
            yield picture
    except DecodingError:
        raise
    except FileNotFoundError:
        raise DecodingError("no such file: give a picture, a folder or a CSV file") from None
    except Image.DecompressionBombError:
        raise DecodingError(f"is larger than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except Image.UnidentifiedImageError:
        raise DecodingError(
            f"cannot be read as a picture: it is none of {', '.join(FORMATS)}, or is damaged"
        ) from None
    except Exception as error:  # decoders raise many types for a damaged file
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DecodingError(f"cannot be read as a picture: {printable(reason)}") from None


def _read_file(path: Path) -> BytesIO | Path:
    """Return the content of a file, or its path if it is large.

    A file that is read at once gives threads fewer occasions to wait for each other.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DecodingError("is a pipe or a device: give a file")
    return BytesIO(path.read_bytes()) if status.st_size <= MAX_READ_BYTES else path


# -- pixels of the size of a model ----------------------------------------------------------------
def decode(content: bytes | Path, size: tuple[int, int] | None, rule: str) -> Decoded:
    """Return a picture in a size (H, W), or in its own if that is None.

    Its pixels are from 0 to 255: float32 if it is grey with 16 bits a pixel, else uint8. Pillow
    reads colors of 16 bits as their upper 8 bits.
    """
    with open_picture(content) as picture:
        full_size = None
        if picture.format in ("JPEG", "MPO") and size is not None:
            full_size = upright_size(picture)
            _draft(picture, resized_size(full_size, size, rule), DRAFT_RATIO)
        picture, has_transparent_pixels = _simplify_mode(_turn_upright(picture))
        if size is not None:
            picture = fit_picture(picture, size, rule, full_size)
        pixels = np.asarray(picture)
    if pixels.ndim == 2:
        return Decoded(pixels[np.newaxis], has_transparent_pixels)
    return Decoded(pixels.transpose(2, 0, 1), has_transparent_pixels)


def _draft(picture: Any, size: tuple[int, int], ratio: int, mode: str | None = None) -> None:
    """Have a JPEG file decoded at 1/2, 1/4 or 1/8, if that is a multiple of an upright size."""
    width, height = ratio * size[0], ratio * size[1]
    is_turned = _swaps_sides(_transposition(picture))
    picture.draft(mode, (height, width) if is_turned else (width, height))


def upright_size(picture: Any) -> tuple[int, int]:
    """Return the width and the height that an opened picture has after its EXIF rotation."""
    return picture.size[::-1] if _swaps_sides(_transposition(picture)) else picture.size


def _turn_upright(picture: Any) -> Any:
    """Decode a picture and apply its EXIF rotation."""
    picture.load()
    method = _transposition(picture)
    return picture if method is None else picture.transpose(method)


def _transposition(picture: Any) -> Any:
    """Return the method of Image.transpose that turns a picture upright, or None."""
    from PIL import Image

    try:
        tag = picture.getexif().get(ORIENTATION_TAG)
    except Exception:  # damaged metadata of a picture that may be fine
        return None
    methods = Image.Transpose
    return {
        2: methods.FLIP_LEFT_RIGHT,
        3: methods.ROTATE_180,
        4: methods.FLIP_TOP_BOTTOM,
        5: methods.TRANSPOSE,
        6: methods.ROTATE_270,
        7: methods.TRANSVERSE,
        8: methods.ROTATE_90,
    }.get(tag)


def _swaps_sides(method: Any) -> bool:
    """Return whether a method of Image.transpose swaps the width and the height."""
    return method is not None and method.name in (
        "TRANSPOSE",
        "TRANSVERSE",
        "ROTATE_90",
        "ROTATE_270",
    )


def _is_deep(picture: Any) -> bool:
    """Return whether a picture is grey with 16 bits a pixel, or more."""
    return picture.mode[0] in "IF"


def _read_deep(picture: Any) -> np.ndarray:
    """Return the pixels of a grey picture of 16 bits, from 0 to 65535."""
    array = np.asarray(picture)
    if picture.mode == "F" or array.min() < 0 or array.max() > 65535:
        raise DecodingError("has pixels of more than 16 bits: save it with 8 or 16 bits")
    return array.astype(np.float32)


def _simplify_mode(picture: Any) -> tuple[Any, bool]:
    """Return a picture in mode L, RGB or F (from 0 to 255), and whether parts were transparent."""
    from PIL import Image

    if _is_deep(picture):
        return Image.fromarray(_read_deep(picture) / 257), False
    mode = "L" if picture.mode in GREY_MODES else "RGB"
    if not picture.has_transparency_data:
        return picture if picture.mode == mode else picture.convert(mode), False
    picture = _to_rgba(picture)
    is_transparent = picture.getextrema()[3][0] < 255
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert(mode), is_transparent


def _to_rgba(picture: Any) -> Any:
    if picture.mode == "La":  # of TIFF; it cannot be converted to RGBA at once
        picture = picture.convert("LA")
    return picture.convert("RGBA")


# -- brightness -----------------------------------------------------------------------------------
def read_gray(content: bytes | Path, side: int = MAX_SIDE) -> np.ndarray:
    """Return the brightness of a picture (h, w) in float32, 0 is black and 1 white.

    This is how a picture of ink on paper is read, see `training.preprocessing.ink.read_ink`.

    - The EXIF rotation is applied. A picture of more than `side` pixels a side is reduced to that;
      each pixel is then the mean of those that it replaces.
    - Colors are weighted as in ITU-R BT.601.
    - Where a picture is drawn in one color on a transparent ground, the ground becomes white if the
      color is dark, and black if it is light. The transparent edge of a photograph gets the median
      brightness of the rest.
    - Of 16 bits a pixel, as many are used as the largest pixel needs, for scanners and cameras may
      write 10 or 12. Of colors of 16 bits, Pillow reads the upper 8 only.

    Raises
    ------
    DecodingError
        The content is not that of a picture.

    Notes
    -----
    A JPEG file is decoded at 1/2, 1/4 or 1/8 of its size, if no side becomes less than needed.

    Examples
    --------
    >>> from io import BytesIO
    >>> from PIL import Image
    >>> file = BytesIO()
    >>> Image.new("RGB", (1000, 500), "white").save(file, "JPEG")
    >>> gray = read_gray(file.getvalue())
    >>> gray.shape, float(gray.min())
    ((128, 256), 1.0)
    """
    with open_picture(content) as picture:
        has_deep_colors = ";16" in str(picture.tile) and not _is_deep(picture)
        size = _limited_size(upright_size(picture), side)
        if picture.format in ("JPEG", "MPO"):
            _draft(picture, size, 1, "L")
        picture = _turn_upright(picture)
        if _is_deep(picture):
            return _reduce_deep(picture, size)
        if picture.has_transparency_data:
            gray = _flatten(_to_rgba(picture), size)
        else:
            if picture.mode not in ("L", "1", "P", "RGB"):
                picture = picture.convert("RGB")
            gray = np.asarray(_reduce(picture.convert("L"), size), np.float32)
    return gray / (_full_scale(gray.max()) if has_deep_colors else np.float32(255))


def _limited_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the width and height with at most `side` pixels a side."""
    if max(size) <= side:
        return size
    return resized_size(size, (side, side), "pad")


def _reduce(picture: Any, size: tuple[int, int]) -> Any:
    """Reduce a picture to a width and height by taking means."""
    from PIL import Image

    return picture if picture.size == size else picture.resize(size, Image.Resampling.BOX)


def _reduce_deep(picture: Any, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    deep = _read_deep(picture)
    reduced = _reduce(Image.fromarray(deep), size)
    return np.asarray(reduced) / _full_scale(deep.max())


def _full_scale(largest: float) -> np.float32:
    """Return the largest number of as many bits as a pixel needs; at least 1."""
    return np.float32(2 ** int(largest).bit_length() - 1 or 1)


def _flatten(picture: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the brightness (h, w) from 0 to 255 of a picture of mode RGBA on a plain ground.

    It is reduced to a width and height in which transparent pixels count nothing.
    """
    from PIL import ImageChops

    channel = picture.getchannel("A")
    product = ImageChops.multiply(picture.convert("L"), channel)  # faster than to reduce RGBA
    visible = np.asarray(_reduce(product, size), np.float32)
    alpha = np.asarray(_reduce(channel, size), np.float32) / 255
    gray = visible / np.maximum(alpha, 1 / 255)
    return visible + _choose_ground(gray, alpha) * (1 - alpha)


def _choose_ground(gray: np.ndarray, alpha: np.ndarray) -> float:
    """Return the brightness for the transparent parts of a picture, from 0 to 255.

    Parameters
    ----------
    gray : (h, w)
        From 0 to 255.
    alpha : (h, w)
        From 0, transparent, to 1.
    """
    visible = alpha.sum()
    if visible == 0:
        return 255.0
    mean = (gray * alpha).sum() / visible
    deviation = np.sqrt(((gray - mean) ** 2 * alpha).sum() / visible)
    if deviation > MAX_PLAIN_DEVIATION and visible > 0.5 * alpha.size:
        return float(np.median(gray[alpha > 0.5]))  # a photograph or a scan with its own paper
    return 255.0 if mean < 127.5 else 0.0


# -- pictures as they are shown -------------------------------------------------------------------
def read_thumbnail(content: bytes | Path, side: int = MAX_SIDE) -> np.ndarray:
    """Return a picture (h, w, 3) in uint8, upright, with at most `side` pixels a side.

    Transparent parts are laid on a checkerboard.
    """
    from PIL import Image

    with open_picture(content) as picture:
        size = resized_size(upright_size(picture), (side, side), "pad")
        if picture.format in ("JPEG", "MPO"):
            _draft(picture, size, 1)
        picture = _turn_upright(picture)
        if _is_deep(picture):
            deep = _read_deep(picture)
            picture = Image.fromarray((deep * (255 / _full_scale(deep.max()))).astype(np.uint8))
        picture = _to_rgba(picture) if picture.has_transparency_data else picture.convert("RGB")
        if max(picture.size) > side:
            picture = _reduce(picture, size)
        if picture.mode == "RGBA":
            rows, columns = (np.arange(n) // CHECKER_PIXELS for n in picture.size[::-1])
            squares = np.array(CHECKERS, np.uint8)[np.add.outer(rows, columns) % 2]
            board = Image.fromarray(squares).convert("RGBA")
            picture = Image.alpha_composite(board, picture).convert("RGB")
        return np.asarray(picture)


# -- the source for preprocessing -----------------------------------------------------------------
class PictureSource:
    """A picture for `training.preprocessing.preprocess`, which decodes what its rule needs.

    Parameters
    ----------
    content : bytes or Path
    like : InputFormat
        Of 1 or 3 channels.
    rule : "pad", "crop" or "stretch"
        How the picture is brought to the size of `like`.
    """

    def __init__(self, content: bytes | Path, like: InputFormat, rule: str):
        self._content, self._like, self._rule = content, like, rule
        self.was_transparent = False
        size = like.shape[:0:-1]
        with open_picture(content) as picture:
            # The EXIF data of a PNG are known only when it is decoded.
            is_possible = sorted(picture.size) == sorted(size)
            self.is_right_size = is_possible and upright_size(picture) == size

    def fitted(self) -> np.ndarray:
        """Return the image (C, H, W) in the shape and on the scale of the training images."""
        like = self._like
        pixels, self.was_transparent = decode(self._content, like.shape[1:], self._rule)
        if len(pixels) > like.shape[0]:
            pixels = to_grey(pixels[np.newaxis])[0]
        elif len(pixels) < like.shape[0]:
            pixels = np.repeat(pixels, like.shape[0], axis=0)
        return scale_pictures(pixels, like.stats)

    @cached_property
    def gray(self) -> np.ndarray:
        """The brightness (h, w)."""
        return read_gray(self._content)

    def preview(self) -> np.ndarray:
        """Return nearly the same as `fitted`, in one channel, from the brightness."""
        like = self._like
        pixels = fit_array(self.gray[np.newaxis] * 255, like.shape[1:], self._rule)
        return scale_pictures(pixels, like.stats)
