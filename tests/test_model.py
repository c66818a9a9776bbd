"""Models: training steps on each backend, prediction, shapes and captured steps."""

import inspect

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
    Layer,
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
from tests.cases import assert_close
from tests.networks import digits, small_network
from training import SGD, Adam, DivergedError, InputError, Model, network
from training.test_time_augmentation import mean_logits

every_backend = pytest.mark.parametrize("backend", list(BACKENDS))


def losses(model, steps=20, batch_size=17):
    images, labels = digits(steps * batch_size)
    model.fit_normalization(images)
    return [
        model.train_step(images[at : at + batch_size], labels[at : at + batch_size])
        for at in range(0, len(images), batch_size)
    ]


@pytest.mark.parametrize(
    ("dtype", "steps", "tolerance"),
    [("float64", 20, 1e-6), ("float64", 200, 1e-6), ("float32", 20, 1e-5)],
)
def test_backends_train_to_the_same_losses(dtype, steps, tolerance):
    # The gradient of a bias before a BatchNorm is 0 up to rounding, and Adam divides each gradient
    # by its size: with such biases, rounding errors of 1e-8 became steps of 5e-3.
    def train(backend):
        return losses(small_network(backend, dtype, use_bias=False), steps)

    want = train("numpy")
    assert want[-1] < want[0]
    for backend in ("scipy", "numba"):
        np.testing.assert_allclose(train(backend), want, rtol=0, atol=tolerance)


@every_backend
def test_fused_layers_compute_the_same_numbers(backend):
    images, labels = digits(90)
    models = [small_network(backend, fused=fused) for fused in (True, False)]
    for at in range(0, 90, 30):
        first, second = (m.train_step(images[at : at + 30], labels[at : at + 30]) for m in models)
        assert first == pytest.approx(second, rel=1e-12)
    np.testing.assert_allclose(*(m.predict_proba(images) for m in models), rtol=1e-9)
    np.testing.assert_allclose(*(m.parameters.values for m in models), atol=1e-9)


@every_backend
def test_a_model_learns(backend):
    images, labels = digits(2000)
    model = small_network(backend, "float32").fit_normalization(images)
    first = model.evaluate(images, labels)
    history = model.train(images[:1600], labels[:1600], epochs=4, batch_size=32)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert model.evaluate(images[1600:], labels[1600:]) > max(0.95, first)


@every_backend
def test_predictions_are_consistent(backend):
    images, labels = digits(300)
    model = small_network(backend)
    p = model.predict_proba(images)
    assert p.shape == (300, 4)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(model.predict(images), p.argmax(axis=1))
    assert model.evaluate(images, labels) == (p.argmax(axis=1) == labels).mean()
    assert model.predict(images[:0]).shape == (0,)
    # The prediction of an image does not depend on its batch.
    np.testing.assert_allclose(model.predict_proba(images[7:8]), p[7:8], rtol=1e-12)


def test_softmax_at_the_end_is_optional():
    images, labels = digits(64)
    written, implied = (Model((1, 8, 8), backend="numpy", dtype="float64") for _ in range(2))
    written.add(Flatten()).add(Dense(4)).add(Softmax())
    implied.add(Flatten()).add(Dense(4))
    for model in (written, implied):
        model.compile(optimizer=Adam())
    assert written.train_step(images, labels) == implied.train_step(images, labels)
    np.testing.assert_array_equal(written.predict_proba(images), implied.predict_proba(images))


