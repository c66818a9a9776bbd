"""The door of every backend: arguments are checked here, once, and nowhere behind it.

The kernels run on raw memory, so whatever passes this module must be safe to run.
"""

import weakref
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from kernels.geometry import Window, make_window
from kernels.scalars import check_int, check_number

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def standardize_dtype(value: Any) -> np.dtype:
    """Return float32 or float64, in the machine's byte order."""
    dtype = np.dtype(value).newbyteorder("=")
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    return FLOATS[FLOATS.index(dtype)]  # the very object: NumPy makes a view for an equal one


class Correlation(NamedTuple):
    """The checked arguments of a correlation."""

    x: np.ndarray
    w: np.ndarray
    window: Window
    groups: int


def check_array(value: Any, name: str, ndim: int, dtype: np.dtype | None = None) -> np.ndarray:
    """Return a C-contiguous, aligned float array in the machine's byte order.

    Raises
    ------
    TypeError
        When ``value`` is not a plain float32 or float64 array, or not of ``dtype``.
    ValueError
        When it has not ``ndim`` dimensions.
    """
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__name__}")
    value = np.asarray(value)  # a subclass such as memmap as what it is underneath
    native = value.dtype.newbyteorder("=")
    if native not in FLOATS:
        raise TypeError(f"{name} must be float32 or float64, got {value.dtype}")
    if dtype is not None and native != dtype:
        raise TypeError(f"{name} is {native} and the other arrays are {dtype}: use one dtype")
    if value.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {value.shape}")
    # Read-only arrays are copied: Numba would compile every kernel once more for them.
    if value.dtype.isnative and value.flags.carray:
        return value
    return np.array(value, native, order="C", subok=False)


def check_images(value: Any, name: str, dtype: np.dtype | None = None) -> np.ndarray:
    """Return a checked (N, C, H, W) array whose images have at least one pixel."""
    x = check_array(value, name, 4, dtype)
    if 0 in x.shape[1:]:
        raise ValueError(f"{name} must be (N, C, H, W) with C, H, W of 1 or more, got {x.shape}")
    return x


def check_shape(value: Any, name: str, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}")


def check_image_shape(value: Any, name: str) -> tuple[int, int, int, int]:
    """Return a checked shape (N, C, H, W)."""
    if not isinstance(value, (tuple, list)) or len(value) != 4:
        raise ValueError(f"{name} must be (N, C, H, W), got {value!r}")
    N, C, H, W = value
    return (
        check_int(N, f"{name}[0]", 0),
        check_int(C, f"{name}[1]", 1),
        check_int(H, f"{name}[2]", 1),
        check_int(W, f"{name}[3]", 1),
    )


def check_correlation(
    x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: Any
) -> Correlation:
    """Check the images, the filters and how these slide over those."""
    x = check_images(x, "x")
    w, groups = check_filters(w, x.shape, x.dtype, groups)
    window = make_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    return Correlation(x, w, window, groups)


def check_filters(
    w: Any, x_shape: tuple[int, ...], dtype: np.dtype, groups: Any
) -> tuple[np.ndarray, int]:
    """Return checked filters (F, C/groups, KH, KW) for images (N, C, H, W), and the groups."""
    w = check_array(w, "w", 4, dtype)
    groups = check_int(groups, "groups", 1)
    C, (F, channels) = x_shape[1], w.shape[:2]
    if 0 in w.shape:
        raise ValueError(f"w must be (filters, C/groups, KH, KW) without zeros, got {w.shape}")
    if C % groups or F % groups:
        raise ValueError(
            f"groups ({groups}) must divide the channels of x ({C}) and the filters of w ({F})"
        )
    if channels != C // groups:
        raise ValueError(
            f"w of shape {w.shape} sees {channels} channels, but x of shape {tuple(x_shape)} "
            f"has {C // groups} in each of its {groups} group(s)"
        )
    return w, groups


def check_bias(value: Any, filters: int, dtype: np.dtype) -> np.ndarray:
    """Return the bias of each filter; None stands for zeros."""
    _, b = check_scale_and_bias(None, value, filters, dtype)
    return np.zeros(filters, dtype) if b is None else b


