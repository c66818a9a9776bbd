"""Selection of Numba's threading layer and number of threads.

Numba can run a parallel loop on OpenMP, on TBB, or on a work queue of its own, its "threading
layers". OpenMP is preferred, then TBB, then the work queue, which takes 130 us a call. Images/s
of the small network on 2 cores, alone and beside another process that keeps one core busy:

                            alone, by batch         beside a busy process
                               10     64    256       10     64    256
    OpenMP by default       8,400 33,500 50,700      290    950    870
    spinning 5,000 rounds   8,600 33,700 49,000    1,700  9,300 16,100
    TBB                     5,700 28,000 46,000    7,300 23,800 29,600

The choice is made when this module is imported, before Numba starts any thread.
"""

import contextlib
import ctypes
import importlib
import importlib.metadata
import os

import numba
from numba import config

from kernels import validation
from kernels.numpy_backend import threads as blas


def _load_openmp() -> None:
    """Load OpenMP with threads that spin only for a short time while they wait.

    GNU's OpenMP reads its settings while it is loaded, and its threads spin for some 10 ms by
    default. If another process uses one of the cores, each call then lasts for a time slice of
    that process.
    """
    spin_count = os.environ.get("GOMP_SPINCOUNT")
    if spin_count is None and "OMP_WAIT_POLICY" not in os.environ:
        os.environ["GOMP_SPINCOUNT"] = "5000"
    # Where there is no OpenMP runtime, Numba takes the next layer.
    with contextlib.suppress(ImportError):
        importlib.import_module("numba.np.ufunc.omppool")
    if spin_count is None:
        os.environ.pop("GOMP_SPINCOUNT", None)


def _load_tbb() -> None:
    """Load the TBB that pip installed, which the loader does not find by itself."""
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


_load_openmp()
_load_tbb()
if "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
    config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]


def set_threads(threads: int) -> None:
    """Set how many threads the parallel kernels use, and the products on plain arrays.

    Raises
    ------
    TypeError, ValueError
        If it is not an integer from 1 to the number of processors that Numba found at its start.
    """
    most = config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    numba.set_num_threads(validation.check_threads(threads, most))
    blas.set_threads(threads)
