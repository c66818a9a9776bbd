"""Winograd's method with the channels in the lanes returns what the correlation returns."""

import numpy as np
import pytest

from kernels import get_backend
from kernels.activations import LeakyRelu, Silu
from kernels.geometry import make_window
from kernels.numba_backend import channels_last, channels_last_winograd
from kernels.numba_backend.channels_last import ChannelsLast
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime import tuning
from tests.cases import assert_close

NUMPY = get_backend("numpy")
# Images, channels, filters, rows, columns and padding: whole vectors of channels and filters, and
# not; even and odd outputs; more patches than one run.
CASES = [
    (1, 32, 32, 28, 28, 1),
    (1, 64, 64, 14, 14, 1),
    (3, 32, 40, 9, 11, 0),
    (2, 24, 17, 7, 6, ((2, 0), (0, 3))),
    (1, 17, 64, 30, 5, 2),
]


@pytest.mark.parametrize("activation", [None, LeakyRelu(0.1), Silu()], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_correlation(case, dtype, activation):
    (N, C, F, H, W, padding), rng = case, np.random.default_rng(0)
    x, w = rng.uniform(0.5, 1.5, (N, C, H, W)), rng.uniform(0.5, 1.5, (F, C, 3, 3))
    scale, b = rng.uniform(0.5, 1.5, (2, F))
    x, w, scale, b = (array.astype(dtype) for array in (x, w, scale, b))
    lanes = simd_width(np.dtype(dtype))
    data = np.full((N, H, W, -(-C // lanes) * lanes), 7, dtype)  # numbers that nobody may read
    data[..., :C] = x.transpose(0, 2, 3, 1)
    assert channels_last_winograd.is_supported(make_window((H, W), (3, 3), 1, padding), 1, N, C, F)
    y = channels_last.correlate(
        ChannelsLast(data, C), w, b, padding=padding, scale=scale, activation=activation
    )
    want = NUMPY.correlate(x, w, b, padding=padding, scale=scale, activation=activation)
    assert_close(channels_last.to_array(y), want)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3]], ids=str)
def test_every_split_of_the_work_computes_the_same_bits(case, workers, monkeypatch):
    (N, C, F, H, W, padding), rng = case, np.random.default_rng(0)
    x = rng.standard_normal((N, C, H, W), np.float32)
    w = rng.standard_normal((F, C, 3, 3), np.float32)
    want = get_backend("numba").correlate(x, w, padding=padding)
    get_backend("numba").correlate(-x, w, padding=padding)  # the memory of `want` is used again
    monkeypatch.setattr(channels_last_winograd, "workers_for", lambda work: workers)
    assert_close(want, NUMPY.correlate(x, w, padding=padding))
    got = get_backend("numba").correlate(x, w, padding=padding)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("choice", ["winograd", "direct"])
def test_the_faster_method_is_measured(choice, monkeypatch):
    """On each machine, for a class of shapes: there is a kernel for each answer."""
    asked, rng = [], np.random.default_rng(0)

    def choose(kernel, shape_class, candidates, default):
        asked.append(f"{kernel} {shape_class}, {default}")
        return choice

    others = {"winograd": "_correlate_directly", "direct": "_correlate_by_winograd"}
    monkeypatch.setattr(channels_last, others[choice], list)  # of no use
    monkeypatch.setattr(tuning, "choose", choose)
    x = rng.standard_normal((2, 32, 14, 15), np.float32)
    w = rng.standard_normal((40, 32, 3, 3), np.float32)
    got = get_backend("numba").correlate(x, w, padding=1)
    assert_close(got, NUMPY.correlate(x, w, padding=1))
    assert asked == [
        "correlate 32x14x15, 40 filters 3x3, stride (1, 1), padding ((1, 1), (1, 1)), "
        "dilation (1, 1), groups 1, float32, images 2, winograd"
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_plain_arrays(case, dtype):
    """Whose channels lie apart, and fill no whole vectors."""
    (N, C, F, H, W, padding), rng = case, np.random.default_rng(0)
    x = rng.uniform(0.5, 1.5, (N, C, H, W)).astype(dtype)
    w = rng.uniform(0.5, 1.5, (F, C, 3, 3)).astype(dtype)
    want = NUMPY.correlate(x, w, padding=padding)
    assert_close(get_backend("numba").correlate(x, w, padding=padding), want)
    narrow = ChannelsLast(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), C)
    assert_close(channels_last.to_array(channels_last.correlate(narrow, w, padding=padding)), want)


@pytest.mark.parametrize(
    ("arguments", "groups", "channels", "filters"),
    [
        ({"size": (5, 5)}, 1, 32, 32),
        ({"stride": 2}, 1, 32, 32),
        ({"dilation": 2}, 1, 32, 32),
        ({}, 2, 32, 32),
        ({}, 1, 16, 32),
        ({"image": (4, 4), "padding": 1}, 1, 256, 256),  # its filters take longer to transform
    ],
)
def test_other_correlations_are_not_supported(arguments, groups, channels, filters):
    window = make_window(**({"image": (14, 14), "size": (3, 3)} | arguments))
    assert not channels_last_winograd.is_supported(window, groups, 1, channels, filters)
