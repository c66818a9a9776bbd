"""The kernels of 1x1 correlations return what the correlation returns."""

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import get_backend
from kernels.activations import LeakyRelu, Silu
from kernels.geometry import make_window
from kernels.numba_backend import packed
from kernels.numba_backend.packed import pointwise
from kernels.numba_backend.simd.activations import activation_argument
from tests.cases import assert_close, positive

NUMPY = get_backend("numpy")


def check(N, channels, filters, image, dtype):
    """Assert that the correlation and its input gradient are those of the numpy backend."""
    rng, window = np.random.default_rng(0), make_window(image, 1, 1, 0, 1)
    x, dy = (positive(rng, (N, C, *image), dtype) for C in (channels, filters))
    w, b = positive(rng, (filters, channels, 1, 1), dtype), positive(rng, filters, dtype) - 1
    for activation in (None, LeakyRelu(0.1), Silu()):
        checked = activation_argument(activation, x.dtype)
        y = pointwise.correlate(packed.pack(x), w, b, window, b, checked)
        assert_close(packed.unpack(y), NUMPY.correlate(x, w, b, scale=b, activation=activation))
    dx = packed.unpack(pointwise.input_gradient(packed.pack(dy), w, window))
    assert_close(dx, NUMPY.correlate_grad(dy, x, w)[0])


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 20),
    st.tuples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
def test_pointwise_equals_the_correlation(N, channels, filters, image, dtype):
    """At any size, although the layers use the kernels only where there are many channels."""
    check(N, channels, filters, image, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("panel_bytes", [1, 20_000, 40_000])
def test_pointwise_of_several_panels(panel_bytes, dtype, monkeypatch):
    """The last panel overlaps the one before it, and so do the last tiles."""
    monkeypatch.setattr(pointwise, "PANEL_BYTES", panel_bytes)
    check(35, 33, 37, (9, 7), dtype)


@pytest.mark.parametrize(("N", "size"), [(3, 5), (512, 20)])
def test_no_bit_depends_on_the_number_of_threads(N, size):
    """One block of images is cut into as many panels as there are threads."""
    rng, window, threads = np.random.default_rng(0), make_window((size, size), 1, 1, 0, 1), [1, 2]
    x = packed.pack(rng.standard_normal((N, 40, size, size), dtype=np.float32))
    w = rng.standard_normal((96, 40, 1, 1), dtype=np.float32)
    before, results = numba.get_num_threads(), []
    try:
        for count in threads[: numba.config.NUMBA_NUM_THREADS]:
            numba.set_num_threads(count)
            y = pointwise.correlate(x, w, None, window, None, np.float32(1))
            results.append(packed.unpack(y))
    finally:
        numba.set_num_threads(before)
    assert all((result == results[0]).all() for result in results)


@pytest.mark.parametrize(
    ("kernel", "sliding", "groups", "n_summed", "is_supported"),
    [
        (1, {}, 1, 32, True),
        (1, {}, 1, 31, False),
        (1, {}, 2, 32, False),
        (1, {"stride": (1, 2)}, 1, 32, False),
        (1, {"padding": 1}, 1, 32, False),
        ((1, 2), {}, 1, 32, False),
    ],
)
def test_is_supported(kernel, sliding, groups, n_summed, is_supported):
    window = make_window((9, 9), kernel, **sliding)
    assert pointwise.is_supported(window, groups, n_summed) == is_supported
