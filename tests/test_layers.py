"""The layers: gradients compared with finite differences, shapes, and errors."""

import doctest
from importlib import import_module

import numpy as np
import pytest

from kernels import BACKENDS
from layers import (
    LAYER_TYPES,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    Gelu,
    GlobalAvgPool,
    GlobalMaxPool,
    LeakyRelu,
    MaxPool,
    Relu,
    Residual,
    ShapeError,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
    walk,
)
from training import SGD, Model

every_backend = pytest.mark.parametrize("backend", list(BACKENDS))

IMAGE, ROW = (4, 7, 6), (9,)
LAYERS = [
    (lambda: Conv(6, 3), IMAGE),
    (lambda: Conv(6, (2, 4), stride=(2, 1), padding="same", groups=2), IMAGE),
    (lambda: Conv(3, 3, padding=((2, 0), (1, 3)), dilation=(2, 1), use_bias=False), IMAGE),
    (lambda: Conv(5, 5, stride=3, padding=2, initializer="glorot"), IMAGE),
    (lambda: Dense(7), ROW),
    (lambda: Dense(3, use_bias=False, initializer="glorot"), ROW),
    (lambda: BatchNorm(), IMAGE),
    (lambda: BatchNorm(momentum=0.5, epsilon=1e-3), ROW),
    (lambda: Relu(), IMAGE),
    (lambda: LeakyRelu(), ROW),
    (lambda: Softmax(), ROW),
    (lambda: Dropout(0.4), IMAGE),
    (lambda: Flatten(), IMAGE),
    (lambda: Flatten(), ROW),
    (lambda: MaxPool(2), IMAGE),
    (lambda: MaxPool((3, 2), stride=(2, 1), padding=1), IMAGE),
    (lambda: AvgPool(2), IMAGE),
    (lambda: AvgPool(3, stride=2, padding="same"), IMAGE),
    (lambda: GlobalAvgPool(), IMAGE),
    (lambda: GlobalMaxPool(), IMAGE),
    (lambda: Relu(max_value=0.7), IMAGE),
    (lambda: Sigmoid(), IMAGE),
    (lambda: Tanh(), ROW),
    (lambda: Silu(), IMAGE),
    (lambda: Gelu(), ROW),
    (lambda: Residual(Dense(9), Tanh(), Dropout(0.4)), ROW),
    (lambda: Residual(Conv(6, 3, 2, "same"), Silu(), shortcut=[Conv(6, 1, 2), Gelu()]), IMAGE),
    (lambda: Residual(Residual(Conv(4, 1)), BatchNorm(), shortcut=[Dropout(0.4)]), IMAGE),
]
IDS = [f"{type(make()).__name__} {shape}" for make, shape in LAYERS]


def forward(layer, x):
    """Return the output of the layer, with the same dropout each time."""
    for seed, each in enumerate(walk([layer])):
        each.rng = np.random.default_rng(seed)
    return layer.backend.to_array(layer.forward(x, training=True))


def central_difference(function, array, step=1e-6):
    """Return the derivative of a scalar function with respect to each element of an array.

    The function reads the array, whose elements are changed one after the other.
    """
    gradient = np.zeros_like(array)
    for position in np.ndindex(*array.shape):
        value = array[position]
        array[position] = value + step
        above = function()
        array[position] = value - step
        below = function()
        array[position] = value
        gradient[position] = (above - below) / (2 * step)
    return gradient


@every_backend
@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=IDS)
def test_gradients(backend, make, shape):
    rng = np.random.default_rng(0)
    layer = make().build(shape, backend=backend, dtype="float64", rng=1)
    x = rng.standard_normal((3, *shape))
    inside = list(walk([layer]))
    for each in inside:
        for value in each.params.values():
            value += rng.standard_normal(value.shape)
    y = forward(layer, x)
    assert y.shape == (3, *layer.output_shape)
    dy = rng.standard_normal(y.shape)

    def loss():
        return float((forward(layer, x) * dy).sum())

    forward(layer, x)
    dx = layer.backend.to_array(layer.backward(dy))
    assert dx.shape == x.shape
    analytic = [{name: grad.copy() for name, grad in each.grads.items()} for each in inside]
    np.testing.assert_allclose(dx, central_difference(loss, x), atol=1e-6)
    for each, grads in zip(inside, analytic, strict=True):
        for name, value in each.params.items():
            np.testing.assert_allclose(grads[name], central_difference(loss, value), atol=1e-6)


@pytest.mark.parametrize("make", [make for make, _ in LAYERS], ids=IDS)
def test_repr_is_the_constructor_call(make):
    layer = make()
    layer.name = "its name"
    rebuilt = eval(repr(layer), dict(LAYER_TYPES))
    assert type(rebuilt) is type(layer)
    assert rebuilt.config() == layer.config()
    assert rebuilt.name == "its name"


@pytest.mark.parametrize(
    "module",
    ["activations", "base", "conv", "dense", "fusion", "normalization", "pooling", "residual"],
)
def test_examples_of_the_documentation(module):
    module = import_module(f"layers.{module}")
    failed, attempted = doctest.testmod(module, extraglobs={"np": np, **LAYER_TYPES})
    assert attempted
    assert not failed


