"""On-disk cache of compiled kernels, so that the next start does not compile them again.

Numba's own cache (``cache=True``) is not enough here, for three reasons:

* It compares a kernel with its own source file only. A kernel that inlines a function of another
  file would be loaded unchanged after that file has changed. Here the folder is named after a
  digest of all sources of the backend.
* Two processes that compile at the same time can load each other's code, and a damaged file or a
  full disk raises (see `KernelCache`).
* Its folder is a setting of the whole process. This module leaves that setting alone: functions
  that a user compiles with ``@njit(cache=True)`` are cached where Numba puts them.

The folder lies in ``__pycache__`` beside the sources, in the user's ``~/.cache/cnn`` where the
sources cannot be written, or in the folder that ``NUMBA_CACHE_DIR`` names. If none of them can be
written, each start compiles into a temporary folder.
"""

import atexit
import contextlib
import hashlib
import inspect
import os
import pickle
import shutil
import sys
import tempfile
from pathlib import Path

import filelock
from numba import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, InTreeCacheLocator

SOURCES = Path(__file__).parents[1]


def _ensure_writable(folder: Path) -> bool:
    """Make a folder if it is missing, and return whether files can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _choose_folder() -> Path:
    """Return the folder for the compiled kernels of these sources; remove those of older ones."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.rglob("*.py")):
        digest.update(source.read_bytes())
    name = f"kernels-{digest.hexdigest()[:16]}"
    in_tree = SOURCES / "__pycache__"
    configured = config.CACHE_DIR  # type: ignore[attr-defined]
    parents = [Path(configured) if configured else in_tree]
    with contextlib.suppress(RuntimeError):  # the user has no home
        parents.append(Path.home() / ".cache" / "cnn")
    for parent in parents:
        if _ensure_writable(parent / name):
            break
    else:
        parent = Path(tempfile.mkdtemp(prefix="cnn-"))
        atexit.register(shutil.rmtree, parent, ignore_errors=True)
    if parent == in_tree:  # other folders may serve several checkouts
        for folder in parent.glob("kernels-*"):
            if folder.name != name:
                shutil.rmtree(folder, ignore_errors=True)
    return (parent / name).absolute()  # the working directory may change


CACHE_FOLDER = _choose_folder()


class _Locator(InTreeCacheLocator):
    """Puts the files of a kernel into `CACHE_FOLDER`."""

    def get_cache_path(self):
        return str(CACHE_FOLDER / self.get_suitable_cache_subpath(self._py_file))


class _CacheImpl(CompileResultCacheImpl):
    """Serializes kernels as Numba does, and always uses `_Locator`.

    Numba's constructor would let ``NUMBA_CACHE_LOCATOR_CLASSES`` choose another one.
    """

    def __init__(self, py_func):
        source = inspect.getfile(py_func)
        self._lineno = py_func.__code__.co_firstlineno
        self._locator = _Locator(py_func, source)
        self._filename_base = self.get_filename_base(
            f"{Path(source).stem}.{py_func.__qualname__}", getattr(sys, "abiflags", "")
        )


class KernelCache(FunctionCache):
    """Numba's cache of one kernel, safe from other processes, full disks and damaged files.

    Numba writes an index first, and then the code under the next free number. Two processes that
    compile for different dtypes can take the same number, and the code for one dtype is then
    loaded for the other (Numba's issues 4807 and 7872). A lock prevents this. A kernel that
    cannot be read from the cache is compiled, and one that cannot be written is not cached.
    """

    _impl_class = _CacheImpl
    _lock: filelock.BaseFileLock

    @classmethod
    def create_lock(cls):
        """Create the lock of this process; a forked child needs its own."""
        cls._lock = filelock.FileLock(CACHE_FOLDER / ".lock", timeout=60)

    def load_overload(self, sig, target_context):
        try:
            with self._lock:
                return super().load_overload(sig, target_context)
        except Exception:  # unpickling a damaged file may raise anything
            return None

    def save_overload(self, sig, data):
        try:
            with self._lock:
                try:
                    super().save_overload(sig, data)
                except (EOFError, pickle.UnpicklingError):
                    self.flush()  # the index is damaged: begin a new one
                    super().save_overload(sig, data)
        # filelock raises RuntimeError in a child that was forked without Python's knowledge.
        except (OSError, filelock.Timeout, RuntimeError):
            return


KernelCache.create_lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=KernelCache.create_lock)
