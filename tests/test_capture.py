"""A captured step returns what its function returns, or is not replayed."""

import threading
import time
import tracemalloc
import weakref

import numba
import numpy as np
import pytest

from kernels import get_backend
from kernels.numba_backend.runtime import capture as capture_module
from kernels.numba_backend.runtime import thread_choice
from kernels.numba_backend.runtime.buffer_pool import empty
from kernels.numba_backend.runtime.capture import CapturedStep, invalidate_capture, launch
from tests.networks import digits, small_network

BACKEND = get_backend("numba")
MAX_THREADS = numba.config.NUMBA_NUM_THREADS
several_cores = pytest.mark.skipif(MAX_THREADS < 2, reason="this machine has one core")


@pytest.fixture(autouse=True, params=[1, 10**6], ids=["compiled", "called from Python"])
def replays(request, monkeypatch):
    monkeypatch.setattr(capture_module, "COMPILE_AFTER", request.param)


@pytest.fixture
def restore_threads():
    yield
    BACKEND.set_threads(MAX_THREADS)


class Doubled:
    """A function that doubles an array in a kernel, and counts how often it ran."""

    def __init__(self):
        self.runs = 0

    def kernel(self, x, out):
        np.multiply(x, 2, out=out)

    def __call__(self, x):
        self.runs += 1
        out = empty(x.shape, x.dtype)
        launch(self.kernel, x, out)
        return out


def check_doubled(step, value):
    x = np.full((2, 3), value)
    np.testing.assert_array_equal(step(x), 2 * x)


def test_a_function_runs_once_and_is_replayed_on_other_inputs():
    function = Doubled()
    result, step = BACKEND.capture(function, np.ones((2, 3)))
    np.testing.assert_array_equal(result, np.full((2, 3), 2))
    for value in (3.0, -1.0):
        check_doubled(step, value)
    assert function.runs == 1
    assert step.invalid_reason is None


def test_a_replay_returns_the_value_of_the_last_kernel_that_has_one():
    def function(x, y):
        launch(lambda y: None, y)
        total = launch(lambda x: float(x.sum()), x)
        launch(lambda x: None, x)
        return total

    result, step = BACKEND.capture(function, np.ones(3), np.ones(2))
    assert result == 3
    assert step(np.arange(3.0), np.ones(2)) == 3
    assert step(np.full(3, 5.0), np.ones(2)) == 15


def test_an_array_given_for_two_inputs_fills_both():
    def function(x, y):
        out = empty(x.shape, x.dtype)
        launch(lambda x, y, out: np.subtract(x, y, out=out), x, y, out)
        return out

    x = np.arange(3.0)
    result, step = BACKEND.capture(function, x, x)
    assert not result.any()
    np.testing.assert_array_equal(step(3 * x, x), 2 * x)


def dot(x, y):
    return float(np.dot(x, y))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x, y: Doubled()(x), "no kernel was launched with input 1 itself"),
        (lambda x, y: Doubled()(x + y), "no kernel was launched with input 0 itself"),
        (lambda x, y: (launch(dot, x, y), 1), "did not return what its last kernel returned"),
        (lambda x, y: (invalidate_capture(), launch(dot, x, y))[1], "outside the launched"),
    ],
)
def test_a_function_that_kernels_do_not_account_for_runs_every_time(function, reason):
    runs = []

    def counted(x, y):
        runs.append(x)
        return function(x, y)

    x, y = np.arange(3.0), np.ones(3)
    result, step = BACKEND.capture(counted, x, y)
    np.testing.assert_array_equal(result, function(x, y))
    assert step is None
    assert len(runs) == 1
    step = CapturedStep(counted)
    for value in range(3):
        np.testing.assert_array_equal(step(x + value, y), function(x + value, y))
        assert reason in step.invalid_reason
    assert len(runs) == 4


def test_a_function_without_kernels_runs_every_time():
    runs = []
    result, step = BACKEND.capture(lambda: runs.append(1))
    assert result is None
    assert step is None
    step = CapturedStep(lambda: runs.append(1))
    step()
    step()
    assert step.invalid_reason == "no kernel was launched"
    assert len(runs) == 3


