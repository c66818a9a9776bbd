"""The kernels of depthwise convolutions return what the correlation returns."""

import numpy as np
import pytest
from hypothesis import given

from kernels import get_backend
from kernels.activations import LeakyRelu, Silu
from kernels.geometry import make_window
from kernels.numba_backend import packed
from kernels.numba_backend.packed import depthwise
from kernels.numba_backend.simd.activations import activation_argument
from tests.cases import assert_close, correlations, positive

NUMPY = get_backend("numpy")
# One channel and, without the other filters of the case, one filter a group.
depthwise_cases = correlations(max_kernel=5, max_channels=1, max_dilation=1, large=True).filter(
    lambda case: depthwise.is_supported(case.window, case.groups, case.w[: case.groups].shape)
)


def check(x, w, b, dy, window, sliding):
    """Assert that correlation and gradients are those of the numpy backend."""
    groups, packed_x, packed_dy = len(w), packed.pack(x), packed.pack(dy)
    for activation in (None, LeakyRelu(0.1), Silu()):
        y = depthwise.correlate(packed_x, w, b, window, b, activation_argument(activation, x.dtype))
        want = NUMPY.correlate(x, w, b, **sliding, groups=groups, scale=b, activation=activation)
        assert_close(packed.unpack(y), want)
    dx, dw, db = NUMPY.correlate_grad(dy, x, w, **sliding, groups=groups)
    assert_close(packed.unpack(depthwise.input_gradient(packed_dy, w, window)), dx)
    got = depthwise.weight_gradient(packed_dy, packed_x, w.shape, window)
    for gradient, reference in zip(got, (dw, db), strict=True):
        assert_close(gradient, reference)


@given(case=depthwise_cases)
def test_depthwise_equals_the_correlation(case):
    w, b = case.w[: case.groups], case.b[: case.groups] - 1  # so that some results are negative
    check(case.x, w, b, case.gradient(len(w)), case.window, case.sliding)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("image", "kernel", "sliding"),
    [
        ((40, 33), (3, 3), {"stride": 1, "padding": "same"}),  # several bands and tiles
        ((40, 33), (5, 5), {"stride": 2, "padding": "same", "dilation": (3, 1)}),
        ((7, 7), (1, 1), {"stride": 2}),  # some pixels lie under no tap
        ((2, 9), (2, 1), {"stride": (3, 2), "padding": 6}),  # some windows see only padding
    ],
)
def test_depthwise_of_several_bands_and_phases(image, kernel, sliding, dtype):
    rng = np.random.default_rng(0)
    sliding = {"padding": 0, "dilation": 1, **sliding}
    window = make_window(image, kernel, **sliding)
    x, w, b = (positive(rng, shape, dtype) for shape in ((19, 3, *image), (3, 1, *kernel), 3))
    check(x, w, b, positive(rng, (19, 3, *window.output), dtype), window, sliding)


@pytest.mark.parametrize(
    ("filters", "channels", "groups", "sliding", "is_supported"),
    [
        (4, 4, 4, {}, True),
        (4, 4, 4, {"stride": (3, 2), "dilation": (2, 1)}, True),
        (8, 4, 4, {}, False),
        (4, 4, 2, {}, False),
        (4, 4, 4, {"stride": 3}, False),
        (4, 4, 4, {"dilation": 2}, False),
    ],
)
def test_is_supported(filters, channels, groups, sliding, is_supported):
    window = make_window((9, 9), 3, **sliding)
    w_shape = filters, channels // groups, 3, 3
    assert depthwise.is_supported(window, groups, w_shape) == is_supported
