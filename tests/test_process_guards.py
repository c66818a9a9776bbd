"""Kernels in forked processes, in several threads at once, and in a pool of processes."""

import importlib
import os
import subprocess
import sys

import pytest

import kernels.numba_backend  # noqa: F401  (loads the threading layers)
from tests.programs import ROOT, finish, start

# Forks at three points: before the parent has run a kernel, after it has run one, and after it
# has run all that the child runs. Alarms end a child that waits forever.
FORKS = """
import os, signal
from numba.core import event

def fork():
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(60)
    try:
        with event.install_recorder("numba:compile") as compilations:
            check()
    except RuntimeError as error:
        print(error, flush=True)
        os._exit(3)
    if compilations.buffer:
        print("compiled", flush=True)
    os._exit(0)

codes = [fork()]
fast.max_pool(np.ones((2, 3, 4, 4)), 2)  # starts the threads, although it needs one alone
codes.append(fork())
check()
codes.append(fork())
print(codes)
"""
HIDDEN_FORK = """
import ctypes, os
child = ctypes.PyDLL(None).fork()
if child == 0:
    check()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
BUSY_FORK = """
import os, signal
from threading import Thread
x = np.ones((64, 8, 32, 32), np.float32)

def compute():
    while True:
        fast.leaky_relu(x, 0.1)

fast.leaky_relu(x, 0.1)
Thread(target=compute, daemon=True).start()
signal.alarm(60)
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        fast.leaky_relu(x, 0.1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
EARLY_FORK = """
import os, sys
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
THREADS = """
from concurrent.futures import ThreadPoolExecutor
from tests.networks import digits, small_network

def train(_):
    model = small_network("numba", "float32")
    model.train(*digits(100), epochs=2, batch_size=20)
    for _ in range(20):
        check()
    return model.parameters.values

with ThreadPoolExecutor(3) as pool:
    first, *others = pool.map(train, range(3))
for other in others:
    np.testing.assert_array_equal(other, first)
"""
NO_TBB = "import sys; sys.modules['numba.np.ufunc.tbbpool'] = None"
OLD_TBB = """
from numba.np.ufunc import parallel

def refuse():
    raise ImportError

parallel._check_tbb_version_compatible = refuse
"""
POOL = """
import multiprocessing
import numpy as np
from tests.networks import digits, small_network

def train(seed):
    model = small_network("numba", "float32", seed)
    model.train(*digits(100), epochs=2, batch_size=20)
    return model.parameters.values

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map_async(train, range(3))
        expected = [train(seed) for seed in range(3)]
        for mine, theirs in zip(expected, results.get(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
"""


def layers():
    """Return the threading layers that this machine has."""
    found = []
    for layer, module in (("omp", "omppool"), ("tbb", "tbbpool")):
        try:
            importlib.import_module(f"numba.np.ufunc.{module}")
        except ImportError:
            continue
        found.append(layer)
    return [*found, "workqueue"]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(scope="module")
def warm_cache():
    finish(start("check()"))


@needs_fork
@pytest.mark.usefixtures("warm_cache")
@pytest.mark.parametrize("layer", layers())
def test_a_forked_child_computes_or_raises(layer):
    """It raises where OpenMP has started threads, and else loads its kernels from the cache."""
    out = finish(start(FORKS, environment={"NUMBA_THREADING_LAYER": layer}))
    *printed, codes = out.splitlines()
    if layer == "omp":
        assert codes == "[0, 3, 3]"
        assert len(printed) == 2
        assert all("get_context('spawn')" in line for line in printed)
    else:
        assert codes == "[0, 0, 0]"
        assert not printed


@needs_fork
def test_a_child_forked_by_a_c_library_computes_without_the_cache():
    finish(start(HIDDEN_FORK))


@needs_fork
def test_a_process_may_fork_while_a_thread_computes_on_the_work_queue():
    finish(start(BUSY_FORK, environment={"NUMBA_THREADING_LAYER": "workqueue"}))


@needs_fork
def test_a_process_may_fork_before_it_imports_the_backend():
    finish(start("check()", before=EARLY_FORK))


@pytest.mark.parametrize("layer", layers())
def test_three_threads_train_at_once(layer):
    finish(start(THREADS, environment={"NUMBA_THREADING_LAYER": layer}))


@pytest.mark.parametrize(
    ("name", "before"),
    [("forksafe", NO_TBB), ("forksafe", OLD_TBB), ("WorkQueue", "")],
)
def test_three_threads_train_at_once_where_numba_chooses_the_work_queue(name, before):
    finish(start(THREADS, before=before, environment={"NUMBA_THREADING_LAYER": name}))


def test_a_pool_of_processes_trains_as_one_process_does(tmp_path):
    (tmp_path / "pool.py").write_text(POOL, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, tmp_path / "pool.py"]
    subprocess.run(command, env=environment, check=True, timeout=300)
