"""Mixed precision: rounding to bfloat16, kernels, layers, models, files and the command line."""

import argparse
import doctest
import inspect
import json
import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import run
from kernels import bfloat16, get_backend, mixed_precision, validation
from kernels.bfloat16 import round_to_bfloat16
from kernels.interface import FUNCTIONS, Backend
from kernels.mixed_precision import ROUNDED
from layers import (
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LeakyRelu,
    Relu,
    Residual,
    Softmax,
    precision,
    walk,
)
from tests.cases import MIXED_BACKENDS
from tests.networks import digits, small_network
from tests.test_interface import arguments
from tests.test_layers import IDS, LAYERS, forward
from tests.test_training_state import StopAfter
from training import SGD, Adam, InputError, Model, TrainingState
from training.cli import model_setup
from training.datasets import load_dataset

pytest_plugins = ["tests.command_line_fixtures"]

every_mixed_backend = pytest.mark.parametrize("backend", MIXED_BACKENDS)


def is_bfloat16(x):
    """Return whether all numbers of a float32 array are bfloat16 numbers."""
    assert x.dtype == np.float32
    return not (np.ascontiguousarray(x).view(np.uint32) & 0xFFFF).any()


def relative_error(got, want):
    """Return the length of the error of a vector, relative to the vector."""
    return np.linalg.norm(np.subtract(got, want, dtype=float)) / np.linalg.norm(want)


# -- rounding ----------------------------------------------------------------------------------
def float_of(bits):
    return struct.unpack(">f", struct.pack(">I", bits))[0]


def nearest_bfloat16(bits):
    """Return the bits of the bfloat16 that is nearest to a float32, by exact fractions.

    The format has no number behind its largest one. For rounding, 2**128 stands there.
    """
    sign, size = bits & 0x8000_0000, bits & 0x7FFF_FFFF
    below = size & 0x7FFF_0000
    above = below + 0x1_0000
    if size == below:
        return bits
    exact, low = Fraction(float_of(size)), Fraction(float_of(below))
    high = Fraction(2**128) if math.isinf(float_of(above)) else Fraction(float_of(above))
    if exact - low == high - exact:
        nearest = below if below & 0x1_0000 == 0 else above
    else:
        nearest = below if exact - low < high - exact else above
    return sign | nearest


@given(st.integers(0, 0x7F80_0000), st.booleans())
@example(0x3F80_8000, False)  # a tie below an odd number
@example(0x3F81_8000, True)  # a tie above one
@example(0x3FFF_8000, False)  # a tie whose rounding carries into the exponent
@example(0x7F7F_7FFF, False)  # the last number that does not become infinite
@example(0x7F7F_8000, True)
@example(0x7F7F_FFFF, False)
@example(0x0000_8000, False)  # subnormal numbers
@example(0x0000_8001, True)
@example(0x0000_0000, True)
@example(0x7F80_0000, True)
def test_rounds_to_the_nearest_number_and_ties_to_even(size, is_negative):
    bits = size | (0x8000_0000 if is_negative else 0)
    rounded = round_to_bfloat16(np.array([bits], np.uint32).view(np.float32))
    assert rounded.dtype == np.float32
    assert int(rounded.view(np.uint32)[0]) == nearest_bfloat16(bits)


@pytest.mark.parametrize("bits", [0x7F80_0001, 0x7FC0_0000, 0x7FFF_FFFF, 0xFF80_0001, 0xFFFF_FFFF])
def test_nan_stays_nan(bits):
    rounded = round_to_bfloat16(np.array([bits], np.uint32).view(np.float32))
    assert np.isnan(rounded).all()
    assert is_bfloat16(rounded)
    assert int(rounded.view(np.uint32)[0]) >> 31 == bits >> 31


def test_rounding_keeps_shapes_and_accepts_any_memory_layout():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7
    want = round_to_bfloat16(x)
    assert want.shape == (2, 3, 4)
    assert round_to_bfloat16(np.array(np.float32(1 / 7))).shape == ()
    assert round_to_bfloat16(x[:0]).shape == (0, 3, 4)
    np.testing.assert_array_equal(round_to_bfloat16(x.T), want.T)
    np.testing.assert_array_equal(round_to_bfloat16(x[:, ::2]), want[:, ::2])
    np.testing.assert_array_equal(round_to_bfloat16(x.astype(">f4")), want)
    assert not np.shares_memory(want, x)


