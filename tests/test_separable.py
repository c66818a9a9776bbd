"""A depthwise and a 1x1 correlation in one kernel return what the two return."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import get_backend
from kernels.activations import LeakyRelu, Silu
from kernels.geometry import make_window
from kernels.numba_backend import packed
from kernels.numba_backend.packed import depthwise, separable
from layers import BatchNorm, Conv, Flatten, Relu
from layers.fusion import FoldedSeparable
from tests.cases import assert_close, correlations, positive
from training import SGD, Model

NUMPY, NUMBA = get_backend("numpy"), get_backend("numba")
# One channel and, without the other filters of the case, one filter a group.
separable_cases = correlations(max_kernel=5, max_channels=1, max_dilation=1, large=True).filter(
    lambda case: depthwise.is_supported(case.window, case.groups, case.w[: case.groups].shape)
)


def check(x, w, pointwise_w, sliding):
    """Assert that the results are those of the numpy backend; some numbers are negative."""
    rng, C, F = np.random.default_rng(1), len(w), len(pointwise_w)
    b, pointwise_b = positive(rng, C, x.dtype) - 6, positive(rng, F, x.dtype) - 1
    args = w, pointwise_w, b, pointwise_b, *(sliding[k] for k in ("stride", "padding", "dilation"))
    for activations in ((LeakyRelu(0.0), LeakyRelu(0.1)), (None, Silu()), (Silu(), None)):
        args_here = *args, b, pointwise_b, *activations
        got = packed.unpack(packed.separable_correlate(packed.pack(x), *args_here))
        assert_close(got, NUMPY.separable_correlate(x, *args_here))


@given(separable_cases, st.integers(1, 40))
def test_separable_equals_both_correlations(case, filters):
    w = case.w[: case.groups]
    pointwise_w = positive(np.random.default_rng(2), (filters, len(w), 1, 1), case.x.dtype)
    check(case.x, w, pointwise_w, case.sliding)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("panel_bytes", [1, 40_000])
@pytest.mark.parametrize("stride", [1, 2])
def test_separable_of_several_panels(stride, panel_bytes, dtype, monkeypatch):
    """The last panel overlaps the one before it."""
    monkeypatch.setattr(separable, "PANEL_BYTES", panel_bytes)
    rng = np.random.default_rng(0)
    x, w = positive(rng, (35, 33, 9, 7), dtype), positive(rng, (33, 1, 3, 3), dtype)
    sliding = {"stride": stride, "padding": 1, "dilation": 1}
    check(x, w, positive(rng, (37, 33, 1, 1), dtype), sliding)


@pytest.mark.parametrize(
    ("w_shape", "pointwise_shape", "is_supported"),
    [
        ((4, 1, 3, 3), (5, 4, 1, 1), True),
        ((8, 1, 3, 3), (5, 8, 1, 1), False),  # two filters a channel
        ((4, 1, 3, 4), (5, 4, 1, 1), False),
        ((4, 1, 3, 3), (5, 4, 2, 1), False),
    ],
)
def test_other_filters_take_two_kernels(w_shape, pointwise_shape, is_supported):
    rng = np.random.default_rng(0)
    x, w, pointwise_w = (
        positive(rng, shape, np.float32) for shape in ((17, 4, 6, 6), w_shape, pointwise_shape)
    )
    window = make_window((6, 6), w_shape[2:], 1, 1, 1)
    assert is_supported == separable.is_supported(window, packed.pack(x), w_shape, pointwise_shape)
    check(x, w, pointwise_w, {"stride": 1, "padding": 1, "dilation": 1})


def test_panels_that_fit_no_cache_take_two_kernels(monkeypatch):
    monkeypatch.setattr(separable, "MAX_PANEL_BYTES", 0)
    monkeypatch.delattr(separable, "correlate")
    rng = np.random.default_rng(0)
    shapes = (17, 4, 6, 6), (4, 1, 3, 3), (5, 4, 1, 1)
    x, w, pointwise_w = (positive(rng, shape, np.float32) for shape in shapes)
    check(x, w, pointwise_w, {"stride": 1, "padding": 1, "dilation": 1})


def separable_model(**options):
    """Return a model of two depthwise separable convolutions, one of them without BatchNorm."""
    model = Model((6, 9, 8), seed=0, **options)
    for layer in (
        *(Conv(6, 3, padding=1, groups=6, use_bias=False), BatchNorm(), Relu()),
        *(Conv(10, 1, use_bias=False), BatchNorm(), Relu()),
        *(Conv(10, 3, stride=2, padding="same", groups=10), Conv(4, 1), Flatten()),
    ):
        model.add(layer)
    return model.compile(optimizer=SGD(learning_rate=0.1))


@pytest.mark.parametrize("N", [1, 19])  # in other layouts
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_prediction_combines_pairs_of_layers(N, backend):
    """A prediction uses the present parameters, also when it is captured."""
    rng = np.random.default_rng(0)
    model, plain = separable_model(backend=backend), separable_model(backend="numpy", fused=False)
    x, y = rng.standard_normal((N + 20, 6, 9, 8), dtype=np.float32), np.arange(N + 20) % 10
    for _ in range(4):
        for one in (model, plain):
            one.train_step(x, y)
        assert_close(model.logits(x[:N]), plain.logits(x[:N]))
    combined = [layer for layer in model._inference_plan if type(layer) is FoldedSeparable]
    assert len(combined) == 2
    combined[0].forward(x)
    with pytest.raises(RuntimeError, match="only predict"):
        combined[0].backward(None)


def test_mixed_precision_keeps_two_layers():
    plan = separable_model(dtype="bfloat16")._inference_plan
    assert not any(type(layer) is FoldedSeparable for layer in plan)
