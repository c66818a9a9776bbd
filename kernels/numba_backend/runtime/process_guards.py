"""Where kernels cannot run: in a child forked from OpenMP, in two threads of Numba's queue."""

import importlib
import os
import sys
import threading
from functools import wraps

import numba
from numba import config
from numba.np.ufunc import parallel

from kernels.numba_backend.runtime.capture import CapturedStep

FORKED = (
    "this process was forked from one that had loaded the kernels, and OpenMP cannot go on in it: "
    "start workers by multiprocessing.get_context('spawn'), or set NUMBA_THREADING_LAYER=tbb"
)


def _refuse(*_, **__):
    raise RuntimeError(FORKED)


def _one_at_a_time(function, lock):
    @wraps(function)
    def locked(*arguments, **options):
        with lock:
            return function(*arguments, **options)

    return locked


def _loads(layer: str) -> bool:
    """Return whether Numba can load TBB or OpenMP; it passes over a TBB that is too old."""
    try:
        if layer == "tbb":
            parallel._check_tbb_version_compatible()
        importlib.import_module(f"numba.np.ufunc.{layer}pool")
    except ImportError:
        return False
    return True


def _takes_one_thread() -> bool:
    """Return whether Numba will take its own queue, which ends the process at a second thread.

    Numba takes the first layer that loads of those that a name stands for. The names "safe" and
    "threadsafe" never stand for the queue.
    """
    on_linux = sys.platform.startswith("linux")
    name = str(config.THREADING_LAYER).lower()  # type: ignore[attr-defined]
    layers = {
        "default": config.THREADING_LAYER_PRIORITY,  # type: ignore[attr-defined]
        "forksafe": ["tbb", "workqueue"] if on_linux else ["tbb", "omp", "workqueue"],
    }.get(name, [name])
    if "workqueue" not in layers:
        return False
    return not any(map(_loads, layers[: layers.index("workqueue")]))


def guard(functions: dict) -> None:
    """Make functions of the backend, in the names of its module, safe from threads and forks."""

    def after_fork():
        try:
            refused = numba.threading_layer() == "omp"
        except ValueError:  # no thread has been started yet: all is well
            return
        if refused:
            functions.update(dict.fromkeys(functions["__all__"], _refuse))
            CapturedStep.__call__ = _refuse  # type: ignore[method-assign]

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=after_fork)
    if _takes_one_thread():
        lock = threading.RLock()
        # A child has no thread that would give the lock back: fork only while none computes.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
            )
        for name in functions["__all__"]:
            functions[name] = _one_at_a_time(functions[name], lock)
        CapturedStep.__call__ = _one_at_a_time(CapturedStep.__call__, lock)  # type: ignore[method-assign]
