"""Checks of the arguments of every backend function.

A public function checks its arguments here once, before it computes. The kernels below it do not
check again. The numba kernels run without bounds checks, so that every argument that passes these
checks must be safe to run.
"""

import reprlib
import weakref
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from kernels.activations import IDENTITY, Activation, ClippedRelu, LeakyRelu
from kernels.geometry import Window, make_window
from kernels.scalars import check_bool, check_int, check_number

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
BFLOAT16 = "bfloat16"
# Positions in an image may be computed in float32. This limit is a float64, so that a comparison
# with an array of float16 does not convert it to float16.
MAX_MATRIX_ENTRY = np.float64(np.finfo(np.float32).max)


def standardize_dtype(value: Any) -> np.dtype:
    """Return the dtype float32 or float64 in native byte order.

    Raises
    ------
    TypeError
        If ``value`` is None or names another dtype.
    """
    if value is None:  # NumPy takes it for float64
        raise TypeError("dtype must be float32 or float64, got None")
    dtype = np.dtype(value).newbyteorder("=")
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    # Always the same object: for an equal one, `array.astype(dtype, copy=False)` makes a view.
    return FLOATS[FLOATS.index(dtype)]


def standardize_precision(value: Any) -> tuple[np.dtype, str]:
    """Return the dtype of plain arrays and the name of the precision that is computed in.

    Parameters
    ----------
    value : "float32", "float64" or "bfloat16", or one of these dtypes
        bfloat16 stands for mixed precision, in which plain arrays are float32.

    Raises
    ------
    TypeError
        If ``value`` is none of them.

    Examples
    --------
    >>> standardize_precision("bfloat16")
    (dtype('float32'), 'bfloat16')
    """
    # NumPy has no bfloat16; the dtype of that name is one of another package.
    if (value if isinstance(value, str) else getattr(value, "name", None)) == BFLOAT16:
        return FLOATS[0], BFLOAT16
    try:
        dtype = standardize_dtype(value)
    except TypeError:
        raise TypeError(f"dtype must be float32, float64 or bfloat16, got {value!r}") from None
    return dtype, dtype.name


class Correlation(NamedTuple):
    """Checked arguments of a correlation."""

    x: np.ndarray
    w: np.ndarray
    window: Window
    groups: int


def check_array(value: Any, name: str, ndim: int, dtype: np.dtype | None = None) -> np.ndarray:
    """Return a C-contiguous, aligned and writable float array in native byte order.

    An array that lacks any of these properties is copied.

    Parameters
    ----------
    value : array of float32 or float64
    name : str
        Name of the argument, for error messages.
    ndim : int
        Number of dimensions that it must have.
    dtype : float32 or float64, optional
        Dtype that it must have. None: either.

    Raises
    ------
    TypeError
        If ``value`` is not a NumPy array or is a masked one, or its dtype is wrong.
    ValueError
        If its number of dimensions is wrong.
    """
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__name__}")
    value = np.asarray(value)  # the base array of a subclass such as memmap
    # Comparing dtypes is slow: 1 us, which identity and `isnative` save in nearly all calls.
    native = value.dtype if value.dtype.isnative else value.dtype.newbyteorder("=")
    if native not in FLOATS:
        raise TypeError(f"{name} must be float32 or float64, got {value.dtype}")
    if dtype is not None and native is not dtype and native != dtype:
        raise TypeError(f"{name} is {native} and the other arrays are {dtype}: use one dtype")
    if value.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, got shape {value.shape}")
    # Read-only arrays are copied: Numba would compile each kernel again for their type.
    if native is value.dtype and value.flags.carray:
        return value
    return np.array(value, native, order="C", subok=False)


def check_images(value: Any, name: str, dtype: np.dtype | None = None) -> np.ndarray:
    """Return a checked (N, C, H, W) array whose images have at least one pixel."""
    x = check_array(value, name, 4, dtype)
    if 0 in x.shape[1:]:
        raise ValueError(f"{name} must be (N, C, H, W) with C, H, W of 1 or more, got {x.shape}")
    return x


