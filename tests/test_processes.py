"""Kernels in several threads and processes, forked ones too, and with whatever is in their cache.

./run.sh pytest tests/test_processes.py --long    # 8 processes with a cold cache, not 3
"""

import importlib
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kernels.numba_backend  # noqa: F401  (finds the threading layers)
from tests.unprivileged import drop_rights

ROOT = Path(__file__).parents[1]
# Both dtypes, in an order of its own for each process: they compete for the names in the cache.
KERNELS = """
import sys
import numpy as np
from kernels import get_backend
fast, plain = get_backend("numba"), get_backend("numpy")
rng = np.random.default_rng(0)

def check():
    for dtype in [np.float32, np.float64][:: int(sys.argv[1])]:
        x = rng.standard_normal((8, 3, 9, 9)).astype(dtype)
        np.testing.assert_array_equal(fast.leaky_relu(x, 0.1), plain.leaky_relu(x, 0.1))
        np.testing.assert_array_equal(fast.max_pool(x, 2), plain.max_pool(x, 2))
"""
# Alarms end what would wait for ever.
FORK = """
import os, signal
from numba.core import event
child = os.fork()
if child == 0:
    signal.alarm(60)
    try:
        with event.install_recorder("numba:compile") as compiled:
            check()
    except RuntimeError as error:
        print(error, flush=True)
        os._exit(3)
    if compiled.buffer:
        print("compiled", flush=True)
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
from tests.networks import digits, small_network

def train(seed):
    model = small_network("numba", "float32", seed)
    model.train(*digits(100), epochs=2, batch_size=20)
    return model.parameters.values

if __name__ == "__main__":
    want = [train(seed) for seed in range(3)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for mine, theirs in zip(want, pool.map(train, range(3)), strict=True):
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


def start(program, order=1, folder=None, before="", **options):
    """Start a program on some kernels; folder holds the package, if it is another's."""
    environment = os.environ | {"PYTHONPATH": str(folder or ROOT)}
    environment |= options.pop("environment", {})
    return subprocess.Popen(
        [sys.executable, "-c", before + KERNELS + program, str(order)],
        cwd=folder or ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def finish(process, code=0):
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err[-2000:]
    return out


@pytest.fixture(scope="module")
def warm_cache():
    finish(start("check()"))


forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@forking
@pytest.mark.usefixtures("warm_cache")
@pytest.mark.parametrize("called", ["", "fast.leaky_relu(np.ones((2, 3, 4, 4)), 0.1)", "check()"])
@pytest.mark.parametrize("layer", layers())
def test_a_forked_child_computes_or_says_why_not(layer, called):
    """It loads the kernels that its parent had not called, in place of compiling them."""
    refused = layer == "omp" and called
    process = start(called + FORK, environment={"NUMBA_THREADING_LAYER": layer})
    out = finish(process, 3 if refused else 0)
    assert ("get_context('spawn')" in out) == bool(refused)
    assert "compiled" not in out


@forking
def test_a_fork_that_python_does_not_see_only_costs_the_cache():
    """Such as a C library's: a child that has no lock compiles for itself."""
    finish(start("import ctypes" + FORK.replace("os.fork", "ctypes.PyDLL(None).fork")))


@forking
def test_a_fork_while_another_thread_computes_in_numbas_queue():
    finish(start(BUSY_FORK, environment={"NUMBA_THREADING_LAYER": "workqueue"}))


@forking
def test_a_process_may_fork_before_it_loads_the_kernels():
    finish(start("check()", before=EARLY_FORK))


@pytest.mark.parametrize("layer", layers())
def test_three_threads_at_once(layer):
    finish(start(THREADS, environment={"NUMBA_THREADING_LAYER": layer}))


@pytest.mark.parametrize(
    ("name", "before"),
    [("forksafe", NO_TBB), ("forksafe", OLD_TBB), ("WorkQueue", "")],
)
def test_three_threads_where_a_name_leads_to_numbas_queue(name, before):
    finish(start(THREADS, before=before, environment={"NUMBA_THREADING_LAYER": name}))


def test_a_pool_of_processes(tmp_path):
    (tmp_path / "pool.py").write_text(KERNELS + POOL, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, tmp_path / "pool.py", "1"]
    subprocess.run(command, env=environment, check=True, timeout=300)


def test_many_processes_with_a_cold_cache(tmp_path, long_mode):
    count = 8 if long_mode else 3
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    processes = [start("check()", (-1) ** n, environment=cache) for n in range(count)]
    for process in processes:
        finish(process)
    code = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    for order in (1, -1):  # what they left is right, and enough
        finish(start("check()", order, environment=cache))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == code


def test_another_processor_or_numba_takes_no_kernel_of_this_one(tmp_path):
    cache, seen = {"NUMBA_CACHE_DIR": str(tmp_path)}, []
    for before, environment in (
        ("", {}),
        ("", {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}),
        ("import numba; numba.__version__ = '0.0'", {}),
    ):
        finish(start("check()", before=before, environment=cache | environment))
        seen.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")})
    assert set(seen[0]) < set(seen[1])
    assert any(seen[2][path] != time for path, time in seen[1].items())


def test_a_relative_cache_stays_where_it_was(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    before = f"import os; os.chdir({str(tmp_path)!r})"
    program = "os.chdir('elsewhere'); fast.leaky_relu(np.ones((2, 3, 4, 4)), 0.1)"
    finish(start(program, before=before, environment={"NUMBA_CACHE_DIR": "cache"}))
    assert list((tmp_path / "cache").rglob("*.nbc"))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_damaged_cache_is_compiled_anew(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    finish(start("check()", environment=cache))
    files = sorted(tmp_path.rglob("*.nb?"))
    assert files
    for n, file in enumerate(files):
        data = file.read_bytes()
        file.write_bytes([b"", b"junk", data[: len(data) // 2]][n % 3])
    finish(start("check()", environment=cache))


def test_without_the_compiler_the_answer_is_one_message(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "run.py", "--dataset", "mnist-5k", "--epochs", "1"],
        cwd=tmp_path,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "run.py: backend 'numba' cannot compile: unset NUMBA_DISABLE_JIT, or take backend 'numpy'\n"
    )


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


def test_a_full_disk_only_costs_the_cache(tmp_path):
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    finish(start("check()", environment=cache, preexec_fn=limit_files))
    assert not [file for file in tmp_path.rglob("*.nbc") if file.stat().st_size > 4000]


@pytest.mark.skipif(sys.platform != "linux", reason="drops Linux's rights of root")
def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path):
    """In a copy that may be read and not written, without a home."""
    folder = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kernels", folder / "kernels", ignore=ignored)
    before = sorted(folder.rglob("*"))
    folders = [folder, *(path for path in before if path.is_dir())]
    environment = {"HOME": "/proc/nowhere", "TMPDIR": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    try:
        for path in folders:
            path.chmod(0o555)
        process = start("check()", folder=folder, environment=environment, preexec_fn=drop_rights)
        finish(process)
        assert sorted(folder.rglob("*")) == before
    finally:
        for path in folders:
            path.chmod(0o755)
    assert not list(tmp_path.glob("cnn-*"))  # where the kernels were kept meanwhile


def test_a_copied_checkout_loads_no_stale_kernel(tmp_path):
    """The copy has the compiled kernels of its origin, and other sources."""
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    source = tmp_path / "kernels" / "numba_backend" / "vector.py"
    vectors = tmp_path / "kernels" / "numba_backend" / "lanes" / "vectors.py"
    assert source.exists()
    text = vectors.read_text(encoding="utf-8")
    broken = text.replace("builder.select(*arguments)", "arguments[2]")
    assert broken != text
    stamp = vectors.stat()
    vectors.write_text(broken, encoding="utf-8")
    os.utime(vectors, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    environment = {"NUMBA_CACHE_DIR": ""}
    _, err = start("check()", folder=tmp_path, environment=environment).communicate(timeout=600)
    assert "AssertionError" in err  # the broken source is what ran
    vectors.write_text(text, encoding="utf-8")
    finish(start("check()", folder=tmp_path, environment=environment))
