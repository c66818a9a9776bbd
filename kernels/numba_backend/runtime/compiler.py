"""Compiler options and decorators of the kernels."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
from numba import config, njit

from kernels.numba_backend.runtime.cache import KernelCache

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError(
        "backend 'numba' needs Numba's compiler: unset NUMBA_DISABLE_JIT, or use backend 'numpy'"
    )

# A product and a sum may be fused. Nothing may be reordered ("reassoc", "arcp"): LLVM orders the
# same sum in different ways. It optimizes a kernel again for the object that the cache keeps, and
# compiles some loops twice, for arrays that may overlap and for others. With "reassoc", the batch
# normalization of rows rounded otherwise in the process that compiled it than in later ones, and
# its gradient rounded otherwise in single calls, in one process of thirty. The kernels are as fast
# without: they sum in vectors of their own.
FASTMATH = {"contract", "nsz"}
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": FASTMATH, "error_model": "numpy"}


def _compile_with(**options: Any):
    """Return a decorator that compiles a function with these options when it is first called."""

    def decorate(function):
        kernel = njit(**OPTIONS, **options)(function)
        kernel._cache = KernelCache(function)  # in place of ``cache=True``, which is Numba's own
        return kernel

    return decorate


serial = _compile_with()
parallel = _compile_with(parallel=True)
inlined = _compile_with(forceinline=True)  # for functions that take a few nanoseconds

# Multiply-adds below which a kernel runs on the calling thread. They take 10 to 20 us there. Two
# threads take 2 to 5 us to begin and end a kernel, and up to 250 us while another process uses a
# core: a kernel then waits for a thread that sleeps.
MIN_PARALLEL_WORK = 1 << 20
SWEEP_WORK = 8  # multiply-adds in the time in which a simple sweep reads a number


def workers_for(work: int) -> int:
    """Return how many threads should share a kernel of so many multiply-adds."""
    return numba.get_num_threads() if work >= MIN_PARALLEL_WORK else 1


class SizedKernel:
    """A kernel in two forms, for little and for much work. Each is compiled when it is called.

    Both compute the same bits. The choice depends on the work alone, so that it is the same for
    every number of threads.

    Parameters
    ----------
    function : callable
        It may use `prange`.
    """

    def __init__(self, function: Callable):
        # A name of its own, by which the cache tells it from the other form.
        name = f"{function.__name__}_serial"
        copy = FunctionType(function.__code__, function.__globals__, name)
        copy.__doc__, copy.__qualname__ = function.__doc__, name
        self.serial, self.parallel = serial(copy), parallel(function)

    def for_work(self, work: int) -> Callable:
        """Return the form for so many multiply-adds."""
        return self.parallel if work >= MIN_PARALLEL_WORK else self.serial

    def for_sweep(self, size: int) -> Callable:
        """Return the form for a simple sweep over so many numbers."""
        return self.for_work(SWEEP_WORK * size)