def test_every_layer_type_is_tested():
    assert {type(make()).__name__ for make, _ in LAYERS} == set(LAYER_TYPES)


@every_backend
@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=IDS)
def test_config_rebuilds_the_layer(backend, make, shape):
    layer = make().build(shape, backend=backend, dtype="float64", rng=1)
    # The layers in a Residual are no arguments of its config: model files save them as layers.
    rebuilt = make() if type(layer) is Residual else type(layer)(**layer.config())
    rebuilt.build(shape, backend=backend, dtype="float64", rng=1)
    x = np.random.default_rng(0).standard_normal((2, *shape))
    np.testing.assert_array_equal(forward(layer, x), forward(rebuilt, x))


@every_backend
def test_batch_norm_estimates_running_statistics(backend):
    layer = BatchNorm(momentum=0.9).build((3, 4, 4), backend, "float64")
    rng = np.random.default_rng(0)
    mean, std = np.array([1.0, -2, 5]), np.array([1.0, 2, 0.5])
    for _ in range(200):
        layer.forward(rng.standard_normal((20, 3, 4, 4)) * std[:, None, None] + mean[:, None, None])
    x = rng.standard_normal((500, 3, 4, 4)) * std[:, None, None] + mean[:, None, None]
    y = layer.forward(x, training=False)
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=0.1)
    np.testing.assert_allclose(y.std(axis=(0, 2, 3)), 1, atol=0.1)
    # In prediction, the output for an image does not depend on the other images.
    np.testing.assert_allclose(layer.forward(x[:1], training=False), y[:1], atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_batch_norm_momentum_is_the_weight_of_the_old_statistics(momentum):
    layer = BatchNorm(momentum).build((2,), "numpy", "float64")
    x = np.array([[1.0, 10.0], [3.0, 30.0]])
    layer.forward(x)
    layer.forward(x)
    weight = momentum**2
    np.testing.assert_allclose(layer.running_stats[0], (1 - weight) * np.array([2, 20]))
    np.testing.assert_allclose(layer.running_stats[1], weight + (1 - weight) * np.array([1, 100]))


@every_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_norm_accepts_constant_channel_and_batch_of_one(backend, dtype):
    layer = BatchNorm().build((2, 3, 3), backend, dtype)
    y = layer.forward(np.full((4, 2, 3, 3), 1e4, dtype))
    np.testing.assert_array_equal(y, 0)
    assert np.isfinite(layer.backward(np.ones((4, 2, 3, 3), dtype))).all()
    row = BatchNorm().build((5,), backend, dtype)
    np.testing.assert_array_equal(row.forward(np.ones((1, 5), dtype)), 0)


@every_backend
def test_dropout_is_inverted_and_off_in_prediction(backend):
    layer = Dropout(0.3).build((50, 20, 20), backend, "float32", rng=0)
    x = np.ones((2, 50, 20, 20), np.float32)
    y = layer.forward(x)
    assert y.mean() == pytest.approx(1, abs=0.02)
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.02)
    assert not np.array_equal(y, layer.forward(x))
    np.testing.assert_array_equal(layer.forward(x, training=False), x)


def test_initializers_keep_the_variance():
    he = Dense(400, initializer="he").build((300,), rng=0).params["weights"]
    assert he.var() == pytest.approx(2 / 300, rel=0.02)
    glorot = Dense(400, initializer="glorot").build((300,), rng=0).params["weights"]
    assert glorot.var() == pytest.approx(2 / 700, rel=0.02)
    conv = Conv(64, 5, groups=2).build((32, 8, 8), rng=0).params["weights"]
    assert conv.var() == pytest.approx(2 / (16 * 25), rel=0.03)
    layer = Conv(64, 5, groups=2, initializer="glorot").build((32, 8, 8), rng=0)
    assert layer.params["weights"].var() == pytest.approx(2 / (16 * 25 + 32 * 25), rel=0.03)


def test_layer_alone_builds_itself():
    x = np.random.default_rng(0).standard_normal((3, 2, 8, 8)).astype(np.float32)
    layer = Conv(4, kernel_size=3, padding="same")
    y = layer.forward(x)
    assert (y.shape, y.dtype) == ((3, 4, 8, 8), np.float32)
    assert layer.backward(np.ones_like(y)).shape == x.shape


def test_layer_rejects_shape_it_is_not_built_for():
    layer = Conv(4, kernel_size=3, padding="same", stride=2)
    layer.forward(np.zeros((3, 2, 8, 8), np.float32))
    with pytest.raises(ShapeError, match=r"built for \(2, 8, 8\), got \(2, 9, 9\)"):
        layer.forward(np.zeros((3, 2, 9, 9), np.float32))


def test_set_grads_rejects_unknown_parameter():
    with pytest.raises(KeyError, match="wieghts"):
        Dense(3).build((2,), "numpy").set_grads(wieghts=np.zeros((2, 3)))


