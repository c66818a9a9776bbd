"""Files of models and runs with damage of every kind: an InputError, or what is whole all the same.

./run.sh pytest tests/test_damaged.py --long    # 20,000 files with changed bytes instead of 300
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
from layers import BatchNorm, Conv, Dense, Dropout, Flatten, GlobalAvgPool, LeakyRelu, MaxPool, Relu
from tests.networks import digits
from training import AdamW, InputError, Model, OneCycle, Reporter, TrainingState
from training.datasets import load_file, load_predict_inputs
from training.input_stats import InputStats
from training.saving import model_file

WRONG = [None, True, -1, 0, 1.5, 1e300, 10**12, 10**30, float("nan"), "", "x", [], {}, [None], [[]]]
MOST_BYTES = 30 << 20


def network():
    model = Model((1, 8, 8), backend="numpy")
    layers = [Conv(2, 3), BatchNorm(), Relu(), MaxPool(2), Conv(3, 2), LeakyRelu()]
    for layer in (*layers, GlobalAvgPool(), Flatten(), Dropout(0.3), Dense(4)):
        model.add(layer)
    return model


class Stop(Reporter):
    """Ctrl-C when the run has been kept twice."""

    kept = 0

    def state_saved(self, step):
        self.kept += 1
        if self.kept == 2:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the paths of a trained model, and of a run that was interrupted within an epoch."""
    folder = tmp_path_factory.mktemp("whole")
    run = TrainingState(folder / "run.json")
    model = network().compile(AdamW())
    settings = {"run_file": run, "to_path": folder / "model.json", "reporter": Stop(quiet=True)}
    with pytest.raises(KeyboardInterrupt):
        model.train(*digits(60), 3, 16, schedule=OneCycle(), save_every=5, **settings)
    return folder / "model.json", run.path


def load(path):
    """Return whether a model loads, which must then be good for something, and with how much."""
    message = None
    tracemalloc.start()
    try:
        model = Model.load(path, backend="numpy")
    except InputError as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_BYTES
    if message is not None:
        assert message.startswith(f"{path}: ")
        assert len(message) < 1000
        return False
    if np.prod(model.input_shape) < 10_000:
        assert len(model.predict(np.zeros((2, *model.input_shape), np.float32))) == 2
        str(model)
    return True


def go_on(path):
    """Return whether a run goes on."""
    try:
        run = TrainingState.open(path)
        model = Model.load(path, backend="numpy").compile(AdamW())
        model.train(*digits(60), 3, 16, schedule=OneCycle(), run_file=run, save_every=5)
    except InputError:
        return False
    return True


def places(document, keep=()):
    """Yield the way to every entry of a document; of long lists and the like to the first two."""
    if isinstance(document, (dict, list)):
        keys = document if isinstance(document, dict) else range(min(2, len(document)))
        for key in keys:
            yield (*keep, key)
            yield from places(document[key], (*keep, key))


def replaced(document):
    """Yield the way to each entry, the wrong value in its place, and the document with that."""
    for way in places(document):
        for value in WRONG:
            changed = copy.deepcopy(document)
            entry = changed
            for key in way[:-1]:
                entry = entry[key]
            if entry[way[-1]] != value:  # true is 1
                entry[way[-1]] = value
                yield way, value, changed


def test_every_entry_of_a_model_replaced(files, tmp_path):
    document = json.loads(files[0].read_text())
    path = tmp_path / "m.json"
    loaded = {}
    for way, value, changed in replaced(document):
        path.write_text(json.dumps(changed))
        if load(path):
            loaded.setdefault(".".join(map(str, way)), []).append(value)
    numbers = {
        "mean",
        "std",
        "pixels",
        "epsilon",
        "momentum",
        "rate",
        "negative_slope",
        "padding",
        "seed",
    }
    for way, values in loaded.items():
        of = set(way.split("."))
        if of & numbers:
            assert all(type(value) in (int, float) for value in values if value is not None), way
        elif "config" in of:
            assert values == [{}], way  # as by default
        else:
            assert of & {"name", "history"}, way


