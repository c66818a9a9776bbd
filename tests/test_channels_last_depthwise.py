"""A filter for each channel, with the channels in the lanes, as on plain arrays."""

import numpy as np
import pytest

from kernels import get_backend
from kernels.activations import LeakyRelu
from kernels.geometry import make_window
from kernels.numba_backend import channels_last, channels_last_depthwise
from kernels.numba_backend.channels_last import ChannelsLast
from kernels.numba_backend.packed.layout import simd_width
from kernels.numba_backend.runtime import compiler
from tests.cases import assert_close

NUMPY, NUMBA = get_backend("numpy"), get_backend("numba")
# Images, channels, rows, columns, kernel size, stride, padding and dilation.
CASES = [
    (1, 32, 11, 14, 3, 1, 1, 1),
    (2, 20, 9, 8, 3, 2, 1, 1),
    (3, 17, 13, 12, (2, 5), (1, 2), ((0, 3), (4, 1)), (2, 1)),
    (1, 5, 4, 3, 3, 1, 2, 1),
    (2, 16, 5, 9, (3, 1), 1, 0, (1, 2)),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_correlation(case, dtype, monkeypatch):
    (N, C, H, W, size, stride, padding, dilation), rng = case, np.random.default_rng(0)
    x = rng.standard_normal((N, C, H, W)).astype(dtype)
    w = rng.standard_normal((C, 1, *np.broadcast_to(size, 2))).astype(dtype)
    scale, b = rng.standard_normal((2, C)).astype(dtype)
    data = np.full((N, H, W, -(-C // simd_width(np.dtype(dtype))) * simd_width(x.dtype)), 7, dtype)
    data[..., :C] = x.transpose(0, 2, 3, 1)
    arguments = {"stride": stride, "padding": padding, "dilation": dilation, "groups": C}
    arguments |= {"scale": scale, "activation": LeakyRelu(0.1)}
    window = make_window((H, W), w.shape[2:], stride, padding, dilation)
    assert channels_last_depthwise.is_supported(window, C, C, C)
    y = channels_last.correlate(ChannelsLast(data, C), w, b, **arguments)
    assert_close(channels_last.to_array(y), NUMPY.correlate(x, w, b, **arguments))
    if dtype == np.float32:  # the parallel form computes the same bits
        monkeypatch.setattr(compiler, "MIN_PARALLEL_WORK", 0)
        again = channels_last.correlate(ChannelsLast(data, C), w, b, **arguments)
        np.testing.assert_array_equal(again.data, y.data)


@pytest.mark.parametrize(
    ("groups", "channels", "filters", "size", "sliding"),
    [
        (4, 4, 8, 3, {}),
        (4, 8, 8, 3, {}),
        (4, 4, 4, 4, {}),
        (4, 4, 4, 3, {"stride": 3}),
        (4, 4, 4, 3, {"dilation": 2}),
    ],
)
def test_other_correlations_are_not_supported(groups, channels, filters, size, sliding):
    window = make_window((9, 9), (size, size), **sliding)
    assert not channels_last_depthwise.is_supported(window, groups, channels, filters)
