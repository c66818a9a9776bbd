"""Guards for processes and threads in which the kernels would hang or end the process.

* A child that was forked from a process with OpenMP threads must not run a parallel kernel: GNU's
  OpenMP does not survive a fork. The functions of the backend then raise a RuntimeError that
  says what to do.
* Numba's own work queue ends the process when two Python threads run parallel kernels at once. A
  lock then lets one thread in at a time.

Both replace the functions in place. In all other processes, a call therefore costs nothing extra.
"""

import importlib
import os
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from types import ModuleType
from typing import Any

import numba
from numba import config
from numba.np.ufunc import parallel

from kernels.numba_backend.runtime.capture import CapturedStep

FORKED = (
    "the numba backend cannot run in this process, which was forked after its parent had started "
    "OpenMP threads: start workers with multiprocessing.get_context('spawn'), or set "
    "NUMBA_THREADING_LAYER=tbb"
)


def raise_forked(*_, **__):
    raise RuntimeError(FORKED)


def _serialize(function: Callable, lock: AbstractContextManager) -> Callable:
    """Return the function, run by one thread at a time."""

    @wraps(function)
    def locked(*args, **kwargs):
        with lock:
            return function(*args, **kwargs)

    return locked


def _can_load(layer: str) -> bool:
    """Return whether Numba can load TBB or OpenMP. It skips a TBB that is too old."""
    try:
        if layer == "tbb":
            parallel._check_tbb_version_compatible()
        importlib.import_module(f"numba.np.ufunc.{layer}pool")
    except ImportError:
        return False
    return True


def _uses_workqueue() -> bool:
    """Return whether Numba will choose its own work queue.

    Numba takes the first layer that it can load of those that a name stands for. The names "safe"
    and "threadsafe" never stand for the work queue.
    """
    on_linux = sys.platform.startswith("linux")
    name = str(config.THREADING_LAYER).lower()  # type: ignore[attr-defined]
    layers = {
        "default": config.THREADING_LAYER_PRIORITY,  # type: ignore[attr-defined]
        "forksafe": ["tbb", "workqueue"] if on_linux else ["tbb", "omp", "workqueue"],
    }.get(name, [name])
    if "workqueue" not in layers:
        return False
    return not any(map(_can_load, layers[: layers.index("workqueue")]))


def install_process_guards(backend: ModuleType) -> None:
    """Guard the public functions of the backend, and the captured steps.

    Parameters
    ----------
    backend : module
        The functions in its ``__all__`` are replaced where they need a guard: at once for the
        work queue, in the child after a fork for OpenMP.
    """
    entry_points: list[tuple[Any, str]] = [(backend, name) for name in backend.__all__]
    entry_points.append((CapturedStep, "__call__"))

    def guard_child():
        try:
            forked = numba.threading_layer() == "omp"
        except ValueError:  # no thread was started before the fork
            return
        if forked:
            for owner, name in entry_points:
                setattr(owner, name, raise_forked)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=guard_child)
    if _uses_workqueue():
        lock = threading.RLock()
        # No thread of a child would release the lock: fork only while no kernel runs.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
            )
        for owner, name in entry_points:
            setattr(owner, name, _serialize(getattr(owner, name), lock))
