"""Mixed precision: a float32 backend that rounds to bfloat16 what a bfloat16 kernel would round.

The activations of a network and their gradients are its largest arrays. In mixed precision they
are bfloat16 numbers, which need half the memory, and products of bfloat16 numbers are what some
processors compute at twice the speed of float32. Where rounding would add up over many steps,
numbers stay in float32: weights (they are rounded only where they are multiplied), their
gradients, all sums, the statistics and parameters of normalizations, biases, the optimizer, and
the end of the network: its logits and its loss.

`MixedPrecision` computes this with the kernels of a float32 backend. It is a reference: it is
slower than that backend, and its arrays are float32 arrays that hold bfloat16 numbers.

References
----------
Micikevicius et al.: Mixed precision training (2018).
Kalamkar et al.: A study of BFLOAT16 for deep learning training (2019).
"""

import inspect
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import numpy as np

from kernels.bfloat16 import round_to_bfloat16
from kernels.interface import FUNCTIONS, Backend
from kernels.validation import standardize_dtype

# What is rounded: the arguments before the arrow and the result behind it, which is the first
# result of the function. Everything else stays in float32, as the comments say of other results.
ROUNDED = {
    "normalize_images": "-> y",
    "from_array": "-> y",
    "correlate": "x, w -> y",
    "separable_correlate": "x, w, pointwise_w -> y",  # the numbers in between: float32
    "correlate_grad": "dy, x, w -> dx",  # dw and db: float32
    "correlate_im2col": "x, w -> y",
    "im2col": "x -> cols",
    "col2im": "cols -> x",
    "dense": "x, w -> y",
    "dense_grad": "dy, x, w -> dx",  # dw and db: float32
    "flatten": "x -> y",
    "flatten_grad": "dy -> dx",
    "max_pool": "x -> y",  # index: integers
    "max_pool_grad": "dy -> dx",
    "avg_pool": "x -> y",
    "avg_pool_grad": "dy -> dx",
    "batch_norm": "x -> y",  # mean and variance: float32
    "batch_norm_grad": "dy, x -> dx",  # dgamma and dbeta: float32
    "batch_norm_inference": "x -> y",
    "batch_norm_activation": "x -> y",  # mean and variance: float32
    "batch_norm_activation_grad": "dy, x -> dx",  # dgamma and dbeta: float32
    "batch_norm_activation_pool": "x -> y",  # index: integers; mean and variance: float32
    "batch_norm_activation_pool_grad": "dy, x -> dx",  # dgamma and dbeta: float32
    "dropout": "x -> y",  # mask: float32
    "dropout_grad": "dy -> dx",
    "activate": "x -> y",
    "activate_grad": "dy, x -> dx",
    "leaky_relu": "x -> y",
    "leaky_relu_grad": "dy, x -> dx",
    "add": "x, other -> y",
    "softmax": "x -> y",
    "softmax_grad": "dy, y -> dx",
}


class MixedPrecision:
    """A float32 backend in mixed precision: it has all functions of `kernels.interface.Backend`.

    The functions in `ROUNDED` round the numbers named there, before and after they call the
    function of the float32 backend. The other functions are those of that backend: the loss
    `softmax_cross_entropy`, whose logits and gradient are float32 in mixed precision, optimizers,
    data augmentation, and the functions of statistics.

    Parameters
    ----------
    full : module
        The float32 backend.

    Attributes
    ----------
    full : module
        The float32 backend: the functions for the end of a network.

    Raises
    ------
    TypeError
        By each function in `ROUNDED`, for arrays of float64.

    Examples
    --------
    >>> from kernels import get_backend
    >>> mixed = get_backend("numpy", "bfloat16")
    >>> x, w = np.full((1, 2), 1.001, np.float32), np.ones((2, 1), np.float32)
    >>> mixed.full.dense(x, w), mixed.dense(x, w)
    (array([[2.002]], dtype=float32), array([[2.]], dtype=float32))
    """

    def __init__(self, full: Backend):
        self.full = full
        self.__name__ = f"{full.__name__} in mixed precision"
        for name in FUNCTIONS:
            function = getattr(full, name)
            if name in ROUNDED:
                function = _round_at(function, ROUNDED[name])
            setattr(self, name, function)

    def widen(self, x: np.ndarray) -> np.ndarray:
        """Return activations as activations of the float32 backend: here, the same array."""
        return x

    def narrow(self, x: np.ndarray) -> np.ndarray:
        """Return activations of the float32 backend, or a gradient of them, in bfloat16."""
        return _round(x, "x")

    def __repr__(self) -> str:
        return f"<{self.__name__}>"


# One object for each backend.
in_mixed_precision = cache(MixedPrecision)


def check_float32(dtype: Any, name: str) -> None:
    """Raise TypeError for float64; the functions of the backend check other dtypes."""
    if standardize_dtype(dtype) == np.float64:
        raise TypeError(f"{name} must be float32 in mixed precision, got float64")


def _round_at(function: Callable, rounded: str) -> Callable:
    """Return a function that rounds the arguments and the result which an entry of `ROUNDED` names.

    It has the parameters of the given function.
    """
    arguments, result_name = (part.strip() for part in rounded.split("->"))
    names = arguments.split(", ") if arguments else []
    signature = inspect.signature(function)

    @wraps(function)
    def function_in_mixed_precision(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        for name in names:
            bound.arguments[name] = _round(bound.arguments[name], name)
        if "dtype" in bound.arguments:
            check_float32(bound.arguments["dtype"], "dtype")
        result = function(*bound.args, **bound.kwargs)
        if isinstance(result, tuple):
            return _round(result[0], result_name), *result[1:]
        return _round(result, result_name)

    return function_in_mixed_precision


def _round(value: Any, name: str) -> Any:
    """Return an array of float32 rounded to bfloat16.

    Anything else is returned as it is, None for a gradient that is not needed among them: the
    function that it is passed to has checks with clear messages.
    """
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        return value
    if value.dtype.kind == "f" and value.dtype.itemsize > 4:
        check_float32(value.dtype, name)
    is_float32 = value.dtype.newbyteorder("=") == np.float32
    return round_to_bfloat16(value) if is_float32 else value