def check_scale_and_bias(
    scale: Any, b: Any, outputs: int, dtype: np.dtype
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return what each output is multiplied by and what is added to it; None where given so."""
    checked = []
    for name, value in (("scale", scale), ("b", b)):
        if value is not None:
            value = check_array(value, name, 1, dtype)
            check_shape(value, name, (outputs,))
        checked.append(value)
    return checked[0], checked[1]


def check_output_grad(
    value: Any, N: int, channels: int, window: Window, dtype: np.dtype | None = None
) -> np.ndarray:
    """Return the checked gradient of what a window operation put out."""
    dy = check_array(value, "dy", 4, dtype)
    check_shape(dy, "dy", (N, channels, *window.output))
    return dy


def make_pool_window(image: tuple[int, int], pool_size: Any, stride: Any, padding: Any) -> Window:
    """Return the window of a pooling; every place of it holds at least one real pixel.

    It may be smaller than was asked for where some of the pool never sees a pixel.
    """
    stride = pool_size if stride is None else stride
    window = make_window(image, pool_size, stride, padding, name="pool_size")
    for size, sides in zip(window.size, window.padding, strict=True):
        if max(sides) >= size:
            raise ValueError(
                f"padding {window.padding} must be smaller than the pool {window.size}: "
                "a window must not lie in the padding alone"
            )
    (KH, KW), (H, W) = window.size, window.image
    return _trimmed(window) if KH > H or KW > W else window


@lru_cache(maxsize=256)
def _trimmed(window: Window) -> Window:
    """Return a window without the taps that lie in the padding at every place of it.

    A pool of 10^8 pixels on an image of 8 would otherwise take as long as one that sees so many.
    """
    size, padding = [], []
    for length, taps, step, places, (before, after) in zip(
        window.image, window.size, window.stride, window.output, window.padding, strict=True
    ):
        first = max(before - (places - 1) * step, 0)  # of the last place, which begins furthest on
        last = max(taps - before - length, 0)  # of the first place, which ends furthest back
        size.append(taps - first - last)
        padding.append((before - first, after - last))
    return make_window(window.image, size, window.stride, padding)


def check_matrix(value: Any, name: str, dtype: np.dtype | None = None) -> np.ndarray:
    return check_array(value, name, 2, dtype)


def check_dense(x: Any, w: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the checked inputs (N, features) and weights (features, units)."""
    x = check_matrix(x, "x")
    w = check_matrix(w, "w", x.dtype)
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"x of shape {x.shape} does not fit weights of shape {w.shape}")
    return x, w


def check_smoothing(value: Any) -> float:
    return check_number(value, "smoothing", 0, 1)


def check_negative_slope(value: Any, dtype: np.dtype) -> Any:
    """Return what negative numbers are multiplied by, in the dtype of the arithmetic."""
    checked = dtype.type(check_number(value, "negative_slope"))
    if not np.isfinite(checked):
        raise ValueError(f"slope must be a number of {dtype}, got {value!r}")
    return checked


def check_epsilon(value: Any) -> float:
    return check_number(value, "epsilon", 0, 1e30)  # also a float32