@pytest.mark.parametrize("x", [np.ones(2), np.ones(2, int), [1.0], 1.0])
def test_rounds_float32_only(x):
    with pytest.raises(TypeError, match="bfloat16 is rounded from arrays of float32"):
        round_to_bfloat16(x)


# -- kernels -----------------------------------------------------------------------------------
RESULTS = {
    "correlate_grad": ("dx", "dw", "db"),
    "dense_grad": ("dx", "dw", "db"),
    "max_pool": ("y", "index"),
    "batch_norm": ("y", "mean", "variance"),
    "batch_norm_grad": ("dx", "dgamma", "dbeta"),
    "batch_norm_activation": ("y", "mean", "variance"),
    "batch_norm_activation_grad": ("dx", "dgamma", "dbeta"),
    "batch_norm_activation_pool": ("y", "index", "mean", "variance"),
    "batch_norm_activation_pool_grad": ("dx", "dgamma", "dbeta"),
    "dropout": ("y", "mask"),
}
IN_FLOAT32 = {"dw", "db", "dgamma", "dbeta", "mean", "variance"}
ON_ACTIVATIONS = [
    name
    for name in FUNCTIONS
    if {"x", "dy", "cols"} & set(inspect.signature(getattr(Backend, name)).parameters)
    and name not in ("to_array", "from_array")
]
MULTIPLIED = {"x", "dy", "w", "pointwise_w", "cols", "other"}  # and the y of `softmax_grad`


def test_each_function_on_activations_rounds():
    assert {*ON_ACTIVATIONS, "from_array", "normalize_images"} == set(ROUNDED)


@every_mixed_backend
@pytest.mark.parametrize("function", FUNCTIONS)
def test_has_the_functions_of_the_interface(backend, function):
    mixed = get_backend(backend, "bfloat16")
    got = inspect.signature(getattr(mixed, function)).parameters.values()
    want = [*inspect.signature(getattr(Backend, function)).parameters.values()][1:]
    assert [(p.name, p.kind, p.default) for p in got] == [(p.name, p.kind, p.default) for p in want]


def by_name(backend, function, result):
    """Return the results of a function by their names, as arrays."""
    results = result if isinstance(result, tuple) else (result,)
    names = RESULTS.get(function, ("dx" if function.endswith("_grad") else "y",))
    return {
        name: backend.to_array(value) if name in ("y", "dx", "mask") else value
        for name, value in zip(names, results, strict=True)
    }


def call(backend, function, change=lambda name, value: value):
    """Return the results of a function by name, with changed arguments."""
    values = arguments(get_backend("numpy"), function)
    values = {name: change(name, value) for name, value in values.items()}
    result = getattr(backend, function)(**values)
    if function in ("im2col", "col2im"):  # columns are no activations, which `to_array` returns
        return {"y": result}
    return by_name(backend, function, result)


@every_mixed_backend
@pytest.mark.parametrize("function", ON_ACTIVATIONS)
def test_activations_are_rounded_and_sums_are_not(backend, function):
    results = call(get_backend(backend, "bfloat16"), function)
    for name, value in results.items():
        if name in ("y", "dx"):
            assert is_bfloat16(value), name
        elif name in IN_FLOAT32:
            assert value.dtype == np.float32
            assert not is_bfloat16(value), name


def test_the_reference_computes_with_rounded_arguments_in_float32():
    full, mixed = get_backend("numpy"), get_backend("numpy", "bfloat16")
    for function in ON_ACTIVATIONS:

        def change(name, value, function=function):
            is_rounded = name in MULTIPLIED or (function, name) == ("softmax_grad", "y")
            return round_to_bfloat16(value) if is_rounded else value

        want, got = call(full, function, change), call(mixed, function)
        for name in want:
            expected = round_to_bfloat16(want[name]) if name in ("y", "dx") else want[name]
            np.testing.assert_array_equal(got[name], expected, err_msg=f"{function}: {name}")


