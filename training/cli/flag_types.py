"""The types of the flags of run.py: functions that read and check a value, for argparse."""

import argparse
from collections.abc import Callable
from typing import TypeVar

from training.augmentation import make_augmenter
from training.errors import InputError
from training.preprocessing.pixel_scale import UNSCALED, check_scale

AUTO = "auto"
Number = TypeVar("Number", int, float)


def number_type(
    convert: Callable[[str], Number], is_valid: Callable[[Number], bool], description: str
) -> Callable[[str], Number]:
    """Return a function for argparse that reads a number and checks it.

    Parameters
    ----------
    convert : callable
        int or float.
    is_valid : callable
        Whether a number is allowed.
    description : str
        The allowed numbers in words, for the error message.
    """

    def read(text: str) -> Number:
        try:
            number = convert(text)
        except ValueError:
            number = None
        if number is None or not is_valid(number):
            raise argparse.ArgumentTypeError(f"must be {description}, got {text[:40]!r}")
        return number

    return read


positive_int = number_type(int, lambda n: 1 <= n < 2**31, "a whole number from 1 to 2147483647")
seed = number_type(int, lambda n: 0 <= n < 2**31, "a whole number from 0 to 2147483647")
side = number_type(int, lambda n: 1 <= n <= 4096, "a whole number from 1 to 4096")
positive_float = number_type(float, lambda x: 0 < x <= 10, "a number above 0 and at most 10")
duration = number_type(float, lambda x: 0 < x <= 1e7, "a number of seconds, above 0")
fraction = number_type(float, lambda x: 0 < x < 1, "a number between 0 and 1")
non_negative_float = number_type(float, lambda x: 0 <= x <= 10, "a number from 0 to 10")
smoothing = number_type(float, lambda x: 0 <= x < 1, "a number of at least 0 and below 1")


def image_shape(text: str) -> tuple[int, int, int]:
    """Read the shape of an image, for argparse."""
    try:
        C, H, W = (positive_int(size) for size in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"must be C,H,W such as 3,32,32, got {text[:40]!r}"
        ) from None
    return C, H, W


def image_size(text: str) -> tuple[int, int]:
    """Read the size of an image, for argparse: one number for a square, or H,W."""
    try:
        sizes = [side(size) for size in text.split(",")]
        H, W = sizes * 2 if len(sizes) == 1 else sizes
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"must be N or H,W such as 32 or 48,64, at most 4096, got {text[:40]!r}"
        ) from None
    return H, W


def pixel_scale(text: str) -> tuple[float, float] | str:
    """Read the scale of pixels, for argparse: two numbers, or none."""
    try:
        return check_scale(text if text == UNSCALED else [float(part) for part in text.split(",")])
    except (ValueError, InputError):
        raise argparse.ArgumentTypeError(
            f"must be two different numbers such as 0,1 or {UNSCALED}, got {text[:40]!r}"
        ) from None


def augmentation(text: str) -> str:
    """Check the names of augmentations, for argparse."""
    try:
        if text != AUTO:
            make_augmenter(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} (or {AUTO} alone)") from None
    return text
