"""Descriptions of the activation functions, which kernels apply to their results.

A description is a tuple of the numbers that the function takes. `kernels.interface` shows how it is
used; the functions themselves are written once for each backend.

Examples
--------
>>> import numpy as np
>>> from kernels import get_backend
>>> backend = get_backend("numpy")
>>> backend.activate(np.array([[-2.0, 3.0, 7.0]]), ClippedRelu(max_value=6.0)) == [[0, 3, 6]]
array([[ True,  True,  True]])
"""

import math
from typing import NamedTuple


class LeakyRelu(NamedTuple):
    """x where x is positive, and else negative_slope * x.

    A slope of 0 is the ReLU, and a slope of 1 changes nothing. The gradient at 0 is the slope.
    """

    negative_slope: float


class ClippedRelu(NamedTuple):
    """min(max(x, 0), max_value), such as ReLU6. The gradient at both limits is 0."""

    max_value: float


class Sigmoid(NamedTuple):
    """1 / (1 + exp(-x))."""


class Tanh(NamedTuple):
    """The hyperbolic tangent."""


class Silu(NamedTuple):
    """x * sigmoid(x), which is also called swish."""


class Gelu(NamedTuple):
    """0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))).

    The form with erf in place of the tanh differs from it by less than 5e-4. As
    0.5 * (1 + tanh(u)) = sigmoid(2 * u), this is
    x * sigmoid(GELU_LINEAR * x + GELU_CUBIC * x**3).
    """


GELU_LINEAR = 2 * math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715 * GELU_LINEAR

IDENTITY = LeakyRelu(1.0)

# Two descriptions without numbers are equal as tuples: compare their types.
Activation = LeakyRelu | ClippedRelu | Sigmoid | Tanh | Silu | Gelu
