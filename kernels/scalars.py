"""Checks of single numbers, for all packages."""

import math
import numbers
import operator
from typing import Any

import numpy as np


def check_int(value: Any, name: str, minimum: int) -> int:
    """Return an integer from ``minimum`` to 2**31 - 1 as an int.

    Every integer type is accepted but bool.

    Raises
    ------
    TypeError
        If ``value`` is no integer.
    ValueError
        If it is out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if not minimum <= number < 2**31:
        raise ValueError(f"{name} must be at least {minimum} and below 2**31, got {number}")
    return number


def check_bool(value: Any, name: str) -> bool:
    """Return a bool or a NumPy bool as a bool.

    Raises
    ------
    TypeError
        If ``value`` is anything else: the truth of "false" or of an array is rarely meant.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def check_number(
    value: Any, name: str, minimum: float = -math.inf, below: float = math.inf
) -> float:
    """Return a finite real number, ``minimum`` <= number < ``below``, as a float.

    Raises
    ------
    TypeError
        If ``value`` is no real number; a bool is none.
    ValueError
        If it is not finite or out of range.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        checked = float(value)
    except OverflowError:  # Python may also refuse to print an integer this long
        checked, value = math.inf, "a number that is too large for a float"
    if not (math.isfinite(checked) and minimum <= checked < below):
        least = "finite" if minimum == -math.inf else f"at least {minimum:g}"
        upper = "finite" if below == math.inf else f"below {below:g}"
        wanted = least if least == upper else f"{least} and {upper}"
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return checked
