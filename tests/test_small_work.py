"""Kernels on small arrays run on one thread, and give the number of threads back."""

import numba
import numpy as np
import pytest

from kernels import get_backend
from kernels.numba_backend.runtime.capture import capture
from kernels.numba_backend.small_work import MIN_PARALLEL_SIZE, run_by_size, run_on_one_thread

NUMBA = get_backend("numba")


@pytest.fixture
def threads():
    """Return the largest number of threads, which is set during the test."""
    before, most = numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS
    numba.set_num_threads(most)
    yield most
    numba.set_num_threads(before)


def test_small_work_runs_on_one_thread(threads):
    assert run_by_size(MIN_PARALLEL_SIZE - 1, numba.get_num_threads) == 1
    assert run_by_size(MIN_PARALLEL_SIZE, numba.get_num_threads) == threads
    assert numba.get_num_threads() == threads


def test_threads_are_restored_after_an_error(threads):
    with pytest.raises(ZeroDivisionError):
        run_on_one_thread(lambda: 1 / 0)
    assert numba.get_num_threads() == threads


def test_threads_of_a_captured_step_stay(threads):
    # The buffers of a captured kernel may be as many as the threads at the time of its capture.
    seen = []

    def function(x):
        seen.append(run_by_size(1, numba.get_num_threads))
        return NUMBA.to_array(x, output=True)

    capture(function, np.zeros((1, 1, 2, 2), np.float32))
    assert seen == [threads]


@pytest.mark.parametrize("name", ["im2col", "col2im", "batch_norm", "batch_norm_grad", "dropout"])
def test_results_do_not_depend_on_the_number_of_threads(threads, name):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 12, 28, 28), dtype=np.float32)  # more than `MIN_PARALLEL_SIZE`
    gamma, mean = rng.standard_normal((2, 12), dtype=np.float32)
    arguments = {
        "im2col": (x, 3, 1, "same"),
        "col2im": (NUMBA.im2col(x, 3, 1, "same"), x.shape, 3, 1, "same"),
        "batch_norm": (x, gamma, mean, 1e-5),
        "batch_norm_grad": (x[::-1], x, gamma, mean, gamma**2, 1e-5),
        "dropout": (x, 0.3),
    }[name]

    def call():
        extra = (np.random.default_rng(1),) if name == "dropout" else ()
        result = getattr(NUMBA, name)(*arguments, *extra)
        return result if isinstance(result, tuple) else (result,)

    on_all = call()
    numba.set_num_threads(1)
    for a, b in zip(call(), on_all, strict=True):
        np.testing.assert_array_equal(a, b)
