"""The numba backend as a whole: its threads, its lanes, its sums, and its packaging."""

import copy
import threading
from pathlib import Path

import numba
import numpy as np
import pytest

from kernels import get_backend
from kernels.numba_backend import packed
from kernels.numpy_backend.dense import MAX_SUM_TERMS
from layers import BatchNorm, Conv, Dense, Flatten, LeakyRelu
from tests.networks import digits, small_network
from training import Adam, Model

BACKEND = get_backend("numba")
ROOT = Path(__file__).parents[1]
several_cores = pytest.mark.skipif(
    numba.config.NUMBA_NUM_THREADS < 2, reason="this machine has one core"
)


@several_cores
def test_the_number_of_threads_does_not_change_the_result():
    images, labels = digits(200)
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        BACKEND.set_threads(threads)
        model = small_network("numba", "float32").fit_normalization(images)
        model.train(images, labels, epochs=1, batch_size=33)
        results.append(model.parameters.values)
    np.testing.assert_array_equal(*results)


@several_cores
@pytest.mark.parametrize("groups", [1, 32], ids=["panels", "depthwise"])
def test_the_number_of_threads_does_not_change_a_convolution(groups):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((40, 32, 9, 9)), rng.standard_normal((40, 32, 5, 5))
    w, arguments = rng.standard_normal((32, 32 // groups, 3, 3)), {"stride": 2, "padding": 1}
    results = []
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        BACKEND.set_threads(threads)
        y = packed.correlate(packed.pack(x), w, **arguments, groups=groups)
        gradients = packed.correlate_grad(
            packed.pack(dy), packed.pack(x), w, **arguments, groups=groups
        )
        results.append([y.data, gradients[0].data, *gradients[1:]])
    for one, several in zip(*results, strict=True):
        np.testing.assert_array_equal(one, several)


def test_padding_lanes_stay_finite():
    """Each BatchNorm of equal rows multiplies by 316; values in padding lanes must not grow."""
    model = Model((1, 3, 3), dtype="float32").add(Flatten())
    for _ in range(14):
        model.add(Dense(8)).add(BatchNorm()).add(LeakyRelu())
    model.add(Dense(3)).compile(optimizer=Adam())
    x = np.ones((17, 1, 3, 3), np.float32)
    for _ in range(3):
        assert np.isfinite(model.train_step(x, np.arange(17) % 3))


def test_two_models_train_in_two_threads():
    images, labels = digits(200)

    def train(results, index):
        model = small_network("numba", "float32")
        model.train(images, labels, epochs=2, batch_size=20)
        results[index] = model.parameters.values

    results = [None, None, None]
    train(results, 0)
    workers = [threading.Thread(target=train, args=(results, index)) for index in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


def test_the_distribution_contains_all_packages_of_kernels():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for package in ROOT.glob("kernels/**/__init__.py"):
        name = ".".join(package.parent.relative_to(ROOT).parts)
        assert f'"{name}"' in text, name


@pytest.mark.parametrize(
    ("N", "shape", "first"),
    [
        (20, (1, 3, MAX_SUM_TERMS // 2 + 1), [Flatten()]),
        (MAX_SUM_TERMS + 20, (1, 2, 2), [Flatten()]),
        (20, (1, 92, 92), [Conv(3, 91), Flatten()]),
    ],
)
def test_blocked_sums_equal_those_of_numpy(N, shape, first):
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
