"""How kernels are compiled, and which threads run them."""

import atexit
import contextlib
import ctypes
import hashlib
import importlib
import importlib.metadata
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import filelock
import numba
from numba import config, njit
from numba.core.caching import FunctionCache

from kernels import validation

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError(
        "backend 'numba' cannot compile: unset NUMBA_DISABLE_JIT, or take backend 'numpy'"
    )

# Sums may be reordered, so that they fill vectors. NaN and infinity keep their meaning.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": FASTMATH,
    "error_model": "numpy",
}


def _writable(folder: Path) -> bool:
    """Return whether files can be made in a folder, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _choose_cache() -> Path:
    """Keep compiled kernels in a folder named after all the sources that they come from.

    Numba looks for changes in a kernel's own file only. A kernel that inlines a function of
    another file would be found in the cache, as it was, after that file has changed.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(here.rglob("*.py")):
        digest.update(source.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    sibling_path = here / "__pycache__"
    given = config.CACHE_DIR  # type: ignore[attr-defined]
    folders = [Path(given)] if given else [sibling_path]
    with contextlib.suppress(RuntimeError):  # there is no home
        folders.append(Path.home() / ".cache" / "cnn")
    for folder in folders:
        if _writable(folder / name):
            break
    else:  # then each start compiles for itself
        folder = Path(tempfile.mkdtemp(prefix="cnn-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if folder == sibling_path:
        for stale in folder.glob("kernels-*"):
            if stale.name != name:
                shutil.rmtree(stale, ignore_errors=True)
    return (folder / name).absolute()  # the working directory may change


CACHE = _choose_cache()
config.CACHE_DIR = str(CACHE)  # type: ignore[attr-defined]


class _Cache(FunctionCache):
    """Numba's cache of one kernel, safe from other processes, full disks and damaged files.

    Numba writes an index first, and then the code under the next free number. Two processes that
    compile for different arrays take the same number, and the code for the one is then loaded for
    the other (Numba's issues 4807 and 7872). What cannot be read or written is compiled again.
    """

    _lock: filelock.BaseFileLock

    @classmethod
    def make_lock(cls):
        """Make the lock anew, for it works only in the process that made it."""
        cls._lock = filelock.FileLock(CACHE / ".lock", timeout=60)

    def load_overload(self, sig, target_context):
        try:
            with self._lock:
                return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling a damaged file may raise
            return None

    def save_overload(self, sig, data):
        try:
            with self._lock:
                try:
                    super().save_overload(sig, data)
                except (EOFError, pickle.UnpicklingError):
                    self.flush()  # the index is damaged: begin a new one
                    super().save_overload(sig, data)
        except (OSError, filelock.Timeout, RuntimeError):  # the last: a fork unknown to Python
            return


_Cache.make_lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Cache.make_lock)


def _compiler(**options: Any):
    def compile_later(function):
        kernel = njit(**OPTIONS, **options)(function)
        kernel._cache = _Cache(function)
        return kernel

    return compile_later


serial = _compiler()
parallel = _compiler(parallel=True)
inlined = _compiler(forceinline=True)  # for what is called once in a few nanoseconds


def _preload_tbb() -> None:
    """Load pip's TBB where the loader does not look, so that Numba finds it by its name."""
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name in ("libtbb.so.12", "tbb12.dll"):
            try:
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
            except OSError:
                return


def _load_openmp() -> None:
    """Load OpenMP with threads that do not wait busily for long.

    GNU's OpenMP reads its settings while it is loaded, and waits for some 10 ms by default. With
    another process on one of the cores each call then takes a time slice of that process.
    """
    given = os.environ.get("GOMP_SPINCOUNT")
    if given is None and "OMP_WAIT_POLICY" not in os.environ:
        os.environ["GOMP_SPINCOUNT"] = "5000"
    # Where there is no OpenMP runtime, Numba takes the next layer.
    with contextlib.suppress(ImportError):
        importlib.import_module("numba.np.ufunc.omppool")
    if given is None:
        os.environ.pop("GOMP_SPINCOUNT", None)


def _choose_threading_layer() -> None:
    """Prefer OpenMP, then TBB, then Numba's own queue, which takes 130 us a call.

    Images/s of the small network at batch 10, 64 and 256 on 2 cores, alone and beside another
    process that keeps one core busy:

        OpenMP as it comes     8,400 33,500 50,700      290    950    870
        waiting 5,000 rounds   8,600 33,700 49,000    1,700  9,300 16,100
        TBB                    5,700 28,000 46,000    7,300 23,800 29,600
    """
    _load_openmp()
    _preload_tbb()
    if "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
        config.THREADING_LAYER_PRIORITY = [  # type: ignore[attr-defined]
            "omp",
            "tbb",
            "workqueue",
        ]


_choose_threading_layer()


def set_threads(threads):
    numba.set_num_threads(validation.check_threads(threads, config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
