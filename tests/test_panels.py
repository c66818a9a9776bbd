"""The kernels that work on panels of many channels return what the correlation returns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import get_backend
from kernels.activations import LeakyRelu, Silu
from kernels.geometry import make_window
from kernels.numba_backend import packed
from kernels.numba_backend.packed import panels
from kernels.numba_backend.simd.activations import activation_argument
from tests.cases import assert_close, correlations, positive

NUMPY = get_backend("numpy")
panel_cases = correlations(
    max_batch=20, max_kernel=3, max_image=9, channels_of_group=st.sampled_from([1, 8, 16, 17])
)


def check(x, w, b, dy, window, sliding):
    """Assert that correlation and gradients are those of the numpy backend."""
    groups, packed_x, packed_dy = sliding["groups"], packed.pack(x), packed.pack(dy)
    for activation in (None, LeakyRelu(0.1), Silu()):
        checked = activation_argument(activation, x.dtype)
        y = panels.correlate(packed_x, w, b, window, groups, b, checked)
        want = NUMPY.correlate(x, w, b, **sliding, scale=b, activation=activation)
        assert_close(packed.unpack(y), want)
    dx, dw, db = NUMPY.correlate_grad(dy, x, w, **sliding)
    assert_close(packed.unpack(panels.input_gradient(packed_dy, w, window, groups)), dx)
    if w.shape[1] % packed_x.lanes == 0:
        got = panels.weight_gradient(packed_dy, packed_x, w.shape, window, groups)
        for gradient, reference in zip(got, (dw, db), strict=True):
            assert_close(gradient, reference)


@given(case=panel_cases)
def test_panels_equal_the_correlation(case):
    """At any size, although the layers use them only where there are many channels."""
    sliding = {**case.sliding, "groups": case.groups}
    check(case.x, case.w, case.b - 1, case.gradient(len(case.w)), case.window, sliding)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("channels", "filters", "image", "kernel", "sliding"),
    [
        (32, 48, 20, 3, {"stride": 2, "padding": 1}),  # more than one panel, and tiles that overlap
        (64, 33, 17, 1, {}),
        (32, 16, 8, 1, {"stride": 2}),  # some pixels lie under no tap
        (32, 32, 7, 3, {"stride": (3, 1), "padding": 4, "groups": 2}),
    ],
)
def test_panels_of_several_bands_and_phases(channels, filters, image, kernel, sliding, dtype):
    rng, N = np.random.default_rng(0), 19
    geometry = {"stride": 1, "padding": 0, "dilation": 1, **sliding}
    groups = geometry.pop("groups", 1)
    window = make_window((image, image), kernel, **geometry)
    x = positive(rng, (N, channels, image, image), dtype)
    w = positive(rng, (filters, channels // groups, *window.size), dtype)
    dy = positive(rng, (N, filters, *window.output), dtype)
    check(x, w, positive(rng, filters, dtype), dy, window, {**geometry, "groups": groups})
