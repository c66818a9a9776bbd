"""One model in several threads: right results, or a RuntimeError."""

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
    """An identity layer that waits in `forward` until a test opens it."""

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
def other_thread(gate):
    with ThreadPoolExecutor(1) as pool:
        yield pool
        gate.open.set()  # a test that failed must not leave a thread waiting


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
def test_rejects_every_call_while_another_thread_trains(
    tmp_path, monkeypatch, gate, model, other_thread, training, meanwhile, arguments
):
    monkeypatch.chdir(tmp_path)
    training = other_thread.submit(getattr(model, training), x, y)
    assert gate.reached.wait(60)
    with pytest.raises(RuntimeError, match="another thread changes the model"):
        getattr(model, meanwhile)(*arguments)
    gate.open.set()
    training.result(60)
    assert len(model.predict(x)) == len(x)  # the lock is released
    model.train_step(x, y)


def test_rejects_a_change_while_another_thread_predicts(gate, model, other_thread):
    predicting = other_thread.submit(model.predict, x)
    assert gate.reached.wait(60)
    with pytest.raises(RuntimeError, match="another thread uses the model"):
        model.train_step(x, y)
    gate.open.set()
    predicting.result(60)
    model.train_step(x, y)


def test_a_rejected_thread_does_not_hold_the_lock(gate, model, other_thread):
    training = other_thread.submit(model.train_step, x, y)
    assert gate.reached.wait(60)
    for _ in range(2):
        for call in (model.train_step, model.evaluate):
            with pytest.raises(RuntimeError):
                call(x, y)
    gate.open.set()
    training.result(60)
    other_thread.submit(model.train_step, x, y).result(60)
    other_thread.submit(model.evaluate, x, y).result(60)


def test_an_error_releases_the_lock(gate, model, other_thread):
    gate.open.set()
    for call in (model.train_step, model.evaluate):
        with pytest.raises(ValueError, match="labels"):
            call(x, y + 100)
    other_thread.submit(model.train_step, x, y).result(60)
    other_thread.submit(model.evaluate, x, y).result(60)


@pytest.mark.parametrize("rejected", ["predict", "train_step"])
def test_a_rejected_call_does_not_disturb_training(gate, model, other_thread, rejected):
    """Whenever the interpreter switches threads."""
    arguments = [x] if rejected == "predict" else [x, y]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        training = other_thread.submit(model.train, x, y, epochs=20, batch_size=4)
        assert gate.reached.wait(60)
        gate.open.set()
        while not training.done():
            with contextlib.suppress(RuntimeError):
                getattr(model, rejected)(*arguments)
        training.result()
    finally:
        sys.setswitchinterval(before)


def test_a_rejected_change_does_not_disturb_readers(gate, model, other_thread):
    predicting = other_thread.submit(model.predict, x)
    assert gate.reached.wait(60)
    attempts, stop = [], threading.Event()

    def try_to_train():
        while not stop.is_set():
            with pytest.raises(RuntimeError, match="another thread uses the model"):
                model.train_step(x, y)
            attempts.append(1)

    trainer = threading.Thread(target=try_to_train)
    trainer.start()
    for _ in range(20_000):
        shared(lambda _: None)(model)
    stop.set()
    trainer.join()
    gate.open.set()
    predicting.result(60)
    assert attempts


def interrupt(function, model, seconds=2.0):
    """Raise KeyboardInterrupt many times while a function of a model is called in a loop.

    Yields the number of interruptions so far, after each.
    """
    end, count = time.monotonic() + seconds, 0

    def raise_interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, raise_interrupt)
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
@pytest.mark.parametrize("decorator", [exclusive, shared])
def test_ctrl_c_at_any_moment_releases_the_lock(decorator):
    class Locked:
        rwlock = RWLock()

    locked = Locked()
    for count in interrupt(decorator(lambda _: None), locked):
        assert locked.rwlock.writer is None, count
        assert not locked.rwlock.readers, count
    assert count > 100


HANDLER = """
import signal
from training.rwlock import RWLock, exclusive, shared

class Locked:
    rwlock = RWLock()

read, change, calls = shared(lambda _: None), exclusive(lambda _: None), 0

def handle(*_):
    global calls
    change(Locked)
    calls += 1

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
while calls < 5000:
    read(Locked)
signal.setitimer(signal.ITIMER_REAL, 0)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarms")
def test_a_signal_handler_may_use_the_model():
    """It would wait for ever for the thread that it interrupts."""
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", HANDLER], cwd=root, check=True, timeout=60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("method", ["predict", "train"])
def test_a_forked_child_forgets_the_other_threads(gate, model, other_thread, method):
    running = other_thread.submit(getattr(model, method), *([x] if method == "predict" else [x, y]))
    assert gate.reached.wait(60)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        gate.open.set()
        outcomes = set()
        for _ in range(3):  # new threads too, which may have the ids of those that are gone
            try:
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(model.train_step, x, y).result()
                model.train_step(x, y)
                outcomes.add("success")
            except RuntimeError as error:
                outcomes.add(str(error))
        message = (
            "another thread was changing the model when this process was forked: build or load it "
            "again"
        )
        os._exit(0 if outcomes == {message if method == "train" else "success"} else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    gate.open.set()
    running.result(60)
    assert status == 0
    model.train_step(x, y)


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_threads_predict_at_the_same_time(backend):
    model = small_network(backend, "float32")
    batches = [x[:n] for n in (1, 7, 64, 33)] * 10
    expected = [model.logits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for logits, want in zip(pool.map(model.logits, batches), expected, strict=True):
            np.testing.assert_array_equal(logits, want)


def test_threads_that_train_one_model_run_complete_steps_or_are_rejected():
    model, sequential = (small_network("numba", "float32", dropout=0) for _ in range(2))

    def step(_):
        try:
            model.train_step(x, y)
        except RuntimeError:
            return 0
        return 1

    with ThreadPoolExecutor(3) as pool:
        n_steps = sum(pool.map(step, range(100)))
    assert n_steps
    for _ in range(n_steps):
        sequential.train_step(x, y)
    np.testing.assert_array_equal(model.parameters.values, sequential.parameters.values)
