"""Kernels on small arrays run on one thread.

The threads take 2 us to begin and end a kernel on 2 cores, where one thread alone takes 0.7 us.
While another process uses one of the cores, each kernel waits for 250 to 300 us. A sweep over
`MIN_PARALLEL_SIZE` numbers takes 10 to 30 us on one thread of a Zen 4. A kernel that is called
often, and alone, is a `SizedKernel` instead: its call takes 2.4 us less.

A replay of a captured step tries both by itself (`runtime.capture`).
"""

from collections.abc import Callable
from typing import Any

import numba
from numba.np.ufunc import parallel

from kernels.numba_backend.runtime.capture import in_step
from kernels.numba_backend.runtime.compiler import MIN_PARALLEL_WORK, SWEEP_WORK

MIN_PARALLEL_SIZE = MIN_PARALLEL_WORK // SWEEP_WORK


def run_on_one_thread(function: Callable, *args: Any) -> Any:
    """Call a function; all kernels that it calls run on one thread."""
    if not parallel._is_initialized:
        numba.get_num_threads()  # launches the threads
    # The public functions would take 0.7 and 1 us, more than a small kernel.
    threads = parallel._get_num_threads()  # type: ignore[attr-defined]
    parallel._set_num_threads(1)  # type: ignore[attr-defined]
    try:
        return function(*args)
    finally:
        parallel._set_num_threads(threads)  # type: ignore[attr-defined]


def run_by_size(size: int, function: Callable, *args: Any) -> Any:
    """Call a function, on one thread if its work is small.

    Parameters
    ----------
    size : int
        How many numbers a simple sweep would read in the same time. From `MIN_PARALLEL_SIZE` on,
        all threads work.
    function : callable
        A kernel, or a function that calls kernels. Its results must not depend on the number of
        threads.
    *args
        Its arguments.
    """
    if size >= MIN_PARALLEL_SIZE or in_step():
        return function(*args)
    return run_on_one_thread(function, *args)
