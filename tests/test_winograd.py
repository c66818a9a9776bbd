"""Winograd's method returns what the correlation returns."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import get_backend
from kernels.geometry import make_window
from kernels.numba_backend import packed
from kernels.numba_backend.packed import winograd
from tests.cases import assert_close, dtypes, positive

NUMPY = get_backend("numpy")


@given(
    sizes=st.tuples(st.integers(1, 20), st.sampled_from([1, 3, 8, 16, 32]), st.integers(1, 20)),
    image=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    padding=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    dtype=dtypes,
)
@settings(deadline=None)
def test_winograd_equals_the_correlation(sizes, image, padding, dtype):
    """At any size, although the layers use it only where there are many channels."""
    N, C, F = sizes
    rng = np.random.default_rng(0)
    x, w = positive(rng, (N, C, *image), dtype), positive(rng, (F, C, 3, 3), dtype)
    b = positive(rng, F, dtype)
    window = make_window(image, (3, 3), 1, padding)
    y = winograd.correlate(packed.pack(x), w, b, window, None, dtype(1))
    assert_close(packed.unpack(y), NUMPY.correlate(x, w, b, padding=padding))
    dy = positive(rng, y.shape, dtype)
    dx, dw, db = NUMPY.correlate_grad(dy, x, w, padding=padding)
    packed_dy, packed_x = packed.pack(dy), packed.pack(x)
    assert_close(packed.unpack(winograd.input_gradient(packed_dy, w, window)), dx)
    if C % packed_x.lanes == 0:
        for mine, plain in zip(
            winograd.weight_gradient(packed_dy, packed_x, w.shape, window), (dw, db), strict=True
        ):
            assert_close(mine, plain)