@every_mixed_backend
@pytest.mark.parametrize("function", ON_ACTIVATIONS)
def test_backends_agree(backend, function):
    want = call(get_backend("numpy", "bfloat16"), function)
    got = call(get_backend(backend, "bfloat16"), function)
    for name in want:
        if name == "mask" or (name == "index" and function != "max_pool"):
            continue  # a backend may have its own
        np.testing.assert_allclose(got[name], want[name], rtol=2**-7, atol=1e-2, err_msg=name)


@every_mixed_backend
def test_biases_are_added_before_rounding(backend):
    """Rounded alone, the bias 1 + 2**-9 would be 1, and so would its sum with the product."""
    mixed = get_backend(backend, "bfloat16")
    x, w = np.full((1, 1), 2.0**-9 * 1.125, np.float32), np.ones((1, 1), np.float32)
    b = np.array([1 + 2**-9], np.float32)
    assert mixed.dense(x, w, b) == 1 + 2**-7
    assert mixed.correlate(x[..., None, None], w[..., None, None], b) == 1 + 2**-7


@every_mixed_backend
def test_the_loss_is_computed_in_float32(backend):
    mixed = get_backend(backend, "bfloat16")
    logits = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
    labels = np.arange(8) % 5
    got = mixed.softmax_cross_entropy(logits, labels, smoothing=0.1)
    want = get_backend("numpy").softmax_cross_entropy(logits, labels, smoothing=0.1)
    assert got[0] == pytest.approx(want[0], rel=1e-6)
    np.testing.assert_allclose(mixed.full.to_array(got[2]), want[2], rtol=1e-4, atol=1e-7)


@every_mixed_backend
def test_widen_and_narrow(backend):
    mixed = get_backend(backend, "bfloat16")
    x = np.linspace(-3, 3, 16 * 5, dtype=np.float32).reshape(16, 5)
    rounded = round_to_bfloat16(x)
    wide = mixed.widen(mixed.from_array(x))
    np.testing.assert_array_equal(mixed.full.to_array(wide), rounded)
    narrow = mixed.narrow(mixed.full.from_array(x))
    np.testing.assert_array_equal(mixed.to_array(narrow), rounded)
    assert mixed.full is get_backend(backend)


@every_mixed_backend
@pytest.mark.parametrize("function", ON_ACTIVATIONS)
def test_float64_is_rejected(backend, function):
    mixed = get_backend(backend, "bfloat16")
    with pytest.raises(TypeError, match="must be float32 in mixed precision, got float64"):
        call(mixed, function, lambda _, v: v.astype(float) if isinstance(v, np.ndarray) else v)


@every_mixed_backend
def test_normalized_images_are_rounded_and_float64_is_rejected(backend):
    mixed = get_backend(backend, "bfloat16")
    images = np.random.default_rng(0).integers(0, 256, (16, 3, 4, 4))
    mean, std = np.array([100, 110, 120], np.float32), np.array([50, 60, 70], np.float32)
    got = mixed.to_array(mixed.normalize_images(images, mean, std, np.float32))
    want = get_backend("numpy").normalize_images(images, mean, std, "float64")
    assert is_bfloat16(got)
    np.testing.assert_allclose(got, want, rtol=2**-8)
    with pytest.raises(TypeError, match="dtype must be float32 in mixed precision, got float64"):
        mixed.normalize_images(images, mean, std, np.float64)


@pytest.mark.parametrize("x", [None, [1.0], np.ones((2, 2), int), np.ma.ones((2, 2), "f4")])
def test_other_wrong_arguments_have_the_messages_of_the_backend(x):
    messages = []
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(TypeError, match=r"^x must be") as caught:
            get_backend("numpy", dtype).activate(x, None)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@every_mixed_backend
def test_get_backend_returns_one_object(backend):
    mixed = get_backend(backend, "bfloat16")
    assert get_backend(backend, dtype="bfloat16") is mixed
    assert get_backend(backend, "float64") is get_backend(backend) is mixed.full
    assert mixed.__name__


