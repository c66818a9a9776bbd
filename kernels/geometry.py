"""Where a window lands on an image: kernel sizes, strides, padding, dilation, output sizes."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from kernels.scalars import check_int

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


def standardize_pair(value: Any, name: str, minimum: int = 1) -> Pair:
    """Return an int or a pair of ints as a pair (vertical, horizontal)."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair of them, got {value!r}")
        return check_int(value[0], name, minimum), check_int(value[1], name, minimum)
    number = check_int(value, name, minimum)
    return number, number


def standardize_padding(value: Any) -> str | Padding:
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
        return standardize_pair(value[0], "padding", 0), standardize_pair(value[1], "padding", 0)
    vertical, horizontal = standardize_pair(value, "padding", 0)
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
        standardize_pair(size, name),
        standardize_pair(stride, "stride"),
        standardize_padding(padding),
        standardize_pair(dilation, "dilation"),
    )