def test_the_seed_determines_the_initial_parameters():
    first, same, other = (small_network(seed=seed).parameters.values for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_float32_and_float64_start_from_the_same_parameters():
    double = small_network(dtype="float64").parameters.values
    np.testing.assert_array_equal(
        small_network(dtype="float32").parameters.values, double.astype(np.float32)
    )


def test_parameters_are_one_vector_and_gradients_another():
    model = small_network()
    model.parameters.values[:] = 0
    assert all(not value.any() for layer in model.layers for value in layer.params.values())
    images, labels = digits(8)
    model.compute_gradients(images, labels)
    weights = [v.size for la in model.layers for v in la.params.values() if v.ndim > 1]
    assert model.parameters.decayed == sum(weights)
    bias = model.layers[-2].grads["bias"]
    np.testing.assert_allclose(bias, 1 / 4 - np.bincount(labels, minlength=4) / 8)
    assert np.shares_memory(bias, model.parameters.grads)


def test_normalization_is_that_of_the_training_images():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1500, 3, 5, 4)).astype(np.uint8)
    images[:, 2] = 7  # a constant channel must not divide by 0
    model = Model((3, 5, 4), backend="numpy", dtype="float64").fit_normalization(images)
    np.testing.assert_allclose(model.mean, images.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(model.std, [*images[:, :2].std(axis=(0, 2, 3)), 1])
    x = model.backend.normalize_images(images, model.mean, model.std, model.dtype)
    np.testing.assert_allclose(x[:, :2].std(axis=(0, 2, 3)), 1)


def test_help_shows_the_parameters_of_training():
    parameters = inspect.signature(Model(input_shape=(1, 8, 8)).train).parameters
    assert list(parameters)[:4] == ["x", "y", "epochs", "batch_size"]
    assert {"validation_split", "augmenter", "schedule", "to_path"} <= set(parameters)
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    assert "validation_split : float" in Model.train.__doc__


def test_repr_is_a_short_summary():
    size = sum(layer.size for layer in small_network().layers)
    assert repr(small_network()) == (f"<Model: (1, 8, 8) -> (4,), 13 layers, {size:,} parameters>")
    assert repr(Model((3, 5, 6))) == "<Model: (3, 5, 6) -> (3, 5, 6), 0 layers, 0 parameters>"


def test_str_is_the_summary():
    assert str(small_network()) == small_network().summary()


def test_summary_shows_shapes_and_parameters():
    lines = small_network().summary().splitlines()
    assert lines[0].split() == ["layer", "output", "shape", "parameters"]
    assert any(line.split() == ["conv_2", "(6,", "2,", "2)", "222"] for line in lines)
    total = sum(v.size for la in small_network().layers for v in la.params.values())
    assert lines[-1].split() == ["total", f"{total:,}"]


def test_shapes_are_checked_when_the_model_is_built():
    model = Model((1, 8, 8), backend="numpy")
    model.add(Conv(4, 3))
    with pytest.raises(ShapeError, match=r"'dense_1' cannot take \(4, 6, 6\).*Flatten"):
        model.add(Dense(10))
    assert len(model.layers) == 1
    with pytest.raises(
        ValueError, match=r"has output shape \(4, 6, 6\), not one score per class.*Flatten"
    ):
        model.compile(optimizer=Adam())


def test_layers_and_optimizers_belong_to_one_model():
    first, second = small_network(), small_network()
    with pytest.raises(ValueError, match="in a model already"):
        second.add(first.layers[0])
    with pytest.raises(ValueError, match="works on a model already"):
        second.compile(optimizer=first.optimizer)


def test_a_rejected_layer_changes_nothing():
    models = [Model((1, 8, 8), backend="numpy") for _ in range(2)]
    layer = Dense(4)
    with pytest.raises(ShapeError):
        models[0].add(layer)
    for model in models:
        model.add(Flatten())
    models[0].add(layer)
    models[1].add(Dense(4))
    first, second = (model.layers[-1] for model in models)
    assert first.name == second.name
    np.testing.assert_array_equal(first.params["weights"], second.params["weights"])


def test_training_needs_compile_after_a_layer_is_added():
    model = Model((1, 8, 8), backend="numpy").add(Flatten()).add(Dense(4))
    model.compile(optimizer=Adam()).add(Dense(4))
    with pytest.raises(RuntimeError, match="compile"):
        model.train_step(*digits(4))


def test_the_first_layer_computes_no_gradient_for_its_input():
    model = small_network()
    model.train_step(*digits(8))
    assert [layer.need_dx for layer in model.layers] == [False] + [True] * 12
    x = model.backend.normalize_images(digits(8)[0], model.mean, model.std, model.dtype)
    y = model.layers[0].forward(x)
    assert model.layers[0].backward(y) is None


def test_normalization_of_constant_images():
    model = Model((1, 2, 2), backend="numpy", dtype="float64")
    assert model.fit_normalization(np.full((50, 1, 2, 2), 0.1)).std == 1


def test_normalization_rejects_images_without_finite_pixels():
    model = Model((1, 2, 2), backend="numpy", dtype="float64")
    with pytest.raises(ValueError, match="normalization needs at least one image"):
        model.fit_normalization(np.zeros((0, 1, 2, 2)))
    with pytest.raises(ValueError, match=r"images\[0, 0, 0, 0\] is nan: pixels must be finite"):
        model.fit_normalization(np.full((3, 1, 2, 2), np.nan))


def test_rejects_wrong_arguments():
    images, labels = digits(8)
    model = small_network()
    with pytest.raises(ValueError, match=r"\(N, 1, 8, 8\), got \(8, 1, 8, 7\)"):
        model.predict(images[..., :7])
    with pytest.raises(ValueError, match="labels must be 0 to 3"):
        model.train_step(images, labels + 1)
    with pytest.raises(ValueError, match=r"labels must have shape \(8,\)"):
        model.train_step(images, labels[:7])
    with pytest.raises(TypeError, match="labels must be integers"):
        model.train_step(images, labels + 0.5)
    with pytest.raises(ValueError, match="at least one image"):
        model.train_step(images[:0], labels[:0])
    with pytest.raises(ValueError, match="there are no images"):
        model.evaluate(images[:0], labels[:0])
    with pytest.raises(TypeError, match="add takes a layer"):
        model.add(Relu)
    with pytest.raises(TypeError, match="optimizer must be"):
        model.compile(optimizer="adam")
    with pytest.raises(RuntimeError, match="compile"):
        Model((1, 8, 8), backend="numpy").add(Flatten()).add(Dense(4)).train_step(images, labels)
    with pytest.raises(TypeError, match="float32, float64 or bfloat16, got 'int32'"):
        Model((1, 8, 8), dtype="int32")
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        Model((8, 8))


@every_backend
def test_a_rejected_compile_changes_nothing(backend):
    images, labels = digits(64)
    model, same = (small_network(backend, dropout=0) for _ in range(2))
    with pytest.raises(ValueError, match="make a new one"):
        model.compile(model.optimizer)
    for _ in range(3):
        assert model.train_step(images, labels) == same.train_step(images, labels)


@every_backend
def test_a_step_with_a_loss_that_is_not_finite_changes_nothing(backend):
    images, labels = digits(64)
    model, same = (small_network(backend, dropout=0) for _ in range(2))
    nan = images.astype(np.float32)
    nan[0, 0, 0, 0] = np.nan
    for step in range(3):
        with pytest.raises(InputError, match="nan"):
            model.train_step(nan, labels)
        model.mean[:] = np.inf
        with pytest.raises(DivergedError, match="nan"):
            model.train_step(images, labels)
        model.mean[:] = 0
        assert model.train_step(images, labels) == same.train_step(images, labels), step
    np.testing.assert_array_equal(model.predict_proba(images), same.predict_proba(images))


@pytest.mark.parametrize(
    ("dtype", "scale"), [("float32", 1e39), ("float32", 1e-60), ("float32", 1e-40), (float, 1e200)]
)
def test_normalization_rejects_pixels_too_large_or_too_close(dtype, scale):
    images = np.random.default_rng(0).random((20, 1, 4, 4)) * scale
    model = Model((1, 4, 4), backend="numpy", dtype=dtype)
    with pytest.raises(ValueError, match=f"pixels from .* for {model.dtype}: scale them"):
        model.fit_normalization(images)
    np.testing.assert_array_equal(model.mean, [0])


def test_trains_a_layer_of_the_users_own():
    class Double(Layer):
        def _forward(self, x, training):
            return x * 2, None

        def _backward(self, dy, saved):
            return dy * 2

    model = Model((1, 4, 4), backend="numpy").add(Double()).add(Flatten()).add(Dense(3))
    model.compile(optimizer=Adam())
    assert model.train_step(np.zeros((2, 1, 4, 4)), np.array([0, 1])) == pytest.approx(np.log(3))


def one_of_each_layer(backend="numba", **options):
    """Return a compiled model that has every layer type, some of them alone and some to fuse."""
    model = Model((2, 12, 12), backend=backend, dtype="float64", **options)
    model.add(Conv(4, 3, padding="same", use_bias=False)).add(BatchNorm()).add(Relu())
    model.add(MaxPool(2)).add(Conv(6, 3, stride=2, padding=1, groups=2)).add(LeakyRelu())
    model.add(Residual(BatchNorm(), Silu(), Conv(6, 1), shortcut=[Conv(6, 1), BatchNorm(), Tanh()]))
    model.add(Relu(max_value=6)).add(Gelu())
    model.add(Conv(18, 3, padding="same")).add(Conv(20, 3, padding=1)).add(BatchNorm())
    model.add(MaxPool(2, stride=1)).add(AvgPool(2, stride=1, padding=1)).add(GlobalAvgPool())
    model.add(Dense(9)).add(BatchNorm()).add(LeakyRelu()).add(Dropout(0.3)).add(Dense(5))
    model.add(Sigmoid()).add(Softmax()).add(Dense(4, use_bias=False)).add(Softmax())
    used = {type(layer) for layer in walk(model.layers)}
    assert used | {Flatten, GlobalMaxPool} == set(LAYER_TYPES.values())
    return model.compile(optimizer=Adam(learning_rate=1e-2))


def test_captured_steps_compute_the_same_numbers():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 2, 12, 12)), rng.integers(0, 4, 64)
    models = one_of_each_layer(), one_of_each_layer(fused=False), one_of_each_layer("numpy")
    for step in range(12):
        size = (16, 5, 33)[step % 3]  # each shape is captured first, and then replayed
        batch = rng.choice(64, size, replace=False)
        losses = [model.train_step(x[batch], y[batch]) for model in models]
        np.testing.assert_allclose(losses, losses[2], rtol=1e-8)
        for part in (slice(None), slice(step, step + 1), slice(step, step + 2)):
            p, *others = (model.predict_proba(x[part]) for model in models)
            for other in others:
                np.testing.assert_allclose(p, other, atol=1e-7)
        if step == 6:  # captured steps must see a change in place
            for model in models:
                model.layers[0].params["weights"] *= 0.5
                model.mean += 0.25