@pytest.mark.parametrize("dtype", ["float16", "bf16", None, 16, np.int32])
def test_get_backend_rejects_other_dtypes(dtype):
    with pytest.raises(TypeError, match="dtype must be float32, float64 or bfloat16, got"):
        get_backend("numpy", dtype)


# -- layers ------------------------------------------------------------------------------------
@pytest.mark.parametrize("in_model", [False, True], ids=["plain", "in_model"])
@every_mixed_backend
@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=IDS)
def test_each_layer_alone(backend, make, shape, in_model):
    """On plain arrays, and on the activations that a model passes from layer to layer."""
    rng = np.random.default_rng(0)
    layer = make().build(shape, backend=backend, dtype="bfloat16", rng=1)
    exact = make().build(shape, backend="numpy", dtype="float64", rng=1)
    assert (layer.dtype, layer.compute_dtype) == (np.float32, "bfloat16")
    assert (exact.dtype, exact.compute_dtype) == (np.float64, "float64")
    x, dy = (
        round_to_bfloat16(rng.standard_normal((16, *sizes)).astype(np.float32))
        for sizes in (shape, layer.output_shape)
    )
    for each, same in zip(walk([layer]), walk([exact]), strict=True):
        assert each.compute_dtype == "bfloat16"
        for name, value in same.params.items():
            value += rng.standard_normal(value.shape)
            assert each.params[name].dtype == np.float32
            each.params[name][...] = value
    enter = layer.backend.from_array if in_model else (lambda array: array)
    y = forward(layer, enter(x))
    assert is_bfloat16(y)
    assert relative_error(y, forward(exact, x.astype(float))) < 0.02
    dx = layer.backend.to_array(layer.backward(enter(dy)))
    assert is_bfloat16(dx)
    assert relative_error(dx, exact.backward(dy.astype(float))) < 0.03
    grads = [flat_grads(each) for each in (layer, exact)]
    assert grads[0].dtype == np.float32
    assert not grads[0].size or relative_error(*grads) < 0.03


def flat_grads(layer):
    """Return all gradients of a layer in one vector."""
    grads = [grad.ravel() for each in walk([layer]) for grad in each.grads.values()]
    return np.concatenate(grads or [np.zeros(0, np.float32)])


def test_a_backend_and_a_dtype_must_agree():
    plain, mixed = get_backend("numpy"), get_backend("numpy", "bfloat16")
    assert Relu().build((3,), mixed, "bfloat16").backend is mixed
    with pytest.raises(ValueError, match=r"numpy_backend computes .*name, 'bfloat16'\)"):
        Relu().build((3,), plain, "bfloat16")
    with pytest.raises(ValueError, match=r"mixed precision computes .*name, 'float32'\)"):
        Relu().build((3,), mixed, "float32")


# -- models ------------------------------------------------------------------------------------
def classify(backend, *end, **options):
    """Return a compiled model whose last layers are given."""
    model = Model((1, 8, 8), backend=backend, **options)
    for layer in (Conv(6, 3, padding="same"), BatchNorm(), LeakyRelu(), *end):
        model.add(layer)
    return model.compile(SGD(0.1))


ENDS = {
    "dense": lambda: [Flatten(), Dense(4)],
    "dense, softmax": lambda: [Flatten(), Dense(4), Softmax()],
    "average": lambda: [Conv(4, 3), GlobalAvgPool()],
    "norm": lambda: [Flatten(), Dense(4), BatchNorm()],
    "dense, relu": lambda: [Flatten(), Dense(8), Dense(4), Relu()],
    "dropout": lambda: [Flatten(), Dense(4), Dropout(0.0)],
    "residual": lambda: [GlobalAvgPool(), Residual(Dense(6)), Dense(4), Residual(Dense(4))],
}
every_end = pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)


