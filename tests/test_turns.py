"""One model in several threads: right results, or a refusal."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kernels import BACKENDS
from layers import Flatten, Layer
from tests.networks import digits, small_network
from training import SGD, Model

x, y = digits(64)


class Gate(Layer):
    """Hands on what it gets, and lets a test choose for how long."""

    def __init__(self):
        super().__init__()
        self.reached, self.open = threading.Event(), threading.Event()

    def _build(self, input_shape):
        return input_shape

    def _forward(self, x, training):
        self.reached.set()
        assert self.open.wait(60)
        return x, None

    def _backward(self, dy, _):
        return dy


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def model(gate):
    model = Model((1, 8, 8), backend="numpy").add(gate).add(Flatten())
    return model.compile(SGD(0.1))


@pytest.fixture
def other(gate):
    with ThreadPoolExecutor(1) as pool:
        yield pool
        gate.open.set()  # a test that failed leaves no thread waiting


@pytest.mark.parametrize("training", ["train", "train_step", "compute_gradients"])
@pytest.mark.parametrize(
    ("meanwhile", "arguments"),
    [
        ("predict", [x]),
        ("predict_proba", [x]),
        ("evaluate", [x, y]),
        ("save", ["m.json"]),
        ("train", [x, y]),
        ("train_step", [x, y]),
        ("compute_gradients", [x, y]),
        ("fit_normalization", [x]),
        ("compile", [SGD(0.1)]),
        ("add", [Flatten()]),
    ],
)
def test_nothing_else_while_a_thread_trains(
    tmp_path, monkeypatch, gate, model, other, training, meanwhile, arguments
):
    monkeypatch.chdir(tmp_path)
    training = other.submit(getattr(model, training), x, y)
    assert gate.reached.wait(60)
    with pytest.raises(RuntimeError, match="another thread changes the model"):
        getattr(model, meanwhile)(*arguments)
    gate.open.set()
    training.result(60)
    assert len(model.predict(x)) == len(x)  # the model is free again
    model.train_step(x, y)


def test_nothing_changes_while_a_thread_predicts(gate, model, other):
    predicting = other.submit(model.predict, x)
    assert gate.reached.wait(60)
    with pytest.raises(RuntimeError, match="another thread uses the model"):
        model.train_step(x, y)
    gate.open.set()
    predicting.result(60)
    model.train_step(x, y)


def test_a_refused_thread_stands_in_no_ones_way(gate, model, other):
    training = other.submit(model.train_step, x, y)
    assert gate.reached.wait(60)
    for _ in range(2):
        for call in (model.train_step, model.evaluate):
            with pytest.raises(RuntimeError):
                call(x, y)
    gate.open.set()
    training.result(60)
    other.submit(model.train_step, x, y).result(60)
    other.submit(model.evaluate, x, y).result(60)


def test_an_error_leaves_the_model_free(gate, model, other):
    gate.open.set()
    for call in (model.train_step, model.evaluate):
        with pytest.raises(ValueError, match="labels"):
            call(x, y + 100)
    other.submit(model.train_step, x, y).result(60)
    other.submit(model.evaluate, x, y).result(60)


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_threads_predict_at_once(backend):
    model = small_network(backend, "float32")
    batches = [x[:n] for n in (1, 7, 64, 33)] * 10
    want = [model.logits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for mine, theirs in zip(want, pool.map(model.logits, batches), strict=True):
            np.testing.assert_array_equal(theirs, mine)


def test_threads_that_train_one_model_are_refused_or_take_turns():
    """Each step that was made counts, and none is made half."""
    model, alone = (small_network("numba", "float32", dropout=0) for _ in range(2))

    def step(_):
        try:
            model.train_step(x, y)
        except RuntimeError:
            return 0
        return 1

    with ThreadPoolExecutor(3) as pool:
        made = sum(pool.map(step, range(100)))
    assert made
    for _ in range(made):
        alone.train_step(x, y)
    np.testing.assert_array_equal(model.parameters.values, alone.parameters.values)