def test_weighted_steps_are_captured_beside_unweighted_ones():
    """Batches of one shape with weights, without, and with others follow each other."""
    images, labels = digits(40)
    captured, called = (
        small_network("numba", "float64", dropout=0, fused=fused) for fused in (True, False)
    )
    rng = np.random.default_rng(0)
    for step in range(9):
        weights = rng.random(40) if step % 3 else None
        losses = [model.train_step(images, labels, None, weights) for model in (captured, called)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9), step
    assert len(captured._captured) == 2
    assert None not in captured._captured.values()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_the_weighted_loss(backend):
    """Compared with differences of the loss, which is the mean of weight * loss."""
    images, labels = digits(12)
    weights = np.linspace(0, 3, 12)
    model = Model((1, 8, 8), backend, "float64").add(Flatten()).add(Dense(4))
    model.compile(optimizer=Adam(), label_smoothing=0.1)
    model.mean[:], model.std[:] = 100, 50
    model.compute_gradients(images, labels, weights)
    values, gradient = model.parameters.values, model.parameters.grads.copy()
    for index in range(0, len(values), 17):
        losses = []
        for delta in (1e-6, -2e-6):
            values[index] += delta
            losses.append(model.compute_gradients(images, labels, weights)[0])
        values[index] += 1e-6
        assert gradient[index] == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-4, abs=1e-8)