def test_values_that_no_kernel_computed_prevent_a_replay():
    x = np.zeros((16, 1, 4, 4), np.float32)
    inputs = x, np.zeros(1, np.float32), np.ones(1, np.float32)

    def from_inputs(x, mean, std):
        activations = BACKEND.normalize_images(x, mean, std, np.float32)
        return BACKEND.to_array(BACKEND.leaky_relu(activations, 0.1), output=True)

    def from_new_array(x, mean, std):
        BACKEND.normalize_images(x, mean, std, np.float32)
        activations = BACKEND.from_array(np.ones_like(x))
        return BACKEND.to_array(BACKEND.leaky_relu(activations, 0.1), output=True)

    assert BACKEND.capture(from_inputs, *inputs)[1] is not None
    assert BACKEND.capture(from_new_array, *inputs)[1] is None


@pytest.mark.parametrize(
    "x", [np.ones((3, 3)), np.ones((2, 3), np.float32)], ids=["shape", "dtype"]
)
def test_a_replay_rejects_inputs_of_another_shape_or_dtype(x):
    _, step = BACKEND.capture(Doubled(), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"captured for float64 \(2, 3\), got float"):
        step(x)
    check_doubled(step, 3.0)


def test_an_interrupted_capture_is_not_replayed():
    function = Doubled()

    def interrupt(x, out):
        raise KeyboardInterrupt

    step, kernel = CapturedStep(function), function.kernel
    function.kernel = interrupt
    with pytest.raises(KeyboardInterrupt):
        step(np.ones((2, 3)))
    assert step.invalid_reason == "the step was not captured"
    function.kernel = kernel
    for value in (3.0, 4.0):
        check_doubled(step, value)
    assert function.runs == 2


@several_cores
def test_a_step_is_captured_again_for_another_number_of_threads(restore_threads):
    BACKEND.set_threads(1)
    function = Doubled()
    _, step = BACKEND.capture(function, np.ones((2, 3)))
    BACKEND.set_threads(2)
    for value in (3.0, 4.0):
        check_doubled(step, value)
    assert function.runs == 2


