"""Models: training on each backend, prediction, shapes, saving and loading."""

import errno
import json
import os
import re
import stat

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
    GlobalAvgPool,
    Layer,
    LeakyRelu,
    MaxPool,
    Relu,
    ShapeError,
    Softmax,
)
from tests.networks import digits, small_network
from training import Adam, DivergedError, InputError, Model
from training.saving import model_file

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
    [("float64", 20, 1e-6), ("float64", 200, 1e-6), ("float32", 4, 1e-3)],
)
def test_backends_train_to_the_same_losses(dtype, steps, tolerance):
    want = losses(small_network("numpy", dtype), steps)
    assert want[-1] < want[0]
    for backend in ("scipy", "numba"):
        np.testing.assert_allclose(
            losses(small_network(backend, dtype), steps), want, atol=tolerance
        )


@every_backend
def test_fused_layers_change_no_number(backend):
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
def test_predictions_fit_together(backend):
    images, labels = digits(300)
    model = small_network(backend)
    p = model.predict_proba(images)
    assert p.shape == (300, 4)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(model.predict(images), p.argmax(axis=1))
    assert model.evaluate(images, labels) == (p.argmax(axis=1) == labels).mean()
    assert model.predict(images[:0]).shape == (0,)
    # An image's prediction does not depend on the batch that it comes in.
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


def test_a_seed_makes_the_same_model_and_another_seed_another():
    first, again, other = (small_network(seed=seed).parameters.values for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
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


def test_summary_shows_shapes_and_parameters():
    text = str(small_network())
    lines = text.splitlines()
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
    with pytest.raises(ValueError, match=r"puts out \(4, 6, 6\).*Flatten"):
        model.compile(optimizer=Adam())


def test_layers_and_optimizers_belong_to_one_model():
    first, second = small_network(), small_network()
    with pytest.raises(ValueError, match="in a model already"):
        second.add(first.layers[0])
    with pytest.raises(ValueError, match="works on a model already"):
        second.compile(optimizer=first.optimizer)


def test_a_layer_that_does_not_fit_changes_nothing():
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


def test_adding_a_layer_asks_for_a_new_compile():
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


def test_normalization_of_what_cannot_be_normalized():
    model = Model((1, 2, 2), backend="numpy", dtype="float64")
    constant = model.fit_normalization(np.full((50, 1, 2, 2), 0.1))
    assert constant.std == 1
    for bad in (np.zeros((0, 1, 2, 2)), np.full((3, 1, 2, 2), np.nan)):
        with pytest.raises(ValueError, match="finite"):
            model.fit_normalization(bad)


def test_calls_that_cannot_work_are_answered():
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
    with pytest.raises(TypeError, match="float32 or float64"):
        Model((1, 8, 8), dtype="int32")
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        Model((8, 8))


@every_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_model_predicts_the_same(tmp_path, backend, dtype):
    images, labels = digits(300)
    model = small_network(backend, dtype).fit_normalization(images)
    model.train(images, labels, epochs=1, batch_size=64, validation_split=0.2)
    model.save(tmp_path / "deep" / "m.json")
    same = Model.load(tmp_path / "deep" / "m.json", backend=backend)
    np.testing.assert_array_equal(same.predict_proba(images), model.predict_proba(images))
    assert same.dtype == dtype
    assert same.history == model.history
    for other in BACKENDS:
        loaded = Model.load(tmp_path / "deep" / "m.json", backend=other)
        np.testing.assert_allclose(
            loaded.predict_proba(images), model.predict_proba(images), atol=1e-5
        )
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "m.json"]
    wide = Model.load(tmp_path / "deep" / "m.json", backend=backend, dtype="float64")
    assert wide.predict_proba(images).dtype == np.float64


def test_a_loaded_model_trains_on_as_the_first_would(tmp_path):
    images, labels = digits(64)
    model = small_network(dropout=0).fit_normalization(images)
    model.train_step(images, labels)
    model.save(tmp_path / "m.json")
    loaded = Model.load(tmp_path / "m.json", backend="numpy")
    for each in (model, loaded):
        each.compile(optimizer=Adam())
    for _ in range(3):
        assert model.train_step(images, labels) == loaded.train_step(images, labels)