def check_dropout(rate: Any, rng: Any) -> float:
    """Return the checked share of numbers to drop; the generator must be one."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, got {type(rng).__name__}")
    return check_number(rate, "rate", 0, 1)


def check_logits(value: Any, name: str) -> np.ndarray:
    """Return a checked array (N, classes) with at least one class."""
    x = check_matrix(value, name)
    if x.shape[1] == 0:
        raise ValueError(f"{name} must have at least one column, got shape {x.shape}")
    return x


def check_batch(x: Any) -> Any:
    """Return activations that have something to take statistics of."""
    if 0 in x.shape:
        raise ValueError(f"a batch needs at least one image or row, got shape {tuple(x.shape)}")
    return x


# Vectors that `check_vectors` has accepted and that still exist, by their ids. An optimizer passes
# the same ones in every step, and checking four of them takes 6 us.
_accepted_vectors: dict[tuple[int, ...], tuple[list[tuple], list[weakref.ref]]] = {}


def _vector_state(value: np.ndarray) -> tuple:
    """Return the properties that an array may change while it stays the same object."""
    return value.shape, value.dtype, value.flags.carray


def check_vectors(**values: Any) -> None:
    """Check vectors that an optimizer works on in place: alike, and none to be copied."""
    key = tuple(map(id, values.values()))
    accepted = _accepted_vectors.get(key)
    if accepted and accepted[0] == [_vector_state(value) for value in values.values()]:
        return
    first: np.ndarray | None = None
    for name, value in values.items():
        check_writable(value, name, 1, None if first is None else first.dtype)
        first = value if first is None else first
        check_shape(value, name, first.shape)
    for (one, a), (other, b) in combinations(values.items(), 2):
        if np.may_share_memory(a, b):
            raise ValueError(f"{one} and {other} share memory: each must have its own")
    # Once one of the vectors is gone, another array may get its id.
    forget = lambda _, pop=_accepted_vectors.pop: pop(key, None)  # noqa: E731
    _accepted_vectors[key] = (
        [_vector_state(value) for value in values.values()],
        [weakref.ref(value, forget) for value in values.values()],
    )


def check_writable(value: Any, name: str, ndim: int, dtype: np.dtype | None) -> None:
    """Check an array that is to be written into, so that no copy of it will do."""
    if check_array(value, name, ndim, dtype) is not value:  # a copy, or a view of a subclass
        raise ValueError(f"{name} must be contiguous, aligned and writable")


def check_out(out: Any, shapes: Sequence[tuple[int, ...]], read: Iterable[np.ndarray]) -> Any:
    """Return what gradients are to be written into, as it is; None stands for no room.

    A gradient must not be written over parameters that are still to be read, nor over another.
    """
    if out is None:
        return None
    if not isinstance(out, tuple) or len(out) != len(shapes):
        raise ValueError(f"out must be {len(shapes)} arrays, got {out!r}")
    taken = list(read)
    for place, (value, shape) in enumerate(zip(out, shapes, strict=True)):
        if value is not None:
            name = f"out[{place}]"
            check_writable(value, name, len(shape), taken[0].dtype)
            check_shape(value, name, shape)
            if any(np.may_share_memory(value, other) for other in taken):
                raise ValueError(f"{name} shares memory with another array of the call")
            taken.append(value)
    return out


def check_sgd(learning_rate: Any, l2: Any) -> tuple[float, float]:
    return check_number(learning_rate, "learning_rate", 0), check_number(l2, "l2", 0)


def check_adam(step: Any, beta1: Any, beta2: Any, epsilon: Any) -> tuple[int, float, float, float]:
    return (
        check_int(step, "step", 1),
        check_number(beta1, "beta1", 0, 1),
        check_number(beta2, "beta2", 0, 1),
        check_number(epsilon, "epsilon", 0),
    )


def check_labels(value: Any, N: int, classes: int) -> np.ndarray:
    """Return N checked integer labels as int64."""
    y = np.asarray(value)
    if y.dtype.kind not in "iu" or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"labels must be integers, got {type(value).__name__} of {y.dtype}")
    if y.shape != (N,):
        raise ValueError(
            f"labels must have shape ({N},), one for each of {N} images, got {y.shape}"
        )
    if N and not 0 <= y.min() <= y.max() < classes:
        raise ValueError(f"labels must be 0 to {classes - 1}, got {y.min()} to {y.max()}")
    return np.ascontiguousarray(y, np.int64)


def check_activations(value: Any, name: str, dtype: np.dtype | None = None) -> np.ndarray:
    """Return checked activations, images (N, C, H, W) or features (N, C)."""
    ndim = 2 if getattr(value, "ndim", None) == 2 else 4
    return check_array(value, name, ndim, dtype)


def check_rows_grad(dy: Any, shape: Any) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return a checked gradient of rows (N, C * H * W), and the image (C, H, W) that they were."""
    C, H, W = check_image(shape)
    dy = check_matrix(dy, "dy")
    check_shape(dy, "dy", (len(dy), C * H * W))
    return dy, (C, H, W)


def check_image(value: Any) -> tuple[int, int, int]:
    """Return a checked shape (C, H, W)."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ValueError(f"image must be (C, H, W), got {value!r}")
    C, H, W = (check_int(size, "image", 1) for size in value)
    return C, H, W


def check_same_shape(dy: Any, x: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a checked gradient and the activations that it must have the shape of."""
    x = check_activations(x, "x")
    dy = check_activations(dy, "dy", x.dtype)
    check_shape(dy, "dy", x.shape)
    return dy, x


def check_folding(b: Any, gamma: Any, **vectors: Any) -> list[np.ndarray]:
    """Return a checked bias, zeros for None, and the vectors of the BatchNorm behind it."""
    gamma = check_array(gamma, "gamma", 1)
    checked = [check_bias(b, len(gamma), gamma.dtype), gamma]
    for name, value in vectors.items():
        checked.append(check_array(value, name, 1, gamma.dtype))
        check_shape(checked[-1], name, gamma.shape)
    return checked