@several_cores
def test_a_model_trains_on_after_an_interrupted_capture(monkeypatch, restore_threads):
    images, labels = digits(40)
    model, reference = small_network("numba", dropout=0), small_network("numpy", dropout=0)
    model.compute_gradients(images, labels)
    BACKEND.set_threads(1)  # so that the next step is captured again
    with monkeypatch.context() as patched:

        def interrupt(*_):
            raise KeyboardInterrupt

        patched.setattr(model.layers[0], "backward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.compute_gradients(images, labels)
    model.parameters.grads[:] = 123
    for _ in range(2):
        model.compute_gradients(images, labels)
        reference.compute_gradients(images, labels)
    np.testing.assert_allclose(model.parameters.grads, reference.parameters.grads, atol=1e-9)


@several_cores
def test_a_short_step_is_replayed_on_the_number_of_threads_that_is_faster(monkeypatch):
    used, slow_on_threads = [], [True]

    class SlowOnThreads(Doubled):
        def kernel(self, x, out):
            used.append(numba.get_num_threads())
            time.sleep(2e-3 if (used[-1] > 1) == slow_on_threads[0] else 1e-3)
            super().kernel(x, out)

    monkeypatch.setattr(thread_choice, "LIMIT_SECONDS", 1.0)
    monkeypatch.setattr(capture_module, "COMPILE_AFTER", 1)
    _, step = BACKEND.capture(SlowOnThreads(), np.ones((2, 3)))
    used.clear()
    n_trials, pause = thread_choice.N_TRIALS, thread_choice.MIN_PAUSE
    for value in range(pause + n_trials + 3):
        check_doubled(step, float(value))
    assert set(used[:pause]) == {numba.get_num_threads()} == {MAX_THREADS}
    assert set(used[pause:]) == {1}
    slow_on_threads[0] = False  # the pause has not ended, but the step has become slower
    for value in range(pause + n_trials):
        check_doubled(step, float(value))
    assert used[-1] == MAX_THREADS


def test_two_threads_predict_with_one_model():
    images, _ = digits(40)
    model = small_network("numba")
    halves = images[:20], images[20:]
    expected = [model.logits(half).copy() for half in halves]
    n_wrong = [0, 0]

    def predict(index):
        for _ in range(100):
            logits = model.logits(halves[index])
            n_wrong[index] += not np.array_equal(logits, expected[index])

    workers = [threading.Thread(target=predict, args=(index,)) for index in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert n_wrong == [0, 0]


def test_a_captured_step_keeps_no_images_alive():
    images, labels = digits(40)
    model = small_network("numba")
    for _ in range(2):
        batch = images.copy()
        model.train_step(batch, labels)
    reference = weakref.ref(batch)
    del batch
    assert reference() is None


def test_a_captured_training_step_allocates_nothing_large():
    images, labels = digits(64)
    model = small_network("numba", "float32")
    for _ in range(3):
        model.train_step(images, labels)
    tracemalloc.start()
    try:
        for _ in range(3):
            model.train_step(images, labels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    activations = 64 * 4 * 8 * 8 * 4  # bytes of the first layer's output
    assert peak < activations / 4


@pytest.mark.parametrize("label", [3, -1, 10**12])
def test_a_replay_reads_no_memory_of_a_label_out_of_range(label):
    images = np.arange(48, dtype=np.float32).reshape(16, 3, 1, 1)
    mean, std = np.zeros(3, np.float32), np.ones(3, np.float32)
    gradients = []

    def function(images, labels):
        x = BACKEND.normalize_images(images, mean, std, np.float32)
        loss, n_correct, dlogits = BACKEND.softmax_cross_entropy(BACKEND.flatten(x), labels)
        gradients.append(dlogits)
        return loss, n_correct

    labels = np.full(16, 2)
    _, step = BACKEND.capture(function, images, labels)
    want = np.array(gradients[0].data)
    labels[0] = label
    loss, n_correct = step(images, labels)
    assert np.isnan(loss)
    assert n_correct == 15
    want[0, 2, 0] += 1 / 16  # the target of the first image
    np.testing.assert_allclose(gradients[0].data, want, atol=1e-6)


def rows_for_prediction(images):
    """Return images (N, 3, 1, 1) as plain rows (N, 3), by kernels."""
    mean, std = np.zeros(3, np.float32), np.ones(3, np.float32)
    x = BACKEND.normalize_images(images, mean, std, np.float32, predict=True)
    return BACKEND.flatten(x)


def copied(*shape):
    """Return an array that the checks of the backend copy."""
    return np.ones((*shape, 2), np.float32)[..., 0]


@pytest.mark.parametrize("copy", ["w", "b", "scale"])
def test_a_copied_parameter_of_dense_prevents_a_replay(copy):
    arguments = {"w": np.ones((3, 4), np.float32)}
    arguments |= {name: np.ones(4, np.float32) for name in ("b", "scale")}

    def function(x):
        return BACKEND.dense(rows_for_prediction(x), **arguments)

    x = np.ones((2, 3, 1, 1), np.float32)
    assert BACKEND.capture(function, x)[1] is not None
    arguments[copy] = copied(*arguments[copy].shape)
    assert BACKEND.capture(function, x)[1] is None


@pytest.mark.parametrize("position", range(5))
def test_a_copied_vector_of_fold_batch_norm_prevents_a_replay(position):
    vectors, w = list(np.ones((5, 4), np.float32)), np.ones((3, 4), np.float32)

    def function(x):
        scale, bias = BACKEND.fold_batch_norm(*vectors, 1e-5)
        return BACKEND.dense(rows_for_prediction(x), w, bias, scale)

    x = np.ones((2, 3, 1, 1), np.float32)
    assert BACKEND.capture(function, x)[1] is not None
    vectors[position] = copied(4)
    assert BACKEND.capture(function, x)[1] is None


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("predict", [False, True])
def test_a_converted_vector_of_normalize_images_prevents_a_replay(name, predict):
    vectors = {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}

    def function(images):
        x = BACKEND.normalize_images(images, **vectors, dtype=np.float32, predict=predict)
        return BACKEND.to_array(x, output=True)

    images = np.ones((1, 3, 2, 2), np.float32)
    assert BACKEND.capture(function, images)[1] is not None
    vectors[name] = np.ones(3)
    assert BACKEND.capture(function, images)[1] is None