def test_a_failed_save_leaves_the_earlier_model(tmp_path, monkeypatch):
    model = small_network()
    path = tmp_path / "m.json"
    model.save(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    model.parameters.values += 1
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX lets folders be synced")
def test_a_file_and_its_folders_are_synced(tmp_path, monkeypatch):
    done, replace = [], os.replace
    monkeypatch.setattr("os.fsync", lambda handle: done.append(os.fstat(handle).st_ino))
    monkeypatch.setattr("os.replace", lambda *names: (done.append("renamed"), replace(*names)))
    path = tmp_path / "new" / "too" / "m.json"
    small_network().save(path)
    inodes = [each.stat().st_ino for each in (tmp_path, path.parents[1], path, path.parent)]
    assert done == [*inodes[:3], "renamed", inodes[3]]


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="only POSIX lets folders be synced")
@pytest.mark.parametrize("name", ["open", "fsync"])
def test_a_folder_that_cannot_be_synced_keeps_no_model_from_being_saved(
    tmp_path, monkeypatch, name
):
    """As on some network drives, and where a folder may be written to but not read."""
    call = getattr(os, name)

    def refuse(target, *rest, **options):
        is_folder = (
            os.path.isdir(target) if name == "open" else stat.S_ISDIR(os.fstat(target).st_mode)
        )
        if is_folder:
            code = errno.EACCES if name == "open" else errno.EINVAL
            raise OSError(code, os.strerror(code))
        return call(target, *rest, **options)

    monkeypatch.setattr(os, name, refuse)
    path = tmp_path / "new" / "m.json"
    small_network().save(path)
    assert Model.load(path)


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="only POSIX lets folders be synced")
def test_a_folder_that_fails_is_told_after_the_model_is_there(tmp_path, monkeypatch):
    def fail(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("os.fsync", fail)
    path = tmp_path / "m.json"
    with pytest.raises(OSError, match=f"^{re.escape(str(tmp_path))}: cannot be synced: Input"):
        small_network().save(path)
    assert Model.load(path)


def test_a_layer_that_cannot_be_loaded_is_not_saved(tmp_path):
    class Mine(Relu):
        pass

    model = Model((1, 4, 4), backend="numpy").add(Flatten()).add(Mine()).add(Dense(2))
    with pytest.raises(ValueError, match="add Mine to LAYER_TYPES"):
        model.save(tmp_path / "m.json")


@every_backend
def test_a_refused_compile_changes_nothing(backend):
    images, labels = digits(64)
    model, same = (small_network(backend, dropout=0) for _ in range(2))
    with pytest.raises(ValueError, match="make a new one"):
        model.compile(model.optimizer)
    for _ in range(3):
        assert model.train_step(images, labels) == same.train_step(images, labels)


@every_backend
def test_a_batch_that_diverges_changes_nothing(backend):
    images, labels = digits(64)
    model, same = (small_network(backend, dropout=0) for _ in range(2))
    bad = images.astype(np.float32)
    bad[0, 0, 0, 0] = np.nan
    for step in range(3):
        with pytest.raises(DivergedError, match="nan"):
            model.train_step(bad, labels)
        assert model.train_step(images, labels) == same.train_step(images, labels), step
    np.testing.assert_array_equal(model.predict_proba(images), same.predict_proba(images))


@pytest.mark.parametrize(
    ("dtype", "scale"), [("float32", 1e39), ("float32", 1e-60), ("float32", 1e-40), (float, 1e200)]
)
def test_pixels_that_cannot_be_normalised(dtype, scale):
    images = np.random.default_rng(0).random((20, 1, 4, 4)) * scale
    model = Model((1, 4, 4), backend="numpy", dtype=dtype)
    with pytest.raises(ValueError, match=f"pixels from .* for {model.dtype}: scale them"):
        model.fit_normalization(images)
    np.testing.assert_array_equal(model.mean, [0])


def test_weights_too_large_for_the_precision(tmp_path):
    model = Model((1, 2, 2), dtype="float64", backend="numpy").add(Flatten()).add(Dense(2))
    model.layers[1].params["weights"][0] = 1e300
    model.save(tmp_path / "m.json")
    Model.load(tmp_path / "m.json", "numpy")
    with pytest.raises(InputError, match="its weights holds numbers that are not finite in float3"):
        Model.load(tmp_path / "m.json", "numpy", "float32")


def test_a_normalization_that_could_not_be_loaded_is_not_saved(tmp_path):
    model = small_network()
    for std in (0, np.nan, np.inf):
        model.std[:] = std
        with pytest.raises(ValueError, match="normalization"):
            model.save(tmp_path / "m.json")


def test_a_learning_rate_of_numpy_can_be_saved(tmp_path):
    model = small_network()
    model.optimizer.learning_rate = np.float32(0.01)
    model.train(*digits(20), 1, to_path=tmp_path / "m.json")
    assert Model.load(tmp_path / "m.json").history == model.history


def changed(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="other"), "not a model of this program"),
        (lambda d: d.update(version=99), "version 99.*update"),
        (lambda d: d.update(dtype="(,)f4"), "dtype is .*not float32"),
        (lambda d: d.update(history={"loss": [{}]}), "history must hold lists of numbers"),
        (lambda d: d.pop("layers"), "'layers' is missing"),
        (lambda d: d.update(layers=3), "not a valid model"),
        (lambda d: d.update(classes=7), "4 classes apart, not 7"),
        (lambda d: d.update(input_shape=[1, 3, 3]), "conv_2.*cannot take"),
        (lambda d: d["layers"][0].update(type="Evil"), "unknown layer type 'Evil'"),
        (lambda d: d["layers"][0]["config"].update(size=3), "not a valid model"),
        (lambda d: d["layers"][0]["config"].update(filters=5), "has shape .* needs"),
        (lambda d: d["layers"][0]["arrays"].pop("bias"), "its bias is missing"),
        (lambda d: d["layers"][0]["arrays"]["bias"].update(base64="AAAA"), "bytes"),
        (lambda d: d["layers"][0]["arrays"]["bias"].update(base64="?"), "not a valid model"),
        (lambda d: d["layers"][0]["arrays"]["bias"].update(dtype="object"), "has dtype 'object'"),
        (
            lambda d: d["layers"][0]["arrays"]["bias"].update(base64="AAAAAAAA+H8" * 3 + "="),
            "not a valid model",
        ),
        (lambda d: d["normalization"].update(std=[10**400]), "not a valid model"),
        (lambda d: d["normalization"].update(std=[0]), "std must be above 0"),
        (lambda d: d["normalization"].update(mean=[1, 2]), "mean must be 1 finite numbers"),
        (lambda d: d.update(history=[]), "not a valid model"),
    ],
)
def test_a_bad_file_is_answered(tmp_path, change, message):
    path = tmp_path / "m.json"
    small_network().save(path)
    changed(path, change)
    with pytest.raises(InputError, match=message) as error:
        Model.load(path, backend="numpy")
    assert str(path) in str(error.value)


