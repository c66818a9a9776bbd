"""Where a window lands on an image: kernel sizes, strides, padding, dilation, output sizes."""

import math
import numbers
import operator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


@dataclass(frozen=True)
class Window:
    """A window that slides over the pixels of an image.

    Attributes
    ----------
    image : (H, W)
        Size of the image before padding.
    size : (KH, KW)
        Taps of the window (a convolution's kernel, a pool).
    stride, dilation : (vertical, horizontal)
        Pixels between two windows, and between two taps of one window.
    padding : ((top, bottom), (left, right))
    """

    image: Pair
    size: Pair
    stride: Pair
    padding: Padding
    dilation: Pair

    @property
    def extent(self) -> Pair:
        """Pixels from the first to the last tap, both counted."""
        (KH, KW), (dh, dw) = self.size, self.dilation
        return (KH - 1) * dh + 1, (KW - 1) * dw + 1

    @property
    def padded(self) -> Pair:
        """Size of the padded image."""
        (H, W), ((top, bottom), (left, right)) = self.image, self.padding
        return H + top + bottom, W + left + right

    @property
    def start(self) -> Pair:
        """How far above and left of the image the first window begins."""
        (top, _), (left, _) = self.padding
        return top, left

    @property
    def output(self) -> Pair:
        """Number of places (OH, OW) where the window fits."""
        return (
            (self.padded[0] - self.extent[0]) // self.stride[0] + 1,
            (self.padded[1] - self.extent[1]) // self.stride[1] + 1,
        )


def integer(value: Any, name: str, minimum: int) -> int:
    """Return ``value`` as an int of at least ``minimum``; any integer type but bool will do."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not minimum <= number < 2**31:
        raise ValueError(f"{name} must be at least {minimum} and below 2**31, got {number}")
    return number


def flag(value: Any, name: str) -> bool:
    """Return ``value``, which must be true or false and nothing that merely counts as such."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be true or false, got {value!r}")
    return bool(value)


def number(value: Any, name: str, minimum: float = -math.inf, below: float = math.inf) -> float:
    """Return ``value`` as a finite float from ``minimum`` to below ``below``; no bool will do."""
    if not isinstance(value, numbers.Real) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        checked = float(value)
    except OverflowError:  # such an integer may also be too long to be shown
        checked, value = math.inf, "a number beyond any float"
    if not (math.isfinite(checked) and minimum <= checked < below):
        least = "finite" if minimum == -math.inf else f"at least {minimum:g}"
        upper = "finite" if below == math.inf else f"below {below:g}"
        wanted = least if least == upper else f"{least} and {upper}"
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return checked


def pair(value: Any, name: str, minimum: int = 1) -> Pair:
    """Return an int or a pair of ints as a pair (vertical, horizontal)."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair of them, got {value!r}")
        return integer(value[0], name, minimum), integer(value[1], name, minimum)
    number = integer(value, name, minimum)
    return number, number


def plain_padding(value: Any) -> str | Padding:
    """Return padding as "same" or in its longest form, ((top, bottom), (left, right))."""
    if isinstance(value, str):
        if value in ("same", "valid"):
            return "same" if value == "same" else ((0, 0), (0, 0))
        raise ValueError(
            f"padding must be 'same', 'valid', an integer, a pair or "
            f"((top, bottom), (left, right)), got {value!r}"
        )
    if isinstance(value, (tuple, list)) and any(isinstance(side, (tuple, list)) for side in value):
        if len(value) != 2 or not all(isinstance(side, (tuple, list)) for side in value):
            raise ValueError(f"padding must be ((top, bottom), (left, right)), got {value!r}")
        return pair(value[0], "padding", 0), pair(value[1], "padding", 0)
    vertical, horizontal = pair(value, "padding", 0)
    return (vertical, vertical), (horizontal, horizontal)


def _same_padding(length: int, extent: int, stride: int) -> Pair:
    """Padding that leaves ceil(length / stride) windows; an odd rest goes to the far side."""
    total = max((math.ceil(length / stride) - 1) * stride + extent - length, 0)
    return total // 2, total - total // 2


@lru_cache(maxsize=1024)
def _window(
    image: Pair, size: Pair, stride: Pair, padding: str | Padding, dilation: Pair
) -> Window:
    if isinstance(padding, str):
        extent = Window(image, size, stride, ((0, 0), (0, 0)), dilation).extent
        padding = (
            _same_padding(image[0], extent[0], stride[0]),
            _same_padding(image[1], extent[1], stride[1]),
        )
    window = Window(image, size, stride, padding, dilation)
    if max(math.prod(window.extent), math.prod(window.padded)) >= 2**31:
        raise ValueError(
            f"windows of {window.extent} pixels on images of {window.padded} (padding included) "
            "are too large: positions have 32 bits, so there must be fewer than 2**31 pixels"
        )
    if window.extent[0] > window.padded[0] or window.extent[1] > window.padded[1]:
        raise ValueError(
            f"a window of {window.extent[0]}x{window.extent[1]} pixels does not fit into an image "
            f"of {window.padded[0]}x{window.padded[1]} (padding included): "
            "take a smaller kernel or pool, or more padding"
        )
    # A stride beyond the image is one that leaves it: kernels need not tell the two apart.
    longest = min(stride[0], window.padded[0]), min(stride[1], window.padded[1])
    return replace(window, stride=longest)


def make_window(
    image: Pair, size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, name: str = "size"
) -> Window:
    """Check the parameters of a sliding window and resolve its padding.

    Parameters
    ----------
    image : (H, W)
    size, stride, dilation : int or pair of int
    padding : int, pair, ((top, bottom), (left, right)), "same" or "valid"
        "same" leaves ceil(H / stride) rows; where the padding is odd, the bottom and the right
        side get the extra pixel, as in TensorFlow.
    name : str
        What to call ``size`` in an error.

    Raises
    ------
    TypeError, ValueError
        Naming the parameter that is wrong.
    """
    return _window(
        image,
        pair(size, name),
        pair(stride, "stride"),
        plain_padding(padding),
        pair(dilation, "dilation"),
    )
