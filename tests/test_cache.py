"""Compiled kernels on disk: found again by the next start, and never wrong.

./run.sh pytest tests/test_cache.py --long    # 8 processes with a cold cache, not 3
"""

import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from numba.core import event

from kernels.numba_backend.runtime import cache
from kernels.numba_backend.runtime.compiler import serial
from tests.programs import ROOT, finish, start
from tests.unprivileged import drop_rights

# Run in a copy of the kernels, to which `copied_kernels` adds a kernel that inlines a function.
RUN_ADDED_KERNEL = """
from numba.core import event
from kernels.numba_backend.added_kernel import kernel
with event.install_recorder("numba:compile") as compilations:
    result = kernel(3.0)
print("compiled" if compilations.buffer else "loaded", result)
"""
# Prints a digest of batch normalization; sums of many images are rounded often.
NORMALIZE_ROWS = """
import hashlib
import numpy as np
from kernels.numba_backend import packed
x = np.random.default_rng(0).standard_normal((64, 256), dtype=np.float32)
ones = np.ones(256, np.float32)
_, *moments = packed.batch_norm_activation(packed.pack(x), ones, ones, 1e-5, None)
print(hashlib.sha256(b"".join(array.tobytes() for array in moments)).hexdigest())
"""
# A user's own function, compiled with Numba's own cache beside ours.
RUN_USER_FUNCTION = """
import kernels.numba_backend
import users_module
assert users_module.double(4) == 8
"""


def code_files(folder):
    """Return the files of machine code in a cache, with their times."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}


def copy_kernels(folder):
    """Copy the kernels without what was compiled for them."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "kernels", folder / "kernels", ignore=ignored)


