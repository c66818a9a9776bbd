"""What only the numba backend has: threads, a threading layer, a cache on disk."""

import copy
import importlib.metadata
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from functools import partial
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import get_backend
from kernels.geometry import make_window
from kernels.numba_backend import packed
from kernels.numba_backend.packed import winograd
from kernels.numba_backend.runtime import buffer_pool, capture
from kernels.numpy_backend.dense import MAX_SUM_TERMS
from layers import BatchNorm, Conv, Dense, Flatten, LeakyRelu
from tests.cases import assert_close, dtypes, positive
from tests.networks import digits, small_network
from training import Adam, Model

BACKEND, NUMPY = get_backend("numba"), get_backend("numpy")
ROOT = Path(__file__).parents[1]
several_cores = pytest.mark.skipif(
    numba.config.NUMBA_NUM_THREADS < 2, reason="this machine has one core"
)


def installed(package):
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def layer_taken(**variables):
    program = (
        "import numba, numpy; from kernels import get_backend\n"
        "get_backend('numba').leaky_relu(numpy.ones((2, 3), 'float32'), 0.1)\n"
        "print(numba.threading_layer())"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.mark.skipif(not installed("tbb"), reason="there is no TBB for this platform")
def test_tbb_is_found_where_pip_put_it():
    assert layer_taken() in ("omp", "tbb")
    assert layer_taken(NUMBA_THREADING_LAYER="tbb") == "tbb"


@several_cores
def test_the_number_of_threads_changes_no_bit():
    images, labels = digits(200)
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        BACKEND.set_threads(threads)
        model = small_network("numba", "float32").fit_normalization(images)
        model.train(images, labels, epochs=1, batch_size=33)
        results.append(model.parameters.values)
    np.testing.assert_array_equal(*results)


@several_cores
def test_a_recorded_step_takes_the_threads_that_are_set_later():
    images, labels = digits(64)
    model = small_network("numba", "float32")
    try:
        BACKEND.set_threads(1)
        model.train_step(images, labels)
        (recorded,) = model._captured.values()
        assert recorded._notes.threads == 1
        BACKEND.set_threads(2)
        model.train_step(images, labels)
        assert recorded._notes.threads == 2
    finally:
        BACKEND.set_threads(numba.config.NUMBA_NUM_THREADS)


@several_cores
def test_a_short_step_takes_the_number_of_threads_that_is_faster(monkeypatch):
    images, _ = digits(1)
    model = small_network("numba", "float32")
    want = model.logits(images)
    (recorded,) = model._captured.values()
    notes, taken = recorded._notes, []

    def calls_on(threads):
        taken.append(threads)
        time.sleep(2e-3 if threads > 1 else 1e-3)
        return type(notes)._calls_on(notes, threads)

    monkeypatch.setattr(notes, "_calls_on", calls_on)
    monkeypatch.setattr(capture, "SHORT", 1.0)
    for _ in range(2 * capture.TRIES + 3):
        np.testing.assert_array_equal(model.logits(images), want)
    assert taken.count(1) >= 3
    assert taken[-3:] == [1, 1, 1]
    assert taken[0] == notes.threads == numba.get_num_threads()


def test_set_threads_is_obeyed():
    try:
        BACKEND.set_threads(1)
        assert numba.get_num_threads() == 1
    finally:
        BACKEND.set_threads(numba.config.NUMBA_NUM_THREADS)


def test_a_change_in_any_source_compiles_anew(tmp_path):
    """Numba itself looks at a kernel's own file only, not at those that it inlines."""
    copied = tmp_path / "kernels"
    shutil.copytree(ROOT / "kernels", copied, ignore=shutil.ignore_patterns("__pycache__"))
    program = (
        "import numpy as np; from kernels import get_backend\n"
        "print(get_backend('numba').correlate(np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2)))[0, 0])"
    )

    def output():
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    first = output()
    assert first == output()
    planes = copied / "numba_backend" / "planes.py"
    before = planes.read_text()
    planes.write_text(before.replace("to + p, pixels, count", "to + p, pixels + pixels, count"))
    assert planes.read_text() != before
    assert output() != first


@given(
    sizes=st.tuples(st.integers(1, 20), st.sampled_from([1, 3, 8, 16, 32]), st.integers(1, 20)),
    image=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    padding=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    dtype=dtypes,
)
@settings(deadline=None)
def test_winograd_is_the_correlation(sizes, image, padding, dtype):
    """At any size, although the layers take it for many channels only."""
    N, C, F = sizes
    rng = np.random.default_rng(0)
    x, w = positive(rng, (N, C, *image), dtype), positive(rng, (F, C, 3, 3), dtype)
    b = positive(rng, F, dtype)
    window = make_window(image, (3, 3), 1, padding)
    y = winograd.correlate(packed.pack(x), w, b, window)
    assert_close(packed.unpack(y), NUMPY.correlate(x, w, b, padding=padding))
    dy = positive(rng, y.shape, dtype)
    dx, dw, db = NUMPY.correlate_grad(dy, x, w, padding=padding)
    sent, taken = packed.pack(dy), packed.pack(x)
    assert_close(packed.unpack(winograd.input_gradient(sent, w, window)), dx)
    if C % taken.lanes == 0:
        for mine, plain in zip(
            winograd.weight_gradient(sent, taken, w.shape, window), (dw, db), strict=True
        ):
            assert_close(mine, plain)


def test_two_python_threads_predict_with_one_model():
    images, _ = digits(40)
    model = small_network("numba")
    wants = [model.logits(images[:20]).copy(), model.logits(images[20:]).copy()]
    wrong = [0, 0]

    def predict(place):
        for _ in range(100):
            got = model.logits(images[20 * place : 20 * place + 20])
            wrong[place] += not np.array_equal(got, wants[place])

    workers = [threading.Thread(target=predict, args=(place,)) for place in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert wrong == [0, 0]


def test_an_interrupted_recording_is_not_played(monkeypatch):
    images, labels = digits(40)
    model, reference = small_network("numba", dropout=0), small_network("numpy", dropout=0)
    model.compute_gradients(images, labels)
    (recorded,) = model._captured.values()
    recorded._notes.threads = 0  # as if their number had changed: the next step records again
    with monkeypatch.context() as patched:

        def interrupt(*arguments):
            raise KeyboardInterrupt

        patched.setattr(model.layers[0], "backward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.compute_gradients(images, labels)
    model.parameters.grads[:] = 123
    for _ in range(2):
        model.compute_gradients(images, labels)
        reference.compute_gradients(images, labels)
    np.testing.assert_allclose(model.parameters.grads, reference.parameters.grads, atol=1e-9)


def test_a_recording_keeps_no_images_alive():
    images, labels = digits(40)
    model = small_network("numba")
    for _ in range(2):
        batch = images.copy()
        model.train_step(batch, labels)
    gone = weakref.ref(batch)
    del batch
    assert gone() is None


def test_empty_lanes_do_not_grow():
    """Each BatchNorm of equal rows multiplies by 316: what empty lanes hold must not pile up."""
    model = Model((1, 3, 3), dtype="float32").add(Flatten())
    for _ in range(14):
        model.add(Dense(8)).add(BatchNorm()).add(LeakyRelu())
    model.add(Dense(3)).compile(optimizer=Adam())
    x = np.ones((17, 1, 3, 3), np.float32)
    for _ in range(3):
        assert np.isfinite(model.train_step(x, np.arange(17) % 3))


def test_a_step_allocates_nothing_large():
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


def use(arena, sizes):
    """Take so many MB at once, and give them back."""
    return len([arena.empty((size << 18,), np.dtype(np.float32)) for size in sizes])


def test_memory_waits_for_the_next_who_asks(monkeypatch):
    arena = buffer_pool.BufferPool()
    for _ in range(2):
        for sizes in ([100, 40, 7], [60, 60], [90]):  # more than is ever in use at once
            use(arena, sizes)
    monkeypatch.delattr(buffer_pool, "allocate_block")
    for sizes in ([100, 40, 7], [60, 60], [90]):
        use(arena, sizes)


def test_memory_of_sizes_that_are_past_is_given_back():
    arena = buffer_pool.BufferPool()
    tracemalloc.start()
    try:
        use(arena, [300, 500])
        for size in range(1, 80):
            use(arena, [size, size])
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 2 * 79 < held >> 20 <= 3 * 2 * 79
    assert peak >> 20 <= 3 * 800


def test_small_new_sizes_cost_a_large_one_nothing(monkeypatch):
    arena, new = buffer_pool.BufferPool(), buffer_pool.allocate_block
    use(arena, [400, 200])
    made = []
    monkeypatch.setattr(
        buffer_pool, "allocate_block", lambda size: (made.append(size), new(size))[1]
    )
    for size in range(1, 500):
        arena.empty((size,), np.dtype(np.float32))
        use(arena, [400, 200])
    assert max(made) < 2000


def test_memory_is_lent_to_one_at_a_time():
    """Also where the garbage collector gives it back, while other threads ask."""
    arena, wrong = buffer_pool.BufferPool(), []

    def work(seed):
        rng, held = np.random.default_rng(seed), []
        for n in range(3000):
            array = arena.empty((int(rng.integers(1, 300)),), np.dtype(np.float64))
            array[:] = mark = seed + 10 * n
            loop = [array]
            loop.append(loop)  # only the collector ends it
            held.append((array, mark))
            if len(held) > 20:
                array, mark = held.pop(int(rng.integers(20)))
                if not (array == mark).all():
                    wrong.append(mark)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    assert not wrong


def test_two_python_threads_at_once():
    images, labels = digits(200)

    def train(results, place):
        model = small_network("numba", "float32")
        model.train(images, labels, epochs=2, batch_size=20)
        results[place] = model.parameters.values

    results = [None, None, None]
    train(results, 0)
    workers = [threading.Thread(target=train, args=(results, place)) for place in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


def test_a_second_start_compiles_nothing(tmp_path):
    program = (
        "from tests.networks import digits, small_network\n"
        "small_network('numba', 'float32').train(*digits(50), epochs=1)\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def compiled():
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment)
        assert done.returncode == 0
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}

    first = compiled()
    assert first
    assert compiled() == first


def test_the_package_holds_all_kernels():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for package in ROOT.glob("kernels/**/__init__.py"):
        name = ".".join(package.parent.relative_to(ROOT).parts)
        assert f'"{name}"' in text, name


def test_numbers_that_no_kernel_made_are_not_recorded():
    x = np.zeros((16, 1, 4, 4), np.float32)

    def function(x, mean, std, made):
        loaded = BACKEND.normalize_images(x, mean, std, np.float32)
        activations = BACKEND.from_array(np.ones_like(x)) if made else loaded
        return BACKEND.to_array(BACKEND.leaky_relu(activations, 0.1), output=True)

    for made in (False, True):
        inputs = x, np.zeros(1, np.float32), np.ones(1, np.float32)
        _, again = BACKEND.record(partial(function, made=made), *inputs)
        assert (again is None) == made


@pytest.mark.parametrize(
    ("N", "shape", "first"),
    [
        (20, (1, 3, MAX_SUM_TERMS // 2 + 1), [Flatten()]),
        (MAX_SUM_TERMS + 20, (1, 2, 2), [Flatten()]),
        (20, (1, 92, 92), [Conv(3, 91), Flatten()]),
    ],
)
def test_a_model_with_sums_in_parts(N, shape, first):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((N, *shape)), rng.integers(0, 3, N)
    seen = {}
    for name in ("numba", "numpy"):
        model = Model(shape, backend=name, dtype="float64")
        for layer in (*copy.deepcopy(first), Dense(17), BatchNorm(), Dense(3)):
            model.add(layer)
        model.compile(Adam())
        seen[name] = [model.train_step(x, y) for _ in range(4)]
        seen[name] += [*model.predict_proba(x[:1]).ravel()]
    np.testing.assert_allclose(seen["numba"], seen["numpy"], rtol=1e-9)
