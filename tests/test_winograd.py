"""Winograd's method returns what the correlation returns, and its transforms are exact."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import get_backend
from kernels.activations import LeakyRelu
from kernels.bfloat16 import round_to_bfloat16
from kernels.geometry import make_window
from kernels.numba_backend import packed
from kernels.numba_backend.packed import winograd
from kernels.numba_backend.packed.layout import rounded
from kernels.numba_backend.simd import winograd_transforms as transforms
from kernels.numba_backend.simd.activations import activation_argument
from tests.cases import assert_close, dtypes, positive

NUMPY = get_backend("numpy")


def images(rng, storage, *shape):
    """Return random positive numbers that ``storage`` can hold, and their packed batch."""
    if storage != "bfloat16":
        x = positive(rng, shape, np.dtype(storage).type)
        return x, packed.pack(x)
    x = round_to_bfloat16(positive(rng, shape, np.float32))
    return x, packed.narrow(packed.pack(x))


@given(
    sizes=st.tuples(st.integers(1, 20), st.sampled_from([1, 3, 8, 18, 32]), st.integers(1, 20)),
    image=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    padding=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    dtype=dtypes,
)
@settings(deadline=None)
def test_winograd_equals_the_correlation(sizes, image, padding, dtype):
    """At any size, although the layers use it only where there are many channels."""
    N, C, F = sizes
    rng = np.random.default_rng(0)
    x, packed_x = images(rng, dtype, N, C, *image)
    w, b, scale = (
        positive(rng, (F, C, 3, 3), dtype),
        positive(rng, F, dtype),
        positive(rng, F, dtype),
    )
    window = make_window(image, (3, 3), 1, padding)
    activation = activation_argument(LeakyRelu(0.1), packed_x.dtype)
    y = winograd.correlate(packed_x, w, -100 * b, window, scale, activation)
    want = NUMPY.correlate(x, w, -100 * b, padding=padding, scale=scale, activation=LeakyRelu(0.1))
    assert_close(packed.unpack(y), want)
    dy, packed_dy = images(rng, dtype, *y.shape)
    dx, _, _ = NUMPY.correlate_grad(dy, x, w, padding=padding)
    assert_close(packed.unpack(winograd.input_gradient(packed_dy, w, window)), dx)


@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([16, 32, 48])),
    image=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    padding=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    dtype=dtypes,
)
@settings(deadline=None)
def test_weight_gradient(sizes, image, padding, dtype):
    N, C, F = sizes
    rng = np.random.default_rng(0)
    x, packed_x = images(rng, dtype, N, C, *image)
    window = make_window(image, (3, 3), 1, padding)
    dy, packed_dy = images(rng, dtype, N, F, *window.output)
    w = np.zeros((F, C, 3, 3), dtype)
    _, *want = NUMPY.correlate_grad(dy, x, w, padding=padding)
    for got, each in zip(
        winograd.weight_gradient(packed_dy, packed_x, w.shape, window), want, strict=True
    ):
        assert_close(got, each)


@pytest.mark.parametrize("shape", [(33, 18, 32, 9, 6), (16, 2, 16, 4, 4), (50, 64, 16, 3, 12)])
def test_activations_in_bfloat16(shape):
    """The sums are those of float32; y and dx are rounded once."""
    N, C, F, *image_size = shape
    image = tuple(image_size)
    rng = np.random.default_rng(0)
    x, packed_x = images(rng, "bfloat16", N, C, *image)
    w = positive(rng, (F, C, 3, 3), np.float32)
    window = make_window(image, (3, 3), 1, 1)
    y = winograd.correlate(packed_x, w, None, window, None, np.float32(1))
    dy, packed_dy = images(rng, "bfloat16", *y.shape)
    want_y = NUMPY.correlate(x, rounded(w), padding=1)
    want_dx, *want = NUMPY.correlate_grad(dy, x, rounded(w), padding=1)
    dx = winograd.input_gradient(packed_dy, w, window)
    for got, each in ((y, want_y), (dx, want_dx)):
        assert got.is_bfloat16
        error = np.abs(packed.unpack(got) - each)
        assert (error <= 2**-8 * np.abs(each) * (1 + 1e-3)).all()
    for got, each in zip(
        winograd.weight_gradient(packed_dy, packed_x, w.shape, window), want, strict=True
    ):
        assert_close(got, each)


@pytest.mark.parametrize("F", [32, 48])
@pytest.mark.parametrize("C", [8, 20, 21, 38])
def test_weight_gradient_of_more_patches_than_are_computed_at_a_time(C, F):
    """Sums continue from chunk to chunk, also where the tiles of registers overlap."""
    rng = np.random.default_rng(0)
    x, packed_x = images(rng, np.float32, 2, C, 36, 36)
    window = make_window((36, 36), (3, 3), 1, 1)
    dy, packed_dy = images(rng, np.float32, 2, F, 36, 36)
    w = np.zeros((F, C, 3, 3), np.float32)
    _, *want = NUMPY.correlate_grad(dy, x, w, padding=1)
    got = winograd.weight_gradient(packed_dy, packed_x, w.shape, window)
    for got_each, each in zip(got, want, strict=True):
        assert_close(got_each, each)


@pytest.mark.parametrize(
    ("C", "F", "image"),
    [(128, 256, (6, 5)), (72, 256, (9, 9))],
    ids=["slices of whole tiles", "slices whose tiles overlap"],
)
def test_no_bit_depends_on_the_number_of_threads(C, F, image):
    """Few patches and many weights are cut into slices, more of them for more threads."""
    rng = np.random.default_rng(0)
    _, packed_x = images(rng, np.float32, 40, C, *image)
    w, window = positive(rng, (F, C, 3, 3), np.float32), make_window(image, (3, 3), 1, 1)
    _, packed_dy = images(rng, np.float32, 40, F, *image)

    def run(n_threads):
        numba.set_num_threads(n_threads)
        y = winograd.correlate(packed_x, w, None, window, None, np.float32(1))
        dx = winograd.input_gradient(packed_dy, w, window)
        return [y.data, dx.data, *winograd.weight_gradient(packed_dy, packed_x, w.shape, window)]

    threads = numba.get_num_threads()
    want = run(1)
    for got, each in zip(run(threads), want, strict=True):
        np.testing.assert_array_equal(got, each)


def test_slices_of_the_weight_gradient():
    slices = {winograd._count_slices(128, 4, workers) for workers in (1, 2, 3, 64)}
    assert slices == {1, 2, 4}
    # So that the test of the number of threads sees slices of one part whose tiles overlap.
    assert {winograd._count_slices(72, 1, workers) for workers in (1, 2)} == {2, 4}


def test_transforms_give_the_correlation_and_its_gradients():
    """In float64 and NumPy, from the formulas of `packed.winograd`."""
    rng = np.random.default_rng(0)
    d, g, dy = (rng.standard_normal((n, n)) for n in (6, 3, 4))
    windows = np.lib.stride_tricks.sliding_window_view(d, (3, 3))

    def transform(line, x):
        return np.array(transforms.transform(line, x))

    filters, patch = transform(transforms.filter_line, g), transform(transforms.input_line, d)
    y = transform(transforms.output_line, filters * patch)
    np.testing.assert_allclose(y, np.einsum("ijkm,km->ij", windows, g), rtol=1e-12)
    gradient = transform(transforms.gradient_line, dy)
    dg = transform(transforms.sum_line, gradient * patch)
    np.testing.assert_allclose(dg, np.einsum("ijkm,ij->km", windows, dy), rtol=1e-12)


def test_rounding_errors_are_about_twice_those_of_the_direct_sum():
    """The points of the transforms decide that; 0, 1, -1, 2 and -2 have four times its errors."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 64, 12, 12)).astype(np.float32)
    w = rng.standard_normal((16, 64, 3, 3)).astype(np.float32)
    window = make_window((12, 12), (3, 3), 1, 0)
    exact = NUMPY.correlate(x.astype(np.float64), w.astype(np.float64))
    y = packed.unpack(winograd.correlate(packed.pack(x), w, None, window, None, np.float32(1)))
    error = np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2))
    assert error < 1.2e-6
