"""How kernels are compiled, and which threads run them."""

import ctypes
import importlib.metadata
import os
from typing import Any

import numba
from numba import config, njit

from kernels import checks

# Sums may be reordered, so that they fill vectors. NaN and infinity keep their meaning.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": FASTMATH,
    "error_model": "numpy",
}

serial = njit(**OPTIONS)
parallel = njit(parallel=True, **OPTIONS)


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


def _choose_threading_layer() -> None:
    """Prefer OpenMP (2 us a call), then TBB (3 us), then Numba's own queue (130 us)."""
    if "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
        config.THREADING_LAYER_PRIORITY = [  # type: ignore[attr-defined]
            "omp",
            "tbb",
            "workqueue",
        ]
    _preload_tbb()


_choose_threading_layer()


def set_threads(threads):
    numba.set_num_threads(checks.threads(threads, config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
