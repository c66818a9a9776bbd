"""Rounding to bfloat16, the number format of mixed precision.

A bfloat16 is the upper half of a float32: its sign, its 8 bits of exponent, and the first 7 of its
23 bits of mantissa. It therefore has the range of float32, up to 3.4e38, and two to three decimal
digits.

References
----------
Kalamkar et al.: A study of BFLOAT16 for deep learning training (2019).
"""

import numpy as np

LOWER_HALF = np.uint32(0xFFFF)
QUIET_NAN = np.uint32(0x0040_0000)  # the first bit of the mantissa


def round_to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Return the nearest bfloat16 numbers, as an array of float32.

    Of two numbers that are equally near, the one whose last bit is 0 is taken. Numbers that are
    too large become infinite; infinities and NaN remain what they are.

    Parameters
    ----------
    x : array of float32

    Returns
    -------
    array of float32
        A new array of the same shape. The lower 16 bits of each number are 0.

    Raises
    ------
    TypeError
        If x is not an array of float32. A float64 would be rounded twice.

    Examples
    --------
    Between 1 and 2, bfloat16 numbers are 1/128 apart:

    >>> step = 1 / 128
    >>> x = np.array([1 + 0.4 * step, 1 + 0.5 * step, 1 + 1.5 * step, np.pi], np.float32)
    >>> round_to_bfloat16(x)
    array([1.      , 1.      , 1.015625, 3.140625], dtype=float32)
    """
    if not isinstance(x, np.ndarray) or x.dtype.newbyteorder("=") != np.float32:
        raise TypeError(
            f"bfloat16 is rounded from arrays of float32, got {getattr(x, 'dtype', type(x))}"
        )
    x = np.asarray(x, np.float32)  # in native byte order
    bits = x.view(np.uint32)
    # Just below half a step is added, and one more if the last bit that remains is 1. A carry
    # into the exponent is right: it gives the next power of two and, at the end, infinity.
    last_bit = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = bits + (np.uint32(0x7FFF) + last_bit)
    # A sum could carry out of the mantissa of a NaN, and its set bits may be in the lower half.
    rounded = np.where(np.isnan(x), bits | QUIET_NAN, rounded) & ~LOWER_HALF
    return rounded.view(np.float32)
