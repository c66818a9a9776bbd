"""Model files: saving, loading, earlier versions, and damage of every kind.

./run.sh pytest tests/test_model_file.py --long    # 20,000 files with changed bytes instead of 300
"""

import copy
import json
import os
import random
import signal
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from kernels import BACKENDS
from layers import (
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    LeakyRelu,
    MaxPool,
    Relu,
    Residual,
    Silu,
)
from tests.networks import digits, small_network
from training import Adam, AdamW, InputError, Model, OneCycle, Reporter, TrainingState
from training.datasets import load_images, load_predict_inputs
from training.input_format import InputFormat
from training.input_stats import InputStats
from training.saving import model_file

WRONG_VALUES = [
    None,
    True,
    -1,
    0,
    1.5,
    1e300,
    10**12,
    10**30,
    float("nan"),
    "",
    "x",
    [],
    {},
    [None],
    [[]],
]
MAX_BYTES = 30 << 20

every_backend = pytest.mark.parametrize("backend", list(BACKENDS))


def network():
    model = Model((1, 8, 8), backend="numpy")
    block = Residual(BatchNorm(), Relu(max_value=6), shortcut=[Conv(2, 1), Silu()])
    layers = [Conv(2, 3), block, MaxPool(2), Conv(3, 2), LeakyRelu()]
    for layer in (*layers, GlobalAvgPool(), Flatten(), Dropout(0.3), Dense(4)):
        model.add(layer)
    return model