def test_backward_without_forward_raises():
    layer = Relu().build((3,), backend="numpy")
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        layer.backward(np.ones((1, 3), np.float32))
    layer.forward(np.ones((1, 3), np.float32), training=False)
    with pytest.raises(RuntimeError, match="backward needs a forward"):
        layer.backward(np.ones((1, 3), np.float32))


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lambda: Dense(3), (4, 7, 6), r"'Dense' cannot take \(4, 7, 6\).*Flatten"),
        (lambda: Conv(3, 3), (9,), r"'Conv' cannot take \(9,\).*images"),
        (lambda: Conv(3, 3, groups=3), (4, 7, 6), "3 groups must divide 4 channels and 3 filters"),
        (lambda: Conv(3, 9), (4, 7, 6), "9x9 pixels does not fit .* 7x6"),
        (lambda: MaxPool(8), (4, 7, 6), "8x8 pixels does not fit"),
        (lambda: MaxPool(2, padding=2), (4, 7, 6), "smaller than the pool"),
        (lambda: GlobalAvgPool(), (9,), "images"),
        (lambda: GlobalMaxPool(), (9,), "images"),
        (lambda: Softmax(), (4, 7, 6), "Flatten"),
        (lambda: BatchNorm(), (4, 7), "images .* or rows"),
        (lambda: Flatten(), (2, 3), "images .* or rows"),
        (lambda: Relu(), (), "images .* or rows"),
        (lambda: MaxPool((30, 2**28), padding="same"), (4, 7, 6), r"2\*\*31"),
    ],
)
def test_build_rejects_shapes(make, shape, message):
    with pytest.raises(ShapeError, match=message):
        make().build(shape, backend="numpy")


@pytest.mark.parametrize("shape", [(0, 6, 6), (-1, 6, 6), (1.5, 6, 6), ("a", 6, 6), (0,), 5, None])
@pytest.mark.parametrize(
    "make",
    [
        *(lambda kind=kind: kind(2) for kind in (Dense, MaxPool, AvgPool)),
        lambda: Conv(2, 3),
        lambda: Dropout(0.5),
        *(BatchNorm, Flatten, GlobalAvgPool, GlobalMaxPool, LeakyRelu, Relu, Softmax, Gelu),
        lambda: Residual(Relu()),
    ],
)
def test_build_rejects_sizes_that_are_no_positive_integers(make, shape):
    with pytest.raises(ShapeError, match=r"cannot take .*: (input_shape|'\w+' object is not)"):
        make().build(shape, backend="numpy")


def test_layer_of_a_model_cannot_be_built_again():
    model = Model((1, 6, 6), backend="numpy").add(Flatten()).add(Dense(3))
    weights = model.layers[1].params["weights"]
    with pytest.raises(ValueError, match="'dense_1' is in a model already"):
        model.layers[1].build((36,), "numpy")
    assert model.layers[1].params["weights"] is weights


@pytest.mark.parametrize("name", [5, b"x", True, ("a",)])
def test_name_must_be_a_string(name):
    with pytest.raises(TypeError, match="name must be a string"):
        Flatten(name=name)


@pytest.mark.parametrize("x", [[1.0], None, 1.5, "x"])
@pytest.mark.parametrize("built", [False, True])
def test_forward_rejects_what_is_no_array(x, built):
    layer = Relu().build((3,), "numpy") if built else Relu()
    with pytest.raises(TypeError, match=r"'Relu' takes a NumPy array \(N, .*, got"):
        layer.forward(x)
    layer.forward(np.ones((1, 3), np.float32))


@every_backend
def test_pool_larger_than_image_is_fused(backend):
    # The trimmed window has no padding, so that it fits the fused kernel, but another pool size.
    model = Model((2, 5, 4), backend=backend)
    model.add(BatchNorm()).add(Relu()).add(MaxPool(9, padding="same")).add(Flatten()).add(Dense(2))
    assert model.layers[2].output_shape == (2, 1, 1)
    model.compile(SGD(0.1))
    images = np.random.default_rng(0).random((20, 2, 5, 4), np.float32)
    assert np.isfinite(model.train_step(images, np.arange(20) % 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv(0, 3), "filters must be at least 1"),
        (lambda: Conv(3, 0), "kernel_size must be at least 1"),
        (lambda: Conv(3, 3, initializer="zero"), "initializer must be one of he, glorot"),
        (lambda: Dense(-1), "units must be at least 1"),
        (lambda: Dropout(10**400), "rate must be at least 0 and below 1"),
        (lambda: Dropout(1), "rate must be at least 0 and below 1"),
        (lambda: BatchNorm(momentum=1), "momentum must be at least 0 and below 1"),
        (lambda: BatchNorm(epsilon=0), "epsilon must be at least"),
        (lambda: MaxPool(0), "pool_size must be at least 1"),
        (lambda: Relu(max_value=0), "max_value must be at least"),
        (lambda: Relu(max_value=1e300), "max_value must be at least 1e-30 and below 1e[+]30"),
    ],
)
def test_layers_reject_invalid_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