def check_shape(value: Any, name: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError if an array does not have this shape."""
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}")


def check_nchw_shape(value: Any, name: str) -> tuple[int, int, int, int]:
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
    """Return the checked images and filters of a correlation, its window and its groups."""
    x = check_images(x, "x")
    w, groups = check_filters(w, x.shape, x.dtype, groups)
    window = make_window(x.shape[2:], w.shape[2:], stride, padding, dilation)
    return Correlation(x, w, window, groups)


def check_correlation_grad(
    dy: Any,
    x: Any,
    w: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    need_dx: Any,
    out: Any,
) -> tuple[np.ndarray, Correlation]:
    """Return the checked output gradient and the other arguments of a correlation's gradient."""
    correlation = check_correlation(x, w, stride, padding, dilation, groups)
    x, w, window, _ = correlation
    dy = check_output_grad(dy, len(x), len(w), window, x.dtype)
    check_bool(need_dx, "need_dx")
    check_out(out, (w.shape, w.shape[:1]), (w, x, dy))
    return dy, correlation


def check_filters(
    w: Any, x_shape: tuple[int, ...], dtype: np.dtype, groups: Any
) -> tuple[np.ndarray, int]:
    """Return checked filters (F, C / groups, KH, KW) for images of a shape, and the groups."""
    w = check_array(w, "w", 4, dtype)
    groups = check_int(groups, "groups", 1)
    C, (F, channels) = x_shape[1], w.shape[:2]
    if 0 in w.shape:
        raise ValueError(
            f"w must be (filters, C/groups, KH, KW) with sizes of 1 or more, got {w.shape}"
        )
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
    """Return the checked bias of each filter; zeros for None."""
    _, b = check_scale_and_bias(None, value, filters, dtype)
    return np.zeros(filters, dtype) if b is None else b


def check_scale_and_bias(
    scale: Any, b: Any, outputs: int, dtype: np.dtype
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the checked scale and bias of each output (filter or unit), or None for None."""
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
    """Return a checked gradient (N, channels, OH, OW) of the output of a sliding window."""
    dy = check_array(value, "dy", 4, dtype)
    check_shape(dy, "dy", (N, channels, *window.output))
    return dy


def make_pool_window(image: tuple[int, int], pool_size: Any, stride: Any, padding: Any) -> Window:
    """Return the window of a pooling.

    The window covers at least one pixel of the image at every position. Rows and columns of the
    pool that lie in the padding at every position are removed, together with their padding.

    Parameters
    ----------
    image : (H, W)
    pool_size, stride, padding
        As in `kernels.interface.Backend.max_pool`.

    Raises
    ------
    TypeError, ValueError
        As `make_window`, and if the padding is not smaller than the pool.
    """
    stride = pool_size if stride is None else stride
    window = make_window(image, pool_size, stride, padding, name="pool_size")
    for size, sides in zip(window.size, window.padding, strict=True):
        if max(sides) >= size:
            raise ValueError(
                f"padding {window.padding} must be smaller than the pool {window.size}, "
                "so that no window lies entirely in the padding"
            )
    (KH, KW), (H, W) = window.size, window.image
    return _trim(window) if KH > H or KW > W else window


@lru_cache(maxsize=256)
def _trim(window: Window) -> Window:
    """Return a window without the rows and columns that lie in the padding at every position.

    The time of a pooling then depends on the pixels that its window covers, not on the size of the
    pool: without this, a pool of 10^8 pixels takes 10^8 comparisons on an image of 8.
    """
    size, padding = [], []
    for length, taps, stride, n_windows, (before, after) in zip(
        window.image, window.size, window.stride, window.output, window.padding, strict=True
    ):
        # The last window begins furthest to the right, and the first ends furthest to the left.
        unused_before = max(before - (n_windows - 1) * stride, 0)
        unused_after = max(taps - before - length, 0)
        size.append(taps - unused_before - unused_after)
        padding.append((before - unused_before, after - unused_after))
    return make_window(window.image, size, window.stride, padding)


def check_matrix(value: Any, name: str, dtype: np.dtype | None = None) -> np.ndarray:
    """Return a checked array of two dimensions."""
    return check_array(value, name, 2, dtype)


def check_dense(x: Any, w: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the checked inputs (N, features) and weights (features, units)."""
    x = check_matrix(x, "x")
    w = check_matrix(w, "w", x.dtype)
    if x.shape[1] != w.shape[0]:
        raise ValueError(f"x of shape {x.shape} does not fit weights of shape {w.shape}")
    return x, w


def check_dense_grad(
    dy: Any, x: Any, w: Any, need_dx: Any, out: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the checked output gradient, inputs and weights of a fully connected layer."""
    x, w = check_dense(x, w)
    dy = check_matrix(dy, "dy", x.dtype)
    check_shape(dy, "dy", (len(x), w.shape[1]))
    check_bool(need_dx, "need_dx")
    check_out(out, (w.shape, w.shape[1:]), (w, x, dy))
    return dy, x, w


def check_smoothing(value: Any) -> float:
    """Return checked label smoothing, 0 <= smoothing < 1."""
    return check_number(value, "smoothing", 0, 1)


def check_activation(value: Any, dtype: np.dtype) -> Activation:
    """Return a checked activation, whose numbers have this dtype; the identity for None."""
    if value is None:
        value = IDENTITY
    if not isinstance(value, Activation):
        raise TypeError(f"activation must be None or one of kernels.activations, got {value!r}")
    if isinstance(value, ClippedRelu):
        return ClippedRelu(dtype.type(check_max_value(value.max_value)))
    if isinstance(value, LeakyRelu):
        slope = check_number(value.negative_slope, "negative_slope")
        if abs(slope) > float(np.finfo(dtype).max):
            raise ValueError(f"negative_slope must be finite in {dtype}, got {value[0]!r}")
        return LeakyRelu(dtype.type(slope))
    return value


def check_max_value(value: Any) -> float:
    """Return the checked limit of a clipped ReLU, a normal number in float32 as well."""
    return check_number(value, "max_value", 1e-30, 1e30)


def check_epsilon(value: Any) -> float:
    """Return the checked epsilon of batch normalization; it is finite in float32 as well."""
    return check_number(value, "epsilon", 0, 1e30)


def check_dropout(rate: Any, rng: Any) -> float:
    """Check the random generator of dropout and return the checked rate."""
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
    """Return activations as they are; raise ValueError if they are empty.

    An empty batch has no mean.
    """
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
    """Check vectors that are updated in place: one shape and dtype, and no shared memory.

    Raises
    ------
    TypeError, ValueError
        The message names the vector that is wrong.
    """
    key = tuple(map(id, values.values()))
    accepted = _accepted_vectors.get(key)
    if accepted and accepted[0] == [_vector_state(value) for value in values.values()]:
        return
    first: np.ndarray | None = None
    for name, value in values.items():
        check_writable(value, name, 1, None if first is None else first.dtype)
        first = value if first is None else first
        check_shape(value, name, first.shape)
    for (a_name, a), (b_name, b) in combinations(values.items(), 2):
        if np.may_share_memory(a, b):
            raise ValueError(f"{a_name} and {b_name} share memory: each needs its own")
    # Once one of the vectors is gone, another array may get its id.
    discard_entry = lambda _, pop=_accepted_vectors.pop: pop(key, None)  # noqa: E731
    _accepted_vectors[key] = (
        [_vector_state(value) for value in values.values()],
        [weakref.ref(value, discard_entry) for value in values.values()],
    )


def check_writable(value: Any, name: str, ndim: int, dtype: np.dtype | None) -> None:
    """Raise if an array cannot be written to as it is; the checks are those of `check_array`."""
    if check_array(value, name, ndim, dtype) is not value:  # a copy, or the base of a subclass
        raise ValueError(f"{name} must be contiguous, aligned and writable")


def check_out(out: Any, shapes: Sequence[tuple[int, ...]], inputs: Iterable[np.ndarray]) -> Any:
    """Return the output arrays of a gradient function unchanged.

    Parameters
    ----------
    out : tuple of array or None, or None
        An array for each gradient, or None for a new one.
    shapes : sequence of shape
        Shape of each gradient.
    inputs : arrays
        Checked arguments that no output array may share memory with; all outputs have the dtype
        of the first.

    Raises
    ------
    TypeError, ValueError
        If an array cannot hold its gradient, or shares memory with an input or another output.
    """
    if out is None:
        return None
    if not isinstance(out, tuple) or len(out) != len(shapes):
        raise ValueError(f"out must be a tuple of {len(shapes)} arrays, got {out!r}")
    others = list(inputs)
    for position, (value, shape) in enumerate(zip(out, shapes, strict=True)):
        if value is not None:
            name = f"out[{position}]"
            check_writable(value, name, len(shape), others[0].dtype)
            check_shape(value, name, shape)
            if any(np.may_share_memory(value, other) for other in others):
                raise ValueError(f"{name} shares memory with another array of the call")
            others.append(value)
    return out


def check_sgd(learning_rate: Any, l2: Any) -> tuple[float, float]:
    """Return the checked learning rate and strength of L2 regularization."""
    return check_number(learning_rate, "learning_rate", 0), check_number(l2, "l2", 0)


def check_momentum(momentum: Any, nesterov: Any) -> tuple[float, bool]:
    """Return the checked momentum, 0 <= momentum < 1, and whether it is Nesterov's."""
    return check_number(momentum, "momentum", 0, 1), check_bool(nesterov, "nesterov")


def check_adam(step: Any, beta1: Any, beta2: Any, epsilon: Any) -> tuple[int, float, float, float]:
    """Return the checked step number, from 1, and the constants of Adam."""
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
            f"labels must have shape ({N},), one label for each of {N} images, got {y.shape}"
        )
    if N and not 0 <= y.min() <= y.max() < classes:
        raise ValueError(f"labels must be 0 to {classes - 1}, got {y.min()} to {y.max()}")
    return np.ascontiguousarray(y, np.int64)


def check_weights(value: Any, N: int, name: str = "weights") -> np.ndarray | None:
    """Return N checked weights of images, finite and at least 0, as float64; None for None."""
    if value is None:
        return None
    weights = np.asarray(value)
    if weights.dtype.kind not in "bfiu" or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be numbers, got {type(value).__name__} of {weights.dtype}")
    if weights.shape != (N,):
        raise ValueError(
            f"{name} must have shape ({N},), one number for each of {N} images, got {weights.shape}"
        )
    # A replay of a captured step needs this very array if it is as the kernels take it.
    weights = np.require(weights, np.float64, ["C", "A", "W"])
    if not (np.isfinite(weights) & (weights >= 0)).all():
        wrong = weights[~(np.isfinite(weights) & (weights >= 0))][0]
        raise ValueError(f"{name} must be finite and at least 0, got {wrong:g}")
    return weights


def check_activations(value: Any, name: str, dtype: np.dtype | None = None) -> np.ndarray:
    """Return checked activations, images (N, C, H, W) or features (N, C)."""
    ndim = 2 if getattr(value, "ndim", None) == 2 else 4
    return check_array(value, name, ndim, dtype)


def check_rows_grad(dy: Any, shape: Any) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return a checked gradient of rows (N, C * H * W), and the shape (C, H, W) of an image."""
    C, H, W = check_chw_shape(shape)
    dy = check_matrix(dy, "dy")
    check_shape(dy, "dy", (len(dy), C * H * W))
    return dy, (C, H, W)


def check_chw_shape(value: Any) -> tuple[int, int, int]:
    """Return a checked shape (C, H, W)."""
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ValueError(f"image_shape must be (C, H, W), got {value!r}")
    C, H, W = (check_int(size, "image_shape", 1) for size in value)
    return C, H, W


def check_same_shape(
    dy: Any, x: Any, name: str = "x", dy_name: str = "dy"
) -> tuple[np.ndarray, np.ndarray]:
    """Return a checked gradient and checked activations of the same shape and dtype.

    The names are those of the arguments, for error messages.
    """
    x = check_activations(x, name)
    dy = check_activations(dy, dy_name, x.dtype)
    check_shape(dy, dy_name, x.shape)
    return dy, x


def check_folding(b: Any, gamma: Any, **vectors: Any) -> list[np.ndarray]:
    """Return the checked bias of a layer, zeros for None, and the vectors of its BatchNorm."""
    gamma = check_array(gamma, "gamma", 1)
    checked = [check_bias(b, len(gamma), gamma.dtype), gamma]
    for name, value in vectors.items():
        checked.append(check_array(value, name, 1, gamma.dtype))
        check_shape(checked[-1], name, gamma.shape)
    return checked


def check_channel_vectors(x: np.ndarray, **vectors: Any) -> list[np.ndarray]:
    """Return checked vectors (C,) for activations ``x``, of their dtype."""
    checked = []
    for name, value in vectors.items():
        vector = check_array(value, name, 1, x.dtype)
        check_shape(vector, name, x.shape[1:2])
        checked.append(vector)
    return checked


def check_batch_norm(
    x: Any, epsilon: Any, **vectors: Any
) -> tuple[np.ndarray, float, list[np.ndarray]]:
    """Return the checked activations, epsilon and vectors of a batch normalization."""
    x = check_activations(x, "x")
    return x, check_epsilon(epsilon), check_channel_vectors(x, **vectors)


def check_batch_norm_grad(
    dy: Any, x: Any, epsilon: Any, out: Any, **vectors: Any
) -> tuple[np.ndarray, np.ndarray, float, list[np.ndarray]]:
    """Return the checked output gradient and the arguments of a batch normalization."""
    dy, x = check_same_shape(dy, x)
    check_batch(x)
    checked = check_channel_vectors(x, **vectors)
    check_out(out, [x.shape[1:2]] * 2, (*checked, x, dy))
    return dy, x, check_epsilon(epsilon), checked


def check_columns(
    cols: Any, x_shape: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[np.ndarray, tuple[int, int, int, int], Window]:
    """Return the checked columns, image shape and window of a `col2im`."""
    cols = check_array(cols, "cols", 3)
    N, C, H, W = check_nchw_shape(x_shape, "x_shape")
    window = make_window((H, W), kernel_size, stride, padding, dilation, "kernel_size")
    KH, KW = window.size
    OH, OW = window.output
    check_shape(cols, "cols", (N, C * KH * KW, OH * OW))
    return cols, (N, C, H, W), window


def check_max_pool_grad(
    dy: Any, index: Any, x_shape: Any, pool_size: Any, stride: Any, padding: Any
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """Return the checked gradient, index and image shape; every index lies in its image."""
    N, C, H, W = check_nchw_shape(x_shape, "x_shape")
    window = make_pool_window((H, W), pool_size, stride, padding)
    dy = check_output_grad(dy, N, C, window)
    masked = isinstance(index, np.ma.MaskedArray)
    if not isinstance(index, np.ndarray) or masked or index.dtype.kind not in "iu":
        raise TypeError("index must be the integer array that max_pool returned")
    check_shape(index, "index", dy.shape)
    if index.size and not 0 <= index.min() <= index.max() < H * W:
        raise ValueError(f"index must be 0 to {H * W - 1}, positions in an image of {H * W} pixels")
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
    """Return checked images of any real dtype, and the mean and standard deviation by channel."""
    x = check_real_images(value)
    dtype = standardize_dtype(dtype)
    return (
        x,
        check_channel_numbers(mean, "mean", x, dtype),
        check_channel_numbers(std, "std", x, dtype),
    )


def check_channel_numbers(value: Any, name: str, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return a checked vector of real numbers, one for each channel of x, in this dtype."""
    vector = np.asarray(value)
    if vector.dtype.kind not in "iuf" or isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must be real numbers, got {vector.dtype}")
    vector = check_array(vector.astype(dtype, copy=False), name, 1)
    check_shape(vector, name, x.shape[1:2])
    return vector


def _check_pixels(images: Any) -> np.ndarray:
    """Return checked images of uint8, float32 or float64, in native byte order."""
    if not isinstance(images, np.ndarray) or isinstance(images, np.ma.MaskedArray):
        raise TypeError(f"images must be a NumPy array, got {type(images).__name__}")
    images = np.asarray(images, images.dtype.newbyteorder("="))
    if images.dtype not in (np.uint8, np.float32, np.float64):
        raise TypeError(f"images must be uint8, float32 or float64, got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images must be (N, C, H, W), got shape {images.shape}")
    return images


def _check_kind(
    value: Any, name: str, shape: tuple[int, ...], kinds: str, description: str
) -> np.ndarray:
    """Return an array of this shape, whose dtype is of one of these kinds."""
    array = np.asarray(value)
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name} must be {description}, got {array.dtype}")
    check_shape(array, name, shape)
    return array


def _check_float32_range(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of this shape of real numbers, all of which are finite in float32."""
    array = _check_kind(value, name, shape, "iuf", "real numbers")
    if not (np.abs(array) <= MAX_MATRIX_ENTRY).all():
        raise ValueError(f"{name} must be finite in float32")
    return array


def _check_positions(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of this shape of int64, with which a kernel can compute safely."""
    array = _check_kind(value, name, shape, "iu", "integers")
    if ((array < -(2**31)) | (array >= 2**31)).any():
        raise ValueError(f"{name} must be at least -2**31 and below 2**31")
    return array.astype(np.int64)


def check_warp(images: Any, matrices: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return checked images of uint8, float32 or float64, and a checked matrix for each."""
    images = _check_pixels(images)
    H, W = images.shape[2:]
    # float32 distinguishes neighboring positions up to 2**23.
    # Kernels may add a row and a column to an image.
    if max(H, W) > 2**23 or (H + 1) * (W + 1) >= 2**31:
        raise ValueError(
            f"images of {(H, W)} pixels are too large to be warped: a side may have at most "
            "2**23 pixels, and an image fewer than 2**31"
        )
    matrices = _check_float32_range(matrices, "matrices", (len(images), 2, 3))
    position_dtype = np.float64 if images.dtype == np.float64 else np.float32
    return np.ascontiguousarray(images), np.ascontiguousarray(matrices, position_dtype)


class Augmentation(NamedTuple):
    """Checked arguments of `augment_images`.

    Attributes
    ----------
    images : (N, C, H, W) of uint8, float32 or float64
    mirrored : (N,) of bool
    shifts : (N, 2) of int64
    colors : (N, C, C + 1) of float32, or of float64 for such images
    boxes : (N, 4) of int64
        Within the images.
    fill : (C,) of the dtype of the images
    low, high : float
    """

    images: np.ndarray
    mirrored: np.ndarray
    shifts: np.ndarray
    colors: np.ndarray
    boxes: np.ndarray
    fill: np.ndarray
    low: float
    high: float


def check_augmentation(
    images: Any,
    mirrored: Any,
    shifts: Any,
    colors: Any,
    boxes: Any,
    fill: Any,
    low: Any,
    high: Any,
) -> Augmentation:
    """Return the checked arguments of `augment_images`."""
    images = np.require(_check_pixels(images), None, ["C", "A", "W"])
    N, C, H, W = images.shape
    is_uint8 = images.dtype == np.uint8
    mirrored = _check_kind(mirrored, "mirrored", (N,), "b", "bool")
    shifts = _check_positions(shifts, "shifts", (N, 2))
    boxes = np.clip(_check_positions(boxes, "boxes", (N, 4)), 0, [H, W, H, W])
    colors = _check_float32_range(colors, "colors", (N, C, C + 1))
    low, high = check_number(low, "low"), check_number(high, "high")
    if low > high or (is_uint8 and not 0 <= low <= high <= 255):
        limits = "from 0 to 255 and " if is_uint8 else ""
        raise ValueError(f"low and high must be {limits}in this order, got {low!r} and {high!r}")
    fill = np.clip(_check_float32_range(fill, "fill", (C,)), low, high)
    if is_uint8:
        # Sums of such products are exact in float32. All backends therefore round alike.
        colors, fill = np.rint(colors * np.float64(256)) / 256, np.rint(fill)
    return Augmentation(
        images,
        np.ascontiguousarray(mirrored),
        shifts,
        np.ascontiguousarray(colors, np.float64 if images.dtype == np.float64 else np.float32),
        boxes,
        np.ascontiguousarray(fill, images.dtype),
        low,
        high,
    )


def check_threads(value: Any, available: int) -> int:
    """Return a checked number of threads, from 1 to ``available``."""
    number = check_int(value, "threads", 1)
    if number > available:
        raise ValueError(f"threads must be 1 to {available} on this machine, got {number}")
    return number


def check_kernel_choices(choices: Any) -> dict[str, str]:
    """Return a copy of checked choices between kernels: an object of texts."""
    if not isinstance(choices, dict):
        raise TypeError(f"the kernel choices must be a dict of str, got {reprlib.repr(choices)}")
    for entry in choices.items():
        if not all(isinstance(text, str) for text in entry):
            raise TypeError(f"a kernel choice must be a name for a kernel, got {entry!r}")
    return dict(choices)