def test_every_entry_of_a_run_replaced(files, tmp_path):
    document = json.loads(files[1].read_text())
    assert document["run"]["underway"]["steps"] > 0
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    assert go_on(path)
    went_on = set()
    for way, _, run in replaced(document["run"]):
        path.write_text(json.dumps(document | {"run": run}))
        if go_on(path):
            went_on.add(way[-1] if isinstance(way[-1], str) else way[-2])
    assert went_on <= {
        *("underway", "epoch", "steps", "correct", "loss", "seconds", "settings", "saved"),
        "waited",
        *("has_uint32", "uinteger", "state", "inc", "score", "best", "random"),
    }


def test_a_model_cut_short(files, tmp_path):
    whole = files[0].read_bytes()
    path = tmp_path / "m.json"
    for length in range(0, len(whole), 100):
        path.write_bytes(whole[:length])
        assert not load(path)


def test_changed_bytes(files, tmp_path, long_mode):
    rng = random.Random(0)
    path = tmp_path / "m.json"
    loads = 0
    whole = files[0].read_bytes()
    turns = 20_000 if long_mode else 300
    for _ in range(turns):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 2, 10])):
            kind, at = rng.randrange(3), rng.randrange(len(data))
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.choice([1, 5, 300])]
            else:
                data[at:at] = data[rng.randrange(len(data)) :][: rng.choice([1, 5, 300])]
        path.write_bytes(data)
        loads += load(path)
    print(f"{turns} files, {loads} of them loaded")
    assert loads < turns


def too_late(*_):
    raise TimeoutError("waits for the pipe")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize(
    "read",
    [
        Model.load,
        TrainingState.open,
        load_file,
        lambda path: load_predict_inputs(path, (1, 8, 8), InputStats()),
        lambda path: load_predict_inputs(
            path.rename(path.with_suffix(".png")), (1, 8, 8), InputStats()
        ),
    ],
)
def test_a_pipe_is_not_waited_for(tmp_path, read):
    path = tmp_path / "m.json"
    os.mkfifo(path)
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(20)
    try:
        assert not model_file.is_model(path)
        with pytest.raises(
            InputError, match=r"m\.\w+: is no file but a pipe or a device: give a file"
        ):
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
def test_nothing_is_made_as_large_as_a_file_claims(files, tmp_path, change):
    document = json.loads(files[0].read_text())
    change(document)
    path = tmp_path / "m.json"
    path.write_text(json.dumps(document))
    assert not load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"format": "cnn-model", "version": 1, "version": 1}',
            "the entry 'version' is there twic",
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
def test_what_is_no_model(tmp_path, text, message):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Model.load(path)


MODELS = Path(__file__).parent / "models"


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_loads_a_version_1_model_without_pixel_range(backend):
    model = Model.load(MODELS / "version-1-without-pixels.json", backend)
    images = (np.arange(3 * 84).reshape(3, 2, 6, 7) * 7 % 256).astype(np.uint8)
    expected = [
        [0.669385, 0.205307, 0.125308],
        [0.659652, 0.209666, 0.130683],
        [0.775174, 0.180344, 0.044482],
    ]
    np.testing.assert_allclose(model.predict_proba(images), expected, atol=2e-6)
    assert model.pixels == (0, 255, 127.5)
    assert len(model.history["loss"]) == 2


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_loads_a_version_1_model(backend):
    """The expected numbers are those of the program that wrote the file."""
    model = Model.load(MODELS / "version-1-model.json", backend)
    expected = [
        [0.225993, 0.138836, 0.178602, 0.456569],
        [0.114634, 0.191971, 0.198773, 0.494622],
        [0.064145, 0.275621, 0.478729, 0.181505],
    ]
    np.testing.assert_allclose(model.predict_proba(digits(48)[0][:3]), expected, atol=2e-6)
    assert (model.seed, model.dtype, model.pixels.high) == (3, np.float32, 255)
    assert model.history["validation_accuracy"] == [0.5, 0.5, 0.75, 0.875]