def check_channel_vectors(x: np.ndarray, **vectors: Any) -> list[np.ndarray]:
    """Return checked vectors that hold one number for each channel of ``x``."""
    checked = []
    for name, value in vectors.items():
        vector = check_array(value, name, 1, x.dtype)
        check_shape(vector, name, x.shape[1:2])
        checked.append(vector)
    return checked


def check_columns(
    cols: Any, x_shape: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[np.ndarray, tuple[int, int, int, int], Window]:
    """Check columns against the images that they are to be added to."""
    cols = check_array(cols, "cols", 3)
    N, C, H, W = check_image_shape(x_shape, "x_shape")
    window = make_window((H, W), kernel_size, stride, padding, dilation, "kernel_size")
    KH, KW = window.size
    OH, OW = window.output
    check_shape(cols, "cols", (N, C * KH * KW, OH * OW))
    return cols, (N, C, H, W), window


def check_max_pool_grad(
    dy: Any, index: Any, x_shape: Any, pool_size: Any, stride: Any, padding: Any
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """Check the gradient of a max pooling, and that every index lies in its image."""
    N, C, H, W = check_image_shape(x_shape, "x_shape")
    window = make_pool_window((H, W), pool_size, stride, padding)
    dy = check_output_grad(dy, N, C, window)
    masked = isinstance(index, np.ma.MaskedArray)
    if not isinstance(index, np.ndarray) or masked or index.dtype.kind not in "iu":
        raise TypeError("index must be the integer array that max_pool returned")
    check_shape(index, "index", dy.shape)
    if index.size and not 0 <= index.min() <= index.max() < H * W:
        raise ValueError(f"index must point into an image of {H * W} pixels")
    return dy, np.require(index, np.int32, ["C", "A", "W"]), (N, C, H, W)


def check_real_images(value: Any) -> np.ndarray:
    """Return checked images (N, C, H, W) of any real dtype."""
    x = np.asarray(value)
    if x.dtype.kind not in "buif" or isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"images must be an array of real numbers, got {type(value).__name__} of {x.dtype}"
        )
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"images must be (N, C, H, W), got shape {x.shape}")
    return x


def check_raw_images(
    value: Any, mean: Any, std: Any, dtype: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check images of any real dtype, and the mean and deviation of each channel."""
    x = check_real_images(value)
    dtype = standardize_dtype(dtype)
    return (
        x,
        check_channel_numbers(mean, "mean", x, dtype),
        check_channel_numbers(std, "std", x, dtype),
    )


def check_channel_numbers(value: Any, name: str, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return a real number for each channel of x as an array of a dtype."""
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iuf" or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be real numbers, got {numbers.dtype}")
    vector = check_array(numbers.astype(dtype, copy=False), name, 1)
    check_shape(vector, name, x.shape[1:2])
    return vector


def check_warp(images: Any, matrices: Any) -> tuple[np.ndarray, np.ndarray]:
    """Check images that are to be warped, and a matrix for each."""
    if not isinstance(images, np.ndarray) or isinstance(images, np.ma.MaskedArray):
        raise TypeError(f"images must be a NumPy array, got {type(images).__name__}")
    images = np.asarray(images, images.dtype.newbyteorder("="))
    if images.dtype not in (np.uint8, np.float32, np.float64):
        raise TypeError(f"images must be uint8, float32 or float64, got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images must be (N, C, H, W), got shape {images.shape}")
    H, W = images.shape[2:]
    # float32 numbers tell places apart up to 2**23; one more row and column are added to an image.
    if max(H, W) > 2**23 or (H + 1) * (W + 1) >= 2**31:
        raise ValueError(
            f"images of {(H, W)} pixels are too large to be warped: "
            "sides may have 2**23, and all together must be fewer than 2**31"
        )
    matrices = np.asarray(matrices)
    if matrices.dtype.kind not in "iuf":
        raise TypeError(f"matrices must be real numbers, got {matrices.dtype}")
    check_shape(matrices, "matrices", (len(images), 2, 3))
    if not np.isfinite(matrices).all():
        raise ValueError("matrices must be finite")
    real = np.float64 if images.dtype == np.float64 else np.float32
    return np.ascontiguousarray(images), np.ascontiguousarray(matrices, real)


def check_threads(value: Any, available: int) -> int:
    number = check_int(value, "threads", 1)
    if number > available:
        raise ValueError(f"threads must be 1 to {available} on this machine, got {number}")
    return number