class Stop(Reporter):
    """Raises KeyboardInterrupt when the state has been saved twice."""

    saves = 0

    def state_saved(self, step):
        self.saves += 1
        if self.saves == 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the paths of a trained model, and of a run that was interrupted within an epoch."""
    folder = tmp_path_factory.mktemp("undamaged")
    run = TrainingState(folder / "run.json")
    model = network().compile(AdamW())
    model.class_names = ("cat", "dog", "bird", "fish")
    settings = {
        "training_state": run,
        "to_path": folder / "model.json",
        "reporter": Stop(quiet=True),
    }
    with pytest.raises(KeyboardInterrupt):
        model.train(*digits(60), 3, 16, schedule=OneCycle(), save_every=5, **settings)
    return folder / "model.json", run.path


def loads(path):
    """Return whether a model loads; it must then work, and not take much memory."""
    message = None
    tracemalloc.start()
    try:
        model = Model.load(path, backend="numpy")
    except InputError as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MAX_BYTES
    if message is not None:
        assert message.startswith(f"{path}: ")
        assert len(message) < 1000
        return False
    if np.prod(model.input_shape) < 10_000:
        assert len(model.predict(np.zeros((2, *model.input_shape), np.float32))) == 2
        str(model)
    return True


def resumes(path):
    """Return whether a run can be resumed."""
    try:
        run = TrainingState.open(path)
        model = Model.load(path, backend="numpy").compile(AdamW())
        model.train(*digits(60), 3, 16, schedule=OneCycle(), training_state=run, save_every=5)
    except InputError:
        return False
    return True


def entry_paths(document, prefix=()):
    """Yield the keys that lead to each entry of a document; of a list, only the first two."""
    if isinstance(document, (dict, list)):
        keys = document if isinstance(document, dict) else range(min(2, len(document)))
        for key in keys:
            yield (*prefix, key)
            yield from entry_paths(document[key], (*prefix, key))


def wrong_documents(document):
    """Yield the keys of each entry, a wrong value, and a copy of the document with that value."""
    for keys in entry_paths(document):
        for value in WRONG_VALUES:
            wrong = copy.deepcopy(document)
            entry = wrong
            for key in keys[:-1]:
                entry = entry[key]
            if entry[keys[-1]] != value:  # true is 1
                entry[keys[-1]] = value
                yield keys, value, wrong


def test_rejects_a_wrong_value_in_any_entry_of_a_model(files, tmp_path):
    document = json.loads(files[0].read_text())
    path = tmp_path / "m.json"
    loaded = {}
    for keys, value, wrong in wrong_documents(document):
        path.write_text(json.dumps(wrong))
        if loads(path):
            loaded.setdefault(".".join(map(str, keys)), []).append(value)
    numbers = {
        "mean",
        "std",
        "pixels",
        "epsilon",
        "momentum",
        "rate",
        "max_value",
        "padding",
        "seed",
    }
    for path_of_keys, values in loaded.items():
        keys = set(path_of_keys.split("."))
        if keys & numbers:
            assert all(type(value) in (int, float) for value in values if value is not None), keys
        elif "class_names" in keys:
            assert values == ["x"], keys
        elif path_of_keys.endswith("shortcut"):
            assert values == [[]]  # the identity
        elif path_of_keys.endswith("test_time_augmentation"):
            assert set(values) <= {"none", "flip"}
        elif path_of_keys.endswith("label_smoothing"):
            assert all(type(value) in (int, float) for value in values)
        elif "config" in keys:
            assert values == [{}], keys  # the defaults
        else:
            assert keys & {"name", "history"}, keys


def test_rejects_a_wrong_value_in_any_entry_of_a_run(files, tmp_path):
    document = json.loads(files[1].read_text())
    assert document["run"]["underway"]["steps"] > 0
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    assert resumes(path)
    accepted = set()
    for keys, _, run in wrong_documents(document["run"]):
        path.write_text(json.dumps(document | {"run": run}))
        if resumes(path):
            accepted.add(keys[-1] if isinstance(keys[-1], str) else keys[-2])
    assert accepted <= {
        *("underway", "epoch", "steps", "correct", "loss", "seconds", "settings", "saved"),
        "waited",
        *("has_uint32", "uinteger", "state", "inc", "score", "best", "random"),
    }


def test_rejects_a_truncated_file(files, tmp_path):
    complete = files[0].read_bytes()
    path = tmp_path / "m.json"
    for length in range(0, len(complete), 100):
        path.write_bytes(complete[:length])
        assert not loads(path)


def test_loads_or_rejects_files_with_changed_bytes(files, tmp_path, long_mode):
    rng = random.Random(0)
    path = tmp_path / "m.json"
    n_loaded = 0
    undamaged = files[0].read_bytes()
    n_files = 20_000 if long_mode else 300
    for _ in range(n_files):
        data = bytearray(undamaged)
        for _ in range(rng.choice([1, 2, 10])):
            change, offset = rng.randrange(3), rng.randrange(len(data))
            if change == 0:
                data[offset] = rng.randrange(256)
            elif change == 1:
                del data[offset : offset + rng.choice([1, 5, 300])]
            else:
                inserted = data[rng.randrange(len(data)) :][: rng.choice([1, 5, 300])]
                data[offset:offset] = inserted
        path.write_bytes(data)
        n_loaded += loads(path)
    print(f"{n_files} files, {n_loaded} of them loaded")
    assert n_loaded < n_files


FORMAT_8X8 = InputFormat((1, 8, 8), ("0", "1"))


def raise_timeout(*_):
    raise TimeoutError("waits for the pipe")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize(
    "read",
    [
        Model.load,
        TrainingState.open,
        load_images,
        lambda path: load_predict_inputs(path, FORMAT_8X8, InputStats()),
        lambda path: load_predict_inputs(
            path.rename(path.with_suffix(".png")), FORMAT_8X8, InputStats()
        ),
    ],
)
def test_rejects_a_pipe_without_waiting_for_it(tmp_path, read):
    path = tmp_path / "m.json"
    os.mkfifo(path)
    signal.signal(signal.SIGALRM, raise_timeout)
    signal.alarm(20)
    try:
        assert not model_file.is_model(path)
        with pytest.raises(InputError, match=r"m\.\w+: is a pipe or a device: give a file"):
            read(path)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


BIG = 10**6


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["layers"][0]["config"].update(filters=10**9),
        lambda d: d["layers"][0]["config"].update(kernel_size=[BIG, BIG], padding=[BIG, BIG]),
        lambda d: d["layers"][-1]["config"].update(units=10**9),
        lambda d: d.update(input_shape=[10**9, 8, 8]),
        lambda d: d.update(input_shape=[1, BIG, BIG], layers=d["layers"][-3:]),
        lambda d: d["layers"][0]["arrays"]["weights"].update(shape=[BIG, BIG]),
        lambda d: d["layers"].insert(0, {"type": "Dense", "config": {"units": BIG}}),
        lambda d: d["layers"].insert(1, copy.deepcopy(d["layers"][0])),
    ],
)
def test_allocates_no_array_as_large_as_a_damaged_file_claims(files, tmp_path, change):
    document = json.loads(files[0].read_text())
    change(document)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    assert not loads(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"format": "cnn-model", "version": 1, "version": 1}',
            "the entry 'version' occurs twice",
        ),
        ('{"a": ' * 100_000, "is not a model in JSON"),
        ("[" * 100_000 + "]" * 100_000, "is not a model"),
        ('{"format": "cnn-model", "version": ' + "9" * 10_000 + "}", "is not a model in JSON"),
        ('{"format": "cnn-model", "version": 0}', "version 0; this program reads version 1"),
        ('{"format": "cnn-model", "version": true}', "version True"),
        ('{"format": "cnn-model", "version": "1"}', "version '1'"),
        ('{"format": "cnn-model"}', "version None"),
        ("\0" * 1000, "is not a model in JSON"),
        ("label,1,2\n3,4,5\n", "is not a model in JSON"),
    ],
)
def test_rejects_files_of_another_format(tmp_path, text, message):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Model.load(path)


MODELS = Path(__file__).parent / "models"


@every_backend
def test_loads_a_version_1_model_without_pixel_range(backend):
    model = Model.load(MODELS / "version-1-without-pixels.json", backend)
    images = (np.arange(3 * 84).reshape(3, 2, 6, 7) * 7 % 256).astype(np.uint8)
    expected = [
        [0.669385, 0.205307, 0.125308],
        [0.659652, 0.209666, 0.130683],
        [0.775174, 0.180344, 0.044482],
    ]
    np.testing.assert_allclose(model.predict_proba(images), expected, atol=2e-6)
    assert model.input_stats == InputStats()
    assert model.ink_stats is None
    assert len(model.history["loss"]) == 2


@every_backend
def test_loads_a_version_1_model(backend):
    """The expected numbers are those of the program that wrote the file."""
    model = Model.load(MODELS / "version-1-model.json", backend)
    expected = [
        [0.225993, 0.138836, 0.178602, 0.456569],
        [0.114634, 0.191971, 0.198773, 0.494622],
        [0.064145, 0.275621, 0.478729, 0.181505],
    ]
    np.testing.assert_allclose(model.predict_proba(digits(48)[0][:3]), expected, atol=2e-6)
    assert (model.seed, model.dtype, model.input_stats.high) == (3, np.float32, 255)
    assert model.history["validation_accuracy"] == [0.5, 0.5, 0.75, 0.875]


@every_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_model_predicts_the_same(tmp_path, backend, dtype):
    images, labels = digits(300)
    model = small_network(backend, dtype).fit_normalization(images)
    model.train(images, labels, epochs=1, batch_size=64, validation_split=0.2)
    model.save(tmp_path / "deep" / "m.json")
    loaded = Model.load(tmp_path / "deep" / "m.json", backend=backend)
    np.testing.assert_array_equal(loaded.predict_proba(images), model.predict_proba(images))
    assert loaded.dtype == dtype
    assert loaded.history == model.history
    for other in BACKENDS:
        loaded = Model.load(tmp_path / "deep" / "m.json", backend=other)
        np.testing.assert_allclose(
            loaded.predict_proba(images), model.predict_proba(images), atol=1e-5
        )
    assert list((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "m.json"]
    double = Model.load(tmp_path / "deep" / "m.json", backend=backend, dtype="float64")
    assert double.predict_proba(images).dtype == np.float64


def test_a_loaded_model_trains_as_the_saved_one(tmp_path):
    images, labels = digits(64)
    model = small_network(dropout=0).fit_normalization(images)
    model.train_step(images, labels)
    model.save(tmp_path / "m.json")
    loaded = Model.load(tmp_path / "m.json", backend="numpy")
    for each_model in (model, loaded):
        each_model.compile(optimizer=Adam())
    for _ in range(3):
        assert model.train_step(images, labels) == loaded.train_step(images, labels)


def test_a_layer_that_cannot_be_loaded_is_not_saved(tmp_path):
    class UserLayer(Relu):
        pass

    model = Model((1, 4, 4), backend="numpy").add(Flatten()).add(UserLayer()).add(Dense(2))
    with pytest.raises(ValueError, match="add UserLayer to LAYER_TYPES"):
        model.save(tmp_path / "m.json")


def test_rejects_weights_too_large_for_the_dtype(tmp_path):
    model = Model((1, 2, 2), dtype="float64", backend="numpy").add(Flatten()).add(Dense(2))
    model.layers[1].params["weights"][0] = 1e300
    model.save(tmp_path / "m.json")
    Model.load(tmp_path / "m.json", "numpy")
    with pytest.raises(InputError, match="its weights holds numbers that are not finite in float3"):
        Model.load(tmp_path / "m.json", "numpy", "float32")


def test_rejects_saving_a_normalization_that_is_not_valid(tmp_path):
    model = small_network()
    for std in (0, np.nan, np.inf):
        model.std[:] = std
        with pytest.raises(ValueError, match="normalization"):
            model.save(tmp_path / "m.json")


def test_saves_a_learning_rate_of_a_numpy_type(tmp_path):
    model = small_network()
    model.optimizer.learning_rate = np.float32(0.01)
    model.train(*digits(20), 1, to_path=tmp_path / "m.json")
    assert Model.load(tmp_path / "m.json").history == model.history


def test_a_model_of_plain_layers_is_saved_as_in_earlier_versions(tmp_path):
    path = tmp_path / "m.json"
    small_network().add(Relu()).save(path)
    entries = json.loads(path.read_text())["layers"]
    assert all(list(entry) == ["type", "name", "config", "arrays"] for entry in entries)
    assert entries[-1] == {"type": "Relu", "name": "relu_1", "config": {}, "arrays": {}}


@pytest.mark.parametrize("depth", [100, 350, 1000])
def test_blocks_within_blocks_load_or_are_rejected(tmp_path, depth):
    path = tmp_path / "m.json"
    model = Model((1, 2, 2), backend="numpy").add(Residual(Relu())).add(Flatten()).add(Dense(2))
    model.save(path)
    text = path.read_text()
    document = json.loads(text)
    inner = json.dumps(document["layers"][0])
    relu = json.dumps(document["layers"][0]["body"][0])
    outer, end = inner.split(relu)
    path.write_text(json.dumps(document).replace(inner, outer * depth + relu + end * depth))
    if depth == 100:
        images = np.ones((1, 1, 2, 2), np.float32)
        assert np.isfinite(Model.load(path, "numpy").logits(images)).all()
    else:
        with pytest.raises(InputError, match="recursion"):
            Model.load(path, "numpy")


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
        (lambda d: d.update(classes=7), "its last layer has 4 classes, not 7"),
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
        (lambda d: d.update(averages_mirrored=1), "averages_mirrored must be"),
        (lambda d: d.update(test_time_augmentation="flip,shift"), "augmentation must be one of"),
        (lambda d: d.update(test_time_augmentation=["none"]), "augmentation must be one of"),
        (lambda d: d.update(label_smoothing=1), "smoothing must be"),
        (lambda d: d.update(class_names="abcd"), "class_names must be a sequence of names"),
        (lambda d: d.update(class_names=None), "class_names must be a sequence of names"),
        (lambda d: d.update(class_names={"a": 1}), "class_names must be a sequence of names"),
        (lambda d: d.update(class_names=["a", "b", "c"]), "class_names has 3 names for 4 classes"),
        (lambda d: d.update(class_names=["a", "b", "c", "a"]), "class_names has 'a' twice"),
        (lambda d: d.update(class_names=[0, 1, 2, 3]), "class_names must be printable text, got 0"),
        (lambda d: d.update(class_names=["a", "b", "c", ""]), "must be printable text, got ''"),
        (lambda d: d.update(class_names=["a", "b", "c", "\n"]), r"printable text, got '\\n'"),
        (lambda d: d.update(class_names=["a", "b", "c", "\x1b[2J"]), "printable text"),
        (lambda d: d.update(class_names=["a", "b", "c", "\udc80"]), "printable text"),
        (lambda d: d.update(class_names=["a", "b", "c", "\u202e"]), "printable text"),
        (lambda d: d.update(class_names=["x" * 10**5] * 4), "class_names has 'x.*' twice"),
        (lambda d: d.update(class_names=["\n" * 10**5] * 4), "printable text"),
        (lambda d: d.update(class_names="x" * 10**5), "sequence of names"),
        (lambda d: d.update(resize="shrink"), "resize must be one of pad, crop, stretch"),
        (lambda d: d.update(resize=["pad"]), "resize must be one of pad, crop, stretch"),
    ],
)
def test_names_the_entry_that_is_wrong(tmp_path, change, message):
    check_is_named(tmp_path / "m.json", small_network(), change, message)


def check_is_named(path, model, change, message):
    """Check that the error about a changed model file names the file and what is wrong."""
    model.save(path)
    changed(path, change)
    with pytest.raises(InputError, match=message) as error:
        Model.load(path, backend="numpy")
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def ink_network():
    """Return a model whose training images are strokes on a plain ground, uint8."""
    images = np.zeros((20, 1, 8, 8), np.uint8)
    images[:, 0, 1:7, 3] = 250
    images[::2, 0, 6, 1:6] = 200
    return small_network().fit_normalization(images)


def test_statistics_of_the_training_images_are_saved(tmp_path):
    for model in (ink_network(), small_network().fit_normalization(digits(20)[0]), small_network()):
        model.save(tmp_path / "m.json")
        loaded = Model.load(tmp_path / "m.json", "numpy")
        assert loaded.input_stats == model.input_stats
        assert loaded.ink_stats == model.ink_stats
        assert loaded.input_format == model.input_format
        loaded.save(tmp_path / "again.json")
        assert (tmp_path / "again.json").read_bytes() == (tmp_path / "m.json").read_bytes()
    assert ink_network().input_format.ink.ink == 250


def test_loads_a_model_without_statistics_of_the_training_images(tmp_path):
    path = tmp_path / "m.json"
    model = ink_network()
    model.save(path)
    changed(path, lambda d: d.pop("training_images"))
    loaded = Model.load(path, "numpy")
    assert loaded.input_stats == InputStats(*model.input_stats[:3])
    assert loaded.ink_stats is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(training_images=[1]), "training_images must be an object"),
        (lambda d: d["training_images"].pop("mean"), "the entry 'mean' is missing"),
        (lambda d: d["training_images"].pop("ink"), "the entry 'ink' is missing"),
        (lambda d: d["training_images"].update(mean="1"), "training_images mean must be a number"),
        (lambda d: d["training_images"].update(deviation=1e400), "deviation must be finite"),
        (lambda d: d["training_images"].update(image_min=3), "image_min must be 3 numbers, got 3"),
        (lambda d: d["training_images"].update(image_min=[1, 2]), "image_min must be 3 numbers"),
        (lambda d: d["training_images"].update(image_max=[1, 3, 2]), "image_max must be three num"),
        (lambda d: d["training_images"].update(ink=True), "ink of training_images must be an obj"),
        (lambda d: d["training_images"]["ink"].pop("side"), "the entry 'side' is missing"),
        (lambda d: d["training_images"]["ink"].update(ink=None), "images ink must be a number"),
        (lambda d: d["training_images"]["ink"].update(ink=0), "ink .* must differ from its backg"),
        (lambda d: d["training_images"]["ink"].update(row=[0, 0, None]), "row must be a number"),
    ],
)
def test_names_the_statistic_that_is_wrong(tmp_path, change, message):
    check_is_named(tmp_path / "m.json", ink_network(), change, message)


NAMES = ("cat", 'a "dog", or two', "\u732b", " \\ ")


def test_names_of_classes_are_saved(tmp_path):
    model = small_network()
    model.class_names, model.resize = NAMES, "crop"
    for path in (tmp_path / "m.json", tmp_path / "again.json"):
        model.save(path)
        model = Model.load(path, backend="numpy")
        assert (model.class_names, model.resize) == (NAMES, "crop")


def test_models_of_earlier_versions_have_numbers_for_names(tmp_path):
    path = tmp_path / "m.json"
    model = small_network()
    model.class_names = NAMES
    model.save(path)
    changed(path, lambda d: (d.pop("class_names"), d.pop("resize")))
    for old in (path, MODELS / "version-1-model.json"):
        loaded = Model.load(old, backend="numpy")
        assert (loaded.class_names, loaded.resize) == (("0", "1", "2", "3"), "pad")


@pytest.mark.parametrize(
    "names", ["abcd", ["a"], ["a", "a", "b", "c"], [0, 1, 2, 3], ["a", "b", "c", "\t"]]
)
def test_rejects_names_that_could_not_be_shown(names):
    model = small_network()
    with pytest.raises((TypeError, ValueError), match="class_names"):
        model.class_names = names
    assert model.class_names == ("0", "1", "2", "3")


def test_rejects_numbers_that_are_not_finite(tmp_path):
    path = tmp_path / "m.json"
    model = small_network()
    model.save(path)
    before = path.read_bytes()
    nan = model_file.encode_array(np.array([np.nan, 0, 0, 0]))
    changed(path, lambda d: d["layers"][0]["arrays"].update(bias=nan))
    with pytest.raises(InputError, match=r"conv_1.* its bias holds .* not finite"):
        Model.load(path, backend="numpy")
    path.write_bytes(before)
    model.layers[0].params["bias"][0] = np.nan
    with pytest.raises(ValueError, match=r"bias of layer 'conv_1' holds .* not finite"):
        model.save(path)
    assert path.read_bytes() == before


def test_saving_replaces_the_file_by_a_new_one(tmp_path):
    path = tmp_path / "m.json"
    model = small_network()
    model.save(path)
    with open(path, encoding="utf-8") as reader:  # an open reader still reads the old file
        model.parameters.values += 1
        model.save(path)
        old = json.load(reader)
    assert old != json.loads(path.read_text())
    new_file = tmp_path / "new"
    new_file.touch()
    assert path.stat().st_mode == new_file.stat().st_mode
    model.save(tmp_path / ("n" * 250 + ".json"))


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff\xfe", "[" * 100_000])
def test_rejects_files_that_are_not_a_json_object(tmp_path, text):
    path = tmp_path / "m.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="is not a model"):
        Model.load(path)


def test_rejects_a_missing_file_and_a_directory(tmp_path):
    with pytest.raises(InputError, match="no such model"):
        Model.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        Model.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "torch"}, ValueError, "^backend must be one of .*, got 'torch'"),
        ({"dtype": "int8"}, TypeError, "^dtype must be float32, float64 or bfloat16, got 'int8'"),
        ({"dtype": np.dtype("float16")}, TypeError, "^dtype must be float32, float64 or bf"),
    ],
)
def test_wrong_arguments_of_load_are_not_blamed_on_the_file(tmp_path, options, error, message):
    small_network().save(tmp_path / "m.json")
    with pytest.raises(error, match=message):
        Model.load(tmp_path / "m.json", **{"backend": "numpy"} | options)


def test_loads_with_a_dtype_object(tmp_path):
    small_network(dtype="float32").save(tmp_path / "m.json")
    assert Model.load(tmp_path / "m.json", "numpy", np.dtype("float64")).dtype == np.float64