def test_class_weights_of_a_step():
    images, labels = digits(40)
    class_weight = np.array([0.5, 2.0, 1.0, 0.0])
    losses = [
        small_network(dropout=0).train_step(images, labels, **options)
        for options in (
            {"class_weight": class_weight},
            {"class_weight": {0: 0.5, 1: 2, 3: 0}},
            {"sample_weight": class_weight[labels]},
            {"class_weight": {3: 0}, "sample_weight": np.array([0.5, 2, 1, 9])[labels]},
        )
    ]
    assert losses == [losses[0]] * 4
    assert losses[0] != small_network(dropout=0).train_step(images, labels)


@pytest.mark.parametrize("fused", [True, False])
def test_only_the_first_step_of_each_shape_calls_the_layers(monkeypatch, fused):
    """The later ones replay its kernel calls, in training and in prediction, unless not fused."""
    images, labels = digits(40)
    model = small_network("numba", "float32", fused=fused)
    calls, apply = [], model.layers[0].apply

    def record(x, *args):
        calls.append(x.shape[0])
        return apply(x, *args)

    monkeypatch.setattr(model.layers[0], "apply", record)
    for _ in range(3):
        for size in (16, 33):
            model.train_step(images[:size], labels[:size])
        for size in (1, 3):
            model.predict(images[:size])
    assert calls == [16, 33, 1, 3] * (1 if fused else 3)


