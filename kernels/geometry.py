"""The geometry of a sliding window: kernel size, stride, padding, dilation and output size."""

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
        Number of taps of the window (a convolution's kernel, or a pool).
    stride : (vertical, horizontal)
        Distance in pixels between two neighboring windows.
    padding : ((top, bottom), (left, right))
        Rows and columns added around the image.
    dilation : (vertical, horizontal)
        Distance in pixels between two neighboring taps of one window.
    """

    image: Pair
    size: Pair
    stride: Pair
    padding: Padding
    dilation: Pair

    @property
    def kernel_extent(self) -> Pair:
        """Number of rows and columns from the first tap to the last, both included."""
        (KH, KW), (dh, dw) = self.size, self.dilation
        return (KH - 1) * dh + 1, (KW - 1) * dw + 1

    @property
    def padded(self) -> Pair:
        """Size (H, W) of the padded image."""
        (H, W), ((top, bottom), (left, right)) = self.image, self.padding
        return H + top + bottom, W + left + right

    @property
    def pad_begin(self) -> Pair:
        """Padding (top, left) before the first row and the first column of the image."""
        (top, _), (left, _) = self.padding
        return top, left

    @property
    def output(self) -> Pair:
        """Number of window positions (OH, OW), which is the size of the output."""
        return (
            (self.padded[0] - self.kernel_extent[0]) // self.stride[0] + 1,
            (self.padded[1] - self.kernel_extent[1]) // self.stride[1] + 1,
        )


def standardize_pair(value: Any, name: str, minimum: int = 1) -> Pair:
    """Return an int or a pair of ints as a pair (vertical, horizontal).

    Parameters
    ----------
    value : int or pair of int
    name : str
        Name of the argument, for error messages.
    minimum : int
        Smallest integer that is allowed.

    Raises
    ------
    TypeError, ValueError
        If ``value`` is no integer or pair of integers, or an integer is out of range.

    Examples
    --------
    >>> standardize_pair(3, "kernel_size")
    (3, 3)
    """
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair of integers, got {value!r}")
        return check_int(value[0], name, minimum), check_int(value[1], name, minimum)
    number = check_int(value, name, minimum)
    return number, number


def standardize_padding(value: Any) -> str | Padding:
    """Return padding as "same" or in its full form, ((top, bottom), (left, right)).

    Parameters
    ----------
    value : int, pair, ((top, bottom), (left, right)), "same" or "valid"
        "valid" is no padding.

    Raises
    ------
    TypeError, ValueError
        If ``value`` is none of these, or a number is negative.

    Examples
    --------
    >>> standardize_padding((2, 1))
    ((2, 2), (1, 1))
    """
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


def _same_padding(length: int, kernel_extent: int, stride: int) -> Pair:
    """Return the padding that gives ceil(length / stride) outputs; an odd pixel goes to the end."""
    amount = max((math.ceil(length / stride) - 1) * stride + kernel_extent - length, 0)
    return amount // 2, amount - amount // 2


@lru_cache(maxsize=1024)
def _make_window(
    image: Pair, size: Pair, stride: Pair, padding: str | Padding, dilation: Pair
) -> Window:
    if isinstance(padding, str):
        extent = Window(image, size, stride, ((0, 0), (0, 0)), dilation).kernel_extent
        padding = (
            _same_padding(image[0], extent[0], stride[0]),
            _same_padding(image[1], extent[1], stride[1]),
        )
    window = Window(image, size, stride, padding, dilation)
    extent, padded = window.kernel_extent, window.padded
    if max(math.prod(extent), math.prod(padded)) >= 2**31:
        raise ValueError(
            f"a window of {extent} pixels on images of {padded} pixels (padding included) is too "
            "large: pixel positions are 32-bit integers, so there must be fewer than 2**31 pixels"
        )
    if extent[0] > padded[0] or extent[1] > padded[1]:
        raise ValueError(
            f"a window of {extent[0]}x{extent[1]} pixels does not fit into an image "
            f"of {padded[0]}x{padded[1]} pixels (padding included): "
            "use a smaller kernel or pool, or more padding"
        )
    # A stride of the padded size or more allows one window, however large the stride is. The
    # clipped stride keeps products of strides and positions within 32 bits.
    return replace(window, stride=(min(stride[0], padded[0]), min(stride[1], padded[1])))


def make_window(
    image: Pair, size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, name: str = "size"
) -> Window:
    """Check the parameters of a sliding window and resolve its padding.

    Parameters
    ----------
    image : (H, W)
        Size of the image in pixels.
    size, stride, dilation : int or pair of int
        As in `Window`.
    padding : int, pair, ((top, bottom), (left, right)), "same" or "valid"
        "same" gives ceil(H / stride) rows of output. If the padding is odd, the bottom and the
        right side get the extra pixel, as in TensorFlow.
    name : str
        Name of ``size`` in error messages.

    Returns
    -------
    Window
        Its stride is at most the size of the padded image.

    Raises
    ------
    TypeError, ValueError
        If a parameter is invalid (the message names it), or if the window does not fit into the
        padded image, or if either has 2**31 pixels or more.

    Examples
    --------
    >>> make_window((28, 28), size=5, stride=2, padding="same").output
    (14, 14)
    """
    return _make_window(
        image,
        standardize_pair(size, name),
        standardize_pair(stride, "stride"),
        standardize_padding(padding),
        standardize_pair(dilation, "dilation"),
    )
