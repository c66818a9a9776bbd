"""A pytest plugin that ends the process when a Numba kernel reads or writes beyond an array.

    python -m pytest -p tests.guarded tests/test_kernels.py

It runs each test twice. The first run is the plain test; it compiles all kernels that the test
needs, because Numba can compile none while functions of NumPy are replaced. In the second run each
array that a kernel works on fills the end of its own memory pages, between two pages without
access:

- A function of the numba backend gets copies of the caller's arrays in such pages. What the
  function writes into the copies is copied back.
- `numpy.empty` and its relatives return such arrays, and `BufferPool` gets its blocks there.

With CNN_GUARD=start the arrays fill the start of their pages instead. Kernels that allocate memory
of their own are not seen there; `NUMBA_BOUNDSCHECK` checks them (see test_guarded.py).
"""

import ctypes
import functools
import inspect
import math
import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels import numba_backend
from kernels.numba_backend.runtime import buffer_pool

PAGE = mmap.PAGESIZE
PROT_NONE = 0
at_start = os.environ.get("CNN_GUARD") == "start"
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
unguarded_empty = np.empty
count = 0


def guarded_bytes(size: int) -> np.ndarray:
    """Return bytes between two pages without access; they hold a pattern, not zeros."""
    global count
    count += 1
    pages = max(1, -(-size // PAGE)) * PAGE
    region = np.frombuffer(mmap.mmap(-1, pages + 2 * PAGE), np.uint8)
    for start in (0, PAGE + pages):
        if libc.mprotect(region.ctypes.data + start, PAGE, PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
    first = PAGE if at_start else PAGE + pages - size
    part = region[first : first + size]
    part[:] = 0xA5
    return part


# -- NumPy's functions that return new arrays -----------------------------------------------------
def empty(shape, dtype=float, order="C", **options):
    shape = (shape,) if np.ndim(shape) == 0 else tuple(shape)
    dtype = np.dtype(dtype)
    if dtype.hasobject or order not in ("C", "K") or options:
        return unguarded_empty(shape, dtype, order, **options)
    return guarded_bytes(int(math.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)


def empty_like(prototype, dtype=None):
    prototype = np.asanyarray(prototype)
    return empty(prototype.shape, dtype or prototype.dtype)


def full(shape, value, dtype=None):
    array = empty(shape, dtype or np.asarray(value).dtype)
    array[...] = value
    return array


def zeros(shape, dtype=float):
    return full(shape, 0, dtype)


def ones(shape, dtype=float):
    return full(shape, 1, dtype)


# -- arguments of the backend's functions ---------------------------------------------------------
def guarded_copy(value: Any, copies: list[tuple[np.ndarray, np.ndarray]]) -> Any:
    """Return a guarded copy of an array, or of a tuple's arrays, and note which is whose copy."""
    if type(value) is tuple:
        return tuple(guarded_copy(item, copies) for item in value)
    if type(value) is not np.ndarray or value.dtype.hasobject:
        return value
    copy = empty(value.shape, value.dtype)
    copy[...] = value
    copies.append((value, copy))
    return copy


def guard_arguments(function: Callable) -> Callable:
    """Return a function that runs another one on guarded copies of its arrays."""

    @functools.wraps(function)
    def guarded(*args, **kwargs):
        copies: list[tuple[np.ndarray, np.ndarray]] = []
        args = guarded_copy(args, copies)
        kwargs = {name: guarded_copy(value, copies) for name, value in kwargs.items()}
        result = function(*args, **kwargs)
        for original, copy in copies:
            if original.flags.writeable:
                original[...] = copy
        return result

    return guarded


@pytest.hookimpl(hookwrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a test as it is, and then, as pytest does after the yield, with guarded arrays."""
    names = pyfuncitem._fixtureinfo.argnames
    pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    with pytest.MonkeyPatch.context() as patch:
        for function in (empty, empty_like, full, zeros, ones):
            patch.setattr(np, function.__name__, function)
        for name in set(numba_backend.__all__) - {"capture"}:
            function = getattr(numba_backend, name)
            if inspect.isfunction(function):
                patch.setattr(numba_backend, name, guard_arguments(function))
        patch.setattr(buffer_pool, "allocate_block", lambda size: memoryview(guarded_bytes(size)))
        with buffer_pool.allocate_from(buffer_pool.BufferPool()):
            yield


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"{count:,} guarded arrays")