def test_steps_with_a_layer_of_the_users_own_are_not_captured():
    n_calls = 0

    class Doubled(Relu):
        def _forward(self, x, training):
            nonlocal n_calls
            n_calls += 1
            return super()._forward(self.backend.from_array(2 * self.backend.to_array(x)), training)

    model = Model((1, 4, 4), dtype="float64").add(Doubled()).add(Flatten()).add(Dense(2))
    model.compile(optimizer=Adam())
    rng = np.random.default_rng(0)
    for _ in range(3):
        model.train_step(rng.standard_normal((8, 1, 4, 4)), np.arange(8) % 2)
    assert n_calls == 3


@pytest.mark.parametrize("place", ["inside", "first", "last"])
def test_a_layer_that_leaves_the_backend_sees_every_batch(monkeypatch, place):
    """The layer is listed in LAYER_TYPES, and works with NumPy arrays."""

    class Swish(Layer):
        def _forward(self, x, training):
            x = self.backend.to_array(x)
            return self.backend.from_array(x / (1 + np.exp(-x))), x

        def _backward(self, dy, x):
            share = 1 / (1 + np.exp(-x))
            dy = self.backend.to_array(dy)
            return self.backend.from_array(dy * share * (1 + x * (1 - share)))

    class Halved(Swish):
        """Returns a plain array, which it changed in place."""

        def _forward(self, x, training):
            x = self.backend.to_array(x).copy()
            x *= 0.5
            return x, None

        def _backward(self, dy, saved):
            return self.backend.from_array(self.backend.to_array(dy) * 0.5)

    monkeypatch.setitem(LAYER_TYPES, "Swish", Swish)
    monkeypatch.setitem(LAYER_TYPES, "Halved", Halved)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 1, 6, 6)), rng.integers(0, 3, 64)
    models = []
    for backend in ("numba", "numpy"):
        model = Model((1, 6, 6), backend=backend, dtype="float64")
        layers = [Conv(4, 3), BatchNorm(), Relu(), Flatten(), Dense(3)]
        layers.insert(
            {"inside": 3, "first": 0, "last": 5}[place], Halved() if place == "last" else Swish()
        )
        for layer in layers:
            model.add(layer)
        models.append(model.compile(optimizer=Adam(learning_rate=0.05)))
    for size in (16, 16, 16, 1, 1, 33, 33):
        batch = rng.choice(64, size, replace=False)
        losses = [model.train_step(x[batch], y[batch]) for model in models]
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-8)
        p = [model.predict_proba(x[batch]) for model in models]
        np.testing.assert_allclose(p[0], p[1], atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_predictions_from_an_image_and_its_mirror_image(backend):
    model = small_network(backend=backend)
    x, y = digits(30)
    own, mirrored = model.logits(x), model.logits(np.ascontiguousarray(x[..., ::-1]))
    without = model.loss_and_accuracy(x, y)
    assert np.abs(own - mirrored).max() > 1e-3
    model.test_time_augmentation = "flip"
    np.testing.assert_allclose(model.logits(x), (own + mirrored) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        model.predict_proba(x), model.predict_proba(x[..., ::-1]), rtol=1e-5, atol=1e-6
    )
    expected = ((own + mirrored).argmax(axis=1) == y).mean()
    assert model.evaluate(x, y) == expected
    assert model.loss_and_accuracy(x, y) == without  # what epochs are compared by
    assert model.logits(x).dtype == model.dtype
    assert model.logits(x[:0]).shape == (0, 4)


def test_views_of_images_in_a_file_are_made_batch_by_batch(monkeypatch):
    sizes = []

    def record(logits, images, names):
        sizes.append(len(images))
        return mean_logits(logits, images, names)

    monkeypatch.setattr(network, "mean_logits", record)
    model = Model((1, 28, 28), backend="numpy").add(Flatten()).add(Dense(3))
    x = np.random.default_rng(0).integers(0, 256, (600, 1, 28, 28)).astype(np.uint8)
    model.test_time_augmentation = "shift,flip"
    logits = model.logits(x)
    assert sizes == [256, 256, 88]
    np.testing.assert_allclose(logits[250:260], model.logits(x[250:260]), rtol=1e-4, atol=1e-4)


def test_captured_predictions_see_each_training_step():
    images, labels = digits(40)
    model, reference = small_network("numba"), small_network("numpy")
    for step in range(3):
        for each in (model, reference):
            each.train_step(images, labels)
        for part in (slice(step, step + 1), slice(5, 8), slice(step + 8, step + 9)):
            want = reference.predict_proba(images[part])
            np.testing.assert_allclose(model.predict_proba(images[part]), want, atol=1e-7)


def test_rejects_fused_that_is_not_a_bool():
    with pytest.raises(TypeError, match="fused must be True or False, got 'false'"):
        Model((1, 8, 8), backend="numpy", fused="false")


def test_multiply_adds_count_each_weight_once_for_each_output_pixel():
    model = Model((2, 9, 8), backend="numpy")
    block = Residual(Conv(6, 3, padding="same", groups=2), shortcut=[Conv(6, 1)])
    model.add(block).add(MaxPool(2)).add(Flatten()).add(Dense(5))
    assert model.multiply_adds == 72 * 6 * 9 + 72 * 6 * 2 + 6 * 4 * 4 * 5


def test_parameters_are_none_until_the_model_is_compiled():
    model = Model((1, 8, 8), backend="numpy").add(Flatten()).add(Dense(4))
    assert model.parameters is None
    assert len(model.compile(SGD()).parameters.values) == 260
    assert model.add(Softmax()).parameters is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_captured_prediction_sees_changes_of_the_normalization(dtype):
    """In place and by assignment, also of an array in another dtype, which each call converts."""
    images, _ = digits(3)
    models = [small_network(backend) for backend in ("numba", "numpy")]
    for model in models:
        model.mean = np.zeros(1, dtype)
    for shift in range(4):
        for model in models:
            model.mean[:] = 40 * shift
        assert_close(*(model.logits(images) for model in models))
    for model in models:
        model.mean, model.std = np.full(1, 30, dtype), np.full(1, 70, dtype)
    assert_close(*(model.logits(images) for model in models))
    models[0].std = np.ones(2, dtype)
    with pytest.raises(ValueError, match="std"):
        models[0].logits(images)
