"""Few filters, with neighboring pixels in the lanes: correlation and pooling as on plain arrays."""

import numpy as np
import pytest

from kernels import get_backend
from kernels.activations import LeakyRelu
from kernels.geometry import make_window
from kernels.numba_backend import channels_last, planes
from kernels.numba_backend.packed import pack
from kernels.numba_backend.planes import Planes
from kernels.numba_backend.runtime import compiler
from tests.cases import assert_close

NUMPY, NUMBA = get_backend("numpy"), get_backend("numba")
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def as_planes(x: np.ndarray, extra: int) -> Planes:
    """Return images whose rows are followed by numbers that nobody may read."""
    data = np.full((*x.shape[:3], x.shape[3] + extra), np.nan, x.dtype)
    data[..., : x.shape[3]] = x
    return Planes(data, x.shape[3])


# Images, channels, filters, rows, columns, kernel size, padding and dilation.
CASES = [
    (1, 1, 5, 28, 28, 5, "same", 1),
    (2, 5, 3, 14, 13, 3, ((2, 0), (0, 3)), 1),
    (3, 2, 1, 9, 20, (1, 3), 0, (1, 2)),
    (1, 3, 2, 40, 3, (4, 2), (0, 1), (3, 1)),
]


@dtypes
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("layout", ["planes", "channels last", "view"])
def test_correlation(case, dtype, layout, monkeypatch):
    (N, C, F, H, W, size, padding, dilation), rng = case, np.random.default_rng(0)
    window = make_window((H, W), size, 1, padding, dilation)
    # Where vectors are short, some of these filters fill them.
    monkeypatch.setattr(planes, "is_faster", lambda *arguments: True)
    x = rng.standard_normal((N, C, H, W)).astype(dtype)
    w = rng.standard_normal((F, C, *window.size)).astype(dtype)
    scale, b = rng.standard_normal((2, F)).astype(dtype)
    arguments = {"padding": padding, "dilation": dilation, "scale": scale}
    arguments["activation"] = LeakyRelu(0.1)
    want = NUMPY.correlate(x, w, b, **arguments)
    inputs = {
        "planes": as_planes(x, 3),
        "channels last": channels_last.ChannelsLast(x.transpose(0, 2, 3, 1).copy(), C),
        "view": channels_last.ChannelsLast(x.transpose(0, 2, 3, 1), C),
    }
    y = NUMBA.correlate(inputs[layout], w, b, **arguments)
    assert isinstance(y, Planes)
    assert_close(NUMBA.to_array(y), want)
    if layout == "planes" and dtype == np.float32:  # the parallel form computes the same bits
        monkeypatch.setattr(compiler, "MIN_PARALLEL_WORK", 0)
        again = NUMBA.correlate(inputs[layout], w, b, **arguments)
        np.testing.assert_array_equal(NUMBA.to_array(again), NUMBA.to_array(y))


def test_few_filters_are_faster_with_the_pixels_in_the_lanes():
    assert planes.is_faster(make_window((28, 28), 5, 1, "same"), 1, 5, np.dtype(np.float32))


@pytest.mark.parametrize("case", [(5, 3, 28, 28, 2), (40, 3, 28, 28, 1), (5, 3, 1, 3, 1)], ids=str)
def test_other_correlations_are_left_to_channels_last(case):
    F, size, H, W, stride = case
    window = make_window((H, W), size, stride, "same")
    assert not planes.is_faster(window, 1, F, np.dtype(np.float32))


def test_a_correlation_of_many_filters_takes_planes():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 9, 8), np.float32), rng.standard_normal((40, 2, 3, 3))
    w = w.astype(np.float32)
    assert_close(NUMBA.to_array(NUMBA.correlate(as_planes(x, 2), w)), NUMPY.correlate(x, w))


@dtypes
@pytest.mark.parametrize("extra", [0, 4])
@pytest.mark.parametrize(
    ("shape", "size", "stride", "padding"),
    [
        ((1, 5, 28, 28), 2, 2, 0),
        ((2, 3, 9, 70), (3, 4), (1, 2), (1, 3)),
        ((1, 2, 7, 7), 3, 3, 1),
        ((1, 2, 9, 37), 3, 2, 1),
        ((3, 1, 5, 40), 2, 1, ((1, 0), (0, 1))),
    ],
    ids=str,
)
def test_max_pool(shape, size, stride, padding, extra, dtype):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, -1, shape).astype(dtype)  # padding is no 0
    x.ravel()[rng.integers(0, x.size, 3)] = np.nan, np.inf, -np.inf
    want, _ = NUMPY.max_pool(x, size, stride, padding)
    y, index = NUMBA.max_pool(as_planes(x, extra), size, stride, padding)
    assert index is None
    np.testing.assert_array_equal(NUMBA.to_array(y), want)


@pytest.mark.parametrize("extra", [0, 3])
def test_other_kernels_take_planes(extra):
    x, other = np.random.default_rng(0).standard_normal((2, 2, 3, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(NUMBA.to_array(as_planes(x, extra)), x)
    np.testing.assert_array_equal(NUMBA.flatten(as_planes(x, extra)), x.reshape(2, -1))
    got = NUMBA.activate(as_planes(x, extra), LeakyRelu(0.1))
    assert_close(NUMBA.to_array(got), NUMPY.activate(x, LeakyRelu(0.1)))
    assert_close(NUMBA.to_array(NUMBA.avg_pool(as_planes(x, extra), 2)), NUMPY.avg_pool(x, 2))
    last = channels_last.ChannelsLast(other.transpose(0, 2, 3, 1).copy(), 3)
    for each in (as_planes(other, extra), as_planes(other, 1), last, other, pack(other)):
        assert_close(NUMBA.to_array(NUMBA.add(as_planes(x, extra), each)), x + other)
        assert_close(NUMBA.to_array(NUMBA.add(each, as_planes(x, extra))), x + other)
