"""A depthwise and a 1x1 correlation of a few images in one kernel return what the two return."""

import numpy as np
import pytest

from kernels import get_backend
from kernels.activations import LeakyRelu, Silu
from kernels.numba_backend import channels_last, channels_last_separable
from kernels.numba_backend.channels_last import ChannelsLast
from kernels.numba_backend.packed.layout import simd_width
from tests.cases import assert_close

NUMPY = get_backend("numpy")
# Images, channels, filters, rows, columns, kernel size, stride, padding and dilation.
CASES = [
    (1, 32, 64, 11, 14, 3, 1, 1, 1),
    (2, 20, 33, 9, 8, 3, 2, 1, 1),
    (3, 17, 5, 13, 12, (2, 5), (1, 2), ((0, 3), (4, 1)), (2, 1)),
    (1, 5, 100, 4, 3, 3, 1, 2, 1),
    (1, 64, 17, 1, 1, 3, 1, 1, 1),
]


def make_case(case, dtype):
    """Return the images with their channels last, as a plain array, and the other arguments."""
    (N, C, F, H, W, size, stride, padding, dilation), rng = case, np.random.default_rng(0)
    x, w, pointwise_w, scale, b, pointwise_scale, pointwise_b = (
        rng.uniform(0.5, 1.5, shape).astype(dtype)
        for shape in ((N, C, H, W), (C, 1, *np.broadcast_to(size, 2)), (F, C, 1, 1), C, C, F, F)
    )
    lanes = simd_width(np.dtype(dtype))
    data = np.full((N, H, W, -(-C // lanes) * lanes), 7, dtype)  # numbers that nobody may use
    data[..., :C] = x.transpose(0, 2, 3, 1)
    arguments = {
        "w": w, "pointwise_w": pointwise_w, "b": b - 5, "pointwise_b": pointwise_b,
        "stride": stride, "padding": padding, "dilation": dilation,
        "scale": scale, "pointwise_scale": pointwise_scale,
    }  # fmt: skip
    return ChannelsLast(data, C), x, arguments


@pytest.mark.parametrize(
    ("dtype", "activations"),
    [  # few, because each is compiled
        (np.float32, (LeakyRelu(0.0), LeakyRelu(0.1))),
        (np.float32, (Silu(), None)),
        (np.float64, (None, Silu())),
    ],
    ids=str,
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_both_correlations(case, dtype, activations, monkeypatch):
    x, plain, arguments = make_case(case, dtype)
    arguments |= dict(zip(("activation", "pointwise_activation"), activations, strict=True))
    monkeypatch.setattr(channels_last, "_composed_separable_correlate", None)
    want = NUMPY.separable_correlate(plain, **arguments)
    got = channels_last.separable_correlate(x, **arguments)
    assert_close(channels_last.to_array(got), want)
    narrow = ChannelsLast(np.ascontiguousarray(plain.transpose(0, 2, 3, 1)), plain.shape[1])
    again = channels_last.separable_correlate(narrow, **arguments)
    assert_close(channels_last.to_array(again), want)


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_split_of_the_work_computes_the_same_bits(case, workers, monkeypatch):
    x, _, arguments = make_case(case, np.float32)
    want = channels_last.separable_correlate(x, **arguments).data.copy()
    negated = ChannelsLast(-x.data, x.shape[1])
    channels_last.separable_correlate(negated, **arguments)  # the memory of `want` is used again
    monkeypatch.setattr(channels_last_separable, "workers_for", lambda work: workers)
    got = channels_last.separable_correlate(x, **arguments).data
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("w_shape", "pointwise_shape"),
    [
        ((8, 1, 3, 3), (5, 8, 1, 1)),  # two filters a channel
        ((4, 1, 3, 4), (5, 4, 1, 1)),
        ((4, 1, 3, 3), (5, 4, 2, 1)),
    ],
)
def test_other_filters_take_two_kernels(w_shape, pointwise_shape, monkeypatch):
    monkeypatch.delattr(channels_last_separable, "correlate")
    x = np.random.default_rng(0).uniform(0.5, 1.5, (2, 4, 6, 6)).astype(np.float32)
    w, pointwise_w = np.full(w_shape, 0.5, np.float32), np.full(pointwise_shape, 2, np.float32)
    data = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    got = channels_last.separable_correlate(ChannelsLast(data, 4), w, pointwise_w, padding=1)
    want = NUMPY.separable_correlate(x, w, pointwise_w, padding=1)
    assert_close(channels_last.to_array(got), want)