def test_numbers_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path):
    path = tmp_path / "m.json"
    model = small_network()
    model.save(path)
    before = path.read_bytes()
    bad = model_file.encode_array(np.array([np.nan, 0, 0, 0]))
    changed(path, lambda d: d["layers"][0]["arrays"].update(bias=bad))
    with pytest.raises(InputError, match=r"conv_1.* its bias holds .* not finite"):
        Model.load(path, backend="numpy")
    path.write_bytes(before)
    model.layers[0].params["bias"][0] = np.nan
    with pytest.raises(ValueError, match=r"bias of layer 'conv_1' holds .* not finite"):
        model.save(path)
    assert path.read_bytes() == before


def test_a_save_replaces_the_file_by_a_new_one(tmp_path):
    path = tmp_path / "m.json"
    model = small_network()
    model.save(path)
    with open(path, encoding="utf-8") as reader:  # who has the old file open reads it to the end
        model.parameters.values += 1
        model.save(path)
        old = json.load(reader)
    assert old != json.loads(path.read_text())
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
    model.save(tmp_path / ("n" * 250 + ".json"))


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff\xfe", "[" * 100_000])
def test_what_is_no_json_is_answered(tmp_path, text):
    path = tmp_path / "m.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="is not a model"):
        Model.load(path)


def test_a_missing_file_and_a_directory_are_answered(tmp_path):
    with pytest.raises(InputError, match="no such model"):
        Model.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        Model.load(tmp_path)


def test_a_layer_of_ones_own():
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
    model.add(Conv(18, 3, padding="same")).add(Conv(20, 3, padding=1)).add(BatchNorm())
    model.add(MaxPool(2, stride=1)).add(AvgPool(2, stride=1, padding=1)).add(GlobalAvgPool())
    model.add(Dense(9)).add(BatchNorm()).add(LeakyRelu()).add(Dropout(0.3)).add(Dense(5))
    model.add(Softmax()).add(Dense(4, use_bias=False)).add(Softmax())
    assert {type(layer) for layer in model.layers} | {Flatten} == set(LAYER_TYPES.values())
    return model.compile(optimizer=Adam(learning_rate=1e-2))


def test_recorded_steps_are_the_steps():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 2, 12, 12)), rng.integers(0, 4, 64)
    models = one_of_each_layer(), one_of_each_layer(fused=False), one_of_each_layer("numpy")
    for step in range(12):
        size = (16, 5, 33)[step % 3]  # each shape is recorded at first and then made again
        batch = rng.choice(64, size, replace=False)
        losses = [model.train_step(x[batch], y[batch]) for model in models]
        np.testing.assert_allclose(losses, losses[2], rtol=1e-8)
        for part in (slice(None), slice(step, step + 1), slice(step, step + 2)):
            p, *others = (model.predict_proba(x[part]) for model in models)
            for other in others:
                np.testing.assert_allclose(p, other, atol=1e-7)
        if step == 6:  # in place: what is recorded must see it
            for model in models:
                model.layers[0].params["weights"] *= 0.5
                model.mean += 0.25
    recorded = {(key[0], key[1][0]) for key in models[0]._captured}
    assert ("_forward_and_back", 33) in recorded
    assert ("_infer", 64) in recorded
    assert not models[1]._captured


