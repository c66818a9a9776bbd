"""Encode pictures as the files that users have."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image


def to_picture(image: np.ndarray) -> Image.Image:
    """Return an image (H, W) or (H, W, 3) of floats from 0 to 1 as a picture of 8 bits."""
    return Image.fromarray(np.uint8(np.rint(255 * np.clip(image, 0, 1))))


def encode(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    """Return the content of a file of a picture."""
    stream = BytesIO()
    picture.save(stream, file_format, **options)
    return stream.getvalue()


def jpeg(image: np.ndarray, quality: int, **options: Any) -> bytes:
    return encode(to_picture(image), "JPEG", quality=quality, **options)


def png(image: np.ndarray) -> bytes:
    return encode(to_picture(image), "PNG", compress_level=1)


def transparent_png(cover: np.ndarray, ink: int) -> bytes:
    """Return a PNG file whose pixels have one grey value and the transparency of the ground."""
    alpha = to_picture(cover)
    grey = Image.new("L", alpha.size, ink)
    return encode(Image.merge("RGBA", (grey, grey, grey, alpha)), "PNG", compress_level=1)


def png_16_bits(values: np.ndarray) -> bytes:
    """Return a grey PNG file of 16 bits a pixel."""
    return encode(Image.fromarray(values.astype(np.uint16)), "PNG", compress_level=1)
