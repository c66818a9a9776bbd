"""Checks of single numbers, for every room."""

import math
import numbers
import operator
from typing import Any

import numpy as np


def check_int(value: Any, name: str, minimum: int) -> int:
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


def check_bool(value: Any, name: str) -> bool:
    """Return ``value``, which must be true or false and nothing that merely counts as such."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be true or false, got {value!r}")
    return bool(value)


def check_number(
    value: Any, name: str, minimum: float = -math.inf, below: float = math.inf
) -> float:
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
