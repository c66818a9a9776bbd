"""Checks of the arguments of packed kernels, which read raw memory and check nothing themselves.

`kernels.validation` checks what comes with the activations, as it does for plain arrays. Here are
the checks of the activations themselves, and those that keep a captured step valid.
"""

from typing import Any

import numpy as np

from kernels import validation
from kernels.geometry import Window, make_window
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.packed.pooling import index_dtype, index_shape
from kernels.numba_backend.runtime.capture import invalidate_capture
from kernels.numba_backend.simd.activations import activation_argument


def check_compatible(**activations: Any) -> None:
    """Check that activations belong to one batch: packed, with one dtype and number of images.

    Their shapes may differ otherwise. Without this check a kernel would read out of bounds.
    """
    (first_name, first), *others = activations.items()
    for name, value in activations.items():
        if not isinstance(value, PackedBatch):
            raise TypeError(f"{name} must be a PackedBatch, got {type(value).__name__}")
    for name, value in others:
        if value.data.dtype != first.data.dtype:
            raise TypeError(f"{name} is {value.precision} and {first_name} is {first.precision}")
        if value.shape[0] != first.shape[0]:
            raise ValueError(
                f"{name} has {value.shape[0]} images and {first_name} has {first.shape[0]}"
            )


def check_same_shape(**activations: Any) -> None:
    """Check that activations are compatible and that all have the shape of the first."""
    check_compatible(**activations)
    (_, first), *others = activations.items()
    for name, value in others:
        validation.check_shape(value, name, first.shape)


def check_images(x: PackedBatch) -> None:
    if len(x.shape) != 4:
        raise ValueError(f"x must have 4 dimensions, got shape {x.shape}")


def check_rows(value: PackedBatch, name: str) -> None:
    if len(value.shape) != 2:
        raise ValueError(f"{name} must have 2 dimensions, got shape {value.shape}")


def check_capturable(checked: Any, value: Any) -> Any:
    """Return a checked parameter, and invalidate the capture if the check has copied it.

    A captured step would read the copy again, and miss later changes of the parameter. None
    stands for a constant, which does not change.
    """
    if checked is not value and value is not None:
        invalidate_capture()
    return checked


def check_filters(w: Any, x_shape: tuple[int, ...], dtype: np.dtype, groups: Any):
    """Return checked filters (F, C / groups, KH, KW) and the checked number of groups."""
    checked, groups = validation.check_filters(w, x_shape, dtype, groups)
    return check_capturable(checked, w), groups


def check_weights(w: Any, features: int, dtype: np.dtype) -> np.ndarray:
    """Return checked weights (features, units)."""
    checked = check_capturable(validation.check_matrix(w, "w", dtype), w)
    if len(checked) != features or checked.shape[1] == 0:
        raise ValueError(f"rows of {features} numbers do not fit weights of shape {checked.shape}")
    return checked


def check_scale_and_bias(scale: Any, b: Any, outputs: int, dtype: np.dtype):
    """Return a checked scale and bias (outputs,); each may be None."""
    checked = validation.check_scale_and_bias(scale, b, outputs, dtype)
    return tuple(map(check_capturable, checked, (scale, b)))


def check_separable(
    x: Any, w: Any, pointwise_w: Any, b: Any, pointwise_b: Any, stride: Any, padding: Any,
    dilation: Any, scale: Any, pointwise_scale: Any, activation: Any, pointwise_activation: Any,
):  # fmt: skip
    """Return the checked arguments of a depthwise separable correlation of x.

    Returns
    -------
    w, pointwise_w : filters
    window : Window
        Of the depthwise correlation.
    affine, pointwise_affine : (scale, bias, activation)
    """
    w, _ = check_filters(w, x.shape, x.dtype, x.shape[1])
    window = make_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    between = x.shape[0], len(w), *window.output
    pointwise_w, _ = check_filters(pointwise_w, between, x.dtype, 1)
    affine, pointwise_affine = (
        (*check_scale_and_bias(scale, b, len(w), x.dtype), activation_argument(act, x.dtype))
        for scale, b, w, act in (
            (scale, b, w, activation),
            (pointwise_scale, pointwise_b, pointwise_w, pointwise_activation),
        )
    )
    return w, pointwise_w, window, affine, pointwise_affine


def check_vectors(x: PackedBatch, **vectors: Any) -> list[np.ndarray]:
    """Return checked vectors (C,) that hold one number for each channel of x."""
    checked = []
    for name, value in vectors.items():
        checked.append(check_capturable(validation.check_array(value, name, 1, x.dtype), value))
        validation.check_shape(checked[-1], name, x.shape[1:2])
    return checked


def check_scalars(epsilon: Any, activation: Any, dtype: np.dtype):
    """Return the checked epsilon of a batch normalization and the activation that follows it."""
    return validation.check_epsilon(epsilon), activation_argument(activation, dtype)


def check_argmax_taps(index: Any, y: PackedBatch, window: Window) -> np.ndarray:
    """Return the checked index that max pooling returned with y."""
    dtype, shape = index_dtype(window), index_shape(y)
    if not isinstance(index, np.ndarray) or index.dtype != dtype or index.shape != shape:
        raise TypeError("index must be what max_pool returned for these activations")
    return np.require(index, dtype, ["C", "A"])
