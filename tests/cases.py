"""Hypothesis strategies for shapes and parameters, and the comparison of results."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from kernels.activations import ClippedRelu, Gelu, LeakyRelu, Sigmoid, Silu, Tanh
from kernels.geometry import Window, make_window

# Largest difference that is allowed, divided by the largest value.
TOLERANCE = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 1e-4}

# The backends that compute in mixed precision.
MIXED_BACKENDS = ("numba", "scipy", "numpy")

ACTIVATIONS = [
    LeakyRelu(0.0),
    LeakyRelu(0.01),
    ClippedRelu(0.5),
    Sigmoid(),
    Tanh(),
    Silu(),
    Gelu(),
]
# Kernels are compiled for each type of activation, which takes longer than all examples. Those that
# only apply an activation at their end are tested with two types.
FUSED_ACTIVATIONS = [LeakyRelu(0.0), LeakyRelu(0.01), Silu()]


def assert_close(got, want):
    """Assert that arrays have the same shape and dtype, and are close for that dtype."""
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if got.size:
        scale = max(np.abs(want).max(), 1e-30)
        assert np.abs(got - want).max() / scale <= TOLERANCE[want.dtype]


def positive(rng, shape, dtype):
    """Return positive numbers: their sums do not cancel, so that relative errors remain small."""
    return rng.uniform(0.5, 1.5, shape).astype(dtype)


class Case(NamedTuple):
    """Arrays and parameters of one correlation or pooling."""

    x: np.ndarray
    w: np.ndarray
    b: np.ndarray
    window: Window
    sliding: dict[str, Any]  # stride, padding and dilation, in any form that is accepted
    groups: int

    def gradient(self, channels):
        """Return a random gradient for an output of this many channels."""
        shape = (len(self.x), channels, *self.window.output)
        return positive(np.random.default_rng(7), shape, self.x.dtype)


dtypes = st.sampled_from([np.float32, np.float64])
paddings = st.one_of(
    st.sampled_from(["same", "valid", 0, 1, 2]),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(
        st.tuples(st.integers(0, 3), st.integers(0, 3)),
        st.tuples(st.integers(0, 3), st.integers(0, 3)),
    ),
)


def sizes(low, high):
    """Draw an int or a pair of ints."""
    return st.one_of(
        st.integers(low, high), st.tuples(st.integers(low, high), st.integers(low, high))
    )


def window_or_none(image, size, stride, padding, dilation=1):
    try:
        return make_window(image, size, stride, padding, dilation)
    except ValueError:
        return None


@st.composite
def correlations(
    draw,
    max_batch=40,
    max_kernel=7,
    max_image=15,
    max_channels=4,
    max_dilation=3,
    channels_of_group=None,
    large=False,
):
    image = draw(st.tuples(st.integers(1, max_image), st.integers(1, max_image)))
    if large and draw(st.integers(0, 9)) == 0:  # more than one tile of a kernel
        image, max_batch = draw(st.tuples(st.integers(30, 70), st.integers(30, 70))), 2
    kernel = draw(st.tuples(st.integers(1, max_kernel), st.integers(1, max_kernel)))
    sliding = {
        "stride": draw(sizes(1, 3)),
        "padding": draw(paddings),
        "dilation": draw(sizes(1, max_dilation)),
    }
    window = window_or_none(
        image, kernel, sliding["stride"], sliding["padding"], sliding["dilation"]
    )
    if window is None:  # the window does not fit: pad the image
        sliding |= {"padding": "same"}
        window = make_window(image, kernel, **sliding)
    groups = draw(st.integers(1, 3))
    if channels_of_group is None:
        channels_of_group = st.integers(1, max_channels)
    channels = draw(channels_of_group)
    filters = groups * draw(st.integers(1, 6))
    N = draw(st.integers(1, max_batch))
    dtype = draw(dtypes)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    x = positive(rng, (N, groups * channels, *image), dtype)
    w = positive(rng, (filters, channels, *kernel), dtype)
    b = positive(rng, filters, dtype)
    return Case(x, w, b, window, sliding, groups)


class PoolCase(NamedTuple):
    x: np.ndarray
    arguments: tuple[Any, Any, Any]  # pool_size, stride, padding
    window: Window


@st.composite
def pools(draw, max_batch=20):
    H, W = draw(st.tuples(st.integers(1, 13), st.integers(1, 13)))
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    size = min(size[0], H), min(size[1], W)
    stride = draw(st.one_of(st.none(), sizes(1, 3)))
    padding = draw(
        st.one_of(
            st.sampled_from(["same", "valid", 0]),
            st.tuples(
                st.tuples(st.integers(0, size[0] - 1), st.integers(0, size[0] - 1)),
                st.tuples(st.integers(0, size[1] - 1), st.integers(0, size[1] - 1)),
            ),
        )
    )
    window = make_window((H, W), size, size if stride is None else stride, padding)
    N, C = draw(st.tuples(st.integers(1, max_batch), st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    # Few different values, so that most windows have several largest pixels.
    x = rng.integers(-3, 4, (N, C, H, W)).astype(draw(dtypes))
    return PoolCase(x, (size, stride, padding), window)