@every_mixed_backend
@every_end
def test_gradients_of_a_network(backend, end):
    """They are those in float64, up to the rounding of activations."""
    images, labels = digits(64)
    mixed = classify(backend, *end(), dtype="bfloat16").fit_normalization(images)
    exact = classify("numpy", *end(), dtype="float64").fit_normalization(images)
    losses = [model.compute_gradients(images, labels)[0] for model in (mixed, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert mixed.parameters.grads.dtype == np.float32
    error = relative_error(mixed.parameters.grads, exact.parameters.grads)
    assert 1e-5 < error < 0.03  # below, nothing was rounded
    assert relative_error(mixed.parameters.buffers, exact.parameters.buffers) < 0.01
    assert relative_error(mixed.logits(images), exact.logits(images)) < 0.02


@every_mixed_backend
@every_end
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fused_layers_compute_the_same(backend, end, dtype):
    """In mixed precision, numbers between the fused layers are not rounded."""
    images, labels = digits(64)
    limit = 0.03 if dtype == "bfloat16" else 1e-5
    models = [
        classify(backend, *end(), dtype=dtype, fused=fused).fit_normalization(images)
        for fused in (True, False)
    ]
    for _ in range(2):
        losses = [model.train_step(images, labels) for model in models]
        assert losses[0] == pytest.approx(losses[1], rel=limit)
        assert relative_error(*(model.parameters.grads for model in models)) < limit
        assert relative_error(*(model.logits(images) for model in models)) < limit


@every_mixed_backend
@pytest.mark.parametrize("fused", [True, False])
def test_the_last_dense_layer_computes_in_float32(backend, fused):
    """Its input is rounded; its weights, logits and gradients are not."""
    images, labels = digits(64)
    model = Model((1, 8, 8), backend=backend, dtype="bfloat16", fused=fused)
    model.add(Flatten()).add(Dense(4)).add(Softmax()).fit_normalization(images)
    model.compile(SGD(0.1))
    dense = model.layers[1]
    weights = dense.params["weights"]
    assert not is_bfloat16(weights)
    x = (images - np.float64(model.mean)) / np.float64(model.std)
    x = round_to_bfloat16(x.astype(np.float32)).reshape(64, -1).astype(np.float64)
    logits = model.logits(images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, x @ weights, rtol=1e-4, atol=1e-4)
    assert not is_bfloat16(logits)
    probabilities = model.predict_proba(images)
    assert not is_bfloat16(probabilities)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    model.compute_gradients(images, labels)
    d_logits = (probabilities - np.eye(4)[labels]) / 64
    np.testing.assert_allclose(dense.grads["bias"], d_logits.sum(axis=0), atol=1e-5)
    assert relative_error(dense.grads["weights"], x.T @ d_logits) < 1e-4
    # The layer of the model itself is as it was built.
    assert dense.backend is model.backend
    assert dense.compute_dtype == "bfloat16"


@every_mixed_backend
@every_end
def test_logits_are_float32(backend, end):
    images, _ = digits(20)
    model = classify(backend, *end(), dtype="bfloat16").fit_normalization(images)
    ends_with_dense = isinstance([la for la in model.layers if type(la) is not Softmax][-1], Dense)
    assert model.logits(images).dtype == np.float32
    assert is_bfloat16(model.logits(images)) != ends_with_dense


def test_the_first_layer_computes_no_gradient_of_its_input():
    """Also where the first layer is the last one."""
    images, labels = digits(8)
    model = Model((1, 8, 8), backend="numpy", dtype="bfloat16").add(Flatten()).add(Dense(4))
    model.compile(SGD(0.1)).fit_normalization(images)
    model.layers[1].need_dx = False
    (flatten, dense) = model._training_plan
    model.layers[0].need_dx = True
    rows = flatten.forward(model.backend.from_array(np.ones((8, 1, 8, 8), np.float32)))
    dense.forward(rows)
    assert dense.backward(np.ones((8, 4), np.float32)) is None
    model.layers[1].need_dx = True
    dense.forward(rows)
    assert is_bfloat16(dense.backward(np.full((8, 4), 1 / 3, np.float32)))
    model.train_step(images, labels)


def test_backends_train_to_the_same_losses():
    images, labels = digits(200)

    def losses(backend, dtype):
        model = small_network(backend, dtype, dropout=0).fit_normalization(images)
        return [model.train_step(images, labels) for _ in range(4)]

    want = losses("numpy", "bfloat16")
    for backend in MIXED_BACKENDS:
        np.testing.assert_allclose(losses(backend, "bfloat16"), want, rtol=0.02)
    np.testing.assert_allclose(want, losses("numpy", "float64"), rtol=0.05)


@every_mixed_backend
def test_a_model_learns_digits_as_well_as_in_float32(backend):
    train, test = load_dataset("mnist-5k")
    # The scipy backend computes one image after the other.
    n, epochs, at_least = (200, 2, 0.4) if backend == "scipy" else (1000, 3, 0.85)
    accuracy = {}
    for dtype in ("float32", "bfloat16"):
        model = run.tiny((1, 28, 28), 10, backend=backend, dtype=dtype, seed=0)
        model.fit_normalization(train.images[:n]).compile(Adam(0.005))
        model.train(train.images[:n], train.labels[:n], epochs=epochs, batch_size=50)
        accuracy[dtype] = model.evaluate(test.images[:500], test.labels[:500])
    assert accuracy["float32"] > at_least
    assert abs(accuracy["bfloat16"] - accuracy["float32"]) <= 0.03


def test_dtype_of_a_model():
    for dtype, array_dtype in (("bfloat16", "float32"), ("float64", "float64")):
        model = Model((1, 8, 8), backend="numpy", dtype=dtype)
        assert (model.dtype, model.compute_dtype) == (array_dtype, dtype)
        assert model.mean.dtype == array_dtype
    with pytest.raises(AttributeError):
        model.compute_dtype = "float32"


# -- files -------------------------------------------------------------------------------------
@every_mixed_backend
def test_a_saved_model_is_loaded_in_any_precision(tmp_path, backend):
    images, labels = digits(100)
    model = small_network(backend, "bfloat16").fit_normalization(images)
    model.train(images, labels, epochs=1, batch_size=50)
    model.save(tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    assert document["dtype"] == "bfloat16"
    assert document["layers"][0]["arrays"]["weights"]["dtype"] == "float32"
    loaded = Model.load(tmp_path / "m.json", backend)
    assert (loaded.dtype, loaded.compute_dtype) == (np.float32, "bfloat16")
    np.testing.assert_array_equal(loaded.logits(images), model.logits(images))
    for other in MIXED_BACKENDS:
        same = Model.load(tmp_path / "m.json", other)
        assert same.compute_dtype == "bfloat16"
        assert relative_error(same.logits(images), model.logits(images)) < 0.02
    for dtype in ("float32", "float64"):
        wide = Model.load(tmp_path / "m.json", backend, dtype)
        assert (wide.dtype, wide.compute_dtype) == (dtype, dtype)
        np.testing.assert_array_equal(
            wide.layers[0].params["weights"], model.layers[0].params["weights"]
        )
        assert 0 < relative_error(wide.logits(images), model.logits(images)) < 0.03
        wide.save(tmp_path / "wide.json")
        narrow = Model.load(tmp_path / "wide.json", backend, "bfloat16")
        np.testing.assert_array_equal(narrow.logits(images), model.logits(images))


def test_rejects_a_file_of_an_unknown_precision(tmp_path):
    small_network("numpy", "bfloat16").save(tmp_path / "m.json")
    document = json.loads((tmp_path / "m.json").read_text())
    (tmp_path / "m.json").write_text(json.dumps(document | {"dtype": "float16"}))
    with pytest.raises(InputError, match="its dtype is 'float16', not float32, float64 or bfloat1"):
        Model.load(tmp_path / "m.json", "numpy")
    arrays = document["layers"][0]["arrays"]
    arrays["bias"]["dtype"] = "bfloat16"
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="has dtype 'bfloat16', not float32 or float64"):
        Model.load(tmp_path / "m.json", "numpy")


@every_mixed_backend
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(tmp_path, backend):
    images, labels = digits(120)
    path = tmp_path / "run.json"

    def train(model, to_path, state, reporter=None):
        model.compile(Adam(0.01))
        model.train(
            *(images, labels, 3, 30),
            validation_split=0.25,
            to_path=tmp_path / to_path,
            training_state=state,
            reporter=reporter,
        )
        return model

    def new():
        return small_network(backend, "bfloat16").fit_normalization(images)

    whole = train(new(), "whole.json", None)
    with pytest.raises(KeyboardInterrupt):
        train(new(), "b.json", TrainingState(path), StopAfter(1))
    resumed = train(Model.load(path, backend), "b.json", TrainingState.open(path))
    assert resumed.compute_dtype == "bfloat16"
    np.testing.assert_array_equal(resumed.parameters.values, whole.parameters.values)
    assert resumed.history["loss"] == whole.history["loss"]


# -- the command line --------------------------------------------------------------------------
@every_mixed_backend
def test_command_line(cli, csv_files, tmp_path, backend):
    arithmetic = ["--backend", backend, "--dtype", "bfloat16"]
    train_data, test_data = csv_files[:2], csv_files[2:]
    flags = [*train_data, "--arch", "tiny", "--no_plots", "--epochs", 1, "--augment", "none"]
    trained = cli(*flags, *arithmetic, "--to_path", "m.json")
    assert trained.returncode == 0, trained.stderr
    assert f"{backend} backend, bfloat16" in trained.stdout
    assert json.loads((tmp_path / "m.json").read_text())["dtype"] == "bfloat16"
    further = cli(*flags[:2], *flags[4:], *arithmetic[:2], "--from_path", "m.json")
    assert further.returncode == 0, further.stderr
    assert f"{backend} backend, bfloat16" in further.stdout  # that of the file
    tested = cli("--test", *test_data, *arithmetic, "--from_path", "m.json", "--no_plots")
    assert tested.returncode == 0, tested.stderr
    assert "accuracy" in tested.stdout
    predicted = cli("--predict", "train.csv", *arithmetic, "--from_path", "m.json")
    assert predicted.returncode == 0, predicted.stderr
    found = cli("--find_lr", *train_data, *arithmetic, "--arch", "tiny")
    assert found.returncode == 0, found.stderr


def test_the_network_that_chooses_the_augmentation_has_the_precision_of_the_model(monkeypatch):
    def choose(training, validation, build):
        return "none", build((1, 8, 8)).compute_dtype

    monkeypatch.setattr(model_setup, "choose_augmentation", choose)
    args = argparse.Namespace(augment="auto", backend="numpy", build_check_network=run.tiny)
    lines = []
    model_setup.get_augmenter(args, small_network("numpy", "bfloat16"), None, None, lines.append)
    assert lines[-1] == "--augment none: bfloat16"


def test_command_line_resumes_a_run_in_its_precision(cli, csv_files, tmp_path, monkeypatch):
    flags = [*csv_files[:2], "--arch", "tiny", "--no_plots", "--backend", "numpy", "--epochs", 2]
    write = TrainingState.write

    def interrupt(*args, **kwargs):
        write(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "write", interrupt)
        stopped = cli(*flags, "--augment", "none", "--dtype", "bfloat16", "--to_path", "m.json")
    assert stopped.returncode == 130, stopped.stderr
    wrong = cli("--resume", "--to_path", "m.json", "--no_plots", "--dtype", "float32")
    assert wrong.returncode == 2
    assert "--dtype: the run to resume has bfloat16, not float32" in wrong.stderr
    resumed = cli("--resume", "--to_path", "m.json", "--no_plots")
    assert resumed.returncode == 0, resumed.stderr
    assert "numpy backend, bfloat16" in resumed.stdout
    assert "epoch 2/2" in resumed.stdout
    assert "epoch 1/2" not in resumed.stdout
    assert Model.load(tmp_path / "m.json", "numpy").compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    "module", [bfloat16, mixed_precision, precision, validation], ids=lambda m: m.__name__
)
def test_examples_of_the_documentation(module):
    failed, attempted = doctest.testmod(module)
    assert attempted
    assert not failed