def test_a_layer_of_the_users_own_is_not_recorded():
    class Doubled(Relu):
        def _forward(self, x, training):
            return super()._forward(self.backend.from_array(2 * self.backend.to_array(x)), training)

    model = Model((1, 4, 4), dtype="float64").add(Doubled()).add(Flatten()).add(Dense(2))
    model.compile(optimizer=Adam())
    rng = np.random.default_rng(0)
    for _ in range(3):
        model.train_step(rng.standard_normal((8, 1, 4, 4)), np.arange(8) % 2)
    assert not model._captured


@pytest.mark.parametrize("place", ["inside", "first", "last"])
def test_a_layer_that_leaves_the_backend_sees_every_batch(monkeypatch, place):
    """One that is listed, as the README says, and works with NumPy."""

    class Swish(Layer):
        def _forward(self, x, training):
            x = self.backend.to_array(x)
            return self.backend.from_array(x / (1 + np.exp(-x))), x

        def _backward(self, dy, x):
            share = 1 / (1 + np.exp(-x))
            dy = self.backend.to_array(dy)
            return self.backend.from_array(dy * share * (1 + x * (1 - share)))

    class Halved(Swish):
        """Which returns a plain array, changed in place."""

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


def test_one_image_is_predicted_by_a_recording_too():
    images, labels = digits(40)
    model, reference = small_network("numba"), small_network("numpy")
    for step in range(3):
        for each in (model, reference):
            each.train_step(images, labels)
        for part in (slice(step, step + 1), slice(5, 8), slice(step + 8, step + 9)):
            want = reference.predict_proba(images[part])
            np.testing.assert_allclose(model.predict_proba(images[part]), want, atol=1e-7)
    recorded = {(key[0], key[1][0]) for key in model._captured}
    assert ("_infer", 1) in recorded
