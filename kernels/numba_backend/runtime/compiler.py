"""Compiler options and decorators of the kernels."""

from typing import Any

from numba import config, njit

from kernels.numba_backend.runtime.cache import KernelCache

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError(
        "backend 'numba' needs Numba's compiler: unset NUMBA_DISABLE_JIT, or use backend 'numpy'"
    )

# Sums may be reordered, so that they fill vectors. NaN and infinity keep their meaning.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
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