def run(folder, program):
    """Run a short program in a folder that holds a copy of the kernels."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | {"NUMBA_CACHE_DIR": "", "PYTHONPATH": str(folder)},
        text=True,
        capture_output=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def add_one(x):
    return x + 1


def test_a_kernel_is_loaded_by_the_next_start(tmp_path):
    program = (
        "from numba.core import event\n"
        "from tests.networks import digits, small_network\n"
        "with event.install_recorder('numba:compile') as compilations:\n"
        "    small_network('numba', 'float32').train(*digits(50), epochs=1)\n"
        "print(len(compilations.buffer))\n"
    )
    run_training = [sys.executable, "-c", program]
    for _ in range(2):  # the first may compile
        done = subprocess.run(run_training, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


@pytest.fixture
def copied_kernels(tmp_path):
    """Return a folder with a copy of the kernels, and one more that inlines a function."""
    copy_kernels(tmp_path)
    package = tmp_path / "kernels" / "numba_backend"
    (package / "added_function.py").write_text(
        "from kernels.numba_backend.runtime.compiler import inlined\n"
        "@inlined\n"
        "def scale(x):\n"
        "    return 2 * x\n"
    )
    (package / "added_kernel.py").write_text(
        "from kernels.numba_backend.added_function import scale\n"
        "from kernels.numba_backend.runtime.compiler import serial\n"
        "@serial\n"
        "def kernel(x):\n"
        "    return scale(x)\n"
    )
    return tmp_path


def change_a_source(folder):
    """Change the inlined function: other contents of the same size, with the same time."""
    source = folder / "kernels" / "numba_backend" / "added_function.py"
    stamp = source.stat()
    source.write_text(source.read_text().replace("2 * x", "5 * x"))
    os.utime(source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert source.stat().st_size == stamp.st_size


def test_a_change_in_an_inlined_function_compiles_again(copied_kernels):
    """Numba itself looks only at the file of the kernel, and at its time and size."""
    assert run(copied_kernels, RUN_ADDED_KERNEL) == "compiled 6.0"
    assert run(copied_kernels, RUN_ADDED_KERNEL) == "loaded 6.0"
    change_a_source(copied_kernels)
    assert run(copied_kernels, RUN_ADDED_KERNEL) == "compiled 15.0"
    folders = list((copied_kernels / "kernels/numba_backend/__pycache__").glob("kernels-*"))
    assert len(folders) == 1  # what was compiled from the old sources is gone


def test_a_users_own_functions_are_cached_where_numba_puts_them(copied_kernels):
    """Not in our folder, where a change of our sources would delete them."""
    (copied_kernels / "users_module.py").write_text(
        "from numba import njit\n\n@njit(cache=True)\ndef double(x):\n    return 2 * x\n"
    )
    run(copied_kernels, RUN_USER_FUNCTION)
    compiled = code_files(copied_kernels)
    assert [path.parent for path in compiled] == [copied_kernels / "__pycache__"]
    change_a_source(copied_kernels)
    run(copied_kernels, RUN_USER_FUNCTION)
    assert code_files(copied_kernels) == compiled


def test_numbas_settings_do_not_move_the_kernels(tmp_path):
    environment = {
        "NUMBA_CACHE_DIR": str(tmp_path),
        "NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator",
    }
    finish(start("check()", environment=environment))
    assert code_files(tmp_path)


def test_many_processes_fill_one_cold_cache(tmp_path, long_mode):
    count = 8 if long_mode else 3
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    processes = [start("check()", (-1) ** n, environment=environment) for n in range(count)]
    for process in processes:
        finish(process)
    code = code_files(tmp_path)
    for order in (1, -1):  # the cache is complete and right
        finish(start("check()", order, environment=environment))
    assert code_files(tmp_path) == code


def test_the_start_that_compiles_computes_the_bits_of_those_that_load(tmp_path):
    """Numba optimizes a kernel again for the object in the cache, and then it must round alike."""
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, second = (finish(start(NORMALIZE_ROWS, environment=environment)) for _ in range(2))
    assert first == second


def test_another_processor_or_numba_loads_no_kernel_of_this_one(tmp_path):
    cached, seen = {"NUMBA_CACHE_DIR": str(tmp_path)}, []
    for before, environment in (
        ("", {}),
        ("", {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}),
        ("import numba; numba.__version__ = '0.0'", {}),
    ):
        finish(start("check()", before=before, environment=cached | environment))
        seen.append(code_files(tmp_path))
    assert set(seen[0]) < set(seen[1])
    assert any(seen[2][path] != time for path, time in seen[1].items())


def test_a_relative_cache_folder_is_found_after_a_change_of_directory(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    before = f"import os; os.chdir({str(tmp_path)!r})"
    program = "os.chdir('elsewhere'); fast.leaky_relu(np.ones((2, 3, 4, 4)), 0.1)"
    finish(start(program, before=before, environment={"NUMBA_CACHE_DIR": "cache"}))
    assert code_files(tmp_path / "cache")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("damage", ["empty", "junk", "half"])
@pytest.mark.parametrize("files", [["*.nbi"], ["*.nbc"], ["*.nbi", "*.nbc"]])
def test_damaged_files_are_compiled_again_and_replaced(tmp_path, monkeypatch, files, damage):
    monkeypatch.setattr(cache, "CACHE_FOLDER", tmp_path)

    def count_compilations():
        """Compile as a new process would, for two dtypes."""
        kernel = serial(add_one)
        with event.install_recorder("numba:compile") as compilations:
            for dtype in (np.float32, np.float64):
                assert kernel(dtype(2)) == 3
        return len(compilations.buffer) // 2  # each has a beginning and an end

    assert count_compilations() == 2
    assert count_compilations() == 0
    damaged = [path for pattern in files for path in tmp_path.rglob(pattern)]
    assert damaged
    for path in damaged:
        data = path.read_bytes()
        path.write_bytes({"empty": b"", "junk": b"junk", "half": data[: len(data) // 2]}[damage])
    assert count_compilations() == 2
    assert count_compilations() == 0


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


def test_a_full_disk_only_costs_the_cache(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    finish(start("check()", environment=environment, preexec_fn=limit_files))
    assert not [path for path in code_files(tmp_path) if path.stat().st_size > 4000]


@pytest.mark.skipif(sys.platform != "linux", reason="drops the rights that Linux gives to root")
def test_a_read_only_installation_without_a_home_only_costs_time(tmp_path):
    folder = tmp_path / "copy"
    copy_kernels(folder)
    before = sorted(folder.rglob("*"))
    folders = [folder, *(path for path in before if path.is_dir())]
    environment = {"HOME": "/proc/nowhere", "TMPDIR": str(tmp_path), "NUMBA_CACHE_DIR": ""}
    try:
        for path in folders:
            path.chmod(0o555)
        finish(start("check()", folder=folder, environment=environment, preexec_fn=drop_rights))
        assert sorted(folder.rglob("*")) == before
    finally:
        for path in folders:
            path.chmod(0o755)
    assert not list(tmp_path.glob("cnn-*"))  # the temporary folder of the kernels
