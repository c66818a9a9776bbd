"""The door for activations in lanes: what comes with them must fit, for kernels do not look."""

from typing import Any

import numpy as np

from kernels import validation
from kernels.numba_backend.packed.layout import PackedBatch
from kernels.numba_backend.runtime.capture import invalidate_capture


def check_compatible(
    name: str, value: Any, x: PackedBatch, shape: tuple[int, ...] | None = None
) -> None:
    """Check other activations of the images of x, of the same shape or of another."""
    if not isinstance(value, PackedBatch):
        raise TypeError(f"{name} must be activations as {type(x).__name__}, got {type(value)}")
    if value.dtype != x.dtype:
        raise TypeError(f"{name} is {value.dtype} and the other activations are {x.dtype}")
    shape = x.shape if shape is None else (x.shape[0], *shape)
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}")


def check_images(x: PackedBatch) -> None:
    if len(x.shape) != 4:
        raise ValueError(f"x must have 4 dimensions, got shape {x.shape}")


def check_rows(x: PackedBatch) -> None:
    if len(x.shape) != 2:
        raise ValueError(f"x must have 2 dimensions, got shape {x.shape}")


def check_capturable(checked: Any, value: Any) -> Any:
    """Return a checked parameter; a copy of one cannot be noted, for it would stay as it is."""
    if checked is not value:
        invalidate_capture()
    return checked


def check_filters(w: Any, x_shape: tuple[int, ...], dtype: np.dtype, groups: Any):
    """Return checked filters, and the groups."""
    checked, groups = validation.check_filters(w, x_shape, dtype, groups)
    return check_capturable(checked, w), groups


def check_weights(w: Any, features: int, dtype: np.dtype) -> np.ndarray:
    checked = check_capturable(validation.check_matrix(w, "w", dtype), w)
    if len(checked) != features or checked.shape[1] == 0:
        raise ValueError(f"rows of {features} numbers do not fit weights of shape {checked.shape}")
    return checked


def check_scale_and_bias(scale: Any, b: Any, outputs: int, dtype: np.dtype):
    """Return them, None where they are None."""
    checked = validation.check_scale_and_bias(scale, b, outputs, dtype)
    return tuple(map(check_capturable, checked, (scale, b)))


def check_vectors(x: PackedBatch, **values: Any) -> list[np.ndarray]:
    """Return checked vectors that hold one number for each channel of x."""
    checked = []
    for name, value in values.items():
        checked.append(check_capturable(validation.check_array(value, name, 1, x.dtype), value))
        validation.check_shape(checked[-1], name, x.shape[1:2])
    return checked


def check_argmax_taps(value: Any, y: PackedBatch, window) -> np.ndarray:
    """Check what a max pooling noted of the pixels that were the largest."""
    large = window.size[0] * window.size[1] > 256
    dtype, shape = np.dtype(np.int32 if large else np.uint8), y.images.shape
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.shape != shape:
        raise TypeError("index must be what max_pool returned for these activations")
    return np.require(value, dtype, ["C", "A"])
