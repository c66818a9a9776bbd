"""Kernels for a few images, which keep the channels in the SIMD lanes, agree with NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import get_backend
from kernels.numba_backend import channels_last as channels_last_kernels
from kernels.numba_backend.channels_last import ChannelsLast, normalize_images
from kernels.numba_backend.packed import pack, simd_width
from layers import (
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    LeakyRelu,
    MaxPool,
    Relu,
    Softmax,
)
from tests.cases import FUSED_ACTIVATIONS, assert_close, correlations, dtypes, pools
from training import SGD, Model

NUMBA, NUMPY = get_backend("numba"), get_backend("numpy")


def channels_last(x: np.ndarray) -> ChannelsLast:
    """Return images with their channels last; the padding of the last vector is NaN."""
    N, C, H, W = x.shape
    L = simd_width(x.dtype)
    data = np.full((N, H, W, -(-C // L) * L), np.nan, x.dtype)
    data[..., :C] = x.transpose(0, 2, 3, 1)
    return ChannelsLast(data, C)


@given(
    case=correlations(max_batch=3, max_kernel=5, max_image=20, max_channels=20),
    activation=st.sampled_from([None, *FUSED_ACTIVATIONS]),
    with_scale=st.booleans(),
)
def test_correlate_agrees_with_numpy(case, activation, with_scale):
    rng = np.random.default_rng(0)
    scale = rng.standard_normal(len(case.w)).astype(case.w.dtype) if with_scale else None
    arguments = {
        **case.sliding,
        "groups": case.groups,
        "scale": scale,
        "activation": activation,
    }
    want = NUMPY.correlate(case.x, case.w, case.b, **arguments)
    got = NUMBA.correlate(channels_last(case.x), case.w, case.b, **arguments)
    assert_close(NUMBA.to_array(got), want)
    again = NUMBA.correlate(got, np.ones((3, len(case.w), 1, 1), case.w.dtype))
    assert_close(
        NUMBA.to_array(again),
        NUMPY.correlate(want, np.ones_like(want, shape=(3, len(case.w), 1, 1))),
    )


@given(case=pools(max_batch=3))
def test_max_pool_and_flatten_agree_with_numpy(case):
    x = case.x.copy()
    odd = np.array([np.nan, np.inf, -np.inf], x.dtype)
    places = np.random.default_rng(0).integers(0, x.size, 3)
    x.ravel()[places] = odd
    want, _ = NUMPY.max_pool(x, *case.arguments)
    got, index = NUMBA.max_pool(channels_last(x), *case.arguments)
    assert index is None
    np.testing.assert_array_equal(NUMBA.to_array(got), want)
    np.testing.assert_array_equal(NUMBA.flatten(channels_last(x)), x.reshape(len(x), -1))


@given(case=pools(max_batch=3))
def test_avg_pool_agrees_with_numpy(case):
    want = NUMPY.avg_pool(case.x, *case.arguments)
    got = NUMBA.avg_pool(channels_last(case.x), *case.arguments)
    assert isinstance(got, ChannelsLast)
    assert_close(NUMBA.to_array(got), want)


# Images, channels, filters, rows, columns, kernel size, stride and groups: more filters than
# pixels, more pixels than filters, nothing to pad, and groups.
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "case",
    [
        (1, 40, 100, 4, 4, 3, 1, 1),
        (2, 20, 33, 9, 9, 1, 2, 1),
        (2, 32, 70, 9, 9, 1, 1, 1),
        (1, 12, 40, 7, 7, 3, 2, 2),
    ],
)
def test_every_split_of_the_work_computes_the_same_bits(case, workers, monkeypatch):
    (N, C, F, H, W, size, stride, groups), rng = case, np.random.default_rng(0)
    x = rng.standard_normal((N, C, H, W), np.float32)
    w = rng.standard_normal((F, C // groups, size, size), np.float32)
    arguments = {"stride": stride, "padding": "same", "groups": groups}
    want = NUMBA.correlate(x, w, **arguments)
    assert_close(want, NUMPY.correlate(x, w, **arguments))
    NUMBA.correlate(-x, w, **arguments)  # the memory of `want` is used again
    monkeypatch.setattr(channels_last_kernels, "workers_for", lambda work: workers)
    monkeypatch.setattr(channels_last_kernels, "MAX_SHORT_BYTES", 0)  # another shape of tiles
    np.testing.assert_array_equal(NUMBA.correlate(x, w, **arguments), want)


@given(
    shape=st.tuples(st.integers(1, 3), *[st.integers(1, 20)] * 3),
    dtype=dtypes,
    activation=st.sampled_from(FUSED_ACTIVATIONS),
)
def test_activate_and_add_agree_with_numpy(shape, dtype, activation):
    x, other = np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)
    got = NUMBA.activate(channels_last(x), activation)
    assert isinstance(got, ChannelsLast)
    assert_close(NUMBA.to_array(got), NUMPY.activate(x, activation))
    got = NUMBA.add(channels_last(x), channels_last(other), activation)
    assert isinstance(got, ChannelsLast)
    assert_close(NUMBA.to_array(got), NUMPY.add(x, other, activation))
    # The same images in other layouts: without padding, plain, and packed.
    unpadded = ChannelsLast(np.ascontiguousarray(other.transpose(0, 2, 3, 1)), shape[1])
    for each in (unpadded, other, pack(other)):
        got = NUMBA.to_array(NUMBA.add(channels_last(x), each, activation))
        assert_close(got, NUMPY.add(x, other, activation))
        got = NUMBA.to_array(NUMBA.add(each, channels_last(x), activation))
        assert_close(got, NUMPY.add(x, other, activation))


@given(
    shape=st.tuples(st.integers(1, 3), *[st.integers(1, 9)] * 3),
    dtype=dtypes,
    pool_size=st.integers(1, 2),
)
def test_normalize_images_agrees_with_numpy(shape, dtype, pool_size):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    mean, std = rng.uniform(1, 2, (2, shape[1])).astype(dtype)
    loaded = normalize_images(images, mean, std)
    assert loaded.shape == shape
    want = NUMPY.normalize_images(images, mean, std, dtype)
    assert_close(NUMBA.to_array(loaded), want)
    if min(shape[2:]) >= pool_size:  # the channels are not padded to whole vectors here
        pooled, _ = NUMBA.max_pool(loaded, pool_size)
        assert_close(NUMBA.to_array(pooled), NUMPY.max_pool(want, pool_size)[0])


def build_network(backend: str) -> Model:
    """Return a network with strides, groups, and layers that have no channels-last kernel."""
    model = Model((3, 17, 13), backend=backend, dtype="float32")
    for layer in (
        Conv(18, 3, padding="same"), BatchNorm(), Relu(), MaxPool(2, padding=1),
        Conv(20, (3, 2), stride=2, dilation=(1, 2), padding=2), LeakyRelu(),
        Conv(10, 3, padding=1, groups=2), BatchNorm(), Conv(33, 1), AvgPool(2), Relu(), BatchNorm(),
        Conv(7, 3, padding=1), Dropout(0.3), Flatten(), Dense(21), BatchNorm(), Relu(), Dense(4),
    ):  # fmt: skip
        model.add(layer)
    rng = np.random.default_rng(2)
    for layer in model.layers:
        for name, value in layer.arrays.items():
            value[:] = (
                rng.uniform(0.5, 1.5, value.shape)
                if "var" in name
                else rng.standard_normal(value.shape)
            )
    return model


@pytest.mark.parametrize("N", [1, 2, 3])
def test_a_network_predicts_as_with_numpy(N):
    images = np.random.default_rng(3).standard_normal((N, 3, 17, 13), np.float32)
    want = build_network("numpy").logits(images)
    model = build_network("numba")
    for _ in range(3):  # captured, then replayed
        assert_close(model.logits(images), want)
    # The captured step holds no copy of the weights: it uses weights changed in place.
    model.layers[0].params["weights"][:] *= 2
    changed = build_network("numpy")
    changed.layers[0].params["weights"][:] *= 2
    assert_close(model.logits(images), changed.logits(images))


@pytest.mark.parametrize("N", [1, 2, 3])
def test_training_on_few_images_agrees_with_numpy(N):
    rng = np.random.default_rng(4)
    images, labels = rng.standard_normal((N, 3, 9, 7), np.float32), rng.integers(0, 4, N)
    losses = {}
    for backend in ("numpy", "numba"):
        model = Model((3, 9, 7), backend=backend, dtype="float32", seed=0)
        for layer in (
            Conv(6, 3, padding="same", groups=3), BatchNorm(), Relu(), MaxPool(2),
            Conv(5, 3), LeakyRelu(), AvgPool((2, 1)), Flatten(), Dense(4), Softmax(),
        ):  # fmt: skip
            model.add(layer)
        model.compile(optimizer=SGD(learning_rate=0.1))
        losses[backend] = [model.train_step(images, labels) for _ in range(4)]
    np.testing.assert_allclose(losses["numba"], losses["numpy"], rtol=1e-4)
