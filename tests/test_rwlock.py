"""One model in several threads: right results, or a refusal."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kernels import BACKENDS
from layers import Flatten, Layer
from tests.networks import digits, small_network
from training import SGD, Model
from training.rwlock import RWLock, exclusive, shared

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


@pytest.mark.parametrize("refused", ["predict", "train_step"])
def test_who_is_refused_breaks_no_one_elses_work(gate, model, other, refused):
    """However the threads change places."""
    arguments = [x] if refused == "predict" else [x, y]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        training = other.submit(model.train, x, y, epochs=20, batch_size=4)
        assert gate.reached.wait(60)
        gate.open.set()
        while not training.done():
            with contextlib.suppress(RuntimeError):
                getattr(model, refused)(*arguments)
        training.result()
    finally:
        sys.setswitchinterval(before)


def test_a_refused_trainer_keeps_no_one_from_reading(gate, model, other):
    predicting = other.submit(model.predict, x)
    assert gate.reached.wait(60)
    tried, stop = [], threading.Event()

    def try_to_train():
        while not stop.is_set():
            with pytest.raises(RuntimeError, match="another thread uses the model"):
                model.train_step(x, y)
            tried.append(1)

    trainer = threading.Thread(target=try_to_train)
    trainer.start()
    for _ in range(20_000):
        shared(lambda _: None)(model)
    stop.set()
    trainer.join()
    gate.open.set()
    predicting.result(60)
    assert tried


def interrupt(function, model, seconds=2.0):
    """Send Ctrl-C again and again while a function of a model is called again and again."""
    end, count = time.monotonic() + seconds, 0

    def raise_it(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        while time.monotonic() < end:
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + 1e-5 * (count % 17))
                while True:
                    function(model)
            except KeyboardInterrupt:
                count += 1
                yield count
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarms")
@pytest.mark.parametrize("turn", [exclusive, shared])
def test_ctrl_c_at_any_moment_leaves_the_model_free(turn):
    class Used:
        turns = RWLock()

    used = Used()
    for count in interrupt(turn(lambda _: None), used):
        assert used.turns.changer is None, count
        assert not used.turns.readers, count
    assert count > 100


HANDLER = """
import signal
from training.rwlock import RWLock, exclusive, shared

class Used:
    turns = Turns()

read, change, calls = shared(lambda _: None), exclusive(lambda _: None), 0

def handle(*_):
    global calls
    change(Used)
    calls += 1

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
while calls < 5000:
    read(Used)
signal.setitimer(signal.ITIMER_REAL, 0)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarms")
def test_the_handler_of_a_signal_may_use_the_model():
    """Where it waited for the thread that it interrupts, that would be for ever."""
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", HANDLER], cwd=root, check=True, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("doing", ["predict", "train"])
def test_a_forked_child_has_no_threads_to_wait_for(gate, model, other, doing):
    begun = other.submit(getattr(model, doing), *([x] if doing == "predict" else [x, y]))
    assert gate.reached.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        gate.open.set()
        answers = set()
        for _ in range(3):  # other threads too, which may have the numbers of those that are gone
            try:
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(model.train_step, x, y).result()
                model.train_step(x, y)
                answers.add("right")
            except RuntimeError as error:
                answers.add(str(error))
        lost = answers == {
            "another thread was changing the model when this process was forked: make it anew"
        }
        right = lost if doing == "train" else answers == {"right"}
        os._exit(0 if right else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    gate.open.set()
    begun.result(60)
    assert status == 0
    model.train_step(x, y)


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
